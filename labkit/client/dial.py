"""How clients connect: addresses, headers, certificates, proxies, deadlines, refusals in words.

Everything of labkit that opens a WebSocket does it here, whatever it speaks then. `connected`
is for a client that lives as long as a block; `dial` and `hang_up` are its two halves.
"""

import asyncio
import os
import random
import re
import socket
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, TypedDict, Unpack
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit
from urllib.request import getproxies, proxy_bypass

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHeader,
    InvalidMessage,
    InvalidProxyMessage,
    InvalidProxyStatus,
    InvalidStatus,
    InvalidURI,
    WebSocketException,
)
from websockets.frames import Close, CloseCode
from websockets.http11 import Response
from websockets.typing import Subprotocol

from labkit.errors import ClientError, ConnectError
from labkit.net import is_loopback, wire_log

CONNECT_S: Final = 10.0
"""Longest that connecting may take: name, TCP, TLS, and the answer to the handshake."""
CLOSE_S: Final = 2.0
"""Longest that leaving may take, for a server that does not take leave."""
MAX_MESSAGE_BYTES: Final = 1024 * 1024
"""Longest message that is taken, as by most WebSocket libraries; no server of labkit sends more."""

_REASON: Final = 400
"""Most characters of a refusal that are repeated."""
_NO_TLS: Final = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST"})
"""What OpenSSL says of an answer that is not TLS at all; the name depends on its version."""
_TRY_LATER: Final = frozenset({429, 502, 503, 504})
"""HTTP statuses of servers, and of the proxies before them, that pass (RFC 9110, RFC 6585)."""


_REDIRECTS: Final = frozenset({300, 301, 302, 303, 307, 308})
"""HTTP statuses that send a client to the address in `Location` (RFC 9110)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Exponential backoff with full jitter.

    Each wait is drawn evenly between nothing and a bound that doubles up to a limit, so that
    clients which were cut off together do not come back together (M. Brooker, "Exponential
    Backoff And Jitter", AWS Architecture Blog, 2015).
    """

    first_s: float = 0.1
    """Bound of the first wait, in seconds."""
    limit_s: float = 5.0
    """Largest bound."""
    give_up_s: float = 60.0
    """After so many seconds without a session there is no further try, whether nobody answers or
    somebody who says nothing."""

    def delays(self, random_source: random.Random) -> Iterator[float]:
        """Waits before the first try again, the second, and so on, without end."""
        bound = self.first_s
        while True:
            yield random_source.uniform(0, bound)
            bound = min(self.limit_s, 2 * bound)


def server_url(text: str) -> str:
    """The address that `text` writes, as it is dialled: with a path, without a fragment.

    Raises:
        ClientError: It is no address of a WebSocket server; says what is wrong with it.
    """
    text = text.strip()
    told = re.sub(r"((?:^|//))[^/?#]*@", r"\1", text)  # a password is not printed
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ClientError(f"{told!r} is no address: {error}") from error
    if parts.scheme in ("http", "https") and host:
        raise ClientError(
            f"{told!r} is the address of a web page; a voice server's begins with ws:// or "
            f"wss://, try {_rescheme(told, 'ws' if parts.scheme == 'http' else 'wss')}"
        )
    if parts.scheme not in ("ws", "wss") or not host:
        raise ClientError(f"{told!r} is no address of a voice server; try {_suggestion(told)}")
    if port == 0:
        raise ClientError(f"{told!r} names port 0, at which nobody can listen")
    return urlunsplit(parts._replace(path=parts.path or "/", fragment=""))


def address_of(url: str, *, tls: bool = False) -> tuple[str, int]:
    """Host and port of the server at `url`; with `tls`, of a ``wss://`` address as well.

    Raises:
        ClientError: It is no such address.
    """
    parts = urlsplit(server_url(url))
    if parts.scheme == "wss" and not tls:
        raise ClientError(
            f"{shown(url)!r} is encrypted, which cannot be looked into; name one with ws://"
        )
    return parts.hostname or "", parts.port or (443 if parts.scheme == "wss" else 80)


