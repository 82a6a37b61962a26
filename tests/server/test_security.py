"""Who comes in, over real sockets, and what stays out of the log."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin, Subprotocol

from labkit.audio.pcm import encode_s16le
from labkit.client.plain import VoiceClient
from labkit.client.v1 import SessionClient
from labkit.errors import ClientError, ServerError, TokenError
from labkit.net import bearer, client_tls
from labkit.protocol import v1
from labkit.server.app import VoiceServer
from labkit.session.settings import ServerSettings
from labkit.voice.pipeline import EchoPipeline, VoicePipeline
from labkit.voice.scripted import ScriptedAsr, ScriptedLlm, scripted_engines
from labkit.voice.turn import Pipeline
from tests.certificates import Certificate, self_signed
from tests.support import until

ONE = "one-token-of-sixteen"
TWO = "two_token_of_sixteen"
TONE = (0.3 * np.sin(np.arange(8000) / 5)).astype(np.float32)
UPGRADE = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return self_signed(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
async def failed_tls(watched_loop: None) -> None:
    """In debug mode, asyncio tells the loop of every TLS handshake that fails; otherwise not."""
    asyncio.get_running_loop().set_debug(False)


@asynccontextmanager
async def serving(pipeline: Pipeline | None = None, **settings: Any) -> AsyncIterator[VoiceServer]:
    chosen = ServerSettings(**{"host": "127.0.0.1", "port": 0, **settings})
    async with VoiceServer(pipeline or EchoPipeline(), chosen) as server:
        yield server


class Answer(NamedTuple):
    """An answer over plain HTTP."""

    status: int
    headers: dict[str, str]
    body: str


async def ask(server: VoiceServer, path: str = "/", *lines: str) -> Answer:
    """What the server answers to a request with these header lines, up to its first blank line."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    request = [f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{server.port}", *lines, "", ""]
    writer.write("\r\n".join(request).encode())
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        status = int(head[0].split()[1])
        body = "" if status == 101 else (await reader.read()).decode()
    finally:
        writer.close()
        await writer.wait_closed()
    return Answer(status, headers, body)


def shown(token: str) -> str:
    return f"Authorization: Bearer {token}"


async def test_without_a_token_the_answer_is_401() -> None:
    async with serving(tokens=(ONE,)) as server:
        answer = await ask(server, "/", *UPGRADE)
        assert answer.status == 401
        assert answer.headers["www-authenticate"] == "bearer"
        assert "Authorization: Bearer TOKEN" in answer.body
        assert (await ask(server, "/", *UPGRADE, shown(TWO))).status == 401
        assert (await ask(server, "/", *UPGRADE, shown(ONE))).status == 101


async def test_a_token_in_the_address_is_400() -> None:
    async with serving(tokens=(ONE,)) as server:
        answer = await ask(server, f"/?token={ONE}", *UPGRADE, shown(ONE))
        assert answer.status == 400
        assert "must not stand in the address" in answer.body
        assert ONE not in answer.body


async def test_a_browser_shows_its_token_as_a_subprotocol_that_is_not_echoed() -> None:
    async with serving(tokens=(ONE,)) as server:
        offered = f"Sec-WebSocket-Protocol: labkit.v1, labkit.bearer.{ONE}"
        answer = await ask(server, "/", *UPGRADE, offered)
        assert answer.status == 101
        assert answer.headers["sec-websocket-protocol"] == "labkit.v1"
        alone = await ask(server, "/", *UPGRADE, f"Sec-WebSocket-Protocol: labkit.bearer.{ONE}")
        assert alone.status == 101
        assert "sec-websocket-protocol" not in alone.headers


async def test_pages_of_another_origin_are_403() -> None:
    async with serving() as server:
        for origin in ("http://evil.example", "null", "http://["):
            answer = await ask(server, "/", *UPGRADE, f"Origin: {origin}")
            assert answer.status == 403
            assert "--allow-origin" in answer.body
        own = f"Origin: http://127.0.0.1:{server.port}"
        assert (await ask(server, "/", *UPGRADE, own)).status == 101


