"""What chapter 1 looks at: pings while a turn runs, when the pieces of a reply come, samples.

Each measures with a client of its own and gives a small object that draws itself: data in, `Axes`
out.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from websockets.asyncio.client import ClientConnection, connect

from labkit.audio.pcm import SAMPLE_RATE, Float32, chunks, encode_s16le, read_audio
from labkit.client.plain import VoiceClient
from labkit.measure.recordings import Recording
from labkit.measure.server_process import RunningServer

if TYPE_CHECKING:  # matplotlib takes a second to load
    from matplotlib.axes import Axes

_CHUNK: Final = SAMPLE_RATE // 25
_EVERY_S: Final = 0.01
_BEFORE_S: Final = 0.3
_DRAWN: Final = 30
"""Samples that are drawn on either side."""


@dataclass(frozen=True, slots=True)
class Pings:
    """Round trips of `ping` around one turn of another caller.

    Attributes:
        at_ms: When each `ping` went out, counted from `end_stream`.
        took_ms: How long its `pong` took.
        turn_ms: How long the turn took.
    """

    at_ms: list[float]
    took_ms: list[float]
    turn_ms: float

    @property
    def slowest_ms(self) -> float:
        """The slowest while the turn ran."""
        return max(
            took
            for at, took in zip(self.at_ms, self.took_ms, strict=True)
            if at + took > 0 and at < self.turn_ms
        )

    @property
    def idle_ms(self) -> float:
        """The median before it."""
        idle = [took for at, took in zip(self.at_ms, self.took_ms, strict=True) if at + took < 0]
        return float(np.median(idle))


async def measure_pings(server: RunningServer, said: Recording) -> Pings:
    """Ping on one connection, while another says something and is answered.

    Args:
        server: In a process of its own, or this one would be measured.
        said: What the other caller says.

    Raises:
        ClientError: Nobody answers, or the connection was lost.
    """
    sent_ns: list[int] = []
    took_ms: list[float] = []
    over = asyncio.Event()

    async def ping(client: VoiceClient) -> None:
        while not over.is_set():
            sent_ns.append(time.perf_counter_ns())
            took_ms.append(await client.ping() * 1e3)
            await asyncio.sleep(_EVERY_S)

    async with VoiceClient.connect(server.url) as pinger, connect(_streamed(server)) as speaker:
        await _say(speaker, said)
        await _take_reply(speaker)  # the first turn of a server is slower than the others
        pinging = asyncio.create_task(ping(pinger))
        await asyncio.sleep(_BEFORE_S)
        asked_ns = await _say(speaker, said)
        turn_ms = (await _take_reply(speaker) - asked_ns) / 1e6
        await asyncio.sleep(_BEFORE_S / 3)
        over.set()
        await pinging
    return Pings([(at - asked_ns) / 1e6 for at in sent_ns[: len(took_ms)]], took_ms, turn_ms)


@dataclass(frozen=True, slots=True)
class Arrivals:
    """When the pieces of a reply came.

    Attributes:
        at_ms: The time of each, counted from `end_stream`.
        seconds: How much audio each holds.
    """

    at_ms: list[float]
    seconds: list[float]


async def measure_arrivals(server: RunningServer, said: Recording) -> Arrivals:
    """Say something twice, and note when each piece of the second reply comes."""
    async with connect(_streamed(server)) as speaker:
        await _say(speaker, said)
        await _take_reply(speaker)
        asked_ns = await _say(speaker, said)
        pieces: list[tuple[int, int]] = []
        await _take_reply(speaker, pieces)
    return Arrivals(
        [(at - asked_ns) / 1e6 for at, _ in pieces],
        [size / 2 / SAMPLE_RATE for _, size in pieces],
    )


def _streamed(server: RunningServer) -> str:
    return f"{server.url.rstrip('/')}/?reply=stream"


async def _say(socket: ClientConnection, said: Recording) -> int:
    """Send a recording faster than it is spoken, and `end_stream`; gives the time of that."""
    for chunk in chunks(read_audio(said.path), _CHUNK):
        await socket.send(encode_s16le(chunk))
    asked_ns = time.perf_counter_ns()
    await socket.send("end_stream")
    return asked_ns


async def _take_reply(socket: ClientConnection, pieces: list[tuple[int, int]] | None = None) -> int:
    """Take in everything up to `done`; gives its time."""
    async for message in socket:
        now_ns = time.perf_counter_ns()
        if isinstance(message, bytes):
            if pieces is not None:
                pieces.append((now_ns, len(message)))
        elif '"done"' in message:
            return now_ns
    return time.perf_counter_ns()


def plot_pings(measured: Mapping[str, Pings], *, ax: "Axes | None" = None) -> "Axes":
    """Draw how long each `pong` took, for one server or several.

    Args:
        measured: The pings of each server, by its name.
        ax: Draw here; without it, into a figure of its own.
    """
    from labkit.measure.figures import AFTER, BEFORE, axes, plain_ticks, tidy

    drawn = axes(ax, 7.0, 3.2)
    for (name, pings), look in zip(measured.items(), (BEFORE, AFTER), strict=False):
        drawn.plot(
            pings.at_ms, pings.took_ms, look.marker, markersize=4, color=look.colour, label=name,
            alpha=0.7,
        )  # fmt: skip
        drawn.axvspan(0, pings.turn_ms, color=look.colour, alpha=0.08)
    drawn.set_yscale("log")
    plain_ticks(drawn.yaxis)
    drawn.legend(frameon=False)
    return tidy(
        drawn, "While another caller is answered (shaded)", "ms after end_stream", "pong after, ms"
    )


def plot_arrivals(measured: Mapping[str, Arrivals], *, ax: "Axes | None" = None) -> "Axes":
    """Draw how much audio of a reply is there at each moment, for one server or several."""
    from labkit.measure.figures import AFTER, BEFORE, axes, tidy

    drawn = axes(ax, 7.0, 3.2)
    for (name, one), look in zip(measured.items(), (BEFORE, AFTER), strict=False):
        there = np.cumsum(one.seconds)
        at = [one.at_ms[0], *one.at_ms]
        drawn.plot(
            at, [0, *there], look.style, marker=look.marker, markersize=4, color=look.colour,
            label=name, drawstyle="steps-post",
        )  # fmt: skip
    drawn.set_xlim(left=0)
    drawn.legend(frameon=False)
    return tidy(drawn, "The reply as it arrives", "ms after end_stream", "audio there, s")


def largest_jump(samples: Float32) -> int:
    """Index of the sample behind which the next one is furthest away."""
    return int(np.abs(np.diff(samples)).argmax())


def plot_samples(samples: Float32, around: int, *, ax: "Axes | None" = None) -> "Axes":
    """Draw the samples on either side of one, each as a dot."""
    from labkit.measure.figures import BLUE, GREY, axes, tidy

    drawn = axes(ax, 7.0, 2.6)
    first = max(0, around - _DRAWN)
    shown = samples[first : around + _DRAWN]
    at_ms = (first + np.arange(len(shown))) * 1000 / SAMPLE_RATE
    drawn.axhline(0, color=GREY, linewidth=0.7)
    drawn.plot(at_ms, shown, "o-", markersize=3, color=BLUE, linewidth=0.8)
    drawn.set_ylim(-1.05, 1.05)
    return tidy(drawn, f"Samples around {at_ms[around - first]:.1f} ms", "ms", "sample")
