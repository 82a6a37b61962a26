"""What servers of others say: read where it can be understood, else told in words."""

import io

import numpy as np
import pytest
import soundfile

from labkit.audio.pcm import SAMPLE_RATE, Float32, encode_s16le, read_audio, resample
from labkit.client.foreign import ReplyReader, read
from labkit.errors import ProtocolError
from tests.paths import ROOT

SPEECH = read_audio(ROOT / "data" / "speech" / "ked-01.flac")
AUDIO = encode_s16le(SPEECH)


def wav(samples: Float32, rate: int, channels: int = 1, subtype: str = "PCM_16") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.repeat(samples[:, None], channels, 1), rate, subtype, format="WAV")
    return file.getvalue()


def heard(*messages: bytes) -> tuple[Float32, list[str]]:
    """The reply that these messages are, and what is odd about it."""
    remarks: list[str] = []
    reader = ReplyReader(remarks.append)
    for message in messages:
        reader.take(message)
    return reader.whole(), remarks


@pytest.mark.parametrize("piece", [478, 480, 4001])
def test_a_file_that_comes_in_pieces_has_no_seams(piece: int) -> None:
    tone = np.float32(0.4 * np.sin(2 * np.pi * 440 / 24_000 * np.arange(24_000)))
    file, rest = wav(tone[:600], 24_000), encode_s16le(tone[600:])
    reply, _ = heard(file, *[rest[at : at + piece] for at in range(0, len(rest), piece)])
    assert len(reply) == 16_000
    assert np.abs(reply - resample(tone, 24_000, SAMPLE_RATE)).max() < 1e-3


@pytest.mark.parametrize(("rate", "channels"), [(16_000, 1), (22_050, 1), (48_000, 2), (8000, 1)])
@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT", "PCM_24", "ULAW"])
def test_a_file_as_a_reply_is_read_and_named(rate: int, channels: int, subtype: str) -> None:
    tone = 0.4 * np.sin(np.arange(rate) * 2 * np.pi * 300 / rate)
    reply, (remark,) = heard(wav(tone.astype(np.float32), rate, channels, subtype))
    assert len(reply) == pytest.approx(SAMPLE_RATE, abs=2)
    assert 0.35 < np.abs(reply[4000:-4000]).max() < 0.45
    assert f"the reply is a WAV file ({rate} Hz, channels: {channels})" in remark


def test_a_file_that_comes_in_pieces_is_read_to_its_end() -> None:
    file = wav(np.repeat(SPEECH, 2), 32_000)
    pieces = [file[at : at + 4096] for at in range(0, len(file), 4096)]
    reply, _ = heard(*pieces)
    assert len(reply) == pytest.approx(len(SPEECH), abs=len(pieces))
    assert np.corrcoef(reply[: len(SPEECH) // 2], SPEECH[: len(SPEECH) // 2])[0, 1] > 0.9


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (SPEECH.astype("<f4").tobytes(), "looks like float32"),
        (AUDIO[1:] + b"\0", "looks shifted"),
        (np.frombuffer(AUDIO, "<i2").astype(">i2").tobytes(), "looks like big endian"),
        (AUDIO[:-1], f"a binary message of {len(AUDIO) - 1} bytes is no whole number of 16-bit"),
    ],
)
def test_audio_of_another_kind_is_named(reply: bytes, words: str) -> None:
    _, remarks = heard(reply)
    assert any(words in remark for remark in remarks), remarks


def test_a_small_message_that_is_a_long_file_is_not_decoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("labkit.client.foreign._MOST_SAMPLES", 10_000)
    file = io.BytesIO()
    soundfile.write(file, np.zeros(10_001), 8000, format="FLAC")
    assert len(file.getvalue()) < 1000
    with pytest.raises(ProtocolError, match="is a FLAC file .* of 1 s; expected"):
        heard(file.getvalue())


def test_a_sample_cut_in_two_is_put_together() -> None:
    reply, _ = heard(AUDIO[:4001], AUDIO[4001:])
    assert np.allclose(reply, SPEECH, atol=1 / 32768)


def test_text_is_read_in_a_binary_message_as_well() -> None:
    text = '{"type": "transcript", "text": "hi"}'
    assert read(text.encode()) == read(text)
    assert read(b"{}") == b"{}"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("hello", 'the text message \'hello\' is no JSON object; expected {"type": "transcript"'),
        ("[1]", "the text message '[1]' is no JSON object"),
        ('{"text": "hi"}', "has no 'type'; expected"),
        ('{"type": "transcript"}', "'transcript' has no 'text'; expected"),
        ('{"type": "transcript", "text": 5}', "'text' of 'transcript' is 5, and should be a"),
        ('{"type": "error", "code": 5}', "'code' of 'error' is 5, and should be a valid string"),
        ('{"type": "done", "marks": {"asr_done": NaN}}', "'marks.asr_done' of 'done' is NaN, and"),
        ('{"type": "done", "marks": [1]}', "'marks' of 'done' is [1], and should be a"),
        (wav(SPEECH[:1600], 1), "is a WAV file (1 Hz, channels: 1) of 1600 s; expected signed"),
        (b"RIFF\0\0\0\0WAVEjunk", "the reply begins as a WAV file and cannot be read"),
    ],
)
def test_a_mistake_is_told_in_words(answer: str | bytes, words: str) -> None:
    with pytest.raises(ProtocolError) as told:
        heard(answer) if isinstance(answer, bytes) else read(answer)
    assert words in str(told.value), str(told.value)
    assert "pydantic" not in str(told.value)
    assert "\n" not in str(told.value)
