"""Turns as rows, their columns, that the exercise runs as planned, and two runs compared."""

import asyncio
import csv
import json
import textwrap
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from labkit.audio.pcm import encode_s16le
from labkit.client.turn import ClientTurn
from labkit.errors import InstrumentError, LabkitError
from labkit.measure import exercise as exercise_module
from labkit.measure.exercise import Exercise, changed, compare, failed_row, read_run, row_of
from labkit.measure.exercise_summary import TOO_FEW, Row
from labkit.measure.plan import PlannedTurn
from labkit.measure.recordings import load_manifest
from labkit.measure.results import Results, conduct, read_rows
from labkit.measure.targets import Access, Target
from labkit.protocol import v1
from labkit.server.admission import Admission
from labkit.server.app import VoiceServer
from labkit.session.settings import ServerSettings
from labkit.trace import Mark, Stage, Trace
from labkit.voice.pipeline import VoicePipeline
from labkit.voice.scripted import ScriptedAsr, scripted_engines
from tests.measure.samples import FOREIGN, REST, rows
from tests.paths import SPEECH


def test_a_turn_becomes_a_row() -> None:
    recording = load_manifest(SPEECH)[0]
    marks = {
        Mark.STREAM_STARTED: 1_000_000_000,
        Mark.END_OF_SPEECH: 1_500_000_000,
        Mark.END_STREAM_SENT: 1_520_000_000,
        Mark.FIRST_AUDIO_RECEIVED: 1_600_000_000,
        Mark.FIRST_AUDIO_HEARD: 1_630_000_000,
    }
    turn = ClientTurn("hi", "Hi!", np.zeros(8000, np.float32), Trace(dict(marks)), 25, 32_000, 1.5)
    made = row_of(PlannedTurn("labkit", 0, 20, 0.3, 5), recording, turn)
    assert (made.ttfb_ms, made.ttfa_ms) == (100.0, 130.0)
    assert made.stages == {
        Stage.PACKETISATION: 20.0,
        Stage.UNTOLD: 80.0,
        Stage.LEADING_SILENCE: 30.0,
    }
    assert made.marks[Mark.END_OF_SPEECH] == 500.0
    assert (made.reply_seconds, made.audio_seconds, made.messages) == (0.5, 1.0, 25)
    assert (made.block, made.warmup) == (5, False)
    assert (made.utterance, made.said) == (recording.path.name, recording.text)


def test_a_row_has_a_column_per_stage_and_mark() -> None:
    flat = [row.columns() for row in rows()]
    head = "utterance,voice,chunk_ms,warmup,transcript,reply_text,reply_seconds,ttfa_ms"
    assert list(flat[0])[:8] == head.split(",")
    assert list(flat[0]) == list(Exercise.columns)
    assert {f"mark_{mark.value}_ms" for mark in Mark} <= set(flat[0])
    assert [columns["warmup"] for columns in flat[:2]] == [1, 0]
    for columns in flat:
        parts = sum(columns[f"stage_{stage.value}_ms"] or 0.0 for stage in Stage)
        assert parts == pytest.approx(columns["ttfa_ms"])


def test_a_turn_that_failed_is_a_row_that_says_why() -> None:
    recording = load_manifest(SPEECH)[0]
    made = failed_row(PlannedTurn("mine", 0, 20, 0.3, 5), recording, "it hung up")
    assert (made.ttfa_ms, made.errors, made.messages) == (None, "it hung up", 0)
    assert (made.server, made.block, made.listening_cpu_ms) == ("mine", 5, None)


def test_servers_share_the_time_down_to_five_blocks() -> None:
    def blocks(quick: bool, servers: int) -> int:
        targets = [Target(str(number)) for number in range(servers)]
        return Exercise.of_length(quick=quick, targets=targets, recordings=SPEECH).blocks

    assert [blocks(False, servers) for servers in (1, 2, 3, 9)] == [20, 10, 6, 5]
    assert [blocks(True, servers) for servers in (1, 2)] == [8, 5]
    targets = [Target(name) for name in "abc"]
    assert Exercise.of_length(quick=True, targets=targets, chunk_sizes_ms=(40,)).blocks == 8


async def test_recordings_that_are_too_long_are_told(tmp_path: Path) -> None:
    (tmp_path / "long.wav").touch()
    (tmp_path / "manifest.jsonl").write_text(
        '{"file": "long.wav", "text": "hi", "voice": "v", "kind": "utterance", "synthesiser": "s",'
        ' "licence": "l", "end_of_speech_sample": 160000}'
    )
    with pytest.raises(LabkitError, match="no recording ends within 2.6 s"):
        await Exercise(recordings=tmp_path).run(lambda _: None, lambda *_: None)


