"""Who may come in: what is made of a handshake, from its headers and the places left.

The rules, in the order in which they are asked:

======  ====================================================================================
status  refused because
======  ====================================================================================
400     a token stands in the address, where logs and histories keep it
403     a browser asks for a page of another origin (RFC 6454) than this server's, or reads
        pages under a name that is not this server's
401     tokens are configured, and none of them was shown
503     the server is closing, all places are taken, or callers wait for too long already
429     as many callers as are allowed come from the same address already
======  ====================================================================================

`/healthz` and `/readyz` are for everybody. All other pages need what a caller needs, on this
machine too: behind a reverse proxy, everybody comes from this machine. And they are read only under
a name that is this server's own, because a browser sends no `Origin` with a page of its own site.

A token is shown in the header ``Authorization: Bearer TOKEN``, or by browsers, which cannot set
it, as a subprotocol ``labkit.bearer.TOKEN`` offered beside ``labkit.v1``.

An origin is this server's own where its host and port are those of the `Host` header. While no
token is configured, a host name proves nothing: whoever owns a name can make it mean this machine
once their page is loaded (DNS rebinding), so that such a name has to be an allowed origin.
"""

import logging
import re
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from http import HTTPStatus
from typing import Final, NamedTuple, Protocol
from urllib.parse import parse_qsl
from weakref import WeakKeyDictionary

from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request, Response

from labkit.errors import ServerError
from labkit.net import caller_at, is_address, is_loopback, require_token
from labkit.server.http import Metrics, Pages, page
from labkit.session.events import Caller
from labkit.session.settings import ServerSettings

_log = logging.getLogger(__name__)

BEARER_PREFIX: Final = "labkit.bearer."
"""What a subprotocol that shows a token begins with."""

_OPEN_PAGES: Final = frozenset({"/healthz", "/readyz"})
_GUARDED_PAGES: Final = frozenset({"/metrics", "/schema.json"})
_TOKEN_FIELDS: Final = frozenset({"token", "access_token"})
_RETRY_S: Final = 5
"""When a caller that found no place may try again."""
_IDENTITY_DIGITS: Final = 16
"""Hexadecimal digits of a hash that tell callers apart."""
_HOST: Final = r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::([0-9]{1,5}))?"
_HOST_HEADER: Final = re.compile(_HOST, re.ASCII | re.IGNORECASE)
_ORIGIN: Final = re.compile(rf"([a-z][a-z0-9+.-]*)://{_HOST}", re.ASCII | re.IGNORECASE)


class Headers(Protocol):
    """The headers of a request, each of which may be there several times."""

    def get_all(self, key: str) -> list[str]:
        """All values of a header, whatever the case of its name."""
        ...


@dataclass(frozen=True, slots=True)
class Places:
    """How many callers there are.

    Attributes:
        taken: All of them.
        from_address: Those from the address of the one who asks.
        closing: Whether the server is shutting down.
        behind_s: Longest that one of them has waited for an answer, in seconds.
    """

    taken: int = 0
    from_address: int = 0
    closing: bool = False
    behind_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Refusal:
    """A caller may not come in.

    Attributes:
        status: The HTTP status.
        reason: Why, and what to do, in plain words. Holds nothing of what the caller sent.
        retry_s: Seconds after which to try again, where that helps.
    """

    status: HTTPStatus
    reason: str
    retry_s: int | None = None


_TOKEN_IN_ADDRESS: Final = Refusal(
    HTTPStatus.BAD_REQUEST,
    "a token must not stand in the address, which logs and histories keep; send it in the "
    "header 'Authorization: Bearer TOKEN', or in a browser as a subprotocol "
    f"'{BEARER_PREFIX}TOKEN' beside 'labkit.v1'",
)
_FOREIGN_ORIGIN: Final = Refusal(
    HTTPStatus.FORBIDDEN,
    "pages of this origin may not call this server; whoever runs it can allow the origin "
    "with --allow-origin",
)
_FOREIGN_NAME: Final = Refusal(
    HTTPStatus.FORBIDDEN,
    "this page is read under the server's address, localhost, or the host of an allowed "
    "origin (--allow-origin); another name may have been made to mean this machine",
)
_NO_TOKEN: Final = Refusal(
    HTTPStatus.UNAUTHORIZED,
    "this server needs a token that it knows; send it in the header 'Authorization: Bearer "
    f"TOKEN', or in a browser as a subprotocol '{BEARER_PREFIX}TOKEN' beside 'labkit.v1'",
)


