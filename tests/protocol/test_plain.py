"""The plain dialect: every command, every refusal, and nothing outside the error tree."""

import codecs
import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from labkit.errors import ErrorCode, ProtocolError
from labkit.protocol import plain

names = st.text(max_size=12)
samples = st.integers(0, 10**9)
server_messages = st.one_of(
    st.builds(plain.Transcript, text=st.text()),
    st.builds(
        plain.Done,
        reply_text=st.text(),
        reply_samples=samples,
        marks=st.dictionaries(names, st.integers(0, 10**18)),
        listening_cpu_ms=st.floats(0, 1e6),
    ),
    st.builds(plain.Error, code=st.sampled_from(ErrorCode), message=st.text(), hint=st.text()),
)


def refusal(message: str | bytes, max_bytes: int = 64) -> ProtocolError:
    """The error that `message` is refused with."""
    with pytest.raises(ProtocolError) as caught:
        plain.decode_client(message, max_bytes=max_bytes)
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize(
    ("message", "command"),
    [
        ("end_stream", plain.EndStream()),
        ("ping", plain.Ping()),
        (" ping\n", plain.Ping()),
        (b"\x00\x01", plain.Audio(b"\x00\x01")),
        (b"", plain.Audio(b"")),
        (b"pingpong", plain.Audio(b"pingpong")),
    ],
)
def test_every_command(message: str | bytes, command: plain.Command) -> None:
    assert plain.decode_client(message, max_bytes=64) == command


@pytest.mark.parametrize("message", ["", "pong", "END_STREAM", "end stream", '{"type": "ping"}'])
def test_other_text_is_refused_and_named(message: str) -> None:
    error = refusal(message)
    assert error.code is ErrorCode.UNKNOWN_COMMAND
    assert repr(message) in str(error)
    assert "end_stream" in error.hint


def test_half_a_sample_is_refused() -> None:
    error = refusal(b"\x00\x01\x02")
    assert error.code is ErrorCode.ODD_LENGTH
    assert "3 bytes" in str(error)


@pytest.mark.parametrize(
    ("message", "command"),
    [
        (b"ping", "ping"),
        (b"end_stream", "end_stream"),
        (b"ping\n", "ping"),
        (b" end_stream\r\n", "end_stream"),
        (b"ping\0", "ping"),
        (codecs.BOM_UTF8 + b"end_stream", "end_stream"),
        ("end_stream\r\n".encode("utf-16"), "end_stream"),
        ("end_stream".encode("utf-16-le"), "end_stream"),
        ("ping".encode("utf-16-be"), "ping"),
    ],
)
def test_a_command_in_a_binary_message_is_named(message: bytes, command: str) -> None:
    error = refusal(message)
    assert error.code is ErrorCode.WRONG_FRAME
    assert f"the command {command!r} came" in str(error)
    assert "text messages" in error.hint


@pytest.mark.parametrize(
    "message",
    [
        b'{"type": "session.start"}',
        b' {"type": "audio.end"}\n',
        '{"type":"ping"}'.encode("utf-16"),
    ],
)
def test_control_of_another_dialect_is_no_audio(message: bytes) -> None:
    error = refusal(message)
    assert error.code is ErrorCode.WRONG_FRAME
    assert "text messages" in error.hint


def test_a_message_of_the_limit_is_taken() -> None:
    audio = plain.decode_client(bytes(64), max_bytes=64)
    assert audio == plain.Audio(bytes(64))


@pytest.mark.parametrize("message", [bytes(65), bytes(66), "x" * 65])
def test_a_message_above_the_limit_is_refused(message: str | bytes) -> None:
    error = refusal(message)
    assert error.code is ErrorCode.MESSAGE_TOO_LARGE
    assert f"{len(message)} bytes is above the limit of 64 bytes" in str(error)
    assert ("0.002 s at most" in error.hint) is isinstance(message, bytes)


