"""Connecting: what is an address, and what is said where there is no server behind it."""

import asyncio
import re
import socket
import ssl
import time
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request, Response

from labkit.client.dial import (
    address_of,
    connected,
    dial,
    hang_up,
    in_words,
    server_url,
    with_query,
)
from labkit.errors import ClientError, ConnectError
from labkit.net import server_tls
from tests.certificates import Certificate, self_signed
from tests.client.peers import deaf, silent, tcp, websocket


@pytest.mark.parametrize(
    ("text", "dialled"),
    [
        ("ws://localhost:8765", "ws://localhost:8765/"),
        ("ws://localhost:8765/", "ws://localhost:8765/"),
        (" ws://box ", "ws://box/"),
        ("WS://box", "ws://box/"),
        ("ws://box?lang=en", "ws://box/?lang=en"),
        ("ws://box/a/b?x=1&y=#top", "ws://box/a/b?x=1&y="),
        ("ws://[::1]:8765", "ws://[::1]:8765/"),
        ("wss://user:secret@box/", "wss://user:secret@box/"),
    ],
)
def test_an_address_is_parsed(text: str, dialled: str) -> None:
    assert server_url(text) == dialled


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("localhost:8765", "try ws://localhost:8765"),
        ("127.0.0.1:8765", "try ws://127.0.0.1:8765"),
        ("[::1]:8765", "try ws://[::1]:8765"),
        ("//box", "try ws://box"),
        ("ftp://box/x", "try ws://box/x"),
        ("http://localhost:1", "is the address of a web page"),
        ("http://localhost:1", "try ws://localhost:1"),
        ("https://box/a?b=c", "try wss://box/a?b=c"),
        ("nonsense", "try ws://nonsense"),
        ("", "is no address of a voice server; try ws://localhost:8765"),
        ("ws://", "try ws://localhost:8765"),
        ("ws:///path", "try ws://path"),
        ("ws://[", "is no address: Invalid IPv6 URL"),
        ("ws://box:99999", "is no address: Port out of range"),
        ("ws://box:http", "is no address: Port could not be cast"),
        ("ws://box:0", "port 0"),
    ],
)
def test_what_is_no_address_is_told_with_one_that_is(text: str, words: str) -> None:
    with pytest.raises(ClientError, match=re.escape(words)):
        server_url(text)


@given(st.text(st.characters(), max_size=30) | st.text("ws:/[]@?#0 .", max_size=20))
def test_no_text_raises_anything_else(text: str) -> None:
    try:
        url = server_url(text)
    except ClientError:
        return
    assert server_url(with_query(url, reply="stream")).startswith(("ws://", "wss://"))


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        ("ws://box/", "ws://box/?reply=stream"),
        ("ws://box/?lang=en&empty=", "ws://box/?lang=en&empty=&reply=stream"),
        ("ws://box/a?reply=whole&x=a%20b", "ws://box/a?x=a+b&reply=stream"),
    ],
)
def test_a_query_keeps_what_it_holds(url: str, asked: str) -> None:
    assert with_query(url, reply="stream") == asked


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return self_signed(tmp_path_factory.mktemp("certificate"))


async def failure(url: str, **options: Any) -> ConnectError:
    with pytest.raises(ConnectError) as told:
        async with connected(url, **options):
            pass
    assert not str(told.value).endswith(": ")
    return told.value


async def test_nobody_there() -> None:
    told = await failure("ws://127.0.0.1:1")
    assert str(told).startswith("no voice server answers at ws://127.0.0.1:1: Connection refused")
    assert told.retry


async def test_both_addresses_of_localhost_are_tried_and_one_reason_is_given() -> None:
    assert "Connection refused. Start" in str(await failure("ws://localhost:1"))


