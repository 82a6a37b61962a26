"""`labkit proxy`: a bad network before a server, until Ctrl-C."""

import asyncio
import logging
import signal
import sys
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from importlib.resources import files
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from labkit.cli.terminal import number, run
from labkit.measure.links import Conditions, Direction, Fault, Link
from labkit.session import DEFAULT_PORT

if TYPE_CHECKING:
    from labkit.measure.netem import Proxy

_log = logging.getLogger("labkit")


def _figures(name: str, told: Mapping[str, Any]) -> str:
    up, down = told.get("up", {}), told.get("down", {})
    late = f"{name} {up.get('delay_ms', 0)} ms + {up.get('jitter_ms', 0)}"
    if "mbit_per_s" not in up or "mbit_per_s" not in down:
        return late
    return f"{late}, {up['mbit_per_s']} / {down['mbit_per_s']} Mbit/s"


# As the file tells them: what checks them takes long to import, and every help would wait for it.
_NETWORKS: Final = tomllib.loads(
    files("labkit.measure").joinpath("networks.toml").read_text("utf-8")
)
_KNOWN: Final = "; ".join(_figures(name, told) for name, told in _NETWORKS.items())
_UP: Final = "Up, from the client to the server"
_DOWN: Final = "Down, from the server to the client"


_delay = partial(number, min=0, metavar="MS", help="Milliseconds by which bytes are late.")
_jitter = partial(
    number, min=0, metavar="MS", help="Most milliseconds added to the delay; bytes stay in order."
)
_rate = partial(number, min=0.001, metavar="KBPS", help="Most kilobits (1000 bits) per second.")
_cut = partial(
    typer.Option, min=0, metavar="BYTES",
    help="Let exactly so many bytes of a connection pass; then --fault happens.",
)  # fmt: skip


def proxy(
    to: Annotated[
        str, typer.Option(metavar="URL", help="The server, as ws://HOST:PORT.")
    ] = f"ws://localhost:{DEFAULT_PORT}",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Where to listen on 127.0.0.1; 0 for any.")
    ] = DEFAULT_PORT + 1,
    profile: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="Begin with a kind of network; the other options change it. There are, as delay "
            f"+ jitter and rates up / down: {_KNOWN}. Or name a file that describes one.",
        ),
    ] = None,
    up_delay_ms: Annotated[float | None, _delay(rich_help_panel=_UP)] = None,
    up_jitter_ms: Annotated[float | None, _jitter(rich_help_panel=_UP)] = None,
    up_kbps: Annotated[float | None, _rate(rich_help_panel=_UP)] = None,
    cut_up_after: Annotated[int | None, _cut(rich_help_panel=_UP)] = None,
    down_delay_ms: Annotated[float | None, _delay(rich_help_panel=_DOWN)] = None,
    down_jitter_ms: Annotated[float | None, _jitter(rich_help_panel=_DOWN)] = None,
    down_kbps: Annotated[float | None, _rate(rich_help_panel=_DOWN)] = None,
    cut_down_after: Annotated[int | None, _cut(rich_help_panel=_DOWN)] = None,
    fault: Annotated[
        Fault,
        typer.Option(
            help="What a cut does: an orderly close of both sides; a reset of both; half-open, "
            "where all is swallowed and nobody is told; or a stall of the direction that was cut."
        ),
    ] = Fault.CLOSE,
    cut_connection: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="Cut this connection alone, 0 the first; else all."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Draws the jitter.")] = 0,
) -> None:
    """Put a bad network before a server: delay, throttle and cut what goes through."""
    from labkit.client.dial import address_of, shown
    from labkit.measure.netem import Proxy

    host, target_port = address_of(to)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    network = _network(profile)
    plan = _plan(
        Conditions(
            _link(network.up, up_delay_ms, up_jitter_ms, up_kbps, cut_up_after, fault),
            _link(network.down, down_delay_ms, down_jitter_ms, down_kbps, cut_down_after, fault),
        ),
        cut_connection,
    )
    run(_until_signal(Proxy(host, target_port, conditions=plan, seed=seed, port=port), shown(to)))


def _network(named: str | None) -> Conditions:
    if named is None:
        return Conditions()
    from labkit.measure.networks import read_profile

    profile = read_profile(named)
    _log.info("%s: %s", profile.name, profile.about)
    return profile.conditions


def _link(
    base: Link,
    delay_ms: float | None,
    jitter_ms: float | None,
    kbps: float | None,
    cut_after: int | None,
    fault: Fault,
) -> Link:
    """`base` with what was asked for changed."""
    asked = {"delay_ms": delay_ms, "jitter_ms": jitter_ms, "bytes_per_s": kbps and 125 * kbps}
    changed: dict[str, Any] = {name: told for name, told in asked.items() if told is not None}
    return replace(base, cut_after=cut_after, fault=fault, **changed)


def _plan(conditions: Conditions, cut_connection: int | None) -> Callable[[int], Conditions]:
    """The conditions of each connection by its number; cuts may be for one of them alone."""
    whole = Conditions(*(replace(conditions[way], cut_after=None) for way in Direction))
    return lambda number: conditions if cut_connection in (None, number) else whole


async def _until_signal(proxy: "Proxy", target: str) -> None:
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    for one in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(one, asked.set)
    async with proxy:
        sys.stdout.write(f"labkit proxy is ready at {proxy.url()} before {target}\n")
        sys.stdout.flush()
        await asked.wait()