async def test_a_name_that_means_this_machine_today_is_403() -> None:
    """DNS rebinding: origin and host agree, and both are somebody else's name."""
    async with serving() as server:
        name = f"evil.example:{server.port}"
        with pytest.raises(InvalidStatus) as refused:
            origin = Origin(f"http://{name}")
            await connect(f"ws://{name}", host="127.0.0.1", origin=origin, proxy=None)
        assert refused.value.response.status_code == 403


async def test_an_origin_may_be_allowed() -> None:
    async with serving(allowed_origins=("https://voice.example",)) as server:
        answer = await ask(server, "/", *UPGRADE, "Origin: https://voice.example")
        assert answer.status == 101


async def test_too_many_from_one_address_are_429() -> None:
    async with serving(max_sessions_per_address=1, limit_loopback=True) as server:
        async with connect(server.url):
            answer = await ask(server, "/", *UPGRADE)
            assert answer.status == 429
            assert answer.headers["retry-after"] == "5"
            assert "1 callers from this address" in answer.body
        await until(lambda: not server.sessions)
        async with connect(server.url) as third:
            await third.send("ping")
            assert await third.recv() == "pong"


async def test_callers_from_this_machine_are_not_counted_by_address() -> None:
    async with serving(max_sessions_per_address=1) as server:
        async with connect(server.url), connect(server.url):
            assert (await ask(server, "/", *UPGRADE)).status == 101


async def test_a_full_server_is_503_and_its_pages_are_there() -> None:
    async with serving(max_sessions=1) as server, connect(server.url):
        answer = await ask(server, "/", *UPGRADE)
        assert answer.status == 503
        assert answer.headers["retry-after"] == "5"
        assert (await ask(server, "/metrics")).status == 200


async def test_a_caller_who_comes_while_the_server_closes_is_told_to_come_back() -> None:
    asr = ScriptedAsr()
    asr.gate.clear()
    async with serving(VoicePipeline(scripted_engines(asr)), grace_s=30.0) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        async with connect(server.url) as socket:
            await socket.send(encode_s16le(TONE))
            await socket.send("end_stream")
            await socket.send("ping")
            assert await socket.recv() == "pong"
            closing = asyncio.create_task(server.close())
            writer.write("\r\n".join(["GET / HTTP/1.1", "Host: x", *UPGRADE, "", ""]).encode())
            answer = (await reader.readuntil(b"\r\n\r\n")).decode()
            asr.gate.set()
            await closing
        writer.close()
        await writer.wait_closed()
    assert answer.startswith("HTTP/1.1 503 ")
    assert "Retry-After: 5\r\n" in answer


async def test_pages_need_a_token_where_callers_do_and_health_never() -> None:
    async with serving(tokens=(ONE,)) as server:
        assert (await ask(server, "/healthz")).status == 200
        assert (await ask(server, "/readyz")).status == 200
        assert (await ask(server, "/healthz", *UPGRADE)).status == 200  # and no WebSocket
        for page in ("/metrics", "/schema.json"):
            assert (await ask(server, page)).status == 401
        assert (await ask(server, "/metrics", shown(ONE))).status == 200


async def test_every_refusal_is_counted_and_takes_no_place() -> None:
    async with serving(tokens=(ONE,), max_sessions=1) as server:
        for _ in range(2):
            await ask(server, "/", *UPGRADE)
        await ask(server, f"/?token={ONE}", *UPGRADE)
        await ask(server, "/", *UPGRADE, "Origin: null")
        await ask(server, "/", shown(ONE))  # no WebSocket
        await ask(server, "/", *UPGRADE[:-1], "Sec-WebSocket-Key: x", shown(ONE))
        async with connect(server.url, additional_headers=bearer(ONE)):
            await ask(server, "/", *UPGRADE, shown(ONE))
        page = (await ask(server, "/metrics", shown(ONE))).body
        counted = {400: 2.0, 401: 2.0, 403: 1.0, 426: 1.0, 503: 1.0}
        for status, number in counted.items():
            line = f'labkit_refused_connections_total{{status="{status}"}} {number}\n'
            assert line in page, status


