"""What a session says, is told and is owed, without a server."""

import asyncio

import pytest

from labkit.client.conversation import Conversation
from labkit.client.events import ReplyAudio
from labkit.client.speech import Clock
from labkit.errors import ClientError, ErrorCode, ProtocolError
from labkit.protocol import v1
from labkit.protocol.replay import Position, ReplayWindow
from tests.support import until


class Time:
    """A clock that stands still."""

    def __init__(self) -> None:
        self.now_s = 0

    def clock(self) -> Clock:
        return Clock(source=lambda: self.now_s * 10**9)


def conversation(
    samples: int = 100,
    received: Position | None = None,
    time: Time | None = None,
    within_s: float = 60,
) -> Conversation:
    """One in which nothing was said."""
    window = ReplayWindow(max_bytes=10_000, max_samples=samples, until_acknowledged=True)
    return Conversation(window, received or Position(), (time or Time()).clock(), within_s)


async def taken(stream: Conversation, count: int) -> list[str | bytes]:
    return [await stream.next_payload() for _ in range(count)]


async def test_acknowledgements_go_first_and_only_the_latest() -> None:
    stream = conversation()
    await stream.put(b"1122", 2)
    await stream.put("end")
    stream.acknowledge_reply("ack 1")
    stream.acknowledge_reply("ack 2")
    assert await taken(stream, 3) == ["ack 2", b"1122", "end"]


async def test_what_was_not_acknowledged_is_sent_again_and_an_acknowledgement_is_not() -> None:
    stream = conversation()
    await stream.put(b"1122", 2)
    await stream.put(b"3344", 2)
    await stream.put("end")
    assert await taken(stream, 3) == [b"1122", b"3344", "end"]
    stream.acknowledged(Position(samples=2))
    stream.acknowledge_reply("ack")
    stream.resume(Position(samples=3))
    assert await taken(stream, 2) == [b"44", "end"]


async def test_a_position_that_was_never_sent_is_refused() -> None:
    stream = conversation()
    await stream.put(b"1122", 2)
    for tell in (stream.acknowledged, stream.resume):
        with pytest.raises(ProtocolError):
            tell(Position(samples=1))


async def test_whoever_waits_for_room_is_woken_by_room_or_by_the_end() -> None:
    stream = conversation(samples=1)
    await stream.put("first")  # text does not count as samples
    await stream.put(b"11", 1)
    waiting = [asyncio.create_task(stream.put(b"22", 1)) for _ in range(2)]
    assert await taken(stream, 2) == ["first", b"11"]
    stream.acknowledged(Position(messages=1, samples=1))
    await until(lambda: stream.window.waiting_bytes)
    assert sum(task.done() for task in waiting) == 1, "there was room for one"
    stream.fail(ClientError("it is over"))
    with pytest.raises(ClientError, match="it is over"):
        await asyncio.gather(*waiting)
    with pytest.raises(ClientError, match="it is over"):
        await stream.put("later")


async def test_what_was_not_handed_on_is_not_counted() -> None:
    stream = conversation(received=Position(samples=5))
    while not stream.is_full:
        await stream.hand_on(v1.Pong())
    for late in (
        stream.hand_on(ReplyAudio(5, b"1122"), samples=2),
        stream.hand_on(v1.SpeechStarted(seq=1, at_s=0), messages=1),
    ):
        task = asyncio.create_task(late)
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert stream.received == Position(samples=5)


async def test_what_was_handed_on_is_counted() -> None:
    stream = conversation(received=Position(samples=5))
    audio, message = ReplyAudio(5, b"1122"), v1.SpeechStarted(seq=1, at_s=0)
    await stream.hand_on(audio, samples=2)
    await stream.hand_on(message, messages=1)
    assert stream.received == Position(messages=1, samples=7)
    stream.fail(ClientError("it is over"))
    assert [await stream.next_event() for _ in range(2)] == [audio, message]
    for _ in range(2):
        with pytest.raises(ClientError, match="it is over"):
            await stream.next_event()


async def test_what_waits_for_room_is_handed_on_and_counted_once_there_is_some() -> None:
    stream = conversation()
    while not stream.is_full:
        await stream.hand_on(v1.Pong())
    late = asyncio.create_task(stream.hand_on(ReplyAudio(0, b"1122"), samples=2))
    await asyncio.sleep(0)
    assert (late.done(), stream.received) == (False, Position())
    assert await stream.next_event() == v1.Pong()
    await late
    assert (stream.is_full, stream.received) == (True, Position(samples=2))


async def test_what_waits_is_bounded_in_bytes() -> None:
    stream = conversation()
    for _ in range(2):
        assert not stream.is_full
        await stream.hand_on(v1.Pong(), 600_000)
    assert stream.is_full
    await stream.next_event()
    assert not stream.is_full


async def test_whoever_listens_is_told_that_it_is_over() -> None:
    stream = conversation()
    listening = asyncio.create_task(stream.next_event())
    await asyncio.sleep(0)
    stream.fail(ClientError("it is over"))
    with pytest.raises(ClientError, match="it is over"):
        await listening


async def test_a_server_that_owes_nothing_is_never_overdue() -> None:
    time = Time()
    stream = conversation(time=time, within_s=1)
    time.now_s = 1000
    assert not stream.is_overdue()
    await stream.put(b"11", 1)
    assert not stream.is_overdue()
    time.now_s = 1002
    assert stream.is_overdue()


async def test_the_time_for_an_answer_begins_with_what_asks_for_it() -> None:
    time = Time()
    stream = conversation(time=time)
    time.now_s = 100
    stream.expect_more()
    stream.turns += 1
    time.now_s = 150
    stream.expect_more()  # something is owed already
    time.now_s = 160
    assert not stream.is_overdue()
    time.now_s = 161
    assert stream.is_overdue()


async def test_an_acknowledgement_says_whether_it_is_news() -> None:
    stream = conversation()
    await stream.put(b"1122", 2)
    await stream.next_payload()
    assert [stream.acknowledged(Position(samples=2)) for _ in range(2)] == [True, False]


@pytest.mark.parametrize(
    "settled",
    [
        v1.ResponseDone(turn=1, status=v1.ResponseStatus.NOTHING_HEARD),
        v1.Error(
            code=ErrorCode.TOO_MANY_TURNS,
            message="m",
            cause=v1.Cause(type="audio.end", position=Position()),
        ),
    ],
)
async def test_an_utterance_is_answered_or_refused(settled: v1.ServerMessage) -> None:
    stream = conversation()
    stream.turns = 1
    stream.note(v1.Error(code=ErrorCode.BUFFER_FULL, message="m"))
    assert stream.turns == 1
    stream.note(settled)
    stream.note(settled)
    assert stream.turns == 0
