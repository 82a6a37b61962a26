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
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

from labkit.errors import EngineError, ModelBrokenError
from labkit.voice.engines import MOST_TOKENS
from labkit.voice.history import Message
from labkit.voice.llama_context import CONTEXT, Conversation, Conversations, Model
from labkit.voice.scheduling import Stop

_CHATML: Final = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
)
"""For models whose file has no chat template."""
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

        self._model = Model(model, threads)
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
        self._conversations = Conversations(self._model)

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
        prompt = self._tokens(fit_to_context(messages, self.count, CONTEXT - MOST_TOKENS))
        conversation, written = Conversation(), list[int]()
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
                if len(written) == MOST_TOKENS:
                    stop.set()
        finally:
            self._conversations.rest(conversation)

    def _read_on(
        self, conversation: Conversation, tokens: Sequence[int], *, timed: bool
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
