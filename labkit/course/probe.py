"""What a check is written with: callers that send, expect, and note everything.

A check is a script of steps. Each that holds is told with `Probe.ok`; the first that does not
raises `NotYet`, which says what was expected and what came. ::

    async def odd_frame(probe: Probe) -> None:
        caller = await probe.connect()
        await caller.send(b"abc")
        error = await caller.expect_json("error", code="odd_length")
        probe.ok("refuses three bytes, which are no whole number of samples")
        await caller.send("ping")
        await caller.expect("pong")
        probe.ok("goes on with the same connection")

Whatever a server does, none of the calls here raises anything but `NotYet`.
"""

import asyncio
import json
import random
import time
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx2
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.frames import Close
from websockets.typing import Subprotocol

from labkit.audio.pcm import SAMPLE_RATE, Float32, decode_s16le, encode_s16le, read_audio
from labkit.client.answers import Patience
from labkit.course.evidence import Event
from labkit.course.hosting import Hosted, answers
from labkit.course.verdict import Caret, NotYet
from labkit.measure.recordings import Kind, Recording, load_manifest
from labkit.measure.wer import word_errors

_LABKIT: Final = Path(__file__).parents[1]
MOST_FACTOR: Final = 4.0
"""Limits grow as a machine is slower, up to so many times: nobody waits for minutes."""
_ANSWER_S: Final = 8.0
"""How long anything may take, on the machine that labkit was measured on."""
_HANDSHAKE_S: Final = 2.0
_QUIET_S: Final = 0.1
_WORDS: Final = 5
_DIED_S: Final = 0.5
_NORMAL: Final = 1000
_CLOSES_S: Final = 2.0
_BROKEN: Final = 1006
_LOOK_S: Final = 0.1
_SHORTEST_MS, _LONGEST_MS = 20, 100
_LONGEST_REPLY_S: Final = 60
"""Audio that comes in a row; of the embedded models, a few seconds."""


