"""What several tests share."""

import asyncio
import base64
import json
import shutil
import subprocess
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any


def chromium() -> str | None:
    """The browser that chapters are opened in; None where there is none, or nothing to drive it."""
    if find_spec("playwright") is None:
        return None
    names = ("chromium", "chromium-browser", "google-chrome")
    return next(filter(None, map(shutil.which, names)), None)


async def until(condition: Callable[[], object], seconds: float = 10) -> None:
    """Let the loop run until `condition` holds; fails after `seconds`."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - the condition has no event to wait on
            await asyncio.sleep(0.001)


def told_by_node(script: str, module: Path) -> Any:
    """What a script writes as JSON about a module of JavaScript, which it gets in base64."""
    source = base64.b64encode(module.read_bytes()).decode()
    command = ["node", "--input-type=module", "-e", script, source]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