def answering(*, pongs: bool) -> Callable[[ServerConnection], Awaitable[None]]:
    """A server that answers with a tone, and perhaps pings; the third turn is its last."""
    turns = 0
    tone = encode_s16le(np.full(1_600, 0.5, np.float32))

    async def handle(socket: ServerConnection) -> None:
        nonlocal turns
        async for message in socket:
            if message == "ping" and pongs:
                await socket.send("pong")
            elif message == "end_stream":
                turns += 1
                if turns > 2:
                    await socket.close(1011, "out of memory")
                    return
                await socket.send('{"type": "transcript", "text": "I\'m Oliver."}')
                await socket.send(tone)

    return handle


async def test_servers_are_measured_by_turns_and_what_they_lack_is_told(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        targets = []
        for name, pongs, compression in (("a", True, "deflate"), ("b", False, None)):
            serving = serve(answering(pongs=pongs), "127.0.0.1", 0, compression=compression)
            server = await stack.enter_async_context(serving)
            port = server.sockets[0].getsockname()[1]
            targets.append(Target(name, url=f"ws://127.0.0.1:{port}"))
        exercise = Exercise(
            recordings=SPEECH,
            targets=targets,
            access=Access(deflate=True, patience_s=5.0),
            blocks=1,
            chunk_sizes_ms=(40,),
            longest_s=1.1,
        )
        summed = await conduct(exercise, Results(tmp_path / "results"))
    assert [row.server for row in summed.rows[:2]] == ["a", "b"]
    assert all("stream" in row.errors for row in summed.rows[:2])
    assert all(row.errors == "" for row in summed.rows[2:4])
    last = summed.rows[4:]
    assert {row.server for row in last} == {"a", "b"}
    assert all(row.ttfa_ms is None and "out of memory" in row.errors for row in last)
    a, b = summed.servers
    assert (a.asked, a.turns, b.word_error_rate) == (2, 1, 0)
    assert summed.rtts_ms["a"]
    assert not summed.rtts_ms["b"]
    words = " ".join(summed.sentences())
    assert "b does not compress: measured without." in words
    assert "a left 1 of 2 turns without an audible answer; of 1 it is told: " in words
    sent = [server.middle.wire_bytes_per_s for server in (a, b)]
    assert sent[0] is not None
    assert sent[1] is not None
    assert sent[0] < 32_000 < sent[1]


async def test_a_server_that_decides_and_speaks_nothing_else_is_not_pinged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def process(self: Admission, socket: ServerConnection, request: Request) -> Response | None:
        if v1.SUBPROTOCOL in request.headers.get("Sec-WebSocket-Protocol", ""):
            return let_in(self, socket, request)
        return Response(400, "Bad Request", Headers(), b"labkit.v1 only")

    let_in = Admission.process_request
    monkeypatch.setattr(Admission, "process_request", process)
    pipeline = VoicePipeline(scripted_engines(asr=ScriptedAsr(lambda audio: "I'm Oliver.")))
    async with VoiceServer(pipeline, ServerSettings(host="127.0.0.1", port=0)) as labkit:
        exercise = Exercise(
            recordings=SPEECH,
            targets=[Target("a", url=labkit.url), Target("b", url=labkit.url)],
            blocks=1,
            chunk_sizes_ms=(100,),
            longest_s=1.1,
            decided=True,
        )
        summed = await conduct(exercise, Results(tmp_path / "results"))
    assert [server.turns for server in summed.servers] == [2, 2]
    assert not any(row.errors for row in summed.rows)
    assert summed.rtts_ms == {"a": [], "b": []}


_DIES_AT_ITS_FOURTH_CALL = """
    import asyncio, json, os
    from websockets.asyncio.server import serve

    calls = []

    async def handle(socket):
        calls.append(socket)
        async for message in socket:
            if message == "ping":
                await socket.send("pong")
            elif message == "end_stream":
                if len(calls) > 3:
                    print("no memory")
                    os._exit(7)
                await socket.send(json.dumps({"type": "transcript", "text": "hi"}))
                await socket.send(bytes([1, 2]) * 4000)

    async def main():
        async with serve(handle, "localhost", int(os.environ["PORT"])):
            await asyncio.Future()

    asyncio.run(main())
"""


async def test_a_server_that_fails_at_its_first_turn_ends_the_run(tmp_path: Path) -> None:
    async def handle(socket: ServerConnection) -> None:
        await socket.close(1008, "no microphone")

    async with serve(handle, "127.0.0.1", 0) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        target = Target("mine", url=url)
        exercise = Exercise(recordings=SPEECH, targets=[target], longest_s=1.1)
        with pytest.raises(LabkitError, match="mine failed at its first turn: .*no microphone"):
            await conduct(exercise, Results(tmp_path / "results"))
    assert not (tmp_path / "results").exists()


async def test_a_file_that_ends_in_the_middle_says_how_and_its_last_words(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(textwrap.dedent(_DIES_AT_ITS_FOURTH_CALL))
    exercise = Exercise(
        recordings=SPEECH,
        targets=[Target("mine", command=[str(file)])],
        blocks=4,
        chunk_sizes_ms=(100,),
        longest_s=1.1,
    )
    summed = await conduct(exercise, Results(tmp_path / "results"))
    told = "its process ended with code 7, and wrote last: no memory"
    assert summed.rows[-1].errors == told
    assert told in " ".join(summed.sentences())
    assert "labkit serve" not in " ".join(summed.sentences())


async def test_the_server_decides_or_its_client_where_it_cannot(tmp_path: Path) -> None:
    pipeline = VoicePipeline(scripted_engines(asr=ScriptedAsr(lambda audio: "I'm Oliver.")))
    async with (
        VoiceServer(pipeline, ServerSettings(host="127.0.0.1", port=0)) as labkit,
        serve(answering(pongs=True), "127.0.0.1", 0) as bare,
    ):
        url = f"ws://127.0.0.1:{bare.sockets[0].getsockname()[1]}"
        exercise = Exercise(
            recordings=SPEECH,
            targets=[Target("labkit", url=labkit.url), Target("bare", url=url)],
            access=Access(deflate=True),
            blocks=1,
            chunk_sizes_ms=(100,),
            longest_s=1.1,
            decided=True,
        )
        summed = await conduct(exercise, Results(tmp_path / "results"))
    first, second = summed.servers
    assert (first.turns, second.word_error_rate) == (2, 0)
    for server in summed.servers:
        assert server.parts[Stage.DEAD_AIR] >= 500
        assert Stage.PACKETISATION not in server.parts
    assert Stage.ASR in first.parts
    assert "bare has no turns whose end it decides" in " ".join(summed.sentences())
    assert "labkit has no turns" not in " ".join(summed.sentences())
    assert "labkit does not compress: measured without." in " ".join(summed.sentences())
    assert exercise.about()["end_of_a_turn"] == "decided by the server"


def test_parts_that_do_not_add_up_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exercise_module, "wrong_parts", lambda stages, ttfa: "ASR takes -5 ms")

    async def run() -> None:
        async with serve(answering(pongs=True), "127.0.0.1", 0) as server:
            url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            exercise = Exercise(recordings=SPEECH, targets=[Target("mine", url=url)], longest_s=1.1)
            with pytest.raises(InstrumentError, match="a turn of mine cannot be believed: ASR"):
                await conduct(exercise, Results(tmp_path / "results"))

    asyncio.run(run())
    assert len(read_rows(tmp_path / "results" / "turns.csv", dict)) == 1


def test_no_password_of_an_address_is_kept() -> None:
    exercise = Exercise(targets=[Target.running("ws://me:secret@box:1/x")])
    assert exercise.about()["servers"] == {"box:1": "ws://box:1/x"}


def written(folder: Path, measured: Sequence[Row], **about: object) -> Path:
    """A run as the exercise writes it."""
    exercise, results = Exercise(recordings=SPEECH), Results(folder)
    with results.rows(exercise.raw, exercise.columns) as write:
        for row in measured:
            write(row.columns())
    if about:
        results.write_json(exercise.summary, {"about": about})
    return folder


def slower(measured: Sequence[Row], stage: Stage, by_ms: float, jitter_ms: float = 0) -> list[Row]:
    """The same turns with a stage that takes longer, by more in one block than in the next."""

    def longer(row: Row) -> Row:
        more = by_ms + jitter_ms * (1 if (row.block or 0) % 2 else -1)
        stages = {**row.stages, stage: row.stages[stage] + more}
        return replace(row, stages=stages, ttfa_ms=(row.ttfa_ms or 0) + more)

    return [longer(row) for row in measured]


def test_a_run_is_read_as_it_was_written(tmp_path: Path) -> None:
    measured = rows()
    run = read_run(written(tmp_path / "a", measured))
    counted = [row for row in measured if not row.warmup]
    assert run.about == {}
    assert [row.ttfa_ms for row in run.servers["labkit"]] == pytest.approx(
        [row.ttfa_ms for row in counted], abs=1e-3
    )
    assert run.servers["labkit"][0].stages.keys() == counted[0].stages.keys()


def test_what_became_slower_is_named_and_the_rest_is_noise(tmp_path: Path) -> None:
    first = read_run(written(tmp_path / "a", rows()))
    second = read_run(written(tmp_path / "b", slower(rows(), Stage.TTS_FIRST_AUDIO, 25, 3)))
    (found,) = compare(first, second)
    verdicts = {part.what: part.verdict for part in found.parts}
    assert verdicts["the whole wait"] == verdicts["TTS first audio"] == "slower"
    assert {verdicts[name] for name in ("ASR", "effect of 10 to 500 ms")} == {"noise"}
    assert "the second run is slower by 25 ms (95 % interval 22 to 28, 8 recordings)" in (
        found.sentence()
    )


def test_what_goes_up_and_down_is_noise(tmp_path: Path) -> None:
    first = read_run(written(tmp_path / "a", rows()))
    second = read_run(written(tmp_path / "b", slower(rows(), Stage.ASR, 2, 30)))
    (found,) = compare(first, second)
    assert found.parts[0].verdict == "noise"
    assert found.sentence().endswith("noise.")


def test_runs_with_few_recordings_in_common_cannot_tell(tmp_path: Path) -> None:
    first = read_run(written(tmp_path / "a", rows()))
    second = read_run(written(tmp_path / "b", slower(rows(blocks=2), Stage.ASR, 100)))
    (found,) = compare(first, second)
    assert found.parts[0].verdict == TOO_FEW
    assert TOO_FEW in found.sentence()


def test_servers_of_one_name_are_compared_or_else_the_only_ones(tmp_path: Path) -> None:
    both = read_run(written(tmp_path / "a", rows(servers={"labkit": REST, "mine": FOREIGN})))
    mine = read_run(written(tmp_path / "b", rows(servers={"mine": FOREIGN})))
    labkit = read_run(written(tmp_path / "c", rows()))
    assert [(c.first, c.second) for c in compare(both, mine)] == [("mine", "mine")]
    assert [(c.first, c.second) for c in compare(mine, labkit)] == [("mine", "labkit")]
    assert compare(mine, labkit)[0].sentence().startswith("labkit for mine: ")
    other = read_run(written(tmp_path / "d", rows(servers={"x": REST, "y": REST})))
    with pytest.raises(InstrumentError, match="no server in common: labkit, mine in .*x, y in"):
        compare(both, other)


def test_runs_without_a_chunk_size_or_a_recording_in_common_are_refused(tmp_path: Path) -> None:
    first = read_run(written(tmp_path / "a", rows((10, 40))))
    with pytest.raises(InstrumentError, match="no chunk size in common"):
        compare(first, read_run(written(tmp_path / "b", rows((20, 50)))))
    elsewhere = [replace(row, utterance=f"other-{row.utterance}") for row in rows((10, 40))]
    with pytest.raises(InstrumentError, match="no recording in common"):
        compare(first, read_run(written(tmp_path / "c", elsewhere)))


def test_other_conditions_are_told(tmp_path: Path) -> None:
    first = read_run(written(tmp_path / "a", rows(), network="loopback", versions={"numpy": "1"}))
    second = read_run(written(tmp_path / "b", rows(), network="4g", versions={"numpy": "2"}))
    assert changed(first, second) == ["network: loopback -> 4g", "numpy: 1 -> 2"]


def test_a_value_that_is_none_is_named_with_its_place(tmp_path: Path) -> None:
    folder = written(tmp_path / "a", rows())
    turns = (folder / "turns.csv").read_text().splitlines()
    fields = turns[0].split(",")
    last = turns[-1].split(",")
    last[fields.index("ttfa_ms")] = "nan"
    (folder / "turns.csv").write_text("\n".join([*turns[:-1], ",".join(last)]))
    with pytest.raises(InstrumentError, match=f"line {len(turns)}: field 'ttfa_ms': .* is 'nan'"):
        read_run(folder)


@pytest.mark.parametrize("about", [5, [1], {"versions": 5}])
def test_a_summary_of_another_form_is_refused(tmp_path: Path, about: object) -> None:
    folder = written(tmp_path / "a", rows())
    (folder / "summary.json").write_text(json.dumps({"about": about}))
    with pytest.raises(InstrumentError, match=r"summary.json is not as this labkit writes it"):
        read_run(folder)


@pytest.mark.parametrize("content", [None, "", "a,b\n1,2\n", "utterance\nx\n"])
def test_a_folder_without_turns_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "turns.csv").write_text(content)
    if content == "":
        (tmp_path / "summary.json").write_text(json.dumps([]))
    with pytest.raises(InstrumentError, match="holds no turns of an exercise"):
        read_run(tmp_path)


def test_a_run_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    folder = written(tmp_path / "a", rows())
    with (folder / "turns.csv").open(newline="") as file:
        turns = list(csv.DictReader(file))
    with (folder / "turns.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [name for name in turns[0] if name != "heard_ms"])
        writer.writeheader()
        writer.writerows({k: v for k, v in row.items() if k != "heard_ms"} for row in turns)
    (found,) = compare(read_run(folder), read_run(written(tmp_path / "b", rows())))
    assert found.parts[0].verdict == "noise"
