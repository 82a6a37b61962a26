"""labkit.v1 over a session: its messages to calls, the session's events to its messages."""

from collections.abc import Callable, Iterator
from typing import Final, assert_never

from labkit.audio.formats import AudioFormat, StreamEncoder
from labkit.errors import Close, ErrorCode, ProtocolError
from labkit.protocol import v1
from labkit.protocol.limits import Limits
from labkit.protocol.replay import Position
from labkit.session.events import (
    Caller,
    Encoded,
    Event,
    PartialTranscript,
    Refused,
    ReplyAudio,
    ReplyEnd,
    ReplyInterrupted,
    ReplyPaused,
    ReplyResumed,
    Sentence,
    SpeechStarted,
    SpeechStopped,
    Transcript,
    TurnOver,
)
from labkit.session.outgoing import Feed
from labkit.session.registry import Opened, Registry
from labkit.session.session import Session
from labkit.session.settings import ServerSettings, SessionOptions


class V1Encoder:
    """Events as numbered messages, and replies as one stream of audio each."""

    held_bytes: Final = 0

    def __init__(self, output: AudioFormat) -> None:
        self._output = output
        self._turn = 0
        self._audio = StreamEncoder(output)

    def encode(self, event: Event) -> Iterator[Encoded]:
        """The messages that tell of `event`."""
        match event:
            case SpeechStarted(at_s):
                yield _numbered(v1.SpeechStarted(at_s=at_s))
            case SpeechStopped(at_s):
                yield _numbered(v1.SpeechStopped(at_s=at_s))
            case PartialTranscript(turn, text, confirmed, behind_s):
                told = v1.TranscriptPartial(
                    turn=turn, text=text, confirmed=confirmed, behind_s=behind_s
                )
                yield _numbered(told)
            case Transcript(turn, text):
                yield _numbered(v1.TranscriptFinal(turn=turn, text=text))
            case Sentence(turn, text, first):
                if first:
                    yield _numbered(v1.ResponseStarted(turn=turn))
                yield _numbered(v1.ResponseText(turn=turn, text=text))
            case ReplyAudio(turn, samples):
                if turn != self._turn:  # a reply that was stopped leaves a tail
                    self._turn, self._audio = turn, StreamEncoder(self._output)
                if pcm := self._audio.feed(samples):
                    yield pcm
            case ReplyPaused(turn):
                yield _numbered(v1.ResponsePaused(turn=turn))
            case ReplyResumed(turn, text):
                yield _numbered(v1.ResponseResumed(turn=turn, text=text))
            case ReplyInterrupted(turn, heard):
                yield _numbered(v1.ResponseInterrupted(turn=turn, heard_samples=heard))
            case ReplyEnd(turn):
                if turn == self._turn and (tail := self._audio.flush()):
                    yield tail
            case TurnOver():
                yield _numbered(_done(event))
            case Refused():
                yield _numbered(_error(event))
            case _:
                assert_never(event)


def _numbered(message: v1.Numbered | v1.Error) -> Callable[[int], str]:
    """Write `message` once its number is known."""
    return lambda seq: message.model_copy(update={"seq": seq}).encode()


def _done(over: TurnOver) -> v1.ResponseDone:
    return v1.ResponseDone(
        turn=over.turn,
        status=v1.ResponseStatus(over.status.value),
        text=over.text,
        samples=over.samples,
        marks=dict(over.marks),
        ahead=dict(over.ahead),
    )


def _error(refused: Refused) -> v1.Error:
    cause = refused.cause if isinstance(refused.cause, v1.Cause) else None
    return v1.Error.of(refused.error, cause, refused.count)


