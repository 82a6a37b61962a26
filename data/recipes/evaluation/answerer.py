"""Evaluation of an answerer on held-out conversations, with llama.cpp itself.

The model is given the user's side of each conversation and its own earlier answers, as in a
real session. The last answer is judged by the facts that it must contain.
"""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

from data.recipes.evaluation.figure import Figure
from labkit.errors import LabkitError
from labkit.measure.wer import normalise
from labkit.voice.history import Message
from labkit.voice.llama import LlamaLlm
from labkit.voice.scheduling import Stop

__all__ = ["Conversation", "evaluate", "has_facts", "load_conversations"]

_TIMED: Final = 12


@dataclass(frozen=True, slots=True)
class Conversation:
    """The user's side of a conversation, and what the last answer must contain.

    Attributes:
        user: What the user says, turn by turn.
        facts: Words that must be in the last answer, in this order within each fact.
        kind: What is asked.
    """

    user: tuple[str, ...]
    facts: tuple[str, ...]
    kind: str


def load_conversations(path: Path) -> list[Conversation]:
    """Read conversations from a JSONL file.

    Raises:
        LabkitError: A line is no conversation; it names the file and the line.
    """
    conversations = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            row = json.loads(line)
            found = Conversation(tuple(row["user"]), tuple(row["facts"]), str(row["kind"]))
        except (ValueError, KeyError, TypeError) as error:
            raise LabkitError(f"{path}, line {number} is no conversation: {error!r}") from error
        conversations.append(found)
    return conversations


def has_facts(answer: str, facts: Sequence[str]) -> bool:
    """Whether every fact is in `answer`, word for word."""
    words = f" {' '.join(normalise(answer))} "
    return all(f" {' '.join(normalise(fact))} " in words for fact in facts)


def evaluate(model: Path, *, held_out: Path) -> list[Figure]:
    """Measure an answerer against its bars, on one thread.

    Args:
        model: The GGUF file.
        held_out: Folder with `answers.jsonl`, `memory.jsonl` and `outside.jsonl`.

    Raises:
        ModelBrokenError: The model does not load.
        LabkitError: A file of conversations is broken.
    """
    llm = LlamaLlm(model, threads=1)
    size = model.stat().st_size / 1e6
    return [
        Figure(name="size", value=size, bar=12.0, unit="MB", at_most=True, sample=1),
        _share(llm, "held-out questions answered with the right facts", held_out / "answers", 95),
        _share(llm, "remembered, one to six turns later", held_out / "memory", 95),
        _share(llm, "outside the domain: an honest 'I only know'", held_out / "outside", 90),
        *_first_token(llm, load_conversations(held_out / "memory.jsonl")),
    ]


def _share(llm: LlamaLlm, name: str, file: Path, bar: float) -> Figure:
    conversations = load_conversations(file.with_suffix(".jsonl"))
    wrong = [c.kind for c in conversations if not has_facts(_last_answer(llm, c), c.facts)]
    missed = ", ".join(f"{wrong.count(kind)} {kind}" for kind in sorted(set(wrong)))
    return Figure(
        name=name,
        value=100 * (1 - len(wrong) / len(conversations)),
        bar=bar,
        unit="%",
        at_most=False,
        sample=len(conversations),
        note=f"wrong: {missed}" if wrong else "",
    )


def _last_answer(llm: LlamaLlm, conversation: Conversation) -> str:
    return _played(llm, conversation)[-1].content


def _played(llm: LlamaLlm, conversation: Conversation) -> list[Message]:
    """The whole conversation, with the model's own answers."""
    messages: list[Message] = []
    for said in conversation.user:
        messages.append(Message("user", said))
        answer = "".join(llm.reply(messages, Stop())).strip()
        messages.append(Message("assistant", answer))
    return messages


def _first_token(llm: LlamaLlm, conversations: Sequence[Conversation]) -> Iterator[Figure]:
    """Time to the first token of long conversations, read anew and continued."""
    longest = sorted(conversations, key=lambda c: len(c.user))[-_TIMED:]
    prompts = [_played(llm, conversation)[:-1] for conversation in longest]
    tokens = round(median(llm.count(prompt) for prompt in prompts))
    cold, warm = [], []
    for prompt in prompts:
        _time_to_first(llm, [Message("user", "hello")])
        cold.append(_time_to_first(llm, prompt))
        warm.append(_time_to_first(llm, prompt))
    for name, times in (("read anew", cold), ("already read", warm)):
        yield Figure(
            name=f"first token, one thread, conversation {name}: median",
            value=median(times),
            bar=30.0,
            unit="ms",
            at_most=True,
            sample=len(times),
            note=f"{tokens} tokens",
        )


def _time_to_first(llm: LlamaLlm, prompt: Sequence[Message]) -> float:
    started = time.perf_counter()
    pieces = llm.reply(prompt, Stop())
    next(filter(None, pieces), "")  # while it reads, it gives nothing
    elapsed = (time.perf_counter() - started) * 1000
    for _ in pieces:
        pass
    return elapsed
