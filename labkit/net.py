"""The network around a connection: addresses, certificates, tokens, and what is logged of it.

A token is 16 to 256 letters, digits, "-" and "_" (base64url, RFC 4648 section 5), so that it fits
an `Authorization` header (RFC 6750) and the name of a subprotocol (RFC 6455) alike. It comes from
a file or from the environment, never from a command line, which everybody on a machine can read,
and it is never printed in an error.

At level DEBUG, websockets logs the headers and the messages of every connection: tokens, query
strings, transcripts and audio. Its log of labkit's connections therefore goes to `wire_log`, a
logger of its own, which stays at WARNING even where the root logger is at DEBUG. Whoever wants
the bytes asks for them: ``logging.getLogger("labkit.wire").setLevel(logging.DEBUG)``.
"""

import errno
import logging
import os
import re
import secrets
import socket
import ssl
import stat
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import Final

from labkit.errors import ClientError, ServerError, TokenError

wire_log: Final = logging.getLogger("labkit.wire")
"""Where websockets logs, for servers and clients of labkit."""
wire_log.setLevel(logging.WARNING)
_log = logging.getLogger(__name__)

# -- addresses: which machine is meant, who counts as one caller, where one can listen ---------

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
            return str(ip_network((found, _PREFIX), strict=False))
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
    except (OSError, UnicodeError) as error:  # the latter of what can be no name
        raise ServerError(
            f"cannot listen on {host}: {getattr(error, 'strerror', None) or error}. "
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


# -- certificates ------------------------------------------------------------------------------


def server_tls(certificate: Path, key: Path | None = None) -> ssl.SSLContext:
    """What a server needs to speak TLS 1.2 or newer.

    Args:
        certificate: PEM file: the server's certificate, and those between it and a root.
        key: PEM file of its private key, not encrypted; None where `certificate` holds it, too.

    Raises:
        ServerError: A file cannot be read, or they are no certificate with its key.
    """
    files = [certificate] if key is None else [certificate, key]
    for path in files:
        if (reason := _unreadable(path)) is not None:
            raise ServerError(f"TLS file {path} cannot be read: {reason}")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # Without a password of ours, OpenSSL would ask for one on the terminal.
        context.load_cert_chain(certificate, key, password="")
    except (ssl.SSLError, ValueError) as error:
        named = " and ".join(str(path) for path in files)
        raise ServerError(
            f"{named}: no certificate with its key, in PEM and not encrypted{_reason(error)}"
        ) from error
    return context


def client_tls(authority: Path) -> ssl.SSLContext:
    """What a client needs to trust the certificates in `authority`, and no others.

    Args:
        authority: PEM file of a certificate authority, or of a server's self-signed certificate.

    Raises:
        ClientError: The file cannot be read, or holds no certificate.
    """
    if (reason := _unreadable(authority)) is not None:
        raise ClientError(f"certificate file {authority} cannot be read: {reason}")
    try:
        return ssl.create_default_context(cafile=authority)
    except (ssl.SSLError, ValueError) as error:
        raise ClientError(f"{authority} holds no certificate in PEM{_reason(error)}") from error


def _unreadable(path: Path) -> str | None:
    """Why a file cannot be read; OpenSSL says so without naming it."""
    try:
        with path.open("rb"):
            return None
    except OSError as error:
        return error.strerror or str(error)


def _reason(error: Exception) -> str:
    """What OpenSSL calls it, where it has a name for it, as the end of a sentence."""
    reason = getattr(error, "reason", None)
    return f": {reason}" if reason else ""


# -- tokens ------------------------------------------------------------------------------------

TOKEN_VARIABLE: Final = "LABKIT_TOKEN"
"""The environment variable that may hold a token."""

_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{16,256}")
_FRESH_BYTES: Final = 32


def new_token() -> str:
    """A fresh token of 256 random bits."""
    return secrets.token_urlsafe(_FRESH_BYTES)


def bearer(token: str) -> dict[str, str]:
    """The header by which a client shows `token` (RFC 6750, section 2.1)."""
    return {"Authorization": f"Bearer {token}"}


def require_token(token: str, where: str) -> str:
    """`token` itself, if it is one; `where` names its place in the error.

    Raises:
        TokenError: It is too short, too long, or of other characters.
    """
    if _TOKEN.fullmatch(token) is None:
        raise TokenError(
            f"{where}: no token, but {len(token)} characters. A token is 16 to 256 letters, "
            "digits, '-' and '_'; make one with 'labkit token'"
        )
    return token


def read_tokens(path: Path) -> tuple[str, ...]:
    """The tokens of a file, one per line; what follows a `#` is a comment.

    A file that everybody on the machine can read is warned of.

    Raises:
        TokenError: The file cannot be read, holds no token, or holds something else.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
        mode = path.stat().st_mode
    except OSError as error:
        raise TokenError(f"token file {path} cannot be read: {error.strerror or error}") from error
    if os.name == "posix" and mode & stat.S_IROTH:
        _log.warning("everybody on this machine can read the tokens in %s; chmod 600 it", path)
    found = [(number, line.partition("#")[0].strip()) for number, line in enumerate(lines, start=1)]
    tokens = tuple(require_token(word, f"{path}, line {number}") for number, word in found if word)
    if not tokens:
        raise TokenError(f"token file {path} holds no token; make one with 'labkit token'")
    return tokens


def token_in(environment: Mapping[str, str]) -> str | None:
    """The token in the environment, None where the variable is not set.

    Raises:
        TokenError: It is set to something that is no token; empty is no token, either.
    """
    token = environment.get(TOKEN_VARIABLE)
    return None if token is None else require_token(token, f"the variable {TOKEN_VARIABLE}")