def with_query(url: str, **fields: str) -> str:
    """`url` with these fields in its query, in place of those of the same names."""
    if not fields:
        return url
    parts = urlsplit(url)
    kept = [one for one in parse_qsl(parts.query, keep_blank_values=True) if one[0] not in fields]
    return urlunsplit(parts._replace(query=urlencode([*kept, *fields.items()])))


class Reach(TypedDict, total=False):
    """How a server is reached; each part may be left out."""

    headers: Mapping[str, str] | None
    """Further headers of the handshake, such as those of `labkit.net.bearer`."""
    tls: ssl.SSLContext | None
    """Whom to trust under ``wss://``, such as `labkit.net.client_tls` gives; without it, whom
    this machine trusts."""
    through: tuple[str, int] | None
    """Address and port of what stands before the server, such as
    `labkit.measure.netem.Proxy.address`; the server is called by its own name all the same."""
    deflate: bool
    """Offer to compress messages (RFC 7692), which servers may leave at that."""


async def dial(
    url: str,
    *,
    query: Mapping[str, str] | None = None,
    subprotocol: str | None = None,
    within_s: float = CONNECT_S,
    sock: socket.socket | None = None,
    max_size: int | None = MAX_MESSAGE_BYTES,
    max_queue: int | None = 16,
    keepalive_s: float | None = None,
    **reach: Unpack[Reach],
) -> ClientConnection:
    """Connect to the server at `url`; whoever does has to `hang_up`.

    Args:
        url: Such as ``ws://localhost:8765`` or ``wss://host/path?field=value``.
        query: Fields for the query of the address, in place of its own of the same names.
        subprotocol: The dialect to ask for; None is the plain one.
        within_s: Longest that all of it may take, in seconds.
        sock: A connected TCP socket to speak over.
        max_size: Longest message that is taken, in bytes; None takes any.
        max_queue: Messages that are read before anybody asks for them.
        keepalive_s: Ping after so many seconds, and give the connection up after as many more
            without an answer. None does neither: then every wait needs a deadline of its own.
        reach: Headers, certificates and such.

    Raises:
        ConnectError: Nobody answers there in time, not as a WebSocket, or with a refusal.
        ClientError: `url` is no address.
    """
    address, tls, through = server_url(url), reach.get("tls"), reach.get("through")
    if tls is not None and not address.startswith("wss:"):
        raise ClientError(
            f"a certificate to trust was given, and {shown(address)} is not encrypted; "
            f"try {shown(_rescheme(address, 'wss'))}"
        )
    reached: list[ClientConnection] = []

    def note(*args: Any, **options: Any) -> ClientConnection:
        """Called by websockets once TCP is through, which says how far a failure came."""
        reached.append(ClientConnection(*args, **options))
        return reached[-1]

    create: Any = note
    options: dict[str, Any] = {} if tls is None else {"ssl": tls}
    if through is not None:
        options["host"], options["port"] = through
    # Never for this machine, whatever its environment says.
    local = through is not None or is_loopback(urlsplit(address).hostname or "")
    try:
        return await connect(
            with_query(address, **(query or {})),
            subprotocols=None if subprotocol is None else [Subprotocol(subprotocol)],
            additional_headers=reach.get("headers"),
            proxy=None if local else True,
            open_timeout=within_s,
            close_timeout=CLOSE_S,
            ping_interval=keepalive_s,
            ping_timeout=keepalive_s,
            max_size=max_size,
            max_queue=max_queue,
            compression="deflate" if reach.get("deflate") else None,
            logger=wire_log,
            create_connection=create,
            sock=sock,
            **options,
        )
    # ValueError: names that cannot be looked up; ImportError: a SOCKS proxy without its library.
    except (OSError, WebSocketException, ValueError, EOFError, ImportError) as error:
        through_proxy = not (reached or local or sock) and _has_proxy(address)
        failure = _failure(address, error, within_s, reached=bool(reached), proxy=through_proxy)
    # Not `from error`: its words, which a traceback repeats, may hold a password or a key.
    raise failure


