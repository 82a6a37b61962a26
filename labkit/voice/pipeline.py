"""One turn: from an utterance to a transcript and a spoken reply.

`VoicePipeline` runs the engines; `EchoPipeline` gives back what it heard and measures the
transport alone. Both tell what happens through a *sink*, whose calls may wait: a client that
reads slowly holds up its own synthesis, and nobody else's.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Protocol, TypeVar

import numpy as np

from labkit.audio.pcm import SAMPLE_RATE, Float32, StreamResampler, chunks, leading_silence
from labkit.trace import Mark, Trace
from labkit.voice import boundary
from labkit.voice.engines import Engines
from labkit.voice.hearing import Endpointing, SpeechSpan, Utterance, speech_stretches
from labkit.voice.history import Exchange, History, Message
from labkit.voice.scheduling import FairQueue, Priority, Stop
from labkit.voice.speakable import Piece, SpeakableText

__all__ = ["EchoPipeline", "Pipeline", "ReplyRules", "Sink", "Turn", "VoicePipeline"]

T = TypeVar("T")

_BLOCK: Final = SAMPLE_RATE // 5
"""Samples of synthesised speech that are converted and handed on at a time."""
_FRAMES_AT_ONCE: Final = 64
"""Frames that the detector looks at in one call, 2 s: a long burst holds up nobody else."""
_ONSET_S: Final = 0.02
"""Silence that is kept before the first audible sample of a reply."""


@dataclass(frozen=True, slots=True)
class ReplyRules:
    """What the language model is told, and how long its replies may be.

    A reply ends before the piece that would make it too long. Pieces are sentences, and clauses of
    long ones. Only where the first piece alone is too long, it ends at the last word that fits.

    Attributes:
        system: Told to the model before all that is said; empty for models that need no telling.
        max_tokens: Most tokens of a reply. A sentence that this cuts is left out.
        max_s: Longest reply, in seconds of speech.
    """

    system: str = ""
    max_tokens: int = 160
    max_s: float = 15.0


class Sink(Protocol):
    """Where a turn's results go. Each call may wait until there is room."""

    async def transcript(self, text: str) -> None:
        """What was heard; empty where nothing was said."""
        ...

    async def text(self, sentence: str) -> None:
        """The next sentence of the reply as the model wrote it, before it is spoken."""
        ...

    async def audio(self, samples: Float32) -> None:
        """The next piece of the spoken reply, 16 kHz."""
        ...


@dataclass(slots=True)
class Turn:
    """What one turn needs to know.

    Attributes:
        session: Whose turn it is; engines serve sessions in rounds.
        utterance: What was said.
        history: What was said before.
        trace: Takes the marks of the turn.
        clock: The monotonic clock of the marks, in nanoseconds.
        missed: Takes the stretches in which somebody spoke and no words were found, in seconds
            of the utterance: what they said lacks in the transcript. Complete before the
            transcript is given to the sink.
        priority: How urgent its work is; may change while it runs.
    """

    session: str
    utterance: Utterance
    history: History
    trace: Trace = field(default_factory=Trace)
    clock: Callable[[], int] = time.perf_counter_ns
    missed: list[tuple[float, float]] = field(default_factory=list)
    priority: Priority = Priority.FINAL

    def mark(self, mark: Mark) -> None:
        """Mark this instant."""
        self.trace.mark(mark, self.clock())


