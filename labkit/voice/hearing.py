"""Hearing: the audio of one utterance while it comes in, and where in it somebody speaks.

The voice activity detector gives one speech probability per *frame*. `Utterance` keeps the audio
together with the probabilities found so far; what counts as speech is decided by `Endpointing`,
with two thresholds (hysteresis), so that a frame that wavers in the middle of a word does not
split it. The two thresholds are those of Silero VAD's own `get_speech_timestamps`.

Nothing here waits, reads a clock or calls an engine.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

import numpy as np

from labkit.audio.pcm import SAMPLE_RATE, Float32, Int16, to_float32
from labkit.errors import AudioError

_EDGE_S: Final = 1.0
"""Shortest piece that speech without pauses is cut into, in seconds, or a quarter of it."""
_SAMPLE_BYTES: Final = 2


class Utterance:
    """Audio that was said so far, and how far the voice activity detector has come in it.

    The audio lies in blocks of one second, so nothing is copied while it grows, and sessions
    that began together do not all double their buffers in the same instant. All of it belongs
    to the event loop: an engine's thread is given copies (`next_frames`, `audio`).

    Positions are counted from the first sample that is still held. Where they are told to
    somebody, `dropped_samples` goes on top: then they count from the utterance's beginning,
    whatever was forgotten since.

    Attributes:
        limit: Most samples that it holds.
        frame_samples: Samples of a frame; None where nobody detects speech.
        probabilities: Speech probability of each frame that was examined, 0 to 1.
        vad_state: What the detector carries to the next frame, None before the first.
        dropped_samples: Samples forgotten at the front.
    """

    BLOCK: Final = SAMPLE_RATE
    """Samples of a block."""

    def __init__(self, limit: int, frame_samples: int | None) -> None:
        self.limit = limit
        self.frame_samples = frame_samples
        self.probabilities: list[float] = []
        self.vad_state: Any = None
        self.dropped_samples = 0
        self._known: _Known = {}
        self._blocks: list[bytearray] = []
        self._first = 0  # where in the first block the audio begins
        self._samples = 0

    def __len__(self) -> int:
        """Samples held."""
        return self._samples

    @property
    def nbytes(self) -> int:
        """Bytes of the blocks that it holds."""
        return len(self._blocks) * self.BLOCK * _SAMPLE_BYTES

    @property
    def position(self) -> int:
        """Samples that came, those that were forgotten included."""
        return self.dropped_samples + self._samples

    @property
    def seconds(self) -> float:
        """Length of what it holds, in seconds."""
        return self._samples / SAMPLE_RATE

    def append(self, samples: Int16) -> int:
        """Take as many of `samples` as there is room for; gives how many did not fit.

        Raises:
            AudioError: They are not of int16.
        """
        if samples.dtype != np.int16:
            raise AudioError(
                f"an utterance takes samples of int16, and these are {samples.dtype}; "
                "WIRE.decode_int16(message) gives them, and WIRE.decode floats"
            )
        return self.append_s16le(samples.astype("<i2", copy=False).tobytes())

    def append_s16le(self, data: bytes) -> int:
        """The same for audio as it comes off the wire: signed 16-bit, little-endian."""
        count = len(data) // _SAMPLE_BYTES
        if not count:
            return 0
        # Without a block this is the end of one, so that the first chunk makes one.
        offset = self._first + self._samples - (len(self._blocks) - 1) * self.BLOCK
        if offset + count > self.BLOCK or self._samples + count > self.limit:
            return self._append_across(data)
        # Nearly every chunk goes this way, fifty times a second in each session.
        self._blocks[-1][_SAMPLE_BYTES * offset : _SAMPLE_BYTES * (offset + count)] = data
        self._samples += count
        return 0

    def _append_across(self, data: bytes) -> int:
        """The same where a block ends, or the limit is reached."""
        count = len(data) // _SAMPLE_BYTES
        kept = min(count, max(0, self.limit - self._samples))
        taken = 0
        while taken < kept:
            block, offset = divmod(self._first + self._samples, self.BLOCK)
            if block == len(self._blocks):
                self._blocks.append(bytearray(self.BLOCK * _SAMPLE_BYTES))
            size = min(kept - taken, self.BLOCK - offset)
            piece = data[_SAMPLE_BYTES * taken : _SAMPLE_BYTES * (taken + size)]
            self._blocks[block][_SAMPLE_BYTES * offset : _SAMPLE_BYTES * (offset + size)] = piece
            taken += size
            self._samples += size
        return count - taken

    def audio(self, start: int = 0, end: int | None = None) -> Float32:
        """The samples from `start` to before `end` (by default, all) as floats in [-1, 1)."""
        end = self._samples if end is None else min(end, self._samples)
        start = min(start, end)
        floats: Float32 = np.empty(end - start, np.float32)
        done = 0
        for stretch in self._views(start, end):
            floats[done : done + len(stretch)] = stretch
            done += len(stretch)
        return floats * np.float32(1 / 32_768)

    def _views(self, start: int, end: int) -> list[Int16]:
        """Views of the blocks that hold the samples from `start` to before `end`."""
        found: list[Int16] = []
        while start < end:
            block, offset = divmod(self._first + start, self.BLOCK)
            samples = np.frombuffer(self._blocks[block], "<i2")
            found.append(samples[offset : offset + end - start])
            start += len(found[-1])
        return found

    def stretch(self, span: "SpeechSpan") -> "Stretch":
        """A copy of the samples of `span`, for the recogniser: the utterance may be forgotten."""
        dropped = self.dropped_samples
        place = SpeechSpan(dropped + span.start, dropped + span.end)
        views = self._views(span.start, min(span.end, self._samples))
        return Stretch(place, np.concatenate([np.empty(0, np.int16), *views]), self._known)

    def split(self, samples: int) -> "Utterance":
        """Keep the first `samples`, whole frames; gives an utterance that begins with the rest.

        The rest has not been examined: the detector begins anew in it, as in any utterance.
        """
        rest = Utterance(self.limit, self.frame_samples)
        for stretch in self._views(samples, self._samples):
            rest.append(stretch)
        self._samples = min(samples, self._samples)
        del self._blocks[-(-(self._first + self._samples) // self.BLOCK) :]
        if self.frame_samples is not None:
            del self.probabilities[samples // self.frame_samples :]
        return rest

    def beginning(self, frames: int) -> "Utterance":
        """A copy of the first `frames` frames, of those that were examined.

        What is recognised of the one is known of the other.
        """
        copy = Utterance(self.limit, self.frame_samples)
        # The last frame of an utterance that is over may be filled up with silence.
        end = min(frames * (self.frame_samples or 0), self._samples)
        for stretch in self._views(0, end):
            copy.append(stretch)
        copy.probabilities = self.probabilities[:frames]
        copy.vad_state = self.vad_state
        copy.dropped_samples = self.dropped_samples
        copy._known = self._known
        return copy

    def drop_front(self, frames: int) -> None:
        """Forget the first `frames` frames, of those that were examined.

        Examining goes on where it was: what the detector carries belongs to the last frame.
        """
        frames = min(frames, len(self.probabilities))
        samples = min(frames * (self.frame_samples or 0), self._samples)
        del self.probabilities[:frames]
        blocks, self._first = divmod(self._first + samples, self.BLOCK)
        del self._blocks[:blocks]
        self._samples -= samples
        self.dropped_samples += samples

    def forget(self) -> None:
        """Drop everything: it was heard, and its reply may take long to go out."""
        self._blocks.clear()
        self._known = {}
        self.probabilities.clear()
        self.vad_state = None
        self._first = self._samples = 0

    def unexamined(self, *, ended: bool = False) -> int:
        """Frames to look at yet; where the utterance has ended, the last may be less than one."""
        return max(0, self._frames(ended=ended) - len(self.probabilities))

    def _frames(self, *, ended: bool) -> int:
        if self.frame_samples is None:
            return 0
        return (self._samples + (self.frame_samples - 1 if ended else 0)) // self.frame_samples

    def next_frames(self, most: int, *, ended: bool = False) -> Float32:
        """The next `most` frames to look at, or as many as there are.

        Where the utterance has ended, the last frame is filled up with silence.
        """
        size = self.frame_samples or 0
        first = len(self.probabilities)
        frames = min(most, self.unexamined(ended=ended))
        audio = self.audio(first * size, (first + frames) * size)
        return np.pad(audio, (0, frames * size - len(audio)))

    def examined(self, probabilities: Sequence[float], vad_state: Any) -> None:
        """Note what the detector found in the next frames, and where it stands now.

        The utterance may have been split or forgotten while the detector worked: what it found
        in frames that are gone is not kept.
        """
        room = max(0, self._frames(ended=True) - len(self.probabilities))
        self.probabilities += probabilities[:room]
        self.vad_state = vad_state


@dataclass(frozen=True, slots=True)
class SpeechSpan:
    """A stretch of audio that holds speech, in samples, `end` not included."""

    start: int
    end: int

    @property
    def in_seconds(self) -> tuple[float, float]:
        """Its beginning and its end, in seconds."""
        return self.start / SAMPLE_RATE, self.end / SAMPLE_RATE


_Known = dict[tuple[SpeechSpan, str], str]


@dataclass(frozen=True, slots=True, eq=False)
class Stretch:
    """Audio in which somebody speaks, to be recognised by itself, and what is known of it.

    Each stretch of an utterance is recognised once, whoever asks for its words first: while the
    utterance goes on, ahead of its end, or in its turn.

    Attributes:
        place: Where it lies, counted from the utterance's beginning.
        pcm: Its samples.
    """

    place: SpeechSpan
    pcm: Int16
    _known: _Known = field(repr=False)

    @property
    def audio(self) -> Float32:
        """Its samples as floats in [-1, 1); only made once they are wanted, for it may wait."""
        return to_float32(self.pcm)

    def known(self, before: str) -> str | None:
        """Its words, if they were recognised as said after `before`."""
        return self._known.get((self.place, before))

    def learn(self, before: str, words: str) -> None:
        """Note its words, recognised as said after `before`."""
        self._known[self.place, before] = words


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpointing:
    """What counts as speech."""

    threshold: float = 0.5
    """Probability at which speech begins."""
    release: float = 0.35
    """Probability below which it ends."""
    min_s: float = 0.128
    """Shorter bursts (clicks, a cough) are no speech, in seconds."""
    pad_s: float = 0.64
    """Kept before speech and behind the last of it, in seconds. The detector may miss a quiet word
    for half a second, and the client has said where its utterance ends: only long silence is worth
    cutting."""
    split_s: float = 0.4
    """Silence at which an utterance is split into stretches that are recognised one by one, in
    seconds. People pause for less inside a sentence, and for more behind it."""
    stop_s: float = 0.5
    """So much silence ends an utterance, where the server decides, in seconds. Half a second is the
    usual wait of endpointers without a model of turns."""
    ahead_s: float = 0.128
    """So much of that silence, and of a pause at which an utterance is split, is heard with what
    was said before it, in seconds; once it was heard, the answer may be worked on, and if speech
    goes on instead, what was recognised for that need not be recognised again."""

    def over(self, probability: float, *, before: bool) -> bool:
        """Whether a frame counts as speech; `before` says whether the one before it did."""
        return probability >= (self.release if before else self.threshold)


def frames_in(seconds: float, frame_samples: int) -> int:
    """Frames that it takes to cover `seconds`."""
    return -(-round(seconds * SAMPLE_RATE) // frame_samples)


def speech_stretches(
    probabilities: Sequence[float],
    frame_samples: int,
    rules: Endpointing | None = None,
    *,
    longest_s: float = 30.0,
    first: int = 0,
    finished: bool = False,
) -> list[SpeechSpan]:
    """Find the stretches of speech that a recogniser is to hear, one after the other.

    A recogniser hears well what it was trained on; of several sentences at once it may leave out
    all but the first, and say nothing of it. So audio is split at its longer pauses, and what is
    still too long at its longest short ones.

    Args:
        probabilities: Speech probability of each frame, 0 to 1.
        frame_samples: Samples per frame.
        rules: What counts as speech.
        longest_s: Longest stretch that the recogniser was trained on, in seconds.
        first: Number of the frame to begin with, as if there were none before.
        finished: Only those that no later frame can change: speech has begun anew behind them.

    Returns:
        The stretches in order, each with its padding. They do not overlap, so no word is heard
        twice.
    """
    rules = rules or Endpointing()
    probabilities = probabilities[first:]
    bursts = _bursts(probabilities, rules)
    shortest = frames_in(rules.min_s, frame_samples)
    spoken = [burst for burst in bursts if len(burst) >= shortest]
    stretches = _between_pauses(spoken, frames_in(rules.split_s, frame_samples))
    pad, tail = frames_in(rules.pad_s, frame_samples), frames_in(rules.ahead_s, frame_samples)
    padded = _padded(stretches, pad, tail, len(probabilities))
    if finished:
        padded = padded[:-1]
    longest = int(longest_s * SAMPLE_RATE) // frame_samples
    if any(len(stretch) > longest for stretch in padded):
        cuts = _Cuts(probabilities, bursts, frames_in(_EDGE_S, frame_samples))
        padded = [piece for stretch in padded for piece in cuts.pieces(stretch, longest)]
    return [
        SpeechSpan((first + one.start) * frame_samples, (first + one.stop) * frame_samples)
        for one in padded
    ]


def _between_pauses(bursts: Sequence[range], pause: int) -> list[range]:
    """Join bursts between which there are fewer than `pause` frames."""
    joined: list[range] = []
    for burst in bursts:
        if joined and burst.start - joined[-1].stop < pause:
            joined[-1] = range(joined[-1].start, burst.stop)
        else:
            joined.append(burst)
    return joined


def _padded(stretches: Sequence[range], pad: int, tail: int, frames: int) -> list[range]:
    """Widen each by `pad` frames before it and `tail` behind it, the last by `pad` on both sides.

    None reaches into another, and of a short pause nothing is left out.
    """
    padded: list[range] = []
    limits = [*(min(a.stop + tail, b.start) for a, b in pairwise(stretches)), frames]
    end = 0
    for stretch, limit in zip(stretches, limits, strict=False):
        start, end = max(end, stretch.start - pad), min(stretch.stop + pad, limit)
        padded.append(range(start, end))
    return padded


class _Cuts:
    """Where speech without long pauses may be cut: in short ones, or where it is least probable."""

    def __init__(self, probabilities: Sequence[float], bursts: Sequence[range], edge: int) -> None:
        self._pauses = [((a.stop + b.start) // 2, b.start - a.stop) for a, b in pairwise(bursts)]
        self._around = np.convolve(probabilities, np.ones(3), "same")
        self._edge = edge

    def pieces(self, stretch: range, longest: int) -> list[range]:
        """Cut a stretch that is too long, until each piece is well below the longest.

        What is longer than any sentence holds several, so pieces as long as the longest would
        still hold more than one: at three quarters the embedded recogniser errs least.
        """
        return [stretch] if len(stretch) <= longest else self._cut(stretch, longest * 3 // 4)

    def _cut(self, piece: range, target: int) -> list[range]:
        if len(piece) <= target:
            return [piece]
        at = self._best(piece)
        left, right = range(piece.start, at), range(at, piece.stop)
        return [*self._cut(left, target), *self._cut(right, target)]

    def _best(self, piece: range) -> int:
        """The middle of the longest pause, not so near to an end that a piece says nothing."""
        edge = min(self._edge, len(piece) // 4)
        inner = range(piece.start + edge, piece.stop - edge)
        inside = [pause for pause in self._pauses if pause[0] in inner]
        if inside:
            return max(inside, key=lambda pause: pause[1])[0]
        quarter = len(piece) // 4
        middle = self._around[piece.start + quarter : piece.stop - quarter]
        return piece.start + quarter + int(np.argmin(middle))


def _bursts(probabilities: Sequence[float], rules: Endpointing) -> list[range]:
    """Runs of frames that count as speech."""
    runs: list[range] = []
    speaking = False
    for frame, probability in enumerate(probabilities):
        before, speaking = speaking, rules.over(probability, before=speaking)
        if speaking and not before:
            runs.append(range(frame, frame))
        if speaking:
            runs[-1] = range(runs[-1].start, frame + 1)
    return runs


@dataclass(frozen=True, slots=True)
class SpeechChange:
    """Speech began, or ended."""

    speaking: bool
    """Whether it began."""
    frame: int
    """Its first frame, or the first behind its last, counted from the utterance's beginning."""
    known: int
    """Frames that it took to know, from the beginning."""


