"""The drill `hostile`: one hostile caller of each kind, beside an honest one.

Each kind attacks a fresh server with ordinary limits. Meanwhile the honest caller's pings come
back at once, and the server's memory grows by a bounded amount for each hostile connection; told
to end in the middle of the attack, the server ends soon. Two floods are looked at from the other
side: their senders are told, in order, what became of them.

Each kind stays within what a WebSocket lets through, and tries to make the server hold much or
work long. It runs in a process of its own (``python -m labkit.drills.hostile KIND URL``), so that
the honest caller is not kept waiting by anything but the server, and goes on until it is ended.
"""

import asyncio
import json
import math
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import islice, product
from string import ascii_letters
from typing import Any, Final

import numpy as np
from websockets.exceptions import ConnectionClosed

from labkit.audio.pcm import SAMPLE_RATE, Encoding
from labkit.client.dial import address_of, connected
from labkit.client.v1 import SessionClient
from labkit.drills import Dialect, Finding, Verdict
from labkit.drills.inputs import frame, handshake
from labkit.drills.target import (
    log_faults,
    memory_of,
    running_target,
    settings_of,
    well_served,
)
from labkit.errors import CloseCode, ErrorCode, InstrumentError
from labkit.measure.callers import Pings, pinging
from labkit.measure.results import Tell
from labkit.measure.server_process import RunningServer, running_server
from labkit.protocol import v1
from labkit.protocol.replay import Position

NOBODY: Final = "nobody"
"""Beside nobody, the honest caller shows what this machine itself does to its pings."""

_P99_MS: Final = 20.0
_WORST_MS: Final = 100.0
_EACH_BYTES: Final = 8 * 1024 * 1024
_END_S: Final = 5.0
_PATIENCE_S: Final = 20.0
"""Longest that the server may take to end, and to hang up on a flood."""
_LOOK_S: Final = 0.05
_MIB: Final = 1024 * 1024
_BURST_S: Final = 1.0
_FLOOD: Final = 2_000
"""Messages of a flood: ten times the burst that the server lets in."""


@dataclass(slots=True)
class Endured:
    """How a server bore one kind of hostile caller."""

    kind: str
    pings: Pings = field(default_factory=Pings)
    """Round trips of the honest caller meanwhile."""
    grown_bytes: int = 0
    """How much its memory grew, at most."""
    ended_s: float = math.inf
    """How long it took to end when it was told to, in the middle of the attack."""
    faults: list[str] = field(default_factory=list)
    """Lines of its log that tell of faults, and why the attack broke off if it did."""


async def run_hostile(
    kinds: Sequence[str], seconds: float, tell: Tell, findings: list[Finding]
) -> Verdict:
    """Run the drill: these `kinds` of `ATTACKS`, or all, attack for so many `seconds` each.

    `findings` has what was found, also where something ends the drill before its end.
    """
    chosen = [NOBODY, *(kinds or ATTACKS)]
    if unknown := sorted(set(chosen) - {NOBODY, *ATTACKS}):
        raise InstrumentError(f"there is no {unknown[0]!r}; there are {', '.join(ATTACKS)}")
    for number, kind in enumerate(chosen):
        tell(kind, number, len(chosen) + 1)
        findings += judged(await endure(kind, seconds))
    tell("floods", len(chosen), len(chosen) + 1)
    async with running_target(burst_s=_BURST_S) as server:
        findings += [await text_flood(server.url), await audio_flood(server.url, 3 * _BURST_S)]
    title = "hostile callers: pings p99/worst, memory, end after SIGTERM"
    return Verdict(title, tuple(findings))


async def endure(kind: str, seconds: float) -> Endured:
    """Let one kind attack a server for so long, and end the server in the middle of it."""
    endured = Endured(kind)
    async with running_target() as server:
        for dialect in Dialect:  # what is loaded at the first turn is not the attack's
            await well_served(server.url, dialect)
        if kind == NOBODY:
            await _watch(server, seconds, endured)
        else:
            async with running_server(["labkit.drills.hostile", kind, server.url]) as attack:
                await _watch(server, seconds, endured)
                endured.faults += broken_off(attack)
    return endured


