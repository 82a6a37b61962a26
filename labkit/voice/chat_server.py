"""A language model that runs elsewhere: any server of OpenAI's chat completions.

llama.cpp's server, Ollama, vLLM and others speak the same small dialect over HTTP: a conversation
goes in, and the reply comes back as server-sent events, a few characters each ("Chat Completions",
OpenAI's API reference, with `stream`). Nothing else of it is used here.
"""

import json
import os
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

import httpx2

from labkit.errors import EngineError, ModelError
from labkit.voice.history import Message
from labkit.voice.scheduling import Stop

KEY_VARIABLE: Final = "LABKIT_LLM_KEY"
"""The environment variable that holds the key, for servers that ask for one."""

_CONNECT_S: Final = 5.0
_SILENT_S: Final = 30.0
"""Longest wait for the next piece: a large model may have to be loaded before the first."""
_MOST_TOLD: Final = 200
"""Characters of a server's own words that an error repeats."""


class ChatServerLlm:
    """A model behind an HTTP address; one conversation is answered at a time."""

    def __init__(self, address: str, *, max_tokens: int = 160) -> None:
        """Reach for no server yet.

        Args:
            address: Where the API begins, such as `http://localhost:11434/v1`; the model's name
                may stand behind a `#`, and has to where the server has several.
            max_tokens: Most tokens of one reply.

        Raises:
            ModelError: It is no such address.
        """
        try:
            parsed = httpx2.URL(address)
        except httpx2.InvalidURL as error:
            raise ModelError(f"--llm {address!r} is no address: {error}") from error
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise ModelError(
                f"--llm {address!r} is no address of a chat server; it looks like "
                "http://localhost:11434/v1#llama3.2"
            )
        self._model = parsed.fragment
        self._base = str(parsed.copy_with(fragment=None)).rstrip("/")
        self._max_tokens = max_tokens
        key = os.environ.get(KEY_VARIABLE)
        self._client = httpx2.Client(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx2.Timeout(_SILENT_S, connect=_CONNECT_S),
        )

    def warm_up(self) -> None:
        """Find out whether the server is there, and which model it has.

        Raises:
            ModelError: It is not there, has no model of that name, or has several to choose from.
        """
        try:
            with self._named("GET", "/models") as response:
                response.read()
                found = json.loads(response.text)
                names = [str(one["id"]) for one in found["data"]]
        except EngineError as error:
            raise ModelError(str(error)) from error
        except (ValueError, KeyError, TypeError) as error:
            raise ModelError(f"{self._base}/models does not list models: {error!r}") from error
        if self._model and self._model not in names:
            told = ", ".join(names) or "none"
            raise ModelError(f"{self._base} has no model {self._model!r}; it has {told}")
        if not self._model and len(names) != 1:
            told = ", ".join(names) or "none"
            raise ModelError(
                f"{self._base} has {len(names)} models ({told}); name one behind a #, as in "
                f"{self._base}#NAME"
            )
        self._model = self._model or names[0]

    def reply(self, messages: Sequence[Message], stop: Stop) -> Iterator[str]:
        """The reply piece by piece; once `stop` is set, the connection is closed.

        Raises:
            EngineError: The server cannot be reached, refuses, is silent for half a minute, or
                sends what is no reply.
        """
        asked = {
            "model": self._model,
            "messages": [{"role": one.role, "content": one.content} for one in messages],
            "max_tokens": self._max_tokens,
            "temperature": 0.0,
            "stream": True,
        }
        try:
            with self._named("POST", "/chat/completions", asked) as response:
                threading.Thread(target=_hang_up, args=(response, stop), daemon=True).start()
                for line in response.iter_lines():
                    if stop.is_set() or line == "data: [DONE]":
                        return
                    if line.startswith("data:"):
                        yield self._piece(line.removeprefix("data:"))
        except EngineError:
            if not stop.is_set():  # a connection that was hung up breaks in its own way
                raise

    def _piece(self, data: str) -> str:
        try:
            event = json.loads(data)
            if "error" in event:
                raise EngineError(f"{self._base} failed: {_short(event['error'])}")
            choices = event["choices"]
            return (choices[0]["delta"].get("content") or "") if choices else ""
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            told = f"{self._base} sent what is no piece of a reply: {_short(data)}"
            raise EngineError(told) from error

    @contextmanager
    def _named(
        self, method: str, path: str, content: Mapping[str, Any] | None = None
    ) -> Iterator[httpx2.Response]:
        """One request; whatever goes wrong names the server."""
        url = self._base + path
        try:
            with self._client.stream(method, url, json=content) as response:
                if response.is_error:
                    response.read()
                    raise EngineError(
                        f"{url} answered {response.status_code}: {_short(response.text)}"
                    )
                yield response
        except httpx2.TimeoutException as error:
            raise EngineError(f"{url} does not answer: {type(error).__name__}") from error
        except httpx2.HTTPError as error:
            raise EngineError(f"{url} cannot be reached: {error}") from error


def _hang_up(response: httpx2.Response, stop: Stop) -> None:
    """Wait for the end of a turn, and end the connection if it goes on: a read may be waiting."""
    stop.wait()
    if not response.is_closed:
        stream: Any = response.extensions["network_stream"]
        with suppress(OSError):  # it has ended by itself meanwhile
            stream.get_extra_info("socket").shutdown(socket.SHUT_RDWR)


def _short(told: object) -> str:
    words = told.get("message", told) if isinstance(told, dict) else told
    return str(words).strip()[:_MOST_TOLD]
