"""Who may come in: decided at the handshake, before a caller takes up a place."""

import asyncio
import logging
from dataclasses import dataclass
from http import HTTPStatus
from socket import SO_SNDBUF, SOL_SOCKET
from typing import Final
from weakref import WeakKeyDictionary, WeakSet

from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request, Response

from labkit.net.addresses import caller_at
from labkit.server.access import Access, Handshake, Places, Refusal, room
from labkit.server.http import Pages, refused
from labkit.server.metrics import Metrics
from labkit.session.settings import ServerSettings

__all__ = ["Door"]

_log = logging.getLogger(__name__)

_SEND_BUFFER: Final = 64 * 1024
"""Bytes of the kernel's send buffer: two seconds of audio; Linux doubles it for itself."""


@dataclass(frozen=True, slots=True)
class _Caller:
    """Who was admitted: the identity, and what callers from the same address are counted by."""

    identity: str | None
    address: str


class Door:
    """Lets callers in, answers those who only want a page, and turns the others away.

    Attributes:
        sockets: Connections from their first byte, before any handshake: one that never ends
            its handshake would hold up a shutdown for as long as a handshake may take.
        closed: Nobody is let in any more.
    """

    def __init__(self, settings: ServerSettings, pages: Pages, metrics: Metrics) -> None:
        """Let in whom `settings` allow; `pages` need no place."""
        self.sockets: WeakSet[ServerConnection] = WeakSet()
        self.closed = False
        self._settings = settings
        self._pages = pages
        self._metrics = metrics
        self._access = Access(settings)
        self._callers: WeakKeyDictionary[ServerConnection, _Caller] = WeakKeyDictionary()
        self._admitted: WeakSet[ServerConnection] = WeakSet()

    def identity_of(self, socket: ServerConnection) -> str | None:
        """Who was let in, where that is known."""
        return self._callers[socket].identity

    def process_request(self, socket: ServerConnection, request: Request) -> Response | None:
        """The page or the refusal that answers a request; None lets the caller in."""
        address = _address_of(socket)
        verdict = self._access.identify(Handshake(request.path, request.headers, address))
        if isinstance(verdict, Refusal):
            return self._refuse(verdict)
        if (page := self._pages.answer(request)) is not None:
            return page
        if (no_room := room(self._settings, address, self._places(address))) is not None:
            return self._refuse(no_room)
        self._callers[socket] = _Caller(verdict.identity, caller_at(address))
        self._admitted.add(socket)
        return None

    def process_response(self, socket: ServerConnection, _: Request, response: Response) -> None:
        """Count what fails at the handshake itself, and free its place at once."""
        if response.status_code != HTTPStatus.SWITCHING_PROTOCOLS and socket in self._admitted:
            self._admitted.discard(socket)
            self._metrics.refused.labels(status=str(response.status_code)).inc()

    def _refuse(self, refusal: Refusal) -> Response:
        self._metrics.refused.labels(status=str(refusal.status.value)).inc()
        _log.info("refused a caller: %d, %s", refusal.status.value, refusal.reason)
        return refused(refusal)

    def _places(self, address: str) -> Places:
        """How many callers there are, as it concerns one who comes from `address`."""
        key = caller_at(address)
        return Places(
            taken=len(self._admitted),
            from_address=sum(self._callers[one].address == key for one in self._admitted),
            closing=self.closed,
        )

    def watched(self) -> type[ServerConnection]:
        """The class of connections that are noted as soon as they are made, and until they end."""
        return _noted_in(self.sockets, self._admitted)


def _address_of(socket: ServerConnection) -> str:
    """The address that a caller comes from; empty where its connection has none."""
    match socket.remote_address:
        case (str(host), *_):
            return host
    return ""


def _noted_in(
    sockets: WeakSet[ServerConnection], admitted: WeakSet[ServerConnection]
) -> type[ServerConnection]:
    """Connections that are in `sockets` from their first byte, and leave both when they end."""

    class Tracked(ServerConnection):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            _bound_send_buffer(transport)
            sockets.add(self)

        def connection_lost(self, error: Exception | None) -> None:
            super().connection_lost(error)
            for kept in (sockets, admitted):
                kept.discard(self)

    return Tracked


def _bound_send_buffer(transport: asyncio.BaseTransport) -> None:
    """Let little wait in the kernel, which would take megabytes for a client that does not read.

    What lies there cannot be called back, and counts as sent.
    """
    raw = transport.get_extra_info("socket")
    if raw is not None:
        raw.setsockopt(SOL_SOCKET, SO_SNDBUF, _SEND_BUFFER)
