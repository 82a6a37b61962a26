"""The latency exercise: recorded utterances, chunk sizes in random order, one row per turn.

Somebody has to decide that a speaker is through. In the mode `push` the client asks for its answer
as soon as the speech ends; in the mode `vad` it keeps its microphone open, and the server decides.
For a server that cannot, its client does, after as much silence.

What two runs wrote can be compared.
"""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from operator import attrgetter
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Final, Self

from pydantic import TypeAdapter

from labkit.audio.pcm import SAMPLE_RATE, Float32
from labkit.client.dial import shown
from labkit.client.plain import VoiceClient
from labkit.client.turn import ClientTurn
from labkit.errors import ClientError, InstrumentError, LabkitError, ProtocolError
from labkit.measure import decided
from labkit.measure.callers import Pings, pinging
from labkit.measure.chunking import CHUNK_SIZES_MS, overhead_bytes
from labkit.measure.exercise_summary import (
    COLUMNS,
    FEW_BLOCKS,
    TOO_FEW,
    ExerciseSummary,
    Row,
    balanced_means,
    by_server,
)
from labkit.measure.plan import LONGEST_S, PlannedTurn, plan_turns, prepared, short_utterances
from labkit.measure.recordings import Recording
from labkit.measure.results import Experiment, Tell, read_rows
from labkit.measure.statistics import Estimate, median
from labkit.measure.targets import Access, Target, Way, way_to
from labkit.trace import Mark, Stage, Trace, wrong_parts
from labkit.voice.hearing import Endpointing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FULL: Final = 20
"""Blocks of a whole run. A block of nine chunk sizes has thirteen turns of some two seconds, nearly
all of them speech, so that twenty blocks take nine minutes."""
_QUICK: Final = 8
_FEWEST: Final = 5
"""Blocks of a run of several servers, who share the time; fewer would have no interval."""
_LONGEST_QUICK_S: Final = 1.6
_PONG_S: Final = 2.0
"""A server that has not answered a ping by then answers none."""
_WHOLE: Final = "the whole wait"
_ROWS: Final = TypeAdapter(Row)


