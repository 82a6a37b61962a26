"""A caller with an open microphone and a loudspeaker, who speaks over a reply.

The loudspeaker plays what comes as it comes, 20 ms at a time, pauses and drops it as the server
says, and reports what was heard. Some of what it plays may come back into the microphone.
"""

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from labkit.audio.pcm import SAMPLE_RATE, Float32, decode_s16le, encode_s16le, leading_silence
from labkit.client.events import Event, ReplyAudio
from labkit.client.v1 import SessionClient
from labkit.errors import ClientError
from labkit.measure.decided import conversation
from labkit.protocol import v1

_TICK_S: Final = 0.02
_TICK: Final = round(_TICK_S * SAMPLE_RATE)
_ECHO_DELAY: Final = 6
"""Ticks from the loudspeaker to the microphone: 120 ms, a usual sound card."""
_QUIET_S: Final = 2.0
_LONGEST_S: Final = 150.0
"""Longer than a long reply, and an answer to what was said over it."""


@dataclass(slots=True)
class Overlap:
    """What became of a reply that somebody spoke over; times in seconds from the first sample.

    Attributes:
        began_s: When the caller began to speak over it; None where the reply was over before.
        detected_s: When the server told that this speech began.
        paused_s: When it told to pause for it.
        last_audio_s: When the last audio of that reply came.
        resumed: What the server took for no interruption, where it did.
        interrupted: Whether the reply ended.
        heard_s: Seconds of the reply that were played.
        pauses: How often it told to pause, before the caller spoke and after.
        transcripts: What was heard in each turn.
    """

    began_s: float | None = None
    detected_s: float | None = None
    paused_s: float | None = None
    last_audio_s: float = 0.0
    resumed: str | None = None
    interrupted: bool = False
    heard_s: float = 0.0
    pauses: int = 0
    transcripts: list[str] = field(default_factory=list)

    @property
    def stopped_ms(self) -> float | None:
        """From the detection to the last reply sample that came; 0 where none came after it."""
        if self.detected_s is None:
            return None
        return 1000 * max(0.0, self.last_audio_s - self.detected_s)


async def speak_over(
    url: str,
    question: Float32,
    over: Float32,
    *,
    after_s: float = 1.0,
    echo_db: float | None = None,
    hears_out: bool = True,
) -> Overlap:
    """Ask something, and speak over the reply once some of it was heard.

    Over a reply that is shorter than that, or empty, nothing is said.

    Args:
        url: The server's address; its turn detection is used.
        question: What is asked, 16 kHz.
        over: What is said over the reply; empty for nothing.
        after_s: Seconds of the reply that are heard before that.
        echo_db: Level at which the reply comes back into the microphone, such as -12; None for a
            headset.
        hears_out: Hear all replies to their end; else hang up once it is known what became of the
            first, and what was heard in its place.

    Raises:
        ClientError: The session ended, or no reply came.
    """
    gain = 0.0 if echo_db is None else 10 ** (echo_db / 20)
    async with conversation(url, v1.SessionStart(barge_in=True)) as client:
        caller = _Caller(client, question, over, after_s, gain, hears_out)
        listening = asyncio.create_task(caller.listen())
        try:
            async with asyncio.timeout(_LONGEST_S):
                while not caller.through and not listening.done():
                    await caller.live()
        except TimeoutError:
            raise ClientError(f"no whole reply came within {_LONGEST_S:g} s") from None
        finally:
            listening.cancel()
            (failure,) = await asyncio.gather(listening, return_exceptions=True)
    if isinstance(failure, Exception):
        raise failure
    return caller.overlap


@dataclass(slots=True)
class _Caller:
    """One who speaks, hears and is heard, tick by tick."""

    client: SessionClient
    to_say: Float32
    over: Float32
    after_s: float
    gain: float
    hears_out: bool = True
    overlap: Overlap = field(default_factory=Overlap)
    to_play: Float32 = field(default_factory=lambda: np.zeros(0, np.float32))
    coming_back: deque[Float32] = field(
        default_factory=lambda: deque(np.zeros(_TICK, np.float32) for _ in range(_ECHO_DELAY))
    )
    paused: bool = False
    played: int = 0
    turns_wanted: int = 1
    turns_done: int = 0
    ticks: int = 0
    busy_s: float = 0.0
    said_s: float = 0.0
    begun_s: float = field(default_factory=lambda: asyncio.get_running_loop().time())

    @property
    def through(self) -> bool:
        """Whether all that was said was answered, and as much of that was heard as it wants to."""
        if self._knows and not self.hears_out:
            return True
        if len(self.to_play) or len(self.to_say):
            self.busy_s = self._now_s()
        return self.turns_done >= self.turns_wanted and self._now_s() - self.busy_s > _QUIET_S

    @property
    def _knows(self) -> bool:
        """Whether it was told what became of the reply that it spoke over."""
        if self.overlap.interrupted:
            return len(self.overlap.transcripts) > 1
        return self.overlap.resumed is not None and self._now_s() - self.said_s > _QUIET_S

    async def live(self) -> None:
        """Play and speak for one tick."""
        self.ticks += 1
        await asyncio.sleep(max(0.0, self.ticks * _TICK_S - self._now_s()))
        self.coming_back.append(self.gain * self._play())
        waits = self.overlap.began_s is None and len(self.over) > 0
        if waits and not len(self.to_say) and self.played >= self.after_s * SAMPLE_RATE:
            self.to_say = self.over
            self.overlap.began_s = self._now_s() + leading_silence(self.over, SAMPLE_RATE)
        said, self.to_say = self.to_say[:_TICK], self.to_say[_TICK:]
        microphone = self.coming_back.popleft()
        microphone[: len(said)] += said
        if len(said):
            self.said_s = self._now_s()
        await self.client.send_audio(encode_s16le(microphone))

    async def listen(self) -> None:
        """Do what the server says, for as long as the session lives."""
        while True:
            await self._take(await self.client.next_event())

    def _play(self) -> Float32:
        sound = np.zeros(_TICK, np.float32)
        if not self.paused:
            played, self.to_play = self.to_play[:_TICK], self.to_play[_TICK:]
            sound[: len(played)] = played
            self.played += len(played)
        return sound

    async def _take(self, event: Event) -> None:
        overlap, now_s = self.overlap, self._now_s()
        speaks_over = overlap.began_s is not None
        self.busy_s = now_s
        match event:
            case ReplyAudio(payload=payload):
                self.to_play = np.concatenate([self.to_play, decode_s16le(payload)])
                if not self.turns_done:
                    overlap.last_audio_s = now_s
            case v1.SpeechStarted() if speaks_over:
                overlap.detected_s = overlap.detected_s or now_s
                self.turns_wanted = 2
            case v1.ResponsePaused():
                overlap.pauses += 1
                if speaks_over:  # an echo may have been taken for speech before
                    overlap.paused_s = overlap.paused_s or now_s
                self.paused = True
            case v1.ResponseResumed(text=text):
                overlap.resumed = text
                self.paused, self.turns_wanted = False, 1
            case v1.ResponseInterrupted(turn=turn):
                overlap.interrupted = True
                overlap.heard_s = self.played / SAMPLE_RATE
                self.to_play, self.paused = self.to_play[:0], False
                await self.client.cancel(turn, self.played)
            case v1.TranscriptFinal(text=text):
                overlap.transcripts.append(text)
            case v1.ResponseDone():
                self.turns_done += 1
            case v1.Error():
                raise ClientError(f"the server refused something: {event.message}")

    def _now_s(self) -> float:
        return asyncio.get_running_loop().time() - self.begun_s
