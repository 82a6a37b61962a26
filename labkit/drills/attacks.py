"""One hostile caller of each kind, as a program: ``python -m labkit.drills.attacks KIND URL``.

Each stays within what a WebSocket lets through, and tries to make the server hold much or work
long. It goes on until it is ended or the server hangs up, and runs in a process of its own, so
that an honest caller beside it is not kept waiting by anything but the server.
"""

import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice, product
from string import ascii_letters
from typing import Any, Final
from urllib.parse import urlsplit

from labkit.audio.formats import Encoding
from labkit.drills.inputs import frame, handshake
from labkit.protocol import v1

__all__ = ["ATTACKS", "Attack", "main"]

_TEXT, _BINARY, _PING = 1, 2, 9
_CONTINUE: Final = 0
_SMALL_BUFFER: Final = 4096
"""Receive buffer of a client that does not read, so that what it is sent stays with the server."""
_MIB: Final = 1024 * 1024
_SECOND: Final = 32_000
"""Bytes of a second of s16le at 16 kHz."""
_FLOOD: Final = 8_000
_REST_S: Final = 0.02
_AGAIN_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Attack:
    """A kind of hostile caller.

    Attributes:
        about: What it does.
        run: Does it to the server at an address, until it is ended or the server hangs up.
        connections: How many it has at a time, or sessions that wait for it.
    """

    about: str
    run: Callable[[tuple[str, int]], None]
    connections: int = 1


def _connected(address: tuple[str, int], *, reads: bool = True) -> socket.socket:
    made = socket.socket()
    if not reads:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL_BUFFER)  # before it connects
    made.connect(address)
    return made


def _opened(address: tuple[str, int], *start: v1.SessionStart, reads: bool = True) -> socket.socket:
    """A WebSocket; with a session of labkit.v1 where there is a `start`."""
    made = _connected(address, reads=reads)
    made.sendall(handshake(v1.SUBPROTOCOL if start else None))
    _read_head(made)
    for message in start:
        made.sendall(frame(_TEXT, message.encode().encode()))
    if reads:
        threading.Thread(target=_swallow, args=(made,), daemon=True).start()
    return made


def _read_head(made: socket.socket) -> None:
    head = b""
    while not head.endswith(b"\r\n\r\n") and (more := made.recv(1)):
        head += more


def _swallow(made: socket.socket) -> None:
    with suppress(OSError):
        while made.recv(65_536):
            pass


def _flood(
    block: bytes, *start: v1.SessionStart, reads: bool = True, rest_s: float = 0.0
) -> Callable[[tuple[str, int]], None]:
    """Send `block` again and again, as fast as the server takes it or with a rest in between."""

    def run(address: tuple[str, int]) -> None:
        made = _opened(address, *start, reads=reads)
        while True:
            made.sendall(block)
            time.sleep(rest_s)

    return run


def _bomb() -> bytes:
    """A JSON object of thousands of fields that no message has."""
    names = ("".join(letters) for letters in product(ascii_letters, repeat=3))
    fields: dict[str, Any] = dict.fromkeys(islice(names, 29_000), 1)
    return json.dumps({"type": "ping", **fields}, separators=(",", ":")).encode()


def _large_behind_slow_reader(address: tuple[str, int]) -> None:
    """Audio so far ahead of its pace that reading stops, then the longest messages."""
    made = _opened(address, _MULAW)
    for _ in range(4):
        made.sendall(frame(_BINARY, b"\xff" * 239_000))
    while True:
        made.sendall(frame(_BINARY, bytes(_MIB - 2)))


def _unread_refusals(address: tuple[str, int]) -> None:
    """Refusals that it does not read, then the longest messages."""
    made = _opened(address, reads=False)
    made.sendall(frame(_TEXT, b"x" * 40) * 190 + frame(_BINARY, b"x") * _FLOOD)
    while True:
        made.sendall(frame(_BINARY, bytes(_MIB - 2)))


def _unfinished(address: tuple[str, int]) -> None:
    whole = frame(_BINARY, bytes(_MIB - 2))
    kept = [_opened(address) for _ in range(ATTACKS["unfinished"].connections)]
    for made in kept:
        made.sendall(whole[:-1])
    _hold(kept)


def _stalled(address: tuple[str, int]) -> None:
    """Utterances of a minute each, sent at once, of whose replies nothing is read."""
    kept = [_opened(address, reads=False) for _ in range(ATTACKS["stalled"].connections)]
    minute = frame(_BINARY, b"\1\0" * (2 * _SECOND)) * 15 + frame(_TEXT, b"end_stream")
    threads = [
        threading.Thread(target=_send_all, args=(made, minute * 6), daemon=True) for made in kept
    ]
    for thread in threads:
        thread.start()
    _hold(kept)


def _send_all(made: socket.socket, data: bytes) -> None:
    with suppress(OSError):
        made.sendall(data)


