"""Time that no machine is too slow for."""

import asyncio
from typing import Any

import pytest

_GRACE_S = 0.02
"""What the kernel may take to hand over what this very process has sent."""


class VirtualTime:
    """The time of an event loop: it stands still while there is work, and then jumps ahead.

    Both ends of a test lie in one process. So where nothing is ready, nothing comes before the
    next timer, and no deadline passes while the machine is busy with something else.
    """

    def __init__(self, loop: Any) -> None:
        self.now_s = loop.time()
        self._wait = loop._selector.select

    def select(self, timeout: float | None = None) -> Any:
        """Wait for what is ready, and where nothing is, let `timeout` seconds pass at once."""
        if not timeout:
            return self._wait(timeout)
        ready = self._wait(_GRACE_S)
        if not ready:
            self.now_s += timeout
        return ready


@pytest.fixture
async def virtual_time(monkeypatch: pytest.MonkeyPatch) -> VirtualTime:
    """Virtual time for the test's loop."""
    loop: Any = asyncio.get_running_loop()
    time = VirtualTime(loop)
    monkeypatch.setattr(loop, "time", lambda: time.now_s)
    monkeypatch.setattr(loop._selector, "select", time.select)
    return time
