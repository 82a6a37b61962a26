"""What several tests share."""

import asyncio
import shutil
from collections.abc import Callable
from importlib.util import find_spec


def chromium() -> str | None:
    """The browser that chapters are opened in; None where there is none, or nothing to drive it."""
    if find_spec("playwright") is None:
        return None
    names = ("chromium", "chromium-browser", "google-chrome")
    return next(filter(None, map(shutil.which, names)), None)


async def until(condition: Callable[[], object], seconds: float = 10) -> None:
    """Let the loop run until `condition` holds; fails after `seconds`."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - the condition has no event to wait on
            await asyncio.sleep(0.001)
