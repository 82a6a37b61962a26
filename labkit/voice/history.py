"""What was exchanged so far: the conversation's memory."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

_SAID: Final = 3
"""So many of the last utterances help to hear the next one."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a chat."""

    role: Literal["system", "user", "assistant"]
    """Who said it."""
    content: str
    """The words."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """What was said in a turn, and what was answered."""

    user: str
    assistant: str


class History:
    """The last exchanges of a conversation, each known by the number of its turn.

    A turn can be recorded twice: once as it was answered, and again, shorter, when it turns out
    that less of the reply was heard. The number makes sure that this replaces the turn's own
    entry, and never the one of the turn before, which may have been recorded last.
    """

    def __init__(self, limit: int) -> None:
        """Keep `limit` exchanges at most; one more, and the older half of them is forgotten.

        Half of them at once, since a conversation that begins otherwise than before has to be
        read anew by the language model, all of it.
        """
        self.limit = limit
        self._exchanges: dict[int, Exchange] = {}
        self._forgotten = 0
        """The last turn whose exchange is no longer kept."""

    def __len__(self) -> int:
        return len(self._exchanges)

    def __iter__(self) -> Iterator[Exchange]:
        """The exchanges in the order of their turns, oldest first."""
        return iter([self._exchanges[turn] for turn in sorted(self._exchanges)])

    def record(self, turn: int, exchange: Exchange) -> None:
        """Add the exchange of turn number `turn`, or replace that turn's own.

        What comes late for a turn that was forgotten already is left out.
        """
        if turn <= self._forgotten:
            return
        self._exchanges[turn] = exchange
        if len(self._exchanges) > self.limit:
            kept = (self.limit + 1) // 2
            for old in sorted(self._exchanges)[: len(self._exchanges) - kept]:
                del self._exchanges[old]
                self._forgotten = old

    def said(self) -> str:
        """What was heard in the last turns, as much of it as helps to hear the next one."""
        return " ".join([one.user for one in self if one.user][-_SAID:])

    def messages(self, said: str) -> list[Message]:
        """The conversation as chat messages, with `said` as the last."""
        messages: list[Message] = []
        for one in self:
            messages += Message("user", one.user), Message("assistant", one.assistant)
        return [*messages, Message("user", said)]