async def test_nobody_else_can_resume_a_session() -> None:
    start = v1.SessionStart(acknowledges=True)
    async with serving(tokens=(ONE, TWO)) as server:

        async def resume(token: str, resume: v1.Resume | None) -> v1.ServerMessage:
            subprotocols = [Subprotocol(v1.SUBPROTOCOL)]
            async with connect(
                server.url, subprotocols=subprotocols, additional_headers=bearer(token)
            ) as socket:
                await socket.send(start.model_copy(update={"resume": resume}).encode())
                answer = v1.decode_server(str(await socket.recv()))
                socket.transport.abort()
                return answer

        begun = await resume(ONE, None)
        assert isinstance(begun, v1.SessionStarted)
        mine = v1.Resume(session=begun.session, token=begun.token, received=v1.Position())
        stolen = await resume(TWO, mine)
        assert isinstance(stolen, v1.Error)
        assert stolen.code == "session_unknown"
        resumed = await resume(ONE, mine)
        assert isinstance(resumed, v1.SessionStarted)
        assert resumed.resumed


async def test_clients_show_a_token_and_say_how_they_were_refused() -> None:
    async with serving(tokens=(ONE,)) as server:
        async with VoiceClient.connect(server.url, headers=bearer(ONE)) as client:
            assert (await client.say(TONE[:160])).transcript == "0.01 seconds of audio"
        async with SessionClient.connect(server.url, headers=bearer(ONE)) as session:
            assert session.started is not None
        with pytest.raises(ClientError, match="refused the connection: HTTP 401: this server"):
            async with VoiceClient.connect(server.url, headers=bearer(TWO)):
                pass
        with pytest.raises(ClientError, match="refused the connection: HTTP 401: this server"):
            async with SessionClient.connect(server.url):
                pass


# Binding


@pytest.mark.parametrize("host", ["0.0.0.0", "", "::"])
async def test_binding_beyond_this_machine_is_refused_without_a_token(host: str) -> None:
    server = VoiceServer(EchoPipeline(), ServerSettings(host=host, port=0))
    with pytest.raises(ServerError, match="--token-file .*--insecure"):
        await server.start()
    await server.close()


