"""What an experiment measures, and the way there: any server, any network, with or without TLS.

A way is built of what lies one behind the other: client, network (`labkit.measure.netem`), the end
of TLS, server. The last two hops are loopback, so every server gets the same network and the same
TLS, whether it knows of them or not.
"""

import asyncio
import shutil
import ssl
import subprocess
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, count
from pathlib import Path
from typing import Final, Unpack
from urllib.parse import urlsplit, urlunsplit

from labkit.client.answers import Deadlines
from labkit.client.dial import Reach, address_of, connected, server_url
from labkit.client.plain import VoiceClient
from labkit.errors import ConnectError, InstrumentError
from labkit.measure.links import Direction
from labkit.measure.netem import Proxy
from labkit.measure.networks import LOOPBACK, Profile
from labkit.measure.server_process import (
    RunningServer,
    labkit_server,
    naive_server,
    running_server,
    script_server,
)
from labkit.net import client_tls, server_tls
from labkit.protocol.v1 import SUBPROTOCOL
from labkit.tasks import stop

LABKIT: Final = "labkit"
"""Name of labkit's own server, in plans, tables and figures."""
NAIVE: Final = "naive"
"""Name of the server that is written the naive way."""

_PIECE: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Target:
    """A server to measure.

    Attributes:
        name: What tables and figures call it.
        command: What starts it in a process of its own, as `start_server` takes it; empty for a
            server that runs already.
        url: Where that one answers.
        reach: What it asks of its callers: a token, a certificate to trust.
    """

    name: str
    command: Sequence[str] = ()
    url: str = ""
    reach: Reach = field(default_factory=Reach)

    @classmethod
    def labkit(cls, *options: str) -> "Target":
        """Labkit's own server, with options of `labkit serve`."""
        return cls(LABKIT, labkit_server(*options))

    @classmethod
    def naive(cls, *options: str) -> "Target":
        """The naive server, with the options that name its models."""
        return cls(NAIVE, naive_server(*options))

    @classmethod
    def named(cls, text: str) -> "Target":
        """A running server by its address, or one that a file of Python is.

        Raises:
            ClientError: It is no address.
            ServerError: It is no file.
        """
        return cls.script(Path(text)) if "://" not in text else cls.running(text)

    @classmethod
    def script(cls, path: Path) -> "Target":
        """A file of Python that is a server of the plain dialect.

        Raises:
            ServerError: There is no such file, or it is another one.
        """
        # A figure leaves out what begins with "_", and reads what stands between "$" as a formula.
        name = path.stem.lstrip("_").replace("$", "") or "server"
        return cls(name.encode(errors="replace").decode(), script_server(path))

    @classmethod
    def running(cls, url: str, **reach: Unpack[Reach]) -> "Target":
        """A server of the plain dialect that runs already, reached as `reach` says.

        Raises:
            ClientError: `url` is no address.
        """
        parts = urlsplit(server_url(url))
        return cls(parts.netloc.rpartition("@")[2], url=url, reach=reach)


