"""The language model on llama.cpp: several conversations side by side, none of them read twice.

Reading is what costs: a model of 135 M parameters reads some 100 tokens a second on one core, and
each turn's prompt holds all that was said before. llama.cpp keeps what it has computed of a
conversation, so of a prompt that begins with it only the rest is read.

With several callers, each conversation is a *sequence* of its own in one context. So replies can
be written in turns, a token of one and a token of the other, and nothing is put aside or read
again in between. The other way would be to compute the next tokens of all replies in one batch.
Measured with SmolLM2-135M on one core, in tokens per second of processor time:

=============================  ====  ====  ====
replies at a time                 1     2     4
=============================  ====  ====  ====
in turns: all together           50    45    46
in one batch: all together        -    56    62
in turns: the one that is due    50    45    46
in one batch: each                -    28    15
=============================  ====  ====  ====

A batch writes a third more, but who waits for a first clause gets it at a third of the speed, as
everybody else in the batch does. In turns, each has its clause as soon as those are through that
were due before it: of four, three sooner than in a batch. And what a reply says does not depend
on who else is in the batch: sums are rounded otherwise there, and where two words are as likely
that decides.
"""

import codecs
import ctypes
import logging
import os
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np

from labkit.errors import EngineError, ModelBrokenError
from labkit.voice.history import Message
from labkit.voice.scheduling import Stop

_CHATML: Final = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
)
"""For models whose file has no chat template."""
_AT_ONCE: Final = 16
"""Tokens that are read in one call: some 0.2 s of a core, and larger calls are not faster. A
caller who hangs up, or who is due sooner, is waited for no longer than that."""
_CONTEXT: Final = 1024
"""Most tokens of a conversation with its reply; older exchanges are dropped."""
_MOST_WRITTEN: Final = 160
"""Most tokens of a reply."""
_CONVERSATIONS: Final = 4
"""So many conversations of full length have room; of usual ones, which are short, many more."""
_MOST_KEPT: Final = 64 << 20
"""Bytes of conversations beside the one at hand: some 3,000 tokens of a model of 135 M
parameters."""
_MOST_SEQUENCES: Final = 32
_NONE: Final = -1
_LONGEST_TOKEN: Final = 256
"""Bytes."""
_WORTH_KEEPING: Final = 8
"""Tokens of a conversation that are sooner read again than kept."""
_WARM: Final = 4
"""Tokens."""
_TELLING: Final = 3
"""Tokens that tell how long one takes."""
_UNTIL_TRIED: Final = 64
"""Tokens that few threads write where many were slower: a reply or two."""
_SHORTEST_LOOP: Final = 4
_EXCHANGES_AT_ONCE: Final = 2
_LEAST_SAID: Final = 4
"""This part of the room, a quarter, is left to what is said."""


