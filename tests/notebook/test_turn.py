"""A turn that shows itself: words, players, figures."""

import base64
import io
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from matplotlib.figure import Figure

from labkit.audio.pcm import SAMPLE_RATE, write_wav
from labkit.client.turn import ClientTurn
from labkit.errors import AudioError, ErrorCode, LabkitError
from labkit.measure.recordings import recording
from labkit.notebook.turn import SpokenTurn, recordings, say
from labkit.notebook.widgets import Timeline
from labkit.protocol import plain
from labkit.trace import SERVER_MARKS, STAGES, Mark, Stage, Trace
from labkit.voice.pipeline import EchoPipeline
from tests.callers import serving

MS = 1_000_000


def marks() -> dict[Mark, int]:
    """A turn that began at 0 s: 1.5 s of speech, an answer 400 ms later."""
    at_ms = {
        Mark.STREAM_STARTED: 0,
        Mark.END_OF_SPEECH: 1500,
        Mark.END_STREAM_SENT: 1510,
        Mark.END_STREAM_RECEIVED: 1511,
        Mark.ASR_DONE: 1711,
        Mark.LLM_FIRST_TOKEN: 1761,
        Mark.LLM_FIRST_SENTENCE: 1801,
        Mark.TTS_FIRST_AUDIO: 1881,
        Mark.FIRST_AUDIO_RECEIVED: 1882,
        Mark.FIRST_AUDIO_HEARD: 1900,
    }
    return {mark: ms * MS for mark, ms in at_ms.items()}


def spoken(**answer: Any) -> SpokenTurn:
    """A turn with a known answer."""
    given: dict[str, Any] = {
        "transcript": "turn on the lights",
        "reply_text": "The lights are on.",
        "reply": np.full(8000, 0.5, np.float32),
        "trace": Trace(marks()),
    }
    said = np.full(24_000, 0.25, np.float32)
    return SpokenTurn(recording("ked-01"), said, ClientTurn(**{**given, **answer}))


def page(turn: SpokenTurn) -> ElementTree.Element:
    """What a notebook shows; `controls` has no value in HTML, but in XML it needs one."""
    return ElementTree.fromstring(turn._repr_html_().replace("audio controls", 'audio controls=""'))


def words(element: ElementTree.Element) -> str:
    return " ".join("".join(element.itertext()).split())


def test_a_turn_in_plain_text() -> None:
    said = recording("ked-01").text
    assert repr(spoken()).splitlines() == [
        f"said   {said} (1.50 s)",
        "heard  turn on the lights",
        "reply  The lights are on. (0.50 s)",
        "wait   400 ms from the end of speech to the first sound of the reply; the longest part: "
        f"{Stage.ASR.label}, 200 ms, 50 % of it",
    ]


def test_a_turn_in_a_notebook_says_the_same() -> None:
    shown = words(page(spoken()))
    for line in repr(spoken()).splitlines():
        assert line.split(maxsplit=1)[1] in shown


def test_both_sides_can_be_played_with_native_controls() -> None:
    said, reply = page(spoken()).iter("audio")
    assert said.get("aria-label") == f"What was said: {recording('ked-01').text}"
    assert reply.get("aria-label") == "The reply: The lights are on."
    for player, samples, value in ((said, 24_000, 0.25), (reply, 8000, 0.5)):
        assert "controls" in player.attrib
        kind, _, wav = player.get("src", "").partition(";base64,")
        assert kind == "data:audio/wav"
        audio, rate = soundfile.read(io.BytesIO(base64.b64decode(wav)))
        assert (rate, len(audio)) == (SAMPLE_RATE, samples)
        assert np.allclose(audio, value, atol=1e-3)


