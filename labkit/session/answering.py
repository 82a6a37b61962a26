"""The turns of a session: utterances that are over, answered one after the other.

Each is answered by the pipeline, in a task of its own that a cancel stops at any moment. What the
pipeline gives goes through the turn's table of states, whose effects are the only way into the
history, and through `_emit` into the stream.
"""

import asyncio
import logging
from collections import deque
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from labkit.audio.pcm import SAMPLE_RATE, Float32, chunks
from labkit.errors import EngineError, ProtocolError
from labkit.session import refusals
from labkit.session.ahead import WorkAhead
from labkit.session.barge_in import BargeIn
from labkit.session.common import Common
from labkit.session.events import (
    Event,
    Refused,
    ReplyAudio,
    ReplyEnd,
    ReplyInterrupted,
    Sentence,
    Transcript,
    TurnOver,
)
from labkit.session.playout import Pacer
from labkit.session.turn import (
    Answered,
    Begin,
    Cancel,
    Effect,
    Fail,
    Flushed,
    Heard,
    Input,
    Over,
    Played,
    Remember,
    Said,
    Stop,
    TakenBack,
    Turn,
)
from labkit.tasks import stop
from labkit.trace import Mark
from labkit.voice import turn as voice
from labkit.voice.history import History
from labkit.voice.scheduling import Playback

_log = logging.getLogger(__name__)

_PIECE_S: Final = 0.2
_PIECE_BYTES: Final = 16 * 1024
"""Most audio of a reply that is put at a time: a `pong` never waits for long behind it, and no
more than that lies beyond the bound on what waits."""


@dataclass(slots=True)
class Ended:
    """An utterance that is over, and its turn from there on.

    Attributes:
        asked: What the pipeline is asked to answer.
        heard_s: Its length, in seconds.
        listening_cpu_ms: CPU time of the process while it came in, in milliseconds.
        turn: Where it stands.
        ahead: An answer that was begun before it was over.
    """

    asked: voice.Turn
    heard_s: float
    listening_cpu_ms: float
    turn: Turn = field(default_factory=lambda: Turn(0))
    ahead: WorkAhead | None = None
    sink: "_Sink | None" = None

    @property
    def held_bytes(self) -> int:
        """Bytes of what was said, and of what waits of its answer."""
        held = self.asked.utterance.nbytes if self.ahead is None else self.ahead.held_bytes
        return held + (0 if self.sink is None else self.sink.held_bytes)

    async def drop_ahead(self) -> None:
        """End what was begun ahead, where there is anything."""
        if self.ahead is not None:
            await self.ahead.drop()


