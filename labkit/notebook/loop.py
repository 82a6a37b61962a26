"""Drive a coroutine from a synchronous call.

A cell can `await` directly, and that is the way to prefer. Where a plain function has to wait
for a coroutine, as a widget's callback may, the kernel's loop is already running and asyncio
refuses to enter it again; nest-asyncio2 (the maintained fork of nest-asyncio) patches the loop
so that it may. Patching is the last resort: it reorders callbacks that expect not to be nested.

Loops that are not asyncio's own, such as uvloop's, cannot be patched. There the coroutine runs
on a thread with a loop of its own, so it must not use what belongs to the running loop: a
connection that was opened there, a lock that is held there.
"""

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future, wait
from contextlib import suppress
from typing import Any, Final, TypeVar

T = TypeVar("T")

_LOOK_S: Final = 0.2


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run `coroutine` to its end and give its result, with or without a running loop."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    # Asked before the try: nest-asyncio2 has patched half of asyncio by the time that it refuses.
    if not isinstance(loop, asyncio.BaseEventLoop):
        return _run_on_a_thread(coroutine)
    import nest_asyncio2

    nest_asyncio2.apply(loop)
    return loop.run_until_complete(coroutine)


def _run_on_a_thread(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run it on a loop of its own; an interrupt of the wait cancels it, and waits for its end."""
    runner = asyncio.Runner()  # made here, so that it takes over the caller's context variables
    loop = runner.get_loop()

    outcome: Future[T] = Future()

    def work() -> None:
        try:
            with runner:
                outcome.set_result(runner.run(coroutine))
        except BaseException as error:  # whatever it is, it is the caller's
            outcome.set_exception(error)

    thread = threading.Thread(target=work, name="labkit.run")
    try:  # from the start: an interrupt may come as soon as the thread runs
        thread.start()
        # In steps: an interrupt that comes just before a wait begins does not end that wait.
        while not wait([outcome], _LOOK_S).done:
            pass
        return outcome.result()
    except BaseException:
        with suppress(RuntimeError):  # the loop is closed: the coroutine has just ended
            loop.call_soon_threadsafe(_cancel_all, loop)
        raise
    finally:
        with suppress(RuntimeError):  # interrupted before the thread was there
            thread.join()


def _cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    for task in asyncio.all_tasks(loop):
        task.cancel()
