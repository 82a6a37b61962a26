"""What a check leaves behind: every event, as lines, as sound, and as a diagram.

The diagram has a lane for the server and one for each client; time runs down. Audio is drawn as
one arrow for a row of chunks, so that the messages around it can be found.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Final

from labkit.audio.pcm import decode_s16le, write_wav
from labkit.course.hosting import LogLine

_LANE: Final = 260
_ROW: Final = 26
_TOP: Final = 40
_MOST_ROWS: Final = 60
_PINGS: Final = 5
"""Pings and pongs in a row, from which on they are drawn as one."""
_LONGEST: Final = 34
"""Characters of a message that a diagram shows."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that went over a connection, or happened to it.

    Attributes:
        at_ns: When, by the monotonic clock.
        client: Which client, from 1.
        sent: Whether the client sent it; otherwise it came from the server.
        payload: Text or audio; None for what is no message.
        what: What happened, where it is no message.
    """

    at_ns: int
    client: int
    sent: bool
    payload: str | bytes | None
    what: str = ""

    def label(self) -> str:
        """The event in a few words."""
        match self.payload:
            case str(text):
                return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
            case bytes(data):
                return f"{len(data):,} bytes of audio"
        return self.what


def keep_evidence(
    folder: Path, events: Sequence[Event], log: Sequence[LogLine], started_ns: int, drawn: str
) -> None:
    """Write everything into `folder`, in place of what an earlier run has left there."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    with (folder / "events.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(_flat(event, started_ns)) + "\n" for event in events)
    lines = "".join(f"{(line.at_ns - started_ns) / 1e9:8.3f} {line.text}\n" for line in log)
    (folder / "server.log").write_text(lines, encoding="utf-8")
    (folder / "messages.svg").write_text(drawn, encoding="utf-8")
    for client in sorted({event.client for event in events}):
        for sent, name in ((True, "sent"), (False, "received")):
            _keep_audio(folder / f"{name}-{client}.wav", events, client, sent)


def _keep_audio(path: Path, events: Sequence[Event], client: int, sent: bool) -> None:
    audio = b"".join(
        event.payload[: len(event.payload) // 2 * 2]
        for event in events
        if (event.client, event.sent) == (client, sent) and isinstance(event.payload, bytes)
    )
    if audio:
        write_wav(path, decode_s16le(audio))


def _flat(event: Event, started_ns: int) -> dict[str, object]:
    row: dict[str, object] = {
        "at_s": round((event.at_ns - started_ns) / 1e9, 6),
        "client": event.client,
        "from": "client" if event.sent else "server",
    }
    if isinstance(event.payload, str):
        return row | {"text": event.payload[:2000]}
    if event.payload is not None:
        return row | {"bytes": len(event.payload)}
    return row | {"event": event.what}


def diagram(events: Sequence[Event], started_ns: int, fault: int | None) -> str:
    """The events as SVG; the one of number `fault` is marked, by colour, thickness and sign."""
    rows = _rows(events, fault)
    clients = max((event.client for event in events), default=1)
    width, height = _LANE * (clients + 1), _TOP + _ROW * (len(rows) + 1)
    lanes = [_lane(0, "server", height)] + [
        _lane(n, f"client {n}", height) for n in range(1, clients + 1)
    ]
    drawn = [_arrow(number, *row, started_ns) for number, row in enumerate(rows)]
    told = "; ".join(f"{_who(event)}: {label}" for event, label, _ in rows[-3:])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {width} {height}" '
        f'width="{width}" style="max-width:100%;background:#fff" font-family="sans-serif" '
        f'font-size="12" aria-label="Message diagram. At its end: {escape(told, quote=True)}">'
        f"{''.join(lanes + drawn)}</svg>"
    )


def _who(event: Event) -> str:
    return f"client {event.client}" if event.sent else "server"


def _rows(events: Sequence[Event], fault: int | None) -> list[tuple[Event, str, bool]]:
    """An event, its label, and whether it is at fault; audio in a row is one, and so are pings."""

    def kind(numbered: tuple[int, Event]) -> tuple[object, ...]:
        number, event = numbered
        if number == fault or not (isinstance(event.payload, bytes) or _is_ping(event)):
            return (number,)
        return event.client, _is_ping(event) or event.sent

    rows = []
    for _, group in groupby(enumerate(events), key=kind):
        members = list(group)
        number, first = members[0]
        if len(members) == 1 or (_is_ping(first) and len(members) < _PINGS):
            rows += [(event, event.label(), number == fault) for _, event in members]
        elif _is_ping(first):
            rows.append((first, f"{len(members)} × ping or pong", False))
        else:
            size = sum(len(event.payload or b"") for _, event in members)
            rows.append((first, f"{len(members)} × audio, {size:,} bytes", False))
    return rows[-_MOST_ROWS:]


def _is_ping(event: Event) -> str:
    return "ping" if event.payload in ("ping", "pong") else ""


def _lane(number: int, name: str, height: int) -> str:
    x = _LANE * number + _LANE // 2
    return (
        f'<text x="{x}" y="18" text-anchor="middle" font-weight="bold">{name}</text>'
        f'<line x1="{x}" y1="26" x2="{x}" y2="{height}" stroke="#888"/>'
    )


def _arrow(number: int, event: Event, label: str, at_fault: bool, started_ns: int) -> str:
    y = _TOP + _ROW * number + _ROW // 2
    server, client = _LANE // 2, _LANE * event.client + _LANE // 2
    start, end = (client, server) if event.sent else (server, client)
    colour, thick = ("#b34700", 3) if at_fault else ("#0072b2", 1)
    head = 7 if end > start else -7
    dashes = ' stroke-dasharray="4 3"' if event.payload is None else ""
    sign = "✘ " if at_fault else ""
    return (
        f'<line x1="{start}" y1="{y}" x2="{end}" y2="{y}" stroke="{colour}" '
        f'stroke-width="{thick}"{dashes}/>'
        f'<path d="M{end - head},{y - 4} L{end},{y} L{end - head},{y + 4}" fill="none" '
        f'stroke="{colour}" stroke-width="{thick}"/>'
        f'<text x="{(server + client) // 2}" y="{y - 4}" text-anchor="middle" '
        f'fill="{colour}">{escape(sign + label)}</text>'
        f'<text x="4" y="{y + 4}" fill="#565656">{(event.at_ns - started_ns) / 1e6:.0f} ms</text>'
    )
