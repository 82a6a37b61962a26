"""`labkit talk`: any server of the plain dialect, and what is printed of a turn."""

import asyncio
import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import typer
from websockets.asyncio.server import ServerConnection

from labkit.audio.pcm import Float32, read_audio, write_wav
from labkit.cli.talk import print_turn, talk
from labkit.client.turn import ClientTurn
from labkit.errors import ClientError, ErrorCode, LabkitError
from labkit.protocol import plain
from labkit.trace import SERVER_MARKS, Mark, Trace
from labkit.voice.pipeline import VoicePipeline
from labkit.voice.scripted import ScriptedAsr, ScriptedLlm, scripted_engines
from tests.callers import serving
from tests.client.peers import of_the_readme, silent, websocket


@pytest.fixture
def said(tmp_path: Path) -> Path:
    """Half a second of a tone, and a quarter of silence behind it."""
    path = tmp_path / "said.wav"
    tone = 0.3 * np.sin(np.arange(8000) / 5)
    write_wav(path, np.pad(tone, (0, 4000)).astype(np.float32))
    return path


def marked(*, told: bool = True) -> Trace:
    """A turn of 10 ms a mark; without those of the server, where they are not told."""
    at_ns = {mark: number * 10_000_000 for number, mark in enumerate(Mark)}
    return Trace({mark: ns for mark, ns in at_ns.items() if told or mark not in SERVER_MARKS})


def test_what_a_server_says_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    refusal = plain.Error(code=ErrorCode.ENGINE_FAILED, message="out of [mem]", hint="[/]", count=7)
    turn = ClientTurn(transcript="say [b]", reply_text="[/b] it is", errors=[refusal])
    print_turn(turn, "ends")
    out = capsys.readouterr().out
    assert "out of [mem] ([/]), 7 times" in out
    assert "say [b]" in out
    assert "[/b] it is" in out


def test_what_a_server_says_is_no_command_to_the_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_turn(ClientTurn(transcript="hi\x1b[2J\n[red]", reply_text="\x9b1m"), "ends")
    out = capsys.readouterr().out
    assert "hi [2J [red]" in out
    assert not set(out) & {"\x1b", "\x9b"}


def test_an_estimated_clock_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    print_turn(ClientTurn(clock_offset_ns=5, trace=marked()), "ends")
    assert "estimated from ping round trips" in " ".join(capsys.readouterr().out.split())


def test_a_share_is_one_of_the_whole_wait(capsys: pytest.CaptureFixture[str]) -> None:
    print_turn(ClientTurn(trace=marked(told=False), remarks=["[b] is odd"]), "ends")
    rows = [line.split("\u2502")[1:-1] for line in capsys.readouterr().out.splitlines()]
    table = {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows if row}
    assert table["packetisation"] == ["20.0", "15 %", "█" * 5]
    assert table["not told by the server"] == ["100.0", "77 %", "█" * 23]
    assert table["total"] == ["130.0", "", ""]


def test_work_ahead_is_drawn_where_it_ran(capsys: pytest.CaptureFixture[str]) -> None:
    ms = 1_000_000
    trace = Trace({Mark.ASR_STARTED: 200 * ms, Mark.ASR_DONE: 300 * ms})
    trace.wait_from(500 * ms)
    trace.merge(
        {
            Mark.END_OF_SPEECH: 0,
            Mark.LLM_FIRST_TOKEN: 600 * ms,
            Mark.FIRST_AUDIO_HEARD: 1000 * ms,
        }
    )
    print_turn(ClientTurn(trace=trace), "ends")
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    drawn = {row[1].strip(): row[4] for line in lines if len(row := line.split("\u2502")) > 4}
    assert drawn["dead air"] == " " + "█" * 15 + " " * (len(drawn["dead air"]) - 16)
    assert drawn["ASR"].rstrip() == " " + " " * 6 + "░" * 3
    assert drawn["LLM first token"].rstrip() == " " + " " * 9 + "░" * 6 + "█" * 3
    assert "worked on ahead" in drawn["total"]


@pytest.mark.parametrize("chunk_ms", [10.0, 400.0])
async def test_a_server_of_bare_websockets_that_keeps_to_the_rules_answers(
    said: Path, capsys: pytest.CaptureFixture[str], chunk_ms: float
) -> None:
    async with websocket(of_the_readme()) as url:
        trace = said.with_suffix(".json")
        await asyncio.to_thread(talk, [said], url=url, chunk_ms=chunk_ms, trace=trace)
        await asyncio.to_thread(talk, [said], url=url, chunk_ms=chunk_ms, as_json=True)
    assert json.loads(trace.read_text())["traceEvents"]
    printed = capsys.readouterr().out
    shown, turn = printed[: printed.index("{")], json.loads(printed[printed.index("{") :])
    assert "it does not offer ?reply=stream" in " ".join(shown.split())
    assert "speech ends at 0.50 of 0.75 s, known by energy" in shown
    assert all(len(line) <= 80 for line in shown.splitlines())
    assert sum(turn["stages"].values()) == pytest.approx(turn["ttfa_ms"])
    # The chunk in which the speech ends is sent whole: the wait for it is what chunks cost.
    assert turn["stages"]["packetisation"] >= (chunk_ms - 500) % chunk_ms
    assert turn["transcript"] == f"{0.5 if chunk_ms == 10 else 0.8} seconds of audio"