class V1Dialect:
    """Messages of one client.

    Attributes:
        session: What answers them, once it was started.
    """

    def __init__(
        self, feed: Feed, registry: Registry, settings: ServerSettings, caller: Caller
    ) -> None:
        self.session: Session | None = None
        self._feed = feed
        self._registry = registry
        self._settings = settings
        self._caller = caller
        self._acknowledged = (0, 0)
        self._acknowledge_at = 0.0
        self._max_audio_bytes = settings.max_message_bytes
        self._before = (0, 0)  # what came before the message in hand, for the cause of an error

    def open(self) -> None:
        """Wait for `session.start`."""

    def receive(self, message: str | bytes) -> None:
        """Do what a message asks for.

        Raises:
            ProtocolError: It is refused; the session goes on.
            Close: The client has ended the session.
        """
        session = self.session
        if session is not None:
            self._before = (session.received_messages, session.received_samples)
        if isinstance(message, bytes):
            v1.require_audio(message, max_bytes=self._max_audio_bytes)
            session = session or self._require_session()
            try:
                session.hear(message)
            finally:
                if session.received_samples >= self._acknowledge_at:
                    self._acknowledge(session)
            return
        self._obey(v1.decode_client(message, max_bytes=self._settings.max_text_bytes))

    def settle(self) -> None:
        """Acknowledge the last audio, too: less than what an acknowledgement is due for."""
        if self.session is not None:
            self._acknowledge(self.session)

    def cause(self, message: str | bytes) -> v1.Cause:
        """The message that was received last, by its name and its place in the client's stream."""
        messages, samples = self._before
        return v1.Cause.of(message, Position(messages=messages, samples=samples))

    def refusal(self, refused: Refused) -> str:
        """The message that tells of a refusal where no session is."""
        return _error(refused).encode()

    def farewell(self, why: Close) -> str:
        """The last message of a connection that ends."""
        if why.code is None:
            return v1.SessionEnded(reason=str(why)).encode()
        return v1.Error(code=why.code, message=str(why), hint=why.hint, fatal=True).encode()

    def _obey(self, message: v1.ClientMessage) -> None:
        if isinstance(message, v1.Ping):
            self._feed.put_urgent(v1.Pong(id=message.id).encode())
            return
        if isinstance(message, v1.SessionStart):
            self._start(message)
            return
        session = self._require_session()
        session.received_messages += message.numbered
        try:
            match message:
                case v1.AudioEnd():
                    session.end_utterance()
                case v1.ResponseCancel(turn=turn, heard_samples=heard):
                    session.cancel(turn, heard)
                case v1.ResponseAck(received=received):
                    session.acknowledge(received)
                case v1.SessionEnd():
                    raise Close(None, "the client ended the session", "")
                case _:
                    assert_never(message)
        finally:
            if message.numbered:
                self._acknowledge(session)

    def _start(self, start: v1.SessionStart) -> None:
        if self.session is not None:
            raise ProtocolError(
                ErrorCode.ALREADY_STARTED,
                f"this connection carries session {self.session.id} already",
                "open another connection for another session",
            )
        opened = self._begin(start) if start.resume is None else self._resume(start.resume)
        # Before the session's stream is attached, so that it is the first to be written.
        self._feed.put_urgent(self._welcome(opened).encode())
        self.session = opened.session
        self.session.attach(self._feed)
        self._note_acknowledged(self.session, wait=1 - self.session.phase)

    def _begin(self, start: v1.SessionStart) -> Opened:
        server_ends = start.turn_detection is v1.TurnDetection.SERVER
        if server_ends and not self._registry.detects_speech:
            raise ProtocolError(
                ErrorCode.INVALID_FIELD,
                "field 'turn_detection' of 'session.start' is 'server': "
                "this server's pipeline does not detect speech",
                "end utterances with 'audio.end', and leave 'turn_detection' out",
            )
        if start.barge_in and not server_ends:
            raise ProtocolError(
                ErrorCode.INVALID_FIELD,
                "field 'barge_in' of 'session.start' is true, and 'turn_detection' is 'client'",
                "ask for 'turn_detection' of 'server', or interrupt with 'response.cancel'",
            )
        options = SessionOptions(
            input=start.input.format,
            output=start.output.format,
            server_ends=server_ends,
            silence_s=start.silence_s or self._settings.silence_s,
            adaptive=start.endpointing is v1.Endpointing.ADAPTIVE,
            partials=start.partials and self._registry.detects_speech,
            barge_in=start.barge_in,
            acknowledges=start.acknowledges,
            resumable=True,
        )
        return self._registry.begin(options, V1Encoder(options.output), self._caller)

    def _resume(self, resume: v1.Resume) -> Opened:
        return self._registry.resume(resume.session, resume.token, resume.received, self._caller)

    def _welcome(self, opened: Opened) -> v1.SessionStarted:
        agreed = opened.session.options
        detection = v1.TurnDetection.SERVER if agreed.server_ends else v1.TurnDetection.CLIENT
        return v1.SessionStarted(
            session=opened.session.id,
            token=opened.token,
            resumed=opened.resumed,
            input=v1.AudioSpec.of(agreed.input),
            output=v1.AudioSpec.of(agreed.output),
            turn_detection=detection,
            silence_s=agreed.silence_s,
            endpointing=v1.Endpointing.ADAPTIVE if agreed.adaptive else v1.Endpointing.FIXED,
            barge_in=agreed.barge_in,
            received=opened.session.received,
            missing=opened.missing,
            limits=limits_of(self._settings),
        )

    def _acknowledge(self, session: Session) -> None:
        """Say what has come, if anything has, so that the client need not keep it."""
        if (session.received_messages, session.received_samples) == self._acknowledged:
            return
        self._note_acknowledged(session)
        self._feed.acknowledge(v1.AudioAck(received=session.received).encode())

    def _note_acknowledged(self, session: Session, wait: float = 1.0) -> None:
        """Note what the client knows; the next acknowledgement is due after `wait` of the usual."""
        self._acknowledged = (session.received_messages, session.received_samples)
        usual = self._settings.acknowledge_s * session.options.input.sample_rate
        self._acknowledge_at = session.received_samples + wait * usual

    def _require_session(self) -> Session:
        if self.session is None:
            raise ProtocolError(
                ErrorCode.NOT_STARTED,
                "the session was not started",
                "send 'session.start' as the first message",
            )
        return self.session


def limits_of(settings: ServerSettings) -> Limits:
    """The limits that a client is told: those of the settings that concern it."""
    return Limits.model_validate(settings.model_dump(include=set(Limits.model_fields)))