class Access:
    """Decides who may ask for anything, as the settings say."""

    def __init__(self, settings: ServerSettings) -> None:
        """Decide by `settings`, which `require_safe` has found to be in order."""
        self._known = [_digest(token) for token in settings.tokens]
        self._allowed = frozenset(_parse_origin(origin) for origin in settings.allowed_origins)

    def identify(self, path: str, headers: Headers, address: str) -> Caller | Refusal:
        """Whether this caller may ask for anything, and who it is: a short hash of its token.

        Args:
            path: What it asks for, query included.
            headers: What it says.
            address: Where it comes from; empty where nobody knows.
        """
        path, _, query = path.partition("?")
        caller = Caller(None, caller_at(address))
        if path in _OPEN_PAGES:
            return caller
        if _holds_token(query):
            return _TOKEN_IN_ADDRESS
        if not self._of_good_origin(headers):
            return _FOREIGN_ORIGIN
        if path in _GUARDED_PAGES and not self._under_own_name(headers):
            return _FOREIGN_NAME
        if not self._known:
            return caller
        identity = self._identity(_shown_tokens(headers))
        return _NO_TOKEN if identity is None else replace(caller, identity=identity)

    def _under_own_name(self, headers: Headers) -> bool:
        """Whether a page is asked for under a name that nobody else can make mean this machine.

        Where tokens are asked for, a name proves nothing and need not: the token does.
        """
        if self._known:
            return True
        hosts = headers.get_all("Host")
        found = _parse_host(hosts[0], "http") if len(hosts) == 1 else None
        if found is None:
            return False
        name = found[0]
        allowed = {origin.host for origin in self._allowed if origin is not None}
        return is_loopback(name) or is_address(name) or name in allowed

    def _identity(self, tokens: Iterable[str]) -> str | None:
        """Who shows one of `tokens`. Every known token is compared, in constant time."""
        for digest in map(_digest, tokens):
            matches = [secrets.compare_digest(digest, known) for known in self._known]
            if any(matches):
                return digest.hex()[:_IDENTITY_DIGITS]
        return None

    def _of_good_origin(self, headers: Headers) -> bool:
        origins = headers.get_all("Origin")
        if not origins:
            return True  # no browser
        origin = _parse_origin(origins[0]) if len(origins) == 1 else None
        if origin is None:
            return False
        return origin in self._allowed or self._is_own(origin, headers.get_all("Host"))

    def _is_own(self, origin: "_Origin", hosts: Sequence[str]) -> bool:
        """Whether the page comes from this server, or from another one on the same machine."""
        if origin.scheme not in _PORTS:
            return False
        if is_loopback(origin.host):
            return True
        trusted = bool(self._known) or is_address(origin.host)
        own = _parse_host(hosts[0], origin.scheme) if len(hosts) == 1 else None
        return trusted and own == (origin.host, origin.port)


def room(settings: ServerSettings, address: str, places: Places) -> Refusal | None:
    """Why there is no place for a caller from `address`; None if there is one."""
    if places.closing:
        return _no_room("the server is shutting down")
    if places.taken >= settings.max_sessions:
        return _no_room(f"all {settings.max_sessions} places are taken; try again later")
    if places.behind_s > settings.max_wait_s:
        return _no_room(
            f"callers wait for more than {settings.max_wait_s:g} s for an answer; try again later"
        )
    counted = settings.limit_loopback or not is_loopback(address)
    if counted and places.from_address >= settings.max_sessions_per_address:
        return Refusal(
            HTTPStatus.TOO_MANY_REQUESTS,
            f"{settings.max_sessions_per_address} callers from this address are connected "
            "already; try again later",
            _RETRY_S,
        )
    return None


def require_safe(settings: ServerSettings) -> None:
    """Make sure that a server with these settings lets in nobody by accident.

    Raises:
        ServerError: It would listen beyond this machine without tokens, or an allowed origin is
            none.
        TokenError: A token is none.
    """
    for number, token in enumerate(settings.tokens, start=1):
        require_token(token, f"tokens, number {number}")
    for origin in settings.allowed_origins:
        if _parse_origin(origin) is None:
            raise ServerError(
                f"allowed_origins (--allow-origin) has {origin!r}; an origin is like "
                "https://voice.example or http://192.168.1.5:8000, without a path"
            )
    if not (is_loopback(settings.host) or settings.tokens or settings.insecure):
        raise ServerError(
            f"host (--host) is {settings.host!r}, where other machines can reach the server, and "
            "no token is configured. Make one with 'labkit token > tokens.txt' and give "
            "--token-file tokens.txt, or --insecure to let everybody in"
        )


def warnings_about(settings: ServerSettings) -> list[str]:
    """What is allowed and yet worth knowing."""
    if is_loopback(settings.host):
        return []
    found = []
    if not settings.tokens:
        found.append("no token is configured: whoever reaches this machine can use the server")
    if settings.tls_cert is None:
        found.append(
            "no TLS: tokens and speech travel in the clear, unless a proxy before the server "
            "encrypts them; see --tls-cert"
        )
    return found


class _Origin(NamedTuple):
    """Where a page comes from, in lower case, its port filled in."""

    scheme: str
    host: str
    port: int | None


_PORTS: Final = {"http": 80, "https": 443}


def _parse_origin(text: str) -> _Origin | None:
    """The origin that `text` writes; None if it writes none, as `null` does."""
    found = _ORIGIN.fullmatch(text)
    if found is None:
        return None
    scheme, host, port = found[1].lower(), _bare(found[2]), found[3]
    return _Origin(scheme, host, int(port) if port else _PORTS.get(scheme))


