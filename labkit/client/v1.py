"""A client of labkit.v1 whose session survives lost connections.

What the server has not acknowledged is kept in a ring. When the connection is lost, the client
connects again, resumes, sends what the server lacks and gets what it lacks itself: whoever uses
the client sees one stream of events without a gap.
"""

import asyncio
import logging
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, Self, Unpack

from websockets.asyncio.client import ClientConnection

from labkit.audio.formats import StreamEncoder
from labkit.audio.pcm import Float32
from labkit.client.answers import Deadlines
from labkit.client.conversation import (
    Conversation,
    Event,
    Gap,
    Interrupted,
    Lost,
    ReplyAudio,
    begin,
)
from labkit.client.dial import Backoff, Reach, dial, hang_up
from labkit.client.speech import Clock, speak
from labkit.errors import ClientError, ConnectError, ProtocolError
from labkit.protocol import v1
from labkit.protocol.replay import Position, ReplayWindow

_log = logging.getLogger(__name__)

_KEEPALIVE_S: Final = 20.0
"""A connection that is silent for so long is asked for a sign of life, and given as long again."""


@dataclass(slots=True)
class Answer:
    """One turn as the client saw it.

    Attributes:
        turn: Its number.
        transcript: What the server heard.
        sentences: What the reply says.
        audio: The reply's audio, in the format that was agreed on.
        done: How it ended; None while it has not.
        errors: What the server refused meanwhile; each says how many messages it is about.
        interruptions: Lost connections meanwhile.
        gaps: What the server could not send again.
    """

    turn: int = 0
    transcript: str = ""
    sentences: list[str] = field(default_factory=list)
    audio: bytearray = field(default_factory=bytearray)
    done: v1.ResponseDone | None = None
    errors: list[v1.Error] = field(default_factory=list)
    interruptions: list[Interrupted] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)

    def take(self, event: Event) -> bool:
        """Take the next event; True once the turn is complete."""
        match event:
            case v1.TranscriptFinal(turn=turn, text=text):
                self.turn, self.transcript = turn, text
            case v1.ResponseText(text=text):
                self.sentences.append(text)
            case ReplyAudio(payload=payload):
                self.audio += payload
            case v1.Error():
                self.errors.append(event)
            case Interrupted():
                self.interruptions.append(event)
            case Gap():
                self.gaps.append(event)
            case v1.ResponseDone():
                self.done = event
        return self.done is not None


