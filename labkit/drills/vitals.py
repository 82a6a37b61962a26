"""How a server is, as its own `/metrics` and `/healthz` tell."""

import asyncio
import time
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from prometheus_client.parser import text_string_to_metric_families

from labkit.errors import ClientError

__all__ = ["Vitals", "address_of", "fetch", "parse_vitals", "quiet_vitals"]

_PATIENCE_S: Final = 10.0
_LOOK_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Vitals:
    """A server at one instant. What it does not tell is None.

    Attributes:
        sessions: Sessions, attached or not.
        rss_bytes: Resident memory.
        open_files: Open file descriptors.
    """

    sessions: int | None = None
    rss_bytes: int | None = None
    open_files: int | None = None


def address_of(url: str) -> tuple[str, int]:
    """Host and port of a WebSocket address.

    Raises:
        ClientError: It is no `ws://` address.
    """
    try:
        parts = urlsplit(url)
        if parts.scheme == "ws" and parts.hostname:
            return parts.hostname, parts.port or 80
    except ValueError:
        pass
    raise ClientError(f"url: {url!r} is no address that can be drilled; name one with ws://")


async def fetch(url: str, path: str) -> tuple[int, str]:
    """Get a page of the server at `url`: the HTTP status, and the text.

    Raises:
        ClientError: It does not answer, or not with HTTP.
    """
    host, port = address_of(url)
    try:
        async with asyncio.timeout(_PATIENCE_S):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
                head, _, body = (
                    (await reader.read(-1)).decode(errors="replace").partition("\r\n\r\n")
                )
            finally:
                writer.transport.abort()
        return int(head.split(" ", 2)[1]), body
    except (OSError, ValueError, IndexError, TimeoutError) as error:
        raise ClientError(f"{url} does not give {path}: {error or type(error).__name__}") from error


def parse_vitals(page: str) -> Vitals:
    """Read a page in Prometheus' text format."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0.0) + sample.value

    def whole(name: str) -> int | None:
        return int(found[name]) if name in found else None

    return Vitals(
        whole("labkit_sessions"),
        whole("process_resident_memory_bytes"),
        whole("process_open_fds"),
    )


async def quiet_vitals(url: str, seconds: float) -> Vitals:
    """The vitals once no session is left, or after `seconds` at the latest."""
    deadline_ns = time.perf_counter_ns() + round(seconds * 1e9)
    while True:
        status, page = await fetch(url, "/metrics")
        vitals = parse_vitals(page) if status == 200 else Vitals()
        if not vitals.sessions or time.perf_counter_ns() >= deadline_ns:
            return vitals
        await asyncio.sleep(_LOOK_S)