class Answers:
    """The answers to one caller, in the order of what was said.

    Attributes:
        history: What is remembered; written by this class alone, from the turns' effects.
        barge_in: Follows what is said over the reply that plays, where the client wants that.
    """

    def __init__(self, common: Common, barge_in: BargeIn | None) -> None:
        self.history = History(common.settings.history)
        self.barge_in = barge_in
        self._common = common
        self._waiting: deque[Ended] = deque()
        self._answering: Ended | None = None
        self._running: asyncio.Task[None] | None = None
        self._turns: dict[int, Turn] = {}
        self._begun = 0

    # What is known of them.

    @property
    def busy(self) -> bool:
        """Whether a turn runs or waits."""
        return self._answering is not None or bool(self._waiting)

    @property
    def waiting(self) -> int:
        """Utterances that wait for their turn."""
        return len(self._waiting)

    @property
    def next_turn(self) -> int:
        """The number of the turn that the next utterance will be."""
        return self._begun + 1

    @property
    def held_bytes(self) -> int:
        """Bytes of what was said and is not answered, and of replies that may be interrupted."""
        ended = [*self._waiting, *([self._answering] if self._answering else [])]
        held = sum(one.held_bytes for one in ended)
        return held + (0 if self.barge_in is None else self.barge_in.held_bytes)

    def behind_s(self, now_ns: int) -> float:
        """Seconds that the oldest utterance without an audible answer has waited for it.

        What the client itself holds up (it is away, takes nothing in, or speaks over the reply
        before) says nothing of the engines.
        """
        answering, outgoing = self._answering, self._common.outgoing
        if answering is None or Mark.TTS_FIRST_AUDIO in answering.asked.trace.marks:
            return 0.0
        contended = self.barge_in is not None and self.barge_in.contended
        if contended or not outgoing.attached or not outgoing.window.has_room:
            return 0.0
        return (now_ns - answering.asked.trace.marks[Mark.END_STREAM_RECEIVED]) / 1e9

    # What is done to them.

    def number(self, ended: Ended) -> None:
        """Make an utterance that is over the next turn: it can be cancelled from now on."""
        settings = self._common.settings
        self._begun += 1
        ended.turn = turn = Turn(self._begun)
        self._turns[turn.number] = turn
        # Those that are remembered, those that wait, and the one that is answered are known.
        self._turns.pop(turn.number - settings.history - settings.max_waiting_turns - 1, 0)

    def hand_over(self, ended: Ended) -> None:
        """Let an utterance wait for its answer, unless it was cancelled while it was examined."""
        if not ended.turn.number:
            self.number(ended)
        if not ended.turn.over or ended.ahead is not None:
            self._waiting.append(ended)
        self._common.changes.tell()

    def cancel(self, turn: int, heard_samples: int) -> None:
        """Stop a reply, and remember only what was heard of it.

        Raises:
            ProtocolError: There is no such turn, or it is too long ago.
        """
        if (known := self._turns.get(turn)) is None:
            raise refusals.unknown_turn(turn, len(self._turns))
        self._cancel(known, Cancel(heard_samples))

    def cancel_running(self) -> None:
        """Stop the turn that runs; a reply that is paused is not played on, either."""
        self.interrupt()
        if self._answering is not None and not self._answering.turn.over:
            self._cancel(self._answering.turn, Cancel())

    def _cancel(self, turn: Turn, cancel: Cancel) -> None:
        self._perform(turn, turn.step(cancel))
        if self.barge_in is not None and self.barge_in.turn is turn:
            self.barge_in.end()
        self._common.changes.tell()

    # Replies that somebody speaks over.

    def attached(self) -> None:
        """A connection is there: what waits in the stream is still to be played."""
        if self.barge_in is not None:
            window = self._common.outgoing.window
            samples = window.end.samples - window.sent.samples
            self.barge_in.lacks(samples / self._common.options.output.sample_rate)

    def interrupt(self) -> None:
        """End the reply that somebody speaks over, if anybody does."""
        if self.barge_in is None or not self.barge_in.contended:
            return
        turn = self.barge_in.turn
        heard = round(self.barge_in.end() * self._common.options.output.sample_rate)
        self._common.changes.tell()
        if turn is None:
            return
        if not turn.over:
            turn.step(TakenBack(self._common.outgoing.take_back(turn.samples)))
        self._common.tell(ReplyInterrupted(turn.number, min(heard, turn.samples)))
        self._perform(turn, turn.step(Cancel(heard)))

    # Their work.

    async def run(self) -> None:
        """Answer what is handed over, until cancelled."""
        try:
            while True:
                await self._common.changes.until(lambda: self._waiting)
                await self._answer_next()
        finally:
            while self._waiting:  # one more may come meanwhile
                await self._waiting.popleft().drop_ahead()

    async def _answer_next(self) -> None:
        """Answer what has waited longest; nothing of it is held afterwards."""
        self._answering = ended = self._waiting.popleft()
        self._common.changes.tell()  # one more may wait
        try:
            if not ended.turn.over:
                await self._answer(ended)
        finally:
            # Cancelled or not, begun or not: nobody else ends what was begun ahead.
            await ended.drop_ahead()
            ended.asked.utterance.forget()
            self._answering = None
            self._common.recount()

    async def _answer(self, ended: Ended) -> None:
        """Answer one utterance in a task of its own, which a cancel can stop at any moment."""
        # Begun before the task runs: a cancel may come between.
        ended.turn.step(Begin())
        self._running = task = asyncio.create_task(self._give(ended))
        try:
            await asyncio.wait([task])
        finally:
            self._running = None
            await stop(task)
        if task.cancelled():
            return
        error = task.exception()
        if isinstance(error, EngineError):
            _log.error("session %s: turn %d: %s", self._common.id, ended.turn.number, error)
            if not ended.turn.over:
                self._perform(ended.turn, ended.turn.step(Fail(refusals.not_answered(error))))
        elif error is not None:
            raise error

    async def _give(self, ended: Ended) -> None:
        common, turn, asked, ahead = self._common, ended.turn, ended.asked, ended.ahead
        if (barge_in := self.barge_in) is not None:
            # The reply before it may be over and still be played: its client waits for a verdict.
            await common.changes.until(lambda: not barge_in.contended)
        if ahead is None:
            # Due from now, not from its end: turns that wait for each other claim no more for it.
            asked.playback = Playback(common.clock())
        if barge_in is not None:
            barge_in.begin(turn, asked.playback)
        ended.sink = sink = _Sink(self, turn, asked, common)
        try:
            answer = ahead.deliver(sink) if ahead else common.pipeline.answer(asked, sink)
            exchange = await answer
            await sink.drain()
        finally:
            await sink.drop()
        turn.step(Answered(exchange))
        # The last audio may have to wait for room. Until then the turn is not over, so that a
        # cancel that comes meanwhile still stops it.
        await self._emit(turn, ReplyEnd(turn.number))
        self._perform(turn, turn.step(Flushed()))
        common.observer.turn_answered(asked.trace)
        self._log_turn(ended)

    async def _emit(self, turn: Turn, event: Event) -> None:
        """Put what tells of `event` into the stream, as soon as there is room."""
        for message in self._common.encoder.encode(event):
            await self._common.outgoing.room()
            if turn.over:  # its client has cancelled it meanwhile, and knows that it is over
                return
            if samples := self._common.outgoing.put_now(message):
                turn.step(Played(samples))
        self._common.recount()

    def _perform(self, turn: Turn, effects: tuple[Effect, ...]) -> None:
        for effect in effects:
            match effect:
                case Remember(exchange):
                    self.history.record(turn.number, exchange)
                    if self._common.settings.log_transcripts:
                        said, replied = exchange.user, exchange.assistant
                        _log.info("session %s: %r, answered %r", self._common.id, said, replied)
                case Stop():
                    self._stop(turn)
                case Over():
                    self._tell_over(turn, effect)

    def _stop(self, turn: Turn) -> None:
        if self._running is not None and self._answers(turn):
            self._running.cancel()
            return
        # One that waits takes no place any more; what was begun ahead is dropped in its turn.
        left = [one for one in self._waiting if one.turn is not turn or one.ahead is not None]
        self._waiting = deque(left)
        self._common.recount()

    def _answers(self, turn: Turn) -> bool:
        return self._answering is not None and self._answering.turn is turn

    def _tell_over(self, turn: Turn, over: Over) -> None:
        if over.error is not None:
            self._tell_refused(over.error)
        ended = self._answering if self._answers(turn) else None
        marks = {} if ended is None else {m.value: at for m, at in ended.asked.trace.marks.items()}
        ahead = {} if ended is None else {m.value: at for m, at in ended.asked.trace.ahead.items()}
        cpu_ms = 0.0 if ended is None else ended.listening_cpu_ms
        self._common.put_now(
            TurnOver(turn.number, over.status, over.text, turn.samples, marks, cpu_ms, ahead)
        )

    def _tell_refused(self, error: ProtocolError) -> None:
        """Tell what is about a turn and not about a message, so that it ends no connection."""
        self._common.observer.refused(error.code, 1)
        self._common.put_now(Refused(error))

    def _log_turn(self, ended: Ended) -> None:
        trace = ended.asked.trace
        wait_ms = trace.between_ms(Mark.END_STREAM_RECEIVED, Mark.TTS_FIRST_AUDIO)
        after = "no reply" if wait_ms is None else f"first sound after {wait_ms:.0f} ms"
        _log.info(
            "session %s: turn %d: %.1f s heard, %s",
            self._common.id,
            ended.turn.number,
            ended.heard_s,
            after,
        )


