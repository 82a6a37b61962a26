"""What hostile clients send, drawn from a seed: messages, frames, handshakes. Pure.

Messages of labkit.v1 are made from the schema that the server gives. Most are then changed in one
to three places: of the wrong type, out of range, out of order, too long, no text at all. Some are
left right, so that what comes after a wrong one is seen, too.

A frame begins with two bytes: FIN, three reserved bits and the opcode; then MASK and seven bits
of length, of which 126 and 127 announce 2 and 8 more bytes (RFC 6455, section 5.2). A client has
to mask its frames.
"""

import json
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Any, Final

from labkit.protocol.replay import Position
from labkit.protocol.schema import schema

__all__ = [
    "Broken",
    "Context",
    "Dialect",
    "Hostile",
    "Kind",
    "Ticket",
    "broken_frames",
    "broken_handshake",
    "draw",
    "fitting",
    "frame",
    "handshake",
    "mutated",
    "start_message",
]

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
    WRONG_FRAME = "command as binary"
    FRAGMENTS = "message in fragments"
    CONTROL = "ping or pong"
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
        payload: Text, or bytes; of a ping or pong its data.
        as_text: Send bytes in a text frame all the same.
        cuts: Where the message is cut into fragments, with a ping in between.
    """

    kind: Kind
    payload: str | bytes
    as_text: bool = False
    cuts: tuple[int, ...] = ()


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


# -- messages that fit the schema --------------------------------------------------------------


@cache
def _schema() -> Json:
    return schema()


def fitting(rng: random.Random, part: Mapping[str, Any], definitions: Mapping[str, Any]) -> Any:
    """A value that fits a part of a JSON Schema.

    Args:
        rng: Draws it.
        part: Of the schema, in the words that labkit's uses: references, constants, choices,
            objects, texts and numbers with their bounds.
        definitions: What its references point at, by name.
    """
    match part:
        case {"$ref": reference}:
            return fitting(rng, definitions[reference.rpartition("/")[2]], definitions)
        case {"const": value}:
            return value
        case {"enum": choices}:
            return rng.choice(choices)
        case {"oneOf": choices} | {"anyOf": choices}:
            return fitting(rng, rng.choice(choices), definitions)
        case {"type": "object"}:
            required = part.get("required", ())
            return {
                name: fitting(rng, inner, definitions)
                for name, inner in part["properties"].items()
                if name in required or rng.random() < 0.5
            }
        case {"type": "string"}:
            return _text(rng, rng.choice((0, 1, min(20, part.get("maxLength", 20)))))
        case {"type": "integer" | "number" as kind}:
            return _number(rng, part, whole=kind == "integer")
        case {"type": "boolean"}:
            return rng.random() < 0.5
        case {"type": "null"}:
            return None
    raise AssertionError(f"the schema says {part}, which is not read here")


def _number(rng: random.Random, part: Mapping[str, Any], *, whole: bool) -> float:
    """A number within its bounds; often one of them, and small ones as often as large ones."""
    least, most = part.get("minimum", 0), part.get("maximum", 2**53)
    between = least + (most - least) * rng.random() ** rng.choice((1, 16))
    chosen: float = rng.choice((least, most, between, between, between))
    return round(chosen) if whole else chosen


def start_message(rng: random.Random) -> Json:
    """A `session.start` that a server has to accept: a new session."""
    definitions = _schema()["$defs"]
    message: Json = fitting(rng, definitions["SessionStart"], definitions)
    return {name: value for name, value in message.items() if name != "resume"}


def _v1_message(rng: random.Random, _: Context) -> Json:
    """A message whose fields are all right; seldom one that ends the session."""
    definitions = _schema()["$defs"]
    while True:
        message: Json = fitting(rng, definitions["client"], definitions)
        if message["type"] != "session.end" or rng.random() < 0.1:
            return message


# -- messages, right and wrong -----------------------------------------------------------------


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
    position = {"messages": rng.randrange(100), "samples": rng.randrange(10**6)}
    resume = {
        "session": rng.choice((known.session, known.session, "nobody", "")),
        "token": rng.choice((known.token, known.token[:-1], known.token + "x", "", "\U0001f511")),
        "received": rng.choice((known.received.model_dump(), position)),
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


def _wrong_frame(rng: random.Random, _: Context) -> Hostile:
    commands = (b"ping", b"end_stream", b" ping\n", b'{"type": "ping"}', b'{"type": "audio.end"}')
    return Hostile(Kind.WRONG_FRAME, rng.choice(commands))


def _fragments(rng: random.Random, context: Context) -> Hostile:
    """Audio or text in several frames, some of them empty."""
    payload = rng.choice((_random_bytes, _random_text, _audio))(rng, context).payload
    cuts = sorted(rng.randrange(len(payload) + 1) for _ in range(rng.choice((1, 2, 30))))
    return Hostile(Kind.FRAGMENTS, payload, cuts=tuple(cuts))


def _control(rng: random.Random, _: Context) -> Hostile:
    """A ping, or as text a pong that nobody asked for; at most 125 bytes (RFC 6455, 5.5)."""
    data = rng.randbytes(rng.choice((0, 1, 125)))
    return Hostile(Kind.CONTROL, data, as_text=rng.random() < 0.5)


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
            [1] * 500, {"messages": "many"}, {str(n): n for n in range(rng.choice((100, 3_000)))},
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


def _cut_text(rng: random.Random, text: str) -> str:
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
    _cut_text, _with_another_character, _with_duplicate_keys, _with_a_long_number, _nested, _around,
)  # fmt: skip

_Maker = Callable[[random.Random, Context], Hostile]
_ANY: Final[tuple[tuple[_Maker, float], ...]] = (
    (_random_bytes, 12),
    (_random_text, 12),
    (_empty, 5),
    (_wrong_frame, 3),
    (_fragments, 3),
    (_control, 5),
    (_not_utf8, 0.1),
    (_too_large, 0.2),
    (_unreadable, 0.02),
)
_MAKERS: Final[dict[Dialect, tuple[tuple[_Maker, float], ...]]] = {
    Dialect.PLAIN: ((_valid_plain, 25), (_audio, 30), (_mutated, 10), *_ANY),
    Dialect.V1: ((_valid_v1, 20), (_audio, 20), (_mutated, 35), (_ack, 8), (_resume, 4), *_ANY),
}


# -- what is no WebSocket, and what is one no longer -------------------------------------------


_MASK: Final = b"\x01\x02\x03\x04"


@dataclass(frozen=True, slots=True)
class Broken:
    """Bytes to write.

    Attributes:
        name: What is wrong with them.
        data: The bytes.
        ends: Whether the server has to end the connection by itself; else the client does.
    """

    name: str
    data: bytes
    ends: bool = True


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    reserved: int = 0,
    masked: bool = True,
) -> bytes:
    """A frame with any header."""
    size = len(payload)
    short = size if size < 126 else 126 if size < 1 << 16 else 127
    longer = size.to_bytes(2 if short == 126 else 8, "big") if short > 125 else b""
    head = bytes((fin << 7 | reserved << 4 | opcode, masked << 7 | short)) + longer
    if not masked:
        return head + payload
    return head + _MASK + bytes(byte ^ _MASK[i % 4] for i, byte in enumerate(payload))


def handshake(subprotocol: str | None = None, *, path: str = "/", **changed: str | None) -> bytes:
    """The request that opens a WebSocket; `changed` headers are named with underscores.

    A header that is None is left out.
    """
    headers: dict[str, str | None] = {
        "Host": "localhost",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec_WebSocket_Key": "AAAAAAAAAAAAAAAAAAAAAA==",
        "Sec_WebSocket_Version": "13",
        "Sec_WebSocket_Protocol": subprotocol,
    }
    lines = [
        f"{name.replace('_', '-')}: {value}"
        for name, value in (headers | changed).items()
        if value is not None
    ]
    return "\r\n".join([f"GET {path} HTTP/1.1", *lines, "", ""]).encode("latin-1")


def broken_handshake(rng: random.Random) -> Broken:
    """Something instead of the request that opens a WebSocket."""
    name = rng.choice(sorted(_HANDSHAKES))
    return _HANDSHAKES[name](rng, name)


def broken_frames(rng: random.Random) -> Broken:
    """Something instead of frames, on a connection that is open."""
    name = rng.choice(sorted(_FRAMES))
    return _FRAMES[name](rng, name)


_Breaker = Callable[[random.Random, str], Broken]


def _fixed(data: bytes, *, ends: bool = True) -> _Breaker:
    return lambda _, name: Broken(name, data, ends)


def _cut_off(data: bytes) -> _Breaker:
    """A part of `data`, after which the client hangs up."""
    return lambda rng, name: Broken(name, data[: rng.randrange(len(data))], ends=False)


def _noise(rng: random.Random, name: str) -> Broken:
    return Broken(name, rng.randbytes(rng.randrange(1, 400)) + b"\r\n\r\n", ends=False)


_HANDSHAKES: Final[dict[str, _Breaker]] = {
    "noise": _noise,
    "nothing": _fixed(b"", ends=False),
    "cut off": _cut_off(handshake()),
    "TLS": _fixed(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(32) + b"\r\n"),
    "HTTP/2": _fixed(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "HTTP/1.0": _fixed(handshake().replace(b"HTTP/1.1", b"HTTP/1.0")),
    "POST": _fixed(handshake().replace(b"GET", b"POST")),
    "a page": _fixed(handshake(path="/metrics", Upgrade=None, Connection=None)),
    "no page": _fixed(handshake(path="/nothing", Upgrade=None, Connection=None)),
    "no key": _fixed(handshake(Sec_WebSocket_Key=None)),
    "short key": _fixed(handshake(Sec_WebSocket_Key="AAAA")),
    "no base64 in the key": _fixed(handshake(Sec_WebSocket_Key="!" * 24)),
    "old version": _fixed(handshake(Sec_WebSocket_Version="8")),
    "other upgrade": _fixed(handshake(Upgrade="h2c")),
    "a line without colon": _fixed(handshake(X="y\r\nno colon here")),
    "a header with NUL": _fixed(handshake(X="a\x00b")),
    "a long line": _fixed(handshake(X="y" * 9000)),
    "a long path": _fixed(handshake(path="/" + "y" * 9000)),
    "many headers": _fixed(handshake(**{f"X{n}": "y" for n in range(300)})),
    "a body": _fixed(handshake(Content_Length="5") + b"hello"),
    "chunked": _fixed(handshake(Transfer_Encoding="chunked")),
    "bare line feeds": _fixed(handshake().replace(b"\r\n", b"\n"), ends=False),
    "wrong subprotocols": _fixed(handshake(",,\x01,")),
    "wrong extensions": _fixed(
        handshake(Sec_WebSocket_Extensions="permessage-deflate; ;="), ends=False
    ),
    "odd path": _fixed(handshake(path="//[?reply=%ff&&reply=stream#\xff"), ends=False),
    "absolute address": _fixed(handshake(path="http://[::1/%00?a"), ends=False),
    "two requests": _fixed(handshake() + handshake()),
}

_FRAMES: Final[dict[str, _Breaker]] = {
    "noise": _noise,
    "cut off": _cut_off(frame(1, b"ping" * 40)),
    "unmasked": _fixed(frame(1, b"ping", masked=False)),
    "reserved bits": lambda rng, name: Broken(name, frame(1, b"x", reserved=rng.randint(1, 7))),
    "reserved opcode": lambda rng, name: Broken(
        name, frame(rng.choice((3, 4, 5, 6, 7, 11, 12, 13, 14, 15)), b"x")
    ),
    "long control frame": _fixed(frame(9, b"x" * 126)),
    "fragmented control frame": _fixed(frame(9, b"x", fin=False)),
    "continuation of nothing": _fixed(frame(0, b"x")),
    "message within a message": _fixed(frame(1, b"x", fin=False) + frame(1, b"y")),
    "endless fragments": _fixed(
        frame(2, b"", fin=False) + frame(0, b"", fin=False) * 500, ends=False
    ),
    "negative length": _fixed(b"\x82\xff" + b"\xff" * 8 + _MASK),
    "a length of exabytes": _fixed(b"\x82\xff" + b"\x3f" + b"\xff" * 7 + _MASK),
    "close of one byte": _fixed(frame(8, b"\x03")),
    "close with a reserved code": _fixed(frame(8, (1005).to_bytes(2, "big"))),
    "close with a code out of range": _fixed(frame(8, (999).to_bytes(2, "big"))),
    "close with no UTF-8": _fixed(frame(8, (1000).to_bytes(2, "big") + b"\xff\xfe")),
    "text that is no UTF-8": _fixed(frame(1, b"\xff\xfe")),
    "UTF-8 cut by the end": _fixed(frame(1, b"\xc3", fin=False) + frame(0, b"")),
    "pings": _fixed(frame(9, b"x") * 100, ends=False),
    "pongs": _fixed(frame(10, b"x") * 100, ends=False),
    "messages after a close": _fixed(frame(8, (1000).to_bytes(2, "big")) + frame(1, b"ping") * 9),
}
