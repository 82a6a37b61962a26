"""What is no WebSocket, and what is one no longer: broken handshakes and broken frames. Pure.

A frame begins with two bytes: FIN, three reserved bits and the opcode; then MASK and seven bits
of length, of which 126 and 127 announce 2 and 8 more bytes (RFC 6455, section 5.2). A client
has to mask its frames.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

__all__ = ["Broken", "broken_frames", "broken_handshake", "frame", "handshake"]

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


_Maker = Callable[[random.Random, str], Broken]


def _fixed(data: bytes, *, ends: bool = True) -> _Maker:
    return lambda _, name: Broken(name, data, ends)


def _cut(data: bytes) -> _Maker:
    """A part of `data`, after which the client hangs up."""
    return lambda rng, name: Broken(name, data[: rng.randrange(len(data))], ends=False)


def _noise(rng: random.Random, name: str) -> Broken:
    return Broken(name, rng.randbytes(rng.randrange(1, 400)) + b"\r\n\r\n", ends=False)


_HANDSHAKES: Final[dict[str, _Maker]] = {
    "noise": _noise,
    "nothing": _fixed(b"", ends=False),
    "cut off": _cut(handshake()),
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

_FRAMES: Final[dict[str, _Maker]] = {
    "noise": _noise,
    "cut off": _cut(frame(1, b"ping" * 40)),
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
