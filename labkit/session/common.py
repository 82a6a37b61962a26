"""What the parts of one session have in common."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from labkit.audio.formats import AudioFormat
from labkit.errors import ErrorCode
from labkit.session import refusals
from labkit.session.events import Encoder, Event, Refused
from labkit.session.outgoing import Changes, Outgoing
from labkit.session.settings import ServerSettings
from labkit.trace import Trace
from labkit.voice.pipeline import Pipeline


class Observer(Protocol):
    """Who counts what sessions do."""

    def turn_answered(self, trace: Trace) -> None:
        """A turn was answered, or nothing was heard in it."""
        ...

    def refused(self, code: ErrorCode, count: int) -> None:
        """So many messages were refused, or turns failed."""
        ...

    def underrun(self) -> None:
        """A client that plays at once has run out of reply audio."""
        ...

    def worked_ahead(self, *, used: bool) -> None:
        """An answer was begun in a pause; `used` where the pause was the end."""
        ...


async def stop(task: asyncio.Task[Any]) -> None:
    """Cancel a task and wait for its end; what it raised is of no interest here.

    The frame of a task group that is cancelled holds the error, and the error the frame: without a
    word, what they hold would stay until the garbage collector comes by.
    """
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    if task.cancelled():
        try:
            task.result()
        except asyncio.CancelledError as error:
            error.__traceback__ = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOptions:
    """What was agreed on with one client.

    Attributes:
        input: The audio that it sends.
        output: The audio that it hears.
        server_ends: The server decides where an utterance ends.
        silence_s: Silence behind speech that ends one then, in seconds.
        adaptive: How much silence that is follows the speaker, what was said and how it sounds;
            `silence_s` is for those of whom nothing is known.
        partials: The client is told what is heard of an utterance while it goes on.
        barge_in: Speech over a reply stops it, and replies are sent at the pace at which they are
            played; for servers that end utterances.
        acknowledges: The client says what it has, so nothing that it lacks is forgotten.
        resumable: What was written may have to be written again.
    """

    input: AudioFormat
    output: AudioFormat
    server_ends: bool = False
    silence_s: float = 0.5
    adaptive: bool = False
    partials: bool = False
    barge_in: bool = False
    acknowledges: bool = False
    resumable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Common:
    """What every part of a session knows, and its way to the client.

    Attributes:
        id: Names the session in logs and in the engines' queues.
        pipeline: What answers.
        encoder: Writes events in the words of the client's dialect.
        outgoing: Everything that goes to the client.
        options: What was agreed on.
        settings: The limits that apply.
        observer: Told what is to be counted.
        clock: Monotonic nanoseconds.
        changes: Told whenever somebody may no longer have to wait.
        recount: Counts anew what the session holds.
    """

    id: str
    pipeline: Pipeline
    encoder: Encoder
    outgoing: Outgoing
    options: SessionOptions
    settings: ServerSettings
    observer: Observer
    clock: Callable[[], int]
    changes: Changes
    recount: Callable[[], None]

    def tell(self, event: Event) -> None:
        """Tell something at once, whether or not there is room for it.

        Raises:
            Close: The client is told more refusals than it takes in.
        """
        if isinstance(event, Refused):
            self.observer.refused(event.error.code, event.count)
            if self.outgoing.window.is_overfull:
                raise refusals.untaken_refusals()
        self.put_now(event)

    def put_now(self, event: Event) -> None:
        """Put what tells of `event` into the stream, whatever is in it."""
        for message in self.encoder.encode(event):
            self.outgoing.put_now(message)
