"""For notebooks: drive a coroutine from a synchronous call.

A cell can `await` directly, and that is the way to prefer. Where a plain function has to wait
for a coroutine, as a widget's callback may, the kernel's loop is already running and asyncio
refuses to enter it again; nest-asyncio2 (the maintained fork of nest-asyncio) patches the loop
so that it may. Patching is the last resort: it reorders callbacks that expect not to be nested.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["run"]

T = TypeVar("T")


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run `coroutine` to its end and give its result, with or without a running loop."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    import nest_asyncio2

    nest_asyncio2.apply(loop)
    return loop.run_until_complete(coroutine)
