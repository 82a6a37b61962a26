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

from websockets.utils import apply_mask

from labkit.drills import Dialect
from labkit.protocol import v1
from labkit.protocol.limits import Limits
from labkit.protocol.replay import Position
from labkit.protocol.schema import schema

LIMITS: Final = Limits()
"""What the server accepts and reads, so that some messages lie above it."""

Json = dict[str, Any]


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
    PING = "ping"
    PONG = "pong"
    RESUME = "wrong resume"
    ACK = "acknowledgement"
    NOT_UTF8 = "invalid UTF-8"
    TOO_LARGE = "too large"
    UNREADABLE = "too large to read"


@dataclass(frozen=True, slots=True)
class Hostile:
    """One message."""

    kind: Kind
    payload: str | bytes
    """Text, or bytes; of a ping or pong its data."""
    cuts: tuple[int, ...] = ()
    """Where the message is cut into fragments."""


@dataclass(frozen=True, slots=True)
class Context:
    """What a client knows when it draws a message."""

    dialect: Dialect
    tickets: Sequence[v1.Resume] = ()
    """Sessions that were begun so far, here or elsewhere, and how much of each its client had."""
    received: Position = Position()
    """What this client has of its own session."""


def draw(rng: random.Random, context: Context) -> Hostile:
    """The next message."""
    weights = [weight[context.dialect] for weight, _ in _MAKERS.values()]
    (kind,) = rng.choices(list(_MAKERS), weights)
    payload = _MAKERS[kind][1](rng, context)
    number = rng.choice((1, 2, 30)) if kind is Kind.FRAGMENTS else 0
    cuts = sorted(rng.randrange(len(payload) + 1) for _ in range(number))
    return Hostile(kind, payload, tuple(cuts))


# -- messages that fit the schema --------------------------------------------------------------


@cache
def _definitions() -> Json:
    definitions: Json = schema()["$defs"]
    return definitions