@dataclass(slots=True, kw_only=True)
class Exercise(Experiment[Row, ExerciseSummary]):
    """What to run, through `labkit.measure.results.conduct`.

    Attributes:
        recordings: Folder with recordings and their manifest; by default those of labkit.
        targets: The servers, by turns; the others are compared with the first.
        access: Network, TLS and compression, the same for all of them.
        seed: Draws order, recordings and the phase of the end of speech in its chunk.
        blocks: How many recordings are said, each in every chunk size to every server.
        decided: Nobody asks for the answer: the server decides when it is due.
        longest_s: Recordings whose speech is longer are left out: speaking is most of the time.
        pings_ms: Round trips of `ping` while turns run, by server; only with several servers.
        notes: What servers do not offer.
    """

    recordings: Path | None = None
    targets: Sequence[Target] = field(default_factory=lambda: (Target.labkit(),))
    access: Access = field(default_factory=Access)
    seed: int = 1
    blocks: int = _FULL
    chunk_sizes_ms: Sequence[int] = CHUNK_SIZES_MS
    decided: bool = False
    longest_s: float = LONGEST_S
    pings_ms: dict[str, list[float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    raw = "turns.csv"
    summary = "summary.json"
    columns = COLUMNS

    @classmethod
    def of_length(
        cls,
        *,
        quick: bool,
        targets: Sequence[Target],
        chunk_sizes_ms: Sequence[int] = CHUNK_SIZES_MS,
        **settings: Any,
    ) -> Self:
        """An exercise of some nine minutes, or of three; several servers share the time.

        With a single chunk size a block is short, so there are as many as for one server.

        Raises:
            InstrumentError: There is no server to measure.
        """
        if not targets:
            raise InstrumentError("there is no server to measure; name one")
        share = 1 if len(chunk_sizes_ms) == 1 else len(targets)
        return cls(
            targets=targets,
            chunk_sizes_ms=chunk_sizes_ms,
            blocks=max(_FEWEST, (_QUICK if quick else _FULL) // share),
            longest_s=_LONGEST_QUICK_S if quick else LONGEST_S,
            **settings,
        )

    async def run(self, record: Callable[[Row], None], tell: Tell) -> None:
        """Run the turns: the servers in processes of their own, the client in this one.

        A turn that a server fails at is a row like any other. A server that fails at its first
        turn ends the run, since that is a mistake in how it was started or written.

        Raises:
            AudioError: A recording or the manifest is not usable.
            ServerError: A server did not start.
            InstrumentError: The network or TLS cannot be had, or the parts of a wait do not add up.
            LabkitError: No recording is short enough, or a server failed at its first turn.
        """
        recordings = short_utterances(self.recordings, longest_s=self.longest_s)
        turns = plan_turns(
            seed=self.seed,
            recordings=len(recordings),
            blocks=self.blocks,
            servers=[target.name for target in self.targets],
            chunk_sizes_ms=self.chunk_sizes_ms,
        )
        async with AsyncExitStack() as stack:
            servers: dict[str, _Server] = {}
            for target in self.targets:
                tell(f"starting {target.name}", 0, len(turns))
                way = await stack.enter_async_context(way_to(target, self.access))
                servers[target.name] = server = _Server(target.name, way, self.notes)
                if self.decided:
                    await server.find_out_who_decides()
                if len(self.targets) > 1:
                    server.rtts_ms = self.pings_ms.setdefault(target.name, [])
            for number, turn in enumerate(turns):
                now = "warming up" if turn.warmup else f"chunks of {turn.chunk_ms} ms"
                tell(now, number, len(turns))
                row = await servers[turn.server].take(turn, recordings[turn.recording])
                record(row)  # first: its marks tell what is wrong with it
                if wrong := wrong_parts(row.stages, row.ttfa_ms):
                    raise InstrumentError(f"a turn of {row.server} cannot be believed: {wrong}")
        tell("done", len(turns), len(turns))

    def summarise(self, rows: Sequence[Row]) -> ExerciseSummary:
        """Sum up the turns."""
        return ExerciseSummary(rows, self.pings_ms, notes=self.notes, seed=self.seed)

    def about(self) -> dict[str, Any]:
        """What was drawn and run, under which conditions, and by which clock."""
        return {
            "seed": self.seed,
            "blocks": self.blocks,
            "end_of_a_turn": "decided by the server" if self.decided else "told by the client",
            "chunk_sizes_ms": list(self.chunk_sizes_ms),
            "servers": {t.name: " ".join(t.command) or shown(t.url) for t in self.targets},
            **self.access.about(),
            "clock": "client and servers of one machine share the monotonic clock; of a server "
            "elsewhere it is estimated from pings",
        }

    def draw(self, summary: ExerciseSummary) -> dict[str, "Figure"]:
        """The trade-off, the waterfall, every turn, and the servers where there are several."""
        # Drawing libraries take a second to load, which a run does not have to wait for.
        from labkit.measure.experiment_figures import exercise_figures

        rate = self.access.network.conditions.up.bytes_per_s
        return exercise_figures(summary, conditions=str(self.access), bytes_per_s=rate)


@dataclass(slots=True)
class _Server:
    """A server of the exercise, and what its first turn showed of it.

    Attributes:
        rtts_ms: Where to note the round trips of pings while turns run; None measures none.
        known: Whether it has answered a turn.
        decides: Whether it decides that a turn is over, and is left to it.
        silence_s: Where it does not, and should: how long its client waits instead.
    """

    name: str
    way: Way
    notes: list[str]
    rtts_ms: list[float] | None = None
    known: bool = False
    stream: bool = True
    decides: bool = False
    silence_s: float = 0.0

    async def find_out_who_decides(self) -> None:
        """Leave the end of a turn to the server, or to its client where it cannot."""
        self.decides = await self.way.decides()
        if not self.decides:
            self.silence_s = Endpointing().stop_s
            self.notes.append(
                f"{self.name} has no turns whose end it decides (labkit.v1): its client asks after "
                f"{self.silence_s:g} s of silence."
            )

    async def take(self, turn: PlannedTurn, recording: Recording) -> Row:
        """One turn as a new conversation, so that every turn has the same prompt before it."""
        samples, end_of_speech = prepared(recording, turn)
        pings = Pings([] if self.rtts_ms is None else self.rtts_ms)
        try:
            async with AsyncExitStack() as stack:
                if self.known and not turn.warmup and self.rtts_ms is not None:
                    beside = pinging(self.way.url, pings, **self.way.reach)
                    await stack.enter_async_context(beside)
                if self.decides:
                    said, wire_bytes = await decided.say(
                        self.way.url, samples, end_of_speech=end_of_speech, chunk_ms=turn.chunk_ms,
                        deadlines=self.way.deadlines, **self.way.reach,
                    ), 0  # fmt: skip
                    if not self.known:
                        await self._meet_beside()
                else:
                    said, wire_bytes = await self._ask(stack, turn, samples, end_of_speech)
            pings.require_answers()
        except (ClientError, ProtocolError) as error:
            if not self.known:
                why = f"{error}\n{self.way.server.last_words()}".rstrip()
                raise LabkitError(f"{self.name} failed at its first turn: {why}") from error
            # A file that has ended cannot be called, which says nothing of why, or what to mend.
            return failed_row(turn, recording, self.way.server.why_gone() or str(error))
        row = row_of(turn, recording, said, wire_bytes=wire_bytes or None)
        return _with_dead_air(row) if self.silence_s else row

    async def _ask(
        self, stack: AsyncExitStack, turn: PlannedTurn, samples: Float32, end_of_speech: int
    ) -> tuple[ClientTurn, int]:
        """One turn whose client says when it is over, and the bytes that it took."""
        client = await stack.enter_async_context(self.way.connect(stream=self.stream))
        shaken_hands = self.way.bytes_up()
        said = await client.say(
            samples, chunk_ms=turn.chunk_ms, end_of_speech=end_of_speech, silence_s=self.silence_s
        )
        wire_bytes = self.way.bytes_up() - shaken_hands
        self.stream = client.stream
        if not self.known:
            await self._meet(client)
        return said, wire_bytes

    async def _meet_beside(self) -> None:
        """The same where the turn had a session of labkit.v1: what pings beside it is plain."""
        try:
            async with self.way.connect(stream=self.stream) as client:
                await self._meet(client)
        except ClientError:  # it speaks labkit.v1 alone
            self.known, self.rtts_ms = True, None

    async def _meet(self, client: VoiceClient) -> None:
        """Learn what the server offers: compression where it is asked for, answers to pings."""
        self.known = True
        if self.way.reach["deflate"] and not client.compresses:
            self.notes.append(f"{self.name} does not compress: measured without.")
        if self.rtts_ms is None:
            return
        try:
            async with asyncio.timeout(_PONG_S):
                await client.ping()
        except (TimeoutError, ClientError):
            self.rtts_ms = None


def _with_dead_air(row: Row) -> Row:
    """A turn whose client waited for silence: the wait for its last chunk is dead air."""
    named: dict[Stage, float] = {
        Stage.DEAD_AIR if stage is Stage.PACKETISATION else stage: span
        for stage, span in row.stages.items()
    }
    return replace(row, stages=named)


def row_of(
    planned: PlannedTurn, recording: Recording, turn: ClientTurn, *, wire_bytes: int | None = None
) -> Row:
    """One turn as a row."""
    start = turn.trace.marks[Mark.STREAM_STARTED]
    return Row(
        utterance=recording.path.name,
        voice=recording.voice,
        chunk_ms=planned.chunk_ms,
        warmup=planned.warmup,
        transcript=turn.transcript,
        reply_text=turn.reply_text,
        reply_seconds=turn.reply_seconds,
        ttfa_ms=turn.trace.ttfa_ms(),
        ttfb_ms=turn.trace.ttfb_ms(),
        heard_ms=turn.trace.between_ms(Mark.END_OF_SPEECH, Mark.TRANSCRIPT_RECEIVED),
        server=planned.server,
        block=planned.block,
        phase=planned.phase,
        said=recording.text,
        audio_seconds=turn.bytes_sent / (2 * SAMPLE_RATE),
        messages=turn.messages_sent,
        overhead_bytes=overhead_bytes(turn.bytes_sent, turn.messages_sent),
        wire_bytes=wire_bytes,
        listening_cpu_ms=turn.listening_cpu_ms,
        errors="; ".join([*(error.message for error in turn.errors), *turn.remarks]),
        stages=turn.trace.stages_ms(),
        marks={m: (turn.trace.marks[m] - start) / 1e6 for m in Mark if m in turn.trace.marks},
    )


def failed_row(planned: PlannedTurn, recording: Recording, reason: str) -> Row:
    """A turn that the server failed at, as a row."""
    return row_of(
        planned, recording, ClientTurn(trace=Trace({Mark.STREAM_STARTED: 0}), remarks=[reason])
    )


# -- two runs compared, recording by recording ----------------------------------------------------


@dataclass(frozen=True, slots=True)
class Run:
    """A run of the exercise as its folder has it, with the turns that count by server.

    `about` has machine, versions, settings and conditions; it is empty where the run did not end.
    """

    folder: Path
    about: Mapping[str, Any]
    servers: Mapping[str, Sequence[Row]]


@dataclass(frozen=True, slots=True)
class Difference:
    """What one part of the wait takes in two runs; milliseconds.

    Attributes:
        first: Mean in the first run, over the recordings that both said.
        second: Mean in the second.
        change: Median of the differences over those recordings, with its 95 % interval.
    """

    what: str
    first: float
    second: float
    change: Estimate

    @property
    def verdict(self) -> str:
        """What the difference says, in a word or four."""
        if self.change.sample < FEW_BLOCKS:
            return TOO_FEW
        if not self.change.clear:
            return "noise"
        return "slower" if self.change.value > 0 else "faster"


@dataclass(frozen=True, slots=True)
class Comparison:
    """One server of the first run beside one of the second.

    Attributes:
        parts: The whole wait first, then the effect of the chunk size, then each stage.
    """

    first: str
    second: str
    parts: Sequence[Difference]

    def sentence(self) -> str:
        """What it says of the whole wait, and no more than the data do."""
        whole = self.parts[0]
        named = self.first if self.first == self.second else f"{self.second} for {self.first}"
        over, by_ms = f"{whole.change.sample} recordings", whole.change.value
        if whole.verdict == TOO_FEW:
            return f"{named}: {TOO_FEW} ({over} in both runs)."
        sure = f"({whole.change.interval()}, {over})"
        if whole.verdict == "noise":
            return f"{named}: the wait differs by {by_ms:+.0f} ms {sure}: noise."
        return f"{named}: the second run is {whole.verdict} by {abs(by_ms):.0f} ms {sure}."


def read_run(folder: Path) -> Run:
    """Read what `labkit exercise` wrote into `folder`, also of a run that was interrupted.

    Raises:
        InstrumentError: There are no turns of an exercise in it.
    """
    summary = folder / Exercise.summary
    try:
        rows = read_rows(folder / Exercise.raw, _row)
        told = summary.read_text(encoding="utf-8") if summary.exists() else '{"about": {}}'
        about = dict(json.loads(told)["about"])
        about.update(about.pop("versions", {}))
    except (InstrumentError, OSError, KeyError, TypeError, ValueError) as error:
        ours = isinstance(error, InstrumentError)
        why = error if ours else f"{summary} is not as this labkit writes it"
        raise InstrumentError(
            f"{folder} holds no turns of an exercise: {why}; "
            "name a folder that 'labkit exercise' wrote"
        ) from error
    return Run(folder, about, by_server(rows))


def _row(columns: Mapping[str, str]) -> Row:
    """A turn as a file of turns has it, without its marks."""
    told: dict[str, Any] = {"heard_ms": None}  # which earlier versions did not have
    told |= {
        name: text or None if name.endswith(("_ms", "_bytes", "block")) else text
        for name, text in columns.items()
    }
    told["stages"] = {s: span for s in Stage if (span := told.get(f"stage_{s}_ms"))}
    return _ROWS.validate_python(told)


def compare(first: Run, second: Run) -> list[Comparison]:
    """Compare every server that both runs have, or their only ones.

    Raises:
        InstrumentError: They have no server, or no recording in no chunk size, in common.
    """
    pairs = [(name, name) for name in first.servers if name in second.servers]
    if not pairs and len(first.servers) == len(second.servers) == 1:
        pairs = [(next(iter(first.servers)), next(iter(second.servers)))]
    if not pairs:
        raise InstrumentError(
            f"the runs have no server in common: {', '.join(first.servers)} in {first.folder}, "
            f"{', '.join(second.servers)} in {second.folder}"
        )
    return [Comparison(a, b, _differences(first.servers[a], second.servers[b])) for a, b in pairs]


def changed(first: Run, second: Run) -> list[str]:
    """What else than the waits is different: machine, versions, settings and conditions."""
    before, after = first.about, second.about
    return [
        f"{name}: {before.get(name, 'not told')} -> {after.get(name, 'not told')}"
        for name in {**before, **after}
        if before.get(name) != after.get(name) and name != "clock"
    ]


def _differences(first: Sequence[Row], second: Sequence[Row]) -> list[Difference]:
    sizes = {row.chunk_ms for row in first} & {row.chunk_ms for row in second}
    if not sizes:
        raise InstrumentError("the runs have no chunk size in common")
    before, after = (
        _parts([row for row in rows if row.chunk_ms in sizes], min(sizes), max(sizes))
        for rows in (first, second)
    )
    both = {what: [name for name in waits if name in after[what]] for what, waits in before.items()}
    if not both[_WHOLE]:
        raise InstrumentError("the runs have no recording in common that both answered")
    return [
        Difference(
            what,
            fmean(before[what][name] for name in names),
            fmean(after[what][name] for name in names),
            median([after[what][name] - before[what][name] for name in names]),
        )
        for what, names in both.items()
        if names
    ]


def _parts(rows: Sequence[Row], small: int, large: int) -> dict[str, dict[str, float]]:
    """Milliseconds by recording, of each part that is compared."""
    by_recording = partial(balanced_means, key=attrgetter("utterance"))
    parts = {_WHOLE: by_recording(rows)}
    if small < large:
        low, high = (
            by_recording([row for row in rows if row.chunk_ms == size]) for size in (small, large)
        )
        parts[f"effect of {small} to {large} ms"] = {
            name: high[name] - low[name] for name in low if name in high
        }
    for stage in Stage:
        parts[stage.label] = by_recording(rows, value=partial(_span, stage))
    return parts


def _span(stage: Stage, row: Row) -> float | None:
    return row.stages.get(stage)
