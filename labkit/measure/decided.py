"""A turn whose end the server decides.

The microphone stays open: behind the last word goes silence, until the server has decided, and has
answered. What lies between the last word and the first sound is measured from the recording, and
the server's own marks only explain it.
"""

import asyncio
import time
from contextlib import AbstractAsyncContextManager
from typing import Final, Unpack

import numpy as np

from labkit.audio.pcm import SAMPLE_RATE, Float32, decode_s16le, encode_s16le, leading_silence
from labkit.client.answers import Deadlines, Patience
from labkit.client.dial import Reach
from labkit.client.events import Answer, Event, ReplyAudio
from labkit.client.speech import speak, spoken_ns
from labkit.client.turn import ClientTurn
from labkit.client.v1 import SessionClient
from labkit.errors import ClientError
from labkit.protocol import plain, v1
from labkit.tasks import stop
from labkit.trace import SERVER_MARKS, Mark

CUT_OFF: Final = "the server took the turn for finished before it was"
_SILENCE_S: Final = 10.0
"""So much follows the last word, more than any policy waits for."""


async def say(
    url: str,
    samples: Float32,
    *,
    end_of_speech: int,
    start: v1.SessionStart | None = None,
    chunk_ms: float = 40.0,
    deadlines: Deadlines | None = None,
    **reach: Unpack[Reach],
) -> ClientTurn:
    """Say a recording to a server of labkit.v1 that decides by itself when it is over.

    The `samples` are mono, at 16 kHz; `end_of_speech` is the index of the last voiced one, behind
    which the recording goes on, and then silence.

    Returns:
        The turn. One that was taken for finished too early has no waits, and says so.

    Raises:
        ClientError: The server has no such turns, is lost, or does not answer in time.
    """
    deadlines = deadlines or Deadlines()
    async with conversation(url, start, deadlines=deadlines, **reach) as client:
        return await say_to(
            client,
            samples,
            end_of_speech=end_of_speech,
            chunk_ms=chunk_ms,
            answer_s=deadlines.answer_s,
        )


def conversation(
    url: str,
    start: v1.SessionStart | None = None,
    *,
    deadlines: Deadlines | None = None,
    **reach: Unpack[Reach],
) -> AbstractAsyncContextManager[SessionClient]:
    """Open a session in which the server decides when a turn is over; several may be said in it.

    Raises:
        ClientError: The server has no such turns, or cannot be reached.
    """
    start = (start or v1.SessionStart()).model_copy(
        update={"turn_detection": v1.TurnDetection.SERVER, "acknowledges": True}
    )
    return SessionClient.connect(url, start, deadlines=deadlines, **reach)


async def say_to(
    client: SessionClient,
    samples: Float32,
    *,
    end_of_speech: int,
    chunk_ms: float = 40.0,
    answer_s: float = 15.0,
) -> ClientTurn:
    """Say a recording in a session of `conversation`, which says nothing else meanwhile.

    From the last word on, what comes of the answer may take `answer_s` seconds as
    `labkit.client.answers.Patience` counts them.

    Raises:
        ClientError: The server is lost, or does not answer in time.
    """
    heard = followed_by_silence(samples, end_of_speech)
    begun_ns = time.perf_counter_ns()
    turn = _Decided(begun_ns, begun_ns + spoken_ns(end_of_speech + 1))

    async def send(chunk: Float32) -> None:
        payload = encode_s16le(chunk)
        await client.send_audio(payload)
        turn.sent(len(payload))

    saying = asyncio.create_task(speak(heard, send, chunk_ms=chunk_ms, start_ns=begun_ns))
    loop = asyncio.get_running_loop()
    end_s = loop.time() + (end_of_speech + 1) / SAMPLE_RATE
    patience = Patience(answer_s, end_s)
    try:
        async with asyncio.timeout_at(patience.due_s) as waiting:
            while not turn.take(event := await client.next_event(), time.perf_counter_ns()):
                if (now_s := loop.time()) >= end_s:  # what comes before is of an earlier part
                    _note(patience, event, now_s)
                    waiting.reschedule(patience.due_s)
    except TimeoutError:
        raise _unanswered(client, turn, patience) from None
    finally:
        await stop(saying)
    return turn.result


def _note(patience: Patience, event: Event, now_s: float) -> None:
    """Note a step of the answer; partials, and ends of earlier parts, could come without end."""
    match event:
        case v1.TranscriptFinal() | v1.ResponseText():
            patience.step(event.type, now_s)
        case ReplyAudio(payload=payload):
            patience.hear(len(payload) / (2 * SAMPLE_RATE), now_s)


