"""From model files to a warm pipeline."""

import os

from labkit.voice.engines import Engines, FasterWhisperAsr, LlamaLlm, PiperTts, SileroVad
from labkit.voice.models import ModelPaths
from labkit.voice.pipeline import VoicePipeline

__all__ = ["default_threads", "load_engines", "load_pipeline"]


def default_threads() -> int:
    """Threads per engine: half of the cores, since two engines often work at once; 4 at most."""
    return max(1, min(4, (os.cpu_count() or 1) // 2))


def load_engines(
    paths: ModelPaths, *, threads: int | None = None, fit_window: bool | None = None
) -> Engines:
    """Load the four engines and warm them up. Blocks for seconds.

    Args:
        paths: The models.
        threads: CPU threads of each engine; by default `default_threads()`.
        fit_window: Cut the recogniser's window to the utterance; by default where the model
            was trained for it.

    Raises:
        ModelBrokenError: A model does not load.
    """
    threads = threads or default_threads()
    fit = paths.fit_window if fit_window is None else fit_window
    engines = Engines(
        vad=SileroVad(),
        asr=FasterWhisperAsr(paths.asr, threads=threads, fit_window=fit),
        llm=LlamaLlm(paths.llm, threads=threads),
        tts=PiperTts(paths.tts, threads=threads),
    )
    engines.warm_up()
    return engines


def load_pipeline(
    paths: ModelPaths, *, threads: int | None = None, fit_window: bool | None = None
) -> VoicePipeline:
    """A pipeline over engines that are loaded and warm; see `load_engines`."""
    return VoicePipeline(load_engines(paths, threads=threads, fit_window=fit_window))
