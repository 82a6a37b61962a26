"""An answer that is worked on before it is known that the speaker is through.

In a pause that may be the end, the session lets the pipeline answer what was said so far, behind a
gate: nothing of it reaches the client, the turn or the history. Once the end is confirmed the gate
opens, and what was done so far is there at once. Where speech goes on, all of it is thrown away.
What is answered is the same audio either way, so the client hears the same, only sooner.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from labkit.audio.pcm import SAMPLE_RATE, Float32
from labkit.tasks import stop
from labkit.voice.history import Exchange
from labkit.voice.scheduling import Playback
from labkit.voice.turn import Pipeline, Sink, Turn

_MOST_HELD_S: Final = 5.0
"""Audio of a reply that is made behind the gate: a first sentence, so that no more is lost with
it than that."""

_Delivery = Callable[[Sink], Awaitable[None]]


class WorkAhead:
    """One answer that may never be given. It is the sink of its own turn, with a gate in it.

    Attributes:
        turn: What is answered.
        context: The exchanges that it was begun with; an answer to another past is of no use.
    """

    def __init__(self, pipeline: Pipeline, turn: Turn) -> None:
        """Begin to answer `turn`, behind all work that somebody waits for."""
        self.turn = turn
        self.context = tuple(turn.history)
        self._held: list[_Delivery] = []
        self._held_samples = 0
        self._sink: Sink | None = None
        self._opened = asyncio.Event()
        self._said = ""
        self._heard = asyncio.Event()
        self._order = asyncio.Lock()
        turn.playback = Playback()  # nobody waits for it
        self._task = asyncio.create_task(pipeline.answer(turn, self))
        self._task.add_done_callback(lambda _: self._heard.set())

    @property
    def held_bytes(self) -> int:
        """Bytes of what was said, and of the audio that waits behind the gate."""
        return self.turn.utterance.nbytes + 4 * self._held_samples

    async def said(self) -> str:
        """What was heard, once that is known; empty where it failed."""
        await self._heard.wait()
        return self._said

    def confirm(self) -> None:
        """The end is known: from here on somebody waits for it."""
        now_ns = self.turn.clock()
        self.turn.playback.wait_from(now_ns)
        self.turn.trace.wait_from(now_ns)

    async def deliver(self, sink: Sink) -> Exchange:
        """Open the gate; gives what was exchanged, once all of it is through.

        Raises:
            EngineError: An engine failed, before or after.
        """
        async with self._order:
            for delivery in self._held:
                await delivery(sink)
            self._held.clear()
            self._held_samples = 0
            self._sink = sink
        self._opened.set()
        return await self._task

    async def drop(self) -> None:
        """End it, wherever it is; what went wrong in it unheard is of no interest any more."""
        await stop(self._task)

    # The sink that its turn sees.

    async def transcript(self, text: str) -> None:
        """What was heard."""
        self._said = text
        self._heard.set()
        await self._pass(lambda sink: sink.transcript(text))

    async def text(self, sentence: str) -> None:
        """The next sentence of the reply."""
        await self._pass(lambda sink: sink.text(sentence))

    async def audio(self, samples: Float32) -> None:
        """The next audio of the reply; waits for the gate once there is enough of it."""
        if self._held_samples >= _MOST_HELD_S * SAMPLE_RATE:
            await self._opened.wait()
        if self._sink is None:
            self._held_samples += len(samples)
        await self._pass(lambda sink: sink.audio(samples))

    async def _pass(self, delivery: _Delivery) -> None:
        # One behind the other: what is held goes out before what comes while it does.
        async with self._order:
            if self._sink is None:
                self._held.append(delivery)
            else:
                await delivery(self._sink)
