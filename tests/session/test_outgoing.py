"""The one stream to a client: its order, its bound, its deadline, and who takes from it."""

import asyncio

import pytest

from labkit.errors import Close, CloseCode
from labkit.protocol.replay import Position, ReplayWindow
from labkit.session.outgoing import Feed, Outgoing
from labkit.tasks import Changes


def stream(
    max_bytes: int = 100,
    *,
    acknowledged: bool = False,
    keep: bool = True,
    changes: Changes | None = None,
) -> Outgoing:
    window = ReplayWindow(max_bytes=max_bytes, max_samples=1000, until_acknowledged=acknowledged)
    return Outgoing(window, 2, changes or Changes(), keep=keep)


async def taken(feed: Feed, count: int) -> list[str | bytes | None]:
    found = []
    for _ in range(count):
        found.append(await feed.next())
        feed.written()
    return found


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_messages_keep_their_order_and_are_numbered() -> None:
    out, feed = stream(), Feed(60)
    out.attach(feed)
    out.put_now(lambda n: f"{n} a")
    out.put_now(b"1122")
    out.put_now(lambda n: f"{n} b")
    assert await taken(feed, 3) == ["1 a", b"1122", "2 b"]


async def test_what_concerns_the_connection_goes_first() -> None:
    out, feed = stream(), Feed(60)
    out.put_now(b"11")
    feed.put_urgent("pong")
    out.attach(feed)
    feed.acknowledge("old")
    feed.acknowledge("new")
    assert await taken(feed, 3) == ["pong", "new", b"11"]


async def test_a_producer_waits_for_room() -> None:
    out, feed = stream(max_bytes=4), Feed(60)
    out.attach(feed)
    out.put_now(b"1122")
    waiting = asyncio.create_task(out.room())
    await settle()
    assert not waiting.done()
    await taken(feed, 1)
    await waiting


async def test_what_cannot_be_resumed_is_let_go_of_when_it_was_written() -> None:
    out, feed = stream(keep=False), Feed(60)
    out.attach(feed)
    out.put_now(b"1122")
    await taken(feed, 1)
    assert out.window.held_bytes == 0


async def test_an_empty_message_is_written_too() -> None:
    out, feed = stream(keep=False), Feed(60)
    out.attach(feed)
    out.put_now(b"")
    assert await taken(feed, 1) == [b""]


@pytest.mark.parametrize("message", [b"", b"12"])
async def test_flushed_means_written_and_not_taken(message: bytes) -> None:
    changes = Changes()
    out, feed = stream(changes=changes), Feed(60)
    out.attach(feed)
    out.put_now(message)
    flushed = asyncio.create_task(changes.until(lambda: out.flushed))
    await feed.next()
    await settle()
    assert not flushed.done()
    feed.written()
    await flushed


async def test_a_second_connection_closes_the_feed_of_the_first() -> None:
    out, first, second = stream(), Feed(60), Feed(60)
    out.attach(first)
    waiting = asyncio.create_task(first.next())
    await settle()
    out.attach(second)
    assert await waiting is None
    out.put_now(b"11")
    assert await first.next() is None
    assert await second.next() == b"11"


async def test_what_was_not_acknowledged_comes_again() -> None:
    out, first, second = stream(acknowledged=True), Feed(60), Feed(60)
    out.attach(first)
    out.put_now(b"1122")
    await taken(first, 1)
    out.detach()
    assert out.rewind(Position(samples=1)) is None
    out.attach(second)
    assert await taken(second, 1) == [b"22"]


async def test_a_client_that_acknowledges_nothing_is_given_up() -> None:
    out, feed = stream(max_bytes=2, acknowledged=True), Feed(0.0)
    out.attach(feed)
    out.put_now(b"11")
    await taken(feed, 1)
    with pytest.raises(Close) as caught:
        await feed.next()
    assert caught.value.close is CloseCode.SLOW_READER


async def test_a_client_that_is_read_late_is_not_to_blame() -> None:
    out, feed = stream(max_bytes=2, acknowledged=True), Feed(0.001)
    out.attach(feed)
    out.put_now(b"11")
    await taken(feed, 1)
    out.is_read_late = True
    waiting = asyncio.create_task(feed.next())
    done, _ = await asyncio.wait([waiting], timeout=0.01)
    assert not done
    out.is_read_late = False
    with pytest.raises(Close):
        await waiting


async def test_many_urgent_messages_make_their_reader_wait() -> None:
    feed = Feed(60)
    for _ in range(Feed.URGENT_LIMIT):
        feed.put_urgent("pong")
    waiting = asyncio.create_task(feed.room())
    await settle()
    assert not waiting.done()
    await feed.next()
    await waiting


async def test_why_a_connection_ends_keeps_no_frames() -> None:
    """They know the connection, which keeps the feed, which keeps the reason."""
    feed = Feed(60)
    try:
        raise Close(None, "the client ended the session", "")
    except Close as why:
        feed.end(why)
    assert feed.ended.result().__traceback__ is None