def _unanswered(client: SessionClient, turn: "_Decided", patience: Patience) -> ClientError:
    """The error that says why the answer is not over, as far as that is known."""
    so_far = client.conversation.so_far
    if client.lost:
        missing = so_far.missing_answer(patience)
        return ClientError(f"{missing}; the connection was lost: {client.lost}")
    if not turn.has_speech:
        unheard = "the server heard no speech in it (is it loud enough?)"
        return so_far.missing(unheard, patience.within_s)
    return so_far.missing_answer(patience)


class _Decided:
    """A turn while it happens; answers to parts of it are taken, and then left out."""

    def __init__(self, begun_ns: int, end_ns: int) -> None:
        self.result = ClientTurn()
        self.has_speech = False
        self.result.trace.mark(Mark.STREAM_STARTED, begun_ns)
        self.result.trace.mark(Mark.END_OF_SPEECH, end_ns)
        self._begun_ns = begun_ns
        self._end_ns = end_ns
        self._heard: list[str] = []
        self._answer = Answer()
        self._times: dict[Mark, int] = {}

    def sent(self, size: int) -> None:
        """Note a message, and whether it holds the end of speech."""
        if Mark.LAST_CHUNK_SENT not in self.result.trace.marks:
            self.result.messages_sent += 1
            self.result.bytes_sent += size
            if (now_ns := time.perf_counter_ns()) >= self._end_ns:
                self.result.trace.mark(Mark.LAST_CHUNK_SENT, now_ns)

    def take(self, event: Event, at_ns: int) -> bool:
        """Take the next event; True once the answer to the last word is complete."""
        match event:
            case v1.SpeechStarted():
                self.has_speech = True
            case v1.TranscriptFinal():
                self._times.setdefault(Mark.TRANSCRIPT_RECEIVED, at_ns)
            case ReplyAudio():
                self._times.setdefault(Mark.FIRST_AUDIO_RECEIVED, at_ns)
            case v1.Error(code=code, message=message, hint=hint, count=count):
                refusal = plain.Error(code=code, message=message, hint=hint, count=count)
                self.result.errors.append(refusal)
        self._answer.take(event)
        return self._answer.done is not None and self._over(self._answer.done, at_ns)

    def _over(self, done: v1.ResponseDone, at_ns: int) -> bool:
        answer, self._answer = self._answer, Answer()
        self._heard.append(answer.transcript)
        decided_ns = done.marks.get(Mark.END_STREAM_RECEIVED)
        if decided_ns is None:
            raise ClientError("the server's response.done does not tell when the turn was over")
        if not self._begun_ns <= decided_ns <= at_ns:  # another clock's: before its first sign
            decided_ns = min(self._times.values(), default=at_ns)
        if decided_ns < self._end_ns:
            self.result.remarks = [CUT_OFF]
            self._times.clear()
            return False
        self.result.transcript = " ".join(words for words in self._heard if words)
        self.result.reply_text = " ".join(answer.sentences)
        self.result.reply = decode_s16le(bytes(answer.audio))
        if not self.result.remarks:
            self._mark(_server_marks(done.marks), _server_marks(done.ahead), at_ns)
        return True

    def _mark(self, told: dict[Mark, int], ahead: dict[Mark, int], at_ns: int) -> None:
        trace = self.result.trace
        trace.merge({**self._times, Mark.REPLY_RECEIVED: at_ns})
        first_ns = self._times.get(Mark.FIRST_AUDIO_RECEIVED)
        silence_s = leading_silence(self.result.reply, SAMPLE_RATE)
        if first_ns is not None and silence_s < self.result.reply_seconds:
            trace.mark(Mark.FIRST_AUDIO_HEARD, first_ns + round(silence_s * 1e9))
        if all(self._end_ns <= mark_ns <= at_ns for mark_ns in told.values()):
            trace.merge(told)
            trace.ahead |= ahead
        else:
            self.result.remarks.append(
                "the server's marks do not fit into the turn, and were left out"
            )


def _server_marks(told: dict[str, int]) -> dict[Mark, int]:
    return {mark: told[mark] for mark in SERVER_MARKS if mark in told}


def followed_by_silence(samples: Float32, end_of_speech: int) -> Float32:
    """A recording as it is said to a server that decides: with silence behind its last word."""
    silence = end_of_speech + 1 + round(_SILENCE_S * SAMPLE_RATE) - len(samples)
    return np.pad(samples, (0, max(0, silence)))
