"""The plain dialect over a session: its commands to calls, the session's events to its messages."""

from collections.abc import Iterator
from typing import Final

from labkit.audio.formats import WIRE
from labkit.audio.pcm import Float32, encode_s16le
from labkit.errors import Close
from labkit.protocol import plain
from labkit.session.events import (
    Caller,
    Encoded,
    Event,
    Refused,
    ReplyAudio,
    ReplyEnd,
    Transcript,
    TurnOver,
)
from labkit.session.outgoing import Feed
from labkit.session.registry import Registry
from labkit.session.session import Session
from labkit.session.settings import ServerSettings, SessionOptions

_OPTIONS: Final = SessionOptions(input=WIRE, output=WIRE)


class PlainEncoder:
    """Replies at once where streaming was asked for, else each in one message.

    A whole reply waits in here until its turn is over, or until it is as long as a message may be.

    Attributes:
        held_bytes: Bytes of it that wait.
    """

    def __init__(self, *, stream: bool) -> None:
        self._stream = stream
        self._kept: list[bytes] = []
        self.held_bytes = 0
        self._reply_is_open = True

    def encode(self, event: Event) -> Iterator[Encoded]:
        """The messages that tell of `event`."""
        match event:
            case Transcript(text=text):
                self._reply_is_open = True
                yield _text(plain.Transcript(text=text))
            case ReplyAudio(samples=samples):
                yield from self._audio(samples)
            case ReplyEnd():
                yield from self._end_of_reply()
            case TurnOver():
                yield from self._over(event)
            case Refused(error=error, count=count):
                yield _text(plain.Error.of(error, count))

    def _audio(self, samples: Float32) -> Iterator[Encoded]:
        pcm = encode_s16le(samples)
        if self._stream:
            yield pcm
            return
        self._kept.append(pcm)
        self.held_bytes += len(pcm)
        longest = plain.LONGEST_REPLY * WIRE.frame_bytes
        while self.held_bytes >= longest:
            whole = b"".join(self._kept)
            self._kept, self.held_bytes = [whole[longest:]], len(whole) - longest
            yield whole[:longest]

    def _end_of_reply(self) -> Iterator[Encoded]:
        self._reply_is_open = False
        if not self._stream:
            last, self._kept, self.held_bytes = b"".join(self._kept), [], 0
            yield last

    def _over(self, over: TurnOver) -> Iterator[Encoded]:
        # A turn that was stopped or failed has a reply, too, and be it empty: its client waits.
        if self._reply_is_open:
            yield from self._end_of_reply()
        self._reply_is_open = True
        if self._stream:
            yield _text(
                plain.Done(
                    reply_text=over.text,
                    reply_samples=over.samples,
                    marks=dict(over.marks),
                    listening_cpu_ms=over.listening_cpu_ms,
                )
            )


def _text(message: plain.ServerMessage) -> Encoded:
    """A message of this dialect has no number."""
    return lambda _: message.encode()


class PlainDialect:
    """Commands of one client.

    Attributes:
        session: What answers them, from `open` on.
    """

    def __init__(
        self,
        feed: Feed,
        registry: Registry,
        settings: ServerSettings,
        caller: Caller,
        *,
        stream: bool,
    ) -> None:
        """Write into `feed`; `stream` sends replies while they are made."""
        self.session: Session | None = None
        self._feed = feed
        self._registry = registry
        self._caller = caller
        self._max_audio_bytes = settings.max_message_bytes
        self._max_text_bytes = settings.max_text_bytes
        self._encoder = PlainEncoder(stream=stream)

    def open(self) -> None:
        """Begin a session, which ends with the connection."""
        self.session = self._registry.begin(_OPTIONS, self._encoder, self._caller).session
        self.session.attach(self._feed)

    def receive(self, message: str | bytes) -> None:
        """Do what a message asks for.

        Raises:
            ProtocolError: It is refused; the session goes on.
        """
        if (session := self.session) is None:
            raise AssertionError("the session begins with the connection")
        if isinstance(message, bytes):
            plain.require_audio(message, max_bytes=self._max_audio_bytes)
            session.hear(message)
            return
        match plain.decode_client(message, max_bytes=self._max_text_bytes):
            case plain.EndStream():
                session.end_utterance()
            case plain.Ping():
                self._feed.put_urgent(plain.PONG)

    def settle(self) -> None:
        """Nothing is acknowledged in this dialect."""

    def cause(self, message: str | bytes) -> None:
        """This dialect names no causes."""

    def refusal(self, refused: Refused) -> str:
        """The message that tells of a refusal where no session is."""
        return plain.Error.of(refused.error, refused.count).encode()

    def farewell(self, why: Close) -> None:
        """There is no last message: the close frame gives the reason."""
