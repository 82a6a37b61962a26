"""Parting from a client: in order if that can be done in time, else at once."""

import asyncio
import logging
from typing import Final

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed
from websockets.protocol import State

from labkit.errors import CloseCode

__all__ = ["HANG_UP_S", "hang_up"]

_log = logging.getLogger(__name__)

HANG_UP_S: Final = 1.0
"""Longest that closing one connection in order may take."""
_REASON: Final = 120
"""Most characters of a close reason; a close frame has room for 123 bytes."""


async def hang_up(
    socket: ServerConnection, code: CloseCode, reason: str, farewell: str | None = None
) -> None:
    """Close a connection in order if that can be done in time, else cut it.

    Args:
        socket: The connection.
        code: The close code.
        reason: Why, in plain ASCII words.
        farewell: A last message, sent before.

    The closing handshake waits until the client has read what was sent before, and a client
    that does not read never does; one that has not ended its opening handshake has none.
    """
    try:
        async with asyncio.timeout(HANG_UP_S):
            if socket.state is State.OPEN and farewell is not None:
                await socket.send(farewell)
            if socket.state is State.OPEN:
                await socket.close(code, reason[:_REASON])
    except ConnectionClosed:
        pass  # it hung up itself
    except TimeoutError:
        _log.info("cutting %s: not closed within %g s", socket.remote_address, HANG_UP_S)
    if socket.state is not State.CLOSED:
        socket.transport.abort()
