"""One turn's results as the numbered messages and the audio of labkit.v1."""

from collections.abc import Callable
from typing import Final, TypeVar

from labkit.audio.formats import AudioFormat, StreamEncoder
from labkit.audio.pcm import SAMPLE_RATE, Float32, chunks
from labkit.errors import ProtocolError
from labkit.outgoing import Outgoing
from labkit.protocol import v1
from labkit.server.metrics import Metrics
from labkit.server.session import EndedUtterance, Session
from labkit.voice.history import Exchange

__all__ = ["Response", "numbered"]

N = TypeVar(
    "N",
    v1.SpeechStarted,
    v1.SpeechStopped,
    v1.TranscriptFinal,
    v1.ResponseStarted,
    v1.ResponseText,
    v1.ResponseDone,
    v1.Error,
)


def numbered(message: N) -> Callable[[int], str]:
    """Write `message` once its number is known."""
    return lambda seq: message.model_copy(update={"seq": seq}).encode()


class Response:
    """A reply on its way to the client. Synthesis waits in here while the client lags behind.

    Attributes:
        turn: Its number.
    """

    PIECE_S: Final = 0.2
    """Most audio of a binary message: a `pong` never waits for long."""
    PIECE_BYTES: Final = 16 * 1024
    """Most bytes of one, about: so much may lie beyond the bound on what waits."""

    def __init__(
        self,
        turn: int,
        session: Session,
        outgoing: Outgoing,
        output: AudioFormat,
        metrics: Metrics,
        clock: Callable[[], int],
    ) -> None:
        """Answer turn number `turn` of `session` in the format `output`."""
        self.turn = turn
        self._session = session
        self._outgoing = outgoing
        self._encoder = StreamEncoder(output)
        self._format = output
        piece_s = min(self.PIECE_S, self.PIECE_BYTES / output.bytes_per_second)
        self._piece = round(piece_s * SAMPLE_RATE)
        self._playback = _Playback(metrics, clock)
        self._metrics = metrics
        self._said = ""
        self._sentences: list[tuple[int, str]] = []
        self._samples = 0
        self._heard_samples: int | None = None

    def heard(self, samples: int) -> Exchange:
        """What the conversation remembers if only `samples` samples of the reply were played."""
        self._heard_samples = samples
        begun = [text for start, text in self._sentences if start < samples]
        return Exchange(self._said, " ".join(begun))

    async def transcript(self, text: str) -> None:
        """See `Sink.transcript`."""
        self._said = text
        await self._outgoing.put_text(numbered(v1.TranscriptFinal(turn=self.turn, text=text)))

    async def text(self, sentence: str) -> None:
        """See `Sink.text`."""
        if not self._sentences:
            await self._outgoing.put_text(numbered(v1.ResponseStarted(turn=self.turn)))
        self._sentences.append((self._samples, sentence))
        await self._outgoing.put_text(numbered(v1.ResponseText(turn=self.turn, text=sentence)))

    async def audio(self, samples: Float32) -> None:
        """See `Sink.audio`."""
        self._playback.produced(len(samples) / SAMPLE_RATE)
        for piece in chunks(samples, self._piece):
            await self._put(self._encoder.feed(piece))

    async def finish(self, ended: EndedUtterance, exchange: Exchange) -> None:
        """See `Reply.finish`."""
        self._metrics.observe_turn(ended.trace)
        await self._put(self._encoder.flush())
        nothing = not exchange.user
        self._done(
            v1.ResponseStatus.NOTHING_HEARD if nothing else v1.ResponseStatus.COMPLETED,
            exchange.assistant,
            {mark.value: at for mark, at in ended.trace.marks.items()},
        )

    async def fail(self, error: ProtocolError) -> None:
        """See `Reply.fail`."""
        self._metrics.refusals.labels(code=error.code.value).inc()
        told = v1.Error(code=error.code, message=str(error), hint=error.hint)
        self._outgoing.put_text_now(numbered(told))
        self._done(v1.ResponseStatus.FAILED, "", {})

    async def cancelled(self) -> None:
        """See `Reply.cancelled`; without word from the client, all that was sent was heard."""
        exchange = self.heard(self._samples if self._heard_samples is None else self._heard_samples)
        self._session.remember(exchange)
        self._done(v1.ResponseStatus.CANCELLED, exchange.assistant, {})

    async def _put(self, payload: bytes) -> None:
        samples = len(payload) // self._format.frame_bytes
        if samples:
            await self._outgoing.put_audio(payload, samples)
            self._samples += samples

    def _done(self, status: v1.ResponseStatus, text: str, marks: dict[str, int]) -> None:
        done = v1.ResponseDone(
            turn=self.turn, status=status, text=text, samples=self._samples, marks=marks
        )
        self._outgoing.put_text_now(numbered(done))


class _Playback:
    """Counts the times that a client which plays at once would have run out of audio."""

    def __init__(self, metrics: Metrics, clock: Callable[[], int]) -> None:
        self._metrics = metrics
        self._clock = clock
        self._runs_out_ns: int | None = None

    def produced(self, seconds: float) -> None:
        now_ns = self._clock()
        if self._runs_out_ns is not None and now_ns > self._runs_out_ns:
            self._metrics.underruns.inc()
        start_ns = max(now_ns, self._runs_out_ns or now_ns)
        self._runs_out_ns = start_ns + round(seconds * 1e9)
