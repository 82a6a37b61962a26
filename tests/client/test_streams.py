"""The streams of a session, without a server."""

import asyncio

import pytest

from labkit.client.events import ReplyAudio
from labkit.client.streams import Downstream, Upstream
from labkit.errors import ClientError, ProtocolError
from labkit.protocol import v1
from labkit.protocol.replay import Position, ReplayWindow
from tests.support import until


def upstream(samples: int = 100) -> Upstream:
    return Upstream(ReplayWindow(max_bytes=10_000, max_samples=samples, until_acknowledged=True))


async def taken(stream: Upstream, count: int) -> list[str | bytes]:
    return [await stream.next() for _ in range(count)]


async def test_what_is_urgent_goes_first_and_of_acknowledgements_the_latest() -> None:
    stream = upstream()
    await stream.put_audio(b"1122", 2)
    await stream.put_text("end")
    stream.acknowledge_reply("ack 1")
    stream.put_urgent("ping")
    stream.acknowledge_reply("ack 2")
    assert await taken(stream, 4) == ["ping", "ack 2", b"1122", "end"]


async def test_what_was_not_acknowledged_is_sent_again_and_what_is_urgent_is_not() -> None:
    stream = upstream()
    await stream.put_audio(b"1122", 2)
    await stream.put_audio(b"3344", 2)
    await stream.put_text("end")
    assert await taken(stream, 3) == [b"1122", b"3344", "end"]
    stream.received(Position(samples=2))
    stream.put_urgent("ping")
    stream.acknowledge_reply("ack")
    stream.resume(Position(samples=3))
    assert await taken(stream, 2) == [b"44", "end"]


async def test_a_position_that_was_never_sent_is_refused() -> None:
    stream = upstream()
    await stream.put_audio(b"1122", 2)
    for tell in (stream.received, stream.resume):
        with pytest.raises(ProtocolError):
            tell(Position(samples=1))


async def test_whoever_waits_for_room_is_woken_by_room_or_by_the_end() -> None:
    stream = upstream(samples=1)
    await stream.put_text("first")  # text does not count as samples
    await stream.put_audio(b"11", 1)
    waiting = [asyncio.create_task(stream.put_audio(b"22", 1)) for _ in range(2)]
    assert await taken(stream, 2) == ["first", b"11"]
    stream.received(Position(messages=1, samples=1))
    await until(lambda: stream.window.waiting_bytes)
    assert sum(task.done() for task in waiting) == 1, "there was room for one"
    stream.fail(ClientError("it is over"))
    with pytest.raises(ClientError, match="it is over"):
        await asyncio.gather(*waiting)
    with pytest.raises(ClientError, match="it is over"):
        await stream.put_text("later")


async def test_urgent_messages_are_sent_once_they_are_taken_or_dropped() -> None:
    stream = upstream()
    for end in (stream.next(), None):
        stream.put_urgent("ping")
        sent = asyncio.create_task(stream.urgent_sent())
        await asyncio.sleep(0)
        assert not sent.done()
        if end is None:
            stream.drop_urgent()
        else:
            await end
        await sent


async def test_what_was_not_handed_on_is_not_counted() -> None:
    stream = Downstream(Position(samples=5))
    while not stream.is_full:
        await stream.hand_on_text(v1.Pong(), numbered=False)
    for late in (
        stream.hand_on_audio(b"1122", 2),
        stream.hand_on_text(v1.SpeechStarted(seq=1, at_s=0), numbered=True),
    ):
        task = asyncio.create_task(late)
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert stream.received == Position(samples=5)


async def test_what_was_handed_on_is_counted() -> None:
    stream = Downstream(Position(samples=5))
    await stream.hand_on_audio(b"1122", 2)
    await stream.hand_on_text(v1.SpeechStarted(seq=1, at_s=0), numbered=True)
    await stream.close()
    assert await stream.next() == ReplyAudio(5, b"1122")
    assert stream.received == Position(messages=1, samples=7)
    assert await stream.next() == v1.SpeechStarted(seq=1, at_s=0)
    assert [await stream.next() for _ in range(2)] == [None, None]
