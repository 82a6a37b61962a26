"""Training examples: which clips, whole or cut, alone or joined, and what the model must say.

An example is planned on a CPU process as numbers only (`Plan`); the audio is put together on the
training device (`assemble`), where the whole corpus lies.
"""

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from data.recipes.recogniser.corpus import Clip
from data.recipes.recogniser.sound import SAMPLE_RATE
from data.recipes.recogniser.tokens import Vocabulary

IGNORED = -100
"""Target of a position that the loss leaves out."""
BLANK = 0
"""The blank of the phone loss."""
_LENGTH_STEP = 8000


@dataclass(frozen=True)
class Mixture:
    """Shares of the ways in which an example is put together, and of what it is made from."""

    single: float = 0.56
    pair: float = 0.14
    triple: float = 0.06
    cut: float = 0.12
    whole_and_cut: float = 0.04
    nonspeech: float = 0.04
    nonspeech_and_speech: float = 0.04
    espeak: float = 0.50
    flite: float = 0.33
    digits: float = 0.17
    timestamps: float = 0.4
    """Share of examples whose transcript carries timestamps."""
    wrong_inputs: float = 0.07
    """Share of the decoder's text inputs that are replaced at random, so that it listens."""
    longest_s: float = 11.5


@dataclass
class Piece:
    """A stretch of a clip, and where it goes.

    Attributes:
        source: First sample in the corpus.
        length: Samples taken from there.
        words: What is said in it.
        ratio: Samples of the source per sample of the example: above 1 is higher and faster.
        gain: Factor on the samples.
        start: Where it goes in the example, in samples.
    """

    source: int
    length: int
    words: Sequence[str]
    ratio: float = 1.0
    gain: float = 1.0
    start: int = 0

    @property
    def heard(self) -> int:
        """Samples that it takes in the example."""
        return int((self.length - 1) / self.ratio)

    @property
    def end(self) -> int:
        """Where it ends in the example."""
        return self.start + self.heard


@dataclass
class Plan:
    """One example.

    Attributes:
        pieces: What is heard, in order.
        samples: Length of the whole.
        inputs: The decoder's input tokens.
        targets: The token after each input, or `IGNORED`.
        phones: Symbols for the phone loss.
    """

    pieces: list[Piece]
    samples: int
    inputs: list[int] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)
    phones: list[int] = field(default_factory=list)


