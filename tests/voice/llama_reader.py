"""A language model on llama.cpp that counts what it reads, and what to ask it."""

from collections.abc import Sequence

from labkit.voice.history import Message
from labkit.voice.llama import LlamaLlm
from labkit.voice.scheduling import Stop
from tests.engines import embedded_paths


def conversation(exchanges: int, *, system: str = "") -> list[Message]:
    said = [Message("system", system)] if system else []
    for number in range(exchanges):
        said += [Message("user", f"question {number}"), Message("assistant", f"answer {number}")]
    return [*said, Message("user", "last question")]


class Reader(LlamaLlm):
    """Counts the tokens that it reads and writes."""

    def __init__(self) -> None:
        super().__init__(embedded_paths().llm, threads=1)
        self.tokens = 0
        read = self._model.read

        def counted(sequence: int, tokens: Sequence[int], at: int) -> int:
            self.tokens += len(tokens)
            return read(sequence, tokens, at)

        self._model.read = counted  # type: ignore[method-assign]

    def answer(self, messages: Sequence[Message], stop: Stop | None = None) -> tuple[str, int]:
        """The reply, and how many tokens of the prompt were read for it."""
        before = self.tokens
        pieces = [piece for piece in self.reply(messages, stop or Stop()) if piece]
        return "".join(pieces), self.tokens - before - len(pieces)
