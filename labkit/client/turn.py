"""A turn of the plain dialect as a client sees it: while it happens, and once it is complete."""

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from labkit.audio.pcm import SAMPLE_RATE, Float32, leading_silence
from labkit.client.answers import TurnSoFar, Unknown
from labkit.client.foreign import ForeignDone, ReplyReader, ServerText, read
from labkit.client.speech import Clock
from labkit.errors import ClientError, ProtocolError
from labkit.protocol import plain
from labkit.trace import SERVER_MARKS, Mark, Trace

_MOST_NOTED: Final = 100
"""Errors, and remarks, of one turn; a server may send them without end."""


@dataclass(slots=True)
class ClientTurn:
    """One turn as the client saw it."""

    transcript: str = ""
    """What the server heard."""
    reply_text: str = ""
    """What the spoken reply says; empty without a streamed reply."""
    reply: Float32 = field(default_factory=lambda: np.zeros(0, np.float32))
    """The spoken reply, 16 kHz."""
    trace: Trace = field(default_factory=Trace)
    """The marks of the client, and those of the server where it sent them."""
    messages_sent: int = 0
    """Binary messages of the utterance."""
    bytes_sent: int = 0
    """Payload bytes of the utterance."""
    listening_cpu_ms: float | None = None
    """CPU time of the server's process while the utterance came in; None where it does not tell."""
    errors: list[plain.Error] = field(default_factory=list)
    """What the server refused during the turn, or before it; the first hundred errors."""
    clock_offset_ns: int | None = None
    """The server's clock minus this one, estimated from ping round trips and taken out of the
    server's marks; None where both share one clock."""
    remarks: list[str] = field(default_factory=list)
    """What is odd about the answer, or missing from it: a sentence each."""

    def remark(self, sentence: str) -> None:
        """Note what is odd, once."""
        if sentence not in self.remarks and len(self.remarks) < _MOST_NOTED:
            self.remarks.append(sentence)

    @property
    def reply_seconds(self) -> float:
        """Length of the reply, its silences included."""
        return len(self.reply) / SAMPLE_RATE

    @property
    def reply_shown(self) -> str:
        """The words of the reply, or what there is in their place."""
        return self.reply_text or ("(its words were not told)" if len(self.reply) else "(none)")

    @property
    def refusals(self) -> list[str]:
        """What the server refused, a sentence each; one error may speak of many messages."""
        return [
            error.message
            + (f" ({error.hint})" if error.hint else "")
            + (f", {error.count} times" if error.count > 1 else "")
            for error in self.errors
        ]


