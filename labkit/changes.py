"""Waiting for something to be as wanted, however often it changes before."""

import asyncio
from collections.abc import Callable

__all__ = ["Changes"]


class Changes:
    """Wakes everybody who waits whenever something has changed; each then looks for itself."""

    def __init__(self) -> None:
        """Nothing has changed yet."""
        self._next = asyncio.Event()

    def tell(self) -> None:
        """Say that something has changed."""
        self._next.set()
        self._next = asyncio.Event()

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until `condition` holds; it holds when this returns."""
        while not condition():
            await self._next.wait()
