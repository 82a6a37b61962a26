"""The messages of labkit.v1: decoding is total, and nothing is lost on the way."""

import codecs
import json
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from labkit.audio.formats import AudioFormat
from labkit.audio.pcm import Encoding
from labkit.errors import ErrorCode, ProtocolError
from labkit.protocol import plain, v1
from labkit.protocol.replay import Position

CLIENT = get_args(v1.ClientMessage)
SERVER = get_args(v1.ServerMessage)
SAFE_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@pytest.mark.parametrize("model", [*CLIENT, *SERVER], ids=lambda model: model.__name__)
@settings(max_examples=20)
@given(data=st.data())
def test_what_was_encoded_is_decoded(model: type[BaseModel], data: st.DataObject) -> None:
    try:
        message = data.draw(st.from_type(model))
    except ValidationError:
        reject()  # hypothesis does not see the bounds inside of an Optional
    decode = v1.decode_client if model in CLIENT else v1.decode_server
    assert decode(message.encode()) == message  # type: ignore[attr-defined]


@given(st.text())
def test_any_text_is_a_message_or_a_named_error(text: str) -> None:
    for decode in (v1.decode_client, v1.decode_server):
        with pytest.raises(ProtocolError) as caught:
            decode(text)
        assert caught.value.hint


@given(
    st.dictionaries(
        st.sampled_from(["type", "id", "turn", "resume", "input", "received", "other"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | SAFE_TEXT,
            lambda inner: st.lists(inner) | st.dictionaries(SAFE_TEXT, inner),
            max_leaves=5,
        ),
    ),
    st.sampled_from([model.model_fields["type"].default for model in CLIENT]),
)
def test_any_object_is_a_message_or_a_named_error(fields: dict[str, object], kind: str) -> None:
    try:
        decoded = v1.decode_client(json.dumps({**fields, "type": kind}))
    except ProtocolError as error:
        assert error.code in {ErrorCode.INVALID_FIELD, ErrorCode.INVALID_JSON}
    else:
        assert decoded.type == kind


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("", "invalid_json", "EOF"),
        ("hello", "invalid_json", "expected value"),
        ("[1]", "invalid_json", "no object"),
        ("[" * 10_000, "invalid_json", "recursion limit"),
        ('{"type": "\\ud800"}', "invalid_json", "hex escape"),
        ("{}", "unknown_type", "no 'type'"),
        ('{"type": 7}', "unknown_type", "'7' is unknown"),
        ('{"type": "audio.stop"}', "unknown_type", "'audio.stop' is unknown"),
        (
            '{"type": "response.cancel", "heard_samples": 1}',
            "invalid_field",
            "field 'turn' of 'response.cancel' is missing",
        ),
        (
            '{"type": "session.start", "resume": {"session": "s"}}',
            "invalid_field",
            "field 'resume.token' of 'session.start' is missing",
        ),
        ('{"type": "response.cancel", "turn": 0}', "invalid_field", "greater than or equal to 1"),
        ('{"type": "response.cancel", "turn": 1e99}', "invalid_field", "field 'turn'"),
        ('{"type": "ping", "pong": 1}', "invalid_field", "field 'pong'"),
        ('{"type": "ping", "id": "' + "x" * 65 + '"}', "invalid_field", "at most 64"),
        (
            '{"type": "session.start", "input": {"sample_rate": 7999}}',
            "invalid_field",
            "field 'input.sample_rate' of 'session.start' is '7999'",
        ),
        ('{"type": "response.cancel", "turn": "1"}', "invalid_field", "valid integer"),
        ('{"type": "session.start", "acknowledges": "yes"}', "invalid_field", "valid boolean"),
        ('{"type": "session.start", "input": {"channels": 3}}', "invalid_field", "channels"),
        ('{"type": "session.start", "input": {"encoding": "opus"}}', "invalid_field", "mulaw"),
        ('{"type": "session.start", "protocol": "labkit.v2"}', "invalid_field", "labkit.v1"),
    ],
)
def test_what_is_wrong_is_named(text: str, code: str, words: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        v1.decode_client(text)
    assert caught.value.code == code
    assert words in str(caught.value)


def test_a_refusal_is_short_whatever_the_message_was() -> None:
    for text in (
        '{"type": "ping", "' + "n" * 10_000 + '": 1}',
        '{"type": "' + "n" * 10_000 + '"}',
        '{"type": "ping", "id": "' + "n" * 10_000 + '"}',
        '{"type": "ping", "id": "' + "n" * 100_000 + '"}',
        '{"type": "ping", "id": [' + "1," * 8_000 + "1]}",
        '{"type": "response.cancel", "turn": ' + "9" * 15_000 + "}",
    ):
        with pytest.raises(ProtocolError) as caught:
            v1.decode_client(text)
        assert len(str(caught.value)) < 300


def test_a_message_of_many_fields_is_refused_before_the_models_see_them() -> None:
    fields = ",".join(f'"k{number}": 1' for number in range(1000))
    for text in (f'{{"type": "ping", {fields}}}', f'{{"type": "ping", "id": {{{fields}}}}}'):
        with pytest.raises(ProtocolError, match="has 100[01] fields") as caught:
            v1.decode_client(text)
        assert caught.value.code == "invalid_field"


@pytest.mark.parametrize("text", ["x" * 16_385, "é" * 8_193])
def test_a_text_message_above_the_limit_is_refused(text: str) -> None:
    with pytest.raises(ProtocolError, match="above the limit of 16384") as caught:
        v1.decode_client(text)
    assert caught.value.code == "message_too_large"


@pytest.mark.parametrize("encoding", Encoding)
@given(
    level=st.sampled_from([0.0, 1e-4, 1e-2, 0.25, 1.0]),
    offset=st.floats(-1, 1),
    hertz=st.sampled_from([0.0, 440.0]),
    samples=st.integers(1, 800),
    seed=st.integers(0, 2**32 - 1),
)
def test_audio_is_never_taken_for_control(
    encoding: Encoding, level: float, offset: float, hertz: float, samples: int, seed: int
) -> None:
    """Noise, a tone, or a constant; loud, quiet, or silent."""
    noise = np.random.default_rng(seed).uniform(-1, 1, samples)
    shape = np.sin(np.arange(samples) * hertz * 2 * np.pi / 16_000) if hertz else noise
    mono = np.clip(offset + level * shape, -1, 1).astype(np.float32)
    v1.require_audio(AudioFormat(encoding).encode(mono), max_bytes=10_000)


def test_a_constant_of_any_value_is_audio() -> None:
    for value in range(-32768, 32768):
        for samples in (1, 16, 20):
            payload = np.full(samples, value, "<i2").tobytes()
            v1.require_audio(payload, max_bytes=10_000)
            plain.require_audio(payload, max_bytes=10_000)


@given(st.binary(max_size=100))
def test_what_is_no_text_of_a_type_is_audio(payload: bytes) -> None:
    for before in (b"", b"{", b"{\0", b"\0{", b" ", codecs.BOM_UTF16_LE, codecs.BOM_UTF8 + b"{"):
        v1.require_audio(before + payload, max_bytes=10_000)


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b'{"type": "audio.end"}', "wrong_frame"),
        (b'{"type": "ping"}\n', "wrong_frame"),
        (bytes(101), "message_too_large"),
        (b' \r\n{"type": "ping"}\t\n', "wrong_frame"),
        (codecs.BOM_UTF8 + b'{"type": "ping"}', "wrong_frame"),
        ('{"type": "ping"}'.encode("utf-16"), "wrong_frame"),
        (' {"type": "ping"}\n'.encode("utf-16-le"), "wrong_frame"),
        (' {"type": "ping"}\n'.encode("utf-16-be"), "wrong_frame"),
        (codecs.BOM_UTF16_BE + '{"type": "ping"}'.encode("utf-16-be"), "wrong_frame"),
        (b"{}", None),
        (b" ", None),
        (b"\0{", None),
        (codecs.BOM_UTF16_LE, None),
        (b'{"typ', None),
        (bytes(100), None),
    ],
)
def test_a_binary_message_is_audio(payload: bytes, code: str | None) -> None:
    if code is None:
        v1.require_audio(payload, max_bytes=100)
        return
    with pytest.raises(ProtocolError) as caught:
        v1.require_audio(payload, max_bytes=100)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"type": "session.start", "input": {"sample_rate": 16000.0}}', 16_000),
        ('{"type": "session.start", "input": {"sample_rate": 8e3}}', 8_000),
    ],
)
def test_a_whole_number_may_be_written_with_a_fraction(text: str, value: int) -> None:
    start = v1.decode_client(text)
    assert isinstance(start, v1.SessionStart)
    assert start.input.sample_rate == value