def fitting(rng: random.Random, part: Mapping[str, Any]) -> Any:
    """A value that fits a part of labkit's JSON Schema.

    Read are the words that it uses: references, constants, choices, objects, texts, and numbers
    with their bounds.
    """
    match part:
        case {"$ref": reference}:
            return fitting(rng, _definitions()[reference.rpartition("/")[2]])
        case {"const": value}:
            return value
        case {"enum": choices}:
            return rng.choice(choices)
        case {"oneOf": choices} | {"anyOf": choices}:
            return fitting(rng, rng.choice(choices))
        case {"type": "object"}:
            required = part.get("required", ())
            return {
                name: fitting(rng, inner)
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
    message: Json = fitting(rng, _definitions()["SessionStart"])
    return {name: value for name, value in message.items() if name != "resume"}


def _v1_message(rng: random.Random) -> Json:
    """A message whose fields are all right; seldom one that ends the session."""
    while True:
        message: Json = fitting(rng, _definitions()["client"])
        if message["type"] != "session.end" or rng.random() < 0.1:
            return message


# -- messages, right and wrong -----------------------------------------------------------------


def _valid(rng: random.Random, context: Context) -> str:
    if context.dialect is Dialect.V1:
        return json.dumps(_v1_message(rng))
    return rng.choice(("end_stream", "ping", " ping\n", "end_stream "))


def _ack(rng: random.Random, context: Context) -> str:
    """An acknowledgement of what came, or of a little more or less."""
    off = rng.choice((0, 0, 0, 1, -1, 2**52))
    messages = max(0, context.received.messages + off)
    samples = max(0, context.received.samples + rng.choice((0, 0, off)))
    received = {"messages": messages, "samples": samples}
    return json.dumps({"type": "response.ack", "received": received})


def _resume(rng: random.Random, context: Context) -> str:
    """A resume of a session that exists, or not, with a token and a position, right or wrong."""
    known = rng.choice(context.tickets or [v1.Resume(session="0" * 16, token="x")])
    position = {"messages": rng.randrange(100), "samples": rng.randrange(10**6)}
    resume = {
        "session": rng.choice((known.session, known.session, "nobody", "")),
        "token": rng.choice((known.token, known.token[:-1], known.token + "x", "", "\U0001f511")),
        "received": rng.choice((known.received.model_dump(), position)),
    }
    return json.dumps(start_message(rng) | {"resume": resume})


def _text(rng: random.Random, length: int) -> str:
    """Characters of all planes; surrogates cannot be sent as such."""
    alphabet = rng.choice(('{}[]",:\\ntrue0123456789eE+-.', "\x00\x07\x1b\r\n\t ab", None))
    if alphabet is not None:
        return "".join(rng.choices(alphabet, k=length))
    return "".join(chr(rng.choice((rng.randrange(0xD800), rng.randrange(0xE000, 0x110000))))
                   for _ in range(length))  # fmt: skip


def _random_text(rng: random.Random, _: Context) -> str:
    return _text(rng, rng.randrange(1, 200))


def _bytes(rng: random.Random, _: Context) -> bytes:
    return rng.randbytes(rng.randrange(1, 2000))


def _audio(rng: random.Random, _: Context) -> bytes:
    return rng.randbytes(16 * rng.randrange(1, 100))


def _control(rng: random.Random, _: Context) -> bytes:
    return rng.randbytes(rng.choice((0, 1, 125)))  # the most that a control frame may hold


def _not_utf8(rng: random.Random, _: Context) -> bytes:
    wrong = rng.choice((b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80", b"\xc0\xaf"))
    return b'{"type": "ping' + wrong + b'"}'


def _too_large(rng: random.Random, _: Context) -> str | bytes:
    size = rng.randint(LIMITS.max_message_bytes + 1, LIMITS.max_message_bytes * 5 // 4)
    return rng.choice((bytes(size), "é" * (size // 2 + 1), "x" * size))


def _unreadable(rng: random.Random, _: Context) -> str | bytes:
    size = LIMITS.max_read_bytes + rng.randrange(1, 1000)
    return rng.choice((bytes(size), "x" * size))


def mutated(rng: random.Random, message: Json) -> str:
    """`message` as JSON text, with one to three faults in its fields or its text."""
    for _ in range(rng.choice((0, 1, 1, 2))):
        message = _with_fault(rng, message)
    text = json.dumps(message)
    return _spoiled(rng, text) if rng.random() < 0.4 else text


def _with_fault(rng: random.Random, message: Json) -> Json:
    """Another value in a field, or in a field of a field; a field too few or too many."""
    name = rng.choice(sorted(message) or ["type"])
    inner = message.get(name)
    match rng.randrange(5):
        case 0:
            return {key: value for key, value in message.items() if key != name}
        case 1:
            name = rng.choice(("extra", "seq", "", "__class__", "type ", "\ud800", "n" * 1000))
        case 2:
            types = ("pong", "session.started", "PING", "audio.end\x00", "error", "t" * 300)
            return message | {"type": rng.choice(types)}
        case _ if isinstance(inner, dict) and rng.random() < 0.7:
            return message | {name: _with_fault(rng, inner)}
    return message | {name: _wrong_value(rng)}


def _wrong_value(rng: random.Random) -> Any:
    return rng.choice(
        (
            None, True, -1, 0, 0.5, 2**53 + 1, 10**400, 1e308, float("nan"), float("-inf"), "", "1",
            "x" * rng.choice((65, 129, 5_000, 50_000)), "\ud800", "\udc00\ud800", "\x00", [], {},
            [1] * 500, {"messages": "many"}, {str(n): n for n in range(rng.choice((100, 3_000)))},
        )
    )  # fmt: skip


def _spoiled(rng: random.Random, text: str) -> str:
    """JSON text that is cut off, changed, nested, or has something around it."""
    at = rng.randrange(len(text))
    digits = rng.choice(("9" * 4300, "9" * 4301, "9" * 20_000, "1e999999", "-0", "0" * 50))
    before, after = rng.choice((("\ufeff", ""), ("", "\x00"), ("", text), ("[", "]"), (" \n", " ")))
    opened, closed = rng.choice((("[", "]"), ('{"type":', "}")))
    depth = rng.choice((10, 199, 201, 20_000))
    nested = opened * depth + text + closed * depth
    return rng.choice((
        text[:at],
        text[:at] + _text(rng, 1) + text[at + 1 :],
        '{"type": "ping", ' + text[1:],
        re.sub(r"\d+", digits, text, count=1),
        rng.choice((nested, opened * depth, text[:-1] + ', "x": ' + nested + "}")),
        before + text + after,
    ))  # fmt: skip


_Maker = Callable[[random.Random, Context], str | bytes]


def _often(plain: float, v1: float) -> Mapping[Dialect, float]:
    return {Dialect.PLAIN: plain, Dialect.V1: v1}


_IN_FRAGMENTS: Final[tuple[_Maker, ...]] = (_bytes, _random_text, _audio, _valid)
_WRONG_FRAMES: Final = (b"ping", b"end_stream", b" ping\n", b'{"type": "ping"}', b'{"type": "x"}')

_MAKERS: Final[Mapping[Kind, tuple[Mapping[Dialect, float], _Maker]]] = {
    Kind.VALID: (_often(25, 20), _valid),
    Kind.AUDIO: (_often(30, 20), _audio),
    Kind.MUTATED: (_often(10, 35), lambda rng, _: mutated(rng, _v1_message(rng))),
    Kind.ACK: (_often(0, 8), _ack),
    Kind.RESUME: (_often(0, 4), _resume),
    Kind.RANDOM_BYTES: (_often(12, 12), _bytes),
    Kind.RANDOM_TEXT: (_often(12, 12), _random_text),
    Kind.EMPTY: (_often(5, 5), lambda rng, _: rng.choice(("", b""))),
    Kind.WRONG_FRAME: (_often(3, 3), lambda rng, _: rng.choice(_WRONG_FRAMES)),
    Kind.FRAGMENTS: (_often(3, 3), lambda rng, known: rng.choice(_IN_FRAGMENTS)(rng, known)),
    Kind.PING: (_often(2.5, 2.5), _control),
    Kind.PONG: (_often(2.5, 2.5), _control),
    Kind.NOT_UTF8: (_often(0.1, 0.1), _not_utf8),
    Kind.TOO_LARGE: (_often(0.2, 0.2), _too_large),
    Kind.UNREADABLE: (_often(0.02, 0.02), _unreadable),
}


# -- what is no WebSocket, and what is one no longer -------------------------------------------


_MASK: Final = b"\x01\x02\x03\x04"


@dataclass(frozen=True, slots=True)
class Broken:
    """Bytes to write."""

    name: str
    data: bytes
    ends: bool
    """Whether the server has to end the connection by itself; else the client does."""


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
    return head + _MASK + apply_mask(payload, _MASK)


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


def break_bytes(rng: random.Random, *, opened: bool) -> Broken:
    """Something in place of frames, or, before a WebSocket is open, of the request that opens it.

    Now and then it is noise, or a part after which the client hangs up.
    """
    table = _FRAMES if opened else _HANDSHAKES
    name, chance = rng.choice(list(table)), rng.random()
    if chance < 0.05:
        return Broken("noise", rng.randbytes(rng.randrange(1, 400)) + b"\r\n\r\n", ends=False)
    if chance < 0.1:
        data = table[name]
        return Broken(f"{name}, cut off", data[: rng.randrange(len(data))], ends=False)
    return Broken(name, table[name], ends=name not in _BORNE)


_HANDSHAKES: Final[Mapping[str, bytes]] = {
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(32) + b"\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/1.0": handshake().replace(b"HTTP/1.1", b"HTTP/1.0"),
    "POST": handshake().replace(b"GET", b"POST"),
    "a page": handshake(path="/metrics", Upgrade=None, Connection=None),
    "no page": handshake(path="/nothing", Upgrade=None, Connection=None),
    "no key": handshake(Sec_WebSocket_Key=None),
    "short key": handshake(Sec_WebSocket_Key="AAAA"),
    "no base64 in the key": handshake(Sec_WebSocket_Key="!" * 24),
    "old version": handshake(Sec_WebSocket_Version="8"),
    "other upgrade": handshake(Upgrade="h2c"),
    "a line without colon": handshake(X="y\r\nno colon here"),
    "a header with NUL": handshake(X="a\x00b"),
    "a long line": handshake(X="y" * 9000),
    "a long path": handshake(path="/" + "y" * 9000),
    "many headers": handshake(**{f"X{n}": "y" for n in range(300)}),
    "a body": handshake(Content_Length="5") + b"hello",
    "chunked": handshake(Transfer_Encoding="chunked"),
    "wrong subprotocols": handshake(",,\x01,"),
    "two requests": handshake() + handshake(),
    "bare line feeds": handshake().replace(b"\r\n", b"\n"),
    "wrong extensions": handshake(Sec_WebSocket_Extensions="permessage-deflate; ;="),
    "odd path": handshake(path="//[?reply=%ff&&reply=stream#\xff"),
    "absolute address": handshake(path="http://[::1/%00?a"),
}

_FRAMES: Final[Mapping[str, bytes]] = {
    "unmasked": frame(1, b"ping", masked=False),
    **{f"reserved bits {bits}": frame(1, b"x", reserved=bits) for bits in (1, 2, 4, 7)},
    **{f"reserved opcode {code}": frame(code, b"x") for code in (3, 7, 11, 15)},
    "long control frame": frame(9, b"x" * 126),
    "fragmented control frame": frame(9, b"x", fin=False),
    "continuation of nothing": frame(0, b"x"),
    "message within a message": frame(1, b"x", fin=False) + frame(1, b"y"),
    "negative length": b"\x82\xff" + b"\xff" * 8 + _MASK,
    "a length of exabytes": b"\x82\xff" + b"\x3f" + b"\xff" * 7 + _MASK,
    "close of one byte": frame(8, b"\x03"),
    "close with a reserved code": frame(8, (1005).to_bytes(2, "big")),
    "close with a code out of range": frame(8, (999).to_bytes(2, "big")),
    "close with no UTF-8": frame(8, (1000).to_bytes(2, "big") + b"\xff\xfe"),
    "text that is no UTF-8": frame(1, b"\xff\xfe"),
    "UTF-8 cut by the end": frame(1, b"\xc3", fin=False) + frame(0, b""),
    "messages after a close": frame(8, (1000).to_bytes(2, "big")) + frame(1, b"ping") * 9,
    "endless fragments": frame(2, fin=False) + frame(0, fin=False) * 500,
    "pings": frame(9, b"x") * 100,
    "pongs": frame(10, b"x") * 100,
}

_BORNE: Final = frozenset(
    (
        "bare line feeds", "wrong extensions", "odd path", "absolute address",
        "endless fragments", "pings", "pongs",
    )
)  # fmt: skip
"""What a server may bear; the others have to end the connection."""
