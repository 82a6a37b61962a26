"""A session of labkit.v1. It lives on while no connection carries it."""

import time
from collections.abc import Callable
from contextlib import suppress
from weakref import WeakMethod

from labkit.audio.formats import StreamDecoder
from labkit.audio.pcm import Int16
from labkit.errors import AudioError, ErrorCode, ProtocolError
from labkit.outgoing import Feed, Outgoing
from labkit.protocol import v1
from labkit.protocol.replay import Position, ReplayWindow
from labkit.server.connection import Closing, Connection
from labkit.server.ears import Ears
from labkit.server.metrics import Metrics
from labkit.server.response import Response, numbered
from labkit.server.session import Session
from labkit.server.turns import Turns
from labkit.server.watch import Watch
from labkit.session.settings import ServerSettings

__all__ = ["Conversation"]


class Conversation:
    """One conversation: what came, what is to be answered, and what goes out.

    Attributes:
        session: Buffer, history, activity.
        start: What was agreed on.
        outgoing: Everything that goes to the client.
        received: What came from the client.
        carrier: The connection that carries it at this moment.
    """

    def __init__(
        self,
        session: Session,
        start: v1.SessionStart,
        settings: ServerSettings,
        metrics: Metrics,
        clock: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        """Begin, in the formats of `start`."""
        self.session = session
        self.start = start
        self.received = Position()
        self.carrier: Connection | None = None
        self.outgoing = Outgoing(
            ReplayWindow(
                max_bytes=settings.replay_bytes,
                max_samples=start.output.format.samples(settings.replay_s),
                until_acknowledged=start.acknowledges,
            )
        )
        self._settings = settings
        self._metrics = metrics
        self._clock = clock
        self._decoder = StreamDecoder(start.input.format)
        self._watch = Watch(start.input.format, settings.watch_s, clock)
        self._responses = _Responses(session, self.outgoing, start, metrics, clock)
        listened = WeakMethod(self._listened)  # for the same reason as in _Responses
        self._turns = Turns(session, settings, self._responses.open, lambda: _call(listened()))
        self._ears = Ears(session)
        self._told: set[ErrorCode] = set()

    @property
    def id(self) -> str:
        """The session's identifier."""
        return self.session.id

    @property
    def busy(self) -> bool:
        """Whether a turn runs or waits."""
        return self._turns.busy

    def behind_s(self, now_ns: int) -> float:
        """See `Turns.behind_s`."""
        return self._turns.behind_s(now_ns)

    def held_bytes(self) -> int:
        """Bytes of audio and messages that it holds."""
        return self._turns.held_bytes() + self.outgoing.window.held_bytes

    def overdue(self, now_ns: int) -> Closing | None:
        """Why its connection should be ended, if it should; who waits for a reply is not idle."""
        if self.busy or self.outgoing.window.waiting_bytes:
            self.session.activity.wake(now_ns)
        return self.session.activity.overdue(now_ns, self._settings)

    async def run(self) -> None:
        """Answer what is heard, until cancelled."""
        await self._turns.run()

    def attach(self, carrier: Connection) -> Feed:
        """Let `carrier` carry it from now on; gives what it has to send."""
        self.carrier = carrier
        self.session.activity.wake(self._clock())
        return self.outgoing.open()

    def detach(self) -> None:
        """Go on without a connection."""
        self.carrier = None
        self.outgoing.close()

    def hear(self, payload: bytes) -> None:
        """Take a binary message. What is wrong with all of an utterance is told once.

        Raises:
            ProtocolError: It is no whole number of samples, holds what is no number, or does not
                fit into the utterance any more.
        """
        frame = self.start.input.format.frame_bytes
        if len(payload) % frame:
            raise _odd_length(len(payload), frame, self.start.input)
        self.received = self.received.plus(samples=len(payload) // frame)
        for mismatch in self._watch.look(payload):
            self.tell(mismatch, None)
        try:
            self.session.hear(self._decode(payload))
        except ProtocolError as error:
            if error.code not in self._told:
                self._told.add(error.code)
                raise
        self._turns.heard()

    def end_utterance(self) -> None:
        """The utterance is over.

        Raises:
            ProtocolError: Too many wait for their answer.
        """
        self.received = self.received.plus(messages=1)
        self._turns.require_room()
        self._told.clear()
        with suppress(ProtocolError):  # of an utterance that is full, the client was told
            self.session.hear(self._decoder.flush())
        self._turns.end_utterance()

    def cancel(self, turn: int, heard_samples: int) -> None:
        """Stop a response, and remember only what was heard of it.

        Raises:
            ProtocolError: No such response is being given, or was the last.
        """
        self.received = self.received.plus(messages=1)
        response = self._responses.latest
        if response is None or response.turn != turn:
            raise ProtocolError(
                ErrorCode.UNKNOWN_RESPONSE,
                f"turn {turn} is not the one that is being answered",
                "send the number of the latest 'response.started'",
            )
        exchange = response.heard(heard_samples)
        if self._turns.running == turn:
            self._turns.cancel()
        else:
            self.session.amend(exchange)

    def cancel_turns(self) -> None:
        """Stop the turn that runs: its client has been away for too long."""
        self._turns.cancel()

    async def all_answered(self) -> None:
        """Wait until no turn runs or waits."""
        await self._turns.all_answered()

    def tell(self, error: ProtocolError, cause: v1.Cause | None) -> None:
        """Tell the client that something was refused."""
        self._metrics.refusals.labels(code=error.code.value).inc()
        told = v1.Error(code=error.code, message=str(error), hint=error.hint, cause=cause)
        self.outgoing.put_text_now(numbered(told))

    def _listened(self) -> None:
        """Tell where speech begins and ends; where the server decides, its end is the turn's."""
        for change, at_s in self._ears.changes():
            if change.speaking:
                self.outgoing.put_text_now(numbered(v1.SpeechStarted(at_s=at_s)))
                continue
            self.outgoing.put_text_now(numbered(v1.SpeechStopped(at_s=at_s)))
            if self._server_decides:
                self._end_by_itself(change.known)
                return
        if self._server_decides:
            self._ears.drop_long_silence()

    @property
    def _server_decides(self) -> bool:
        return self.start.turn_detection is v1.TurnDetection.SERVER

    def _end_by_itself(self, frames: int) -> None:
        try:
            self._turns.end_utterance(frames)
        except ProtocolError as error:
            self.tell(error, None)
            self.session.begin_utterance()
        self._told.clear()
        self._turns.heard()  # what came behind the end is the next utterance's, and unheard

    def _decode(self, payload: bytes) -> Int16:
        try:
            return self._decoder.feed(payload)
        except AudioError as error:
            hint = "send finite numbers from -1 to 1"
            raise ProtocolError(ErrorCode.INVALID_AUDIO, str(error), hint) from None


def _call(method: Callable[[], None] | None) -> None:
    if method is not None:
        method()


class _Responses:
    """Opens the response of each turn.

    It knows nothing of the conversation: that is gone as soon as nobody needs it then, and its
    audio with it, without waiting for the garbage collector.
    """

    def __init__(
        self,
        session: Session,
        outgoing: Outgoing,
        start: v1.SessionStart,
        metrics: Metrics,
        clock: Callable[[], int],
    ) -> None:
        self.latest: Response | None = None
        self._session = session
        self._outgoing = outgoing
        self._output = start.output.format
        self._metrics = metrics
        self._clock = clock

    def open(self, turn: int) -> Response:
        self.latest = Response(
            turn, self._session, self._outgoing, self._output, self._metrics, self._clock
        )
        return self.latest


def _odd_length(size: int, frame: int, spec: v1.AudioSpec) -> ProtocolError:
    return ProtocolError(
        ErrorCode.ODD_LENGTH,
        f"a binary message of {size} bytes is no whole number of samples",
        f"send {spec.encoding.value} in {spec.channels} channel(s): a multiple of {frame} bytes",
    )
