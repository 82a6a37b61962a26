"""A caller of labkit.v1 in any format, for the checks of chapter 3: what it says, what has to come.

It speaks the subset that the course builds (`notebooks/masters/README.md`), and passes over what
the whole dialect has besides.
"""

from typing import Any, Final

from labkit.audio.formats import WIRE, AudioFormat, StreamEncoder
from labkit.audio.pcm import Float32, read_audio
from labkit.course.probe import Answer, Caller, Probe
from labkit.course.verdict import Caret, NotYet
from labkit.measure.recordings import Recording

SUBPROTOCOL: Final = "labkit.v1"
PASSED_OVER: Final = (
    "audio.ack",
    "response.started",
    "response.text",
    "speech.started",
    "speech.stopped",
    "transcript.partial",
)
"""What a server may tell besides."""


def spec(form: AudioFormat) -> dict[str, Any]:
    """A format as `session.start` and `session.started` have it."""
    return {
        "encoding": str(form.encoding),
        "sample_rate": form.sample_rate,
        "channels": form.channels,
    }


class Speaker:
    """A client that asked for labkit.v1.

    Attributes:
        caller: Its connection.
        input: The format in which it speaks.
        output: The format that it wants to hear.
        seq: The last number that came.
    """

    def __init__(
        self, probe: Probe, caller: Caller, input: AudioFormat = WIRE, output: AudioFormat = WIRE
    ) -> None:
        self.caller = caller
        caller.bytes_per_second = output.bytes_per_second
        self.input = input
        self.output = output
        self.seq = 0
        self._probe = probe

    @classmethod
    async def connect(
        cls, probe: Probe, input: AudioFormat = WIRE, output: AudioFormat = WIRE
    ) -> "Speaker":
        """Connect one more, and make sure that the server agrees to the dialect."""
        caller = await probe.connect("/", protocol=SUBPROTOCOL)
        if caller.subprotocol != SUBPROTOCOL:
            raise NotYet(
                f"the server to choose the subprotocol {SUBPROTOCOL}",
                "that it chose none of those offered",
                event=probe.happened(caller.number, "connected, without a subprotocol"),
            )
        return cls(probe, caller, input, output)

    async def start(self, **fields: Any) -> dict[str, Any]:
        """Begin a session in its formats; gives `session.started`.

        Args:
            fields: What else `session.start` has.
        """
        ours = {"input": spec(self.input), "output": spec(self.output)}
        await self.caller.send_json("session.start", **{**ours, **fields})
        return await self.expect(
            "session.started", protocol=SUBPROTOCOL, session=str, token=str, resumed=False, **ours
        )

    def encoded(self, said: Recording | Float32) -> bytes:
        """What it says, as bytes of its format."""
        samples = read_audio(said.path) if isinstance(said, Recording) else said
        encoder = StreamEncoder(self.input)
        return encoder.feed(samples) + encoder.flush()

    async def say(self, audio: bytes, *, chunk_ms: float | None = None) -> None:
        """Send audio in chunks, as fast as they are taken; their length is drawn."""
        chunk_ms = chunk_ms or self._probe.rng.randint(20, 100)
        size = self.input.samples(chunk_ms / 1000) * self.input.frame_bytes
        for start in range(0, len(audio), size):
            await self.caller.send(audio[start : start + size])

    async def next(self, expected: str) -> tuple[int, dict[str, Any] | bytes]:
        """The next message that is not passed over, with the number of its event."""
        while True:
            number = await self.caller.next_number(expected)
            if isinstance(payload := self._probe.events[number].payload, bytes):
                return number, payload
            message = self.caller.json_of(number, expected)
            self._count(number, message)
            if message["type"] not in PASSED_OVER:
                return number, message

    def _count(self, number: int, message: dict[str, Any]) -> None:
        """Make sure that what is numbered is numbered without a gap."""
        if (seq := message.get("seq")) is None:
            return
        if seq != self.seq + 1:
            raise NotYet(
                f'"seq": {self.seq + 1}, one more than the last',
                f'"seq": {seq!r}',
                caret=Caret.in_json(
                    str(self._probe.events[number].payload), "seq", f"expected {self.seq + 1}"
                ),
                event=number,
            )
        self.seq += 1

    async def expect(self, kind: str, **fields: Any) -> dict[str, Any]:
        """Make sure that the next message is of that `type`, with these fields.

        Args:
            kind: Its `type`.
            fields: What else has to be in it; `...` stands for any value, a type for one of it.
        """
        return (await self.expect_at(kind, **fields))[1]

    async def expect_at(self, kind: str, **fields: Any) -> tuple[int, dict[str, Any]]:
        """The same, with the number of the event."""
        wanted = {"type": kind, **fields}
        number, message = await self.next(f"JSON of type {kind!r}")
        if isinstance(message, bytes):
            raise NotYet(
                f"JSON of type {kind!r}",
                f"a binary message of {len(message):,} bytes",
                event=number,
            )
        self.caller.require_fields(number, message, wanted)
        return number, message

    async def end(self) -> Answer:
        """Send `audio.end`, and take in the whole turn; `Answer.audio` is in its format."""
        answer = Answer(asked_ns=await self.caller.send_json("audio.end"))
        return await self.take_turn(answer)

    async def take_turn(self, answer: Answer) -> Answer:
        """Take in a turn: a transcript, audio, and `response.done`."""
        answer.heard, final = await self.expect_at("transcript.final", seq=int, turn=int, text=...)
        answer.transcript = str(final["text"])
        expected = "audio, or JSON of type 'response.done'"
        while isinstance(told := (await self._next_into(answer, expected)), bytes):
            answer.pieces.append((answer.done_ns, told))
            if len(told) % self.output.frame_bytes:
                raise NotYet(
                    f"whole samples of {self.output} in each binary message",
                    f"a binary message of {len(told):,} bytes",
                    event=answer.last,
                )
        answer.done = told
        if told["type"] == "error":
            refused = f'the error "{told.get("code")}": {told.get("message")}'
            raise NotYet(expected, refused, event=answer.last)
        self.caller.require_fields(
            answer.last,
            answer.done,
            {
                "type": "response.done",
                "seq": int,
                "turn": final["turn"],
                "status": "completed" if answer.transcript else "nothing_heard",
                "text": ...,
                "samples": len(answer.audio) // self.output.frame_bytes,
            },
        )
        return answer

    async def _next_into(self, answer: Answer, expected: str) -> dict[str, Any] | bytes:
        answer.last, told = await self.next(expected)
        answer.done_ns = self._probe.events[answer.last].at_ns
        return told

    async def ask(self, said: Recording | Float32, *, chunk_ms: float | None = None) -> Answer:
        """Say something, and give the whole turn."""
        await self.say(self.encoded(said), chunk_ms=chunk_ms)
        return await self.end()