@dataclass(slots=True)
class Answer:
    """What came for one `end_stream`.

    Attributes:
        transcript: What the server heard.
        pieces: The binary messages of the reply, with the time of each.
        done: The message that ends the turn.
        asked_ns: When `end_stream` went out.
        done_ns: When the turn was over.
        heard: Number of the transcript's event; `last` that of the last event.
        last: Number of the last event.
    """

    transcript: str = ""
    pieces: list[tuple[int, bytes]] = field(default_factory=list)
    done: dict[str, Any] = field(default_factory=dict)
    asked_ns: int = 0
    done_ns: int = 0
    heard: int = 0
    last: int = 0

    @property
    def audio(self) -> bytes:
        """The reply, s16le."""
        return b"".join(piece for _, piece in self.pieces)

    @property
    def samples(self) -> Float32:
        """The reply as float32; a last odd byte is left out."""
        audio = self.audio
        return decode_s16le(audio[: len(audio) // 2 * 2])

    @property
    def reply_text(self) -> str:
        """What the reply says, as far as the server told."""
        return str(self.done.get("reply_text", ""))

    @property
    def seconds(self) -> float:
        """From `end_stream` to the end of the turn."""
        return (self.done_ns - self.asked_ns) / 1e9


class Trial:
    """One check at work: what it draws from, and what held so far.

    Attributes:
        rng: What every input is drawn from.
        factor: How many times as long anything may take as where the limits were written.
        events: Everything that was sent and received.
        held: What held so far, with the time of each.
    """

    def __init__(self, *, seed: int, factor: float = 1.0) -> None:
        self.rng = random.Random(seed)
        self.factor = factor
        self.events: list[Event] = []
        self.held: list[tuple[int, str]] = []

    def ok(self, what: str) -> None:
        """Note that a step held."""
        self.held.append((time.perf_counter_ns(), what))

    def limit(self, seconds: float) -> float:
        """Seconds on the machine that labkit was measured on, in seconds of this one."""
        return seconds * self.factor

    def call(self, function: Any, *arguments: Any, expected: str) -> Any:
        """What a function of the learner's gives; whatever it raises is no fault of ours.

        Args:
            function: The function.
            arguments: What it is called with.
            expected: What it should give, for people.
        """
        if not callable(function):
            told = f"{function!r}"[:60]
            raise NotYet("a function: its name, without parentheses behind it", told)
        try:
            return function(*arguments)
        except Exception as error:
            at = traceback.extract_tb(error.__traceback__)[-1]
            # A line of labkit's own, which looked at what came, would not lead anywhere.
            ours = Path(at.filename).is_relative_to(_LABKIT)
            place = "" if ours else f" (line {at.lineno}, in {at.name})"
            raise NotYet(expected, f"{type(error).__name__}: {error}{place}") from error

    def number(
        self, given: Any, true: float, close: float, *, expected: str, unit: str = ""
    ) -> None:
        """Make sure that what a function gave is a number within `close` of the true one."""
        try:
            number = float(given)
        except (TypeError, ValueError):
            raise NotYet(expected, f"{given!r}, which is no number") from None
        if not abs(number - true) <= close:  # NaN is not close to anything either
            unit = f" {unit}" if unit else ""
            raise NotYet(expected, f"{number:.3f}{unit}", off=f"{number - true:+.3f}{unit}")

    def draw(
        self,
        count: int,
        which: Callable[[Recording], bool] = lambda _: True,
        *,
        words: int = _WORDS,
    ) -> list[Recording]:
        """Different recordings of one sentence each, of that many `words` or more.

        Of sentences of less than five, the embedded recogniser may mishear more than half.
        """
        known = load_manifest()
        fit = [r for r in known if r.kind is Kind.UTTERANCE and len(r.text.split()) >= words]
        return self.rng.sample([recording for recording in fit if which(recording)], count)


def halves(said: Recording) -> tuple[Float32, Float32]:
    """The samples of a recording, in two parts."""
    samples = read_audio(said.path)
    return samples[: len(samples) // 2], samples[len(samples) // 2 :]


class Probe(Trial):
    """A check at work on a server.

    Attributes:
        server: The server.
        stack: What is closed with the check.
    """

    def __init__(self, server: Hosted, *, seed: int, factor: float, stack: AsyncExitStack) -> None:
        super().__init__(seed=seed, factor=factor)
        self.server = server
        self.stack = stack
        self._clients = 0

    async def connect(self, path: str = "/?reply=stream", *, protocol: str = "") -> "Caller":
        """Connect one more client; it is closed with the check.

        Args:
            path: Path and query of the address.
            protocol: Subprotocols to offer, such as ``"labkit.v1"``; several with spaces between.
        """
        return await self.stack.enter_async_context(self.caller(path, protocol=protocol))

    @asynccontextmanager
    async def caller(
        self, path: str = "/?reply=stream", *, protocol: str = "", url: str = ""
    ) -> AsyncIterator["Caller"]:
        """The same for the length of a block; `url` is that of a proxy before the server."""
        self._clients += 1
        socket = await self._dial((url or self.server.url).rstrip("/") + path, protocol)
        caller = Caller(self, socket, self._clients)
        reading = asyncio.create_task(caller.read())
        try:
            yield caller
        finally:
            await socket.close()
            await asyncio.gather(reading, return_exceptions=True)

    async def _dial(self, address: str, protocol: str) -> ClientConnection:
        asked = [Subprotocol(one) for one in protocol.split()] or None
        limit_s = self.limit(_ANSWER_S)
        try:
            return await connect(
                address,
                subprotocols=asked,
                compression=None,
                max_size=None,
                ping_interval=None,
                open_timeout=limit_s,
                close_timeout=1,
                proxy=None,
            )
        except TimeoutError as error:
            raise await self.blocked(f"client {self._clients} to be connected") from error
        except (OSError, WebSocketException) as error:
            raise NotYet(
                f"client {self._clients} to be connected",
                self.died() or f"no WebSocket came about: {str(error) or type(error).__name__}",
            ) from error

    async def page(self, path: str) -> str:
        """The text of a page that the server gives over plain HTTP, on the same port."""
        address = self.server.url.replace("ws", "http", 1).rstrip("/")
        wanted = f"a page {path}, over plain HTTP"
        try:
            async with httpx2.AsyncClient(timeout=self.limit(_ANSWER_S), trust_env=False) as client:
                response = await client.get(address + path)
        except httpx2.HTTPError as error:
            await self.until_dead()
            why = self.died() or f"no answer to GET {path}: {str(error) or type(error).__name__}"
            if isinstance(error, httpx2.TimeoutException):
                raise await self.late(wanted, why) from error
            raise NotYet(wanted, why) from error
        if not response.is_success:
            status = f"HTTP status {response.status_code}, {response.reason_phrase}"
            raise NotYet(wanted, status, event=self.happened(1, f"GET {path}: {status}"))
        return response.text

    async def late(self, expected: str, observed: str) -> NotYet:
        """What to raise where nothing came in time; where nobody is answered, it says so."""
        if await answers(self.server.url, self.limit(_HANDSHAKE_S)):
            return NotYet(expected, observed, late=True)
        return await self.blocked(expected, f"{observed}, and ")

    async def blocked(self, expected: str, observed: str = "") -> NotYet:
        """What to raise where a new connection is not answered."""
        if not (why := self.died()):
            at = await self.server.stuck_at()
            why = f"{observed}no answer to a new connection: the event loop of your server is "
            why += f"blocked, at {at}" if at else "blocked"
        return NotYet(expected, why, late=True)

    def died(self) -> str:
        """How the server ended; empty while it lives, as far as anybody can know."""
        return self.server.ended()

    async def until_dead(self) -> None:
        """Wait until the server is seen to have ended, or for a moment where it has not."""
        deadline_s = time.monotonic() + _DIED_S
        while not (self.died() or time.monotonic() > deadline_s):  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    def happened(self, client: int, what: str) -> int:
        """Keep what the server did that is no message; gives its number."""
        return self.note(Event(time.perf_counter_ns(), client, False, None, what))

    def note(self, event: Event) -> int:
        """Keep an event; gives its number."""
        self.events.append(event)
        return self.last

    @property
    def last(self) -> int:
        """Number of the last event."""
        return len(self.events) - 1

    def require_heard(
        self, said: Recording, answer: Answer, *, share: float = 0.5, when: str = ""
    ) -> None:
        """Make sure that an answer's transcript has enough of the words that were said.

        Recognisers mishear; `share` of the words may be wrong. `when` tells what else matters.
        """
        wrong, words = word_errors(said.text, answer.transcript)
        if wrong <= share * words:
            return
        raise NotYet(
            f'a transcript of "{said.text}" ({said.name}){when}',
            f'"{answer.transcript}"' if answer.transcript else "an empty transcript",
            off=f"{wrong} wrong, of {words} words",
            event=answer.heard,
        )


class Caller:
    """One client, connected.

    Attributes:
        number: Which one, from 1.
        subprotocol: What the server has chosen.
        bytes_per_second: Of the audio that comes.
    """

    def __init__(self, probe: Probe, socket: ClientConnection, number: int) -> None:
        self.number = number
        self.subprotocol = socket.subprotocol
        self.bytes_per_second = 2 * SAMPLE_RATE
        self._reply_bytes = 0
        self._patience: Patience | None = None
        self._probe = probe
        self._socket = socket
        self._inbox: asyncio.Queue[int | None] = asyncio.Queue()
        self._closed: int | None = None

    async def read(self) -> None:
        """Note when each message comes; runs until the connection ends."""
        try:
            while True:
                message = await self._socket.recv()
                self._inbox.put_nowait(self._note(sent=False, payload=message))
        except ConnectionClosed as closed:
            if closed.rcvd_then_sent is not False and self._closed is None:  # not by this client
                self._closed = self._note(sent=False, what=_why(closed.rcvd))
        finally:
            self._inbox.put_nowait(None)

    def _note(self, *, sent: bool, payload: str | bytes | None = None, what: str = "") -> int:
        return self._probe.note(Event(time.perf_counter_ns(), self.number, sent, payload, what))

    async def send(self, message: str | bytes) -> int:
        """Send a message as it is; gives the time.

        Where the connection has ended, nothing is sent, and the next thing that is expected says
        so: whether a server is noticed to be gone while sending is a matter of chance.
        """
        self._note(sent=True, payload=message)
        sent_ns = time.perf_counter_ns()
        try:
            async with asyncio.timeout(self._probe.limit(_ANSWER_S)):
                with suppress(ConnectionClosed):
                    await self._socket.send(message)
        except TimeoutError:
            what = repr(message) if isinstance(message, str) else f"{len(message):,} bytes"
            wanted = f"the server to take {what}"
            raise await self._probe.late(wanted, "that it reads nothing any more") from None
        return sent_ns

    async def send_json(self, kind: str, **fields: Any) -> int:
        """Send a JSON message of that `type`; gives the time."""
        return await self.send(json.dumps({"type": kind, **fields}))

    async def say(self, what: Recording | Float32, *, chunk_ms: float | None = None) -> None:
        """Send audio in chunks, as fast as they are taken; their length is drawn."""
        samples = read_audio(what.path) if isinstance(what, Recording) else what
        chunk_ms = chunk_ms or self._probe.rng.randint(_SHORTEST_MS, _LONGEST_MS)
        size = round(chunk_ms * SAMPLE_RATE / 1000)
        for start in range(0, len(samples), size):
            await self.send(encode_s16le(samples[start : start + size]))

    async def next(self, expected: str, *, within_s: float = _ANSWER_S) -> Event:
        """The next message, whatever it is.

        Args:
            expected: What should come, for people.
            within_s: How long it may take, on the machine that labkit was measured on.
        """
        return self._probe.events[await self.next_number(expected, within_s)]

    async def next_number(self, expected: str, within_s: float = _ANSWER_S) -> int:
        """The same, and gives the event's number."""
        number = await self.number_or_end(expected, within_s)
        if number is None:
            await self._until_dead()
            raise self._lost(expected)
        return number

    async def number_or_end(self, expected: str, within_s: float = _ANSWER_S) -> int | None:
        """The same; None where the connection has ended instead."""
        limit_s = self._probe.limit(within_s)
        deadline_s = time.monotonic() + limit_s
        lost = False
        while (number := await self._within(_LOOK_S)) is None and not lost:
            if time.monotonic() > deadline_s:
                raise await self._probe.late(expected, f"nothing within {limit_s:.0f} s")
            lost = self._is_lost()  # and then looks once more: what came before the end counts
        if number is not None:
            self._require_an_end(number)
            await self._require_pace(number)
        return number

    def _require_an_end(self, number: int) -> None:
        """Make sure that audio does not come for ever, since a check would wait for its end."""
        payload = self._probe.events[number].payload
        self._reply_bytes = self._reply_bytes + len(payload) if isinstance(payload, bytes) else 0
        if self._reply_bytes > _LONGEST_REPLY_S * self.bytes_per_second:
            raise NotYet(
                f"a reply that ends, and has {_LONGEST_REPLY_S} s of audio at most",
                f"more than {_LONGEST_REPLY_S} s of audio in a row, and no end to it",
                event=number,
            )

    async def _require_pace(self, number: int) -> None:
        """Make sure that audio does not drip: each piece has the whole limit, all of it one."""
        event, limit_s = self._probe.events[number], self._probe.limit(_ANSWER_S)
        if not isinstance(event.payload, bytes):
            self._patience = None
            return
        now_s = event.at_ns / 1e9
        self._patience = self._patience or Patience(limit_s, now_s)
        self._patience.hear(len(event.payload) / self.bytes_per_second, now_s)
        if now_s > self._patience.due_s:
            slow = f"audio that was late by more than {limit_s:.0f} s"
            raise await self._probe.late("a reply that comes as fast as it plays", slow)

    async def _within(self, seconds: float) -> int | None:
        """The number of the next message; None where none comes in time, or ever."""
        try:
            async with asyncio.timeout(seconds):
                number = await self._inbox.get()
        except TimeoutError:
            return None
        if number is None:
            self._inbox.put_nowait(None)  # for whoever asks next
        return number

    def _is_lost(self) -> bool:
        """Whether the connection has ended, or its end was told.

        A server says that it closes, and then waits until it has read what is still on its way;
        where it reads no more, that takes ten seconds.
        """
        if self._closed is None and (told := self._socket.protocol.close_rcvd) is not None:
            self._closed = self._note(sent=False, what=_why(told))
        return self._closed is not None or bool(self._probe.died())

    async def _until_dead(self) -> None:
        """A server that fails may close its connections a moment before it is gone.

        It may also say why only when the connection is gone, so this end lets go of it.
        """
        told = self._socket.protocol.close_rcvd
        if told is not None and told.code == _NORMAL:
            return
        self.drop()
        await self._probe.until_dead()

    def _lost(self, expected: str) -> NotYet:
        closed = self._closed
        why = self._probe.events[closed].what if closed is not None else "the connection is gone"
        return NotYet(expected, self._probe.died() or why, event=closed)

    async def expect(self, text: str) -> int:
        """Make sure that the next message is this text; gives the time at which it came."""
        number = await self.next_number(f"text {text!r}")
        event = self._probe.events[number]
        if event.payload != text:
            raise self._other(f"text {text!r}", number)
        return event.at_ns

    async def expect_quiet(self, why: str) -> None:
        """Make sure that nothing more comes for a moment."""
        if (number := await self._within(self._probe.limit(_QUIET_S))) is not None:
            raise self._other(f"no message, {why}", number)
        if self._is_lost():
            raise self._lost(f"no message, {why}")

    async def expect_json(self, kind: str, **fields: Any) -> dict[str, Any]:
        """Make sure that the next message is a JSON object of that `type`, with these fields.

        Args:
            kind: Its `type`.
            fields: What else has to be in it; `...` stands for any value. More may be in it.
        """
        wanted = {"type": kind, **fields}
        told = f"JSON {_told(wanted)}"
        number = await self.next_number(told)
        message = self.json_of(number, told)
        self.require_fields(number, message, wanted)
        return message

    def json_of(self, number: int, expected: str) -> dict[str, Any]:
        """The event of that number as a JSON object with a `type`."""
        text = self._probe.events[number].payload
        if not isinstance(text, str):
            raise self._other(expected, number)
        try:
            message = json.loads(text)
        except ValueError as error:
            if not text.lstrip().startswith(("{", "[")):  # it was never meant to be JSON
                raise self._other(expected, number) from None
            at = Caret.in_text(text, getattr(error, "pos", 0), 1, "this is no JSON")
            raise self._other(expected, number, at) from None
        except RecursionError:
            raise self._other(expected, number) from None
        if not isinstance(message, dict) or not isinstance(message.get("type"), str):
            where = text if isinstance(message, dict) else ""
            caret = Caret.in_json(where, "type", 'a "type" belongs here') if where else None
            raise self._other(expected, number, caret)
        return message

    def require_fields(self, number: int, message: dict[str, Any], wanted: dict[str, Any]) -> None:
        """Make sure that a message has what is wanted.

        `...` stands for any value, `str` for any text that is not empty, `int` for any number.
        """
        text = str(self._probe.events[number].payload)
        for key, value in wanted.items():
            if key not in message:
                note = f'"{key}" is missing'
            elif isinstance(value, type):
                if isinstance(message[key], value) and message[key] != "":
                    continue
                note = f"a {'text' if value is str else 'whole number'} belongs here"
            elif value is not ... and message[key] != value:
                note = f"expected {json.dumps(value)}"
            else:
                continue
            caret = Caret.in_json(text, key, note)
            raise self._other(f"JSON {_told(wanted)}", number, caret)

    def _other(self, expected: str, number: int, caret: Caret | None = None) -> NotYet:
        """What to raise where another message came than the expected one."""
        match self._probe.events[number].payload:
            case str(text):
                observed = "text" if caret else f"text {text[:60]!r}"
            case bytes(data):
                observed = f"a binary message of {len(data):,} bytes"
            case _:
                observed = "the end of the connection"
        return NotYet(expected, observed, caret=caret, event=number)

    async def end(self) -> Answer:
        """Send `end_stream`, and take in everything up to `done`."""
        answer = Answer(asked_ns=await self.send("end_stream"))
        await self.take_answer(answer)
        return answer

    async def ask(self, what: Recording | Float32) -> Answer:
        """Say something, and give the whole answer."""
        await self.say(what)
        return await self.end()

    async def take_answer(self, answer: Answer) -> None:
        """Take in what is left of an answer: a transcript, audio, and `done`."""
        heard, passed = False, ""
        while True:
            expected = f"JSON {_told({'type': 'done' if heard else 'transcript'})}{passed}"
            number = await self.next_number(expected)
            event = self._probe.events[number]
            answer.last, answer.done_ns = number, event.at_ns
            if isinstance(event.payload, bytes):
                if not heard:
                    raise self._too_soon(answer, number, passed)
                answer.pieces.append((event.at_ns, event.payload))
                continue
            message = self.json_of(number, expected)
            match message["type"]:
                case "transcript":
                    self.require_fields(number, message, {"type": "transcript", "text": ...})
                    answer.transcript, answer.heard, heard = str(message["text"]), number, True
                case "done" if heard:
                    answer.done = message
                    return
                case "done":
                    raise self._too_soon(answer, number, passed)
                case other:  # clients pass over what they do not know, but it may be mistyped
                    passed = f" (JSON of type {json.dumps(other)} was passed over)"

    def _too_soon(self, answer: Answer, number: int, passed: str) -> NotYet:
        """What to raise where a reply comes before its transcript, or outside of any turn."""
        if self._probe.events[number].at_ns < answer.asked_ns:
            expected = "nothing more behind `done`, until the next `end_stream`"
        else:
            told = _told({"type": "transcript"})
            expected = f"JSON {told} before anything of the reply{passed}"
        return self._other(expected, number)

    async def closed(self) -> Close | None:
        """What the server closed the connection with; None where it does not close it.

        That is code 1006 where it broke off without a closing message. Messages that come before
        are passed over.
        """
        deadline_s = time.monotonic() + self._probe.limit(_CLOSES_S)
        while not self._is_lost() and time.monotonic() < deadline_s:
            await self._within(_LOOK_S)
        broken = Close(_BROKEN, "") if self._is_lost() else None
        return self._socket.protocol.close_rcvd or broken

    async def close(self) -> None:
        """Hang up."""
        await self._socket.close()

    def drop(self) -> None:
        """Go away without a word, as a phone without a network does."""
        self._socket.transport.abort()


def _told(fields: dict[str, Any]) -> str:
    shown = ", ".join(
        f"{json.dumps(key)}: {'…' if value in (..., str, int) else json.dumps(value)}"
        for key, value in fields.items()
    )
    return "{" + shown + ", …}"


def _why(told: Close | None) -> str:
    if told is None:
        return "the connection broke off (1006), without a closing message"
    reason = f", {told.reason}" if told.reason else ""
    return f"the server closed the connection: {told.code}{reason}"
