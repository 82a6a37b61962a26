"""Plain HTTP on the WebSocket's port: health, readiness, metrics, the dialect's schema."""

from collections.abc import Callable
from functools import cached_property
from http import HTTPStatus
from typing import Final

from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from labkit.protocol import schema
from labkit.server.access import Refusal

__all__ = ["Pages", "refused"]


_TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
"""Prometheus' format has a version; other text does not mind."""
_SCHEMA: Final = "application/schema+json"


class Pages:
    """Answers the paths that are no WebSocket."""

    def __init__(self, *, ready: Callable[[], bool], metrics: Callable[[], bytes]) -> None:
        """Ask `ready` whether callers are welcome, and `metrics` for the counters' page."""
        self._ready = ready
        self._metrics = metrics

    def answer(self, request: Request) -> Response | None:
        """The page that `request` asks for, or None where it asks for a WebSocket."""
        # Not urlsplit: it raises ValueError on paths like "//[", which any client may send.
        match request.path.partition("?")[0]:
            case "/healthz":
                return _page(HTTPStatus.OK, b"alive\n")
            case "/readyz" if self._ready():
                return _page(HTTPStatus.OK, b"ready\n")
            case "/readyz":
                return _page(HTTPStatus.SERVICE_UNAVAILABLE, b"closing\n")
            case "/metrics":
                return _page(HTTPStatus.OK, self._metrics())
            case schema.PATH:
                return _page(HTTPStatus.OK, self._schema, _SCHEMA)
        return None

    @cached_property
    def _schema(self) -> bytes:
        """Made when it is first asked for, which takes some hundredths of a second."""
        return schema.schema_text().encode()


def refused(refusal: Refusal) -> Response:
    """The answer to a handshake that is refused: the reason, and what to do about it."""
    response = _page(refusal.status, f"{refusal.reason}\n".encode())
    if refusal.retry_s is not None:
        response.headers["Retry-After"] = str(refusal.retry_s)
    if refusal.status is HTTPStatus.UNAUTHORIZED:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def _page(status: HTTPStatus, body: bytes, kind: str = _TEXT) -> Response:
    headers = Headers(
        [
            ("Content-Type", kind),
            ("Content-Length", str(len(body))),
            ("Connection", "close"),
        ]
    )
    return Response(status.value, status.phrase, headers, body)
