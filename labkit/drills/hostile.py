"""Messages that a hostile client may send, drawn from a seed. Pure.

Most are wrong in one way: of the wrong type, out of range, out of order, too long, no text at
all. Some are right, so that what comes after a wrong one is seen, too.
"""

import json
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from labkit.protocol.replay import Position

__all__ = ["Context", "Dialect", "Hostile", "Kind", "Ticket", "draw", "mutated", "start_message"]

Json = dict[str, Any]


class Dialect(StrEnum):
    """What a client pretends to speak."""

    PLAIN = "plain"
    V1 = "v1"


class Kind(StrEnum):
    """What is wrong with a message."""

    VALID = "valid message"
    AUDIO = "audio"
    MUTATED = "mutated message"
    RANDOM_TEXT = "random text"
    RANDOM_BYTES = "random bytes"
    EMPTY = "empty message"
    RESUME = "wrong resume"
    ACK = "acknowledgement"
    NOT_UTF8 = "invalid UTF-8"
    TOO_LARGE = "too large"
    UNREADABLE = "too large to read"


@dataclass(frozen=True, slots=True)
class Hostile:
    """One message.

    Attributes:
        kind: What is wrong with it.
        payload: Text, or bytes.
        as_text: Send bytes in a text frame all the same.
    """

    kind: Kind
    payload: str | bytes
    as_text: bool = False


@dataclass(frozen=True, slots=True)
class Ticket:
    """A session that some client began, and how much of it that client had."""

    session: str
    token: str
    received: Position


@dataclass(frozen=True, slots=True)
class Context:
    """What a client knows when it draws a message.

    Attributes:
        max_message_bytes: Longest message that the server accepts.
        max_read_bytes: Longest that it reads.
        tickets: Sessions that were begun so far, here or elsewhere.
        received: What this client has of its own session.
    """

    max_message_bytes: int
    max_read_bytes: int
    tickets: Sequence[Ticket] = ()
    received: Position = Position()


def draw(rng: random.Random, dialect: Dialect, context: Context) -> Hostile:
    """The next message."""
    table = _MAKERS[dialect]
    ((make, _),) = rng.choices(table, [weight for _, weight in table])
    return make(rng, context)


def start_message(rng: random.Random) -> Json:
    """A `session.start` that a server has to accept."""
    return {
        "type": "session.start",
        "protocol": "labkit.v1",
        "input": _spec(rng),
        "output": _spec(rng),
        "turn_detection": rng.choice(("client", "server")),
        "acknowledges": rng.random() < 0.5,
    }


def _spec(rng: random.Random) -> Json:
    return {
        "encoding": rng.choice(("pcm_s16le", "pcm_f32le", "mulaw", "alaw")),
        "sample_rate": rng.choice((8000, 16_000, 44_100, 48_000, rng.randint(8000, 48_000))),
        "channels": rng.randint(1, 2),
    }


def _position(rng: random.Random) -> Json:
    return {"messages": rng.choice((0, rng.randrange(100))), "samples": rng.randrange(10**6)}


def _v1_message(rng: random.Random, context: Context) -> Json:
    """A message whose fields are all right."""
    name = {"id": f"m{rng.randrange(10**6)}"} if rng.random() < 0.5 else {}
    match rng.choices(range(6), (2, 6, 3, 3, 6, 0.3))[0]:
        case 0:
            return start_message(rng) | name
        case 1:
            return {"type": "audio.end"} | name
        case 2:
            turn = rng.choice((1, rng.randrange(1, 60)))
            return {"type": "response.cancel", "turn": turn, "heard_samples": rng.randrange(10**5)}
        case 3:
            return {"type": "response.ack", "received": _position(rng)} | name
        case 4:
            return {"type": "ping"} | name
    return {"type": "session.end"} | name


def _valid_v1(rng: random.Random, context: Context) -> Hostile:
    return Hostile(Kind.VALID, json.dumps(_v1_message(rng, context)))


def _valid_plain(rng: random.Random, _: Context) -> Hostile:
    return Hostile(Kind.VALID, rng.choice(("end_stream", "ping", " ping\n", "end_stream ")))


def _ack(rng: random.Random, context: Context) -> Hostile:
    """An acknowledgement of what came, or of a little more or less."""
    off = rng.choice((0, 0, 0, 1, -1, 2**52))
    messages = max(0, context.received.messages + off)
    samples = max(0, context.received.samples + rng.choice((0, 0, off)))
    received = {"messages": messages, "samples": samples}
    return Hostile(Kind.ACK, json.dumps({"type": "response.ack", "received": received}))


def _resume(rng: random.Random, context: Context) -> Hostile:
    """A resume of a session that exists, or not, with a token and a position, right or wrong."""
    known = rng.choice(context.tickets) if context.tickets else Ticket("0" * 16, "x", Position())
    resume = {
        "session": rng.choice((known.session, known.session, "nobody", "")),
        "token": rng.choice((known.token, known.token[:-1], known.token + "x", "", "\U0001f511")),
        "received": rng.choice((known.received.model_dump(), _position(rng))),
    }
    return Hostile(Kind.RESUME, json.dumps(start_message(rng) | {"resume": resume}))


def _audio(rng: random.Random, _: Context) -> Hostile:
    return Hostile(Kind.AUDIO, rng.randbytes(16 * rng.randrange(1, 100)))


def _random_bytes(rng: random.Random, _: Context) -> Hostile:
    return Hostile(Kind.RANDOM_BYTES, rng.randbytes(rng.randrange(1, 2000)))


def _random_text(rng: random.Random, _: Context) -> Hostile:
    return Hostile(Kind.RANDOM_TEXT, _text(rng, rng.randrange(1, 200)))


