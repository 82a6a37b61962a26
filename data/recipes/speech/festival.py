"""Festival as a synthesiser that tells where each phone ends."""

import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

PAUSE = "pau"


@dataclass(frozen=True)
class Voice:
    """A Festival voice in one manner of speaking.

    Attributes:
        name: How the recordings call it.
        festival: Festival's own name of the voice.
        package: The Debian package that holds the voice.
        licence: Its terms, as the package states them.
        stretch: Duration of every phone relative to the voice's own.
        pitch_hz: Mean of the fundamental frequency, None for the voice's own; diphone voices only.
        size: Length of the vocal tract relative to the voice's own: above one is a deeper voice.
    """

    name: str
    festival: str
    package: str
    licence: str
    stretch: float = 1.0
    pitch_hz: int | None = None
    size: float = 1.0

    @property
    def is_statistical(self) -> bool:
        """Whether it is a statistical (HTS) voice, whose speed is a setting of its own engine."""
        return self.festival.endswith("_hts")


@dataclass(frozen=True)
class Spoken:
    """What Festival made of a sentence.

    Attributes:
        samples: Mono float32 at `rate`, shape `(n,)`.
        rate: Samples per second.
        phones: Each phone with its end in seconds, pauses included.
    """

    samples: NDArray[np.float32]
    rate: int
    phones: list[tuple[str, float]]

    @property
    def speech_end_s(self) -> float:
        """Where the last phone ends that is no pause."""
        return max(end for phone, end in self.phones if phone != PAUSE)


def speak(voice: Voice, sentences: Sequence[str]) -> list[Spoken]:
    """Synthesise `sentences` with one run of Festival.

    Raises:
        RuntimeError: Festival or the voice is not installed, or Festival failed.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "say.scm").write_text(script(voice, sentences, folder), encoding="ascii")
        _run(folder / "say.scm", voice)
        return [_collect(folder, index, voice.size) for index in range(len(sentences))]


def script(voice: Voice, sentences: Sequence[str], folder: Path) -> str:
    """The Scheme program that makes Festival write each sentence and its phones to `folder`."""
    lines = [f"(voice_{voice.festival})", _manner(voice), _SAY]
    for index, sentence in enumerate(sentences):
        text = sentence.replace("\\", "\\\\").replace('"', '\\"')
        lines.append(f'(say "{text}" "{folder / str(index)}")')
    return "\n".join(lines) + "\n"


_SAY = """
(define (say text path)
  (let ((utt (utt.synth (eval (list 'Utterance 'Text text))))
        (out (fopen (string-append path ".phones") "w")))
    (utt.save.wave utt (string-append path ".wav") 'riff)
    (mapcar
      (lambda (phone) (format out "%s %f\\n" (item.name phone) (item.feat phone 'end)))
      (utt.relation.items utt 'Segment))
    (fclose out)))
"""


def _manner(voice: Voice) -> str:
    # A larger vocal tract is made by playing the audio slower, which also slows the speech and
    # lowers the pitch. So both are asked for faster and higher (the pitch of a diphone voice
    # only: the statistical engine has no setting for it).
    stretch = voice.stretch / voice.size
    if voice.is_statistical:
        return (
            f'(set! hts_engine_params (append hts_engine_params (list \'("-r" {1 / stretch:.4f}))))'
        )
    lines = [f"(Parameter.set 'Duration_Stretch {stretch:.4f})"]
    if voice.pitch_hz is not None:
        lines.append(
            f"(set! int_lr_params '((target_f0_mean {voice.pitch_hz * voice.size:.1f})"
            " (target_f0_std 16) (model_f0_mean 170) (model_f0_std 34)))"
        )
    return "\n".join(lines)


def _run(program: Path, voice: Voice) -> None:
    mend = f"apt-get install festival {voice.package}"
    try:
        done = subprocess.run(["festival", "-b", program], capture_output=True, text=True)
    except FileNotFoundError:
        raise RuntimeError(f"festival is not installed: {mend}") from None
    if done.returncode or "unbound variable" in done.stderr:
        raise RuntimeError(f"festival failed for voice {voice.name} ({mend}): {done.stderr}")


def _collect(folder: Path, index: int, size: float) -> Spoken:
    samples, rate = soundfile.read(folder / f"{index}.wav", dtype="float32")
    lines = (folder / f"{index}.phones").read_text(encoding="ascii").splitlines()
    phones = [(name, float(end) * size) for name, end in (line.split() for line in lines)]
    return Spoken(samples, round(rate / size), phones)