def fit_to_context(
    messages: Sequence[Message], count: Callable[[Sequence[Message]], int], room: int
) -> list[Message]:
    """Drop the oldest exchanges until the conversation, of `count` tokens, fits into `room`.

    Two go at once: each time that one goes, all that is left has to be read anew. A system
    message stays. Of a last message that alone is too long, the end stays.

    Raises:
        EngineError: The system message leaves no room for what is said.
    """
    system = [m for m in messages if m.role == "system"]
    turns = [m for m in messages if m.role != "system"]
    if system and (told := count([*system, Message("user", "")])) > room - room // _LEAST_SAID:
        raise EngineError(
            f"the system message takes {told} tokens of the {room} that the model has room for"
        )
    while len(turns) > 1 and count([*system, *turns]) > room:
        turns = turns[min(2 * _EXCHANGES_AT_ONCE, len(turns) - 1) :]
        while len(turns) > 1 and turns[0].role != "user":
            turns = turns[1:]
    while len(turns[-1].content) > 1 and count([*system, *turns]) > room:
        content = turns[-1].content
        turns[-1] = Message(turns[-1].role, content[len(content) // 4 + 1 :])
    return [*system, *turns]


class Threads:
    """How many threads write a token soonest, as it was lately.

    Many, where no other engine works and nothing else does: a small model gains nothing by them,
    and other programs may want the cores. Then few write the next tokens, until it is tried again.
    What few took is of another time when many seem slower, and machines have faster and slower
    times; so few must show first that they are sooner through now.
    """

    def __init__(self, few: int, many: int) -> None:
        """Choose between so many, of which `few` are always right."""
        self._few = few
        self._many = many
        self._took_s = {threads: deque[float](maxlen=_TELLING) for threads in (few, many)}
        self._tokens_left = 0

    def choose(self, *, alone: bool) -> int:
        """Threads for the next call."""
        return self._many if alone and not self._tokens_left else self._few

    def took(self, threads: int, seconds: float) -> None:
        """Note what one token took."""
        self._took_s[threads].append(seconds)
        if threads == self._few and self._tokens_left:
            self._tokens_left -= 1
            if not self._tokens_left:
                self._took_s[self._many].clear()
            elif self._tokens_left == _UNTIL_TRIED - _TELLING and not self._few_are_sooner():
                self._tokens_left = 0
        elif threads == self._many and self._few_are_sooner():
            self._took_s[self._few].clear()
            self._tokens_left = _UNTIL_TRIED

    def _few_are_sooner(self) -> bool:
        """By the middle one of their last tokens: the first behind a pause often takes twice."""
        few, many = (self._took_s[threads] for threads in (self._few, self._many))
        return len(few) == len(many) == _TELLING and median(few) < median(many)


class LlamaLlm:
    """A GGUF model on llama.cpp, through its own chat template."""

    def __init__(self, model: Path, *, threads: int, alone: int | None = None) -> None:
        """Load the model.

        Args:
            model: The `.gguf` file.
            threads: CPU threads of one call, for the prompt and for new tokens alike.
            alone: Those while no other engine works; by default as many. Only of a llama.cpp with
                OpenMP, whose threads bear it when other programs want the cores.

        Raises:
            ModelBrokenError: The model does not load, or its chat template does not work.
        """
        from jinja2 import TemplateError
        from llama_cpp.llama_chat_format import Jinja2ChatFormatter

        self._model = _Model(model, threads)
        with_openmp = self._model.has_openmp
        self._threads = Threads(threads, alone if alone and with_openmp else threads)
        self._alone = False
        try:
            self._format = Jinja2ChatFormatter(
                self._model.chat_template or _CHATML,
                eos_token=self._model.eos,
                bos_token=self._model.bos,
            )
            self._prompt([Message("user", "Hello.")])
        except (TemplateError, ValueError) as error:
            raise ModelBrokenError(model, f"its chat template does not work: {error}") from error
        self._takes_system = self._accepts_system()
        self._conversations = _Conversations(self._model)
        self.max_tokens = _MOST_WRITTEN

    def _accepts_system(self) -> bool:
        """Templates of some families refuse system messages."""
        try:
            self._prompt([Message("system", "Be brief."), Message("user", "Hello.")])
        except ValueError:
            return False
        return True

    def set_alone(self, alone: bool) -> None:
        """Say whether no other engine works."""
        self._alone = alone

    def warm_up(self) -> None:
        """Read a short prompt and write some tokens, with few threads and with many."""
        for alone in (False, True):
            self.set_alone(alone)
            written, stop = 0, Stop()
            for piece in self.reply([Message("user", "hello")], stop):
                written += bool(piece)
                if written == _WARM:
                    stop.set()

    def reply(self, messages: Sequence[Message], stop: Stop) -> Iterator[str]:
        """A piece for each token, empty in the middle of a character and while it reads.

        Greedy, so the same conversation gets the same reply. Small models get into loops that way,
        and a penalty on repetition would spoil the numbers that they are asked to repeat; so the
        reply ends where the same has been written three times in a row.
        """
        prompt = self._tokens(fit_to_context(messages, self.count, _CONTEXT - _MOST_WRITTEN))
        conversation, written = _Conversation(), list[int]()
        text = codecs.getincrementaldecoder("utf-8")("replace")
        try:
            while not stop.is_set():
                token = self._read_on(conversation, [*prompt, *written], timed=bool(written))
                if token is None:
                    if not conversation.lost:  # else others would make it lose its place for ever
                        yield ""
                    continue
                if self._model.ends(token) or _goes_round(written):
                    return
                yield text.decode(self._model.text(token))
                written.append(token)
                if len(written) == self.max_tokens:
                    stop.set()
        finally:
            conversation.busy = False  # what it has read is kept

    def _read_on(
        self, conversation: "_Conversation", tokens: Sequence[int], *, timed: bool
    ) -> int | None:
        """The next part, by as many threads as are soonest through."""
        threads, begun_s = self._threads.choose(alone=self._alone), time.perf_counter()
        self._model.use_threads(threads)
        token = self._conversations.read_on(conversation, tokens)
        if timed and token is not None:
            self._threads.took(threads, time.perf_counter() - begun_s)
        return token

    def count(self, messages: Sequence[Message]) -> int:
        """Tokens that a conversation takes, with the beginning of the reply."""
        return len(self._tokens(messages))

    def _tokens(self, messages: Sequence[Message]) -> list[int]:
        if not self._takes_system and messages[0].role == "system":
            system, first, *others = messages
            messages = [Message("user", f"{system.content}\n\n{first.content}"), *others]
        return self._model.tokens(self._prompt(messages))

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
    """Without what the template's reader would take for a control token."""
    return text.replace("<|", " ").replace("|>", " ")


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """Tokens that two conversations have in common at their beginning."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


@dataclass(slots=True, eq=False)
class _Conversation:
    """A conversation in llama.cpp's context, as far as it was read."""

    sequence: int = _NONE
    """Its number there; `_NONE` before it has one, and once it had to make room."""
    tokens: list[int] = field(default_factory=list)
    busy: bool = True
    """A reply to it is being written."""
    lost: bool = False
    """It had to make room, and is read again."""


class _Conversations:
    """The conversations in llama.cpp's context, which share its cells.

    Where those run out, the conversation that was longest unused is forgotten. Should its caller
    come back, it is read again.
    """

    def __init__(self, model: "_Model") -> None:
        self._model = model
        self._held: list[_Conversation] = []
        """Longest unused first."""
        self._free = list(range(_MOST_SEQUENCES))

    def read_on(self, conversation: _Conversation, tokens: Sequence[int]) -> int | None:
        """Read the next part of `tokens`; gives the token that should follow all of them.

        A call reads `_AT_ONCE` tokens at most, and gives None while there are more.
        """
        if conversation.sequence == _NONE:
            self._place(conversation, tokens)
        else:
            self._held.remove(conversation)
            self._held.append(conversation)
        known = len(conversation.tokens)
        part = tokens[known : known + _AT_ONCE]
        while len(self._held) > 1 and self._cells() + len(part) > self._model.cells:
            self._forget_one(conversation)
        follows = self._model.read(conversation.sequence, part, known)
        conversation.tokens.extend(part)
        return follows if known + len(part) == len(tokens) else None

    def _place(self, conversation: _Conversation, prompt: Sequence[int]) -> None:
        """Go on where `prompt` was read before: in that sequence, or in a copy of its beginning.

        A copy, where that sequence is another caller's, who has only the beginning in common, such
        as what all models are told first. The last token is read again: what would follow it is
        not kept.
        """
        best = max(self._held, key=lambda held: _shared(held.tokens, prompt), default=None)
        known = 0 if best is None else min(_shared(best.tokens, prompt), len(prompt) - 1)
        if best is not None and not best.busy and len(best.tokens) <= known + _WORTH_KEEPING:
            self._held.remove(best)
            sequence = best.sequence
        else:
            if not self._free:
                self._forget_one(best)
            sequence = self._free.pop()
            if best is not None:
                self._model.copy(best.sequence, sequence)
        known = self._model.cut(sequence, known)
        conversation.sequence, conversation.tokens = sequence, list(prompt[:known])
        self._held.append(conversation)

    def _cells(self) -> int:
        """Cells that are taken, at most: a beginning in common counts for each that has it."""
        return sum(len(held.tokens) for held in self._held)

    def _forget_one(self, kept: _Conversation | None) -> None:
        """Forget another conversation than `kept`: first one that nobody is answered in."""
        others = (held for held in self._held if held is not kept)
        forgotten = min(others, key=lambda held: held.busy)
        self._held.remove(forgotten)
        self._model.cut(forgotten.sequence, 0)
        self._free.append(forgotten.sequence)
        forgotten.sequence, forgotten.tokens, forgotten.lost = _NONE, [], True


class _Model:
    """A model in llama.cpp, and one context: the few calls of the C interface that are needed.

    `llama_cpp.Llama` would have them, but for a single conversation.

    Attributes:
        cells: Tokens that the context has room for.
        chat_template: Empty where the file has none.
        bos: The mark at the beginning of a text.
        eos: The mark at its end.
    """

    def __init__(self, path: Path, threads: int) -> None:
        import llama_cpp

        self._c: Any = llama_cpp
        # It prints what it has to say, unless its logger is told not to.
        logging.getLogger("llama-cpp-python").setLevel(logging.CRITICAL)
        llama_cpp.llama_backend_init()
        settings = llama_cpp.llama_model_default_params()
        settings.n_gpu_layers = 0
        self._model = llama_cpp.llama_model_load_from_file(os.fsencode(path), settings)
        if self._model is None:
            raise ModelBrokenError(path, "llama.cpp cannot read it, and takes GGUF files")
        self.cells = min(_CONVERSATIONS * _CONTEXT, _CONTEXT + _MOST_KEPT // self._cell_bytes())
        self._context = self._open(threads)
        self._batch = llama_cpp.llama_batch_init(_AT_ONCE, 0, 1)
        # At the end of the program it would else be closed when half of its library is gone.
        weakref.finalize(self, _close, llama_cpp, self._batch, self._context, self._model)
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._vocabulary = llama_cpp.llama_model_get_vocab(self._model)
        self._words = llama_cpp.llama_vocab_n_tokens(self._vocabulary)
        template = llama_cpp.llama_model_chat_template(self._model, None)
        self.chat_template = template.decode() if template else ""
        self.bos = self._special(llama_cpp.llama_vocab_bos(self._vocabulary))
        self.eos = self._special(llama_cpp.llama_vocab_eos(self._vocabulary))

    def _cell_bytes(self) -> int:
        """Bytes of one token in the context: keys and values of 16 bits."""
        heads = self._c.llama_model_n_head(self._model)
        width = self._c.llama_model_n_embd(self._model) // heads
        layers = self._c.llama_model_n_layer(self._model)
        return int(4 * width * layers * self._c.llama_model_n_head_kv(self._model))

    def _open(self, threads: int) -> Any:
        settings = self._c.llama_context_default_params()
        settings.n_ctx = self.cells
        settings.n_batch = settings.n_ubatch = max(_AT_ONCE, _MOST_SEQUENCES)  # llama.cpp insists
        settings.n_threads = settings.n_threads_batch = threads
        settings.n_seq_max = _MOST_SEQUENCES
        # Flash attention sums in as many parts as there are threads, so what a reply says would
        # depend on who else is served.
        settings.flash_attn_type = self._c.LLAMA_FLASH_ATTN_TYPE_DISABLED
        settings.kv_unified = True  # sequences share cells, so a beginning in common is held once
        return self._c.llama_init_from_model(self._model, settings)

    @property
    def has_openmp(self) -> bool:
        """Whether llama.cpp was built with OpenMP."""
        return b"OPENMP = 1" in self._c.llama_print_system_info()

    def use_threads(self, threads: int) -> None:
        """From the next call on."""
        self._c.llama_set_n_threads(self._context, threads, threads)

    def _special(self, token: int) -> str:
        return "" if token < 0 else self.text(token, special=True).decode()

    def tokens(self, text: str) -> list[int]:
        """With control tokens where `text` holds them."""
        written = text.encode()
        room = (self._c.llama_token * (len(written) + 1))()
        tokens = self._c.llama_tokenize(
            self._vocabulary, written, len(written), room, len(room), False, True
        )
        return list(room[:tokens])

    def text(self, token: int, *, special: bool = False) -> bytes:
        """What a token stands for: a part of a character, or more; of control tokens nothing."""
        room = ctypes.create_string_buffer(_LONGEST_TOKEN)
        size = self._c.llama_token_to_piece(self._vocabulary, token, room, len(room), 0, special)
        return room.raw[: max(0, size)]

    def ends(self, token: int) -> bool:
        return bool(self._c.llama_vocab_is_eog(self._vocabulary, token))

    def read(self, sequence: int, tokens: Sequence[int], at: int) -> int:
        """Read tokens of a sequence behind the first `at`; gives the likeliest to follow them.

        Raises:
            EngineError: llama.cpp could not.
        """
        batch = self._batch
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i] = token, at + i
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, sequence
            batch.logits[i] = i == len(tokens) - 1
        if failed := self._c.llama_decode(self._context, batch):
            raise EngineError(f"llama.cpp could not read on: llama_decode gave {failed}")
        scores = self._c.llama_get_logits_ith(self._context, -1)
        return int(np.ctypeslib.as_array(scores, (self._words,)).argmax())

    def copy(self, source: int, target: int) -> None:
        """Let an empty sequence hold the same as another one; that takes no cells."""
        self._c.llama_memory_seq_cp(self._memory, source, target, -1, -1)

    def cut(self, sequence: int, tokens: int) -> int:
        """Forget all of a sequence but its first tokens; gives how many it still holds.

        That is none for models that keep no more of the past than a summary.
        """
        if self._c.llama_memory_seq_rm(self._memory, sequence, tokens, -1):
            return tokens
        self._c.llama_memory_seq_rm(self._memory, sequence, -1, -1)
        return 0


def _close(c: Any, batch: Any, context: Any, model: Any) -> None:
    c.llama_batch_free(batch)
    c.llama_free(context)
    c.llama_model_free(model)