def cut_words(words: Sequence[str], ends: Sequence[int], at: int) -> list[str]:
    """The words that are still understood when a clip ends at sample `at`.

    A word counts once all but its last tenth of a second, or its last quarter if that is less,
    has been said.
    """
    starts = [0, *ends[:-1]]
    heard = []
    for word, start, end in zip(words, starts, ends, strict=True):
        tolerance = min(SAMPLE_RATE // 10, (end - start) // 4)
        if at < end - tolerance:
            break
        heard.append(word)
    return heard


class Drawer:
    """Draws clips, those with rare words more often.

    A clip's weight falls with the square root of how often its rarest word occurs: a name that
    is heard a hundred times less than a digit still has to be learned.
    """

    def __init__(self, clips: Sequence[Clip]) -> None:
        self._clips = clips
        counts = Counter(word for clip in clips for word in set(clip.text.split()))
        rarest = (min((counts[word] for word in clip.text.split()), default=1) for clip in clips)
        self._cumulative = list(accumulate(count**-0.5 for count in rarest))

    def draw(self, rng: random.Random) -> Clip:
        """One clip."""
        return rng.choices(self._clips, cum_weights=self._cumulative)[0]


class Planner:
    """Draws examples from a corpus."""

    def __init__(
        self,
        clips: Sequence[Clip],
        vocabulary: Vocabulary,
        phones: dict[str, list[int]],
        mixture: Mixture,
    ) -> None:
        """Prepare.

        Args:
            clips: The corpus's index.
            vocabulary: Turns words into tokens.
            phones: Phone symbols of each word, without the blank.
            mixture: Shares.
        """
        self._vocabulary = vocabulary
        self._mixture = mixture
        self._phones = phones
        self._tokens = {word: vocabulary.encode_word(word) for word in phones}
        self._by_kind = {
            kind: Drawer([clip for clip in clips if clip.kind == kind])
            for kind in {clip.kind for clip in clips}
        }
        self._timed = Drawer([clip for clip in clips if clip.word_ends and " " in clip.text])
        self._makers = {
            "single": self._single,
            "pair": self._pair,
            "triple": self._triple,
            "cut": self._cut,
            "whole_and_cut": self._whole_and_cut,
            "nonspeech": self._nonspeech,
            "nonspeech_and_speech": self._nonspeech_and_speech,
        }

    def draw(self, rng: random.Random) -> Plan:
        """One example."""
        names = list(self._makers)
        weights = [getattr(self._mixture, name) for name in names]
        pieces = self._makers[rng.choices(names, weights)[0]](rng)
        plan = self._lay_out(pieces, rng)
        self._set_tokens(plan, rng)
        plan.phones = [p for piece in plan.pieces for w in piece.words for p in self._phones[w]]
        return plan

    def _clip(self, rng: random.Random) -> Clip:
        kinds = [kind for kind in ("espeak", "flite", "digits") if kind in self._by_kind]
        weights = [getattr(self._mixture, kind) for kind in kinds]
        return self._by_kind[rng.choices(kinds, weights)[0]].draw(rng)

    def _whole(self, rng: random.Random) -> Piece:
        clip = self._clip(rng)
        return _voiced(Piece(clip.start, clip.length, clip.text.split()), rng)

    def _cut_one(self, rng: random.Random) -> Piece:
        clip = self._timed.draw(rng)
        at = int(clip.length * rng.uniform(0.15, 0.97))
        return _voiced(Piece(clip.start, at, cut_words(clip.text.split(), clip.word_ends, at)), rng)

    def _sound(self, rng: random.Random) -> Piece:
        clip = self._by_kind["nonspeech"].draw(rng)
        gain = 10 ** (rng.uniform(-30, 0) / 20)
        return Piece(clip.start, clip.length, (), gain=gain)

    def _single(self, rng: random.Random) -> list[Piece]:
        return [self._whole(rng)]

    def _pair(self, rng: random.Random) -> list[Piece]:
        return [self._whole(rng), self._whole(rng)]

    def _triple(self, rng: random.Random) -> list[Piece]:
        return [self._whole(rng), self._whole(rng), self._whole(rng)]

    def _cut(self, rng: random.Random) -> list[Piece]:
        return [self._cut_one(rng)]

    def _whole_and_cut(self, rng: random.Random) -> list[Piece]:
        return [self._whole(rng), self._cut_one(rng)]

    def _nonspeech(self, rng: random.Random) -> list[Piece]:
        return [self._sound(rng)]

    def _nonspeech_and_speech(self, rng: random.Random) -> list[Piece]:
        pieces = [self._sound(rng), self._whole(rng)]
        rng.shuffle(pieces)
        return pieces

    def _lay_out(self, pieces: list[Piece], rng: random.Random) -> Plan:
        """Place the pieces one after another with pauses, as far as the longest example goes."""
        longest = int(self._mixture.longest_s * SAMPLE_RATE)
        position = _pause(rng, 0.25, 1.0)
        kept: list[Piece] = []
        for piece in pieces:
            piece.start = position
            if kept and piece.end > longest:
                break
            kept.append(piece)
            position = piece.end + _pause(rng, 0.3, 1.2)
        ends_in_speech = len(kept) == len(pieces) and rng.random() < 0.25
        samples = kept[-1].end if ends_in_speech else kept[-1].end + _pause(rng, 0.35, 1.2)
        return Plan(kept, max(samples, SAMPLE_RATE // 4))

    def _set_tokens(self, plan: Plan, rng: random.Random) -> None:
        v = self._vocabulary
        timed = rng.random() < self._mixture.timestamps
        inputs = [v.start] if timed else [v.start, v.no_timestamps]
        targets: list[int] = [] if timed else [IGNORED]
        body: list[int] = []
        for piece in plan.pieces:
            if piece.words:
                text = [token for word in piece.words for token in self._tokens[word]]
                body += self._timed_segment(text, piece) if timed else text
        if not body:
            inputs, targets = (
                ([v.start, v.first_time], [v.no_speech]) if timed else (inputs, [v.no_speech])
            )
        plan.targets = [*targets, *body, v.end]
        plan.inputs = inputs + [self._maybe_wrong(token, rng) for token in body]

    def _timed_segment(self, text: list[int], piece: Piece) -> list[int]:
        v = self._vocabulary
        return [v.time(piece.start / SAMPLE_RATE), *text, v.time(piece.end / SAMPLE_RATE)]

    def _maybe_wrong(self, token: int, rng: random.Random) -> int:
        text = token < self._vocabulary.end
        if text and rng.random() < self._mixture.wrong_inputs:
            return rng.randrange(256, self._vocabulary.end)
        return token


def _voiced(piece: Piece, rng: random.Random) -> Piece:
    piece.ratio = 2 ** (rng.uniform(-2.0, 2.0) / 12)
    piece.gain = 10 ** (rng.uniform(-8, 0) / 20)
    return piece


def _pause(rng: random.Random, mean: float, most: float) -> int:
    return int(min(rng.expovariate(1 / mean), most) * SAMPLE_RATE)


Batch = dict[str, Tensor]


def collate(plans: Sequence[Plan], end: int) -> Batch:
    """Several plans as arrays of numbers; `end` pads the decoder's inputs."""
    pieces = [plan.pieces for plan in plans]
    return {
        "source": _table([[p.source for p in row] for row in pieces], 0, np.int64),
        "length": _table([[p.length for p in row] for row in pieces], 0, np.int64),
        "start": _table([[p.start for p in row] for row in pieces], 0, np.int64),
        "ratio": _table([[p.ratio for p in row] for row in pieces], 1, np.float32),
        "gain": _table([[p.gain for p in row] for row in pieces], 0, np.float32),
        "samples": torch.tensor([plan.samples for plan in plans]),
        "longest": torch.tensor(_rounded_up(max(plan.samples for plan in plans))),
        "inputs": _table([plan.inputs for plan in plans], end, np.int64),
        "targets": _table([plan.targets for plan in plans], IGNORED, np.int64),
        "phones": _table([plan.phones for plan in plans], BLANK, np.int64),
        "phone_count": torch.tensor([len(plan.phones) for plan in plans]),
    }


def _rounded_up(samples: int) -> int:
    """Next length of a batch: few lengths, with small prime factors, suit FFT and allocator."""
    return -(-samples // _LENGTH_STEP) * _LENGTH_STEP


def _table(rows: Sequence[Sequence[float]], padding: float, dtype: npt.DTypeLike) -> Tensor:
    width = max(1, *(len(row) for row in rows))
    table = np.full((len(rows), width), padding, dtype)
    for line, row in zip(table, rows, strict=True):
        line[: len(row)] = row
    return torch.from_numpy(table)


class Batches(IterableDataset[Batch]):
    """An endless stream of batches of about equal audio, each of examples of like length."""

    def __init__(self, planner: Planner, seconds: float, seed: int, end: int) -> None:
        """Prepare.

        Args:
            planner: Draws the examples.
            seconds: Audio in one batch, padding included.
            seed: Each worker adds its number to it.
            end: The token that pads the decoder's inputs.
        """
        self._planner = planner
        self._budget = int(seconds * SAMPLE_RATE)
        self._seed = seed
        self._end = end

    def __iter__(self) -> Iterator[Batch]:
        """Draw for ever."""
        worker = torch.utils.data.get_worker_info()
        rng = random.Random(f"{self._seed}/{worker.id if worker else 0}")
        waiting: dict[int, list[Plan]] = {}
        while True:
            plan = self._planner.draw(rng)
            longest = _rounded_up(plan.samples)
            alike = waiting.setdefault(longest, [])
            alike.append(plan)
            if len(alike) * longest >= self._budget:
                yield collate(waiting.pop(longest), self._end)


def assemble(batch: Batch, corpus: Tensor) -> Tensor:
    """Put a batch's audio together.

    Args:
        batch: As from `collate`, on the device of the corpus but for "longest".
        corpus: All clips' samples as int16.

    Returns:
        Audio (batch, samples) in float32.
    """
    grid = torch.arange(int(batch["longest"]), device=corpus.device)
    audio = torch.zeros(len(batch["samples"]), len(grid), device=corpus.device)
    for piece in range(batch["source"].shape[1]):
        column = {name: batch[name][:, piece, None] for name in ("source", "length", "start")}
        place = (grid[None] - column["start"]) * batch["ratio"][:, piece, None]
        inside = (place >= 0) & (place < column["length"] - 1)
        place = torch.where(inside, place, 0.0)
        whole = place.long()
        index = column["source"] + whole
        last = len(corpus) - 1
        left, right = corpus[index].float(), corpus[(index + 1).clamp(max=last)].float()
        value = left + (right - left) * (place - whole)
        audio += value * inside * (batch["gain"][:, piece, None] / 32768)
    inside = grid[None] < batch["samples"][:, None]
    return audio * inside
