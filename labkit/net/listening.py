"""Where this machine can listen, asked before models load, and the advice where it cannot."""

import errno
import os
import socket
from typing import Final

from labkit.errors import ServerError

__all__ = ["addresses_to_bind"]

_NOT_HERE: Final = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
"""A machine does not have the address, or the whole family: a container without IPv6."""


def addresses_to_bind(host: str, port: int) -> list[str]:
    """The addresses of `host` on which a server can listen now.

    A name may stand for several: `localhost` is 127.0.0.1 and ::1, of which a container may have
    only the first. Those that this machine does not have are left out. A port that is taken on
    one of them is refused, though: callers who try that address first would reach another
    server.

    Args:
        host: A name or an address; empty for all of this machine.
        port: TCP port; 0 for any free one.

    Raises:
        ServerError: There is none, with what to do about it.
    """
    try:
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as error:
        raise ServerError(
            f"cannot listen on {host}: {error.strerror or error}. "
            "Give --host an address of this machine, such as localhost or 0.0.0.0"
        ) from None
    possible, missing = [], None
    for family, kind, protocol, _, address in dict.fromkeys(found):
        try:
            _try_to_bind(family, kind, protocol, address)
        except OSError as error:
            if error.errno not in _NOT_HERE:
                raise _refusal(host, port, error) from None
            missing = error
        else:
            possible.append(str(address[0]))
    if not possible and missing is not None:
        raise _refusal(host, port, missing) from None
    return possible


def _try_to_bind(family: int, kind: int, protocol: int, address: tuple[object, ...]) -> None:
    with socket.socket(family, kind, protocol) as one:
        # As asyncio's own servers do: a port whose last connections still fade away is free, and
        # one for IPv6 leaves the same port of IPv4 alone.
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        one.bind(address)
        one.listen()


def _refusal(host: str, port: int, error: OSError) -> ServerError:
    """What went wrong, and the advice that fits it."""
    match error.errno:
        case errno.EADDRINUSE:
            advice = (
                "Another program listens there: stop it, or choose another port with --port, or 0"
            )
        case errno.EACCES | errno.EPERM:
            advice = "Ports below 1024 are for the administrator: choose one above with --port"
        case errno.EADDRNOTAVAIL | errno.EAFNOSUPPORT:
            advice = "This machine does not have that address: give --host one of its own"
        case _:
            advice = "Choose another --host or --port"
    reason = os.strerror(error.errno) if error.errno else str(error)
    return ServerError(f"cannot listen on {host}:{port}: {reason}. {advice}")