def test_a_start_may_be_short() -> None:
    start = v1.decode_client('{"type": "session.start"}')
    assert isinstance(start, v1.SessionStart)
    assert start.input.format.encoding is Encoding.PCM_S16LE
    assert start.input.format.sample_rate == 16_000


def test_a_client_understands_a_server_that_has_learnt_a_new_field() -> None:
    pong = v1.decode_server('{"type": "pong", "id": "a", "mood": "good"}')
    assert pong == v1.Pong(id="a")


def test_a_client_understands_a_server_that_has_learnt_a_new_limit() -> None:
    limits = v1.Limits.model_fields
    told = {name: 1 for name in [*limits, "max_whispers"]}
    assert v1.Limits.model_validate_json(json.dumps(told)).model_dump() == dict.fromkeys(limits, 1)


@pytest.mark.parametrize("model", [*CLIENT, *SERVER], ids=lambda model: model.__name__)
def test_every_field_is_explained(model: type[BaseModel]) -> None:
    assert model.__doc__
    for name, described in model.model_fields.items():
        assert name in {"type", "id", "seq"} or described.description, name


def test_tokens_are_not_shown_in_logs() -> None:
    resume = v1.Resume(session="s", token="secret")
    assert "secret" not in repr(v1.SessionStart(resume=resume))


@pytest.mark.parametrize(
    ("message", "kind", "name"),
    [
        ('{"type": "ping", "id": "a"}', "ping", "a"),
        ('{"type": "session.start", "id": "a", "input": {"sample_rate": 1}}', "session.start", "a"),
        ('{"type": "pingg", "id": "a"}', "text", "a"),
        ('{"type": ["ping"], "id": 7}', "text", None),
        (json.dumps({"type": "ping", "id": "a" * 65}), "ping", None),
        (json.dumps({"type": "ping", "id": "a", "x": "x" * 20_000}), "text", None),
        ('{"type": "ping"', "text", None),
        ("[" * 3_000, "text", None),
        (b'{"type": "ping"}', "audio", None),
    ],
)
def test_a_cause_names_a_message_that_is_wrong_otherwise(
    message: str | bytes, kind: str, name: str | None
) -> None:
    position = Position(messages=1, samples=2)
    assert v1.Cause.of(message, position) == v1.Cause(type=kind, position=position, id=name)
