"""A language model behind an address: a real HTTP server, and what may go wrong with one."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from labkit.errors import EngineError, ModelError
from labkit.voice.catalogue import Role, find
from labkit.voice.chat_server import KEY_VARIABLE, ChatServerLlm
from labkit.voice.history import Message
from labkit.voice.scheduling import Stop

HELLO = [Message("system", "Be brief."), Message("user", "Hello.")]


class Chat(ThreadingHTTPServer):
    """Answers as it is told, and keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.models: Any = {"data": [{"id": "small"}]}
        self.lines = [piece("Hel"), piece("lo."), "data: [DONE]"]
        self.status = 200
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.held = threading.Event()
        self.left = threading.Event()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


def piece(text: str | None) -> str:
    return "data: " + json.dumps({"choices": [{"delta": {"content": text}}]})


class _Handler(BaseHTTPRequestHandler):
    server: Chat

    def do_GET(self) -> None:
        self._begin()
        self.wfile.write(json.dumps(self.server.models).encode())

    def do_POST(self) -> None:
        asked = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append(json.loads(asked))
        self.server.keys.append(self.headers["Authorization"])
        self._begin()
        for line in self.server.lines:
            if line == "hold":
                self.server.held.set()
                self.connection.recv(1)  # until the client has gone
                self.server.left.set()
                return
            self.wfile.write(line.encode() + b"\n\n")
            self.wfile.flush()

    def _begin(self) -> None:
        self.send_response(self.server.status)
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
        llm = ChatServerLlm(server.address, max_tokens=7)
        llm.warm_up()
        assert said(llm) == "Hello."
        (asked,) = server.asked
        assert asked["model"] == "small"
        assert asked["messages"][-1] == {"role": "user", "content": "Hello."}
        assert (asked["stream"], asked["max_tokens"]) == (True, 7)
        assert server.keys == ["Bearer secret"]


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


@pytest.mark.parametrize(
    ("lines", "words"),
    [
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
        server.lines = [": a comment", piece(None), 'data: {"choices": []}', piece("Hi.")]
        assert said(ChatServerLlm(f"{server.address}#small")) == "Hi."


def test_a_page_that_lists_no_models_is_named() -> None:
    with serving() as server:
        server.models = ["small"]
        with pytest.raises(ModelError, match="does not list models"):
            ChatServerLlm(server.address).warm_up()


@pytest.mark.parametrize("address", ["http://", "ftp://host/v1", "http://[::1", "localhost:8080"])
def test_what_is_no_address_is_named(address: str) -> None:
    with pytest.raises(ModelError, match="is no address"):
        ChatServerLlm(address)


def test_an_address_is_a_language_model_that_is_told_how_to_speak() -> None:
    model = find(Role.LLM, "http://localhost:8080/v1")
    assert model.place == "http://localhost:8080/v1"
    assert "spoken" in model.system
