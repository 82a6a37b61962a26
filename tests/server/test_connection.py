"""How long a connection waits for a client that reads slowly, and for one that does not read."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from unittest.mock import Mock

import pytest

from labkit.errors import Close, CloseCode
from labkit.server.connection import Connection
from labkit.server.metrics import Metrics
from labkit.session.outgoing import Feed
from labkit.session.settings import ServerSettings


class Reader:
    """A client that has left so much unread at each look, and takes the rest behind the last."""

    def __init__(self, left: Iterator[int]) -> None:
        self.looks = 0
        self._left = left
        self._all_read = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[str | bytes]:
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


def connection(socket: Reader) -> Connection:
    settings = ServerSettings(send_timeout_s=0.04)
    return Connection(socket, Mock(), Feed(60.0), settings, Metrics())


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
