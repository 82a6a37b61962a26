"""A language model that runs elsewhere: any server of OpenAI's chat completions.

llama.cpp's server, Ollama, vLLM and others speak the same small dialect over HTTP: a conversation
goes in, and the reply comes back as server-sent events, a few characters each ("Chat Completions",
OpenAI's API reference, with `stream`). Nothing else of it is used here.
"""

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from typing import Any, Final

import httpx2

from labkit.errors import EngineError, ModelError
from labkit.voice.engines import MOST_TOKENS, Llm
from labkit.voice.history import Message
from labkit.voice.scheduling import Stop

KEY_VARIABLE: Final = "LABKIT_LLM_KEY"
"""The environment variable that holds the key, for servers that ask for one."""

_CONNECT_S: Final = 5.0
_SILENT_S: Final = 30.0
"""Longest wait for the next words: a large model may have to be loaded before the first."""
_LONGEST_LINE: Final = 1 << 20
"""Bytes of a line of events; pieces of a reply have a few hundred."""
_LONGEST_BODY: Final = 4 << 20
"""Bytes that are read of any other answer: some servers list hundreds of models."""
_MOST_TOLD: Final = 200
"""Characters of a server's own words that an error repeats."""
_LOOK_S: Final = 1.0


def _signed(key: str | None) -> Mapping[str, str]:
    """The header that shows a key, if there is one.

    Raises:
        ModelError: It is none that a header can carry.
    """
    if not key:
        return {}
    if not (key.isascii() and key.isprintable()):
        raise ModelError(
            f"the variable {KEY_VARIABLE} holds no key: a key has letters, digits and signs of "
            "ASCII, and no end of a line"
        )
    return {"Authorization": f"Bearer {key}"}


class ChatServerLlm(Llm):
    """A model behind an HTTP address; one conversation is answered at a time."""

    def __init__(self, address: str) -> None:
        """Reach for no server yet.

        The address is where the API begins, such as `http://localhost:11434/v1`; the model's name
        may stand behind a `#`, and has to where the server has several.

        Raises:
            ModelError: It is no such address.
        """
        try:
            parsed = httpx2.URL(address)
        except (httpx2.InvalidURL, UnicodeError) as error:
            raise ModelError(f"--llm {address!r} is no address: {error}") from error
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise ModelError(
                f"--llm {address!r} is no address of a chat server; it looks like "
                "http://localhost:11434/v1#llama3.2"
            )
        self._model = parsed.fragment
        # What signs in stands in no error: clients are told those.
        self._base = str(parsed.copy_with(fragment=None, userinfo=b"")).rstrip("/")
        self._client = httpx2.Client(
            headers=_signed(os.environ.get(KEY_VARIABLE)),
            auth=(parsed.username, parsed.password) if parsed.userinfo else None,
            timeout=httpx2.Timeout(_SILENT_S, connect=_CONNECT_S),
            # Each reply has a connection of its own, which ends with it (`_Line`).
            limits=httpx2.Limits(max_keepalive_connections=0),
        )

    def warm_up(self) -> None:
        """Find out whether the server is there, and which model it has.

        Raises:
            ModelError: It is not there, has no model of that name, or has several to choose from.
        """
        try:
            with self._named("GET", "/models") as response:
                found = json.loads(_beginning(response))
                names = [str(one["id"]) for one in found["data"]]
        except EngineError as error:
            raise ModelError(str(error)) from error
        except (ValueError, KeyError, TypeError) as error:
            raise ModelError(f"{self._base}/models does not list models: {error!r}") from error
        told = ", ".join(names) or "none"
        if self._model and self._model not in names:
            raise ModelError(f"{self._base} has no model {self._model!r}; it has {told}")
        if not self._model and len(names) != 1:
            raise ModelError(
                f"{self._base} has {len(names)} models ({told}); name one behind a #, as in "
                f"{self._base}#NAME"
            )
        self._model = self._model or names[0]

    def reply(self, messages: Sequence[Message], stop: Stop) -> Iterator[str]:
        """The reply piece by piece; once `stop` is set, the connection is closed.

        Raises:
            EngineError: The server cannot be reached, refuses, is silent for half a minute, breaks
                off, or sends what is no reply.
        """
        asked = {
            "model": self._model,
            "messages": [{"role": one.role, "content": one.content} for one in messages],
            "max_tokens": MOST_TOKENS,
            "temperature": 0.0,
            "stream": True,
        }
        line = _Line(stop)
        threading.Thread(target=line.wait, daemon=True).start()
        try:
            with self._named("POST", "/chat/completions", asked, line.note) as response:
                yield from self._pieces(response, stop)
        except EngineError:
            if not stop.is_set():  # a connection that was hung up breaks in its own way
                raise
        finally:
            line.is_over.set()

    def _pieces(self, response: httpx2.Response, stop: Stop) -> Iterator[str]:
        """The words of the events, to the one that says that it is the last, or to the end."""
        piece, ended, last_ns = None, "", time.perf_counter_ns()
        for line in self._lines(response):
            if stop.is_set():
                return
            if line.startswith(b"data:"):
                data = line.removeprefix(b"data:").strip()
                if data == b"[DONE]":
                    return
                piece, why_ended = self._piece(data)
                ended = ended or why_ended
                if piece:
                    yield piece
                    last_ns = time.perf_counter_ns()
                if why_ended == "length":
                    stop.set()
            # Comments and bytes without an end keep a connection alive, too.
            if time.perf_counter_ns() - last_ns > _SILENT_S * 1e9:
                raise EngineError(f"{response.url} has sent no words for {_SILENT_S:.0f} s")
        if piece is None:
            kind = response.headers.get("content-type", "of no type")
            raise EngineError(f"{response.url} answered with no events, but with content {kind}")
        if not ended:
            raise EngineError(f"{response.url} broke off in the midst of a reply")

    def _lines(self, response: httpx2.Response) -> Iterator[bytes]:
        """Lines as they get whole, and an empty one whenever something came.

        They end at line feeds alone: other marks of a line's end may stand inside the JSON.
        """
        held = b""
        for part in response.iter_bytes():
            *lines, held = (held + part).split(b"\n")
            if max(map(len, (*lines, held))) > _LONGEST_LINE:
                raise EngineError(f"{response.url} sent a line of more than {_LONGEST_LINE} bytes")
            yield from lines
            yield b""
        yield held

    def _piece(self, data: bytes) -> tuple[str, str]:
        """The words of an event, and why the reply ends with them; empty where it goes on.

        It is "length" where the server's bound has cut the reply off.
        """
        try:
            event = json.loads(data)
            if event.get("error"):
                raise EngineError(f"{self._base} failed: {_short(event['error'])}")
            if not event["choices"]:
                return "", ""
            (choice,) = event["choices"][:1]
            return choice["delta"].get("content") or "", choice.get("finish_reason") or ""
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            told = _short(data.decode(errors="replace"))
            raise EngineError(f"{self._base} sent what is no piece of a reply: {told}") from error

    @contextmanager
    def _named(
        self,
        method: str,
        path: str,
        content: Mapping[str, Any] | None = None,
        note: Callable[[str, Mapping[str, Any]], None] = lambda *_: None,
    ) -> Iterator[httpx2.Response]:
        """One request; whatever goes wrong names the server."""
        url, failed = self._base + path, "cannot be reached"
        request = self._client.build_request(method, url, json=content, extensions={"trace": note})
        try:
            with closing(self._client.send(request, stream=True)) as response:
                failed = "broke off"
                if not response.is_success:
                    told = _short(_beginning(response))
                    raise EngineError(f"{url} answered {response.status_code}: {told}")
                yield response
        except httpx2.TimeoutException as error:
            raise EngineError(f"{url} does not answer: {type(error).__name__}") from error
        except httpx2.HTTPError as error:
            raise EngineError(f"{url} {failed}: {error}") from error


