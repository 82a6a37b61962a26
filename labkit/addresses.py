"""What the address of a machine says: whether it is this one, and who counts as one caller."""

from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

__all__ = ["caller_at", "is_address", "is_loopback"]

_PREFIX: Final = 64
"""Bits of an IPv6 address that a network gives to one household (RFC 6177, RFC 4291)."""


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


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """The address that `text` writes, an IPv4 address inside of IPv6 as IPv4."""
    try:
        found = ip_address(text)
    except ValueError:
        return None
    inside = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return found if inside is None else inside