def distinct(targets: Sequence[Target]) -> tuple[Target, ...]:
    """The same servers, with names that tell them apart."""
    told: dict[str, Target] = {}
    for target in targets:
        names = (f"{target.name}-{number}" for number in count(2))
        name = next(name for name in chain([target.name], names) if name not in told)
        told[name] = replace(target, name=name)
    return tuple(told.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """The conditions under which all servers are measured.

    Attributes:
        network: The kind of network.
        tls: Whether the connection is encrypted. A server at a `wss://` address sees to that
            itself, all others get an end of TLS before them.
        deflate: Whether permessage-deflate is offered; a server that knows it compresses.
        patience_s: Longest wait for each step of an answer, and how late its audio may be.
        seed: Draws the network's jitter.
    """

    network: Profile = LOOPBACK
    tls: bool = False
    deflate: bool = False
    patience_s: float = 30.0
    seed: int = 1

    def __str__(self) -> str:
        named = [self.network.name, *(["TLS"] if self.tls else [])]
        named += ["permessage-deflate"] if self.deflate else []
        return " + ".join(named)

    def about(self) -> dict[str, str | bool]:
        """What the conditions are, with the network's source."""
        return {
            "network": f"{self.network.name}: {self.network.about}",
            "tls": self.tls,
            "deflate": self.deflate,
        }


@dataclass(frozen=True, slots=True)
class Way:
    """How a client gets to a server.

    Attributes:
        reach: Token, certificate, network and compression.
        proxy: The network; None without one.
    """

    url: str
    reach: Reach
    deadlines: Deadlines
    proxy: Proxy | None
    server: RunningServer

    def bytes_up(self) -> int:
        """What went to the server over the newest connection so far; 0 where nobody counts it."""
        made = () if self.proxy is None else self.proxy.connections
        return made[-1].carried(Direction.UP) if made else 0

    async def decides(self) -> bool:
        """Whether the server speaks labkit.v1, where it can decide by itself that a turn ended."""
        try:
            async with connected(self.url, subprotocol=SUBPROTOCOL, **self.reach) as socket:
                return socket.subprotocol == SUBPROTOCOL
        except ConnectError:
            return False

    def connect(self, *, stream: bool = True) -> AbstractAsyncContextManager[VoiceClient]:
        """A client that takes this way for the length of the block."""
        return VoiceClient.connect(self.url, stream=stream, deadlines=self.deadlines, **self.reach)


@asynccontextmanager
async def way_to(target: Target, access: Access) -> AsyncIterator[Way]:
    """Start the server if it has to be started, and build the way to it, for the block's length.

    Raises:
        ServerError: The server did not start.
        InstrumentError: The way cannot be built.
    """
    async with AsyncExitStack() as stack:
        url, proxy, server = target.url, None, RunningServer(target.url)
        reach = Reach(**target.reach, deflate=access.deflate)
        if target.command:
            server = await stack.enter_async_context(running_server(target.command))
            url = server.url
        if access.tls and url.startswith("ws:"):
            url, reach["tls"] = await stack.enter_async_context(_tls_before(url))
        if access.network is not LOOPBACK or access.deflate:  # which counts the bytes
            conditions, seed = access.network.conditions, access.seed
            network = Proxy(*address_of(url, tls=True), conditions=conditions, seed=seed)
            proxy = await stack.enter_async_context(network)
            reach["through"] = proxy.address
        yield Way(url, reach, Deadlines(answer_s=access.patience_s), proxy, server)


@asynccontextmanager
async def _tls_before(url: str) -> AsyncIterator[tuple[str, ssl.SSLContext]]:
    """An end of TLS before the server at `url`: its address, and whom to trust there."""
    with tempfile.TemporaryDirectory() as folder:
        certificate, key = make_certificate(Path(folder))
        context, trust = server_tls(certificate, key), client_tls(certificate)
    callers: set[asyncio.Task[None]] = set()
    serve = partial(_pass_on, *address_of(url, tls=True), callers)
    front = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    port = front.sockets[0].getsockname()[1]
    try:
        parts = urlsplit(url)
        yield urlunsplit(parts._replace(scheme="wss", netloc=f"127.0.0.1:{port}")), trust
    finally:
        front.close()
        for caller in [*callers]:  # one that is gone takes itself out
            await stop(caller)


async def _pass_on(
    host: str,
    port: int,
    callers: set[asyncio.Task[None]],
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:
    """Carry bytes between a caller and the server until either ends."""
    task = asyncio.current_task()
    if task is not None:
        callers.add(task)
        task.add_done_callback(callers.discard)
    with suppress(OSError):
        inner_reader, inner_writer = await asyncio.open_connection(host, port)
        ways = ((reader, inner_writer), (inner_reader, writer))
        pumps = [asyncio.create_task(_pump(*way)) for way in ways]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                await stop(pump)
            inner_writer.close()
    writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_PIECE):
        writer.write(data)
        await writer.drain()


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for this machine that nobody else trusts, and its key, in `folder`.

    Raises:
        InstrumentError: There is no `openssl` program to make it with.
    """
    openssl = shutil.which("openssl")
    if openssl is None:
        raise InstrumentError("TLS needs a certificate, and there is no openssl program to make it")
    certificate, key = folder / "cert.pem", folder / "key.pem"
    command = [
        *(openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
        *("-nodes", "-days", "2", "-subj", "/CN=localhost"),
        *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
        *("-keyout", str(key), "-out", str(certificate)),
    ]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key
