"""The language model on llama.cpp, which reads nothing twice that it has read before.

Reading is what costs: a model of 135 M parameters reads some 100 tokens a second on one core, and
each turn's prompt holds all that was said before. llama.cpp keeps what it has computed of the
conversation that it read last, so of a prompt that begins with it only the rest is read. With
several callers, each one's turn would throw away what was read for the others. So that is kept
aside, as far as memory is granted.
"""

import codecs
import ctypes
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from labkit.errors import ModelBrokenError
from labkit.voice.history import Message
from labkit.voice.scheduling import Stop

if TYPE_CHECKING:
    from llama_cpp import Llama

__all__ = ["LlamaLlm", "fit_to_context"]

_CHATML: Final = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
)
"""For models whose file has no chat template."""
_AT_ONCE: Final = 32
"""Tokens that are read in one call: some 0.3 s of a core, and larger calls are not faster. A
caller who hangs up is waited for no longer than that."""
_MOST_KEPT: Final = 64 << 20
"""Bytes of conversations that are kept aside: some 3,000 tokens of a model of 135 M parameters."""
_WORTH_KEEPING: Final = 8
"""Tokens of a conversation that are sooner read again than kept aside."""
_SHORTEST_LOOP: Final = 4
_EXCHANGES_AT_ONCE: Final = 2


