"""What chapter 5 measures beside the latency exercise, and what it makes of that exercise.

The exercise itself is `labkit.run_exercise`. Here are two short experiments, one of a few turns
and one of a few pings, and the table that a conclusion is drawn from.
"""

import asyncio
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from websockets.asyncio.client import ClientConnection, connect

from labkit.measure.chunking import last_chunk_ms, overhead_bytes
from labkit.measure.exercise_summary import ExerciseSummary, ServerSummary, by_server, paired
from labkit.measure.networks import PROFILES, read_profile
from labkit.measure.plan import PlannedTurn, prepared
from labkit.measure.recordings import Recording
from labkit.measure.server_process import RunningServer
from labkit.measure.targets import Access, Target, way_to
from labkit.trace import Trace

if TYPE_CHECKING:  # matplotlib takes a second to load
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NETWORKS: Final = tuple(PROFILES)
"""The networks that there are, the one that is none first."""

PREDICTED: Final = (
    "ch5.wait_ms", "ch5.added_at_500_ms", "ch5.naive_times", "ch5.more_on_4g_ms",
    "ch5.two_writes_ms",
)  # fmt: skip
"""What the chapter asks to be predicted."""

_BYTES_PER_MS: Final = 32
_CHUNK: Final = bytes(40 * _BYTES_PER_MS)
_TURNS: Final = 3
_PINGS: Final = 25
_APART_S: Final = 0.02


# -- one chunk size, one network ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Point:
    """A few turns with one chunk size over one network.

    Attributes:
        chunk_ms: Length of one message.
        network: Which network.
        traces: The marks of each turn.
    """

    chunk_ms: int
    network: str
    traces: Sequence[Trace]

    @property
    def waits_ms(self) -> list[float]:
        """The wait of each turn that was answered."""
        return [wait for trace in self.traces if (wait := trace.ttfa_ms()) is not None]

    def __str__(self) -> str:
        waits = self.waits_ms
        if not waits:
            return f"{self.chunk_ms} ms chunks over {self.network}: nothing was heard"
        return (
            f"{self.chunk_ms} ms chunks over {self.network}: {median(waits):.0f} ms "
            f"({min(waits):.0f} to {max(waits):.0f}, {len(waits)} turns)"
        )


async def measure_point(
    server: RunningServer, said: Recording, *, chunk_ms: int, network: str = NETWORKS[0]
) -> Point:
    """Say a recording three times; its end lies early, midway and late in its chunk.

    Args:
        server: In a process of its own.
        said: What is said; short ones take less time.
        chunk_ms: Length of one message.
        network: One of `NETWORKS`, or a file that describes one.

    Raises:
        ClientError: Nobody answers, or the connection was lost.
        InstrumentError: There is no such network.
    """
    access = Access(network=read_profile(network))
    traces = []
    async with way_to(Target.running(server.url), access) as way:
        for number in range(_TURNS):
            planned = PlannedTurn("", 0, chunk_ms, (number + 0.5) / _TURNS, block=0)
            samples, end = prepared(said, planned)
            async with way.connect() as client:
                turn = await client.say(samples, chunk_ms=chunk_ms, end_of_speech=end)
            traces.append(turn.trace)
    return Point(chunk_ms, network, traces)


def plot_points(points: Iterable[Point], *, ax: "Axes | None" = None) -> "Axes":
    """Draw every turn over its chunk size, a mark for each network, a line through the medians."""
    from labkit.measure.figures import LOOKS, axes, log_axis, tidy

    drawn = axes(ax, 7.0, 3.4)
    told = [point for point in points if point.waits_ms]
    log_axis(drawn, sorted({point.chunk_ms for point in told} or {10, 100}))
    for network, look in zip(NETWORKS, LOOKS, strict=False):
        own = sorted((p for p in told if p.network == network), key=lambda p: p.chunk_ms)
        if not own:
            continue
        drawn.plot(
            [p.chunk_ms for p in own], [median(p.waits_ms) for p in own], look.style,
            color=look.colour, marker=look.marker, label=network, linewidth=1.2,
        )  # fmt: skip
        every = [(p.chunk_ms, wait) for p in own for wait in p.waits_ms]
        drawn.plot(*zip(*every, strict=True), ".", color=look.colour, markersize=4, alpha=0.6)
    if told:
        drawn.legend(frameon=False, fontsize=8)
    drawn.set_ylim(bottom=0)
    return tidy(drawn, "The wait for the first sound", "chunk size (ms)", "ms")


# -- two writes and an answer ------------------------------------------------------------------


