"""A recorder for the learner's own voice, and what is said where there is no microphone.

The same two cells work with a microphone, with a file, and with neither::

    voice = microphone()                     # Record, say something, Stop
    turn = await say(voice.recording(), server)

The browser records (`recorder.js`), at 16 kHz where it can, and sends 16-bit samples in messages
of 20 ms. Jupyter hands them to the kernel between two cells.
"""

from pathlib import Path
from typing import Any, Final

import anywidget
import numpy as np
import traitlets

from labkit.audio.pcm import SAMPLE_RATE, Float32, decode_s16le, resample, write_wav
from labkit.course.folder import mine
from labkit.measure.recordings import Recording, recording, recording_at

_LONGEST_S: Final = 60
_TAKES: Final = "takes"


class Recorder(anywidget.AnyWidget):
    """A button that records, a level, and three switches for what the browser does to the sound.

    A switch counts from the next recording on.

    Attributes:
        source: What was said last, or what stands in for it, in a sentence.
    """

    _esm = Path(__file__).with_name("recorder.js")

    echoCancellation = traitlets.Bool(True).tag(sync=True)  # noqa: N815 - as the browser names it
    """Take away what the loudspeaker plays."""
    noiseSuppression = traitlets.Bool(True).tag(sync=True)  # noqa: N815
    """Take away steady noise."""
    autoGainControl = traitlets.Bool(True).tag(sync=True)  # noqa: N815
    """Make quiet voices louder."""

    def __init__(self, instead: str | Path) -> None:
        super().__init__()
        self._instead = instead
        self._frames: list[bytes] = []
        self._rate = float(SAMPLE_RATE)
        self._takes = 0
        self.source = ""
        self.on_msg(self._take)

    def _take(self, _: object, content: dict[str, Any], buffers: list[memoryview]) -> None:
        match content.get("type"):
            case "started":
                self._frames, self._rate = [], float(content["rate"])
                self._takes += 1
            case "frame" if len(self._frames) * buffers[0].nbytes < _LONGEST_S * self._rate * 2:
                self._frames.append(bytes(buffers[0]))

    @property
    def samples(self) -> Float32:
        """What was recorded last, at 16 kHz; empty where nothing was."""
        recorded = decode_s16le(b"".join(self._frames))
        return resample(recorded, round(self._rate), SAMPLE_RATE)

    def recording(self) -> Recording:
        """What was recorded last, as a file of yours; where nothing was, what stands in for it.

        Raises:
            AudioError: There is neither a recording nor a file of that name.
        """
        samples = self.samples
        if not np.any(samples):
            found = recording(self._instead)
            why = "only silence came from the microphone" if self._frames else "nothing recorded"
            self.source = f"{why}: {found.path.name} is said instead"
            return found
        path = mine() / _TAKES / f"take-{self._takes}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_wav(path, samples)
        self.source = f"your own voice, {len(samples) / SAMPLE_RATE:.1f} s, kept in {path}"
        return recording_at(path)


def microphone(instead: str | Path = "slt-03") -> Recorder:
    """A recorder; as the last line of a cell it shows itself.

    Args:
        instead: What is said where nothing was recorded: a recording that comes with the course,
            or any WAV or FLAC file.
    """
    return Recorder(instead)