def broken_off(attack: RunningServer) -> list[str]:
    """Why an attack has ended by itself: then the server has endured nothing."""
    if attack.process is not None and attack.process.poll() is None:
        return []
    return [f"the attack broke off: {attack.log().strip().splitlines()[-1]}"]


async def _watch(server: RunningServer, seconds: float, endured: Endured) -> None:
    """Note how the server is for so long, and how it ends."""
    before = memory_of(server)
    async with pinging(server.url, endured.pings):
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            await asyncio.sleep(_LOOK_S)
            endured.grown_bytes = max(endured.grown_bytes, memory_of(server) - before)
    endured.ended_s = await _end(server)
    endured.faults = log_faults(server.log())


async def _end(server: RunningServer) -> float:
    """Tell the server to end; gives the seconds that it took, infinite where it did not."""
    if server.process is None:
        return 0.0
    server.process.terminate()
    start = time.perf_counter()
    try:
        await asyncio.to_thread(server.process.wait, _PATIENCE_S)
    except subprocess.TimeoutExpired:
        return math.inf
    return time.perf_counter() - start


def judged(endured: Endured) -> list[Finding]:
    """What one kind did, beside the promise: a row, and the faults that it caused."""
    pings, grown = endured.pings, endured.grown_bytes
    found = (
        f"{pings.p99_ms:.1f}/{pings.worst_ms:.0f} ms, "
        f"{grown / _MIB:.1f} MiB, {endured.ended_s:.1f} s"
    )
    if endured.kind == NOBODY:
        return [Finding.told(NOBODY, found)]
    in_all = settings_of({}).max_held_bytes_in_all
    most = min(ATTACKS[endured.kind].connections * _EACH_BYTES, in_all)
    bar = f"{_P99_MS:g}/{_WORST_MS:g} ms, {most / _MIB:.0f} MiB, {_END_S:g} s"
    kept = (
        pings.p99_ms < _P99_MS
        and pings.worst_ms < _WORST_MS
        and grown <= most
        and endured.ended_s <= _END_S
    )
    rows = [Finding(endured.kind, found, bar, kept)]
    if endured.faults:
        rows.append(Finding.none_of("faults in the log", len(endured.faults)))
        rows += Finding.examples(endured.faults[:2])
    return rows


async def text_flood(url: str) -> Finding:
    """Control messages without a pause: the connection is closed, and the client told why."""
    told: list[str] = []
    async with connected(url, subprotocol=v1.SUBPROTOCOL) as socket:
        with suppress(ConnectionClosed, TimeoutError):
            await socket.send(v1.SessionStart().encode())
            for _ in range(_FLOOD):
                await socket.send(v1.Ping().encode())
        with suppress(ConnectionClosed, TimeoutError):
            async with asyncio.timeout(_PATIENCE_S):
                while True:
                    message = v1.decode_server(await socket.recv(decode=True))
                    told += [message.code.value] if isinstance(message, v1.Error) else []
    found = f"{', '.join(told) or 'no error'}, {socket.close_code}"
    bar = f"{ErrorCode.TOO_MANY_MESSAGES.value}, {CloseCode.POLICY.value}"
    return Finding("flood of text", found, bar, found == bar)


async def audio_flood(url: str, seconds: float) -> Finding:
    """Audio at once, more than the burst allows: it is slowed down, and none of it is lost."""
    silence = np.zeros(round(seconds * SAMPLE_RATE), np.float32)
    async with SessionClient.connect(url) as client:
        answer = await client.say(silence, chunk_ms=100, pace=0)
    samples = answer.done.samples if answer.done else "no"
    found = (
        f"{', '.join(error.code.value for error in answer.errors) or 'no error'}, {samples} samples"
    )
    bar = f"{ErrorCode.AUDIO_TOO_FAST.value}, {len(silence)} samples"
    return Finding("flood of audio", found, bar, found == bar)


