"""Two runs compared: what is noise, what is not, and what cannot be compared."""

import csv
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from labkit.errors import InstrumentError
from labkit.measure.compare import changed, compare, read_run
from labkit.measure.exercise import Exercise
from labkit.measure.exercise_summary import TOO_FEW, Row
from labkit.measure.results import Results
from labkit.trace import Stage
from tests.measure.samples import FOREIGN, REST, rows
from tests.paths import SPEECH


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
