"""TLS from certificate files, for servers and for clients that trust a certificate of their own."""

import ssl
from pathlib import Path

from labkit.errors import ClientError, ServerError


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
            f"{named}: no certificate with its key, in PEM and not encrypted: {_reason(error)}"
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
        raise ClientError(f"{authority} holds no certificate in PEM: {_reason(error)}") from error


def _unreadable(path: Path) -> str | None:
    """Why a file cannot be read; OpenSSL says so without naming it."""
    try:
        with path.open("rb"):
            return None
    except OSError as error:
        return error.strerror or str(error)


def _reason(error: Exception) -> str:
    return getattr(error, "reason", None) or str(error)
