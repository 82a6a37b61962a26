"""The recorder: what comes from the browser, what stands in for it, and the browser's own part."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from labkit.audio.pcm import encode_s16le, read_audio, write_wav
from labkit.course.folder import mine
from labkit.course.recorder import Recorder, microphone
from labkit.errors import AudioError
from tests.support import told_by_node

RECORDER = Path(__file__).resolve().parents[2] / "labkit" / "course" / "recorder.js"
RATE = 16_000


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABKIT_MINE", str(tmp_path / "mine"))


def tone(seconds: float, rate: int = RATE) -> "np.ndarray":
    return (0.5 * np.sin(np.arange(round(seconds * rate)) * 440 * 2 * np.pi / rate)).astype("f4")


def record(recorder: Recorder, samples: "np.ndarray", rate: int = RATE) -> None:
    """What the browser sends for one recording."""
    tell = recorder._handle_custom_msg
    tell({"type": "started", "rate": rate}, [])
    for frame in np.array_split(samples, max(1, len(samples) * 50 // rate)):
        tell({"type": "frame"}, [memoryview(encode_s16le(frame))])
    tell({"type": "stopped"}, [])


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000])
def test_what_was_recorded_becomes_a_file_at_16_khz(rate: int) -> None:
    recorder = microphone()
    record(recorder, tone(2.0, rate), rate)
    found = recorder.recording()
    assert found.path.parent == mine() / "takes"
    samples = read_audio(found.path)
    assert len(samples) == pytest.approx(2 * RATE, abs=2)
    inner = slice(1000, 30_000)
    assert np.abs(samples[inner] - tone(2.0)[: len(samples)][inner]).max() < 0.01
    assert "your own voice, 2.0 s" in recorder.source


def test_the_last_recording_counts_and_the_ones_before_are_kept() -> None:
    recorder = microphone()
    record(recorder, tone(1.0))
    first = recorder.recording()
    record(recorder, tone(3.0))
    second = recorder.recording()
    assert [len(read_audio(one.path)) for one in (first, second)] == [RATE, 3 * RATE]


def test_without_a_microphone_a_recording_is_said() -> None:
    recorder = microphone("ked-01")
    assert recorder.recording().text == "set a timer for forty three minutes"
    assert recorder.source == "nothing recorded: ked-01.flac is said instead"
    record(recorder, np.zeros(RATE, np.float32))
    assert recorder.recording().name == "ked-01"
    assert recorder.source.startswith("only silence came from the microphone")


def test_a_file_is_said_with_the_same_call(tmp_path: Path) -> None:
    write_wav(tmp_path / "my.wav", tone(1.0))
    assert microphone(tmp_path / "my.wav").recording().path == tmp_path / "my.wav"
    with pytest.raises(AudioError, match="no such file"):
        microphone(tmp_path / "other.wav").recording()


def test_a_recording_is_bounded() -> None:
    recorder = microphone()
    record(recorder, tone(70.0))
    assert len(recorder.samples) == pytest.approx(60 * RATE, abs=RATE // 50)


SCRIPT = """
const module = await import("data:text/javascript;base64," + process.argv[1]);
const posted = [];
globalThis.sampleRate = 16000;
globalThis.AudioWorkletProcessor = class { port = { postMessage: (f) => posted.push([...f]) }; };
globalThis.registerProcessor = (name, made) => { globalThis.Made = made; };
(0, eval)(module.WORKLET);
const processor = new Made();
for (let block = 0; block < 10; block++) {
  processor.process([[Float32Array.from({ length: 128 }, (_, n) => (block * 128 + n) / 4096)]]);
}
processor.process([[]]);
console.log(JSON.stringify({
  lengths: posted.map((frame) => frame.length),
  last: posted.at(-1).at(-1),
  s16: [...module.toS16([0, 1, -1, 2, -2, 0.5])],
  levels: [module.levelDb([1, -1]), module.levelDb([0.1, -0.1]), module.levelDb([0, 0])],
  named: module.whyNot({ name: "NotFoundError", message: "?" }),
  unknown: module.whyNot({ name: "OtherError", message: "it is broken." }),
  renders: typeof module.default.render,
}));
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not here")
def test_the_browser_cuts_frames_of_20_ms_and_clips_what_is_too_loud() -> None:
    told = told_by_node(SCRIPT, RECORDER)
    assert told["lengths"] == [320] * 4
    assert told["last"] == 1279 / 4096
    assert told["s16"] == [0, 32767, -32768, 32767, -32768, 16384]
    assert told["levels"] == pytest.approx([0, -20, -60])
    assert told["named"].startswith("There is no microphone.")
    assert told["unknown"].startswith("it is broken.")
    assert told["renders"] == "function"


def test_the_widget_loads_nothing_from_the_network() -> None:
    assert "http" not in RECORDER.read_text(encoding="utf-8").replace("over https", "")
