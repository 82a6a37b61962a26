"""What the parts of one session have in common."""

from collections.abc import Callable
from dataclasses import dataclass

from labkit.session import refusals
from labkit.session.events import Encoder, Event, Observer, Refused
from labkit.session.outgoing import Outgoing
from labkit.session.settings import ServerSettings, SessionOptions
from labkit.tasks import Changes
from labkit.voice.turn import Pipeline


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

        A client that is told more refusals than it takes in is told no more, and its connection
        ends. What is being done for it is done to its end: the client counts on that.
        """
        if isinstance(event, Refused):
            self.observer.refused(event.error.code, event.count)
            if self.outgoing.window.is_overfull:
                if self.outgoing.feed is not None:
                    self.outgoing.feed.end(refusals.untaken_refusals())
                return
        self.put_now(event)

    def put_now(self, event: Event) -> None:
        """Put what tells of `event` into the stream, whatever is in it."""
        for message in self.encoder.encode(event):
            self.outgoing.put_now(message)
