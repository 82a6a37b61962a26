"""The answerer's tokeniser: byte-level BPE, cut the way that llama.cpp's "qwen2" cuts text."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from data.recipes.answerer import text
from data.recipes.domain import dialogue

SPECIALS: Final = ("<|end|>", "<|user|>", "<|assistant|>", "<|system|>")
END, USER, ASSISTANT, SYSTEM = range(len(SPECIALS))
VOCABULARY: Final = 1024

_QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def train(seed: int, dialogues: int = 20_000) -> Tokenizer:
    """Learn the merges from the domain's own dialogues."""
    tokeniser = Tokenizer(models.BPE())
    tokeniser.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_QWEN2), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokeniser.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokeniser.train_from_iterator(_corpus(seed, dialogues), trainer)
    return tokeniser


def _corpus(seed: int, dialogues: int) -> Iterator[str]:
    rng = random.Random(seed)
    for _ in range(dialogues):
        for exchange in dialogue(rng):
            yield f" {exchange.user}"
            yield f" {text.written(rng, exchange.user)}"
            yield f" {exchange.assistant}"
        yield f" {text.made_up_name(rng)}"
        yield f" {text.open_question(rng)}"


def load(path: Path) -> Tokenizer:
    """Read a tokeniser that `train` made and saved."""
    return Tokenizer.from_file(str(path))