def _parse_host(text: str, scheme: str) -> tuple[str, int | None] | None:
    """Host and port of a `Host` header, its port filled in as `scheme` has it."""
    found = _HOST_HEADER.fullmatch(text)
    if found is None:
        return None
    return _bare(found[1]), int(found[2]) if found[2] else _PORTS.get(scheme)


def _bare(host: str) -> str:
    """A host in lower case, without the brackets of an IPv6 address."""
    return host.lower().strip("[]")


def _holds_token(query: str) -> bool:
    fields = parse_qsl(query, keep_blank_values=True)
    return any(name.lower() in _TOKEN_FIELDS for name, _ in fields)


def _shown_tokens(headers: Headers) -> list[str]:
    """The tokens that a caller shows, by header and by subprotocol."""
    by_header = [value.split(None, 1) for value in headers.get_all("Authorization")]
    offered = ",".join(headers.get_all("Sec-WebSocket-Protocol")).split(",")
    return [words[1].strip() for words in by_header if _is_bearer(words)] + [
        name.strip().removeprefix(BEARER_PREFIX)
        for name in offered
        if name.strip().startswith(BEARER_PREFIX)
    ]


def _is_bearer(words: Sequence[str]) -> bool:
    """Whether a header of scheme and credentials has both; the scheme may be of any case."""
    return len(words) == 2 and words[0].lower() == "bearer"


def _digest(token: str) -> bytes:
    """A hash, so that all tokens are of one length when they are compared."""
    return sha256(token.encode(errors="surrogatepass")).digest()


def _no_room(reason: str) -> Refusal:
    return Refusal(HTTPStatus.SERVICE_UNAVAILABLE, reason, _RETRY_S)


class Admission:
    """Lets callers in, answers those who only want a page, and turns the others away.

    Attributes:
        closed: Nobody is let in any more.
    """

    def __init__(
        self,
        settings: ServerSettings,
        pages: Pages,
        metrics: Metrics,
        behind_s: Callable[[], float],
    ) -> None:
        """`pages` need no place; `behind_s` gives the longest wait for an answer, in seconds."""
        self.closed = False
        self._settings = settings
        self._pages = pages
        self._metrics = metrics
        self._behind_s = behind_s
        self._access = Access(settings)
        # Those who have a place. A connection leaves when it is lost, or its handshake fails.
        self._admitted: WeakKeyDictionary[ServerConnection, Caller] = WeakKeyDictionary()

    def caller(self, socket: ServerConnection) -> Caller:
        """Who was let in, and what its sessions are counted by."""
        admitted = self._admitted[socket]
        counted = self._settings.limit_loopback or not is_loopback(_address_of(socket))
        return Caller(admitted.identity, admitted.address if counted else "")

    def process_request(self, socket: ServerConnection, request: Request) -> Response | None:
        """The page or the refusal that answers a request; None lets the caller in."""
        address = _address_of(socket)
        verdict = self._access.identify(request.path, request.headers, address)
        if isinstance(verdict, Refusal):
            return self._refuse(verdict)
        if (found := self._pages.answer(request)) is not None:
            return found
        if (no_room := room(self._settings, address, self._places(address))) is not None:
            return self._refuse(no_room)
        self._admitted[socket] = verdict
        return None

    def process_response(self, socket: ServerConnection, _: Request, response: Response) -> None:
        """Count what fails at the handshake itself, and free its place at once."""
        failed = response.status_code != HTTPStatus.SWITCHING_PROTOCOLS
        if failed and self._admitted.pop(socket, None) is not None:
            self._metrics.refused_connections.labels(status=str(response.status_code)).inc()

    def leave(self, socket: ServerConnection) -> None:
        """The connection is lost: its place is free."""
        self._admitted.pop(socket, None)

    def _refuse(self, refusal: Refusal) -> Response:
        self._metrics.refused_connections.labels(status=str(refusal.status.value)).inc()
        _log.info("refused a caller: %d, %s", refusal.status.value, refusal.reason)
        return refused(refusal)

    def _places(self, address: str) -> Places:
        """How many callers there are, as it concerns one who comes from `address`."""
        key = caller_at(address)
        return Places(
            taken=len(self._admitted),
            from_address=sum(one.address == key for one in self._admitted.values()),
            closing=self.closed,
            behind_s=self._behind_s(),
        )


def refused(refusal: Refusal) -> Response:
    """The answer to a handshake that is refused: the reason, and what to do about it."""
    response = page(refusal.status, f"{refusal.reason}\n".encode())
    if refusal.retry_s is not None:
        response.headers["Retry-After"] = str(refusal.retry_s)
    if refusal.status is HTTPStatus.UNAUTHORIZED:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def _address_of(socket: ServerConnection) -> str:
    """The address that a caller comes from; empty where its connection has none."""
    match socket.remote_address:
        case (str(host), *_):
            return host
    return ""
