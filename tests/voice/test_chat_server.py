"""A language model behind an address: a real HTTP server, and what may go wrong with one."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx2
import pytest

from labkit.errors import EngineError, ModelError
from labkit.voice import chat_server
from labkit.voice.chat_server import KEY_VARIABLE, ChatServerLlm
from labkit.voice.history import Message
from labkit.voice.models import Role, find
from labkit.voice.scheduling import Stop

HELLO = [Message("system", "Be brief."), Message("user", "Hello.")]


class Chat(ThreadingHTTPServer):
    """Answers as it is told, and keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.models: Any = {"data": [{"id": "small"}]}
        self.lines = [piece("Hel"), piece("lo."), "data: [DONE]"]
        self.size = 0
        """Bytes that are written at a time, each with a packet of its own; 0 for whole lines."""
        self.status = 200
        self.kind = "text/event-stream"
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.held = threading.Event()
        self.left = threading.Event()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


def piece(text: str | None) -> str:
    return "data: " + json.dumps({"choices": [{"delta": {"content": text}}]})


END = 'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}'


class _Handler(BaseHTTPRequestHandler):
    server: Chat

    def do_GET(self) -> None:
        self._begin()
        self.wfile.write(json.dumps(self.server.models).encode())

    def do_POST(self) -> None:
        asked = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append(json.loads(asked))
        self.server.keys.append(self.headers["Authorization"])
        if self.server.lines[0] != "hold":
            self._begin()
        with suppress(ConnectionError):  # the client has gone
            for line in self.server.lines:
                if line == "hold":
                    self.server.held.set()
                    self.connection.recv(1)  # until the client has gone
                    break
                for packet in self._packets(line.encode() + b"\n\n"):
                    self.wfile.write(packet)
        self.server.left.set()

    def _packets(self, data: bytes) -> Iterator[bytes]:
        size = self.server.size or len(data)
        return (data[i : i + size] for i in range(0, len(data), size))

    def _begin(self) -> None:
        self.send_response(self.server.status)
        self.send_header("Content-Type", self.server.kind)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving() -> Iterator[Chat]:
    with Chat() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def said(llm: ChatServerLlm) -> str:
    stop = Stop()
    try:
        return "".join(llm.reply(HELLO, stop))
    finally:
        stop.set()


def test_a_conversation_goes_in_and_the_reply_comes_piece_by_piece(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "secret")
    with serving() as server:
        llm = ChatServerLlm(server.address)
        llm.warm_up()
        assert said(llm) == "Hello."
        (asked,) = server.asked
        assert asked["model"] == "small"
        assert asked["messages"][-1] == {"role": "user", "content": "Hello."}
        assert (asked["stream"], asked["max_tokens"]) == (True, 160)
        assert server.keys == ["Bearer secret"]


def test_what_signs_in_with_the_address_is_told_to_nobody_else() -> None:
    with serving() as server:
        address = server.address.replace("//", "//ann:s%C3%A9cret@")
        llm = ChatServerLlm(f"{address}#small")
        assert said(llm) == "Hello."
        assert server.keys == [httpx2.BasicAuth("ann", "sécret")._auth_header]
        server.status = 500
        with pytest.raises(EngineError, match="answered 500") as failure:
            said(llm)
    with pytest.raises(EngineError, match="cannot be reached") as unreached:
        said(llm)
    names = find(Role.LLM, f"{address}#small").name
    assert "cret" not in f"{failure.value} {unreached.value} {names}"


def test_of_several_models_one_has_to_be_named() -> None:
    with serving() as server:
        server.models = {"data": [{"id": "small"}, {"id": "large"}]}
        with pytest.raises(ModelError, match=r"has 2 models \(small, large\); name one behind a #"):
            ChatServerLlm(server.address).warm_up()
        with pytest.raises(ModelError, match="no model 'huge'; it has small, large"):
            ChatServerLlm(f"{server.address}#huge").warm_up()
        llm = ChatServerLlm(f"{server.address}/#large")
        llm.warm_up()
        said(llm)
        assert server.asked[0]["model"] == "large"


