"""Plain HTTP on the WebSocket's port: health, readiness, metrics, the dialect's schema."""

from collections.abc import Callable
from functools import cached_property
from http import HTTPStatus
from typing import Final

from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from labkit.protocol import schema

_TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
"""Prometheus' format has a version; other text does not mind."""
_SCHEMA: Final = "application/schema+json"


class Pages:
    """Answers the paths that are no WebSocket."""

    def __init__(self, *, ready: Callable[[], bool], metrics: Callable[[], bytes]) -> None:
        self._ready = ready
        self._metrics = metrics

    def answer(self, request: Request) -> Response | None:
        """The page that `request` asks for, or None where it asks for a WebSocket."""
        # Not urlsplit: it raises ValueError on paths like "//[", which any client may send.
        match request.path.partition("?")[0]:
            case "/healthz":
                return page(HTTPStatus.OK, b"alive\n")
            case "/readyz" if self._ready():
                return page(HTTPStatus.OK, b"ready\n")
            case "/readyz":
                return page(HTTPStatus.SERVICE_UNAVAILABLE, b"closing\n")
            case "/metrics":
                return page(HTTPStatus.OK, self._metrics())
            case schema.PATH:
                return page(HTTPStatus.OK, self._schema, _SCHEMA)
        return None

    @cached_property
    def _schema(self) -> bytes:
        """Made when it is first asked for, which takes some hundredths of a second."""
        return schema.schema_text().encode()


def page(status: HTTPStatus, body: bytes, kind: str = _TEXT) -> Response:
    """An answer over plain HTTP, behind which the connection ends."""
    headers = Headers(
        [
            ("Content-Type", kind),
            ("Content-Length", str(len(body))),
            ("Connection", "close"),
        ]
    )
    return Response(status.value, status.phrase, headers, body)
