"""What audio is here: float32 in [-1, 1], mono, at 16 kHz, shape (samples,)."""

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
SAMPLE_RATE = 16000