def test_the_small_waterfall_names_every_stage_and_its_time() -> None:
    turn = spoken()
    (waterfall,) = page(turn).iter("svg")
    written = [text.text for text in waterfall.iter("text")]
    for stage, span in turn.trace.stages_ms().items():
        assert stage.label in written
        assert f"{span:.0f} ms" in written
        assert f"{stage.label}: {span:.0f} ms" in waterfall.get("aria-label", "")
    bars = [(float(r.get("x", 0)), float(r.get("width", 0))) for r in waterfall.iter("rect")]
    for (x, width), (following, _) in zip(bars, bars[1:], strict=False):
        assert following == pytest.approx(x + width, abs=1.1)


def test_the_whole_turn_can_be_heard_on_one_axis() -> None:
    whole = spoken().whole_audio
    assert len(whole) == 1882 * 16 + 8000
    assert np.all(whole[:24_000] == 0.25)
    assert not np.any(whole[24_000 : 1882 * 16])
    assert np.all(whole[1882 * 16 :] == 0.5)


def test_a_reply_that_came_before_the_recordings_end_is_heard_at_the_same_time() -> None:
    early = Trace({**marks(), Mark.FIRST_AUDIO_RECEIVED: 1400 * MS})
    whole = spoken(trace=early).whole_audio
    assert len(whole) == 1400 * 16 + 8000
    assert np.all(whole[1400 * 16 : 24_000] == 0.75)


@pytest.mark.parametrize(
    ("mark", "said_s", "silence_s"),
    [("stream_started", 1.5, 0.382), ("end_of_speech", 0, 0.382), ("tts_first_audio", 0, 0.001)],
)
def test_a_turn_is_heard_from_a_mark_on(mark: str, said_s: float, silence_s: float) -> None:
    heard = spoken().audio_from(mark)
    said, silence = round(said_s * SAMPLE_RATE), round(silence_s * SAMPLE_RATE)
    assert np.all(heard[:said] == 0.25)
    assert not np.any(heard[said : said + silence])
    assert np.all(heard[said + silence :] == 0.5)
    assert len(heard) == said + silence + 8000


def test_a_mark_that_is_none_is_named_and_so_are_those_that_there_are() -> None:
    told = r"no mark 'asr_started'; it has stream_started, end_of_speech, .*, first_audio_heard$"
    with pytest.raises(LabkitError, match=told):
        spoken().audio_from("asr_started")
    with pytest.raises(LabkitError, match="it has none"):
        spoken(trace=Trace()).play_from("nonsense")


def test_a_player_shows_what_is_heard_from_a_mark_on(displayed: list[Any]) -> None:
    spoken().play_from("asr_done")
    html = displayed[0]._repr_html_()
    assert f"From asr_done on. Said: {recording('ked-01').text}. Reply: The lights are on." in html


def test_each_row_of_the_timeline_begins_where_its_stage_does() -> None:
    turn = spoken()
    shown = turn.timeline()
    assert [row["label"] for row in shown.rows] == [
        "said", *(stage.label for stage in STAGES), "reply"
    ]  # fmt: skip
    starts = [row["start"] for row in shown.rows]
    begins = [marks()[begin] / MS / 1000 for begin, _ in STAGES.values()]
    assert starts == pytest.approx([0, *begins, 1.9])
    assert [row["text"] for row in shown.rows[:3]] == [turn.said, "10 ms", "1 ms"]
    assert shown.rows[-1]["text"] == "The lights are on."
    assert [row["bar"] for row in shown.rows] == [False, *[True] * len(STAGES), False]
    assert shown.wait == pytest.approx((1.5, 1.9))
    audio, rate = soundfile.read(io.BytesIO(shown.wav))
    assert (len(audio), rate) == (len(turn.whole_audio), SAMPLE_RATE)
    assert "Said: " in shown.label


def test_a_notebook_shows_the_words_and_then_the_timeline(displayed: list[Any]) -> None:
    turn = spoken()
    turn._ipython_display_()
    words, shown = displayed
    assert words["text/plain"] == repr(turn)
    assert words["text/html"].count("<audio controls") == 2
    assert "<svg" not in words["text/html"]
    assert isinstance(shown, Timeline)
    assert shown._repr_html_() in turn._repr_html_()  # where no widgets run
    assert "<svg" in shown._repr_html_()
    assert f"{Stage.ASR.label}: 200 ms" in repr(shown)