class SpeechTracker:
    """Follows the frames of one utterance from its beginning; tells when speech begins and ends.

    What it tells depends on the frames alone, never on how many of them came at once.

    Attributes:
        speaking: Whether speech goes on.
        frames: Frames seen.
        stretches: How many stretches of speech have begun, of those that are recognised one by one.
        stop_frames: So many silent frames end speech; may be changed in the midst of them.
    """

    def __init__(self, frame_samples: int, rules: Endpointing | None = None) -> None:
        self._rules = rules or Endpointing()
        self._start_frames = frames_in(self._rules.min_s, frame_samples)
        self.stop_frames = frames_in(self._rules.stop_s, frame_samples)
        self.stretches = 0
        self._split_frames = frames_in(self._rules.split_s, frame_samples)
        self._spoken_until: int | None = None  # behind the last frame of a burst that is speech
        self._over_threshold = False
        self._run = 0  # frames since the threshold was last crossed
        self._first_speech: int | None = None
        self.speaking = False
        self.frames = 0

    @property
    def leading_silence(self) -> int:
        """Frames at the beginning that no speech lies in, nor a run that may become speech.

        They may be forgotten, but for the padding that recognition wants before the first word.
        """
        if self._first_speech is not None:
            return self._first_speech
        return self.frames - self._run if self._over_threshold else self.frames

    @property
    def pause(self) -> int:
        """Frames of silence behind speech that may go on; 0 while somebody speaks, or before."""
        return self._run if self.speaking and not self._over_threshold else 0

    @property
    def quiet(self) -> bool:
        """Whether the frame before was silent, and no speech goes on."""
        return not self.speaking and not self._over_threshold

    def feed(self, probabilities: Sequence[float]) -> list[SpeechChange]:
        """Take the next frames; gives what changed in them, in order."""
        found = [self._next(probability) for probability in probabilities]
        return [change for change in found if change is not None]

    def _next(self, probability: float) -> SpeechChange | None:
        over = self._rules.over(probability, before=self._over_threshold)
        self._run = self._run + 1 if over == self._over_threshold else 1
        self._over_threshold = over
        self.frames += 1
        if over and self._run >= self._start_frames:
            self._count_stretch()
        needed = self._start_frames if over else self.stop_frames
        if over == self.speaking or self._run < needed:
            return None
        self.speaking = over
        change = SpeechChange(over, self.frames - self._run, self.frames)
        if self._first_speech is None:
            self._first_speech = change.frame
        return change

    def _count_stretch(self) -> None:
        """Note one more frame of a burst that is speech, and whether a stretch begins with it."""
        before, self._spoken_until = self._spoken_until, self.frames
        if before is None or self.frames - self._run - before >= self._split_frames:
            self.stretches += 1
