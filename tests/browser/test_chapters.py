"""The chapters in JupyterLab, in a real browser: opened, run, clicked, spoken to, interrupted."""

import re

import pytest

from labkit.course.folder import Progress
from labkit.course.verdict import Verdict
from labkit.measure.recordings import recording
from labkit.measure.wer import word_error_rate
from tests.browser.conftest import BEFORE_S, NOT_TESTED, SAID

pytest.importorskip("playwright", reason=f"playwright is not here (make setup): {NOT_TESTED}")

from playwright.sync_api import expect  # noqa: E402

from tests.browser.lab import Chapter, Lab, error_of, in_words  # noqa: E402

pytestmark = [
    pytest.mark.browser,
    pytest.mark.notebook,
    pytest.mark.engines,
    pytest.mark.slow,
    pytest.mark.timeout(1200),
]

STARTS = 10
TAKES = 8
MISHEARD = 0.2
"""Word errors to be forgiven: the recogniser may miss a word where a piece of sound is lost."""


def test_chapter_0(lab: Lab, chapter: Chapter) -> None:
    chapter.open(lab.first_page)
    chapter.write('predict("ch0.dead_air_ms"', 'predict("ch0.dead_air_ms", 400)')
    chapter.run_all()
    chapter.run_the_rest()
    only_stubs_failed(lab, chapter, "ch0")
    assert "you predicted 400 ms, measured:" in chapter.told('measured("ch0.dead_air_ms"')
    a_player_plays(chapter)
    a_turn_is_heard_from_a_stage(chapter)
    the_microphone_is_understood(chapter)
    a_quiz_answers(chapter)
    starting_ten_times_leaves_one_server(lab, chapter)
    a_panel_starts_and_stops_the_server(lab, chapter)


def only_stubs_failed(lab: Lab, chapter: Chapter, name: str) -> None:
    """Whatever a cell raised says that something is to be written, and no check takes a stub."""
    raised = {error_of(cell) for cell in chapter.cells()} - {""}
    assert raised == {"NotImplementedError"}, [
        in_words(cell) for cell in chapter.cells() if error_of(cell)
    ]
    noted = Progress.model_validate_json((lab.mine / "progress.json").read_bytes())
    own = {one: noted.checks[one].verdict for one in noted.checks if one.startswith(f"{name}.")}
    assert set(own.values()) == {Verdict.NOT_YET}, own


def a_player_plays(chapter: Chapter) -> None:
    """Every clip is there, and the keyboard starts one."""
    page = chapter.page
    clips = page.locator("audio")
    assert clips.count() >= 4
    page.wait_for_function(
        "() => [...document.querySelectorAll('audio')].every(clip => clip.duration > 0.5)"
    )
    clips.first.focus()
    page.keyboard.press("Space")
    page.wait_for_function("() => document.querySelector('audio').currentTime > 0.2")


def a_turn_is_heard_from_a_stage(chapter: Chapter) -> None:
    """The keyboard plays the turn from a row of its waterfall; that row is marked meanwhile."""
    page = chapter.page
    turn = page.locator(".labkit-timeline").first
    clip = turn.locator("audio").element_handle()
    turn.get_by_role("button", name="Play from reply").focus()
    page.keyboard.press("Enter")
    page.wait_for_function("clip => clip.ended", arg=clip)
    turn.get_by_role("button", name="Play from ASR").focus()
    page.keyboard.press("Space")
    page.wait_for_function(  # in one look: it may be over before a second one
        "clip => clip.currentTime > 0 && !clip.ended"
        " && clip.parentElement.querySelector('[aria-current=step]')",
        arg=clip,
    )


def the_microphone_is_understood(chapter: Chapter) -> None:
    """Record, wait until the sentence is over, stop; then the next cell says it to the server.

    Where the machine is so busy that the browser loses a piece of sound, it is said again.
    """
    chapter.run("server = await start_labkit()")
    said = recording(SAID)
    heard = []
    for _ in range(TAKES):
        record(chapter, BEFORE_S + (said.end_of_speech_sample or 0) / 16_000 + 0.5)
        told = chapter.run("print(voice.source)")
        assert "your own voice" in told
        heard += re.findall(r"<b>heard</b> ([^<]*)", told)
        if word_error_rate([(said.text, heard[-1])]) <= MISHEARD:
            return
    pytest.fail(f"said {said.text!r}, heard {heard}")


def record(chapter: Chapter, seconds: float) -> None:
    recorder = chapter.cell("voice = microphone()").get_by_role("group", name="Recorder")
    recorder.get_by_role("button", name="Record").click()
    chapter.page.wait_for_function(
        "([timer, seconds]) => parseFloat(timer.textContent) > seconds",
        arg=[recorder.get_by_role("timer").element_handle(), seconds],
    )
    recorder.get_by_role("button", name="Stop").click()
    expect(recorder).to_contain_text("s recorded. Run the next cell.")


