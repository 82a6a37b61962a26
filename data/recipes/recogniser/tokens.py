"""The recogniser's tokeniser: byte-level BPE on the domain's text, then Whisper's specials."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

TEXT_TOKENS = 640
"""Size of the text vocabulary, the 256 bytes included."""
TIME_STEP_S = 0.02
SPECIALS = (
    "<|endoftext|>",
    "<|startoftranscript|>",
    "<|translate|>",
    "<|transcribe|>",
    "<|startoflm|>",
    "<|startofprev|>",
    "<|nospeech|>",
    "<|notimestamps|>",
)
SUPPRESSED = SPECIALS[1:7]
"""What never belongs into a transcript."""
_ALONE = " ".join("abcdefghijklmnopqrstuvwxyz'-")
_ALONE_WEIGHT = 20_000


class Vocabulary:
    """Words to token ids and back, and the control tokens' ids."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Wrap a tokeniser that has `SPECIALS` and timestamps after its text tokens."""
        self._tokenizer = tokenizer
        self.end = self.id("<|endoftext|>")
        self.start = self.id("<|startoftranscript|>")
        self.no_speech = self.id("<|nospeech|>")
        self.no_timestamps = self.id("<|notimestamps|>")
        self.first_time = self.no_timestamps + 1

    def __len__(self) -> int:
        """How many tokens there are, all kinds together."""
        return int(self._tokenizer.get_vocab_size(with_added_tokens=True))

    def id(self, token: str) -> int:
        """The id of `token`.

        Raises:
            KeyError: There is no such token.
        """
        found = self._tokenizer.token_to_id(token)
        if found is None:
            raise KeyError(f"the tokeniser has no token {token!r}")
        return int(found)

    def encode_word(self, word: str) -> list[int]:
        """Token ids of one word; a sentence is the concatenation of its words."""
        return list(self._tokenizer.encode(" " + word).ids)

    def time(self, seconds: float) -> int:
        """The timestamp token nearest to `seconds`, the last one at most."""
        steps = max(round(seconds / TIME_STEP_S), 0)
        return min(self.first_time + steps, len(self) - 1)

    def decode(self, ids: Iterable[int]) -> str:
        """Text of `ids`, without control tokens."""
        return str(self._tokenizer.decode(list(ids))).strip()

    def all_tokens(self) -> list[str]:
        """Every token's text, by id."""
        table = self._tokenizer.get_vocab(with_added_tokens=True)
        return sorted(table, key=lambda token: table[token])

    def save(self, path: Path) -> None:
        """Write `tokenizer.json`."""
        state = json.loads(self._tokenizer.to_str())
        path.write_text(json.dumps(state, ensure_ascii=False, separators=(",", ":")) + "\n")


def train_vocabulary(sentences: Iterable[str], longest_s: int) -> Vocabulary:
    """Learn the merges from `sentences`; timestamps go up to `longest_s` seconds.

    A space with any one letter, apostrophe or hyphen is always one token: the engine suppresses
    a bare space, and takes the first token of " -" and " '" to be one that it may suppress.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=TEXT_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_training_lines(sentences), trainer)
    times = [f"<|{step * TIME_STEP_S:.2f}|>" for step in range(longest_s * 50 + 1)]
    tokenizer.add_special_tokens([*SPECIALS, *times])
    return Vocabulary(tokenizer)


def load_vocabulary(path: Path) -> Vocabulary:
    """Read `tokenizer.json`."""
    return Vocabulary(Tokenizer.from_file(str(path)))


def _training_lines(sentences: Iterable[str]) -> Iterator[str]:
    for sentence in sentences:
        yield " " + sentence
    for _ in range(_ALONE_WEIGHT // 100):
        yield (" " + _ALONE) * 100
