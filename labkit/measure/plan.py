"""What an experiment says, in which order, and when. Everything follows from a seed.

Nothing here reads a clock or opens a connection.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Final

from labkit.audio.pcm import Float32, chunks, encode_s16le
from labkit.client.speech import chunk_samples, spoken_ns

__all__ = [
    "CHUNK_SIZES_MS",
    "LABKIT",
    "PlannedTurn",
    "Script",
    "Speech",
    "Timetable",
    "draw_scripts",
    "due_times",
    "plan_levels",
    "plan_turns",
    "speech_of",
]

CHUNK_SIZES_MS: Final = (10, 20, 40, 60, 80, 100, 200, 500)
"""Lengths of one message, in milliseconds."""

LABKIT: Final = "labkit"
"""Name of labkit's own server, in plans, tables and figures."""

_NS: Final = 1_000_000_000


# -- turns one after the other: the latency exercise ------------------------------------------


@dataclass(frozen=True, slots=True)
class PlannedTurn:
    """One turn to run.

    Attributes:
        server: Which server answers, by name.
        recording: Index of the recording.
        chunk_ms: Length of one message.
        phase: Where in its chunk the speech ends, from 0 (as the chunk begins) to 1.
        block: Number of the block, whose turns all have the same recording; None for a turn that
            only warms things up, which is kept in the raw data as such.
    """

    server: str
    recording: int
    chunk_ms: int
    phase: float
    block: int | None

    @property
    def warmup(self) -> bool:
        """Whether the turn does not count."""
        return self.block is None


def plan_turns(
    *,
    seed: int,
    recordings: int,
    repeats: int,
    servers: Sequence[str] = (LABKIT,),
    chunk_sizes_ms: Sequence[int] = CHUNK_SIZES_MS,
    warmups: int = 2,
) -> list[PlannedTurn]:
    """Draw up the turns of an exercise.

    Every chunk size says the same recordings, once each on every server. Turns with the same
    recording are a block, over which sizes are compared: replies to different recordings differ
    by more than most chunk sizes do.

    There are `repeats` rounds. A round runs every size once, in random order, so that a slow
    minute of the machine falls on all of them; each size has a recording of its own there, since
    a language model answers sooner what it was just asked. The servers answer one right after
    the other, in random order, the same recording at the same phase.

    The speech ends anywhere in a chunk with equal chance. The phases of a chunk size are
    stratified, one from each of `repeats` equal parts, since with few repeats plain random
    phases would add more noise than there is to measure.

    Args:
        seed: Draws order, recordings and phases.
        recordings: How many recordings there are to draw from.
        repeats: Turns per chunk size and server.
        servers: Names of the servers.
        chunk_sizes_ms: Lengths of one message.
        warmups: Turns per server that come first and do not count.

    Raises:
        ValueError: There is nothing to run.
    """
    if recordings < 1 or repeats < 1:
        raise ValueError(f"nothing to run: {recordings} recordings, {repeats} repeats")
    rng = random.Random(seed)
    turns = [
        PlannedTurn(server, rng.randrange(recordings), 40, 0.5, block=None)
        for _ in range(warmups)
        for server in servers
    ]
    phases = {size: _stratified(rng, repeats) for size in chunk_sizes_ms}
    deck = _deck(rng, recordings, repeats)
    first = {size: rng.randrange(repeats) for size in chunk_sizes_ms}
    for number in range(repeats):
        for size in rng.sample(chunk_sizes_ms, len(chunk_sizes_ms)):
            block = (first[size] + number) % repeats
            turns += [
                PlannedTurn(server, deck[block], size, phases[size][block], block)
                for server in rng.sample(servers, len(servers))
            ]
    return turns


def _stratified(rng: random.Random, count: int) -> list[float]:
    """`count` numbers from 0 to 1, one from each of `count` equal parts, in random order."""
    return rng.sample([(part + rng.random()) / count for part in range(count)], count)


def _deck(rng: random.Random, recordings: int, size: int) -> list[int]:
    """`size` shuffled recordings, each as often as every other as far as that goes."""
    deck: list[int] = []
    while len(deck) < size:
        deck += rng.sample(range(recordings), recordings)
    return deck[:size]


# -- many callers at once: the load -----------------------------------------------------------


def plan_levels(
    sessions: Sequence[int], servers: Sequence[str], *, seed: int
) -> list[tuple[int, str]]:
    """Numbers of callers with the server that they call, in the order in which to run them.

    Numbers rise. Servers follow one another at the same number, in random order, so that a slow
    minute of the machine falls on all of them.
    """
    rng = random.Random(seed)
    return [(count, name) for count in sessions for name in rng.sample(servers, len(servers))]