async def test_binding_beyond_this_machine_with_a_token_or_a_word(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving(host="0.0.0.0", tokens=(ONE,)) as server:
        assert (await ask(server, "/", *UPGRADE)).status == 401
    assert "no TLS" in caplog.text
    assert "no token" not in caplog.text
    async with serving(host="0.0.0.0", insecure=True) as server:
        assert (await ask(server, "/", *UPGRADE)).status == 101
    assert "no token is configured: whoever reaches this machine" in caplog.text


async def test_a_short_token_is_refused_before_anybody_can_guess_it() -> None:
    with pytest.raises(TokenError, match="no token, but 7 characters"):
        await VoiceServer(EchoPipeline(), ServerSettings(tokens=("hunter2",))).start()


# TLS


async def test_a_turn_over_tls_in_both_dialects(certificate: Certificate) -> None:
    trusted = client_tls(certificate.cert)
    async with serving(tls_cert=certificate.cert, tls_key=certificate.key) as server:
        assert server.url == f"wss://127.0.0.1:{server.port}"
        async with VoiceClient.connect(server.url, tls=trusted) as client:
            turn = await client.say(TONE[:1600])
            assert turn.transcript == "0.10 seconds of audio"
            assert len(turn.reply) == 1600
        async with SessionClient.connect(server.url, tls=trusted) as session:
            answer = await session.say(TONE[:1600], pace=0)
            assert answer.transcript == "0.10 seconds of audio"
            assert len(answer.audio) == 3200


async def test_a_certificate_that_nobody_vouches_for_is_refused_with_the_mend(
    certificate: Certificate, failed_tls: None
) -> None:
    async with serving(tls_cert=certificate.cert, tls_key=certificate.key) as server:
        with pytest.raises(ClientError, match="is not trusted: self.signed certificate.*--ca"):
            async with VoiceClient.connect(server.url):
                pass
        with pytest.raises(ClientError, match="is not trusted: self.signed certificate.*--ca"):
            async with SessionClient.connect(server.url):
                pass


async def test_a_certificate_for_another_name_is_refused(
    certificate: Certificate, tmp_path: Path, failed_tls: None
) -> None:
    other = self_signed(tmp_path, names="DNS:voice.example")
    async with serving(tls_cert=other.cert, tls_key=other.key) as server:
        with pytest.raises(ClientError, match="IP address mismatch"):
            async with VoiceClient.connect(server.url, tls=client_tls(other.cert)):
                pass


async def test_speaking_in_the_clear_to_tls_is_an_error(
    certificate: Certificate, failed_tls: None
) -> None:
    async with serving(tls_cert=certificate.cert, tls_key=certificate.key) as server:
        with pytest.raises(ClientError, match="hung up on the handshake: .* try wss://"):
            async with VoiceClient.connect(server.url.replace("wss", "ws")):
                pass
        with pytest.raises(ClientError, match="is not encrypted; try wss://"):
            async with VoiceClient.connect(
                server.url.replace("wss", "ws"), tls=client_tls(certificate.cert)
            ):
                pass


async def test_closing_does_not_wait_for_a_caller_who_never_speaks_tls(
    certificate: Certificate, failed_tls: None
) -> None:
    async with serving(tls_cert=certificate.cert, tls_key=certificate.key) as server:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        async with VoiceClient.connect(server.url, tls=client_tls(certificate.cert)) as client:
            await client.ping()
        async with asyncio.timeout(8):
            await server.close()
        writer.close()
        await writer.wait_closed()


async def test_a_certificate_that_is_not_usable_is_named(
    certificate: Certificate, tmp_path: Path
) -> None:
    missing = ServerSettings(tls_cert=tmp_path / "none.pem", tls_key=certificate.key)
    with pytest.raises(ServerError, match=r"none\.pem cannot be read"):
        await VoiceServer(EchoPipeline(), missing).start()
    with pytest.raises(ServerError, match=r"there is no tls_cert \(--tls-cert\)"):
        await VoiceServer(EchoPipeline(), ServerSettings(tls_key=certificate.key)).start()


# The log

HEARD, REPLY, QUERY = "what the caller said", "what the server answered", "known-query"


async def converse(server: VoiceServer, token: str) -> list[str]:
    """Turns in both dialects and handshakes that fail; gives what must stay secret."""
    async with VoiceClient.connect(
        f"{server.url}/?note={QUERY}", stream=False, headers=bearer(token)
    ) as client:
        assert (await client.say(TONE)).transcript == HEARD
    async with SessionClient.connect(
        f"{server.url}/?note={QUERY}", headers=bearer(token)
    ) as session:
        answer = await session.say(TONE, pace=0)
        assert answer.sentences == [REPLY]
        assert session.started is not None
        resume_token = session.started.token
    await ask(server, f"/?token={token}&note={QUERY}", *UPGRADE)
    await ask(server, "/", *UPGRADE, f"Sec-WebSocket-Protocol: labkit.bearer.{token}@@")
    await ask(server, "/", *UPGRADE, f"Sec-WebSocket-Protocol: {token}@@", shown(token))
    await ask(server, f"/metrics?note={QUERY}", *UPGRADE, f"Origin: http://{QUERY}")
    with pytest.raises(asyncio.IncompleteReadError):
        await ask(server, f"/?note={QUERY} {token}", *UPGRADE)  # no request line of HTTP
    audio = encode_s16le(TONE[:8])
    return [token, resume_token, QUERY, audio.hex(), audio.hex(" "), repr(audio)[2:-1]]


def scripted() -> Pipeline:
    asr, llm = ScriptedAsr(lambda _: HEARD), ScriptedLlm(lambda _: REPLY)
    return VoicePipeline(scripted_engines(asr, llm))


@pytest.mark.parametrize("logger", ["labkit", ""])
async def test_secrets_queries_and_speech_stay_out_of_the_log(
    caplog: pytest.LogCaptureFixture, logger: str
) -> None:
    caplog.set_level(logging.DEBUG, logger=logger)
    async with serving(scripted(), tokens=(ONE,)) as server:
        secrets = await converse(server, ONE)
    assert "refused a caller: 400" in caplog.text
    assert "session" in caplog.text
    for secret in (*secrets, HEARD, REPLY):
        assert secret not in caplog.text


async def test_transcripts_are_logged_where_that_was_asked_for(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="labkit")
    async with serving(scripted(), tokens=(ONE,), log_transcripts=True) as server:
        secrets = await converse(server, ONE)
    assert caplog.text.count(f"{HEARD!r}, answered {REPLY!r}") == 2
    for secret in secrets:
        assert secret not in caplog.text
