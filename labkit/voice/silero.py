"""Voice activity detection by Silero VAD, with the weights that come inside faster-whisper.

The model looks at 512 samples at 16 kHz (32 ms) together with the 64 before them, and carries a
recurrent state. faster-whisper's own wrapper starts anew at each call; here the state lives from
frame to frame, so audio can be judged as it arrives.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from labkit.audio.pcm import Float32
from labkit.errors import EngineError


@dataclass(frozen=True, slots=True)
class _State:
    hidden: Float32
    """Of the recurrent layer, as `cell`: shape `(1, 1, 128)`."""
    cell: Float32
    context: Float32
    """The last 64 samples of the frame before."""


class SileroVad:
    """Silero VAD on onnxruntime."""

    frame_samples: Final = 512
    _CONTEXT: Final = 64
    _STATE: Final = (1, 1, 128)

    def __init__(self) -> None:
        """Load the model; it always runs on one thread.

        Raises:
            EngineError: faster-whisper's weights do not load.
        """
        from faster_whisper.vad import get_vad_model

        try:
            self._session = get_vad_model().session
        except Exception as error:  # onnxruntime raises classes of its own making
            raise EngineError(f"Silero VAD of faster-whisper does not load: {error}") from error

    def probabilities(self, state: _State | None, audio: Float32) -> tuple[list[float], _State]:
        """Speech probability of each frame of 512 samples."""
        if state is None:  # before the first frame there was nothing
            nothing = np.zeros(self._STATE, np.float32)
            state = _State(nothing, nothing, np.zeros(self._CONTEXT, np.float32))
        if not len(audio):
            return [], state
        frames = audio.reshape(-1, self.frame_samples)
        tails = frames[:, -self._CONTEXT :]
        contexts = np.concatenate([state.context[None], tails[:-1]])
        samples = np.concatenate([contexts, frames], axis=1)
        given = {"input": samples, "h": state.hidden, "c": state.cell}
        speech, hidden, cell = self._session.run(None, given)
        after = _State(hidden, cell, tails[-1].copy())
        return [float(probability) for probability in np.ravel(speech)], after