@dataclass(frozen=True, slots=True)
class Speech:
    """A recording, cut into messages and encoded beforehand, so that sending costs little.

    Attributes:
        payloads: The binary messages.
        ends_ns: When the last sample of each has been spoken, from the recording's start.
    """

    payloads: tuple[bytes, ...]
    ends_ns: tuple[int, ...]

    def after(self, chunk: int) -> "Speech":
        """What is left for a caller who begins with message number `chunk`."""
        start = self.ends_ns[chunk - 1] if chunk else 0
        return Speech(self.payloads[chunk:], tuple(end - start for end in self.ends_ns[chunk:]))

    @property
    def length_ns(self) -> int:
        """How long it takes to say."""
        return self.ends_ns[-1]


def speech_of(samples: Float32, *, chunk_ms: int, end_of_speech: int | None = None) -> Speech:
    """Cut and encode a recording.

    Args:
        samples: Mono, 16 kHz, at least one.
        chunk_ms: Length of one message.
        end_of_speech: Index of the last voiced sample: the message that holds it is the last.
    """
    size = chunk_samples(chunk_ms)
    end = len(samples) if end_of_speech is None else end_of_speech + 1
    pieces = list(chunks(samples[: -(-end // size) * size], size))
    spoken, ends = 0, []
    for piece in pieces:
        spoken += len(piece)
        ends.append(spoken_ns(spoken))
    return Speech(tuple(encode_s16le(piece) for piece in pieces), tuple(ends))


@dataclass(frozen=True, slots=True)
class Script:
    """What one caller does.

    Attributes:
        phase_ns: When its first chunk begins, from the start of the level.
        skip: Where in its first recording it begins, from 0 (the start) to 1: callers that all
            began with a first word would all end at nearly the same time.
        ping_phase_ns: When its first ping is due, from the start of the level.
        order: Indices of the recordings that it says, in a loop.
    """

    phase_ns: int
    skip: float
    ping_phase_ns: int
    order: tuple[int, ...]

    def speeches(self, recorded: Sequence[Speech]) -> Iterator[Speech]:
        """What it says, without end."""
        for turn in count():
            speech = recorded[self.order[turn % len(self.order)]]
            yield speech if turn else speech.after(int(self.skip * len(speech.payloads)))


def draw_scripts(
    *, seed: int, callers: int, recordings: int, chunk_ms: int, ping_every_s: float
) -> list[Script]:
    """Draw up what each caller does.

    Args:
        seed: Draws phases, pings and orders; the same for every server, so that all of them
            get the same load.
        callers: How many.
        recordings: How many recordings there are to draw from.
        chunk_ms: The first chunks are spread over this time.
        ping_every_s: The first pings are spread over this time.
    """
    rng = random.Random(f"{seed}/{callers}")
    return [
        Script(
            phase_ns=round(rng.random() * chunk_ms * 1e6),
            skip=rng.random(),
            ping_phase_ns=round(rng.random() * ping_every_s * _NS),
            order=tuple(rng.sample(range(recordings), recordings)),
        )
        for _ in range(callers)
    ]


def due_times(first_ns: int, every_s: float, end_ns: int) -> range:
    """Instants from `first_ns` on, `every_s` apart, before `end_ns`."""
    return range(first_ns, end_ns, round(every_s * _NS))


@dataclass(slots=True)
class Timetable:
    """When a caller's next utterance is due to begin, and how far behind the caller is.

    The timetable is that of a caller who is answered in time: every utterance begins `pause_ns`
    after the end of the one before. A caller whose answer comes later than that begins later,
    but the timetable does not move, so what is late adds up; a quick answer catches up.

    Attributes:
        due_ns: When the next utterance is due to begin.
        pause_ns: Time for an answer between two utterances.
        behind_ns: By how much the next utterance begins later than it is due.
    """

    due_ns: int
    pause_ns: int
    behind_ns: int = 0

    def said(self, length_ns: int) -> None:
        """An utterance of this length is said; the next one is due after it and a pause."""
        self.due_ns += length_ns + self.pause_ns

    def free(self, at_ns: int) -> int:
        """The caller has its answer, or gave up on it; gives when its next utterance begins."""
        self.behind_ns = max(0, at_ns - self.due_ns)
        return max(at_ns, self.due_ns)