async def hang_up(connection: ClientConnection, within_s: float = CLOSE_S) -> None:
    """Close a connection; after `within_s` seconds, drop it without the server's leave.

    `close` by itself has no bound here: before it waits for the server's leave, which it does
    for a bounded time, it waits for room for its own message, and there is none while the server
    does not read.
    """
    try:
        async with asyncio.timeout(within_s):
            await connection.close()
    except TimeoutError:
        pass
    finally:
        connection.transport.abort()
        await connection.wait_closed()  # which the loop says in its next turn


@asynccontextmanager
async def connected(url: str, **options: Any) -> AsyncIterator[ClientConnection]:
    """A connection for the length of the block; takes what `dial` takes.

    Raises:
        ClientError: As `dial`.
    """
    connection = await dial(url, **options)
    try:
        yield connection
    finally:
        await hang_up(connection)


def in_words(text: str, most: int = _REASON) -> str:
    """A text of the other side as a line to print: not too long, and nothing in it that steers."""
    line = " ".join(text.split())
    return _printable(line if len(line) <= most else f"{line[:most]}…")


def _printable(text: str) -> str:
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def why_closed(closed: ConnectionClosed) -> str:
    """Who closed a connection, and why, in words."""
    if closed.rcvd is not None and closed.rcvd_then_sent is not False:
        reason = in_words(closed.rcvd.reason) or "no reason given"
        return f"the server closed the connection: code {closed.rcvd.code}, {reason}"
    match closed.sent:
        case Close(code=CloseCode.MESSAGE_TOO_BIG):
            return "the server sent a message that is too large to take"
        case Close(code=CloseCode.INTERNAL_ERROR):
            return "the connection was lost: the server answered no ping"
        case Close(code=code, reason=reason) if code != CloseCode.NORMAL_CLOSURE:
            return f"the server does not keep to WebSocket: {reason or code}"
        case Close():
            return "the connection is closed"
    return "the connection broke off"


def _suggestion(text: str) -> str:
    """What was probably meant by something without scheme or host."""
    bare = text.partition("://")[2] if "://" in text else text
    guess = f"ws://{bare.lstrip('/')}"
    try:
        parts = urlsplit(guess)
        usable = bool(parts.hostname) and parts.port != 0 and not re.search(r"\s", guess)
    except ValueError:
        usable = False
    return guess if usable else "ws://localhost:8765"


def _rescheme(url: str, scheme: str) -> str:
    return urlunsplit(urlsplit(url)._replace(scheme=scheme))


def shown(url: str) -> str:
    """`url` as it may be printed and kept: without name and password, and without a bare path."""
    parts = urlsplit(url)
    path = "" if parts.path == "/" and not parts.query else parts.path
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], path=path))


def _later(told: str) -> ConnectError:
    """A failure that may pass; whatever a server had a part in is made fit to be printed here."""
    return ConnectError(_printable(told), retry=True)


def _never(told: str) -> ConnectError:
    """A failure that comes again with each try; as above."""
    return ConnectError(_printable(told), retry=False)


def _has_proxy(address: str) -> bool:
    """Whether the environment names a proxy for `address`; websockets looks for the same names."""
    parts = urlsplit(address)
    names = {parts.scheme, "socks", "https"} | ({"http"} if parts.scheme == "ws" else set())
    return not names.isdisjoint(getproxies()) and not proxy_bypass(parts.netloc.rpartition("@")[2])


