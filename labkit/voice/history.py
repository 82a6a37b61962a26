"""What was exchanged so far: the conversation's memory."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

__all__ = ["Exchange", "History", "Message"]


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a chat.

    Attributes:
        role: Who said it.
        content: The words.
    """

    role: Literal["system", "user", "assistant"]
    content: str


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
        """Keep the last `limit` exchanges."""
        self.limit = limit
        self._exchanges: dict[int, Exchange] = {}

    def __len__(self) -> int:
        return len(self._exchanges)

    def __iter__(self) -> Iterator[Exchange]:
        """The exchanges in the order of their turns, oldest first."""
        return iter([self._exchanges[turn] for turn in sorted(self._exchanges)])

    def record(self, turn: int, exchange: Exchange) -> None:
        """Add the exchange of turn number `turn`, or replace that turn's own.

        The oldest goes where there are more than `limit`.
        """
        self._exchanges[turn] = exchange
        while len(self._exchanges) > self.limit:
            del self._exchanges[min(self._exchanges)]

    def messages(self, said: str) -> list[Message]:
        """The conversation as chat messages, with `said` as the last."""
        past = [
            message
            for exchange in self
            for message in (
                Message("user", exchange.user),
                Message("assistant", exchange.assistant),
            )
        ]
        return [*past, Message("user", said)]