def test_the_limit_counts_the_bytes_of_a_text_and_not_its_characters() -> None:
    error = refusal("\u00e9" * 40)
    assert error.code is ErrorCode.MESSAGE_TOO_LARGE
    assert "80 bytes" in str(error)


def test_a_long_text_is_not_repeated_whole() -> None:
    assert len(str(refusal("x" * 60_000, max_bytes=100_000))) < 120


@given(st.one_of(st.binary(max_size=80), st.text(max_size=80)))
def test_any_message_is_a_command_or_a_protocol_error(message: str | bytes) -> None:
    try:
        command = plain.decode_client(message, max_bytes=64)
    except ProtocolError as error:
        assert plain.decode_server(plain.Error.of(error).encode()) == plain.Error.of(error)
    else:
        assert isinstance(command, plain.Audio | plain.EndStream | plain.Ping)


@given(server_messages)
def test_server_messages_survive_the_wire(message: plain.ServerMessage) -> None:
    assert plain.decode_server(message.encode()) == message


def test_a_refusal_tells_code_message_and_hint() -> None:
    error = plain.Error.of(ProtocolError(ErrorCode.BUFFER_FULL, "it is full", "send less"))
    assert (error.code, error.message, error.hint) == ("buffer_full", "it is full", "send less")


def test_server_messages_are_the_json_of_the_chapter() -> None:
    assert json.loads(plain.Transcript(text="hello").encode()) == {
        "type": "transcript",
        "text": "hello",
    }
    error = plain.Error(code=ErrorCode.ODD_LENGTH, message="m", hint="h")
    assert json.loads(error.encode()) == {
        "type": "error",
        "code": "odd_length",
        "message": "m",
        "hint": "h",
    }
    done = json.loads(plain.Done(reply_text="Hi.", reply_samples=2, marks={"a": 1}).encode())
    assert done == {
        "type": "done",
        "reply_text": "Hi.",
        "reply_samples": 2,
        "marks": {"a": 1},
        "listening_cpu_ms": 0.0,
    }


def test_fields_of_a_newer_server_are_skipped() -> None:
    newer = '{"type": "transcript", "text": "hi", "confidence": 0.9}'
    assert plain.decode_server(newer) == plain.Transcript(text="hi")


@pytest.mark.parametrize(
    "message",
    [
        "",
        "pong",
        "null",
        "[]",
        "{}",
        '{"type": "nothing"}',
        '{"type": "transcript"}',
        '{"type": "transcript", "text": 5}',
        '{"type": "done", "reply_text": "", "reply_samples": -1}',
        '{"type": "error", "code": "no_such_code", "message": ""}',
        "[" * 5_000,
    ],
)
def test_other_json_is_no_server_message(message: str) -> None:
    with pytest.raises(ProtocolError, match="none of the plain dialect"):
        plain.decode_server(message)


@given(st.one_of(st.text(max_size=60), st.text(alphabet='{}[]":,typedonrascit0', max_size=60)))
def test_any_text_is_a_server_message_or_a_protocol_error(message: str) -> None:
    with pytest.raises(ProtocolError):
        plain.decode_server(message)


def test_messages_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        plain.Transcript(text="a").text = "b"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("/", False),
        ("", False),
        ("/?reply=stream", True),
        ("/anything?reply=stream&x=1", True),
        ("?reply=stream", True),
        ("/?reply=whole", False),
        ("/?reply=", False),
        ("/?reply=stream&reply=whole", False),
        ("/#?reply=stream", False),
    ],
)
def test_which_paths_ask_for_a_stream(path: str, wanted: bool) -> None:
    assert plain.wants_stream(path) is wanted


@example("//[")
@example("//\u2100/?reply=stream")
@given(st.one_of(st.text(), st.text(alphabet="/[]?#&=%;:@reply", max_size=20)))
def test_any_path_is_understood(path: str) -> None:
    assert plain.wants_stream(path) in (True, False)
