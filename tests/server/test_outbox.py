"""The one door for writes: order, bound, deadline."""

import asyncio

import pytest

from labkit.server.connection import Closing
from labkit.server.outbox import Outbox


class Wire:
    """A socket that takes a message only when told to."""

    def __init__(self) -> None:
        self.sent: list[str | bytes] = []
        self.permits = asyncio.Semaphore(0)

    async def send(self, message: str | bytes) -> None:
        await self.permits.acquire()
        self.sent.append(message)


async def settle() -> None:
    """Let every task run until it waits."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_urgent_messages_overtake_but_keep_their_order() -> None:
    wire = Wire()
    outbox = Outbox(wire.send, max_bytes=1000, timeout_s=60)
    await outbox.put(b"one")
    await outbox.put(b"two")
    running = asyncio.create_task(outbox.run())
    await settle()
    await outbox.put_urgent("pong 1")
    await outbox.put_urgent("pong 2")
    for _ in range(4):
        wire.permits.release()
    await outbox.flushed()
    assert wire.sent == [b"one", "pong 1", "pong 2", b"two"]
    running.cancel()


async def test_put_waits_while_too_much_is_on_its_way() -> None:
    wire = Wire()
    outbox = Outbox(wire.send, max_bytes=10, timeout_s=60)
    running = asyncio.create_task(outbox.run())
    await outbox.put(b"12345678")
    blocked = asyncio.create_task(outbox.put(b"9012"))
    await settle()
    assert not blocked.done()
    assert outbox.waiting_bytes == 8
    wire.permits.release()
    await blocked
    wire.permits.release()
    await outbox.flushed()
    assert wire.sent == [b"12345678", b"9012"]
    running.cancel()


@pytest.mark.parametrize(("urgent", "message"), [(True, "pong"), (False, b""), (False, b"12")])
async def test_a_message_is_flushed_once_it_was_written(urgent: bool, message: str | bytes) -> None:
    wire = Wire()
    outbox = Outbox(wire.send, max_bytes=10, timeout_s=60)
    running = asyncio.create_task(outbox.run())
    await (outbox.put_urgent(message) if urgent else outbox.put(message))
    flushed = asyncio.create_task(outbox.flushed())
    await settle()
    assert not flushed.done()
    wire.permits.release()
    await flushed
    assert wire.sent == [message]
    running.cancel()


async def test_a_message_above_the_bound_goes_alone() -> None:
    wire = Wire()
    outbox = Outbox(wire.send, max_bytes=10, timeout_s=60)
    running = asyncio.create_task(outbox.run())
    await outbox.put(bytes(1000))
    wire.permits.release()
    await outbox.flushed()
    assert wire.sent == [bytes(1000)]
    running.cancel()


async def test_a_flood_of_urgent_messages_makes_its_sender_wait() -> None:
    wire = Wire()
    outbox = Outbox(wire.send, max_bytes=10, timeout_s=60)
    for _ in range(Outbox.URGENT_LIMIT):
        await outbox.put_urgent("pong")
    flood = asyncio.create_task(outbox.put_urgent("pong"))
    await settle()
    assert not flood.done()
    flood.cancel()


async def test_a_reader_that_takes_too_long_is_named() -> None:
    outbox = Outbox(Wire().send, max_bytes=10, timeout_s=0)
    await outbox.put(b"1234")
    with pytest.raises(Closing, match="a message of 4 bytes was not read within 0 s"):
        await outbox.run()
