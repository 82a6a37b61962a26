"""Plain HTTP on the WebSocket's port: health, readiness, metrics."""

from collections.abc import Callable
from http import HTTPStatus

from websockets.datastructures import Headers
from websockets.http11 import Request, Response

__all__ = ["Pages", "refusal"]


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
        return None


def refusal(status: HTTPStatus, reason: str, *, retry_s: int | None = None) -> Response:
    """A handshake refused with a reason, and with the seconds after which to try again."""
    response = _page(status, f"{reason}\n".encode())
    if retry_s is not None:
        response.headers["Retry-After"] = str(retry_s)
    return response


def _page(status: HTTPStatus, body: bytes) -> Response:
    headers = Headers(
        [
            ("Content-Type", "text/plain; version=0.0.4; charset=utf-8"),
            ("Content-Length", str(len(body))),
            ("Connection", "close"),
        ]
    )
    return Response(status.value, status.phrase, headers, body)
