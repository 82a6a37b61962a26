"""A session without a server: a pipeline that works at once, and events instead of messages."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np

from labkit.audio.formats import WIRE
from labkit.audio.pcm import to_int16
from labkit.errors import ErrorCode
from labkit.session.events import Encoded, Event, ReplyAudio
from labkit.session.limits import Budget
from labkit.session.outgoing import Feed
from labkit.session.session import Session
from labkit.session.settings import ServerSettings, SessionOptions
from labkit.trace import Trace
from labkit.voice.hearing import Endpointing, SpeechSpan, Stretch, Utterance, speech_stretches
from labkit.voice.history import Exchange
from labkit.voice.turn import Sink, Turn

FRAME = 512
STEP = 64
"""Frames that the pipeline judges at a time, as the real one."""


class Inline:
    """A pipeline without engines and threads: loud frames are speech, lengths are words."""

    frame_samples = FRAME

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.pieces = 1
        self.overheard = 0

    async def listen(self, session: str, utterance: Utterance, *, ended: bool = False) -> None:
        await asyncio.sleep(0)
        frames = utterance.next_frames(STEP, ended=ended).reshape(-1, FRAME)
        found = [float(np.abs(frame).max() > 0.01) for frame in frames]
        utterance.examined(found, ())

    def stretches(
        self, utterance: Utterance, first: int = 0, *, finished: bool = False
    ) -> list[SpeechSpan]:
        rules = Endpointing(pad_s=0)
        return speech_stretches(
            utterance.probabilities, FRAME, rules, first=first, finished=finished
        )

    async def overhear(
        self, session: str, stretch: Stretch, *, before: str = "", since_ns: int | None = None
    ) -> str:
        self.overheard += len(stretch.pcm)
        return " ".join(["la"] * (len(stretch.pcm) // 1600))

    async def answer(self, turn: Turn, sink: Sink) -> Exchange:
        await self.gate.wait()
        loud = int((np.abs(turn.utterance.audio()) > 0.01).sum())
        said = f"{loud} loud samples" if loud else ""
        await sink.transcript(said)
        if not said:
            return Exchange("", "")
        await sink.text("One.")
        for _ in range(self.pieces):
            await sink.audio(np.full(1600, 0.25, np.float32))
        await sink.text("Two.")
        await sink.audio(np.full(1600, 0.25, np.float32))
        return Exchange(said, "One. Two.")

    def queued(self) -> dict[str, int]:
        return {}

    def close(self) -> None:
        pass


class Told:
    """Keeps the events of a session, and writes their audio and their names."""

    held_bytes = 0

    def __init__(self) -> None:
        self.events: list[Event] = []

    def encode(self, event: Event) -> Iterator[Encoded]:
        self.events.append(event)
        if isinstance(event, ReplyAudio):
            yield to_int16(event.samples).tobytes()
        else:
            yield lambda number: f"{number} {type(event).__name__}"

    def of(self, *kinds: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kinds)]


class Counts:
    """Counts refusals by code."""

    def __init__(self) -> None:
        self.refusals: dict[ErrorCode, int] = {}
        self.turns = 0
        self.ahead: list[bool] = []

    def turn_answered(self, trace: Trace) -> None:
        self.turns += 1

    def refused(self, code: ErrorCode, count: int) -> None:
        self.refusals[code] = self.refusals.get(code, 0) + count

    def underrun(self) -> None:
        pass

    def worked_ahead(self, *, used: bool) -> None:
        self.ahead.append(used)


class Clock:
    """Time that moves when told to."""

    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        return self.now_ns


class Scene:
    """A session at work, and what surrounds it."""

    def __init__(self, pipeline: Any, options: dict[str, Any], settings: dict[str, Any]) -> None:
        chosen = {"watch_s": 0.0, "burst_s": 1e6, "replay_bytes": 10**7, "replay_s": 1e4}
        self.pipeline = pipeline
        self.told = Told()
        self.counts = Counts()
        self.clock = Clock()
        self.settings = ServerSettings(**{**chosen, **settings})
        self.session = Session(
            "one",
            pipeline,
            self.told,
            SessionOptions(**{"input": WIRE, "output": WIRE, **options}),
            self.settings,
            self.counts,
            budget=Budget(self.settings.max_held_bytes),
            clock=self.clock,
            cpu_clock=self.clock,
        )

    def hear(self, payload: bytes) -> None:
        """Let the session hear all of `payload`, as a connection does."""
        self.session.hear(payload)
        while self.session.hears_on:
            self.session.hear_on()

    async def settle(self) -> None:
        """Let every task run until it waits."""
        for _ in range(16):
            await asyncio.sleep(0)


@asynccontextmanager
async def at_work(
    pipeline: Any = None, settings: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[Scene]:
    """A session whose work runs."""
    scene = Scene(pipeline or Inline(), options, settings or {})
    scene.session.outgoing.attach(Feed(60.0))
    tasks = [asyncio.create_task(work()) for work in scene.session.work()]
    try:
        yield scene
    finally:
        scene.session.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def sound(samples: int, level: float = 0.25) -> bytes:
    return to_int16(np.full(samples, level, np.float32)).tobytes()