class Pipeline(Protocol):
    """What turns utterances into replies."""

    @property
    def frame_samples(self) -> int | None:
        """Samples of a frame of `Utterance.probabilities`; None where speech is not detected."""
        ...

    async def listen(self, session: str, utterance: Utterance, *, ended: bool = False) -> None:
        """Work ahead on an utterance, on two seconds of it at most.

        More might have to be thrown away, where the utterance turns out to end in them.

        Args:
            session: Whose utterance it is.
            utterance: What was said so far. It may grow, be split, and lose its front meanwhile.
            ended: It is over, so this is no longer work ahead: somebody waits for it.

        Raises:
            EngineError: An engine failed.
        """
        ...

    def stretches(self, utterance: Utterance) -> list[SpeechSpan]:
        """Where somebody speaks in what was judged so far; each is recognised by itself."""
        ...

    async def overhear(self, session: str, audio: Float32) -> str:
        """The words of a stretch that may go on, when nobody else needs the recogniser.

        Raises:
            EngineError: An engine failed.
        """
        ...

    async def answer(self, turn: Turn, sink: Sink) -> Exchange:
        """Run one turn; gives what was exchanged, both empty where nothing was said.

        Raises:
            EngineError: An engine failed.
        """
        ...

    def queued(self) -> dict[str, int]:
        """How many calls wait for each engine."""
        ...

    def close(self) -> None:
        """Stop taking work."""
        ...


@dataclass(frozen=True, slots=True)
class _Speech:
    """What was synthesised of a piece."""

    pieces: list[Float32] = field(default_factory=list)
    rate: int = SAMPLE_RATE

    @property
    def seconds(self) -> float:
        return sum(map(len, self.pieces)) / self.rate


class EchoPipeline:
    """Gives back what it heard, without any model: an instrument for the transport."""

    _PIECE: Final = SAMPLE_RATE // 5
    frame_samples: None = None

    async def listen(self, session: str, utterance: Utterance, *, ended: bool = False) -> None:
        """An echo looks at nothing before the utterance is over."""

    def stretches(self, utterance: Utterance) -> list[SpeechSpan]:
        """An echo knows no speech."""
        return []

    async def overhear(self, session: str, audio: Float32) -> str:
        """An echo knows no words."""
        return ""

    async def answer(self, turn: Turn, sink: Sink) -> Exchange:
        """Give the utterance back; its transcript says how much audio came."""
        utterance = turn.utterance
        heard = f"{utterance.seconds:.2f} seconds of audio" if len(utterance) else ""
        for mark in (Mark.ASR_STARTED, Mark.ASR_DONE):
            turn.mark(mark)
        await sink.transcript(heard)
        for mark in (Mark.LLM_FIRST_TOKEN, Mark.LLM_FIRST_SENTENCE, Mark.LLM_DONE):
            turn.mark(mark)
        if heard:
            await sink.text(heard)
        turn.mark(Mark.TTS_FIRST_AUDIO)
        for start in range(0, len(utterance), self._PIECE):
            await sink.audio(utterance.audio(start, start + self._PIECE))
            # A sink with room does not wait, so a minute of echo would be one turn of the loop.
            await asyncio.sleep(0)
        turn.mark(Mark.TTS_DONE)
        return Exchange(heard, heard)

    def queued(self) -> dict[str, int]:
        """Without engines nobody waits."""
        return {}

    def close(self) -> None:
        """Nothing to stop."""


