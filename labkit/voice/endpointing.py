"""Pure decisions about where speech begins and ends.

The detector gives one speech probability per frame; what counts as speech is decided here, with
two thresholds (hysteresis), so that a frame that wavers in the middle of a word does not split
it. The two thresholds are those of Silero VAD's own `get_speech_timestamps`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

__all__ = ["Endpointing", "SpeechChange", "SpeechSpan", "SpeechTracker", "speech_span"]


@dataclass(frozen=True, slots=True)
class SpeechSpan:
    """A stretch of audio that holds speech, in samples, `end` not included."""

    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpointing:
    """What counts as speech.

    Attributes:
        threshold: Probability at which speech begins.
        release: Probability below which it ends.
        min_frames: Shorter bursts (clicks, a cough) are no speech.
        pad_frames: Kept on both sides. The detector may miss a quiet word for half a second, and
            the client has said where its utterance ends: only long silence is worth cutting.
        stop_frames: So much silence ends an utterance, where the server decides: half a second
            at 32 ms a frame, the usual wait of endpointers without a model of turns.
    """

    threshold: float = 0.5
    release: float = 0.35
    min_frames: int = 4
    pad_frames: int = 20
    stop_frames: int = 16


def speech_span(
    probabilities: Sequence[float], frame_samples: int, rules: Endpointing | None = None
) -> SpeechSpan | None:
    """Find the stretch from the first to the last speech.

    Args:
        probabilities: Speech probability of each frame, 0 to 1.
        frame_samples: Samples per frame.
        rules: What counts as speech.

    Returns:
        The stretch with its padding, pauses inside included, or None where nothing was said.
    """
    rules = rules or Endpointing()
    bursts = [b for b in _bursts(probabilities, rules) if len(b) >= rules.min_frames]
    if not bursts:
        return None
    first = max(0, bursts[0].start - rules.pad_frames)
    last = min(len(probabilities), bursts[-1].stop + rules.pad_frames)
    return SpeechSpan(first * frame_samples, last * frame_samples)


def _bursts(probabilities: Sequence[float], rules: Endpointing) -> list[range]:
    """Runs of frames that count as speech."""
    runs: list[range] = []
    frame = 0
    for speaking, members in groupby(_speaking(probabilities, rules)):
        length = sum(1 for _ in members)
        if speaking:
            runs.append(range(frame, frame + length))
        frame += length
    return runs


def _speaking(probabilities: Sequence[float], rules: Endpointing) -> list[bool]:
    states: list[bool] = []
    speaking = False
    for probability in probabilities:
        speaking = probability >= (rules.release if speaking else rules.threshold)
        states.append(speaking)
    return states


@dataclass(frozen=True, slots=True)
class SpeechChange:
    """Speech began, or ended.

    Attributes:
        speaking: Whether it began.
        frame: Its first frame, or the first behind its last.
        known: Frames that it took to know, from the beginning.
    """

    speaking: bool
    frame: int
    known: int


class SpeechTracker:
    """Follows the frames of one utterance, and tells when speech begins and ends."""

    def __init__(self, rules: Endpointing | None = None) -> None:
        """Begin before the first frame."""
        self._rules = rules or Endpointing()
        self._frame = 0
        self._over_threshold = False
        self._run = 0
        self.speaking = False

    @property
    def quiet(self) -> bool:
        """Whether the frame before was silent, and no speech goes on."""
        return not self.speaking and not self._over_threshold

    def feed(self, probabilities: Sequence[float]) -> list[SpeechChange]:
        """Take the next frames; gives what changed in them, in order."""
        found = [self._next(probability) for probability in probabilities]
        return [change for change in found if change is not None]

    def _next(self, probability: float) -> SpeechChange | None:
        rules = self._rules
        over = probability >= (rules.release if self._over_threshold else rules.threshold)
        self._run = self._run + 1 if over == self._over_threshold else 1
        self._over_threshold = over
        self._frame += 1
        needed = rules.min_frames if over else rules.stop_frames
        if over == self.speaking or self._run < needed:
            return None
        self.speaking = over
        return SpeechChange(over, self._frame - self._run, self._frame)
