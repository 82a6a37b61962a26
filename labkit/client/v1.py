"""A client of labkit.v1 whose session survives lost connections.

When a connection is lost, the client connects again, resumes, sends what the server lacks and
gets what it lacks itself: whoever uses the client sees one stream of events without a gap.
"""

import asyncio
import logging
import math
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, Final, NoReturn, Self, Unpack

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from labkit.audio.formats import StreamEncoder
from labkit.audio.pcm import Float32
from labkit.client.answers import Deadlines, send_within
from labkit.client.conversation import Conversation, Lost, broken, lost_or_over
from labkit.client.dial import Backoff, Reach, dial, hang_up, in_words, shown
from labkit.client.events import Answer, Event, Interrupted, read_message, refuses_end, settles
from labkit.client.speech import Clock, speak
from labkit.errors import ClientError, ConnectError, ProtocolError
from labkit.protocol import v1
from labkit.protocol.replay import Position, ReplayWindow
from labkit.tasks import stop

_log = logging.getLogger(__name__)

_KEEPALIVE_S: Final = 20.0
"""A connection that is silent for so long is asked for a sign of life, and given as long again."""
_LEAST_KEEPALIVE_S: Final = 1.0
"""A machine that is busy answers late, and is alive."""
_FOREIGN_S: Final = 2.0
"""A server that did not agree to labkit.v1 is asked all the same, and hardly answers."""


async def begin(
    socket: ClientConnection, start: v1.SessionStart, within_s: float
) -> v1.SessionStarted:
    """Begin or resume a session over `socket`, and wait for the server's word.

    Raises:
        Lost: It did not come in time, or the connection was lost.
        ClientError: The server refuses, or answers something else.
    """
    why = ""
    if not socket.subprotocol:
        within_s = min(within_s, _FOREIGN_S)
        why = f"; it agreed to no subprotocol, so it does not speak {v1.SUBPROTOCOL}"
    try:
        async with asyncio.timeout(within_s):
            await socket.send(start.encode())
            answer = await socket.recv()
    except TimeoutError:
        raise Lost(
            "the server took the connection and did not answer 'session.start' within "
            f"{within_s:.3g} s{why}"
        ) from None
    except ConnectionClosed as closed:
        raise lost_or_over(closed) from closed
    message = None
    if isinstance(answer, str):
        try:
            message = read_message(answer)
        except ProtocolError as wrong:
            why += f"; {wrong}"
    match message:
        case v1.SessionStarted() as started:
            return started
        case v1.Error() as error:
            told = f"{error.code!s}: {error.message}. {error.hint}".rstrip(". ")
            raise ClientError(in_words(told))
    raise ClientError(f"the server answered 'session.start' with {answer[:80]!r}{why}")


class _Tries:
    """Tries to get a session: when the next one is due, and when to give up."""

    def __init__(self, backoff: Backoff, clock: Clock, seed: int | None) -> None:
        self.backoff = backoff
        self._clock = clock
        self._random = random.Random(seed)
        self.begin()

    def begin(self) -> None:
        """There is no session from now on."""
        self._since_ns = self._clock.now_ns()
        self._delays = self.backoff.delays(self._random)

    @property
    def left_s(self) -> float:
        """How long there may still be none."""
        return self.backoff.give_up_s - (self._clock.now_ns() - self._since_ns) / 1e9

    async def wait(self, least_s: float) -> bool:
        """Wait for the next try; False, and at once, where there is none."""
        delay_s = max(next(self._delays), least_s)
        if self.left_s <= delay_s:
            return False
        await self._clock.sleep(delay_s)
        return True