async def test_a_server_that_says_nothing_is_given_up(said: Path) -> None:
    options: dict[str, Any] = {"chunk_ms": 100.0, "wait_s": 0.2}
    async with websocket(silent) as url:
        with pytest.raises(ClientError, match="no transcript came within 0.2 s; nothing else came"):
            await asyncio.to_thread(talk, [said], url=url, **options)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("option", ["out", "trace"])
async def test_a_turn_is_told_although_the_disk_is_full(
    said: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    options: dict[str, Any] = {option: Path("/dev/full"), "chunk_ms": 400.0}
    async with websocket(of_the_readme()) as url:
        with pytest.raises(LabkitError, match="/dev/full cannot be written: No space left"):
            await asyncio.to_thread(talk, [said], url=url, **options)
    assert "0.8 seconds of audio" in capsys.readouterr().out


async def test_a_turn_is_written_although_nobody_reads_what_is_printed(
    said: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("labkit.cli.talk.print_turn", fail)
    files = {"out": said.with_name("reply.wav"), "trace": said.with_name("trace.json")}
    async with websocket(of_the_readme()) as url:
        with pytest.raises(BrokenPipeError):
            await asyncio.to_thread(talk, [said], url=url, chunk_ms=400.0, **files)
    assert len(read_audio(files["out"])) == 8000
    assert json.loads(files["trace"].read_text())["traceEvents"]


async def test_several_recordings_are_turns_of_one_conversation(
    said: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {"out": said.with_name("replies.wav"), "trace": said.with_name("turns.json")}
    pipeline = VoicePipeline(scripted_engines(llm=ScriptedLlm(lambda told: f"Turn {len(told)}.")))
    async with serving(pipeline) as server:
        for mode in ("push", "vad"):
            await asyncio.to_thread(
                talk, [said, said], url=server.url, mode=mode, as_json=True, **files
            )
            first, second = map(json.loads, capsys.readouterr().out.splitlines())
            assert first["recording"] == second["recording"] == str(said)
            # What was said and answered first is part of what the second is an answer to.
            assert (first["reply_text"], second["reply_text"]) == ("Turn 1.", "Turn 3.")
            length_s = first["reply_seconds"] + second["reply_seconds"]
            assert len(read_audio(files["out"])) == pytest.approx(16_000 * length_s, abs=20)
            events = json.loads(files["trace"].read_text())["traceEvents"]
            assert {event["pid"] for event in events} == {1, 2}


async def test_what_was_said_before_the_server_was_lost_is_told_and_written(
    said: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def answer_once(socket: ServerConnection) -> None:
        async for message in socket:
            if message == "end_stream":
                await socket.send('{"type": "transcript", "text": "set a timer"}')
                await socket.send(bytes(16_000))
                return

    reply = said.with_name("reply.wav")
    async with websocket(answer_once) as url:
        with pytest.raises(ClientError):
            await asyncio.to_thread(talk, [said, said], url=url, chunk_ms=400.0, out=reply)
    printed = capsys.readouterr().out
    assert "said.wav" in printed
    assert "set a timer" in printed
    assert len(read_audio(reply)) == 8000


@pytest.mark.parametrize("mode", ["push", "vad"])
async def test_an_error_in_the_place_of_a_reply_is_a_failure_of_the_command(
    said: Path, capsys: pytest.CaptureFixture[str], mode: Literal["push", "vad"]
) -> None:
    def fail(_: Float32) -> str:
        raise RuntimeError("out of memory")

    async with serving(VoicePipeline(scripted_engines(asr=ScriptedAsr(fail)))) as server:
        with pytest.raises(typer.Exit) as ended:
            await asyncio.to_thread(talk, [said], url=server.url, mode=mode)
    assert ended.value.exit_code == 1
    assert "the server says:" in capsys.readouterr().out


@pytest.fixture
def of_labkit(said: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recording of the data folder, whose name is "said"."""
    monkeypatch.setenv("LABKIT_DATA", str(said.parent))
    monkeypatch.chdir(said.parent)
    (said.parent / "speech").mkdir()
    line = {"file": "said.wav", "text": "hi", "voice": "v", "kind": "utterance"}
    line |= {"synthesiser": "s", "licence": "l", "end_of_speech_sample": 8000}
    (said.parent / "speech/manifest.jsonl").write_text(json.dumps(line))
    return said.rename(said.parent / "speech/said.wav")


async def test_a_recording_of_labkit_is_said_by_its_name(
    of_labkit: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with websocket(of_the_readme()) as url:
        await asyncio.to_thread(talk, [Path("said")], url=url, as_json=True)
    assert json.loads(capsys.readouterr().out)["recording"] == str(of_labkit)


@pytest.mark.usefixtures("of_labkit")
def test_a_file_goes_before_a_recording_of_its_name() -> None:
    with pytest.raises(LabkitError, match="there is no file other: it was not found"):
        talk([Path("other")])
    Path("said").write_text("no recording")
    with pytest.raises(LabkitError, match="said is no readable WAV or FLAC recording"):
        talk([Path("said")])


def test_two_results_do_not_go_into_one_file(said: Path) -> None:
    file = said.with_name("both")
    with pytest.raises(LabkitError, match="--out and --trace both name .*both; name two files"):
        talk([said], out=file, trace=file)


def test_the_recording_is_not_written_over(said: Path) -> None:
    before = said.read_bytes()
    with pytest.raises(LabkitError, match="is the recording itself; name another file"):
        talk([said], out=said.parent / "." / said.name)
    assert said.read_bytes() == before