async def test_localhost_is_reached_where_only_one_of_its_addresses_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def both(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        kind, protocol = socket.SOCK_STREAM, socket.IPPROTO_TCP
        return [
            (socket.AF_INET6, kind, protocol, "", ("::1", port, 0, 0)),
            (socket.AF_INET, kind, protocol, "", ("127.0.0.1", port)),
        ]

    async with websocket(silent) as url:
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", both)
        async with connected(url.replace("127.0.0.1", "localhost")):
            pass


async def test_a_name_that_nobody_has() -> None:
    assert "not known" in str(await failure("ws://no-such-host.invalid"))
    assert "label" in str(await failure(f"ws://{'a' * 70}.invalid"))


@pytest.mark.usefixtures("virtual_time")
async def test_a_server_that_takes_the_connection_and_says_nothing() -> None:
    async with tcp(silent=True) as url:
        told = await failure(url)
    assert "took the connection and did not answer the handshake within 10 s" in str(told)
    assert told.retry


async def test_nobody_answers_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", never)
    told = await failure("ws://box.invalid", within_s=0.1)
    assert str(told) == "nobody answered at ws://box.invalid within 0.1 s"


async def test_tls_is_asked_of_a_server_without() -> None:
    async with websocket(silent) as url:
        told = str(await failure(url.replace("ws:", "wss:")))
    assert f"does not speak TLS, try {url}" in told


async def test_tls_is_asked_of_something_else() -> None:
    async with tcp(b"SSH-2.0-OpenSSH\r\n") as url:
        told = await failure(url.replace("ws:", "wss:"))
    assert f"does not speak TLS, try {url}" in str(told)
    assert not told.retry


async def test_a_server_that_speaks_tls_is_asked_without(certificate: Certificate) -> None:
    # What the server says of handshakes that fail is not looked at here.
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    tls = server_tls(certificate.cert, certificate.key)
    async with websocket(silent, ssl=tls) as url:
        told = str(await failure(url))
        untrusted = str(await failure(url.replace("ws:", "wss:")))
    assert f"try {url.replace('ws:', 'wss:')}" in told
    assert "is not trusted: self-signed certificate" in untrusted


async def test_a_certificate_for_an_address_without_tls() -> None:
    with pytest.raises(ClientError, match="is not encrypted; try wss://box"):
        await dial("ws://box", tls=ssl.create_default_context())


@pytest.mark.parametrize("reset", [False, True])
async def test_somebody_hangs_up(reset: bool) -> None:
    async with tcp(reset=reset) as url:
        told = await failure(url)
    assert "hung up on the handshake" in str(told)
    assert told.retry


async def test_something_that_is_no_websocket_server() -> None:
    async with tcp(b"220 mail.example ESMTP\r\n") as url:
        assert "is no WebSocket server: " in str(await failure(url))


@pytest.mark.parametrize(
    "answer",
    [
        "HTTP/1.1 403 No \x1b[31m",
        "\x1b]0;evil\x07",
        "HTTP/1.1 302 Found\r\nLocation: http://\x9b31m/",
        "HTTP/1.1 302 Found\r\nLocation: ws://[\x1b",
        "HTTP/1.1 302 Found\r\nLocation: ws://\x1b]0;evil:1/",
        "HTTP/1.1 403 No\r\nX\x1b: y",
    ],
)
async def test_what_steers_a_terminal_is_never_repeated(answer: str) -> None:
    async with tcp(f"{answer}\r\n\r\n".encode("latin-1")) as url:
        assert str(await failure(url)).isprintable()


@asynccontextmanager
async def refusing(status: HTTPStatus, body: str, **headers: str) -> AsyncIterator[str]:
    def refuse(connection: ServerConnection, _: Request) -> Response:
        response = connection.respond(status, body)
        for name, value in headers.items():
            response.headers[name.replace("_", "-")] = value
        return response

    async with websocket(silent, process_request=refuse) as url:
        yield url


@pytest.mark.parametrize(
    ("status", "wait", "retry"),
    [(401, None, False), (404, None, False), (503, None, True), (403, "7", True)],
)
async def test_a_refusal_is_told_in_the_servers_words(
    status: int, wait: str | None, retry: bool
) -> None:
    headers = {} if wait is None else {"Retry_After": wait}
    async with refusing(HTTPStatus(status), "go away\n", **headers) as url:
        told = await failure(url)
    assert str(told) == f"{url} refused the connection: HTTP {status}: go away"
    assert (told.retry, told.retry_after_s) == (retry, float(wait or 0))


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("ws://u:secret@127.0.0.1:1", "Connection refused"),
        ("ws://no-such-host.invalid", "not known"),
    ],
)
async def test_a_server_that_leads_to_nobody_is_told(place: str, why: str) -> None:
    answer = f"HTTP/1.1 302 Found\r\nLocation: {place}\r\nContent-Length: 0\r\n\r\n"
    async with tcp(answer.encode()) as url:
        told = str(await failure(url))
    assert told.startswith(f"{url} leads elsewhere, where nobody answers: ")
    assert told.endswith(why)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (200, "is no voice server: it answers with a web page, HTTP 200"),
        (404, "refused the connection: HTTP 404"),
    ],
)
async def test_a_web_page_is_not_shown_in_its_source(status: int, words: str) -> None:
    page = f"HTTP/1.1 {status} So\r\nContent-Length: 15\r\n\r\n<!DOCTYPE html>"
    async with tcp(page.encode()) as url:
        assert str(await failure(url)) == f"{url} {words}"


