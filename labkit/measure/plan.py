"""What an experiment says, in which order, and when.

Everything follows from a seed. Nothing here reads a clock or opens a connection.
"""

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final

import numpy as np

from labkit.audio.pcm import SAMPLE_RATE, Float32, leading_silence, read_audio
from labkit.client.speech import chunk_samples
from labkit.errors import LabkitError
from labkit.measure.recordings import Recording, utterances

LONGEST_S: Final = 2.6
"""Longest speech of what is said, unless something else is asked for."""

SENTENCES: Final = 5
"""What a long reply has, where replies are to be long."""

_END: Final = re.compile(r"[.!?](?=\s|$)")
_KEPT_SILENCE_S: Final = 0.1
_NS: Final = 1_000_000_000
_TWICE_FROM_MS: Final = 200
"""From here on a chunk size is said twice in a block: one phase scatters its wait by 60 ms and
more (a chunk over the square root of 12)."""


# -- turns one after the other: the latency exercise ------------------------------------------


@dataclass(frozen=True, slots=True)
class PlannedTurn:
    """One turn to run.

    Attributes:
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


def count_sentences(text: str) -> int:
    """How many sentences `text` has, by their ends."""
    return len(_END.findall(text))


def short_utterances(
    folder: Path | None = None, *, longest_s: float = LONGEST_S
) -> list[Recording]:
    """Utterances that do not take long to say; speaking is most of the exercise's time.

    Those of `folder`, labkit's own by default, whose speech is no longer than `longest_s`.

    Raises:
        AudioError: A recording or the manifest is not usable.
        LabkitError: None is short enough.
    """
    longest = longest_s * SAMPLE_RATE
    short = [one for one in utterances(folder) if (one.end_of_speech_sample or 0) < longest]
    if not short:
        raise LabkitError(f"no recording ends within {longest_s:g} s; add shorter ones")
    return short


def prepared(recording: Recording, turn: PlannedTurn) -> tuple[Float32, int]:
    """The recording without most of its leading silence, and its end of speech.

    Silence is put before it, less than a chunk, so that the speech ends at the planned phase.
    """
    samples = read_audio(recording.path)
    silence = leading_silence(samples, SAMPLE_RATE) - _KEPT_SILENCE_S
    cut = max(0, round(silence * SAMPLE_RATE))
    end = (recording.end_of_speech_sample or len(samples)) - cut
    chunk = chunk_samples(turn.chunk_ms)
    lead_in = (int(turn.phase * chunk) - end) % chunk
    return np.pad(samples[cut:], (lead_in, 0)), end + lead_in


def plan_turns(
    *,
    seed: int,
    recordings: int,
    blocks: int,
    servers: Sequence[str],
    chunk_sizes_ms: Sequence[int],
) -> list[PlannedTurn]:
    """Draw up the turns of an exercise.

    A block is one recording, said in every chunk size to every server in random order. Sizes and
    servers are compared within a block: replies to different recordings differ by far more than
    chunk sizes do, and a slow minute of the machine falls on the whole block. Where there are fewer
    recordings than blocks, they begin again.

    It begins with a turn to every server that does not count. A language model answers sooner what
    it was asked before, so that otherwise the size that happens to come first would seem slower;
    all turns that count have that advantage.

    The speech ends anywhere in a chunk with equal chance, which scatters a large chunk's waits
    over its whole length. Against that, the phases of a size are stratified, one from each of
    `blocks` equal parts; and the sizes where it matters, the large ones and the smallest, which
    all others are compared with, are said twice in a block, once as long before the middle of
    the chunk as the other time after it.

    Raises:
        ValueError: There is nothing to run.
    """
    if recordings < 1 or blocks < 1 or not servers or min(chunk_sizes_ms, default=0) < 1:
        what = f"{recordings} recordings, {blocks} blocks, {len(servers)} servers"
        raise ValueError(f"nothing to run: {what}, chunks of {list(chunk_sizes_ms)} ms")
    rng = random.Random(seed)
    deck: list[int] = []  # each recording as often as every other, as far as that goes
    while len(deck) < blocks:
        deck += rng.sample(range(recordings), recordings)
    phases = {size: _phases(rng, size, blocks, chunk_sizes_ms) for size in chunk_sizes_ms}
    turns = []
    for block, recording in enumerate(deck[:blocks]):
        turns += [PlannedTurn(server, recording, 40, 0.5, block=None) for server in servers]
        steps = [(size, phase) for size in chunk_sizes_ms for phase in phases[size][block]]
        for size, phase in rng.sample(steps, len(steps)):
            turns += [
                PlannedTurn(server, recording, size, phase, block)
                for server in rng.sample(servers, len(servers))
            ]
    return turns


def _phases(
    rng: random.Random, size: int, blocks: int, sizes: Sequence[int]
) -> list[tuple[float, ...]]:
    """The phases of one size in each block, together spread evenly over the chunk."""
    parts = rng.sample([(part + rng.random()) / blocks for part in range(blocks)], blocks)
    if size >= _TWICE_FROM_MS or size == min(sizes):
        return [(part / 2, 1 - part / 2) for part in parts]
    return [(part,) for part in parts]


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

    def speeches(self, recorded: Sequence[Float32], chunk_ms: int) -> Iterator[Float32]:
        """What it says, without end; the first recording from one of its chunks on."""
        first, size = recorded[self.order[0]], chunk_samples(chunk_ms)
        yield first[int(self.skip * -(-len(first) // size)) * size :]
        for turn in count(1):
            yield recorded[self.order[turn % len(self.order)]]


def draw_scripts(
    *, seed: int, callers: int, recordings: int, chunk_ms: int, ping_every_s: float
) -> list[Script]:
    """Draw up what each caller does: the same for every server, so that all get the same load.

    The first chunks are spread over `chunk_ms`, the first pings over `ping_every_s`.
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