def _hoard(address: tuple[str, int]) -> None:
    """Session after session, each told minutes of audio over fresh connections, and left alone."""
    minute = frame(_BINARY, b"\x90" * 239_000) * 2 + frame(_TEXT, v1.AudioEnd().encode().encode())
    while True:
        resume: dict[str, Any] = {}
        for _ in range(6):
            made = _connected(address)
            made.sendall(handshake(v1.SUBPROTOCOL))
            _read_head(made)
            start = _MULAW.model_copy(update={"acknowledges": True}).model_dump() | resume
            made.sendall(frame(_TEXT, json.dumps(start, default=str).encode()))
            told = _started(made)
            resume = {"resume": {"session": told["session"], "token": told["token"],
                                 "received": {"messages": 0, "samples": 0}}}  # fmt: skip
            made.settimeout(1.0)
            with suppress(OSError):
                made.sendall(minute)
            made.close()


def _started(made: socket.socket) -> dict[str, Any]:
    """The first text message that begins a session; it fits into one frame of up to 64 KiB."""
    head = _exactly(made, 2)
    size = head[1] & 127
    if size == 126:
        size = int.from_bytes(_exactly(made, 2), "big")
    told: dict[str, Any] = json.loads(_exactly(made, size))
    if told["type"] != "session.started":
        raise ConnectionError(f"the server answered {told['type']}")
    return told


def _exactly(made: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        if not (more := made.recv(size - len(data))):
            raise ConnectionError("the server hung up")
        data += more
    return data


def _idle(address: tuple[str, int]) -> None:
    """TCP connections that never say anything; where one is closed, another comes."""
    _keep_open(address, b"", ATTACKS["idle"].connections)


def _half_handshake(address: tuple[str, int]) -> None:
    _keep_open(address, b"GET / HTTP/1.1\r\nHost: localhost\r\n", ATTACKS["handshakes"].connections)


def _keep_open(address: tuple[str, int], said: bytes, number: int) -> None:
    kept: list[socket.socket] = []
    while True:
        kept = [made for made in kept if not _closed(made)]
        for _ in range(number - len(kept)):
            with suppress(OSError):
                made = _connected(address)
                kept.append(made)
                made.sendall(said)
        time.sleep(_AGAIN_S)


def _closed(made: socket.socket) -> bool:
    try:
        return made.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def _hold(kept: list[socket.socket]) -> None:
    """Keep them, and do nothing."""
    while kept:
        time.sleep(1)


def _spoken(encoding: Encoding, rate: int, channels: int = 1) -> v1.SessionStart:
    spec = v1.AudioSpec(encoding=encoding, sample_rate=rate, channels=channels)
    return v1.SessionStart(input=spec)


_V1: Final = v1.SessionStart()
_MULAW: Final = _spoken(Encoding.MULAW, 8_000)
_FLOATS: Final = _spoken(Encoding.PCM_F32LE, 44_100, 2)
_EMPTY: Final = frame(_BINARY) * _FLOOD
_FRAGMENTS: Final = frame(_BINARY, fin=False) + frame(_CONTINUE, fin=False) * _FLOOD

ATTACKS: Final[Mapping[str, Attack]] = {
    "pings unread": Attack(
        "pings of 125 bytes whose pongs it does not read",
        _flood(frame(_PING, b"x" * 125) * 500, _V1, reads=False),
    ),
    "pings": Attack("empty pings without a pause", _flood(frame(_PING) * _FLOOD)),
    "empty plain": Attack("empty binary messages without a pause", _flood(_EMPTY)),
    "empty v1": Attack("the same in labkit.v1", _flood(_EMPTY, _V1)),
    "tiny v1": Attack(
        "audio of one sample a message", _flood(frame(_BINARY, bytes(2)) * _FLOOD, _V1)
    ),
    "fragments": Attack("a message of endless empty fragments", _flood(_FRAGMENTS)),
    "large floats": Attack(
        "stereo floats at 44.1 kHz in messages of 256 KiB",
        _flood(frame(_BINARY, bytes(262_144)), _FLOATS),
    ),
    "large plain": Attack("messages of 256 KiB", _flood(frame(_BINARY, bytes(262_144)))),
    "JSON": Attack(
        "JSON objects of 29,000 unknown fields, 50 a second",
        _flood(frame(_TEXT, _bomb()), _V1, rest_s=_REST_S),
    ),
    "slow reader": Attack(
        "messages of 1 MiB behind audio that came too fast", _large_behind_slow_reader
    ),
    "refusals unread": Attack(
        "refusals that it does not read, then messages of 1 MiB", _unread_refusals
    ),
    "unfinished": Attack("messages of 1 MiB less a byte", _unfinished, 10),
    "stalled": Attack("minutes of speech whose replies it does not read", _stalled, 4),
    "hoard": Attack("sessions with minutes of audio that it leaves", _hoard, 64),
    "idle": Attack("TCP connections that say nothing", _idle, 500),
    "handshakes": Attack("handshakes that it does not finish", _half_handshake, 200),
}
"""Every kind, by a short name."""


def main() -> None:
    """Attack in the way and at the address that the command line names."""
    kind, url = sys.argv[1:]
    target = urlsplit(url)
    sys.stdout.write("it begins\n")
    sys.stdout.flush()
    while True:
        with suppress(OSError):
            ATTACKS[kind].run((target.hostname or "", target.port or 80))
        time.sleep(_REST_S)  # a server that hangs up is called again


if __name__ == "__main__":
    main()