@pytest.mark.parametrize("text", ["a\x1b[31mb", "a\r\nb", "\ud800", "x" * 100_000, "\0"])
def test_what_somebody_says_is_a_short_line_that_can_be_printed(text: str) -> None:
    line = in_words(text)
    assert line.isprintable()
    assert len(line.encode()) < 500


async def test_no_secret_of_an_address_is_repeated() -> None:
    told = str(await failure("ws://user:secret@127.0.0.1:1/x"))
    assert "ws://127.0.0.1:1/x" in told
    assert "secret" not in told


@pytest.mark.parametrize(
    "url",
    [
        "http://user:secret@box:1",
        "user:secret@box:1",
        "ws://user:secret@box:0",
        "ws://user:secret@box:99999",
        "ftp://user:secret@box/x",
        "wss://user:secret@box:1",
    ],
)
def test_nor_of_one_that_is_none(url: str) -> None:
    with pytest.raises(ClientError, match="box") as caught:
        address_of(url)
    assert "secret" not in str(caught.value)


async def test_leaving_a_server_that_reads_nothing_takes_no_longer_than_it_may() -> None:
    async with websocket(deaf) as url:
        connection = await dial(url)
        sending = asyncio.create_task(connection.send(bytes(2**25)))
        await asyncio.sleep(0)
        started = time.monotonic()
        await hang_up(connection, 0.1)
        assert time.monotonic() - started < 5
        await asyncio.gather(sending, return_exceptions=True)


@pytest.mark.parametrize(
    "proxy",
    [
        "ftp://u:secret@h:1",
        "http://u:secret@",
        "http://u:secret@h:99999",
        "u:secret@h:1",
        "http://secret@h",
    ],
)
async def test_no_secret_of_a_proxy_is_repeated(
    proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy)
    assert "secret" not in traceback_of(await failure("ws://box.invalid"))


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("Location: http://u:secret@box:1/a", "'http://box:1/a' is the address of a web page; "),
        ("Location: http://box:1/a", "begins with ws:// or wss://, try ws://box:1/a"),
        ("Location: https://box", "try wss://box"),
        ("Location: mailto:you", "'mailto:you' is no address of a voice server; try ws://"),
        ("Location: ws://u:secret@/", "'ws:///' is no address of a voice server"),
        ("X: y", "and does not say where: HTTP 302; ask whoever runs it for the address"),
    ],
)
async def test_a_redirect_to_no_voice_server_is_told(location: str, words: str) -> None:
    async with tcp(f"HTTP/1.1 302 Found\r\n{location}\r\n\r\n".encode()) as url:
        told = await failure(url)
    assert str(told).startswith(f"{url} leads elsewhere")
    assert words in str(told)
    assert not told.retry


