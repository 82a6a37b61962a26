"""The pages on the WebSocket's port."""

from http import HTTPStatus

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from websockets.datastructures import Headers
from websockets.http11 import Request

from labkit.protocol.schema import schema_text
from labkit.server.admission import Refusal, refused
from labkit.server.http import Pages


def pages(*, ready: bool = True) -> Pages:
    return Pages(ready=lambda: ready, metrics=lambda: b"labkit_turns_total 1.0\n")


@pytest.mark.parametrize(
    ("path", "ready", "status", "body"),
    [
        ("/healthz", True, 200, b"alive\n"),
        ("/healthz", False, 200, b"alive\n"),
        ("/readyz", True, 200, b"ready\n"),
        ("/readyz", False, 503, b"closing\n"),
        ("/readyz?verbose", True, 200, b"ready\n"),
        ("/metrics", True, 200, b"labkit_turns_total 1.0\n"),
    ],
)
def test_every_page(path: str, ready: bool, status: int, body: bytes) -> None:
    response = pages(ready=ready).answer(Request(path, Headers()))
    assert response is not None
    assert (response.status_code, response.body) == (status, body)
    assert response.headers["Content-Length"] == str(len(body))
    assert response.headers["Content-Type"].startswith("text/plain")


def test_the_schema_of_the_dialect() -> None:
    response = pages().answer(Request("/schema.json", Headers()))
    assert response is not None
    assert response.headers["Content-Type"] == "application/schema+json"
    assert response.body == schema_text().encode()


@pytest.mark.parametrize("path", ["/", "/?reply=stream", "/healthz/", "/metricsx", "", "?/healthz"])
def test_other_paths_are_for_sockets(path: str) -> None:
    assert pages().answer(Request(path, Headers())) is None


@example("//[")
@given(st.text(max_size=30))
def test_no_path_raises(path: str) -> None:
    pages().answer(Request(path, Headers()))


def test_a_refusal_says_why_and_when_to_come_back() -> None:
    response = refused(Refusal(HTTPStatus.TOO_MANY_REQUESTS, "too many", 7))
    assert (response.status_code, response.body) == (429, b"too many\n")
    assert response.headers["Retry-After"] == "7"
    assert "WWW-Authenticate" not in response.headers


def test_a_refusal_for_want_of_a_token_says_of_which_kind() -> None:
    response = refused(Refusal(HTTPStatus.UNAUTHORIZED, "no token"))
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert "Retry-After" not in response.headers
