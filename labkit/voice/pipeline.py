"""One turn: from an utterance to a transcript and a spoken reply.

`VoicePipeline` runs the engines; `EchoPipeline` gives back what it heard and measures the
transport alone. Both tell what happens through a *sink*, whose calls may wait: a client that
reads slowly holds up its own synthesis, and nobody else's.
"""

import asyncio
import time
from functools import partial
from typing import Final

from labkit.trace import Mark
from labkit.voice.engines import Engines
from labkit.voice.hearing import SpeechSpan, Stretch, Utterance, speech_stretches
from labkit.voice.history import Exchange
from labkit.voice.reply import BLOCK, Replies, ReplyRules
from labkit.voice.scheduling import Cores, Due, EngineQueue, Playback
from labkit.voice.turn import Pipeline, Sink, Turn

_FRAMES_AT_ONCE: Final = 64
"""Frames that the detector looks at in one call, 2 s: a long burst holds up nobody else."""


class EchoPipeline(Pipeline):
    """Gives back what it heard, without any model: an instrument for the transport."""

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
        for start in range(0, len(utterance), BLOCK):
            await sink.audio(utterance.audio(start, start + BLOCK))
            # A sink with room does not wait, so a minute of echo would be one turn of the loop.
            await asyncio.sleep(0)
        turn.mark(Mark.TTS_DONE)
        return Exchange(heard, heard)


class VoicePipeline:
    """VAD → ASR → LLM → TTS, each behind a queue of its own and off the event loop.

    Every call is due when its turn's client has nothing more to hear: the first ones when the
    utterance ended, later ones when the audio in hand runs out. No call is long: the detector
    looks at 2 s at a time, the recogniser at one stretch of speech, the language model gives way
    between two tokens, the voice between two windows of a sentence. With public models a core takes
    0.4 s for a stretch of 3 s and 1.7 s for one of 29 s; 0.1 s for the first sound of a clause of
    30 letters, 0.3 s for that of a sentence of 120, and 0.15 s for each later window.
    """

    def __init__(
        self, engines: Engines, reply_rules: ReplyRules | None = None, *, calls: int = 3
    ) -> None:
        """Use `engines`, which are loaded and warm; so many `calls` run at a time, of the three."""
        self._engines = engines
        cores = Cores(calls)
        self._vad = EngineQueue("vad")  # so quick that it need not wait for a core
        self._asr = EngineQueue("asr", cores)
        self._llm = EngineQueue("llm", cores)
        self._tts = EngineQueue("tts", cores)
        self._queues = self._vad, self._asr, self._llm, self._tts
        self._replies = Replies(engines, self._llm, self._tts, reply_rules or ReplyRules())

    def warm_up(self) -> None:
        """Learn how fast the voice speaks. Blocks."""
        self._replies.warm_up()

    @property
    def frame_samples(self) -> int:
        """Samples of the frames that the voice activity detector looks at."""
        return self._engines.vad.frame_samples

    async def listen(self, session: str, utterance: Utterance, *, ended: bool = False) -> None:
        """Judge the next frames that are whole, so that few are left when the utterance ends."""
        waiting = Playback(time.perf_counter_ns() if ended else None)
        await self._examine(session, utterance, waiting.due, ended=ended)

    def stretches(
        self, utterance: Utterance, first: int = 0, *, finished: bool = False
    ) -> list[SpeechSpan]:
        """Where somebody speaks, cut as the recogniser needs it."""
        return speech_stretches(
            utterance.probabilities,
            self.frame_samples,
            longest_s=self._engines.longest_stretch_s,
            first=first,
            finished=finished,
        )

    async def overhear(
        self, session: str, stretch: Stretch, *, before: str = "", since_ns: int | None = None
    ) -> str:
        """The words of a stretch, before its utterance is over."""
        return await self._transcribe(session, stretch, before, Playback(since_ns))

    async def answer(self, turn: Turn, sink: Sink) -> Exchange:
        """Hear the utterance, then write and speak the reply at once."""
        self._replies.under_way += 1
        try:
            said = await self._hear(turn)
            await sink.transcript(said)
            if not said:
                return Exchange("", "")
            return Exchange(said, await self._replies.reply(turn, said, sink))
        finally:
            self._replies.under_way -= 1

    def queued(self) -> dict[str, int]:
        """How many calls wait, by the name of the engine."""
        return {queue.name: len(queue) for queue in self._queues}

    def close(self) -> None:
        """Take no more calls; those that run are not waited for."""
        for queue in self._queues:
            queue.close()

    async def _transcribe(
        self, session: str, stretch: Stretch, before: str, playback: Playback
    ) -> str:
        """The words of a stretch; whoever asks for what is being recognised waits for just that."""
        words = stretch.known(before)
        if words is None:
            async with self._asr.turn(session, playback.due):
                words = stretch.known(before)
                if words is None:
                    audio = stretch.audio
                    words = await self._asr.call(
                        partial(self._engines.transcribe, audio, before=before)
                    )
                    stretch.learn(before, words)
        return words

    async def _examine(self, session: str, utterance: Utterance, due: Due, *, ended: bool) -> None:
        """Look at the next frames; without any, nobody is woken.

        Frames are taken when the detector is free, so those that came meanwhile are among them,
        and what it found is noted before the turn passes on: two calls for one utterance never
        look at the same frames. A call that is cancelled notes nothing, and changes nothing.
        """
        if utterance.frame_samples != self.frame_samples:
            raise ValueError(f"the utterance needs frames of {self.frame_samples} samples")
        if not utterance.unexamined(ended=ended):
            return
        async with self._vad.turn(session, due):
            frames = utterance.next_frames(_FRAMES_AT_ONCE, ended=ended)
            if len(frames):
                look = partial(self._engines.detect, utterance.vad_state, frames)
                utterance.examined(*await self._vad.call(look))

    async def _hear(self, turn: Turn) -> str:
        """The words of the utterance; silence and noise never reach the recogniser.

        Each stretch waits for its own turn at the recogniser: an utterance of a minute holds up
        nobody else, and a turn that is cancelled stops at the next stretch.
        """
        utterance = turn.utterance
        while utterance.unexamined(ended=True):
            await self._examine(turn.session, utterance, turn.playback.due, ended=True)
        turn.mark(Mark.ASR_STARTED)
        heard = [await self._recognise(turn, stretch) for stretch in self.stretches(utterance)]
        turn.mark(Mark.ASR_DONE)
        utterance.forget()
        return " ".join(words for words in heard if words)

    async def _recognise(self, turn: Turn, span: SpeechSpan) -> str:
        stretch = turn.utterance.stretch(span)
        words = await self._transcribe(turn.session, stretch, turn.history.said(), turn.playback)
        if not words:
            turn.missed.append(stretch.place.in_seconds)
        return words
