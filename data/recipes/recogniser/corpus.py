"""The training clips: sentences of the domain, spoken by every training voice.

A corpus is a folder: raw shards of 16-bit samples one after another, and `index.jsonl` with one
line a clip. It is made once, on all cores, and deterministic from its seed.
"""

import json
import multiprocessing
import multiprocessing.connection
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data.recipes import domain
from data.recipes.recogniser.digits import Takes, digit_string, load_digits
from data.recipes.recogniser.nonspeech import nonspeech
from data.recipes.recogniser.sound import SAMPLE_RATE
from data.recipes.recogniser.synthesis import Espeak, Spoken, SynthesisError, speak_flite
from data.recipes.recogniser.voices import HELD_OUT_SPEAKER, espeak_voice, flite_voice

INDEX = "index.jsonl"
_LONGEST_S = 9.0
_NAMES = frozenset(domain.NAMES)
_SHARD = {"espeak": 250, "flite": 50, "digits": 250, "nonspeech": 100}


@dataclass(frozen=True)
class Amounts:
    """How many clips of each kind."""

    espeak: int = 30_000
    flite: int = 6_000
    digits: int = 4_500
    nonspeech: int = 1_000

    def scaled(self, share: float) -> "Amounts":
        """The same mixture, smaller or larger."""
        return Amounts(**{kind: max(int(n * share), 8) for kind, n in asdict(self).items()})


@dataclass(frozen=True)
class Clip:
    """One line of the index.

    Attributes:
        kind: What made it: "espeak", "flite", "digits" or "nonspeech".
        text: The words, empty for what is not speech.
        start: First sample in the corpus.
        length: Samples.
        word_ends: The sample after the end of each word, counted from the clip's start;
            empty where it is not known.
    """

    kind: str
    text: str
    start: int
    length: int
    word_ends: tuple[int, ...]


@dataclass(frozen=True)
class _Task:
    kind: str
    number: int
    count: int
    seed: int

    def audio(self, folder: Path) -> Path:
        """The file of its samples."""
        return folder / f"{self.kind}-{self.number:05d}.raw"

    def lines(self, folder: Path) -> Path:
        """The file of its clips' words and lengths."""
        return folder / f"{self.kind}-{self.number:05d}.jsonl"


def training_text(rng: random.Random, words: Sequence[str]) -> str:
    """A sentence of the domain that is not held out; now and then, words at random.

    Random words keep the decoder listening where a sentence takes no expected course. Names are
    rare in the domain, so some sentences are drawn until there is one in them.
    """
    manner = rng.random()
    if manner < 0.12:
        return " ".join(rng.choices(words, k=rng.randint(1, 6)))
    text = _trainable(rng)
    while manner > 0.85 and _NAMES.isdisjoint(text.split()):
        text = _trainable(rng)
    return text


def _trainable(rng: random.Random) -> str:
    while domain.is_held_out(text := domain.utterance(rng)):
        continue
    return text


def domain_sentences(seed: int, count: int) -> list[str]:
    """Sentences that the vocabulary and the lexicon are made from."""
    rng = random.Random(seed)
    drawn = (domain.utterance(rng) for _ in range(count))
    return [text for text in drawn if not domain.is_held_out(text)]


def domain_words(seed: int, count: int = 60_000) -> list[str]:
    """The distinct words of the domain, in alphabetical order."""
    return sorted({word for text in domain_sentences(seed, count) for word in text.split()})


class _Maker:
    """What one process needs to make clips."""

    def __init__(self, words: Sequence[str], takes: Takes) -> None:
        self._words = words
        self._takes = takes
        self._speakers = sorted(set(takes) - {HELD_OUT_SPEAKER})
        self._espeak: Espeak | None = None

    def make(self, kind: str, rng: random.Random) -> tuple[str, Spoken]:
        """One clip of the given kind, with its words."""
        if kind == "nonspeech":
            return "", Spoken(nonspeech(rng))
        if kind == "digits":
            takes = self._takes[rng.choice(self._speakers)]
            return digit_string(rng, takes, rng.randint(1, 9), vary=True)
        text = training_text(rng, self._words)
        if kind == "flite":
            return text, speak_flite(text, flite_voice(rng))
        self._espeak = self._espeak or Espeak()
        return text, self._espeak.speak(text, espeak_voice(rng))


def _run(task: _Task, attempt: int, maker: _Maker, folder: Path) -> None:
    """Make one shard, and beside it a line for each of its clips."""
    rng = random.Random(f"{task.seed}/{task.kind}/{task.number}/{attempt}")
    lines = []
    with task.audio(folder).open("wb") as file:
        for _ in range(task.count):
            text, spoken = maker.make(task.kind, rng)
            if len(spoken.audio) <= _LONGEST_S * SAMPLE_RATE:
                file.write(to_int16(spoken.audio).tobytes())
                lines.append(json.dumps((text, len(spoken.audio), spoken.word_ends)))
    task.lines(folder).write_text("\n".join(lines))


def to_int16(audio: npt.NDArray[np.float32]) -> npt.NDArray[np.int16]:
    """Samples at a peak of half of full scale, so that nothing clips; silence stays."""
    peak = float(np.abs(audio).max())
    scale = 16384 / peak if peak > 1e-3 else 32767
    return np.round(audio * scale).astype(np.int16)


