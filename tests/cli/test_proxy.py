"""`labkit proxy`: from its options to links, and one run from start to signal."""

import asyncio
import re
import signal
import socket
import sys
from pathlib import Path
from typing import Final

import pytest
import typer
from typer.testing import CliRunner

from labkit.cli import proxy as module
from labkit.measure.links import Conditions, Fault, Link
from labkit.measure.netem import UNCHANGED
from labkit.measure.networks import PROFILES

ROOT: Final = Path(__file__).resolve().parents[2]

app = typer.Typer()
app.command()(module.proxy)


def test_options_change_a_network_and_leave_the_rest() -> None:
    base = PROFILES["4g"].conditions.up
    changed = module._link(base, None, 0.0, 80.0, 7, Fault.RESET)
    assert changed == Link(
        delay_ms=base.delay_ms, jitter_ms=0, bytes_per_s=10_000, cut_after=7, fault=Fault.RESET
    )


def test_a_cut_may_be_for_one_connection_alone() -> None:
    cut = Conditions(Link(delay_ms=5, cut_after=1), Link(cut_after=2))
    assert [module._plan(cut, None)(number) for number in range(2)] == [cut, cut]
    alone = module._plan(cut, 1)
    assert [alone(number) for number in range(3)] == [
        Conditions(Link(delay_ms=5)),
        cut,
        Conditions(Link(delay_ms=5)),
    ]


def test_without_options_nothing_is_changed() -> None:
    assert module._network(None) == UNCHANGED


def test_help_gives_the_figures_of_every_network() -> None:
    result = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "400"})
    assert result.exit_code == 0
    for name in PROFILES:
        assert f"{name} {PROFILES[name].conditions.up.delay_ms:g} ms + " in result.output


@pytest.mark.parametrize("option", ["--up-kbps", "--up-delay-ms", "--down-jitter-ms"])
@pytest.mark.parametrize("value", ["inf", "nan"])
def test_a_number_without_end_is_refused_under_the_name_of_its_option(
    option: str, value: str
) -> None:
    result = CliRunner().invoke(app, [option, value])
    assert result.exit_code == 2
    assert f"Invalid value for '{option}'" in result.output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_it_says_where_it_listens_and_what_becomes_of_connections(
    number: signal.Signals,
) -> None:
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
        listener.setblocking(False)
        client.setblocking(False)
        target = f"ws://127.0.0.1:{listener.getsockname()[1]}"
        options = ["--to", target, "--port", "0", "--cut-down-after", "3", "--fault", "reset"]
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "labkit", "proxy", *options, cwd=ROOT,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        ready = (await process.stdout.readline()).decode()
        found = re.fullmatch(rf"labkit proxy is ready at ws://(.+):(\d+) before {target}\n", ready)
        assert found, ready
        await loop.sock_connect(client, (found[1], int(found[2])))
        server, _ = await loop.sock_accept(listener)
        with server:
            await loop.sock_sendall(server, b"12345")
            assert await loop.sock_recv(client, 10) == b"123"
            log = [(await process.stderr.readline()).decode() for _ in range(3)]
        process.send_signal(number)
        _, rest = await process.communicate()
    assert [line.split(" connection ")[1].strip() for line in log] == [
        "0: open",
        "0: reset at 0 bytes up, 3 bytes down",
        "0: ended, 0 bytes up, 3 bytes down",
    ]
    assert rest == b""
    assert process.returncode == 0
