"""Driving a coroutine from synchronous code."""

import asyncio
import subprocess
import sys

from labkit.notebook import run


async def answer() -> int:
    await asyncio.sleep(0)
    return 42


def test_without_a_loop() -> None:
    assert run(answer()) == 42


def test_inside_a_running_loop() -> None:
    """In a process of its own, since the patch stays for the life of the process."""
    program = (
        "import asyncio\n"
        "from labkit.notebook import run\n"
        "async def answer():\n"
        "    await asyncio.sleep(0)\n"
        "    return 42\n"
        "async def cell():\n"
        "    return run(answer())\n"
        "raise SystemExit(asyncio.run(cell()))\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 42
