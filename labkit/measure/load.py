"""Many paced callers against a server, level by level: what `labkit load` runs.

Every level is run on labkit's server and on a bare one, in random order, with the same callers;
each server has a process of its own, and all callers together have this one.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from labkit.audio.pcm import SAMPLE_RATE, Float32, read_audio
from labkit.client.answers import Deadlines
from labkit.client.dial import shown
from labkit.client.plain import VoiceClient
from labkit.client.speech import Clock, chunk_samples
from labkit.measure.callers import Caller, Manners
from labkit.measure.load_summary import (
    BARE,
    COLUMNS,
    LATENESS_BOUND_MS,
    Level,
    LoadSummary,
    summarise_level,
)
from labkit.measure.plan import draw_scripts, due_times, plan_levels
from labkit.measure.recordings import utterances
from labkit.measure.results import Experiment, Tell
from labkit.measure.server_process import RunningServer, Usage, labkit_server, running_servers
from labkit.measure.targets import LABKIT

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GIVEN: Final = "given"
"""Name of a server that was already running."""

_BOUND_MS: Final = {"echo": 100.0, "voice": 1000.0}
_LEAD_S: Final = 0.1
_SAMPLE_S: Final = 0.25
_AT_ONCE: Final = 32


def recorded_speech(folder: Path | None, chunk_ms: int) -> list[Float32]:
    """Every recording of one utterance, up to the chunk that holds the end of its speech.

    Raises:
        AudioError: A recording or the manifest is not usable.
    """
    size = chunk_samples(chunk_ms)
    return [
        read_audio(one.path)[: ((one.end_of_speech_sample or 0) // size + 1) * size]
        for one in utterances(folder)
    ]


@dataclass(slots=True, kw_only=True)
class Load(Experiment[Level, LoadSummary]):
    """What to run, through `labkit.measure.results.conduct`.

    Attributes:
        recordings: Folder with recordings and their manifest; by default those of labkit.
        pipeline: What answers in labkit's server.
        sessions: Numbers of callers, rising.
        seed: Draws phases, orders of recordings, and which server comes first.
        url: Load this server instead of labkit's and the bare one.
        manners: How callers behave; what a given server does not offer is not asked for.
        model_options: Options that name the models, handed on to labkit's server.
    """

    recordings: Path | None = None
    pipeline: Literal["echo", "voice"] = "echo"
    sessions: tuple[int, ...] = (1, 8, 16, 32, 64)
    seconds: float = 15.0
    seed: int = 1
    url: str | None = None
    manners: Manners = field(default_factory=Manners)
    model_options: tuple[str, ...] = ()
    clock: Clock = field(default_factory=Clock)

    raw = "load.csv"
    summary = "load.json"
    columns = COLUMNS

    @property
    def bound_ms(self) -> float:
        """What the 95th percentile of a turn is held against."""
        return _BOUND_MS[self.pipeline]

    async def run(self, record: Callable[[Level], None], tell: Tell) -> None:
        """Run all levels.

        Raises:
            AudioError: A recording or the manifest is not usable.
            ServerError: A server did not start.
            ClientError: No server answers at the given address.
        """
        speeches = recorded_speech(self.recordings, self.manners.chunk_ms)
        async with AsyncExitStack() as stack:
            tell("starting the servers", 0, 1)
            servers = await self._servers(stack)
            plan = plan_levels(self.sessions, list(servers), seed=self.seed)
            for number, (sessions, name) in enumerate(plan):
                part = _part(tell, number, len(plan), self.seconds, f"{sessions} × {name}")
                server = servers[name]
                record(await run_level(server, sessions, speeches, self, name=name, tell=part))

    async def _servers(self, stack: AsyncExitStack) -> dict[str, RunningServer]:
        """The servers by name, started where none was given."""
        if self.url is not None:
            await self._meet(self.url)
            return {GIVEN: RunningServer(self.url)}
        # Twice the places: a level may begin while the callers of the one before still hang up.
        places = str(2 * self.sessions[-1])
        commands = {
            LABKIT: labkit_server(
                "--pipeline", self.pipeline, "--max-sessions", places, *self.model_options
            ),
            BARE: ["labkit.course.bare_server"],
        }
        return await stack.enter_async_context(running_servers(commands))

    async def _meet(self, url: str) -> None:
        """Say something once: what a server does wrong is told in words, and whether it streams."""
        deadlines = Deadlines(answer_s=self.manners.patience_s)
        async with VoiceClient.connect(url, deadlines=deadlines) as client:
            await client.say(np.zeros(SAMPLE_RATE // 10, np.float32))
            self.manners = replace(self.manners, stream=client.stream)

    def summarise(self, rows: Sequence[Level]) -> LoadSummary:
        """Sum up the levels."""
        return LoadSummary(rows, self.bound_ms, streamed=self.manners.stream)

    def about(self) -> dict[str, Any]:
        """What was asked for, and how latencies count."""
        settings = asdict(self) | {
            "recordings": self.recordings and self.recordings.name,
            "url": self.url and shown(self.url),
        }
        del settings["clock"]
        return {
            "settings": settings,
            "bound_ms": self.bound_ms,
            "generator_lateness_bound_ms": LATENESS_BOUND_MS,
            "method": "latencies count from when a message was due; lost turns and pings count "
            "with the callers' patience; all callers are one process, each server is one of its "
            "own",
        }

    def draw(self, summary: LoadSummary) -> dict[str, "Figure"]:
        """The capacity curve."""
        # Drawing libraries take a second to load, which a run does not have to wait for.
        from labkit.measure.experiment_figures import capacity_figure

        return {"capacity": capacity_figure(summary.levels, bound_ms=summary.bound_ms)}


def _part(
    tell: Tell, number: int, levels: int, seconds: float, now: str
) -> Callable[[float], None]:
    """Tells of the seconds of level `number` as a part of the whole."""
    return lambda passed: tell(now, round(number * seconds + passed), round(levels * seconds))


async def run_level(
    server: RunningServer,
    sessions: int,
    speeches: Sequence[Float32],
    load: Load,
    *,
    name: str,
    tell: Callable[[float], None] = lambda _: None,
) -> Level:
    """Run one level on one server, with the length, manners and clock of `load`.

    `tell` is told several times a second how many seconds have passed.
    """
    before, tokens = server.usage(), await _tokens(server)
    scripts = draw_scripts(
        seed=load.seed,
        callers=sessions,
        recordings=len(speeches),
        chunk_ms=load.manners.chunk_ms,
        ping_every_s=load.manners.ping_every_s,
    )
    callers = [Caller(server.url, script, speeches, load.manners, load.clock) for script in scripts]
    try:
        await _at_once(caller.connect for caller in callers)
        begin_ns = load.clock.now_ns() + round(_LEAD_S * 1e9)
        end_ns = begin_ns + round(load.seconds * 1e9)
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(_watch(server, begin_ns, end_ns, load.clock, tell))
            for caller in callers:
                if not caller.log.refused:
                    group.create_task(caller.call(begin_ns, end_ns))
    finally:
        await _at_once(caller.hang_up for caller in callers)
    seen, own_s = watch.result()
    level = summarise_level(
        server=name,
        seconds=load.seconds,
        patience_s=load.manners.patience_s,
        logs=[caller.log for caller in callers],
    )
    made = await _tokens(server) - tokens
    level = replace(level, tokens_per_s=made / load.seconds if made else None)
    return _with_usage(level, [before, *seen, server.usage()], own_s)


async def _tokens(server: RunningServer) -> int:
    """Tokens of the server's replies so far; 0 where it does not tell."""
    return (await asyncio.to_thread(server.status)).tokens or 0