def test_a_stop_closes_the_connection_although_nothing_comes() -> None:
    with serving() as server:
        server.lines = [piece("Hel"), "hold"]
        llm, stop = ChatServerLlm(f"{server.address}#small"), Stop()
        pieces = llm.reply(HELLO, stop)
        assert next(pieces) == "Hel"
        assert server.held.wait(10)
        stop.set()
        assert list(pieces) == []
        assert server.left.wait(10)


def test_a_reply_without_a_stop_leaves_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_server, "_LOOK_S", 0.01)
    with serving() as server:
        before = set(threading.enumerate())
        llm = ChatServerLlm(server.address)
        assert "".join(llm.reply(HELLO, Stop())) == "Hello."
        left = set(threading.enumerate()) - before
        for thread in left:  # the server's own end with their connection, which is kept
            if "wait" in thread.name:
                thread.join(10)
                assert not thread.is_alive()


def test_a_stop_ends_a_request_that_is_not_answered_yet() -> None:
    """Many servers send nothing at all before they have read the whole prompt."""
    with serving() as server:
        server.lines = ["hold"]
        llm, stop, said = ChatServerLlm(f"{server.address}#small"), Stop(), list[str]()
        asking = threading.Thread(target=lambda: said.extend(llm.reply(HELLO, stop)))
        asking.start()
        assert server.held.wait(10)
        stop.set()
        asking.join(10)
        assert not asking.is_alive()
        assert said == []
        assert server.left.wait(10)


def test_who_left_before_the_request_is_not_answered() -> None:
    with serving() as server:
        server.lines = ["hold"]
        stop = Stop()
        stop.set()
        assert list(ChatServerLlm(f"{server.address}#small").reply(HELLO, stop)) == []


@pytest.mark.parametrize("size", [0, 1, 3])
def test_events_come_in_any_pieces_and_hold_any_characters(size: int) -> None:
    words = "Ça va\u2028bien — 你\x85👍🏽."
    event = json.dumps({"choices": [{"delta": {"content": words}}]}, ensure_ascii=False)
    with serving() as server:
        server.size = size
        server.lines = [f"data:{event}", f"data: {event}\r", ": so\r", "data:[DONE]", "data: no"]
        assert said(ChatServerLlm(f"{server.address}#small")) == 2 * words


def test_a_reply_that_breaks_off_is_not_taken_for_a_whole_one() -> None:
    usage = {"choices": [], "usage": {"total_tokens": 7}}
    with serving() as server:
        llm = ChatServerLlm(f"{server.address}#small")
        server.lines = [piece("Hel"), END, f"data: {json.dumps(usage)}"]  # which is an end as well
        assert said(llm) == "Hel"
        server.lines.remove(END)
        pieces = llm.reply(HELLO, Stop())
        assert next(pieces) == "Hel"
        with pytest.raises(EngineError, match="/v1/chat/completions broke off in the midst"):
            next(pieces)


def test_a_reply_that_the_server_cut_off_is_known_by_the_stop() -> None:
    end = {"choices": [{"delta": {}, "finish_reason": "length"}]}
    with serving() as server:
        server.lines = [piece("One. Two"), f"data: {json.dumps(end)}", "data: [DONE]"]
        stop = Stop()
        assert list(ChatServerLlm(f"{server.address}#small").reply(HELLO, stop)) == ["One. Two"]
        assert stop.is_set()