def _tasks(amounts: Amounts, seed: int, with_digits: bool) -> Iterator[_Task]:
    """The shards; the slow synthesiser's first, so that the cores end together."""
    for kind in ("flite", "espeak", "digits", "nonspeech"):
        if kind == "digits" and not with_digits:
            continue
        total, size = getattr(amounts, kind), _SHARD[kind]
        for number in range(-(-total // size)):
            yield _Task(kind, number, min(size, total - number * size), seed)


def build(folder: Path, amounts: Amounts, seed: int, digits: Path | None, workers: int) -> None:
    """Make the corpus in `folder`, unless it is there already.

    Args:
        folder: Where to.
        amounts: How many clips of each kind.
        seed: Of everything drawn.
        digits: The human digits, a folder or an archive; without them there are none.
        workers: Processes.
    """
    if (folder / INDEX).exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    maker = _Maker(domain_words(seed), load_digits(digits) if digits else {})
    tasks = list(_tasks(amounts, seed, with_digits=digits is not None))
    _Supervisor(partial(_run, maker=maker, folder=folder), workers).run(tasks)
    lines = _index(tasks, folder)
    (folder / f"{INDEX}.part").write_text("\n".join(lines) + "\n")
    (folder / f"{INDEX}.part").rename(folder / INDEX)


class _Supervisor:
    """Runs each task in a process of its own, and again where one crashes or hangs.

    A synthesiser may do either; a pool of processes would wait for ever.
    """

    _PATIENCE_S = 60.0
    _ATTEMPTS = 4

    def __init__(self, work: Callable[[_Task, int], None], workers: int) -> None:
        self._work = work
        self._workers = workers
        self._context = multiprocessing.get_context("fork")
        self._running: dict[int, tuple[BaseProcess, _Task, int, float]] = {}

    def run(self, tasks: Sequence[_Task]) -> None:
        """Work until all is done."""
        started, done = time.perf_counter(), 0
        waiting = [(task, 0) for task in reversed(tasks)]
        while waiting or self._running:
            while waiting and len(self._running) < self._workers:
                self._start(*waiting.pop())
            multiprocessing.connection.wait(list(self._running), timeout=1.0)
            for task, attempt, succeeded in self._ended():
                done += succeeded
                if not succeeded:
                    waiting.append((task, attempt + 1))
                if succeeded and done % 100 == 0:
                    seconds = time.perf_counter() - started
                    print(f"corpus: {done} of {len(tasks)} shards, {seconds:.0f} s", flush=True)

    def _start(self, task: _Task, attempt: int) -> None:
        if attempt == self._ATTEMPTS:
            raise SynthesisError(f"{task} failed {attempt} times")
        process = self._context.Process(target=self._work, args=(task, attempt))
        process.start()
        self._running[process.sentinel] = (process, task, attempt, time.monotonic())

    def _ended(self) -> Iterator[tuple[_Task, int, bool]]:
        """The tasks that are over, and whether they succeeded; ends those that hang."""
        for sentinel, (process, task, attempt, since) in list(self._running.items()):
            if process.is_alive() and time.monotonic() - since > self._PATIENCE_S:
                process.kill()
                process.join()
            if not process.is_alive():
                process.join()
                del self._running[sentinel]
                if process.exitcode != 0:
                    print(f"{task}, attempt {attempt}: exit {process.exitcode}", flush=True)
                yield task, attempt, process.exitcode == 0


def _index(tasks: Sequence[_Task], folder: Path) -> list[str]:
    """One line for each clip of all shards, in the order of the shards."""
    lines, start = [], 0
    for task in tasks:
        for line in task.lines(folder).read_text().splitlines():
            text, length, ends = json.loads(line)
            lines.append(json.dumps(asdict(Clip(task.kind, text, start, length, ends))))
            start += length
    print(f"corpus: {len(lines)} clips, {start / SAMPLE_RATE / 3600:.1f} h", flush=True)
    return lines


def load_index(folder: Path) -> list[Clip]:
    """Read the corpus's index."""
    with (folder / INDEX).open() as file:
        records = [json.loads(line) for line in file]
    return [Clip(**{**record, "word_ends": tuple(record["word_ends"])}) for record in records]


def load_audio(folder: Path, clips: Sequence[Clip]) -> npt.NDArray[np.int16]:
    """All samples of the corpus, one clip after another.

    Raises:
        ValueError: The shards do not hold what the index says.
    """
    audio = np.empty(clips[-1].start + clips[-1].length, np.int16)
    position = 0
    for shard in _shards_in_order(folder):
        samples = np.fromfile(shard, np.int16)
        audio[position : position + len(samples)] = samples
        position += len(samples)
    if position != len(audio):
        raise ValueError(f"{folder} holds {position} samples, its index says {len(audio)}")
    return audio


def _shards_in_order(folder: Path) -> list[Path]:
    order = ("flite", "espeak", "digits", "nonspeech")
    shards = folder.glob("*.raw")
    return sorted(shards, key=lambda path: (order.index(path.name.split("-")[0]), path.name))
