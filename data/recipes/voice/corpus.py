"""The training corpus: sentences as Piper's ids, how long each lasts, and features per frame."""

import zipfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from data.recipes.voice import features
from data.recipes.voice.alignment import align
from data.recipes.voice.teacher import Spoken, speak, trimmed

__all__ = ["Sentence", "build", "dictionary", "durations", "load", "symbols"]

ESPEAK_VOICE: Final = "en-us"
_WORST_COST: Final = 0.25
"""Sentences that the two pronunciation models read too differently are left out."""


@dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence of the corpus.

    Attributes:
        ids: Ids of Piper's symbols without its padding, int64, `(symbols,)`.
        durations: Frames that each lasts, int64, `(symbols,)`.
        frames: Features, float32, `(sum(durations), features.WIDTH)`.
    """

    ids: np.ndarray
    durations: np.ndarray
    frames: np.ndarray


def dictionary() -> list[str]:
    """English words of four to nine letters, from the dictionary that pocketsphinx brings."""
    import pocketsphinx

    path = Path(pocketsphinx.get_model_path("en-us/cmudict-en-us.dict"))
    words = (line.split()[0] for line in path.read_text(encoding="utf-8").splitlines())
    return sorted({word for word in words if word.isalpha() and 4 <= len(word) <= 9})


def symbols(text: str) -> list[str] | None:
    """Piper's symbols from `^` to `$`; None where it would speak more than one sentence."""
    from piper.phonemize_espeak import EspeakPhonemizer

    spoken = EspeakPhonemizer().phonemize(ESPEAK_VOICE, text)
    return ["^", *spoken[0], "$"] if len(spoken) == 1 else None


def ids_of(names: Sequence[str]) -> list[int]:
    """Piper's ids of symbols."""
    from piper.phoneme_ids import DEFAULT_PHONEME_ID_MAP

    return [DEFAULT_PHONEME_ID_MAP[name][0] for name in names]


def durations(ends: Iterable[float], frames: int) -> np.ndarray:
    """Frames of each symbol; rounding never adds up, and the last symbol ends the sentence."""
    places = np.round(np.fromiter(ends, float) / features.FRAME_S).astype(np.int64)
    places = np.minimum(places, frames)
    places[-1] = frames
    return np.diff(places, prepend=0)


def sentence(text: str, names: Sequence[str]) -> Sentence | None:
    """One sentence spoken, aligned and analysed; None where the pronunciations differ much."""
    spoken = trimmed(speak(text))
    ends, cost = align(names, spoken.phones)
    if cost > _WORST_COST:
        return None
    frames = features.analyse(_steady(spoken).audio)
    return Sentence(np.array(ids_of(names)), durations(ends, len(frames)), frames)


def _steady(spoken: Spoken) -> Spoken:
    """The same with a faint hiss, so that digital silence has an envelope."""
    hiss = np.random.default_rng(0).standard_normal(len(spoken.audio)) * 1e-5
    return Spoken(spoken.audio + hiss, spoken.phones)


def _task(task: tuple[str, list[str]]) -> Sentence | None:
    return sentence(*task)


def build(texts: Sequence[str], path: Path, workers: int) -> None:
    """Make the corpus and write it to `path`."""
    named = [(text, names) for text in texts if (names := symbols(text))]
    build_named(named, path, workers)


def build_named(named: Sequence[tuple[str, list[str]]], path: Path, workers: int) -> None:
    """The same, from sentences with their symbols."""
    made = [item for item in _progress(_mapped(named, workers), len(named)) if item]
    partial = path.with_suffix(".partial")
    _save(made, partial)
    partial.replace(path)
    seconds = sum(len(item.frames) for item in made) * features.FRAME_S
    print(f"corpus: {len(made)} of {len(named)} sentences, {seconds / 60:.0f} minutes", flush=True)


def _mapped(named: Sequence[tuple[str, list[str]]], workers: int) -> Iterator[Sentence | None]:
    if workers == 1:
        yield from map(_task, named)
        return
    with ProcessPoolExecutor(workers) as pool:
        yield from pool.map(_task, named, chunksize=8)


def _progress(items: Iterable[Sentence | None], count: int) -> Iterator[Sentence | None]:
    for number, item in enumerate(items, start=1):
        if number % 200 == 0:
            print(f"corpus: {number} of {count} sentences", flush=True)
        yield item


def _save(sentences: Sequence[Sentence], path: Path) -> None:
    """One archive: everything end to end, and where each sentence ends."""
    arrays = {
        "ids": np.concatenate([item.ids for item in sentences]).astype(np.uint8),
        "durations": np.concatenate([item.durations for item in sentences]).astype(np.int16),
        "frames": np.concatenate([item.frames for item in sentences]).astype(np.float16),
        "symbol_counts": np.array([len(item.ids) for item in sentences]),
        "frame_counts": np.array([len(item.frames) for item in sentences]),
    }
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)


def load(path: Path) -> list[Sentence]:
    """Read a corpus.

    Raises:
        RuntimeError: The file is broken.
    """
    try:
        with np.load(path) as archive:
            arrays = dict(archive)
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise RuntimeError(f"{path} is no corpus; delete it and run again: {error}") from error
    by_symbol = np.cumsum(arrays["symbol_counts"])[:-1]
    by_frame = np.cumsum(arrays["frame_counts"])[:-1]
    return [
        Sentence(ids.astype(np.int64), lasting.astype(np.int64), frames.astype(np.float32))
        for ids, lasting, frames in zip(
            np.split(arrays["ids"], by_symbol),
            np.split(arrays["durations"], by_symbol),
            np.split(arrays["frames"], by_frame),
            strict=True,
        )
    ]
