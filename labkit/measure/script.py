"""What paced callers say, and when each piece of it is due. Everything follows from a seed."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Final

from labkit.audio.pcm import SAMPLE_RATE, Float32, chunks, encode_s16le

__all__ = ["Script", "Speech", "Timetable", "draw_scripts", "due_times", "speech_of"]

_NS: Final = 1_000_000_000


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
    size = chunk_ms * SAMPLE_RATE // 1000
    end = len(samples) if end_of_speech is None else end_of_speech + 1
    pieces = list(chunks(samples[: -(-end // size) * size], size))
    spoken, ends = 0, []
    for piece in pieces:
        spoken += len(piece)
        ends.append(spoken * _NS // SAMPLE_RATE)
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
