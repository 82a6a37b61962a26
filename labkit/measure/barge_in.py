"""A caller with an open microphone and a loudspeaker, who speaks over a reply.

The loudspeaker plays what comes as it comes, 20 ms at a time, pauses and drops it as the server
says, and reports what was heard. Some of what it plays may come back into the microphone.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from labkit.audio.pcm import SAMPLE_RATE, Float32, decode_s16le, encode_s16le, leading_silence
from labkit.client.v1 import Event, ReplyAudio, SessionClient
from labkit.errors import ClientError
from labkit.protocol import v1

_TICK_S: Final = 0.02
_TICK: Final = round(_TICK_S * SAMPLE_RATE)
_ECHO_DELAY: Final = 6
"""Ticks from the loudspeaker to the microphone: 120 ms, a usual sound card."""
_QUIET_S: Final = 2.0
_LONGEST_S: Final = 60.0


@dataclass(slots=True)
class Overlap:
    """What became of a reply that somebody spoke over; times in seconds from the first sample.

    Attributes:
        began_s: When the caller began to speak over it; None where that never came.
        detected_s: When the server told that speech began.
        paused_s: When it told to pause.
        last_audio_s: When the last audio of that reply came.
        resumed: What the server took for no interruption, where it did.
        interrupted: Whether the reply ended.
        heard_s: Seconds of the reply that were played.
        told_heard_s: The same as the server had it.
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
    told_heard_s: float | None = None
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
) -> Overlap:
    """Ask something, and speak over the reply once some of it was heard.

    Args:
        url: The server's address; its turn detection is used.
        question: What is asked, 16 kHz.
        over: What is said over the reply; empty for nothing.
        after_s: Seconds of the reply that are heard before that.
        echo_db: Level at which the reply comes back into the microphone, such as -12; None for a
            headset.

    Raises:
        ClientError: The session ended, or no reply came.
    """
    start = v1.SessionStart(
        turn_detection=v1.TurnDetection.SERVER, barge_in=True, acknowledges=True
    )
    gain = 0.0 if echo_db is None else 10 ** (echo_db / 20)
    async with SessionClient.connect(url, start) as client:
        caller = _Caller(client, question, over, after_s, gain)
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


class _Caller:
    """One who speaks, hears and is heard, tick by tick."""

    def __init__(
        self,
        client: SessionClient,
        question: Float32,
        over: Float32,
        after_s: float,
        gain: float,
    ) -> None:
        self.overlap = Overlap()
        self._client = client
        self._over = over
        self._after = round(after_s * SAMPLE_RATE)
        self._gain = np.float32(gain)
        self._to_say = question
        self._to_play: Float32 = np.zeros(0, np.float32)
        self._coming_back = [np.zeros(_TICK, np.float32) for _ in range(_ECHO_DELAY)]
        self._paused = False
        self._played = 0
        self._turns_wanted = 1
        self._turns_done = 0
        self._ticks = 0
        self._busy_s = 0.0
        self._begun_s = asyncio.get_running_loop().time()

    @property
    def through(self) -> bool:
        """Whether all that was said was answered, and all of that was heard."""
        if len(self._to_play) or len(self._to_say) or self._over_waits:
            self._busy_s = self._now_s()
        return self._turns_done >= self._turns_wanted and self._now_s() - self._busy_s > _QUIET_S

    async def live(self) -> None:
        """Play and speak for one tick."""
        self._ticks += 1
        await asyncio.sleep(max(0.0, self._ticks * _TICK_S - self._now_s()))
        self._coming_back.append(self._gain * self._play())
        if self._over_waits and not len(self._to_say) and self._played >= self._after:
            self._to_say = self._over
            silence_s = leading_silence(self._over, SAMPLE_RATE)
            self.overlap.began_s = self._now_s() + silence_s
        said, self._to_say = self._to_say[:_TICK], self._to_say[_TICK:]
        microphone = self._coming_back.pop(0)
        microphone[: len(said)] += said
        await self._client.send_audio(encode_s16le(microphone))

    async def listen(self) -> None:
        """Do what the server says, for as long as the session lives."""
        while True:
            await self._take(await self._client.next_event())

    @property
    def _over_waits(self) -> bool:
        return self.overlap.began_s is None and len(self._over) > 0

    def _play(self) -> Float32:
        sound = np.zeros(_TICK, np.float32)
        if not self._paused:
            played, self._to_play = self._to_play[:_TICK], self._to_play[_TICK:]
            sound[: len(played)] = played
            self._played += len(played)
        return sound

    async def _take(self, event: Event) -> None:
        overlap, now_s = self.overlap, self._now_s()
        self._busy_s = now_s
        match event:
            case ReplyAudio(payload=payload):
                self._to_play = np.concatenate([self._to_play, decode_s16le(payload)])
                if not self._turns_done:
                    overlap.last_audio_s = now_s
            case v1.SpeechStarted() if overlap.began_s is not None:
                overlap.detected_s = overlap.detected_s or now_s
                self._turns_wanted = 2
            case v1.ResponsePaused():
                overlap.pauses += 1
                overlap.paused_s = overlap.paused_s or now_s
                self._paused = True
            case v1.ResponseResumed(text=text):
                overlap.resumed = text
                self._paused, self._turns_wanted = False, 1
            case v1.ResponseInterrupted(turn=turn, heard_samples=heard):
                overlap.interrupted = True
                overlap.heard_s = self._played / SAMPLE_RATE
                overlap.told_heard_s = heard / SAMPLE_RATE
                self._to_play, self._paused = self._to_play[:0], False
                await self._client.cancel(turn, self._played)
            case v1.TranscriptFinal(text=text):
                overlap.transcripts.append(text)
            case v1.ResponseDone():
                self._turns_done += 1
            case v1.Error():
                raise ClientError(f"the server refused something: {event.message}")

    def _now_s(self) -> float:
        return asyncio.get_running_loop().time() - self._begun_s