class RunningTurn:
    """A turn while it happens: takes messages and marks, and knows when it is complete.

    It begins to take messages when the one before it is complete: what nobody asked for, and
    refusals of its audio, come before its answer is asked for.

    Attributes:
        begun: Somebody says it, or gave it up.
        settled: The answer is complete.
        failure: Why there will be none, and nothing is taken any more; None where nothing is wrong.
        in_turn: The server answers one message after the other: a `ping` that was sent behind
            `end_stream` had its pong behind the reply.
    """

    def __init__(self, clock: Clock, *, stream: bool) -> None:
        """With `stream`, the reply comes as it is made, and `done` behind it."""
        self.result = ClientTurn()
        self.so_far = TurnSoFar()
        self.begun = self.settled = self.in_turn = False
        self.failure: Exception | None = None
        self._clock = clock
        self._stream = stream
        self._reply = ReplyReader(self.result.remark)
        self._failed = False
        self._last_ns = 0
        self._silence_s = 0.0
        self._server_marks: dict[Mark, int] = {}

    def mark(self, mark: Mark, at_ns: int | None = None) -> None:
        """Set `mark`, by default to now."""
        self.result.trace.mark(mark, self._clock.now_ns() if at_ns is None else at_ns)

    @property
    def is_asked(self) -> bool:
        """Whether its answer was asked for."""
        return Mark.END_STREAM_SENT in self.result.trace.marks

    @property
    def looks_whole(self) -> bool:
        """Whether all has come that a server sends which was not asked to stream.

        An answer that failed has an error in the place of its transcript.
        """
        heard = self.so_far.heard is not None or self._failed
        return heard and (self._reply.is_whole or (self.in_turn and self._reply.has_begun))

    # -- while it happens ---------------------------------------------------------------------

    def take(self, message: str | bytes, at_ns: int) -> None:
        """Take one message of the server, which came in at `at_ns`."""
        if self.failure is not None:
            return
        if message == plain.PONG:
            self.in_turn = self.in_turn or self._reply.has_begun
            return
        try:
            if self.is_asked:
                self._take_answer(message, at_ns)
            else:
                self._take_early(message)
        except ProtocolError as wrong:
            told = f"{wrong}; {self.so_far.sent()}; {self.so_far.received()}"
            self.failure = ProtocolError(wrong.code, told, wrong.hint)
        except Exception as failure:  # whatever it is, whoever says the turn is told
            self.failure = failure

    def break_off(self) -> None:
        """Nobody waits for it any more.

        Where anything of it went out, an answer to that may still come, and be taken for that of
        the next turn. Where nothing did, the turn has not begun.
        """
        if self.is_asked or self.result.messages_sent:
            self.failure = self.failure or ClientError("the turn was given up")
        else:
            self.begun = False
            self.result.trace.marks.clear()

    def settle_without_done(self, why: str) -> bool:
        """Take the answer as complete; `why` says how that is known.

        Returns:
            Whether the server streams.
        """
        whole = self._reply.is_whole
        offer = "it does not offer ?reply=stream" if whole else "the reply came in pieces, though"
        self.result.remark(f"{why}: {offer}")
        self._settle()
        return not whole

    def _settle(self) -> None:
        self.mark(Mark.REPLY_RECEIVED, self._last_ns)
        self.settled = True

    def _take_early(self, raw: str | bytes) -> None:
        """What came before it was asked for: refusals of audio, or what nobody waits for."""
        name = "audio" if isinstance(raw, bytes) else f"the text {raw[:40]!r}"
        with suppress(ProtocolError):  # a greeting, perhaps
            message = read(raw)
            if isinstance(message, plain.Error):
                self._note_error(message)
                return
            name = name if isinstance(message, bytes) else repr(message.type)
        self.so_far.count(f"{name} before 'end_stream'")
        self.result.remark(f"{name} came before 'end_stream' was sent, and was left out")

    def _take_answer(self, raw: str | bytes, at_ns: int) -> None:
        self._last_ns = at_ns
        message = read(raw)
        if isinstance(message, bytes):
            self._take_audio(message, at_ns)
        else:
            if isinstance(raw, bytes):
                what = f"{message.type!r} came as a binary message, where text is due"
                self.result.remark(what)
            self._take_text(message, at_ns)
        if not self._stream and self.looks_whole:
            self._settle()

    def _take_text(self, message: ServerText, at_ns: int) -> None:
        match message:
            case plain.Transcript(text=heard):
                self.so_far.hear(message.type, heard)
                marks = self.result.trace.marks
                if self._reply.has_begun and Mark.TRANSCRIPT_RECEIVED not in marks:
                    self.result.remark("the reply came before the transcript")
                self.mark(Mark.TRANSCRIPT_RECEIVED, at_ns)
                self.result.transcript = heard
            case plain.Error():
                self._note_error(message)
                self._failed = True
            case ForeignDone():
                self.so_far.meet(message.type)
                self._take_done(message)
            case Unknown(type=kind):
                self.so_far.meet(kind)
                self.result.remark(f"a message of the unknown type {kind[:40]!r} came")

    def _note_error(self, error: plain.Error) -> None:
        self.so_far.refuse(str(error.code), error.message, error.count)
        if len(self.result.errors) < _MOST_NOTED:
            self.result.errors.append(error)

    def _take_audio(self, payload: bytes, at_ns: int) -> None:
        samples = self._reply.take(payload)
        if len(samples):
            self.mark(Mark.FIRST_AUDIO_RECEIVED, at_ns)
            self._look_for_sound(samples)
        self.so_far.reply_s += len(samples) / SAMPLE_RATE
        self.so_far.require_end()

    def _look_for_sound(self, samples: Float32) -> None:
        """Mark when the first audible sample can play, playback starting with the first byte."""
        if Mark.FIRST_AUDIO_HEARD in self.result.trace.marks:
            return
        silence = leading_silence(samples, SAMPLE_RATE)
        self._silence_s += silence
        if silence < len(samples) / SAMPLE_RATE:
            first = self.result.trace.marks[Mark.FIRST_AUDIO_RECEIVED]
            self.mark(Mark.FIRST_AUDIO_HEARD, first + round(self._silence_s * 1e9))

    def _take_done(self, done: ForeignDone) -> None:
        self.result.reply_text = done.reply_text
        self.result.listening_cpu_ms = done.listening_cpu_ms
        self._server_marks = {
            mark: round(at_ns) for mark in SERVER_MARKS if (at_ns := done.marks.get(mark))
        }
        if self.so_far.heard is None and not self.result.errors:
            self.result.remark("no transcript came")
        if not self.so_far.reply_s and (done.reply_text or done.reply_samples):
            self.result.remark("'done' tells of a reply, and came before any of its audio")
        self._settle()

    # -- once it is complete ------------------------------------------------------------------

    def shares_clock(self, slack_ns: int = 0) -> bool:
        """Whether the server's marks lie inside of the turn, each at most `slack_ns` beside it.

        Clocks of two machines count from their starts, seconds to months apart.
        """
        marks, offset_ns = self.result.trace.marks, self.result.clock_offset_ns or 0
        first = marks[Mark.END_STREAM_SENT] - slack_ns + offset_ns
        last = marks[Mark.REPLY_RECEIVED] + slack_ns + offset_ns
        return all(first <= at_ns <= last for at_ns in self._server_marks.values())

    def estimate_offset(self, round_trip_s: float) -> None:
        """Take it that `end_stream` was on its way for half of a round trip.

        Where that puts the server's marks outside of the turn, they are left out.
        """
        received = self._server_marks.get(Mark.END_STREAM_RECEIVED)
        if received is not None:
            sent = self.result.trace.marks[Mark.END_STREAM_SENT]
            self.result.clock_offset_ns = received - sent - round(round_trip_s * 1e9 / 2)
        if not self.shares_clock(round(round_trip_s * 1e9)):
            self._server_marks.clear()
            self.result.clock_offset_ns = None
            self.result.remark("the server's marks do not fit into the turn, and were left out")

    def finish(self) -> ClientTurn:
        """The turn, with the server's marks on the client's clock."""
        self.result.trace.merge(self._server_marks, self.result.clock_offset_ns or 0)
        self.result.reply = self._reply.whole()
        return self.result
