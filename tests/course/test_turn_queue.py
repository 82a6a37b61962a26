"""Turns of a learner's server: one after the other, bounded, and none ends those behind it."""

import asyncio

import pytest

from labkit.course import Turns
from labkit.errors import ErrorCode, ProtocolError
from labkit.protocol import v1


class Caller:
    """Notes what is told, and which turns began and ended."""

    def __init__(self) -> None:
        self.told: list[v1.Error] = []
        self.noted: list[str] = []
        self.go_on = asyncio.Event()
        self.over = asyncio.Event()

    async def tell(self, message: v1.Error) -> None:
        self.told.append(message)

    async def turn(self, name: str) -> None:
        self.noted.append(f"{name} begins")
        await self.go_on.wait()
        if name == "fails":
            raise ValueError("no such voice")
        self.noted.append(f"{name} ends")
        if name == "last":
            self.over.set()


async def test_turns_run_one_after_the_other_and_one_that_fails_is_told() -> None:
    caller = Caller()
    turns = Turns(4, caller.tell)
    for name in ("first", "fails", "last"):
        turns.add(caller.turn, name)
    caller.go_on.set()
    await caller.over.wait()
    assert caller.noted == [
        "first begins",
        "first ends",
        "fails begins",
        "last begins",
        "last ends",
    ]
    (error,) = caller.told
    assert (error.code, error.cause) == (ErrorCode.ENGINE_FAILED, None)
    assert "no such voice" in error.message


async def test_no_more_wait_than_may_and_all_of_them_are_cancelled() -> None:
    caller = Caller()
    turns = Turns(2, caller.tell)
    turns.add(caller.turn, "first")
    await asyncio.sleep(0)
    turns.add(caller.turn, "second")
    turns.add(caller.turn, "third")
    with pytest.raises(ProtocolError, match="2 turns wait") as refused:
        turns.add(caller.turn, "fourth")
    assert refused.value.code is ErrorCode.TOO_MANY_TURNS
    turns.cancel()
    caller.go_on.set()
    await asyncio.sleep(0)
    assert caller.noted == ["first begins"]
    turns.add(caller.turn, "last")  # it can be used again
    await caller.over.wait()