@pytest.mark.parametrize("to", ["ftp://u:secret@box/", "ws://u:secret@/"])
async def test_nor_of_where_a_redirect_leads(to: str) -> None:
    async with tcp(f"HTTP/1.1 302 Found\r\nLocation: {to}\r\n\r\n".encode()) as url:
        assert "secret" not in traceback_of(await failure(url))


async def test_nor_a_key_that_cannot_be_sent() -> None:
    async with websocket(silent) as url:
        told = await failure(url, headers={"Authorization": "Bearer secret\n"})
    assert "the header 'Authorization' is not valid" in str(told)
    assert "secret" not in traceback_of(told)


def traceback_of(error: BaseException) -> str:
    """All that Python prints of an error that nobody takes."""
    return "".join(traceback.format_exception(error))


@pytest.fixture
def proxied(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Lets the environment name a proxy, given as the address of a WebSocket server."""
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)

    def name_it(url: str) -> None:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"):
            monkeypatch.setenv(name, f"http://{urlsplit(url).netloc}")

    return name_it


@pytest.mark.parametrize("url", ["ws://box.invalid", "wss://box.invalid"])
@pytest.mark.parametrize(
    ("status", "retry"), [(403, False), (407, False), (502, True), (503, True)]
)
async def test_a_proxy_that_refuses_is_named_and_tried_again_where_that_can_pass(
    status: int, retry: bool, url: str, proxied: Callable[[str], None]
) -> None:
    async with tcp(f"HTTP/1.1 {status} No\r\n\r\n".encode()) as proxy:
        proxied(proxy)
        told = await failure(url)
    assert str(told) == f"the proxy before {url} refused the connection: HTTP {status}"
    assert told.retry is retry


@pytest.mark.parametrize("url", ["ws://box.invalid", "wss://user:secret@box.invalid"])
async def test_a_proxy_that_is_not_there_or_hangs_up_is_named(
    url: str, proxied: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    through = f"no connection through the proxy before {url.replace('user:secret@', '')}: "
    proxied("ws://127.0.0.1:1")
    told = await failure(url)
    assert str(told) == f"{through}Connection refused"
    assert told.retry
    async with tcp(reset=True) as proxy:
        proxied(proxy)
        # What the library notes of a proxy that hung up is not looked at here.
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        told = await failure(url)
    assert str(told).startswith(through)
    assert told.retry
    async with tcp(silent=True) as proxy:
        proxied(proxy)
        told = await failure(url, within_s=0.1)
    assert "nobody answered at the proxy before" in str(told)
    monkeypatch.setenv("no_proxy", "box.invalid")
    assert "no voice server answers at" in str(await failure(url))


async def test_a_proxy_in_the_environment_is_asked_for_other_machines_only(
    proxied: Callable[[str], None],
) -> None:
    async with tcp(b"HTTP/1.1 403 Forbidden\r\n\r\n") as proxy:
        proxied(proxy)
        assert "HTTP 403" in str(await failure("ws://box.invalid"))
        assert "Connection refused" in str(await failure("ws://127.0.0.1:1"))


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("ws://localhost:8765", ("localhost", 8765)),
        ("ws://[::1]:9/?reply=stream", ("::1", 9)),
        ("ws://box", ("box", 80)),
    ],
)
def test_an_address_names_host_and_port(url: str, address: tuple[str, int]) -> None:
    assert address_of(url) == address
    assert address_of(url.replace("ws:", "wss:"), tls=True)[0] == address[0]


def test_the_port_of_an_encrypted_address_is_that_of_https() -> None:
    assert address_of("wss://box", tls=True) == ("box", 443)


@pytest.mark.parametrize(
    "url", ["http://x", "wss://x", "localhost:8765", "ws://x:99999", "ws://:1", "ws://["]
)
def test_what_cannot_be_looked_into_is_named(url: str) -> None:
    with pytest.raises(ClientError, match=re.escape(url)):
        address_of(url)