def _text(rng: random.Random, length: int) -> str:
    """Characters of all planes; surrogates cannot be sent as such."""
    alphabet = rng.choice(('{}[]",:\\ntrue0123456789eE+-.', "\x00\x07\x1b\r\n\t ab", None))
    if alphabet is not None:
        return "".join(rng.choices(alphabet, k=length))
    return "".join(chr(rng.choice((rng.randrange(0xD800), rng.randrange(0xE000, 0x110000))))
                   for _ in range(length))  # fmt: skip


def _empty(rng: random.Random, _: Context) -> Hostile:
    return Hostile(Kind.EMPTY, rng.choice(("", b"")))


def _not_utf8(rng: random.Random, _: Context) -> Hostile:
    wrong = rng.choice((b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80", b"\xc0\xaf"))
    return Hostile(Kind.NOT_UTF8, b'{"type": "ping' + wrong + b'"}', as_text=True)


def _too_large(rng: random.Random, context: Context) -> Hostile:
    size = rng.randint(context.max_message_bytes + 1, context.max_message_bytes * 5 // 4)
    return Hostile(Kind.TOO_LARGE, rng.choice((bytes(size), "é" * (size // 2 + 1), "x" * size)))


def _unreadable(rng: random.Random, context: Context) -> Hostile:
    size = context.max_read_bytes + rng.randrange(1, 1000)
    return Hostile(Kind.UNREADABLE, rng.choice((bytes(size), "x" * size)))


def _mutated(rng: random.Random, context: Context) -> Hostile:
    return Hostile(Kind.MUTATED, mutated(rng, _v1_message(rng, context)))


def mutated(rng: random.Random, message: Json) -> str:
    """`message` as JSON text, with one to three faults in its fields or its text."""
    for _ in range(rng.choice((0, 1, 1, 2))):
        message = rng.choice(_FAULTS)(rng, message)
    text = json.dumps(message)
    return rng.choice(_SPOILERS)(rng, text) if rng.random() < 0.4 else text


def _a_wrong_value(rng: random.Random) -> Any:
    return rng.choice(
        (
            None, True, -1, 0, 0.5, 2**53 + 1, 10**400, 1e308, float("nan"), float("-inf"), "", "1",
            "x" * rng.choice((65, 129, 5_000, 50_000)), "\ud800", "\udc00\ud800", "\x00", [], {},
            [1] * 500, {"messages": "many"}, {str(n): n for n in range(100)},
        )
    )  # fmt: skip


def _wrong_value(rng: random.Random, message: Json) -> Json:
    """Another value in a field, or in a field of a field."""
    if not message:
        return {"type": _a_wrong_value(rng)}
    name = rng.choice(sorted(message))
    inner = message[name]
    if isinstance(inner, dict) and rng.random() < 0.7:
        return message | {name: _wrong_value(rng, inner)}
    return message | {name: _a_wrong_value(rng)}


def _without_field(rng: random.Random, message: Json) -> Json:
    gone = rng.choice(sorted(message) or [""])
    return {name: value for name, value in message.items() if name != gone}


def _with_field(rng: random.Random, message: Json) -> Json:
    name = rng.choice(("extra", "seq", "", "__class__", "type ", "\ud800", "n" * 1000))
    return message | {name: _a_wrong_value(rng)}


def _other_type(rng: random.Random, message: Json) -> Json:
    types = ("pong", "session.started", "PING", "audio.end\x00", "error", "t" * 300)
    return message | {"type": rng.choice(types)}


_FAULTS: Final[tuple[Callable[[random.Random, Json], Json], ...]] = (
    _wrong_value, _wrong_value, _without_field, _with_field, _other_type,
)  # fmt: skip


def _cut(rng: random.Random, text: str) -> str:
    return text[: rng.randrange(len(text))]


def _with_another_character(rng: random.Random, text: str) -> str:
    at = rng.randrange(len(text))
    return text[:at] + _text(rng, 1) + text[at + 1 :]


def _with_duplicate_keys(_: random.Random, text: str) -> str:
    return '{"type": "ping", ' + text[1:]


def _with_a_long_number(rng: random.Random, text: str) -> str:
    digits = rng.choice(("9" * 4300, "9" * 4301, "9" * 20_000, "1e999999", "-0", "0" * 50))
    return re.sub(r"\d+", digits, text, count=1)


def _nested(rng: random.Random, text: str) -> str:
    depth = rng.choice((10, 199, 201, 20_000))
    opened, closed = rng.choice((("[", "]"), ('{"type":', "}")))
    whole = opened * depth + text + closed * depth
    return rng.choice((whole, opened * depth, text[:-1] + ', "x": ' + whole + "}"))


def _around(rng: random.Random, text: str) -> str:
    before, after = rng.choice((("\ufeff", ""), ("", "\x00"), ("", text), ("[", "]"), (" \n", " ")))
    return before + text + after


_SPOILERS: Final[tuple[Callable[[random.Random, str], str], ...]] = (
    _cut, _with_another_character, _with_duplicate_keys, _with_a_long_number, _nested, _around,
)  # fmt: skip

_Maker = Callable[[random.Random, Context], Hostile]
_ANY: Final[tuple[tuple[_Maker, float], ...]] = (
    (_random_bytes, 12),
    (_random_text, 12),
    (_empty, 3),
    (_not_utf8, 0.1),
    (_too_large, 0.2),
    (_unreadable, 0.02),
)
_MAKERS: Final[dict[Dialect, tuple[tuple[_Maker, float], ...]]] = {
    Dialect.PLAIN: ((_valid_plain, 25), (_audio, 30), (_mutated, 10), *_ANY),
    Dialect.V1: ((_valid_v1, 20), (_audio, 20), (_mutated, 35), (_ack, 8), (_resume, 4), *_ANY),
}