class SessionClient:
    """A session with a server, over as many connections as it takes.

    Attributes:
        url: The server's address.
        conversation: What goes to the server and comes from it.
        started: What the server agreed to, from its latest `session.started`.
    """

    def __init__(
        self,
        url: str,
        start: v1.SessionStart,
        *,
        ring_s: float,
        backoff: Backoff,
        deadlines: Deadlines,
        seed: int | None,
        clock: Clock,
        reach: Reach,
    ) -> None:
        """Prepare; use `connect` instead of calling this."""
        if ring_s < 1:
            raise ValueError(f"ring_s must be at least 1 second, got {ring_s:g}")
        audio = start.input.format
        ring = ReplayWindow(
            max_bytes=round(audio.bytes_per_second * ring_s),
            max_samples=audio.samples(ring_s),
            until_acknowledged=True,
        )
        received = start.resume.received if start.resume else Position()
        self.url = url
        self.conversation = Conversation(ring, received, clock, deadlines.answer_s)
        self.started: v1.SessionStarted | None = None
        self._start = start
        self._reach = reach
        self._backoff = backoff
        self._deadlines = deadlines
        self._clock = clock
        self._random = random.Random(seed)
        self._encoder = StreamEncoder(audio)
        self._opened = asyncio.Event()
        self._leaving = False
        self._attached_ns: int | None = None

    @classmethod
    @asynccontextmanager
    async def connect(
        cls,
        url: str,
        start: v1.SessionStart | None = None,
        *,
        ring_s: float = 60.0,
        backoff: Backoff | None = None,
        deadlines: Deadlines | None = None,
        seed: int | None = None,
        clock: Clock | None = None,
        **reach: Unpack[Reach],
    ) -> AsyncIterator[Self]:
        """Open a session for the length of the block.

        Args:
            url: The server's address, such as ``ws://localhost:8765``.
            start: What to ask for; by default 16 kHz s16le both ways, with acknowledgements.
            ring_s: Most audio that is kept while the server has not acknowledged it. A server does
                so several times a second; below one second of ring, speech would wait for that.
            backoff: When to try again after a lost connection, and when to give up.
            deadlines: How long to wait for what.
            seed: Draws the waits before each try; without it, they differ at each run.
            clock: What time is taken from, and how to wait.
            reach: Headers, certificates and such, as `labkit.client.dial.Reach` has them.

        Raises:
            ClientError: Nobody answers there in time, or the session was refused.
            ValueError: `ring_s` is below 1.
        """
        client = cls(
            url,
            start or v1.SessionStart(acknowledges=True),
            ring_s=ring_s,
            backoff=backoff or Backoff(),
            deadlines=deadlines or Deadlines(),
            seed=seed,
            clock=clock or Clock(),
            reach=reach,
        )
        running = asyncio.create_task(client._run())
        try:
            await client._opened.wait()
            client._require_alive()
            yield client
        finally:
            client._leaving = True
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    async def send_audio(self, payload: bytes) -> None:
        """Send audio in the format that was agreed on; waits while the ring is full.

        Raises:
            ClientError: The session is over.
            ValueError: `payload` is no whole number of samples.
        """
        audio = self._start.input.format
        samples, rest = divmod(len(payload), audio.frame_bytes)
        if rest or not samples:
            raise ValueError(f"{len(payload)} bytes are no whole number of samples of {audio}")
        await self.conversation.put_audio(payload, samples)
        self.conversation.so_far.said_s += audio.seconds(samples)

    async def end_utterance(self) -> None:
        """Ask for the answer to what was said.

        Raises:
            ClientError: The session is over.
        """
        if tail := self._encoder.flush():
            await self.send_audio(tail)
        await self.conversation.put_text(v1.AudioEnd().encode())
        self.conversation.turns += 1
        self.conversation.so_far.asked = "audio.end"

    async def cancel(self, turn: int, heard_samples: int) -> None:
        """Stop the reply of `turn`, of which `heard_samples` samples were played.

        Raises:
            ClientError: The session is over.
        """
        message = v1.ResponseCancel(turn=turn, heard_samples=heard_samples)
        await self.conversation.put_text(message.encode())

    async def say(self, samples: Float32, *, chunk_ms: float = 40.0, pace: float = 1.0) -> Answer:
        """Speak `samples`, ask for the answer, and wait for all of it.

        Args:
            samples: Mono, 16 kHz.
            chunk_ms: Length of one message, in milliseconds.
            pace: Times real time; 0 sends at once.

        Raises:
            ClientError: The session is over, or the server owed an answer for too long.
        """

        async def send(chunk: Float32) -> None:
            if payload := self._encoder.feed(chunk):
                await self.send_audio(payload)

        await speak(samples, send, chunk_ms=chunk_ms, pace=pace, clock=self._clock)
        await self.end_utterance()
        return await self.answer()

    async def answer(self) -> Answer:
        """Wait for the rest of the current turn, or for all of the next.

        Whoever waits here says that an answer is due: where nothing goes on for `answer_s`, not
        even an acknowledgement of more speech, the session ends.

        Raises:
            ClientError: The session is over, or the server owed an answer for too long.
        """
        self.conversation.expect_more()
        self.conversation.waiting += 1
        answer = Answer()
        try:
            while not answer.take(await self.next_event()):
                pass
        finally:
            self.conversation.waiting -= 1
        return answer

    async def next_event(self) -> Event:
        """The next thing that the server tells, in order, without a gap and without repetition.

        Waits for as long as the session lives. That ends when the server owes something (an
        acknowledgement of audio, an answer) and gives no sign of progress for `answer_s`.

        Raises:
            ClientError: The session is over.
        """
        return await self.conversation.next_event()

    async def end(self) -> None:
        """End the session for good; it cannot be resumed.

        Raises:
            ClientError: There is no connection, or the server reads nothing.
        """
        self._require_alive()
        if not self.conversation.attached:
            raise ClientError("there is no connection at the moment")
        await self.conversation.put_urgent(v1.SessionEnd().encode())

    def _require_alive(self) -> None:
        if self.conversation.failure is not None:
            raise self.conversation.failure

    async def _run(self) -> None:
        """Keep a connection, until the session is over."""
        failure = ClientError("the session is over")
        try:
            await self._stay_connected()
        except ProtocolError as wrong:
            failure = ClientError(f"{self.url} does not keep to labkit.v1: {wrong}")
        except ClientError as error:
            failure = error
        finally:
            self.conversation.fail(failure)
            self._opened.set()

    async def _stay_connected(self) -> None:
        """Connect again whenever a connection is lost.

        Raises:
            ClientError: The session is over, or there is none for too long.
            ProtocolError: The server does not keep to the protocol.
        """
        since_ns = lost_ns = self._clock.now_ns()
        reason = ""
        delays = self._backoff.delays(self._random)
        while True:
            try:
                async with self._dialled(since_ns) as socket:
                    within_s = min(self._deadlines.start_s, self._left_s(since_ns))
                    started = await begin(socket, self._opening(), within_s)
                    await self._attach(started, lost_ns, reason)
                    await self.conversation.carry(socket, started)
            except Lost as lost:
                # Leaving against losing: where a task of the group has just failed, the group
                # drops the cancellation of its parent, so `connect` has said so beforehand.
                if self._leaving:
                    return
                lost_ns, reason = self._clock.now_ns(), str(lost)
                if self._worked(lost_ns):
                    since_ns = lost_ns
                    delays = self._backoff.delays(self._random)
                self._attached_ns = None
                await self._wait(next(delays), lost, since_ns)

    def _opening(self) -> v1.SessionStart:
        """The message that begins the session, or resumes it where it was lost."""
        if self.started is None:
            return self._start
        resume = v1.Resume(
            session=self.started.session,
            token=self.started.token,
            received=self.conversation.received,
        )
        return self._start.model_copy(update={"resume": resume})

    async def _attach(self, started: v1.SessionStarted, lost_ns: int, reason: str) -> None:
        """Send what the server lacks, and go on where it goes on."""
        now_ns = self._clock.now_ns()
        if self.started is not None:
            await self.conversation.hand_on(Interrupted((now_ns - lost_ns) / 1e9, reason))
            self.conversation.progress_ns += now_ns - lost_ns  # nothing could come meanwhile
        self.conversation.resume(started.received)
        if started.missing is not None:
            self.conversation.received = started.missing.up_to
            await self.conversation.hand_on(Gap(started.missing))
        self.started = started
        self._attached_ns = now_ns
        self._opened.set()

    def _worked(self, lost_ns: int) -> bool:
        """Whether the connection that was lost had been one that works.

        A server that accepts every resume and hangs up at once gives none, and is given up like
        one that does not answer at all.
        """
        if self._attached_ns is None:
            return False
        held_s = (lost_ns - self._attached_ns) / 1e9
        return self.conversation.worked or held_s >= self._backoff.limit_s

    async def _wait(self, delay_s: float, lost: Lost, since_ns: int) -> None:
        """Wait before the next try, or give up."""
        delay_s = max(delay_s, lost.retry_s)
        if self.started is None and isinstance(lost.__cause__, ConnectError):
            raise lost.__cause__
        if self.started is None or self._left_s(since_ns) <= delay_s:
            raise ClientError(f"no session with {self.url}: {lost}") from lost
        _log.info("connection lost (%s), trying again", lost)
        await self._clock.sleep(delay_s)

    def _left_s(self, since_ns: int) -> float:
        """How long there may still be no session, if there has been none since `since_ns`."""
        return self._backoff.give_up_s - (self._clock.now_ns() - since_ns) / 1e9

    @asynccontextmanager
    async def _dialled(self, since_ns: int) -> AsyncIterator[ClientConnection]:
        deadlines = self._deadlines
        try:
            socket = await dial(
                self.url,
                subprotocol=v1.SUBPROTOCOL,
                within_s=min(deadlines.connect_s, self._left_s(since_ns)),
                max_queue=4,  # what waits in here is not acknowledged, so keep it short
                # A connection that is found dead before an answer over it is overdue is replaced,
                # and the answer comes over the next one.
                keepalive_s=min(_KEEPALIVE_S, deadlines.answer_s / 3),
                **self._reach,
            )
        except ConnectError as error:
            if not error.retry:
                raise
            raise Lost(str(error), error.retry_after_s) from error
        try:
            yield socket
        finally:
            await hang_up(socket)