def _failure(
    address: str, error: Exception, within_s: float, *, reached: bool, proxy: bool
) -> ConnectError:
    """What went wrong, in words, and whether trying again can help.

    The server was `reached`, and the handshake failed; or not even the `proxy` before it was.
    """
    url = shown(address)
    place = f"the proxy before {url}" if proxy else url
    match error:
        case InvalidStatus(response=response):
            return _refusal(url, response)
        case InvalidProxyStatus(response=response):
            return _refusal(f"the proxy before {url}", response)
        case ssl.SSLCertVerificationError(verify_message=why):
            return _never(
                f"the certificate of {url} is not trusted: {why.rstrip('.')}. If it is your own, "
                "give its file: labkit talk --ca FILE, or labkit.net.client_tls(FILE)"
            )
        case ssl.SSLError(reason=reason) if reason in _NO_TLS:
            return _never(f"{url}: {_no_tls(url)}")
        case TimeoutError() if reached:
            silent = f"{url} took the connection and did not answer the handshake"
            return _later(f"{silent} within {within_s:.3g} s")
        case TimeoutError():
            return _later(f"nobody answered at {place} within {within_s:.3g} s")
        case OSError() | InvalidProxyMessage(__cause__=EOFError()) if proxy:
            return _later(f"no connection through {place}: {_reason(error)}")
        case OSError() if not reached:
            start = "Start one with 'labkit serve', and wait until it is ready"
            return _later(f"no voice server answers at {url}: {_reason(error)}. {start}")
        case ConnectionRefusedError() | socket.gaierror():  # of a server that was reached
            return _later(f"{url} leads elsewhere, where nobody answers: {_reason(error)}")
        case OSError() if url.startswith("wss:"):
            return _later(f"{url} hung up on the TLS handshake: most likely {_no_tls(url)}")
        case OSError() | InvalidMessage(__cause__=EOFError()):
            speaks = "it is no voice server, or it speaks TLS; then try"
            return _later(f"{url} hung up on the handshake: {speaks} {_rescheme(url, 'wss')}")
        case InvalidMessage(__cause__=cause):
            return _never(f"{url} is no WebSocket server: {cause or error}")
        case InvalidURI(uri=to) if reached:
            return _never(f"{url} leads elsewhere: {_no_voice_server(to)}")
        case InvalidHeader(name=name, value=str()):  # which may be a key that was given
            return _never(f"cannot connect to {url}: the header {name!r} is not valid")
    # Of a proxy, or of where a redirect leads: neither is shown with name and password.
    told = re.sub(r"(\w+://)?\S*@", r"\1", str(error))
    return _never(f"cannot connect to {url}: {told or type(error).__name__}")


def _no_tls(url: str) -> str:
    return f"it does not speak TLS, try {_rescheme(url, 'ws')}"


def _no_voice_server(to: str) -> str:
    """Why a redirect is of no use, and what to do."""
    try:
        server_url(to)
    except ClientError as error:
        return str(error)
    return "to no address of a voice server; ask whoever runs it for one"


def _refusal(who: str, response: Response) -> ConnectError:
    """What was said to refuse a handshake, and when it asked to be tried again."""
    body = in_words((response.body or b"").decode(errors="replace"))
    # The source of a web page says nothing to whoever called.
    said = f"HTTP {response.status_code}" + (f": {body}" if body and body[0] != "<" else "")
    if response.status_code in _REDIRECTS:  # one that can be followed is, and gives no refusal
        return _never(
            f"{who} leads elsewhere and does not say where: {said}; ask whoever runs it for the "
            "address of the voice server itself"
        )
    wait = response.headers.get("Retry-After", "")
    refused = response.status_code >= HTTPStatus.MULTIPLE_CHOICES
    what = (
        "refused the connection:" if refused else "is no voice server: it answers with a web page,"
    )
    return ConnectError(
        f"{who} {what} {said}",
        retry=wait.isdecimal() or response.status_code in _TRY_LATER,
        retry_after_s=float(wait) if wait.isdecimal() else 0.0,
    )


def _reason(error: Exception) -> str:
    """Why a connection failed; asyncio writes one number for each address that it tried."""
    numbers = dict.fromkeys(re.findall(r"\[Errno (\d+)\]", str(error)))
    words = ", ".join(os.strerror(int(number)) for number in numbers)
    return words or getattr(error, "strerror", None) or str(error) or type(error).__name__
