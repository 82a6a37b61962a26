"""What chapter 2 measures: words right, names known, callers counted."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from labkit.audio.pcm import write_wav
from labkit.course.callers import (
    Recall,
    measure_recall,
    measure_stays,
    plot_buffer,
    plot_recall,
    plot_stays,
    talk,
    words_right,
)
from labkit.measure.recordings import Recording, recording_at


@pytest.fixture
def said(tmp_path: Path) -> Recording:
    import numpy as np

    write_wav(tmp_path / "noise.wav", np.full(1600, 0.1, np.float32))
    return recording_at(tmp_path / "noise.wav")


@pytest.mark.parametrize(
    ("heard", "right"),
    [(["one two", "three four"], 100), (["one two three four", ""], 0), (["one", "four"], 50)],
)
def test_words_too_many_are_wrong_as_those_that_lack(heard: list[str], right: float) -> None:
    assert words_right(["one two", "three four"], heard) == right


class Forgetful:
    """A model that knows a name as long as few enough messages stand around it."""

    def think(self, messages: Sequence[Mapping[str, str]]) -> list[str]:
        names = [one["content"].split()[-1] for one in messages if "my name is" in one["content"]]
        return [f"Your name is {names[0]}." if names and len(messages) < 20 else "I do not know."]


def test_a_name_is_told_then_asked_for_three_exchanges_later(said: Recording) -> None:
    found = measure_recall(Forgetful(), [said], (0, 5, 6), of=3)  # type: ignore[arg-type]
    assert [(one.exchanges, one.known, one.of) for one in found] == [
        (0, 3, 3),
        (5, 3, 3),
        (6, 0, 3),
    ]
    assert found[0].words < found[1].words < found[2].words


class Counting:
    """A server that counts its callers, and forgets those only that hang up."""

    def __init__(self) -> None:
        self.held: dict[int, int] = {}

    async def handle(self, socket: ServerConnection) -> None:
        key = id(socket)
        self.held[key] = 0
        try:
            async for message in socket:
                if isinstance(message, bytes):
                    self.held[key] += len(message)
                elif message == "ping":
                    await socket.send("pong")
                else:
                    told = {"type": "transcript", "text": f"{self.held[key]} bytes"}
                    await socket.send(json.dumps(told))
                    await socket.send(bytes(20))
                    await socket.send(json.dumps({"type": "done", "reply_text": "Yes."}))
        except ConnectionClosed:
            return
        del self.held[key]

    def pages(self, connection: ServerConnection, request: Request) -> Response | None:
        if request.path != "/metrics":
            return None
        text = f"sessions {len(self.held)}\nheld_bytes {sum(self.held.values())}\n"
        return connection.respond(HTTPStatus.OK, text)


@asynccontextmanager
async def counting() -> AsyncIterator[str]:
    server = Counting()
    async with serve(server.handle, "127.0.0.1", 0, process_request=server.pages) as listening:
        yield f"ws://127.0.0.1:{listening.sockets[0].getsockname()[1]}"


async def test_a_talk_is_one_conversation(said: Recording) -> None:
    async with counting() as url:
        told = await talk(url, said, said)
    assert [turn[1:] for turn in told.turns] == [("3200 bytes", "Yes."), ("6400 bytes", "Yes.")]
    assert repr(told).splitlines()[2].endswith("| 3200 bytes | Yes. |")


async def test_callers_that_go_away_without_a_word_are_seen_to_stay(said: Recording) -> None:
    async with counting() as url:
        stays = await measure_stays(url, said, callers=4)
    assert [one.here for one in stays] == [0, 1, 2, 3, 4, 3, 2, 1, 0]
    assert [one.sessions for one in stays] == [0, 1, 2, 3, 4, 3, 2, 2, 2]
    assert stays[-1].held_bytes == 2 * 3200
    drawn = plot_stays({"it": stays})
    assert list(drawn.lines[-1].get_ydata()) == [one.sessions for one in stays]


def test_figures_show_what_they_are_given() -> None:
    drawn = plot_buffer([("a", 3200), ("a", 3200), ("b", 3200), ("a", 3200)])
    assert [bar.get_width() for bar in drawn.patches] == pytest.approx([0.2, 0.1, 0.1])
    line = plot_recall([Recall(0, 50, 4, 5, 1.0), Recall(8, 150, 0, 5, 2.0)]).lines[0]
    assert [*zip(line.get_xdata(), line.get_ydata(), strict=True)] == [(0, 80), (8, 0)]