async def measure_two_writes(server: RunningServer) -> dict[tuple[int, bool], list[float]]:
    """A chunk of audio and a `ping`, until the `pong`, in one write and in two.

    Returns:
        Milliseconds of each round, by number of writes and whether TCP_NODELAY was on.
    """
    kinds = [(writes, nodelay) for writes in (1, 2) for nodelay in (True, False)]
    return {kind: await _rounds(server.url, *kind) for kind in kinds}


async def _rounds(url: str, writes: int, nodelay: bool) -> list[float]:
    took = []
    async with connect(url, compression=None) as client:
        raw = client.transport.get_extra_info("socket")
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, nodelay)
        for _ in range(_PINGS):
            start_ns = time.perf_counter_ns()
            if writes == 1:
                _write_both(client)
            else:
                await client.send(_CHUNK)
                await client.send("ping")
            await client.recv()
            took.append((time.perf_counter_ns() - start_ns) / 1e6)
            await asyncio.sleep(_APART_S)
    return took


def _write_both(client: ClientConnection) -> None:
    """Hand both messages to the system at once; `client.send` writes each by itself."""
    client.protocol.send_binary(_CHUNK)
    client.protocol.send_text(b"ping")
    client.transport.write(b"".join(client.protocol.data_to_send()))


def plot_two_writes(
    measured: Mapping[tuple[int, bool], Sequence[float]], *, ax: "Axes | None" = None
) -> "Axes":
    """Draw every round trip, a row for each way to write."""
    from labkit.measure.figures import BLUE, RED, axes, tidy

    drawn = axes(ax, 7.0, 2.6)
    names = []
    for row, ((writes, nodelay), took) in enumerate(measured.items()):
        names.append(
            f"{writes} write{'s' * (writes > 1)}, TCP_NODELAY {'on' if nodelay else 'off'}"
        )
        colour, marker = (BLUE, "o") if nodelay else (RED, "x")
        drawn.plot(took, [row] * len(took), marker, color=colour, markersize=4, alpha=0.6)
    drawn.set_yticks(range(len(names)), names)
    drawn.invert_yaxis()
    drawn.set_xlim(left=0)
    return tidy(drawn, "A chunk and a ping, until the pong", "ms", "", grid="x")


# -- what the exercise gave --------------------------------------------------------------------


def by_network(results: Mapping[str, ExerciseSummary]) -> list[ServerSummary]:
    """The first server of several exercises, called by the network of each."""
    return [replace(result.servers[0], name=network) for network, result in results.items()]


def longer_ms(first: ExerciseSummary, second: ExerciseSummary) -> float:
    """How much longer one waits for the first server of the second exercise than of the first.

    The median over recordings that both said, in the chunk sizes that both had.
    """
    before, after = (next(iter(by_server(one.rows).values())) for one in (first, second))
    sizes = {row.chunk_ms for row in before} & {row.chunk_ms for row in after}
    first_rows, second_rows = (
        [row for row in rows if row.chunk_ms in sizes] for rows in (before, after)
    )
    return median(paired(first_rows, second_rows))


def way_out_ms(chunk_ms: int, network: str) -> float:
    """How long a chunk takes to go out over a network's uplink, its headers included."""
    return last_chunk_ms(chunk_ms, PROFILES[network].conditions.up.bytes_per_s)


def networks_figure(networks: Sequence[ServerSummary]) -> "Figure":
    """One server over several networks: how long the wait is, and what the chunk size adds."""
    from matplotlib.figure import Figure

    from labkit.measure.experiment_figures import plot_effect, plot_waits

    figure = Figure(figsize=(11, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    plot_waits(networks, ax=left)
    plot_effect(networks, ax=right)
    return figure


def table(server: ServerSummary) -> list[dict[str, Any]]:
    """What a server's wait and headers are at each chunk size, a row each.

    A row has `chunk_ms`; `added_ms`, by how much later the transcript is than with the smallest
    chunks, with its 95 % interval from `low_ms` to `high_ms`; `predicted_ms`, what half a chunk
    more predicts; and `headers_percent`, of the audio.
    """
    rows = []
    for size in server.sizes:
        payload = size.chunk_ms * _BYTES_PER_MS
        added = size.effect
        rows.append(
            {
                "chunk_ms": size.chunk_ms,
                "added_ms": 0.0 if added is None else added.value,
                "low_ms": 0.0 if added is None else added.low,
                "high_ms": 0.0 if added is None else added.high,
                "predicted_ms": size.predicted_ms,
                "headers_percent": 100 * overhead_bytes(payload, 1) / payload,
            }
        )
    return rows