def test_a_turn_without_an_answer_has_no_timeline(displayed: list[Any]) -> None:
    spoken(trace=Trace())._ipython_display_()
    assert len(displayed) == 1


def test_nothing_comes_from_the_network_and_words_are_no_markup() -> None:
    shown = spoken(transcript="<script>alert('&')</script>")._repr_html_()
    assert not re.search(r"https?:|<script|<link|@import", shown)
    assert "&lt;script&gt;" in shown


def test_a_turn_without_an_answer_shows_what_there_is() -> None:
    refused = plain.Error(code=ErrorCode.BUFFER_FULL, message="too long", hint="say less")
    turn = spoken(
        transcript="", reply_text="", reply=np.zeros(0, np.float32), trace=Trace(),
        errors=[refused],
    )  # fmt: skip
    assert repr(turn).splitlines()[1:] == [
        "heard  (nothing)",
        "reply  (none)",
        "error  too long (say less)",
    ]
    assert len(list(page(turn).iter("audio"))) == 1
    assert not list(page(turn).iter("svg"))
    assert turn.plot_waveform().get_title(loc="left") == "No reply was heard"
    turn.plot_waterfall()


def test_what_a_foreign_server_does_not_tell_is_a_part_of_its_own() -> None:
    known = {mark: ns for mark, ns in marks().items() if mark not in SERVER_MARKS}
    turn = spoken(reply_text="", trace=Trace(known), remarks=["the reply is a WAV file"])
    assert repr(turn).splitlines()[2:] == [
        "reply  (its words were not told) (0.50 s)",
        "wait   400 ms from the end of speech to the first sound of the reply; the longest part: "
        "not told by the server, 372 ms, 93 % of it",
        "note   the reply is a WAV file",
    ]
    (waterfall,) = page(turn).iter("svg")
    assert "not told by the server" in words(waterfall)
    assert [label.get_text() for label in turn.plot_waterfall().get_yticklabels()] == [
        "packetisation",
        "not told by the server",
        "leading silence",
    ]


def test_figures_are_drawn_where_they_are_wanted() -> None:
    ax = Figure().add_subplot()
    assert spoken().plot_waterfall(ax=ax) is ax
    assert [label.get_text() for label in ax.get_yticklabels()] == [s.label for s in STAGES]
    other = spoken().plot_waveform()
    assert other is not ax
    assert other.get_title(loc="left").startswith("0.40 s of dead air")
    assert [text.get_text() for text in other.texts] == [
        "end of speech",
        f"said: {recording('ked-01').text}",
        "reply: The lights are on.",
    ]
    assert other.get_xlim()[1] == pytest.approx(1.882 + 0.5)


def test_recordings_are_found_by_name_and_by_path(tmp_path: Path) -> None:
    assert recording("ked-01") in recordings()
    write_wav(tmp_path / "mine.wav", np.zeros(160, np.float32))
    own = recording(tmp_path / "mine.wav")
    assert (own.name, own.text, own.end_of_speech_sample) == ("mine", "", None)
    known = recording(recording("ked-01").path)
    assert known == recording("ked-01")
    with pytest.raises(AudioError, match=r"no recording 'ked-99' and no such file; .*ked-01, "):
        recording("ked-99")


async def test_say_speaks_to_a_server(tmp_path: Path) -> None:
    write_wav(tmp_path / "mine.wav", np.full(4800, 0.25, np.float32))
    async with serving(EchoPipeline()) as server:
        turn = await say(tmp_path / "mine.wav", server.url, chunk_ms=100)
    assert (turn.said, turn.heard) == ("mine", "0.30 seconds of audio")
    assert len(turn.said_audio) == len(turn.reply_audio) == 4800
    assert turn.trace.ttfa_ms() is not None