def a_quiz_answers(chapter: Chapter) -> None:
    """A choice by mouse, and another by keyboard; each is answered, and remembered."""
    asked = chapter.cell('quiz("ch0")')
    for number, keys in enumerate([None, "Space"]):
        choices = asked.locator(".widget-radio").nth(number).get_by_role("radio")
        button = asked.get_by_role("button", name="Answer").nth(number)
        if keys is None:
            choices.nth(0).check()
            button.click()
        else:
            choices.nth(3).focus()
            chapter.page.keyboard.press(keys)
            button.press("Enter")
    expect(asked).to_contain_text("Not quite. While the first sentence plays")
    expect(asked).to_contain_text("Right. It has learned a few hundred sentences.")


def starting_ten_times_leaves_one_server(lab: Lab, chapter: Chapter) -> None:
    """The cell is run again before it is done."""
    words = "server = await start_labkit()"
    chapter.write(words, 'server = await start_labkit("--pipeline", "echo")')
    cell = chapter.cell('start_labkit("--pipeline"')
    before = chapter.executions()
    for _ in range(STARTS):
        chapter.page.keyboard.press("Control+Enter")
    expect(cell.locator(".jp-InputPrompt")).to_have_text(f"[{before + STARTS}]:")
    assert len(lab.servers()) == 1
    assert chapter.run("server.stop()") == ""
    assert lab.servers() == []


def a_panel_starts_and_stops_the_server(lab: Lab, chapter: Chapter) -> None:
    """With the keyboard; what it says is true, and it says so while no cell runs."""
    chapter.write("progress()", "from labkit import ServerPanel\nServerPanel()")
    chapter.run("ServerPanel()")
    panel = chapter.cell("ServerPanel()")
    status = panel.get_by_role("status")
    expect(status).to_contain_text("not running")
    panel.get_by_role("button", name="Start").press("Enter")
    expect(status).to_contain_text("running at ws://")
    expect(panel.get_by_role("rowheader", name="sessions")).to_be_visible()
    assert len(lab.servers()) == 1
    panel.get_by_role("button", name="Stop").press("Enter")
    expect(status).to_have_text("not running")
    assert lab.servers() == []


def test_chapter_1_again_after_a_restart(lab: Lab, chapter: Chapter) -> None:
    chapter.open(lab.page_of("01_server"))
    chapter.begin("notebook:run-all-cells")
    chapter.answer("20")  # the prediction is asked for, and everything goes on
    chapter.end()
    assert "you predicted 20 ms, measured:" in chapter.told('measured("ch1.slowest_pong_ms"')
    before = lab.servers()
    chapter.begin("notebook:restart-run-all")
    chapter.page.get_by_role("button", name="Confirm Kernel Restart").click()
    chapter.end()
    assert before
    assert not {*before} & {*lab.servers()}
    chapter.run_the_rest()
    only_stubs_failed(lab, chapter, "ch1")
    assert ": not yet. " in chapter.told('await check("ch1", naive')


def test_chapter_5_interrupted(lab: Lab, chapter: Chapter) -> None:
    chapter.open(lab.page_of("05_latency_exercise"))
    chapter.run_all()
    chapter.run_the_rest()
    only_stubs_failed(lab, chapter, "ch5")
    predict(chapter, "ch5.wait_ms", "ch5.added_at_500_ms", "ch5.naive_times")
    predict(chapter, "ch5.more_on_4g_ms")
    an_interrupt_keeps_what_was_measured(lab, chapter)
    the_sliders_measure(chapter)


def predict(chapter: Chapter, *names: str) -> None:
    cell = f'predict("{names[0]}", ...)'
    chapter.write(cell, "\n".join(f'predict("{name}", 400)' for name in names))
    chapter.run(f'predict("{names[0]}", 400)')


def an_interrupt_keeps_what_was_measured(lab: Lab, chapter: Chapter) -> None:
    words = "result = await run_exercise("
    chapter.select(words)
    chapter.begin("notebook:run-cell")
    expect(chapter.cell(words)).to_contain_text("4 of ")
    assert lab.servers()
    chapter.page.locator('[data-command="notebook:interrupt-kernel"]').click()
    chapter.end()
    assert error_of(chapter.of(words)) in ("CancelledError", "KeyboardInterrupt")
    assert "raw data and figures: ../results" in chapter.told(words)
    assert lab.servers() == []
    (folder,) = (lab.mine.parent / "results").iterdir()
    rows = (folder / "turns.csv").read_text().splitlines()
    assert len(rows) > 4


def the_sliders_measure(chapter: Chapter) -> None:
    """The arrow keys move them, and the button measures what they say."""
    words = "bench = Bench("
    chapter.run(words)
    bench = chapter.cell(words)
    size, network = bench.get_by_role("slider").all()
    size.focus()
    chapter.page.keyboard.press("ArrowRight")
    network.focus()
    chapter.page.keyboard.press("ArrowRight")
    button = bench.get_by_role("button", name="Measure")
    button.click()
    expect(bench.get_by_text("50 ms chunks over lan: ")).to_be_visible()
    expect(bench.get_by_role("img", name="50 ms chunks over lan: ")).to_be_visible()
    expect(button).to_be_enabled()
