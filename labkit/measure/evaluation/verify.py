"""The embedded models, measured against their bars on the shipped held-out material."""

from collections.abc import Iterator
from pathlib import Path

from labkit.measure.evaluation import answerer, recogniser, voice
from labkit.measure.evaluation.figure import Figure
from labkit.voice.models import Role, find, locate

__all__ = ["verify"]


def verify(data: Path, *, digits: Path | None = None) -> Iterator[tuple[str, list[Figure]]]:
    """Measure the three embedded models, one after the other.

    Args:
        data: The project's `data/` folder.
        digits: Human digits as a tar archive; their rows are not measured without it.

    Yields:
        The name of a model and its figures, as soon as they are there.

    Raises:
        ModelError: A model is missing or does not load.
    """
    held_out = data / "heldout"
    asr = locate(find(Role.ASR, "lab-asr-en"))
    yield (
        "lab-asr-en",
        recogniser.evaluate(
            asr, held_out=held_out / "recogniser", speech=data / "speech", digits=digits
        ),
    )
    llm = locate(find(Role.LLM, "lab-llm-en"))
    yield "lab-llm-en", answerer.evaluate(llm, held_out=held_out / "answerer")
    tts = locate(find(Role.TTS, "lab-voice-en"))
    yield "lab-voice-en", voice.evaluate(tts, held_out=held_out / "voice", recogniser=asr)
