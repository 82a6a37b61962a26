"""One turn as a table: every state, every input, what follows and what is to be done.

A turn begins when an utterance has ended, and is over when its reply was given, cancelled, or
failed::

    ended ─ Begin ─► answering ─ Answered ─► finishing ─ Flushed ─► done
      │                  │                       │                   │
      └── Cancel, Fail ──┴───────────────────────┘      Cancel: less was heard

A cancel is legal at any moment, because the client's word that it stopped playing may cross
anything on its way. What the conversation remembers follows from the effects of this table alone:
what was heard of a reply, never what was not.

Nothing here waits, and nothing knows of sockets or engines: inputs come in, effects go out.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from labkit.errors import LabkitError, ProtocolError
from labkit.session.events import Status
from labkit.voice.history import Exchange


class State(StrEnum):
    """How far a turn is."""

    ENDED = "ended"
    """The utterance is over and waits for its answer."""
    ANSWERING = "answering"
    """The engines work on it."""
    FINISHING = "finishing"
    """The reply is made; the last of it waits for room on its way to the client."""
    DONE = "done"
    """The reply was given."""
    CANCELLED = "cancelled"
    """It was stopped."""
    FAILED = "failed"
    """It could not be answered."""


@dataclass(frozen=True, slots=True)
class Begin:
    """The engines take it up."""


@dataclass(frozen=True, slots=True)
class Heard:
    """The recogniser's words, empty where nothing was said."""

    text: str


@dataclass(frozen=True, slots=True)
class Said:
    """The next sentence of the reply; its audio follows."""

    sentence: str


@dataclass(frozen=True, slots=True)
class Played:
    """So many samples more of the reply are on their way to the client."""

    samples: int


@dataclass(frozen=True, slots=True)
class TakenBack:
    """So many of those samples will not be sent after all."""

    samples: int


@dataclass(frozen=True, slots=True)
class Answered:
    """The engines are through; this was exchanged."""

    exchange: Exchange


@dataclass(frozen=True, slots=True)
class Flushed:
    """The last of the reply is on its way."""


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stop.

    Attributes:
        heard: Samples of the reply that were played, of those that are on their way; None where
            nobody knows: then all of those count as heard.
    """

    heard: int | None = None


@dataclass(frozen=True, slots=True)
class Fail:
    """It cannot be answered."""

    error: ProtocolError


Input = Begin | Heard | Said | Played | TakenBack | Answered | Flushed | Cancel | Fail


@dataclass(frozen=True, slots=True)
class Remember:
    """Write this turn's exchange into the history, in place of what stands there for it."""

    exchange: Exchange


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop the work on it."""


@dataclass(frozen=True, slots=True)
class Over:
    """Tell that the turn is over; comes exactly once for each turn that ended.

    Attributes:
        status: How it ended.
        text: The reply; of a cancelled one, what is remembered of it.
        error: Why it failed.
    """

    status: Status
    text: str
    error: ProtocolError | None = None


Effect = Remember | Stop | Over


class IllegalInputError(LabkitError):
    """A turn was told something that cannot happen in its state."""


S: Final = State
TABLE: Final[Mapping[tuple[State, type[Input]], State]] = MappingProxyType(
    {
        (S.ENDED, Begin): S.ANSWERING,
        (S.ANSWERING, Heard): S.ANSWERING,
        (S.ANSWERING, Said): S.ANSWERING,
        (S.ANSWERING, Played): S.ANSWERING,
        (S.ANSWERING, TakenBack): S.ANSWERING,
        (S.ANSWERING, Answered): S.FINISHING,
        (S.FINISHING, Played): S.FINISHING,
        (S.FINISHING, TakenBack): S.FINISHING,
        (S.FINISHING, Flushed): S.DONE,
        (S.ENDED, Cancel): S.CANCELLED,
        (S.ANSWERING, Cancel): S.CANCELLED,
        (S.FINISHING, Cancel): S.CANCELLED,
        (S.DONE, Cancel): S.DONE,
        (S.CANCELLED, Cancel): S.CANCELLED,
        (S.FAILED, Cancel): S.FAILED,
        (S.ENDED, Fail): S.FAILED,
        (S.ANSWERING, Fail): S.FAILED,
        (S.FINISHING, Fail): S.FAILED,
    }
)
"""Every legal step; a pair that is not here is a fault of the caller."""

_OVER: Final = frozenset({S.DONE, S.CANCELLED, S.FAILED})


@dataclass(slots=True)
class Turn:
    """One utterance and its reply.

    Attributes:
        number: Counted from 1 over the session.
        state: How far it is.
        said: What the recogniser heard.
        reply: The whole reply, once it is known.
        samples: Samples of the reply that are on their way, in the client's format.
    """

    number: int
    state: State = State.ENDED
    said: str = ""
    reply: str = ""
    samples: int = 0
    _sentences: list[tuple[int, str]] = field(default_factory=list)

    @property
    def over(self) -> bool:
        """Whether it is answered, cancelled, or failed."""
        return self.state in _OVER

    def step(self, given: Input) -> tuple[Effect, ...]:
        """Take one input; gives what is to be done, in this order.

        Raises:
            IllegalInputError: That cannot happen in this state.
        """
        before = self.state
        after = TABLE.get((before, type(given)))
        if after is None:
            raise IllegalInputError(
                f"turn {self.number} is {before.value} and cannot take {type(given).__name__}"
            )
        self.state = after
        match given:
            case Heard(text):
                self.said = text
            case Said(sentence):
                self._sentences.append((self.samples, sentence))
            case Played(samples):
                self.samples += samples
            case TakenBack(samples):
                self.samples -= samples
            case Answered(exchange):
                self.said, self.reply = exchange.user, exchange.assistant
            case Flushed():
                return self._flushed()
            case Cancel(heard):
                return self._cancelled(before, heard)
            case Fail(error):
                return (Stop(), Over(Status.FAILED, "", error))
        return ()

    def _flushed(self) -> tuple[Effect, ...]:
        if not self.said:
            return (Over(Status.NOTHING_HEARD, ""),)
        return (Remember(Exchange(self.said, self.reply)), Over(Status.COMPLETED, self.reply))

    def _cancelled(self, before: State, heard: int | None) -> tuple[Effect, ...]:
        """A turn that is over is only remembered otherwise; others are stopped and told."""
        # No client has heard what was not sent, whatever it says.
        exchange = self._heard(self.samples if heard is None else min(heard, self.samples))
        # Without words there is nothing to remember: not of silence, and not of a turn that is
        # cancelled before it was recognised. The turns before stay as they were.
        remember = (Remember(exchange),) if self.said and before is not State.FAILED else ()
        if before in _OVER:
            return remember
        return (Stop(), *remember, Over(Status.CANCELLED, exchange.assistant))

    def _heard(self, samples: int) -> Exchange:
        """What is remembered if only `samples` samples of the reply were played."""
        begun = [sentence for start, sentence in self._sentences if start < samples]
        return Exchange(self.said, " ".join(begun))
