"""What addresses say: which machine is meant, who counts as one caller, where one can listen."""

import errno
import os
import socket
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from labkit.errors import ServerError

_PREFIX: Final = 64
"""Bits of an IPv6 address that a network gives to one household (RFC 6177, RFC 4291)."""
_NOT_HERE: Final = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
"""A machine does not have the address, or the whole family: a container without IPv6."""


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine and nothing else: `localhost`, 127.0.0.0/8 or ::1.

    Names are not looked up: another name may mean this machine, and may mean another one later.
    """
    address = _address(host)
    return host.lower() == "localhost" if address is None else address.is_loopback


def is_address(host: str) -> bool:
    """Whether `host` is an IP address rather than a name."""
    return _address(host) is not None


def caller_at(address: str) -> str:
    """What callers from `address` are counted by.

    That is the IPv4 address itself, and the first 64 bits of an IPv6 address, since whoever has
    one of those has them all. What is no address is counted as it is.
    """
    match _address(address):
        case IPv6Address() as found:
            high = int(found) >> _PREFIX << _PREFIX
            return f"{IPv6Address(high)}/{_PREFIX}"
        case IPv4Address() as found:
            return str(found)
    return address


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


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """The address that `text` writes, an IPv4 address inside of IPv6 as IPv4."""
    try:
        found = ip_address(text)
    except ValueError:
        return None
    inside = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return found if inside is None else inside


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