class SessionClient:
    """A session with a server, over as many connections as it takes.

    Attributes:
        url: The server's address.
        conversation: What goes to the server and comes from it.
        started: What the server agreed to, from its latest `session.started`.
        lost: Why there is no connection at the moment; empty while there is one.
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
        if not 1 <= ring_s < math.inf:
            raise ValueError(f"ring_s must be at least 1 second, and finite, got {ring_s:g}")
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
        self.lost = ""
        self._start = start
        self._reach = reach
        self._tries = _Tries(backoff, clock, seed)
        self._deadlines = deadlines
        self._clock = clock
        self._encoder = StreamEncoder(audio)
        self._coming = Answer()
        self._busy = False
        self._opened = asyncio.Event()
        self._leaving = False
        self._socket: ClientConnection | None = None

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
            client.conversation.require_alive()
            yield client
        finally:
            client._leaving = True
            await stop(running)

    # -- what is said and heard ---------------------------------------------------------------

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
        await self.conversation.put(payload, samples)
        self.conversation.so_far.said_s += audio.seconds(samples)

    async def end_utterance(self) -> None:
        """Ask for the answer to what was said.

        Raises:
            ClientError: The session is over.
        """
        if tail := self._encoder.flush():
            await self.send_audio(tail)
        await self.conversation.put(v1.AudioEnd().encode())
        self.conversation.turns += 1
        self.conversation.so_far.asked = "audio.end"

    async def cancel(self, turn: int, heard_samples: int) -> None:
        """Stop the reply of `turn`, of which `heard_samples` samples were played.

        Raises:
            ClientError: The session is over.
        """
        message = v1.ResponseCancel(turn=turn, heard_samples=heard_samples)
        await self.conversation.put(message.encode())

    async def say(self, samples: Float32, *, chunk_ms: float = 40.0, pace: float = 1.0) -> Answer:
        """Speak `samples`, ask for the answer, and wait for all of it.

        Answers to earlier utterances that nobody has taken, as after a call that was cancelled,
        are waited for first, and left out. What was said before and has not ended, or whose end
        was refused, is part of this utterance.

        Where the server decides when an utterance is over, this gives the answer to the first that
        was over after it began to speak, by the number of the turn. Answers to others of which all
        came while it spoke are left out.

        Args:
            samples: Mono, 16 kHz.
            chunk_ms: Length of one message, in milliseconds.
            pace: Times real time; 0 sends at once.

        Raises:
            ClientError: The session is over, the server owed an answer for too long, or another
                call takes events.
            ValueError: `chunk_ms` is no length of a chunk, or `pace` is below 0.
        """

        async def send(chunk: Float32) -> None:
            if payload := self._encoder.feed(chunk):
                await self.send_audio(payload)

        with self._one_at_a_time():
            while self.conversation.unanswered:
                await self._take_answer()
            first: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
            listening = asyncio.create_task(self._listen(first, self.conversation.last_turn))
            try:
                await speak(samples, send, chunk_ms=chunk_ms, pace=pace, clock=self._clock)
                await self.end_utterance()
                either: list[asyncio.Future[Any]] = [first, listening]
                with self._awaiting():
                    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                return first.result() if first.done() else listening.result()
            finally:
                await stop(listening)

    async def answer(self) -> Answer:
        """Wait for the rest of the current turn, or for all of the next.

        Whoever waits here says that an answer is due: where nothing goes on for `answer_s`, not
        even an acknowledgement of more speech, the session ends. What a cancelled call had taken
        is given by the next one.

        Raises:
            ClientError: The session is over, the server owed an answer for too long, or another
                call takes events.
        """
        with self._one_at_a_time(), self._awaiting():
            return await self._take_answer()

    async def next_event(self) -> Event:
        """The next thing that the server tells, in order, without a gap and without repetition.

        Waits for as long as the session lives. That ends when the server owes something (an
        acknowledgement of audio, an answer) and gives no sign of progress for `answer_s`.

        Raises:
            ClientError: The session is over, or another call takes events.
        """
        with self._one_at_a_time():
            event = await self.conversation.next_event()
        if settles(event):
            self._coming = Answer()  # the end of its turn went elsewhere
        return event

    async def end(self) -> None:
        """End the session for good: it is not resumed, however the connection ends.

        Raises:
            ClientError: There is no connection, or the server reads nothing.
        """
        self.conversation.require_alive()
        if (socket := self._socket) is None:
            raise ClientError("there is no connection at the moment")
        self._leaving = True
        message, so_far = v1.SessionEnd().encode(), self.conversation.so_far
        with suppress(ConnectionClosed):  # which ends the session as well
            await send_within(socket, message, so_far, self._deadlines.answer_s)
        await hang_up(socket)

    @contextmanager
    def _one_at_a_time(self) -> Iterator[None]:
        """Let no second call take events: each would get parts of what the other waits for."""
        if self._busy:
            raise ClientError("another call takes what this session is told: one turn at a time")
        self._busy = True
        try:
            yield
        finally:
            self._busy = False

    @contextmanager
    def _awaiting(self) -> Iterator[None]:
        """An answer is due, from now on."""
        self.conversation.expect_more()
        self.conversation.awaited = True
        try:
            yield
        finally:
            self.conversation.awaited = False

    async def _listen(self, first: asyncio.Future[Answer], after: int) -> NoReturn:
        """Take answers while somebody speaks, and give the `first` to a turn behind `after`.

        Later ones are taken, too: acknowledgements lie behind events that nobody takes.
        """
        while True:
            answer = await self._take_answer(after)
            if not first.done():
                first.set_result(answer)

    async def _take_answer(self, after: int = 0) -> Answer:
        """The next answer, of those to turns behind number `after`."""
        while True:
            event = await self.conversation.next_event()
            if refuses_end(event):
                return Answer(errors=[event])
            if self._coming.take(event):
                answer, self._coming = self._coming, Answer()
                if answer.turn > after or not answer.turn:  # a gap may leave no number
                    return answer

    # -- over one connection after the other --------------------------------------------------

    async def _run(self) -> None:
        """Keep connected, and say why the session is over once it is."""
        failure = ClientError("the session is over")
        try:
            await self._stay_connected()
        except ProtocolError as wrong:
            failure = ClientError(f"{shown(self.url)} does not keep to labkit.v1: {wrong}")
        except ClientError as error:
            failure = error
        except Exception as fault:  # whatever it is, whoever waits is told
            told = in_words(repr(fault))
            failure = ClientError(f"the session with {shown(self.url)} failed: {told}")
        finally:
            self.conversation.fail(failure)
            self._opened.set()

    async def _stay_connected(self) -> None:
        """Connect again whenever a connection is lost, until the session is over."""
        lost_ns, reason = self._clock.now_ns(), ""
        while True:
            try:
                async with self._dialled() as socket:
                    within_s = min(self._deadlines.start_s, self._tries.left_s)
                    started = await begin(socket, self._opening(), within_s)
                    await self._attach(started, lost_ns, reason)
                    await self._carry(socket, started)
            except Lost as lost:
                # Leaving against losing: where a task of the group has just failed, the group
                # drops the cancellation of its parent, so `connect` has said so beforehand.
                if self._leaving:
                    return
                if not self.lost:  # what follows until there is one are tries to have it back
                    lost_ns, reason = self._clock.now_ns(), str(lost)
                self.lost = str(lost)
                await self._wait(lost)

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
        self._require_agreed(started)
        if self.started is not None:
            away_ns = self._clock.now_ns() - lost_ns
            await self.conversation.hand_on(Interrupted(away_ns / 1e9, reason))
            self.conversation.patience.pause(away_ns / 1e9)
        self.conversation.resume(started.received)
        if started.missing is not None:
            await self.conversation.skip(started.missing)
        self.started, self.lost = started, ""
        self._opened.set()

    def _require_agreed(self, started: v1.SessionStarted) -> None:
        """Make sure that it is the session, and in the formats, that were asked for."""
        asked, missing = self._opening(), started.missing
        if asked.resume is None:
            if started.resumed or missing is not None:
                raise broken("'session.started' says that a session goes on which was to begin")
        elif started.session != asked.resume.session or not started.resumed:
            raise ClientError(
                f"{shown(self.url)} began another session in place of resuming this one"
            )
        elif missing is not None and (
            missing.after != asked.resume.received or not missing.up_to.reaches(missing.after)
        ):
            raise broken("'session.started' names a gap that does not begin where this client is")
        for what, agreed, wanted in (
            ("input", started.input, asked.input),
            ("output", started.output, asked.output),
        ):
            if agreed != wanted:
                told = f"{what} of {agreed.format}; asked was {wanted.format}"
                raise ClientError(f"{shown(self.url)} agreed to {told}")

    async def _carry(self, socket: ClientConnection, started: v1.SessionStarted) -> None:
        """Carry the session over `socket` until it is lost.

        A connection that works gives the next ones all the time for their tries. A server that
        accepts every resume and hangs up at once gives none, and is given up like one that does
        not answer at all.
        """
        conversation, attached_ns = self.conversation, self._clock.now_ns()
        before = conversation.received, conversation.window.base
        self._socket = socket
        try:
            await conversation.carry(socket, started)
        finally:
            self._socket = None
            held_s = (self._clock.now_ns() - attached_ns) / 1e9
            moved = (conversation.received, conversation.window.base) != before
            if moved or held_s >= self._tries.backoff.limit_s:
                self._tries.begin()

    async def _wait(self, lost: Lost) -> None:
        """Wait before the next try, or give up."""
        _log.info("connection lost (%s)", lost)
        if self.started is None or not await self._tries.wait(lost.retry_s):
            raise ClientError(f"no session with {shown(self.url)}: {lost}") from lost

    @asynccontextmanager
    async def _dialled(self) -> AsyncIterator[ClientConnection]:
        deadlines = self._deadlines
        try:
            socket = await dial(
                self.url,
                subprotocol=v1.SUBPROTOCOL,
                within_s=min(deadlines.connect_s, self._tries.left_s),
                max_queue=4,  # what waits in here is not acknowledged, so keep it short
                # A connection that is found dead before an answer over it is overdue is replaced,
                # and the answer comes over the next one.
                keepalive_s=max(_LEAST_KEEPALIVE_S, min(_KEEPALIVE_S, deadlines.answer_s / 3)),
                **self._reach,
            )
        except ConnectError as error:
            if not error.retry or self.started is None:
                raise
            raise Lost(str(error), error.retry_after_s) from error
        try:
            yield socket
        finally:
            await hang_up(socket)
