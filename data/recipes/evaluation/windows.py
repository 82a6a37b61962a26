"""A public recogniser through its fitted window and through the whole one: errors and time.

``python -m data.recipes.evaluation.windows --models tiny`` compares them over `data/speech`, and
where they are given over a folder of human phrases and an archive of human digits. With Whisper
tiny.en, on one thread of a busy machine with two cores, word errors:

==============================  =====  =====  =======  =======  ===================
speech                          clips  words  fitted   whole    difference, 95 %
==============================  =====  =====  =======  =======  ===================
`data/speech`                      55    313   6.4 %    5.8 %   -1.9 to +3.9 points
phrases of Debian's alsa-utils      8     16  12.5 %   12.5 %   none
digits of a human speaker          60    299   1.0 %    0.3 %   -0.6 to +2.0 points
all of them                       123    628   4.0 %    3.3 %   -0.8 to +2.5 points
==============================  =====  =====  =======  =======  ===================

Ten of the 123 were doubtful and heard once more. The median over the clips of the whole window's
time over the fitted one's was 2.4. How the bounds were found: over the 55 and the 8, and 100 other
strings of digits of five speakers. Those had 6.8 % of 659 words wrong through the whole window;
through one of 15 s 25.9 % without a guard, 7.1 % with it; of 12 s 27.3 and 7.7 %, of 10 s 28.2 and
7.7 %, of 8 s 178 % without one. What goes wrong is said twice, or again and again.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from scipy.stats import bootstrap

from data.recipes.evaluation.recogniser import Clip, clips_of, digit_strings
from labkit.audio.pcm import read_audio
from labkit.measure.recordings import load_manifest
from labkit.measure.wer import word_errors
from labkit.voice.models import resolve
from labkit.voice.scheduling import Stop
from labkit.voice.whisper import FasterWhisperAsr

__all__ = ["Comparison", "compare", "main"]

_STRINGS: Final = 100
_SEED: Final = 7
_RESAMPLES: Final = 2_000


@dataclass(frozen=True, slots=True)
class Comparison:
    """Both windows over the same clips.

    Attributes:
        clips: How many.
        words: Words that are said in them.
        fitted: Word errors through the fitted window, a hundred words.
        whole: The same through the whole one.
        interval: Of `fitted - whole`, 95 %, by a bootstrap over the clips.
        fitted_ms: Median time through the fitted window.
        whole_ms: Median time through the whole one.
    """

    clips: int
    words: int
    fitted: float
    whole: float
    interval: tuple[float, float]
    fitted_ms: float
    whole_ms: float


def compare(fitted: FasterWhisperAsr, whole: FasterWhisperAsr, clips: Sequence[Clip]) -> Comparison:
    """Hear every clip through both windows, in turns, so that a busy machine slows down both."""
    found = [(_hear(fitted, clip), _hear(whole, clip)) for clip in clips]
    errors = np.array([(one.errors, other.errors) for one, other in found])
    words = np.array([one.words for one, _ in found])
    ms = np.median([(one.ms, other.ms) for one, other in found], axis=0)
    rates = 100 * errors.sum(axis=0) / words.sum()
    return Comparison(
        clips=len(clips),
        words=int(words.sum()),
        fitted=float(rates[0]),
        whole=float(rates[1]),
        interval=_interval(errors[:, 0] - errors[:, 1], words),
        fitted_ms=float(ms[0]),
        whole_ms=float(ms[1]),
    )


@dataclass(frozen=True, slots=True)
class _Result:
    errors: int
    words: int
    ms: float


def _hear(asr: FasterWhisperAsr, clip: Clip) -> _Result:
    start = time.perf_counter_ns()
    heard = asr.transcribe(clip.audio, Stop())
    ms = (time.perf_counter_ns() - start) / 1e6
    return _Result(*word_errors(clip.text, heard), ms)


def _interval(more: np.ndarray, words: np.ndarray) -> tuple[float, float]:
    found = bootstrap(
        (more, words),
        lambda m, w, axis: 100 * m.sum(axis=axis) / w.sum(axis=axis),
        paired=True,
        n_resamples=_RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(_SEED),
    ).confidence_interval
    return float(found.low), float(found.high)


def _phrases(folder: Path) -> list[Clip]:
    """Recordings that are named after their words, such as `Front_Left.wav` of `alsa-utils`."""
    return [
        Clip(read_audio(path), path.stem.replace("_", " "))
        for path in sorted(folder.glob("*_*.wav"))
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a row for each kind of speech; 1 where the fitted window is worse, 0 otherwise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default="embedded", help="the set (embedded)")
    parser.add_argument("--phrases", type=Path, help="folder of human phrases")
    parser.add_argument("--digits", type=Path, help="tar archive of human digits")
    options = parser.parse_args(arguments)
    model = resolve(options.models).asr
    fitted, whole = (FasterWhisperAsr(model, threads=1, fit_window=fit) for fit in (True, False))
    materials: dict[str, Callable[[], list[Clip]]] = {
        "data/speech": lambda: clips_of(load_manifest()),
    }
    if options.phrases is not None:
        materials["human phrases"] = lambda: _phrases(options.phrases)
    if options.digits is not None:
        materials["human digits"] = lambda: digit_strings(options.digits, _STRINGS, _SEED)
    worse = False
    for name, read in materials.items():
        one = compare(fitted, whole, read())
        worse |= one.interval[0] > 0
        sys.stdout.write(
            f"{name:14} {one.clips:4} clips {one.words:5} words: fitted {one.fitted:5.1f} % "
            f"{one.fitted_ms:5.0f} ms, whole {one.whole:5.1f} % {one.whole_ms:5.0f} ms, "
            f"difference {one.interval[0]:+.1f} to {one.interval[1]:+.1f}\n"
        )
    return 1 if worse else 0


if __name__ == "__main__":
    raise SystemExit(main())
