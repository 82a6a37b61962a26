"""A client of labkit.v1, in any format, that counts what it sends and gets: so it can resume.

A stream consists of audio and of numbered messages; a position counts both. The client keeps
everything, and so sees whether what comes again is what came before. It speaks the subset that the
course builds (`notebooks/masters/README.md`), and passes over what the whole dialect has besides.
"""

import random
from typing import Any, Final, Self

from labkit.audio.formats import WIRE, AudioFormat, StreamEncoder
from labkit.audio.pcm import Float32, decode_s16le, read_audio
from labkit.course.probe import Answer, Caller, Probe
from labkit.course.verdict import Caret, NotYet
from labkit.measure.recordings import Recording
from labkit.protocol.v1 import SUBPROTOCOL, AudioSpec

_SHORTEST_MS, _LONGEST_MS = 20, 100
_OFTEN: Final = 0.1
_FINDINGS: Final = ("audio_too_fast", "not_understood", "rate_mismatch")
"""Errors that are remarks: nothing was refused."""
_PASSED_OVER: Final = (
    "audio.ack",
    "response.started",
    "response.text",
    "speech.started",
    "speech.stopped",
    "transcript.partial",
)
"""What a server may tell besides."""


class Conversation:
    """One session, over as many connections as it takes.

    Attributes:
        caller: The connection that it has now, or had last.
        input: The format in which it speaks.
        output: The format that it wants to hear.
        session: Name of the session.
        token: The newest token.
        started: The last `session.started`.
        place: The server's position in this client's stream, as that told it.
        came: The audio that came, all of it.
        sent: The audio that was sent.
        acknowledged: The position up to which the server has said that it has everything.
        last_ack: Number of the event that said so.
        turns: How many `response.done` came.
    """

    def __init__(
        self, probe: Probe, caller: Caller, input: AudioFormat = WIRE, output: AudioFormat = WIRE
    ) -> None:
        self.caller = caller
        self.input = input
        self.output = output
        self._probe = probe
        # Of its own: how often it is asked depends on when messages come.
        self._rng = random.Random(probe.rng.random())
        self.session = self.token = ""
        self.started: dict[str, Any] = {}
        self.place: dict[str, int] = {"messages": 0, "samples": 0}
        self.acknowledged = self.place
        self.last_ack: int | None = None
        self.turns = 0
        self.came = bytearray()
        self.sent = bytearray()
        self._ends: list[int] = []  # lengths of `sent` at each `audio.end`
        self._told: list[tuple[int, dict[str, Any]]] = []  # numbered messages, and audio before
        self._safe = 0  # length of `came` that the server was told of
        self._again = bytearray()  # audio that came once, and has to come again as it was

    @classmethod
    async def connect(
        cls, probe: Probe, input: AudioFormat = WIRE, output: AudioFormat = WIRE, *, url: str = ""
    ) -> Self:
        """Connect, and make sure that the server agrees to the dialect; nothing begins yet.

        Args:
            probe: The check that it is for, which closes the connection.
            input: The format in which it speaks.
            output: The format that it wants to hear.
            url: Where to connect, if not to the server itself.
        """
        return cls(probe, await _connected(probe, url), input, output)

    @classmethod
    async def begin(
        cls,
        probe: Probe,
        input: AudioFormat = WIRE,
        output: AudioFormat = WIRE,
        *,
        url: str = "",
        **fields: Any,
    ) -> Self:
        """The same, and begin a session; `fields` are what else `session.start` has."""
        talk = await cls.connect(probe, input, output, url=url)
        await talk.start(**fields)
        return talk

    async def start(self, **fields: Any) -> dict[str, Any]:
        """Begin a session in its formats; gives `session.started`."""
        ours = {
            name: AudioSpec.of(form).model_dump(mode="json")
            for name, form in (("input", self.input), ("output", self.output))
        }
        await self.caller.send_json("session.start", **{**ours, **fields})
        wanted = {"protocol": SUBPROTOCOL, "resumed": False, **ours}
        number, message = await self.expect_at("session.started", **wanted)
        self._start(number, message)
        return message

    def _start(self, number: int, message: dict[str, Any]) -> None:
        self.caller.require_fields(number, message, {"session": str, "token": str})
        self.started, self.place = message, self._place_in(number, message)
        self.caller.bytes_per_second = self.output.bytes_per_second
        self.session, self.token = message["session"], message["token"]

    @property
    def received(self) -> dict[str, int]:
        """How far this client is in the server's stream."""
        return {"messages": len(self._told), "samples": self._samples(len(self.came))}

    def _samples(self, size: int) -> int:
        return size // self.output.frame_bytes

    @property
    def ended(self) -> int:
        """How many utterances this client has ended."""
        return len(self._ends)

    @property
    def sent_samples(self) -> int:
        """How many samples this client has sent, each once."""
        return len(self.sent) // self.input.frame_bytes

    # -- what it says ----------------------------------------------------------------------

    async def say(self, what: Recording | Float32, *, chunk_ms: float | None = None) -> None:
        """Send audio, in chunks of a drawn length."""
        await self.say_bytes(self.encoded(what), chunk_ms=chunk_ms)

    def encoded(self, what: Recording | Float32) -> bytes:
        """What it says, as bytes of its format."""
        samples = read_audio(what.path) if isinstance(what, Recording) else what
        encoder = StreamEncoder(self.input)
        return encoder.feed(samples) + encoder.flush()

    async def say_bytes(self, data: bytes, size: int = 0, *, chunk_ms: float | None = None) -> None:
        """Send audio that is encoded already, in chunks of `size` bytes; 0 draws it."""
        self.sent += data
        await self._send_audio(data, size, chunk_ms)

    async def _send_audio(
        self, data: bytes | bytearray, size: int = 0, chunk_ms: float | None = None
    ) -> None:
        chunk_ms = chunk_ms or self._rng.randint(_SHORTEST_MS, _LONGEST_MS)
        size = size or self.input.samples(chunk_ms / 1000) * self.input.frame_bytes
        for start in range(0, len(data), size):
            await self.caller.send(bytes(data[start : start + size]))

    async def end(self) -> None:
        """The utterance is over."""
        self._ends.append(len(self.sent))
        await self.caller.send_json("audio.end")

    async def acknowledge(self) -> None:
        """Tell the server what came."""
        self._safe = len(self.came)
        await self.caller.send_json("response.ack", received=self.received)

    # -- what it hears ---------------------------------------------------------------------

    async def ask(
        self,
        what: Recording | Float32,
        about: Recording | None = None,
        *,
        chunk_ms: float | None = None,
    ) -> Answer:
        """Say something; gives its answer, whose transcript has its words.

        Args:
            what: What is said.
            about: The recording whose words have to be heard; by default `what`.
            chunk_ms: Length of a chunk; drawn where it is not given.
        """
        await self.say(what, chunk_ms=chunk_ms)
        answer = await self.finish()
        said = about or what
        assert isinstance(said, Recording)
        self._probe.require_heard(said, answer)
        return answer

    async def finish(self) -> Answer:
        """The utterance is over; gives its answer."""
        await self.end()
        return await self.answer()

    async def answer(self) -> Answer:
        """Take in a turn: a transcript, audio, and `response.done`, and nothing else."""
        answer = Answer()
        answer.heard, final = await self.expect_at("transcript.final", text=...)
        answer.transcript = str(final["text"])
        expected = "audio, or JSON of type 'response.done'"
        while True:
            answer.last, told = await self.next(expected)
            if not isinstance(told, bytes):
                break
            answer.pieces.append((self._probe.events[answer.last].at_ns, told))
        if told["type"] == "error":
            self._look_at(answer.last, told, expected)
        answer.done = told
        wanted = {
            "type": "response.done",
            "turn": final["turn"],
            "status": "completed" if answer.transcript else "nothing_heard",
            "text": ...,
        }
        self.caller.require_fields(answer.last, told, wanted)
        return answer

    async def next(self, expected: str) -> tuple[int, dict[str, Any] | bytes]:
        """The next message that is not passed over, with the number of its event."""
        while True:
            number = await self.caller.next_number(expected)
            if (message := self._take(number, expected)) is None:
                payload = self._probe.events[number].payload
                assert isinstance(payload, bytes)
                return number, payload
            if message["type"] not in _PASSED_OVER and message.get("code") not in _FINDINGS:
                return number, message

    async def expect(self, kind: str, **fields: Any) -> dict[str, Any]:
        """Make sure that the next message is of that `type`, with these fields.

        Args:
            kind: Its `type`.
            fields: What else has to be in it; `...` stands for any value, a type for one of it.
        """
        return (await self.expect_at(kind, **fields))[1]

    async def expect_at(self, kind: str, **fields: Any) -> tuple[int, dict[str, Any]]:
        """The same, with the number of the event."""
        expected = f"JSON of type {kind!r}"
        number, message = await self.next(expected)
        if isinstance(message, bytes):
            binary = f"a binary message of {len(message):,} bytes"
            raise NotYet(expected, binary, event=number)
        if message["type"] == "error" and kind != "error":
            self._look_at(number, message, expected)
        self.caller.require_fields(number, message, {"type": kind, **fields})
        return number, message

    async def transcript_of(self, what: Recording) -> str:
        """Say something, whatever is heard of it; gives that, when it was answered."""
        await self.say(what)
        await self.end()
        await self.until("response.done")
        return self.heard

    async def until(
        self, kind: str, *, acknowledging: bool = False, errors: bool = False
    ) -> list[dict[str, Any]]:
        """Take in everything up to a message of that `type`; gives the messages.

        Args:
            kind: Its `type`.
            acknowledging: Acknowledge each piece of audio.
            errors: Take in errors, too; otherwise one that is no mere finding is a fault.
        """
        told: list[dict[str, Any]] = []
        expected = f'JSON {{"type": "{kind}", …}}'
        while not told or told[-1]["type"] != kind:
            number = await self.caller.next_number(expected)
            if (message := self._take(number, expected)) is not None:
                told.append(message)
                if message["type"] == "error" and not errors:
                    self._look_at(number, message, expected)
            elif acknowledging:
                await self.acknowledge()
        return told

    def _look_at(self, number: int, message: dict[str, Any], expected: str) -> None:
        if (code := message.get("code")) not in _FINDINGS:
            raise NotYet(
                expected,
                f'the error "{code}": {message.get("message")}',
                event=number,
            )

    async def take_one(self, expected: str) -> None:
        """Take in one message, whatever it is; `expected` is for people."""
        self._take(await self.caller.next_number(expected), expected)

    async def settle(self) -> None:
        """Send `ping`, and take in everything up to its `pong`."""
        await self.caller.send_json("ping")
        await self.until("pong")

    async def take_turn(self, said: Recording, turns: int) -> bool:
        """Take in what comes until that many turns are done; False where the connection broke.

        Some of it is acknowledged, and the words of the last one have to be those of `said`.
        """
        if not await self.take_in(turns, acknowledging=_OFTEN):
            return False
        self.require_heard(said)
        return True

    async def take_in(self, turns: int, *, acknowledging: float = 0.0) -> bool:
        """The same, whatever the words are; acknowledges a share of the messages."""
        while self.turns < turns:
            at = self.received
            expected = f'what lies behind "seq" {at["messages"]} and sample {at["samples"]}'
            if (number := await self.caller.number_or_end(expected)) is None:
                return False
            message = self._take(number, expected)
            if message is not None and message["type"] == "error":
                self._look_at(number, message, expected)
            if self._rng.random() < acknowledging:
                await self.acknowledge()
        return True

    @property
    def heard(self) -> str:
        """The last transcript."""
        return str(self._latest("transcript.final").get("text", ""))

    @property
    def done(self) -> dict[str, Any]:
        """The last `response.done`; empty where none came."""
        return self._latest("response.done")

    def _latest(self, kind: str) -> dict[str, Any]:
        return next((one for _, one in reversed(self._told) if one["type"] == kind), {})

    @property
    def sent_audio(self) -> Float32:
        """What this client has said."""
        return decode_s16le(bytes(self.sent))

    def require_heard(self, said: Recording, why: str = "") -> None:
        """Make sure that the last transcript has enough of the words.

        Args:
            said: The recording that was said.
            why: What to say besides, where it has not.
        """
        latest = Answer(transcript=self.heard, heard=self._probe.last)
        self._probe.require_heard(said, latest, when=why)

    def _take(self, number: int, expected: str) -> dict[str, Any] | None:
        """Count what came; gives it where it is a message."""
        payload = self._probe.events[number].payload
        if isinstance(payload, bytes):
            self._take_audio(number, payload)
            return None
        message = self.caller.json_of(number, expected)
        if message["type"] in ("transcript.final", "response.done"):
            self.caller.require_fields(number, message, {"seq": int, "turn": int})
        if message.get("seq") is not None:
            self._number(number, message)
        if message["type"] == "audio.ack":
            self.acknowledged, self.last_ack = self._place_in(number, message), number
        return message

    def _place_in(self, number: int, message: dict[str, Any]) -> dict[str, int]:
        """The position that a message tells in `received`."""
        self.caller.require_fields(number, message, {"received": ...})
        told = message["received"]
        if isinstance(told, dict):
            messages, samples = told.get("messages", 0), told.get("samples", 0)
            if isinstance(messages, int) and isinstance(samples, int):
                return {"messages": messages, "samples": samples}
        note = 'expected {"messages": …, "samples": …}, two whole numbers'
        raise NotYet(
            f'a position in "received" of "{message["type"]}"',
            "something else",
            caret=Caret.in_json(str(self._probe.events[number].payload), "received", note),
            event=number,
        )

    def _take_audio(self, number: int, payload: bytes) -> None:
        if len(payload) % self.output.frame_bytes:
            whole = f"whole samples of {self.output} in each binary message"
            raise NotYet(whole, f"a binary message of {len(payload):,} bytes", event=number)
        again = self._again[: len(payload)]
        if again != payload[: len(again)]:
            at = next(i for i, (a, b) in enumerate(zip(again, payload, strict=False)) if a != b)
            raise NotYet(
                "the same audio again behind the place from which the client resumed",
                f"other audio, from sample {self._samples(len(self.came) + at)} on",
                caret=Caret.in_bytes(payload, at, 1, "not what came first"),
                event=number,
            )
        del self._again[: len(payload)]
        self.came += payload

    def _number(self, number: int, message: dict[str, Any]) -> None:
        """A numbered message: no number is left out, and none comes twice."""
        if (seq := message["seq"]) != (due := len(self._told) + 1):
            text = str(self._probe.events[number].payload)
            raise NotYet(
                f'"seq": {due}, the next number',
                f'"seq": {seq} in "{message["type"]}"',
                caret=Caret.in_json(text, "seq", f"expected {due}"),
                event=number,
            )
        if message["type"] == "response.done":
            self._require_samples(number, message)
            self.turns += 1
        self._told.append((len(self.came), message))

    def _require_samples(self, number: int, message: dict[str, Any]) -> None:
        """The samples of a turn that came are those that the server says it has sent."""
        done = [at for at, one in self._told if one["type"] == "response.done"]
        came = self._samples(len(self.came) - (done[-1] if done else 0))
        told = message.get("samples")
        if told != came:
            raise NotYet(
                f'"samples": {came}, what came of this turn',
                f'"samples": {told}',
                off=_too_much(told, came),
                event=number,
            )

    # -- when the connection is lost -------------------------------------------------------

    async def resume(self, *, token: str = "", url: str = "") -> dict[str, Any]:
        """Connect again, and go on; gives `session.started`."""
        self.caller = await _connected(self._probe, url)
        resume = {
            "session": self.session,
            "token": token or self.token,
            "received": self.received,
        }
        await self.caller.send_json("session.start", resume=resume)
        self._safe = len(self.came)
        expected = 'JSON {"type": "session.started", …}'
        number = await self.caller.next_number(expected)
        message = self.caller.json_of(number, expected)
        if message["type"] == "error":
            self._look_at(number, message, expected)
        wanted = {"type": "session.started", "resumed": True}
        self.caller.require_fields(number, message, wanted)
        if message.get("session") != self.session:
            raise NotYet('"session": the one that was asked for', "another one", event=number)
        self._start(number, message)
        self._require_possible(number)
        return message

    def _require_possible(self, number: int) -> None:
        """The server has what it has acknowledged, and nothing that was never sent."""
        at = self.place
        sent = {"messages": self.ended, "samples": self.sent_samples}
        for key, most in sent.items():
            least = self.acknowledged[key]
            if not least <= at[key] <= most:
                between = (
                    f"between {least}, which was acknowledged, and {most}, which was sent"
                    if least < most
                    else f"{most}, which was sent and acknowledged"
                )
                raise NotYet(
                    f'"{key}" in "received": {between}',
                    f'"{key}": {at[key]}',
                    off=self.off_by(at[key], most) if key == "samples" else "",
                    event=number,
                )

    def off_by(self, told: int, sent: int) -> str:
        """What is wrong with a count of the samples that were sent, where that can be told."""
        counts_bytes = told == sent * self.input.frame_bytes > sent
        return "it counts bytes, not samples" if counts_bytes else ""

    def forget(self) -> None:
        """Go back to a drawn place behind the last acknowledgement, as if no more had come."""
        keep = self._rng.randint(self._safe, len(self.came))
        keep -= keep % self.output.frame_bytes
        kept = sum(at <= keep for at, _ in self._told)
        self._again = self.came[keep:] + self._again
        self.turns -= sum(one["type"] == "response.done" for _, one in self._told[kept:])
        del self._told[kept:], self.came[keep:]

    async def send_again(self) -> None:
        """Send what lies behind the server's position: audio, and `audio.end` in its places."""
        at = self.place["samples"] * self.input.frame_bytes
        for end in self._ends[self.place["messages"] :]:
            await self._send_audio(self.sent[at:end])
            await self.caller.send_json("audio.end")
            at = end
        await self._send_audio(self.sent[at:])


async def _connected(probe: Probe, url: str) -> Caller:
    """One more connection, with the server's agreement to the dialect."""
    opening = probe.caller("/", protocol=SUBPROTOCOL, url=url)
    caller = await probe.stack.enter_async_context(opening)
    if caller.subprotocol != SUBPROTOCOL:
        raise NotYet(
            f"the server to choose the subprotocol {SUBPROTOCOL}",
            "that it chose none of those offered",
            event=probe.happened(caller.number, "connected, without a subprotocol"),
        )
    return caller


def _too_much(told: object, came: int) -> str:
    if not isinstance(told, int) or not told:  # where none was counted, none was lost
        return ""
    return f"{abs(told - came)} samples " + ("lost" if told > came else "repeated")