def fit_to_context(
    messages: Sequence[Message], count: Callable[[Sequence[Message]], int], room: int
) -> list[Message]:
    """Drop the oldest exchanges until the conversation fits into the model's context.

    Two go at once: each time that one goes, all that is left has to be read anew. A system
    message stays. Of a last message that alone is too long, the end stays.

    Args:
        messages: The conversation, oldest first.
        count: Tokens that a conversation takes.
        room: Tokens that there is room for.
    """
    system = [m for m in messages if m.role == "system"]
    turns = [m for m in messages if m.role != "system"]
    while len(turns) > 1 and count([*system, *turns]) > room:
        turns = turns[min(2 * _EXCHANGES_AT_ONCE, len(turns) - 1) :]
        while len(turns) > 1 and turns[0].role != "user":
            turns = turns[1:]
    while len(turns[-1].content) > 1 and count([*system, *turns]) > room:
        content = turns[-1].content
        turns[-1] = Message(turns[-1].role, content[len(content) // 4 + 1 :])
    return [*system, *turns]


class LlamaLlm:
    """A GGUF model on llama.cpp, through its own chat template."""

    def __init__(
        self, model: Path, *, threads: int, context: int = 1024, max_tokens: int = 160
    ) -> None:
        """Load the model.

        Args:
            model: The `.gguf` file.
            threads: CPU threads of one call, for the prompt and for new tokens alike.
            context: Most tokens of conversation and reply; older exchanges are dropped.
            max_tokens: Most tokens of one reply.

        Raises:
            ModelBrokenError: The model does not load.
        """
        from llama_cpp import Llama, llama_chat_format, llama_model_get_vocab, llama_vocab_is_eog

        try:
            self._llama = Llama(
                str(model),
                n_ctx=context,
                n_batch=_AT_ONCE,
                n_threads=threads,
                n_threads_batch=threads,
                verbose=False,
            )
        except (ValueError, OSError, AssertionError) as error:
            raise ModelBrokenError(model, str(error)) from error
        # At the end of the program it would else be closed when half of its library is gone.
        weakref.finalize(self, self._llama.close)
        vocabulary = llama_model_get_vocab(self._llama.model)
        self._ends: Callable[[int], bool] = partial(llama_vocab_is_eog, vocabulary)
        self._format = llama_chat_format.Jinja2ChatFormatter(
            self._llama.metadata.get("tokenizer.chat_template", _CHATML),
            eos_token=self._special(self._llama.token_eos()),
            bos_token=self._special(self._llama.token_bos()),
        )
        self._takes_system = self._accepts_system()
        self._read = _Read(self._llama)
        self._room = context - max_tokens
        self.max_tokens = max_tokens

    def _special(self, token: int) -> str:
        return "" if token < 0 else self._llama.detokenize([token], special=True).decode()

    def _accepts_system(self) -> bool:
        """Whether the template knows system messages: those of some families refuse them."""
        try:
            self._prompt([Message("system", "Be brief."), Message("user", "Hello.")])
        except ValueError:
            return False
        return True

    def warm_up(self) -> None:
        """Read a short prompt and write one token."""
        stop = Stop()
        for _ in self.reply([Message("user", "hello")], stop):
            stop.set()

    def reply(self, messages: Sequence[Message], stop: Stop) -> Iterator[str]:
        """A piece for each token, empty in the middle of a character.

        Greedy, so the same conversation gets the same reply. Small models get into loops that way,
        and a penalty on repetition would spoil the numbers that they are asked to repeat; so the
        reply ends where the same has been written three times in a row.
        """
        prompt = self._tokens(fit_to_context(messages, self.count, self._room))
        if not self._read_ahead(prompt, stop):
            return
        text = codecs.getincrementaldecoder("utf-8")("replace")
        written: list[int] = []
        with closing(self._llama.generate(prompt, temp=0.0)) as tokens:
            for token in islice(tokens, self.max_tokens):
                if self._ends(token) or stop.is_set() or _goes_round(written):
                    return
                yield text.decode(self._llama.detokenize([token], prev_tokens=written[-1:]))
                written.append(token)

    def _read_ahead(self, prompt: list[int], stop: Stop) -> bool:
        """Read all but the end of a prompt in small calls; False where it was stopped.

        `generate` reads what it has not read yet, and gives a token that nobody takes.
        """
        known = self._read.bring_back(prompt)
        for end in range(known + _AT_ONCE, len(prompt), _AT_ONCE):
            if stop.is_set():
                return False
            with closing(self._llama.generate(prompt[:end], temp=0.0)) as tokens:
                next(tokens)
        return not stop.is_set()

    def count(self, messages: Sequence[Message]) -> int:
        """Tokens that a conversation takes, with the beginning of the reply."""
        return len(self._tokens(messages))

    def _tokens(self, messages: Sequence[Message]) -> list[int]:
        if not self._takes_system and messages[0].role == "system":
            system, first, *others = messages
            messages = [Message("user", f"{system.content}\n\n{first.content}"), *others]
        return self._llama.tokenize(self._prompt(messages).encode(), add_bos=False, special=True)

    def _prompt(self, messages: Sequence[Message]) -> str:
        chat: Any = [{"role": m.role, "content": _harmless(m.content)} for m in messages]
        return self._format(messages=chat).prompt


def _goes_round(tokens: Sequence[int]) -> bool:
    """Whether the last tokens, four or more, stand there three times in a row."""
    return any(
        tokens[-n:] == tokens[-2 * n : -n] == tokens[-3 * n : -2 * n]
        for n in range(_SHORTEST_LOOP, len(tokens) // 3 + 1)
    )


def _harmless(text: str) -> str:
    """`text` without what the template's reader would take for a control token."""
    return text.replace("<|", " ").replace("|>", " ")


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two conversations have in common at their beginning."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


@dataclass(frozen=True, slots=True)
class _Kept:
    """A conversation that was read."""

    tokens: list[int]
    state: npt.NDArray[np.uint8]
    """What llama.cpp has computed of it."""


class _Read:
    """The conversations that were read: the one in llama.cpp's context, and those kept aside."""

    def __init__(self, llama: "Llama") -> None:
        self._llama = llama
        self._kept: list[_Kept] = []
        """Longest unused first."""

    def bring_back(self, prompt: Sequence[int]) -> int:
        """Put the conversation into the context that has most of `prompt`; gives how much."""
        current = self._llama.input_ids[: self._llama.n_tokens].tolist()
        known = _shared(current, prompt)
        best = max(self._kept, key=lambda kept: _shared(kept.tokens, prompt), default=None)
        if len(current) > known + _WORTH_KEEPING:  # another caller's: what is read next replaces it
            self._keep(current)
        if best is None or (found := _shared(best.tokens, prompt)) <= known + _WORTH_KEEPING:
            return known
        self._kept = [kept for kept in self._kept if kept is not best]
        self._restore(best)
        return found

    def _keep(self, tokens: list[int]) -> None:
        from llama_cpp import llama_state_seq_get_data, llama_state_seq_get_size

        state = np.empty(llama_state_seq_get_size(self._llama.ctx, 0), np.uint8)
        llama_state_seq_get_data(self._llama.ctx, _pointer(state), state.size, 0)
        self._kept = [k for k in self._kept if _shared(k.tokens, tokens) < len(k.tokens)]
        self._kept.append(_Kept(tokens, state))
        while sum(kept.state.size for kept in self._kept) > _MOST_KEPT:
            del self._kept[0]

    def _restore(self, kept: _Kept) -> None:
        from llama_cpp import llama_state_seq_set_data

        llama_state_seq_set_data(self._llama.ctx, _pointer(kept.state), kept.state.size, 0)
        self._llama.input_ids[: len(kept.tokens)] = kept.tokens
        # The last token is read again, since what it would be followed by is not kept.
        self._llama.n_tokens = len(kept.tokens) - 1


def _pointer(state: npt.NDArray[np.uint8]) -> Any:
    return state.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
