"""A client of labkit.v1 that counts what it sends and what it gets, so that it can resume.

For the checks of what survives a connection. A stream consists of audio and of numbered messages;
a position counts both. The client keeps everything, and so sees whether what comes again is what
came before.
"""

import random
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any, Self

from labkit.audio.pcm import Float32, decode_s16le, encode_s16le, read_audio
from labkit.course.probe import Probe
from labkit.course.verdict import Caret, NotYet
from labkit.measure.recordings import Recording
from labkit.measure.wer import word_errors

_V1 = "labkit.v1"
_BYTES_A_SAMPLE = 2
_LARGEST_RATE = _BYTES_A_SAMPLE * 48_000
"""Bytes a second; which rate was asked for does not matter to what never ends."""
_OFTEN = 0.1
_FINDINGS = ("audio_too_fast", "not_understood", "rate_mismatch")
"""Errors that are remarks: nothing was refused."""


class Conversation:
    """One session, over as many connections as it takes.

    Attributes:
        caller: The connection that it has now, or had last.
        session: Name of the session.
        token: The newest token.
        started: The last `session.started`.
        place: The server's position in this client's stream, as that told it.
        came: The audio that came, all of it, 16-bit.
        sent: The audio that was sent.
        acknowledged: The position up to which the server has said that it has everything.
        last_ack: Number of the event that said so.
        turns: How many `response.done` came.
    """

    def __init__(self, probe: Probe) -> None:
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
    async def begin(
        cls, probe: Probe, *, stack: AsyncExitStack | None = None, url: str = "", **start: Any
    ) -> Self:
        """Connect, and begin a session.

        Args:
            probe: The check that it is for.
            stack: Closes the connection; by default the check does.
            url: Where to connect, if not to the server itself.
            start: Fields of `session.start`.
        """
        talk = cls(probe)
        await talk._connect(url, stack)
        await talk.caller.send_json("session.start", **start)
        talk._start(await talk.caller.expect_json("session.started", resumed=False))
        return talk

    async def _connect(self, url: str, stack: AsyncExitStack | None = None) -> None:
        opening = self._probe.caller("/", protocol=_V1, url=url)
        self.caller = await (stack or self._probe.stack).enter_async_context(opening)
        if self.caller.subprotocol != _V1:
            what = "connected, without a subprotocol"
            number = self._probe.happened(self.caller.number, what)
            raise NotYet(
                f"a server that agrees to the subprotocol {_V1}",
                "a connection without a subprotocol",
                event=number,
            )

    def _start(self, message: dict[str, Any]) -> None:
        number = self._probe.last
        self.caller.require_fields(number, message, {"session": str, "token": str})
        self.started, self.place = message, self._place_in(number, message)
        self.caller.bytes_per_second = _LARGEST_RATE
        self.session, self.token = message["session"], message["token"]

    @property
    def received(self) -> dict[str, int]:
        """How far this client is in the server's stream."""
        return {"messages": len(self._told), "samples": len(self.came) // _BYTES_A_SAMPLE}

    @property
    def sent_samples(self) -> int:
        """How many samples this client has sent, each once."""
        return len(self.sent) // _BYTES_A_SAMPLE

    # -- what it says ----------------------------------------------------------------------

    async def say(self, what: Recording | Float32) -> None:
        """Send audio, in chunks of a drawn length."""
        samples = read_audio(what.path) if isinstance(what, Recording) else what
        await self.say_bytes(encode_s16le(samples))

    async def say_bytes(self, data: bytes, size: int = 0) -> None:
        """Send audio that is encoded already, in chunks of `size` bytes; 0 draws it."""
        self.sent += data
        await self._send_audio(data, size)

    async def _send_audio(self, data: bytes | bytearray, size: int = 0) -> None:
        size = size or _BYTES_A_SAMPLE * self._rng.randint(320, 1600)
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
        self, what: Recording | Float32, about: Recording | None = None
    ) -> dict[str, Any]:
        """Say something; gives the `response.done` of its answer.

        Args:
            what: What is said.
            about: The recording whose words have to be heard; by default `what`.
        """
        await self.say(what)
        await self.end()
        said = about or what
        assert isinstance(said, Recording)
        told = await self.until("response.done")
        self.require_heard(said)
        return told[-1]

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
        while not told or told[-1]["type"] != kind:
            number = await self.caller.next_number(f'JSON {{"type": "{kind}", …}}')
            if (message := self._take(number, kind)) is not None:
                told.append(message)
                if message["type"] == "error" and not errors:
                    self._look_at(number, message, kind)
            elif acknowledging:
                await self.acknowledge()
        return told

    def _look_at(self, number: int, message: dict[str, Any], kind: str) -> None:
        if (code := message.get("code")) not in _FINDINGS:
            raise NotYet(
                f'JSON {{"type": "{kind}", …}}',
                f'the error "{code}": {message.get("message")}',
                event=number,
            )

    async def take_one(self, expected: str) -> None:
        """Take in one message, whatever it is; `expected` is for people."""
        self._take(await self.caller.next_number(expected), "…")

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
            number = await self.caller.number_or_end(
                f'what lies behind "seq" {len(self._told)} and sample '
                f"{len(self.came) // _BYTES_A_SAMPLE}"
            )
            if number is None:
                return False
            message = self._take(number, "response.done")
            if message is not None and message["type"] == "error":
                self._look_at(number, message, "response.done")
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
        wrong, words = word_errors(said.text, self.heard)
        if wrong > words / 2:
            raise NotYet(
                f'a transcript of "{said.text}" ({said.name}){why}',
                f'"{self.heard}"' if self.heard else "an empty transcript",
                off=f"{wrong} wrong, of {words} words",
                event=self._probe.last,
            )

    def _take(self, number: int, kind: str) -> dict[str, Any] | None:
        """Count what came; gives it where it is a message."""
        payload = self._probe.events[number].payload
        if isinstance(payload, bytes):
            self._take_audio(number, payload)
            return None
        message = self.caller.json_of(number, f'JSON {{"type": "{kind}", …}}')
        if message["type"] in ("transcript.final", "response.done"):
            self.caller.require_fields(number, message, {"seq": int, "turn": int})
        if "seq" in message:
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
        again = self._again[: len(payload)]
        if again != payload[: len(again)]:
            at = next(i for i, (a, b) in enumerate(zip(again, payload, strict=False)) if a != b)
            raise NotYet(
                "the same audio again behind the place from which the client resumed",
                f"other audio, from sample {(len(self.came) + at) // _BYTES_A_SAMPLE} on",
                caret=Caret.in_bytes(payload, at, 1, "not what came first"),
                event=number,
            )
        del self._again[: len(payload)]
        self.came += payload

    def _number(self, number: int, message: dict[str, Any]) -> None:
        """A numbered message: no number is left out, and none comes twice."""
        if (seq := message["seq"]) != len(self._told) + 1:
            raise NotYet(
                f'"seq": {len(self._told) + 1}, the next number',
                f'"seq": {seq} in "{message["type"]}"',
                event=number,
            )
        if message["type"] == "response.done":
            self._require_samples(number, message)
            self.turns += 1
        self._told.append((len(self.came), message))

    def _require_samples(self, number: int, message: dict[str, Any]) -> None:
        """The samples of a turn that came are those that the server says it has sent."""
        done = [at for at, one in self._told if one["type"] == "response.done"]
        came = (len(self.came) - (done[-1] if done else 0)) // _BYTES_A_SAMPLE
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
        await self._connect(url)
        resume = {
            "session": self.session,
            "token": token or self.token,
            "received": self.received,
        }
        await self.caller.send_json("session.start", resume=resume)
        self._safe = len(self.came)
        number = await self.caller.next_number('JSON {"type": "session.started", …}')
        message = self.caller.json_of(number, 'JSON {"type": "session.started", …}')
        if message["type"] == "error":
            self._look_at(number, message, "session.started")
        wanted = {"type": "session.started", "resumed": True}
        self.caller.require_fields(number, message, wanted)
        if message.get("session") != self.session:
            raise NotYet('"session": the one that was asked for', "another one", event=number)
        self._start(message)
        self._require_possible(number, message)
        return message

    def _require_possible(self, number: int, message: Mapping[str, Any]) -> None:
        """The server has what it has acknowledged, and nothing that was never sent."""
        at = self.place
        sent = {"messages": len(self._ends), "samples": self.sent_samples}
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
                    off="it counts bytes, not samples" if at[key] == 2 * most else "",
                    event=number,
                )

    def forget(self) -> None:
        """Go back to a drawn place behind the last acknowledgement, as if no more had come."""
        keep = self._rng.randint(self._safe, len(self.came)) // _BYTES_A_SAMPLE * _BYTES_A_SAMPLE
        kept = sum(at <= keep for at, _ in self._told)
        self._again = self.came[keep:] + self._again
        self.turns -= sum(one["type"] == "response.done" for _, one in self._told[kept:])
        del self._told[kept:], self.came[keep:]

    async def send_again(self) -> None:
        """Send what lies behind the server's position: audio, and `audio.end` in its places."""
        at = self.place["samples"] * _BYTES_A_SAMPLE
        for end in self._ends[self.place["messages"] :]:
            await self._send_audio(self.sent[at:end])
            await self.caller.send_json("audio.end")
            at = end
        await self._send_audio(self.sent[at:])


def _too_much(told: object, came: int) -> str:
    if not isinstance(told, int):
        return ""
    return f"{abs(told - came)} samples " + ("lost" if told > came else "repeated")