# -- the attacks, with blocking sockets and threads --------------------------------------------

_CONTINUE, _TEXT, _BINARY, _PING = 0, 1, 2, 9
_SMALL_BUFFER: Final = 4096
"""Receive buffer of a client that does not read, so that what it is sent stays with the server."""
_MANY: Final = 8_000
_REST_S: Final = 0.02
_AGAIN_S: Final = 1.0

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Attack:
    """A kind of hostile caller."""

    run: Callable[[Address], None]
    """Attacks the server at an address, until it is ended or the server hangs up."""
    connections: int = 1
    """How many it has at a time, or sessions that wait for it."""


_V1: Final = v1.SessionStart()
_MULAW: Final = v1.SessionStart(input=v1.AudioSpec(encoding=Encoding.MULAW, sample_rate=8_000))
_FLOATS: Final = v1.SessionStart(
    input=v1.AudioSpec(encoding=Encoding.PCM_F32LE, sample_rate=44_100, channels=2)
)
_LONGEST: Final = frame(_BINARY, bytes(_MIB - 2))
_QUARTER: Final = frame(_BINARY, bytes(_MIB // 4))
_HALF_MINUTE_MULAW: Final = frame(_BINARY, b"\x90" * 239_000)


def _connected(address: Address, *, reads: bool = True) -> socket.socket:
    made = socket.socket()
    if not reads:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL_BUFFER)  # before it connects
    made.connect(address)
    return made


def _opened(
    address: Address, start: v1.SessionStart | None = None, *, reads: bool = True
) -> socket.socket:
    """A WebSocket; with a session of labkit.v1 where there is a `start`."""
    made = _connected(address, reads=reads)
    made.sendall(handshake(v1.SUBPROTOCOL if start else None))
    head = b""
    while not head.endswith(b"\r\n\r\n") and (more := made.recv(1)):
        head += more
    if start is not None:
        made.sendall(frame(_TEXT, start.encode().encode()))
    if reads:
        _in_background(_swallow, made)
    return made


def _in_background(work: Callable[..., None], *args: object) -> None:
    threading.Thread(target=work, args=args, daemon=True).start()


def _swallow(made: socket.socket) -> None:
    with suppress(OSError):
        while made.recv(65_536):
            pass


def _send_all(made: socket.socket, data: bytes) -> None:
    with suppress(OSError):
        made.sendall(data)


def _flood(
    block: bytes,
    start: v1.SessionStart | None = None,
    *,
    first: bytes = b"",
    reads: bool = True,
    rest_s: float = 0.0,
) -> Callable[[Address], None]:
    """Send `first`, then `block` again and again, as fast as the server takes it or with rests."""

    def run(address: Address) -> None:
        made = _opened(address, start, reads=reads)
        made.sendall(first)
        while True:
            made.sendall(block)
            time.sleep(rest_s)

    return run


def _bomb() -> bytes:
    """A JSON object of thousands of fields that no message has."""
    names = ("".join(letters) for letters in product(ascii_letters, repeat=3))
    fields: dict[str, Any] = dict.fromkeys(islice(names, 29_000), 1)
    return json.dumps({"type": "ping", **fields}, separators=(",", ":")).encode()


def _unfinished(number: int, address: Address) -> None:
    kept = [_opened(address) for _ in range(number)]
    for made in kept:
        made.sendall(_LONGEST[:-1])
    threading.Event().wait()


def _stalled(number: int, address: Address) -> None:
    """Utterances of a minute each, sent at once, of whose replies nothing is read."""
    minute = frame(_BINARY, b"\1\0" * 64_000) * 15 + frame(_TEXT, b"end_stream")
    for made in [_opened(address, reads=False) for _ in range(number)]:
        _in_background(_send_all, made, minute * 6)
    threading.Event().wait()


def _hoard(address: Address) -> None:
    """Session after session, each told minutes of audio over fresh connections, and left alone."""
    minute = _HALF_MINUTE_MULAW * 2 + frame(_TEXT, v1.AudioEnd().encode().encode())
    while True:
        start = _MULAW.model_copy(update={"acknowledges": True})
        for _ in range(6):
            made = _opened(address, start, reads=False)
            told = _started(made)
            resume = v1.Resume(session=told.session, token=told.token, received=Position())
            start = start.model_copy(update={"resume": resume})
            made.settimeout(1.0)
            _send_all(made, minute)
            made.close()


def _started(made: socket.socket) -> v1.SessionStarted:
    """The first message, a text that fits into one frame of up to 64 KiB."""
    with made.makefile("rb") as stream:
        head = stream.read(2) or b"\0\0"
        size = head[1] if head[1] < 126 else int.from_bytes(stream.read(2), "big")
        told = stream.read(size).decode()
    if "session.started" not in told:
        raise ConnectionError(f"the server began no session, but said {told!r}")
    return v1.SessionStarted.model_validate_json(told)


def _keep_open(number: int, said: bytes, address: Address) -> None:
    """TCP connections that say so much; where one is closed, another comes."""
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


_EMPTY: Final = frame(_BINARY) * _MANY
_HALF: Final = b"GET / HTTP/1.1\r\nHost: localhost\r\n"

ATTACKS: Final[Mapping[str, Attack]] = {
    # Pings of 125 bytes whose pongs it does not read.
    "pings unread": Attack(_flood(frame(_PING, b"x" * 125) * 500, _V1, reads=False)),
    # Empty pings, and then empty binary messages, without a pause.
    "pings": Attack(_flood(frame(_PING) * _MANY)),
    "empty plain": Attack(_flood(_EMPTY)),
    "empty v1": Attack(_flood(_EMPTY, _V1)),
    # Audio of one sample a message.
    "tiny v1": Attack(_flood(frame(_BINARY, bytes(2)) * _MANY, _V1)),
    # A message of endless empty fragments.
    "fragments": Attack(
        _flood(frame(_CONTINUE, fin=False) * _MANY, first=frame(_BINARY, fin=False))
    ),
    # Messages of 256 KiB, first of stereo floats at 44.1 kHz.
    "large floats": Attack(_flood(_QUARTER, _FLOATS)),
    "large plain": Attack(_flood(_QUARTER)),
    # JSON objects of 29,000 unknown fields, 50 a second.
    "JSON": Attack(_flood(frame(_TEXT, _bomb()), _V1, rest_s=_REST_S)),
    # Messages of 1 MiB behind audio so far ahead of its pace that reading stops.
    "slow reader": Attack(_flood(_LONGEST, _MULAW, first=frame(_BINARY, b"\xff" * 239_000) * 4)),
    # Refusals that it does not read, then messages of 1 MiB.
    "refusals unread": Attack(
        _flood(
            _LONGEST,
            first=frame(_TEXT, b"x" * 40) * 190 + frame(_BINARY, b"x") * _MANY,
            reads=False,
        )
    ),
    # Messages of 1 MiB less a byte.
    "unfinished": Attack(partial(_unfinished, 10), 10),
    # Minutes of speech whose replies it does not read.
    "stalled": Attack(partial(_stalled, 4), 4),
    # Sessions with minutes of audio that it leaves.
    "hoard": Attack(_hoard, 64),
    # TCP connections that say nothing, and handshakes that it does not finish.
    "idle": Attack(partial(_keep_open, 500, b""), 500),
    "handshakes": Attack(partial(_keep_open, 200, _HALF), 200),
}
"""Every kind, by a short name."""


def main() -> None:
    """Attack in the way and at the address that the command line names."""
    kind, url = sys.argv[1:]
    sys.stdout.write(f"{kind}: ready at {url}\n")
    sys.stdout.flush()
    while True:
        with suppress(OSError):
            ATTACKS[kind].run(address_of(url))
        time.sleep(_REST_S)  # a server that hangs up is called again


if __name__ == "__main__":
    main()
