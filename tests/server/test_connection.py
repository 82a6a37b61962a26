"""How a connection ends: whose client reads slowly, does not read, or breaks a rule."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from unittest.mock import Mock

import pytest

from labkit.errors import Close, CloseCode
from labkit.server.connection import Connection
from labkit.server.http import Metrics
from labkit.session.outgoing import Feed
from labkit.session.settings import ServerSettings
from tests.client.conftest import virtual_time as virtual_time


class Reader:
    """A client that has left so much unread at each look, and takes the rest behind the last."""

    def __init__(self, left: Iterator[int]) -> None:
        self.looks = 0
        self.has_sent = False
        self._left = left
        self._all_read = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[str | bytes]:
        self.has_sent = True
        yield ""

    @property
    def unread_bytes(self) -> int:
        self.looks += 1
        left = next(self._left, 0)
        if not left:
            self._all_read.set()
        return left

    async def send(self, message: str | bytes) -> None:
        await self.drain()

    async def drain(self) -> None:
        await self._all_read.wait()


def connection(socket: Reader, **limits: float) -> Connection:
    settings = ServerSettings(**({"send_timeout_s": 0.04} | limits))
    return Connection(socket, Mock(session=None), Feed(60.0), settings, Metrics())


async def test_a_client_that_reads_on_may_take_longer_than_the_deadline() -> None:
    reader = Reader(iter([900, 900, 900, 900, 500, 500, 500, 100]))
    await connection(reader)._send(bytes(1000))
    assert reader.looks == 9


async def test_a_client_that_reads_no_further_is_given_up_on() -> None:
    reader = Reader(iter([900, 600] + [600] * 9))
    with pytest.raises(Close, match="not read for 0.04 s") as caught:
        await connection(reader)._send(bytes(1000))
    assert caught.value.close is CloseCode.SLOW_READER
    assert reader.looks == 6


@pytest.mark.usefixtures("virtual_time")
async def test_a_client_that_reads_nothing_at_all_is_given_up_on_in_time() -> None:
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    with pytest.raises(Close):
        await connection(Reader(iter([600] * 9)), send_timeout_s=20.0)._send(bytes(1000))
    assert 20 <= loop.time() - began_s < 21


async def test_nothing_is_heard_behind_a_message_that_ends_the_connection() -> None:
    # Audio that counts behind an `audio.end` that does not: nobody could resume there.
    caller = Reader(iter(()))
    this = connection(caller, message_burst=0)
    running = asyncio.create_task(this.run())
    heard = []
    while not running.done():
        await asyncio.sleep(0)
        if caller.has_sent:
            heard.append(this.hear_at_once(bytes(640)))
    why = await running
    assert why is not None and why.close is CloseCode.POLICY
    assert heard and not any(heard)


async def test_who_is_cut_off_while_it_waits_is_not_let_off_the_rest() -> None:
    this = connection(Reader(iter(())))
    session = Mock(wait_until_ns=time.perf_counter_ns() + 10**12, must_wait=False)
    this.dialect.session = session
    waiting = asyncio.create_task(this._hold_back())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert session.wait_until_ns
