"""What the one client of the checks asks of whatever it is answered."""

from contextlib import nullcontext
from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest

from labkit.course.evidence import Event
from labkit.course.probe import Caller
from labkit.course.verdict import NotYet


@pytest.mark.parametrize(
    ("piece_s", "each_s", "is_slow"), [(0.0, 0.5, True), (0.5, 1.0, True), (0.5, 0.5, False)]
)
async def test_audio_that_drips_ends_a_check(piece_s: float, each_s: float, is_slow: bool) -> None:
    audio = bytes(2 + round(piece_s * 16_000) * 2)
    events = [Event(round(n * each_s * 1e9), 1, False, audio) for n in range(40)]
    slow = NotYet("a reply that comes as fast as it plays", "audio that was late", late=True)
    probe: Any = Mock(
        events=events, limit=lambda seconds: seconds, late=AsyncMock(return_value=slow)
    )
    caller = Caller(probe, Mock(), 1)
    for number in range(len(events)):
        caller._inbox.put_nowait(number)
    with pytest.raises(NotYet, match="as fast as it plays") if is_slow else nullcontext():
        for _ in events:
            await caller.number_or_end("audio")
