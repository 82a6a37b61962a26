"""The conversations in one llama.cpp context, and those put aside.

Each token is held against all cells of the context that are taken, whoever has read them: with
4,000 of them SmolLM2-135M takes 22 ms for a token, and 10 where there is a single conversation. So
only those stay that are being answered, and a little besides. The others are copied out, which
takes 3 ms for 250 tokens, and back in, 1 ms; to read so much again takes two seconds.
"""

import ctypes
import logging
import os
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any, Final

import numpy as np

from labkit.errors import EngineError, ModelBrokenError

AT_ONCE: Final = 16
"""Tokens that are read in one call: some 0.2 s of a core, and larger calls are not faster. A
caller who hangs up, or who is due sooner, is waited for no longer than that."""
CONTEXT: Final = 1024
"""Most tokens of a conversation with its reply; older exchanges are dropped."""
_CONVERSATIONS: Final = 2
"""Room in the context, in conversations of the greatest length."""
_MOST_KEPT: Final = 48 << 20
"""Bytes of conversations that are put aside, and of those in the context beside the one at hand:
some 2,100 tokens of a model of 135 M parameters. Of larger ones, one of full length is kept."""
_MAY_STAY: Final = 256
"""Tokens of those that nobody is answered in: with so many, one takes 0.7 ms longer."""
_MOST_SEQUENCES: Final = 32
_NONE: Final = -1
_LONGEST_TOKEN: Final = 256
"""Bytes."""
_WORTH_KEEPING: Final = 8
"""Tokens of a conversation that are sooner read again than kept."""


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """Tokens that two conversations have in common at their beginning."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


@dataclass(slots=True, eq=False)
class Conversation:
    """A conversation, as far as it was read."""

    sequence: int = _NONE
    """Its number in the context; `_NONE` while it is not there."""
    tokens: list[int] = field(default_factory=list)
    aside: bytearray | None = None
    """What the context held of it, while it is put aside."""
    busy: bool = True
    """A reply to it is being written."""
    lost: bool = False
    """It was forgotten, and is read again."""


class Conversations:
    """The conversations that were read: in the context, or put aside.

    Where the room for both runs out, the one that was longest unused is forgotten. Should its
    caller come back, it is read again.
    """

    def __init__(self, model: "Model") -> None:
        """Keep those of `model`, whose context is empty."""
        self._model = model
        self._held: list[Conversation] = []
        """Longest unused first."""
        self._free = list(range(_MOST_SEQUENCES))

    def read_on(self, conversation: Conversation, tokens: Sequence[int]) -> int | None:
        """Read the next part of `tokens`; gives the token that should follow all of them.

        A call reads `AT_ONCE` tokens at most, and gives None while there are more.

        Raises:
            EngineError: llama.cpp could not.
        """
        if conversation not in self._held:
            self._begin(conversation, tokens)
        self._bring_in(conversation)
        known = len(conversation.tokens)
        part = tokens[known : known + AT_ONCE]
        self._make_room(len(part), conversation)
        follows = self._model.read(conversation.sequence, part, known)
        conversation.tokens.extend(part)
        return follows if known + len(part) == len(tokens) else None

    def rest(self, conversation: Conversation) -> None:
        """Its reply is over. What was read is kept, and who begins next finds room already."""
        conversation.busy = False
        self._make_room(0, conversation)

    def _begin(self, conversation: Conversation, prompt: Sequence[int]) -> None:
        """Go on where `prompt` was read before: in that sequence, or in a copy of its beginning.

        A copy, where that is another caller's, who has only the beginning in common, such as what
        all models are told first. The last token is read again: what would follow it is not kept.
        """
        best = max(
            self._held,
            key=lambda held: (_shared(held.tokens, prompt), held.aside is None),
            default=conversation,
        )
        known = min(_shared(best.tokens, prompt), len(prompt) - 1)
        conversation.tokens, conversation.aside = list(best.tokens), best.aside
        if not best.busy and len(best.tokens) <= known + _WORTH_KEEPING:
            self._held.remove(best)
            conversation.sequence = best.sequence
        elif best.sequence != _NONE:
            conversation.sequence = self._free_sequence(best)
            self._model.copy(best.sequence, conversation.sequence)
        elif known <= _WORTH_KEEPING:
            conversation.tokens, conversation.aside = [], None
        self._bring_in(conversation)
        known = self._model.cut(conversation.sequence, min(known, len(conversation.tokens)))
        conversation.tokens = list(prompt[:known])

    def _bring_in(self, conversation: Conversation) -> None:
        """Let a conversation be in the context, and count as the last that was used."""
        if conversation.sequence == _NONE:
            self._make_room(len(conversation.tokens), conversation)
            conversation.sequence = self._free_sequence(conversation)
            aside, conversation.aside = conversation.aside, None
            if aside is not None and not self._model.restore(conversation.sequence, aside):
                conversation.tokens, conversation.lost = [], True
        if conversation in self._held:
            self._held.remove(conversation)
        self._held.append(conversation)

    def _make_room(self, tokens: int, kept: Conversation) -> None:
        """Let so many more find room in the context, and few be there that nobody waits for."""
        while others := self._others(kept):
            idle = sum(len(one.tokens) for one in [*others, kept] if not one.busy)
            if self._cells() + tokens <= self._model.cells and idle <= _MAY_STAY:
                return
            self._put_aside(others[0])

    def _others(self, kept: Conversation) -> list[Conversation]:
        """Those in the context beside `kept`: first those that nobody is answered in."""
        others = (one for one in self._held if one.sequence != _NONE and one is not kept)
        return sorted(others, key=lambda one: one.busy)

    def _cells(self) -> int:
        """Cells that are taken, at most: a beginning in common counts for each that has it."""
        return sum(len(one.tokens) for one in self._held if one.sequence != _NONE)

    def _free_sequence(self, kept: Conversation) -> int:
        if not self._free:
            self._put_aside(self._others(kept)[0])
        return self._free.pop()

    def _put_aside(self, one: Conversation) -> None:
        one.aside = self._model.saved(one.sequence)
        self._model.cut(one.sequence, 0)
        self._free.append(one.sequence)
        one.sequence = _NONE
        while sum(len(held) for _, held in self._aside()) > self._model.room_aside:
            self._forget(self._aside()[0][0])

    def _aside(self) -> list[tuple[Conversation, bytearray]]:
        """Those that are put aside: first those that nobody is answered in."""
        aside = [(one, one.aside) for one in self._held if one.aside is not None]
        return sorted(aside, key=lambda pair: pair[0].busy)

    def _forget(self, one: Conversation) -> None:
        self._held.remove(one)
        one.tokens, one.aside, one.lost = [], None, True


class Model:
    """A model in llama.cpp, and one context: the few calls of the C interface that are needed.

    `llama_cpp.Llama` would have them, but for a single conversation.

    Attributes:
        cells: Tokens that the context has room for.
        room_aside: Bytes of what may be saved beside it.
        chat_template: Empty where the file has none.
        bos: The mark at the beginning of a text.
        eos: The mark at its end.
    """

    def __init__(self, path: Path, threads: int) -> None:
        """Load the model, to be read on so many threads.

        Raises:
            ModelBrokenError: llama.cpp cannot read it.
        """
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
        cell = self._cell_bytes()
        self.cells = min(_CONVERSATIONS * CONTEXT, CONTEXT + _MOST_KEPT // cell)
        self.room_aside = max(_MOST_KEPT, CONTEXT * cell)
        self._context = self._open(threads)
        self._batch = llama_cpp.llama_batch_init(AT_ONCE, 0, 1)
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
        settings.n_batch = settings.n_ubatch = max(AT_ONCE, _MOST_SEQUENCES)  # llama.cpp insists
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
        """Whether a token is one of those that end a reply."""
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

    def saved(self, sequence: int) -> bytearray:
        """What the context holds of a sequence."""
        held = bytearray(self._c.llama_state_seq_get_size(self._context, sequence))
        room = (ctypes.c_uint8 * len(held)).from_buffer(held)
        self._c.llama_state_seq_get_data(self._context, room, len(held), sequence)
        return held

    def restore(self, sequence: int, held: bytearray) -> bool:
        """Let an empty sequence hold what was saved; False where the context has no room."""
        room = (ctypes.c_uint8 * len(held)).from_buffer(held)
        return bool(self._c.llama_state_seq_set_data(self._context, room, len(held), sequence))

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