async def _at_once(work: Iterable[Callable[[], Awaitable[None]]]) -> None:
    """Open or close connections, no more at a time than a listening socket lets wait."""
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(part: Callable[[], Awaitable[None]]) -> None:
        async with gate:
            await part()

    await asyncio.gather(*map(one, work))


async def _watch(
    server: RunningServer,
    begin_ns: int,
    end_ns: int,
    clock: Clock,
    tell: Callable[[float], None],
) -> tuple[list[Usage | None], float]:
    """What the server takes up from `begin_ns` to `end_ns`, and this process's seconds of CPU."""
    await clock.sleep_until(begin_ns)
    seen = [server.usage()]
    own_s = time.process_time()
    for due_ns in [*due_times(begin_ns, _SAMPLE_S, end_ns)[1:], end_ns]:
        await clock.sleep_until(due_ns)
        seen.append(server.usage())
        tell((due_ns - begin_ns) / 1e9)
    return seen, time.process_time() - own_s


def _with_usage(level: Level, seen: Sequence[Usage | None], own_s: float) -> Level:
    """The level with what was seen of its server: before it, from begin to end, and after it."""
    rss = [None if usage is None else usage.rss_bytes for usage in seen]
    first, last = seen[1], seen[-2]
    return replace(
        level,
        rss_before=rss[0],
        rss_peak=max((size for size in rss[1:-1] if size), default=None),
        rss_after=rss[-1],
        cpu_per_s=(last.cpu_s - first.cpu_s) / level.seconds if first and last else None,
        generator_cpu_per_s=own_s / level.seconds,
    )