class _Sink:
    """Where the pipeline puts what it makes of one turn: into the turn, and to the client.

    Where the client may speak over it, the reply goes out at the pace at which it is played.
    """

    def __init__(self, answers: Answers, turn: Turn, asked: voice.Turn, common: Common) -> None:
        self._answers = answers
        self._turn = turn
        self._asked = asked
        self._common = common
        self._first = True
        piece_s = min(_PIECE_S, _PIECE_BYTES / common.options.output.bytes_per_second)
        self._piece = round(piece_s * SAMPLE_RATE)
        self._barge_in = answers.barge_in
        self._pacer: Pacer | None = None
        if self._barge_in is not None:
            self._pacer = Pacer(
                self._barge_in.playout,
                self._send,
                common.changes,
                common.clock,
                lambda: common.outgoing.attached,
            )

    @property
    def held_bytes(self) -> int:
        return 0 if self._pacer is None else self._pacer.held_bytes

    async def transcript(self, text: str) -> None:
        if self._take(Heard(_text(text, "the transcript"))):
            await self._answers._emit(self._turn, Transcript(self._turn.number, text))
            for start_s, end_s in self._asked.missed:
                self._answers._tell_refused(refusals.not_understood(start_s, end_s))

    async def text(self, sentence: str) -> None:
        first, self._first = self._first, False
        text = _text(sentence, "a sentence of the reply")
        await self._put(Sentence(self._turn.number, text, first))

    async def audio(self, samples: Float32) -> None:
        if samples.ndim != 1 or not np.isfinite(samples).all():
            raise EngineError("the reply's audio is no row of finite numbers")
        if self._asked.playback.produced(len(samples) / SAMPLE_RATE, self._common.clock()):
            self._common.observer.underrun()
        for piece in chunks(samples, self._piece):
            await self._put(ReplyAudio(self._turn.number, piece))

    async def drain(self) -> None:
        """Wait until all of it went out."""
        if self._pacer is not None:
            await self._pacer.drain()

    async def drop(self) -> None:
        """Let nothing more of it out."""
        if self._pacer is not None:
            await self._pacer.drop()
            self._pacer = None  # each would keep the other in memory

    async def _put(self, part: Sentence | ReplyAudio) -> None:
        if self._pacer is None:
            await self._send(part)
        else:
            await self._pacer.put(part)

    async def _send(self, part: Sentence | ReplyAudio) -> None:
        """Let the next part out, unless the turn is over.

        An engine may run a step more after a cancel.
        """
        if isinstance(part, Sentence) and not self._take(Said(part.text)):
            return
        if self._turn.over:
            return
        await self._answers._emit(self._turn, part)
        if self._barge_in is not None and isinstance(part, ReplyAudio) and not self._turn.over:
            self._barge_in.sent(part.samples)

    def _take(self, given: Input) -> bool:
        """Step, unless the turn is over."""
        if self._turn.over:
            return False
        self._turn.step(given)
        return True


def _text(value: object, what: str) -> str:
    """`value`, if it can be written into a message.

    Raises:
        EngineError: It is no text, or holds half a character.
    """
    if not isinstance(value, str):
        raise EngineError(f"{what} is no text, but {type(value).__name__}")
    if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
        raise EngineError(f"{what} holds half a character (a lone surrogate)")
    return value