class VoicePipeline:
    """VAD → ASR → LLM → TTS, each behind its own fair queue and off the event loop."""

    def __init__(
        self,
        engines: Engines,
        endpointing: Endpointing | None = None,
        reply_rules: ReplyRules | None = None,
    ) -> None:
        """Use `engines`, which are loaded and warm."""
        self._engines = engines
        self._rules = endpointing or Endpointing()
        self._reply_rules = reply_rules or ReplyRules()
        self._vad = FairQueue("vad")
        self._asr = FairQueue("asr")
        self._llm = FairQueue("llm")
        self._tts = FairQueue("tts")

    @property
    def frame_samples(self) -> int:
        """Samples of the frames that the voice activity detector looks at."""
        return self._engines.vad.frame_samples

    async def listen(self, session: str, utterance: Utterance, *, ended: bool = False) -> None:
        """Judge the next frames that are whole, so that few are left when the utterance ends."""
        priority = Priority.FINAL if ended else Priority.SPECULATIVE
        await self._examine(session, utterance, priority, ended=ended)

    def stretches(self, utterance: Utterance) -> list[SpeechSpan]:
        """Where somebody speaks, cut as the recogniser needs it."""
        return speech_stretches(
            utterance.probabilities,
            self.frame_samples,
            self._rules,
            longest_s=self._engines.longest_stretch_s,
        )

    async def overhear(self, session: str, audio: Float32) -> str:
        """The words of a stretch that may go on."""
        work = partial(boundary.transcribe, self._engines.asr, audio)
        return await self._asr.run(session, Priority.SPECULATIVE, work)

    async def answer(self, turn: Turn, sink: Sink) -> Exchange:
        """Hear the utterance, then write and speak the reply at once."""
        said = await self._hear(turn)
        await sink.transcript(said)
        if not said:
            return Exchange("", "")
        reply = await _only_error(self._reply(turn, said, sink))
        return Exchange(said, reply)

    def queued(self) -> dict[str, int]:
        """How many calls wait, by the name of the engine."""
        return {queue.name: len(queue) for queue in self._queues()}

    def close(self) -> None:
        """Take no more calls; those that run are not waited for."""
        for queue in self._queues():
            queue.close()

    def _queues(self) -> tuple[FairQueue, ...]:
        return self._vad, self._asr, self._llm, self._tts

    async def _examine(
        self, session: str, utterance: Utterance, priority: Priority, *, ended: bool
    ) -> None:
        """Look at the next frames; without any, nobody is woken.

        Frames are taken when the detector is free, so those that came meanwhile are among them,
        and what it found is noted before the turn passes on: two calls for one utterance never
        look at the same frames. A call that is cancelled notes nothing, and changes nothing.
        """
        if utterance.frame_samples != self.frame_samples:
            raise ValueError(f"the utterance needs frames of {self.frame_samples} samples")
        if not utterance.unexamined(ended=ended):
            return
        async with self._vad.turn(session, priority):
            frames = utterance.next_frames(_FRAMES_AT_ONCE, ended=ended)
            if len(frames):
                look = partial(boundary.detect, self._engines.vad, utterance.vad_state, frames)
                utterance.examined(*await self._vad.call(look))

    async def _hear(self, turn: Turn) -> str:
        """The words of the utterance; silence and noise never reach the recogniser.

        Each stretch waits for its own turn at the recogniser: an utterance of a minute holds up
        nobody else, and a turn that is cancelled stops at the next stretch.
        """
        utterance = turn.utterance
        while utterance.unexamined(ended=True):
            await self._examine(turn.session, utterance, turn.priority, ended=True)
        turn.mark(Mark.ASR_STARTED)
        heard = [await self._recognise(turn, stretch) for stretch in self.stretches(utterance)]
        turn.mark(Mark.ASR_DONE)
        utterance.forget()
        return " ".join(words for words in heard if words)

    async def _recognise(self, turn: Turn, stretch: SpeechSpan) -> str:
        audio = turn.utterance.audio(stretch.start, stretch.end)
        work = partial(boundary.transcribe, self._engines.asr, audio)
        words = await self._asr.run(turn.session, turn.priority, work)
        if not words:
            before = turn.utterance.dropped_samples
            turn.missed.append(
                ((before + stretch.start) / SAMPLE_RATE, (before + stretch.end) / SAMPLE_RATE)
            )
        return words

    async def _reply(self, turn: Turn, said: str, sink: Sink) -> str:
        """Think and speak at once: each piece is spoken while the next is written."""
        pieces: asyncio.Queue[Piece | None] = asyncio.Queue()
        enough = Stop()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._think(turn, said, pieces, enough))
            speaking = group.create_task(self._speak(turn, pieces, sink, enough))
        return speaking.result()

    async def _think(
        self, turn: Turn, said: str, pieces: asyncio.Queue[Piece | None], enough: Stop
    ) -> None:
        """Write the reply until there is enough, and hand each piece over once it is whole."""
        messages = self._messages(turn, said)
        loop = asyncio.get_running_loop()
        text = SpeakableText()

        def hand_over(whole: list[Piece]) -> None:
            for piece in whole:
                if piece.spoken:
                    turn.mark(Mark.LLM_FIRST_SENTENCE)
                pieces.put_nowait(piece)

        def generate(stop: Stop) -> None:
            # The text is read here, on the engine's thread: what a model gives at once may be long.
            with closing(boundary.reply(self._engines.llm, messages, stop)) as deltas:
                for number, delta in enumerate(deltas, 1):
                    turn.mark(Mark.LLM_FIRST_TOKEN)
                    if whole := text.feed(delta):
                        loop.call_soon_threadsafe(hand_over, whole)
                    if number == self._reply_rules.max_tokens or enough.is_set():
                        rest = text.cut()
                        break
                else:
                    rest = text.flush()
            loop.call_soon_threadsafe(hand_over, rest)

        await self._llm.run(turn.session, turn.priority, generate)
        pieces.put_nowait(None)
        turn.mark(Mark.LLM_DONE)

    def _messages(self, turn: Turn, said: str) -> list[Message]:
        system = self._reply_rules.system
        told = [Message("system", system)] if system else []
        return [*told, *turn.history.messages(said)]

    async def _speak(
        self, turn: Turn, pieces: asyncio.Queue[Piece | None], sink: Sink, enough: Stop
    ) -> str:
        """Show and speak each piece that there is time for; gives what was shown."""
        shown: list[str] = []
        left_s = self._reply_rules.max_s
        while (piece := await pieces.get()) is not None:
            first = left_s == self._reply_rules.max_s
            speech = await self._synthesise(turn, piece)
            while first and speech.seconds > left_s and len(piece.spoken.split()) > 1:
                piece = _shortened(piece, left_s / speech.seconds)
                speech = await self._synthesise(turn, piece)
            if speech.seconds > left_s:
                enough.set()
                break
            if text := piece.shown.strip():
                await sink.text(text)
            await self._play(turn, speech, sink, at_once=first)
            shown.append(piece.shown)
            left_s -= speech.seconds
        turn.mark(Mark.TTS_DONE)
        return "".join(shown).strip()

    async def _synthesise(self, turn: Turn, piece: Piece) -> _Speech:
        if not piece.spoken:
            return _Speech()
        speak = partial(boundary.synthesise, self._engines.tts, piece.spoken)
        return _Speech(*await self._tts.run(turn.session, turn.priority, speak))

    async def _play(self, turn: Turn, speech: _Speech, sink: Sink, *, at_once: bool) -> None:
        """Hand speech to the sink; `at_once` leaves out the silence that voices begin with."""
        pieces, rate = speech.pieces, speech.rate
        if not pieces:
            return
        turn.mark(Mark.TTS_FIRST_AUDIO)
        if at_once:
            pieces[0] = _without_leading_silence(pieces[0], rate)
        resampler = StreamResampler(rate, SAMPLE_RATE)
        for piece in pieces:
            # Block by block: the sink may wait for long, and a second copy would wait with it.
            for block in chunks(piece, _BLOCK):
                await sink.audio(resampler.feed(block))
        tail = resampler.feed(np.zeros(0, np.float32), last=True)
        if len(tail):
            await sink.audio(tail)


def _shortened(piece: Piece, share: float) -> Piece:
    """A piece without its last words, about `share` of what is spoken of it."""
    words = len(piece.spoken.split())
    dropped = words - max(1, int(words * share))

    def rest(text: str) -> str:
        return "".join(text.rsplit(None, dropped)[:1])

    return Piece(rest(piece.shown), rest(piece.spoken))


def _without_leading_silence(piece: Float32, sample_rate: int) -> Float32:
    """`piece` from shortly before its first audible sample: quiet consonants begin there."""
    silence = leading_silence(piece, sample_rate) - _ONSET_S
    return piece[max(0, round(silence * sample_rate)) :]


async def _only_error(work: Awaitable[T]) -> T:
    """Await `work`, and raise the first error itself instead of the group around it."""
    try:
        return await work
    except BaseExceptionGroup as group:
        raise _first(group) from None


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
