"""A reply at the pace at which it is played."""

import asyncio

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.audio.pcm import SAMPLE_RATE
from labkit.session.events import ReplyAudio, Sentence
from labkit.session.playout import Pacer, Playout
from labkit.tasks import Changes
from tests.session.sessions import Clock

S = 10**9
LEAD_S = 1.0


def test_what_was_sent_is_heard_in_time() -> None:
    playout = Playout(LEAD_S)
    playout.sent(2.0, 5 * S)
    assert playout.left_s(5 * S) == 2.0
    assert playout.heard_s(6 * S) == 1.0
    assert playout.wait_s(5 * S) == 2.0 - LEAD_S
    assert playout.heard_s(9 * S) == 2.0
    playout.sent(1.0, 9 * S)  # it had run out
    assert playout.heard_s(9 * S) == 2.0
    assert playout.left_s(9 * S) == 1.0


def test_a_pause_is_no_time() -> None:
    playout = Playout(LEAD_S)
    playout.sent(2.0, 0)
    playout.pause(S)
    assert playout.heard_s(8 * S) == 1.0
    playout.sent(0.5, 8 * S)
    playout.go_on(9 * S)
    assert playout.heard_s(9 * S) == 1.0
    assert playout.left_s(9 * S) == 1.5
    assert not playout.paused


STEPS = st.lists(st.tuples(st.integers(0, 3 * S), st.sampled_from(["send", "pause", "go on"])))


@given(STEPS)
def test_never_more_is_heard_than_was_sent_and_never_less_than_before(
    steps: list[tuple[int, str]],
) -> None:
    playout, now, heard = Playout(LEAD_S), 0, 0.0
    for passed, step in steps:
        now += passed
        assert heard <= playout.heard_s(now) + 1e-6
        heard = playout.heard_s(now)
        match step:
            case "send":
                playout.sent(0.7, now)
            case "pause" if not playout.paused:
                playout.pause(now)
            case "go on" if playout.paused:
                playout.go_on(now)
        assert playout.heard_s(now) == pytest.approx(heard, abs=1e-6)
        assert 0 <= playout.heard_s(now) <= playout.sent_s + 1e-9


def test_the_reply_before_is_played_to_its_end_first() -> None:
    before = Playout(LEAD_S)
    before.sent(3.0, 0)
    playout = Playout(LEAD_S, before)
    playout.sent(1.0, 2 * S)
    assert playout.left_s(2 * S) == 2.0
    assert playout.heard_s(3 * S) == 0.0
    assert playout.heard_s(int(3.5 * S)) == 0.5


def test_what_comes_only_now_is_played_from_now() -> None:
    playout = Playout(LEAD_S)
    playout.sent(1.0, 0)
    playout.lacks(0.75, 10 * S)
    assert playout.heard_s(10 * S) == 0.25
    playout.pause(10 * S)
    playout.lacks(0.75, 20 * S)
    assert playout.heard_s(20 * S) == 0.25


async def test_a_reply_is_sent_in_order_and_a_lead_ahead() -> None:
    clock, changes, playout = Clock(), Changes(), Playout(LEAD_S)
    sent: list[Sentence | ReplyAudio] = []

    async def send(part: Sentence | ReplyAudio) -> None:
        sent.append(part)
        if isinstance(part, ReplyAudio):
            playout.sent(len(part.samples) / SAMPLE_RATE, clock())

    pacer = Pacer(playout, send, changes, clock, lambda: True)
    half = ReplyAudio(1, np.zeros(SAMPLE_RATE // 2, np.float32))
    for _ in range(4):
        await pacer.put(half)
    await pacer.put(Sentence(1, "Two.", first=False))
    for _ in range(4):
        await asyncio.sleep(0)
    assert sent == [half, half, half]
    assert pacer.held_bytes == half.samples.nbytes
    draining = asyncio.create_task(pacer.drain())
    playout.pause(clock())
    changes.tell()
    await asyncio.sleep(0)
    clock.now_ns = 60 * S
    playout.go_on(clock())
    clock.now_ns += S
    changes.tell()
    await draining
    assert sent[3:] == [half, Sentence(1, "Two.", first=False)]
    await pacer.drop()


async def test_what_goes_wrong_while_sending_is_told() -> None:
    async def send(_: Sentence | ReplyAudio) -> None:
        raise OSError("gone")

    pacer = Pacer(Playout(LEAD_S), send, Changes(), Clock(), lambda: True)
    await pacer.put(ReplyAudio(1, np.zeros(20 * SAMPLE_RATE, np.float32)))
    await asyncio.sleep(0)
    await pacer.put(Sentence(1, "Never.", first=False))
    with pytest.raises(OSError, match="gone"):
        await pacer.drain()
