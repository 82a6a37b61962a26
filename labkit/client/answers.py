"""Answers of any dialect: how long clients wait for them, and what they say of those missing.

No wait is without an end: where an answer does not come, or comes so slowly that it would never
be there, the error says what went out and what came.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from pydantic import ConfigDict, TypeAdapter, ValidationError
from websockets.asyncio.client import ClientConnection

from labkit.client.dial import CONNECT_S, in_words
from labkit.errors import ClientError
from labkit.protocol.replay import Count

SHOWN: Final = 60
"""Most characters of a text of the server that are repeated."""
_LONGEST_REPLY_S: Final = 600.0
"""A reply that is longer is one that never ends."""
_MOST_NUMBERED: Final = 10_000
"""Likewise; partial transcripts of a long utterance are among them."""
_MOST_NAMES: Final = 20
"""Kinds of messages that are told apart; a server may invent them without end."""
_COUNT: Final = TypeAdapter[int](Count, config=ConfigDict(strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """How long a client waits, in seconds."""

    connect_s: float = CONNECT_S
    """For a connection: name, TCP, TLS, and the answer to the handshake."""
    start_s: float = 10.0
    """For the answer to `session.start`."""
    answer_s: float = 60.0
    """For each next step of an answer (its transcript, its first sound, a pong), for all that its
    audio may come later than it plays (see `Patience`), and for room in a connection whose server
    does not read."""

    def __post_init__(self) -> None:
        """Refuse deadlines that leave no time.

        Raises:
            ValueError: One is not above 0.
        """
        for name in ("connect_s", "start_s", "answer_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name):g}")


class Patience:
    """Until when the rest of an answer may come; decides without a clock.

    Each step that comes once, such as the transcript or the first sound, has the whole deadline,
    so a model that thinks for long before its first word is waited for. Audio has to come as fast
    as it plays: a second of it gives a second more, and never more than the whole deadline from
    now. So a reply may be late by the deadline altogether, as over a line that stalls and catches
    up. If each piece of it had the whole deadline, a server that drips samples would never be
    given up, and one that is slower than speech cannot be listened to anyway.

    Times are seconds of any one clock.

    Attributes:
        within_s: The whole deadline.
        due_s: When the answer is overdue.
    """

    def __init__(self, within_s: float, now_s: float) -> None:
        """Wait for an answer from now on."""
        self.within_s = within_s
        self.begin(now_s)

    def begin(self, now_s: float) -> None:
        """Wait for another answer from now on."""
        self.due_s = now_s + self.within_s
        self._latest_s = now_s
        self._steps: set[str] = set()

    @property
    def is_behind(self) -> bool:
        """Whether most of the time was lost while audio came: it drips, rather than is missing."""
        return self._latest_s + self.within_s / 2 > self.due_s

    def step(self, name: str, now_s: float) -> None:
        """Note a step of the answer; a second one of the same name is none."""
        if name not in self._steps:
            self._steps.add(name)
            self._latest_s, self.due_s = now_s, max(self.due_s, now_s + self.within_s)

    def hear(self, reply_s: float, now_s: float) -> None:
        """Note so much audio of the reply."""
        self.step("audio", now_s)
        self.gain(reply_s, now_s)

    def gain(self, audio_s: float, now_s: float) -> None:
        """Note so much more audio of a stream whose time is running."""
        self._latest_s = now_s
        self.due_s = max(self.due_s, min(self.due_s + audio_s, now_s + self.within_s))

    def pause(self, for_s: float) -> None:
        """Leave out a time in which nothing could come."""
        self.due_s += for_s
        self._latest_s += for_s


@dataclass(frozen=True, slots=True)
class Unknown:
    """A message of a type that this client does not know."""

    type: str
    """Its type."""
    fields: Mapping[str, object]
    """All that it says, its type included."""

    @property
    def seq(self) -> int | None:
        """Its number among the numbered messages of labkit.v1; None where it has none."""
        try:
            return _COUNT.validate_python(self.fields.get("seq"))
        except ValidationError:
            return None


@dataclass(slots=True)
class TurnSoFar:
    """What went out and what came in of one turn, to be told where the rest does not come."""

    said_s: float = 0.0
    """Audio that was sent, in seconds."""
    asked: str = ""
    """The message that asked for the answer; empty while none has."""
    came: Counter[str] = field(default_factory=Counter)
    """What came, by name, and how often."""
    numbered: int = 0
    """Messages of labkit.v1 about the conversation."""
    heard: str | None = None
    """The transcript of the whole utterance, None while it has not come."""
    reply_s: float = 0.0
    """Audio of the reply that came, in seconds."""
    refused: str = ""
    """What the server's last error said."""

    def hear(self, kind: str, text: str) -> None:
        """Note the transcript of the whole utterance, in a message of type `kind`."""
        self.heard = text
        self.count(f"{kind} {text[:SHOWN]!r}")

    def refuse(self, code: str, message: str, count: int) -> None:
        """Note an error of the server about `count` messages."""
        self.refused = in_words(message)
        self.count(f"error '{in_words(code, SHOWN)}'", count)

    def meet(self, kind: str) -> None:
        """Note a message of type `kind`."""
        self.count(in_words(kind, SHOWN))

    def count(self, name: str, times: int = 1) -> None:
        """Note what came, by a name that can be printed."""
        known = name in self.came or len(self.came) < _MOST_NAMES
        self.came[name if known else "others"] += times

    def require_end(self) -> None:
        """Refuse to take any more of a reply that is too long to have an end.

        Raises:
            ClientError: It is, or in more messages than can be.
        """
        if self.reply_s > _LONGEST_REPLY_S or self.numbered > _MOST_NUMBERED:
            raise ClientError(f"the reply does not end; {self.received()}")

    def missing(self, what: str, within_s: float) -> ClientError:
        """The error that says `what` (such as "no transcript came") within `within_s` seconds."""
        return ClientError(f"{self.sent()}; {what} within {within_s:.3g} s; {self.received()}")

    def missing_answer(self, patience: Patience) -> ClientError:
        """The error that says which part of an answer did not come."""
        within_s = patience.within_s
        if self.reply_s and patience.is_behind:
            slow = f"the reply came slower than it plays, by more than {within_s:.3g} s"
            return ClientError(f"{self.sent()}; {slow}; {self.received()}")
        if self.heard is None:
            return self.missing("no transcript came", within_s)
        what = "no more of the reply came" if self.reply_s else "no reply came"
        return self.missing(what, within_s)

    def sent(self) -> str:
        """What went out, in words."""
        audio = f"{self.said_s:.1f} s of audio" if self.said_s else ""
        asked = f"{self.asked!r}" if self.asked else ""
        return f"sent {' and '.join(filter(None, (audio, asked))) or 'nothing'}"

    def received(self) -> str:
        """What came in, in words."""
        names = [f"{count} × {name}" if count > 1 else name for name, count in self.came.items()]
        if self.reply_s:
            names.append(f"{self.reply_s:.1f} s of reply")
        came = f"what came: {', '.join(names)}" if names else "nothing else came"
        return came + (f"; the server said: {self.refused}" if self.refused else "")


async def send_within(
    socket: ClientConnection, message: str | bytes, so_far: TurnSoFar, within_s: float
) -> None:
    """Send a message, unless the server reads nothing for `within_s` seconds.

    Raises:
        ClientError: It does not; says what `so_far` went out and came.
        ConnectionClosed: The connection is gone.
    """
    try:
        async with asyncio.timeout(within_s):
            await socket.send(message)
    except TimeoutError:
        raise so_far.missing("the server read no more", within_s) from None
