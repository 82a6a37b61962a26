"""The laboratory of chapter 4: what it tells of a call, and what it draws."""

import re
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from labkit.course import lab
from labkit.course.keep import write_sections
from labkit.course.lab import Call, Crowd, Taken
from labkit.course.masters import sections
from labkit.course.verdict import NotYet
from labkit.measure.recordings import recording
from labkit.measure.server_process import RunningServer, running_server
from tests.support import until


def call(direction: str, after: int | None, how: str, heard: str, reply_s: float) -> Call:
    return Call(direction, after, how, "turn the light on", heard, reply_s, 2.0, 50.0)


def test_a_call_is_told_in_two_lines() -> None:
    told = str(call("up", 45_000, "resumed", "turn the light", 1.5))
    assert told == (
        "cut after 45,000 bytes up; resumed, 50 ms later\n"
        '  said "turn the light on", heard "turn the light"; 1.5 s of the reply came'
    )
    assert str(call("up", None, "", "turn", 1.0)).startswith("not cut\n")


def test_what_gets_through_is_words_on_the_way_up_and_sound_on_the_way_down() -> None:
    assert call("up", 1, "", "turn the light", 0.0).through(2.0) == 0.75
    assert call("up", 1, "", "what a lovely day it is to be here", 0.0).through(2.0) == 0.0
    assert call("down", 1, "", "", 0.5).through(2.0) == 0.25


def test_each_figure_names_its_servers() -> None:
    calls = [call("up", 1, "", "turn", 1.0), call("down", 9, "", "turn", 1.0)]
    drawn = [
        lab.plot_calls({"before": calls, "after": calls}),
        lab.plot_taken({"before": Taken([0, 1], [0, 9]), "after": Taken([0, 1], [0, 5])}),
        lab.plot_crowd({"before": Crowd(0, [0, 1], [9, 9], [1, 1])}),
    ]
    for axes in drawn:
        assert axes.get_title(loc="left") or axes.get_title()
        legend = axes.get_legend()
        assert legend is not None
        assert legend.get_texts()[0].get_text().startswith("before")


def test_the_server_before_has_what_is_ones_own_and_nothing_of_this_chapter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABKIT_MINE", str(tmp_path))
    write_sections({**sections(4), "off_loop": "OWN = 1"})
    text = lab.server_before().read_text(encoding="utf-8")
    assert "OWN = 1" in text
    assert "Replay" not in text
    assert "class V1" in text


FORGETS = """
import asyncio, json, os
from websockets.asyncio.server import serve

async def handle(socket):
    async for message in socket:
        told = json.loads(message) if isinstance(message, str) else {"type": "audio"}
        if told["type"] == "session.start" and "resume" in told:
            gone = {"code": "session_unknown", "message": "it is gone with the process, all of it"}
            await socket.send(json.dumps({"type": "error", "hint": "x" * 80, **gone}))
        elif told["type"] == "session.start":
            began = {**told, "type": "session.started", "protocol": "labkit.v1", "resumed": False}
            await socket.send(json.dumps({**began, "session": "s", "token": "t", "received": {}}))
        elif told["type"] == "ping":
            await socket.send(json.dumps({"type": "pong", "id": told.get("id")}))
        elif told["type"] == "audio.end":
            heard = {"type": "transcript.final", "seq": 1, "turn": 1, "text": "a timer"}
            await socket.send(json.dumps(heard))
            done = {"type": "response.done", "seq": 2, "turn": 1, "text": "", "samples": 0}
            await socket.send(json.dumps(done))

async def main(port):
    protocols = ["labkit.v1"]
    async with serve(handle, "127.0.0.1", port, subprotocols=protocols) as server:
        await server.serve_forever()

asyncio.run(main(int(os.environ["PORT"])))
"""


def test_the_keepalive_of_the_server_bears_a_client_that_stands_still() -> None:
    """On two cores with other work, a client stood still for 3.9 s in the middle of an answer."""
    main = sections(4)["main"]
    found = re.search(r'"ping_timeout": (\d+)', main)
    assert found is not None
    assert int(found[1]) >= 8


async def test_a_server_that_was_killed_says_itself_what_is_lost(tmp_path: Path) -> None:
    file = tmp_path / "forgets.py"
    file.write_text(FORGETS, encoding="utf-8")
    async with AsyncExitStack() as stack:

        async def start() -> RunningServer:
            return await stack.enter_async_context(running_server([str(file)]))

        told = await lab.kill(await start(), start, recording("ked-01"))
    assert told == (
        "resume: session_unknown: it is gone with the process, all of it\n"
        'said again in a new session: "a timer"'
    )


async def test_a_server_that_fails_is_quoted_and_has_refused_nobody(tmp_path: Path) -> None:
    file = tmp_path / "fails.py"
    fails = FORGETS.replace("async for", "raise ValueError('no models')\n    async for")
    file.write_text(fails, encoding="utf-8")
    async with running_server([str(file)]) as server:
        with pytest.raises(NotYet, match=r"1011(.|\n)*ValueError: no models"):
            await lab.leave_alone(server, recording("ked-01"), callers=2)


async def test_a_click_cuts_a_call_and_draws_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    async def cut_call(server: object, said: object, **how: object) -> Call:
        asked.append(how)
        return call("down", 30_000, "resumed", "turn the light", 1.5)

    monkeypatch.setattr(lab, "cut_call", cut_call)
    shown: Any = lab.bench(RunningServer("ws://localhost:1"), recording("ked-01"))
    direction, after, network, button, told, drawn = shown.children
    labels = [one.description for one in (direction, after, network, button)]
    assert labels == ["Direction", "Bytes until the cut", "Network", "Cut"]
    assert (told.text, drawn.value) == ("nothing was cut yet", "")
    direction.value, after.value, network.value = "down", 30_000, "satellite"
    button.click()
    button.click()  # while it works, a click changes nothing
    await until(lambda: told.text.startswith("cut after 30,000 bytes down"))
    assert asked == [{"after": 30_000, "direction": "down", "network": "satellite"}]
    assert '<img alt="What gets through a cut.' in drawn.value


async def test_cuts_from_before_are_drawn_and_a_server_that_is_gone_is_told() -> None:
    before = [call("up", 45_000, "resumed", "turn the light", 1.5)]
    shown: Any = lab.bench(RunningServer("ws://localhost:1"), recording("ked-01"), before)
    *_, button, told, drawn = shown.children
    assert "cut after 45,000 bytes up" in drawn.value
    button.click()
    await until(lambda: told.text not in ("nothing was cut yet", "Saying it…"))
    assert len(before) == 1