@pytest.mark.parametrize("line", [": still here", "x", piece(None)])
def test_a_server_that_sends_anything_but_words_is_not_waited_for(
    line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving() as server:
        server.lines = [line] * 100 + ["hold"]
        llm = ChatServerLlm(f"{server.address}#small")
        monkeypatch.setattr("labkit.voice.chat_server._SILENT_S", -1)
        with pytest.raises(EngineError, match="has sent no words for"):
            said(llm)


def test_of_what_never_ends_no_more_is_read_than_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labkit.voice.chat_server._LONGEST_LINE", 10_000)
    monkeypatch.setattr("labkit.voice.chat_server._LONGEST_BODY", 10_000)
    with serving() as server:
        server.lines = ["x" * 20_000, "hold"]
        with pytest.raises(EngineError, match="a line of more than 10000 bytes"):
            said(ChatServerLlm(f"{server.address}#small"))
        server.status = 401
        with pytest.raises(EngineError, match="answered 401: x{200}$"):
            said(ChatServerLlm(f"{server.address}#small"))


@pytest.mark.parametrize(
    ("status", "lines", "words"),
    [
        (200, ["<html>Hello.</html>"], "answered with no events, but with content text/html"),
        (200, [""], "answered with no events"),
        (307, [""], "answered 307"),
    ],
)
def test_an_answer_that_is_no_stream_of_events_is_named(
    status: int, lines: list[str], words: str
) -> None:
    with serving() as server:
        server.status, server.lines, server.kind = status, lines, "text/html"
        with pytest.raises(EngineError, match=words):
            said(ChatServerLlm(f"{server.address}#small"))


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["data: 5"], "no piece of a reply"),
        (['data: {"choices": {"a": 1}}'], "no piece of a reply"),
        (['data: {"error": "no\\n room"}'], "failed: no room"),
        (["data: {"], "no piece of a reply"),
        (["data: []"], "no piece of a reply"),
        (['data: {"choices": [{"delta": null}]}'], "no piece of a reply"),
        (['data: {"error": {"message": "out of memory"}}'], "failed: out of memory"),
    ],
)
def test_what_is_no_reply_is_named(lines: list[str], words: str) -> None:
    with serving() as server:
        server.lines = [piece("Hel"), *lines]
        with pytest.raises(EngineError, match=words):
            said(ChatServerLlm(f"{server.address}#small"))


def test_a_refusal_and_a_server_that_is_not_there_are_named() -> None:
    with serving() as server:
        server.status, server.lines = 429, ["too many requests"]
        llm = ChatServerLlm(f"{server.address}#small")
        with pytest.raises(EngineError, match="answered 429: too many requests"):
            said(llm)
    with pytest.raises(EngineError, match="cannot be reached"):
        said(llm)
    with pytest.raises(ModelError, match="cannot be reached"):
        llm.warm_up()


def test_pieces_without_text_are_none() -> None:
    with serving() as server:
        no_error = 'data: {"error": null, "choices": []}'
        server.lines = [": a comment", piece(None), no_error, piece("Hi."), END]
        assert said(ChatServerLlm(f"{server.address}#small")) == "Hi."


def test_a_page_that_lists_no_models_is_named() -> None:
    with serving() as server:
        server.models = ["small"]
        with pytest.raises(ModelError, match="does not list models"):
            ChatServerLlm(server.address).warm_up()


@pytest.mark.parametrize("key", ["b\udcff", "clé", "a\nb"])
def test_a_key_that_no_header_carries_is_told_by_its_variable(
    monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, key)
    with pytest.raises(ModelError, match=f"the variable {KEY_VARIABLE} holds no key") as caught:
        ChatServerLlm("http://localhost:8080/v1")
    assert key not in str(caught.value)


@pytest.mark.parametrize(
    "address",
    ["http://", "ftp://host/v1", "http://[::1", "localhost:8080", "http://host/v1#\udcff"],
)
def test_what_is_no_address_is_named(address: str) -> None:
    with pytest.raises(ModelError, match="is no address"):
        ChatServerLlm(address)


def test_an_address_is_a_language_model_that_is_told_how_to_speak() -> None:
    model = find(Role.LLM, "http://localhost:8080/v1")
    assert model.place == "http://localhost:8080/v1"
    assert "spoken" in model.system