class _Line:
    """The connection of one request, which ends when the turn does.

    The request may wait for the answer's first byte or for a later one, both on another thread:
    many servers send nothing before they have read the whole prompt.

    Attributes:
        is_over: Set once the reply is over: nobody has to wait for the end of the turn any more.
    """

    def __init__(self, stop: Stop) -> None:
        self.is_over = threading.Event()
        self._stop = stop
        self._stream: Any = None

    def note(self, event: str, info: Mapping[str, Any]) -> None:
        """Take what the HTTP library tells of its steps."""
        if event.endswith((".connect_tcp.complete", ".start_tls.complete")):
            self._stream = info["return_value"]
            # The turn may have ended just before, and the thread below found no connection.
            if self._stop.is_set():
                self._end()

    def wait(self) -> None:
        """End it at the end of the turn, which may never come where the reply was over before."""
        while not self._stop.wait(_LOOK_S):
            if self.is_over.is_set():
                return
        self._end()

    def _end(self) -> None:
        if self._stream is not None:
            with suppress(OSError):  # it has ended by itself meanwhile
                self._stream.get_extra_info("socket").shutdown(socket.SHUT_RDWR)


def _beginning(response: httpx2.Response) -> str:
    """An answer's body, or the beginning of one that is too long, or too slow."""
    body, began_ns = b"", time.perf_counter_ns()
    for part in response.iter_bytes():
        body += part
        if len(body) > _LONGEST_BODY or time.perf_counter_ns() - began_ns > _SILENT_S * 1e9:
            break
    return body.decode(errors="replace")


def _short(told: object) -> str:
    words = told.get("message", told) if isinstance(told, dict) else told
    return " ".join(str(words).split())[:_MOST_TOLD]
