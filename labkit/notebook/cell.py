"""What a cell wants beside Python: to show, to play, to tell how far it is, to run a coroutine."""

import asyncio
import base64
import threading
from collections.abc import Coroutine
from concurrent.futures import Future, wait
from contextlib import suppress
from html import escape
from typing import TYPE_CHECKING, Any, Final, TypeVar

from labkit.audio.pcm import SAMPLE_RATE, Float32, wav_file
from labkit.course.shell import current_shell
from labkit.errors import LabkitError

if TYPE_CHECKING:  # matplotlib takes a second to load
    from matplotlib.figure import Figure

    from labkit.measure.results import Tell

T = TypeVar("T")

_LOOK_S: Final = 0.2


def show(figure: "Figure", *, alt: str) -> None:
    """Show a figure, wherever in the cell this is called; outside of notebooks, do nothing.

    Args:
        figure: Any figure of matplotlib; pyplot has no part in it.
        alt: What it shows, for those who do not see it.
    """
    if current_shell() is None:
        return
    from IPython.display import HTML, display

    from labkit.measure.figures import image_html

    display(HTML(image_html(figure, alt)))  # type: ignore[no-untyped-call]


def error_in_words(error: Exception) -> str:
    """What a widget tells of an error: labkit's own are sentences, others need their type."""
    return str(error) if isinstance(error, LabkitError) else repr(error)


def player(samples: Float32, label: str, rate: int = SAMPLE_RATE) -> str:
    """Native controls as HTML, which work with the keyboard, on a WAV file within the page."""
    source = base64.b64encode(wav_file(samples, rate)).decode()
    return (
        f'<audio controls aria-label="{escape(label)}" data-lm-suppress-shortcuts="true" '
        f'src="data:audio/wav;base64,{source}"></audio>'
    )


def play(samples: Float32, label: str, *, rate: int = SAMPLE_RATE) -> None:
    """Show a player, wherever in the cell this is called; outside of notebooks, do nothing.

    Args:
        samples: What it plays.
        label: What that is, and the words in it, for those who do not hear it.
        rate: Its samples a second.
    """
    if current_shell() is None:
        return
    from IPython.display import HTML, display

    html = f"<div>{player(samples, label, rate)} {escape(label)}</div>"
    display(HTML(html))  # type: ignore[no-untyped-call]


def progress_bar(unit: str) -> "Tell":
    """A bar in the cell's output; gives what to tell of each step. Elsewhere it shows nothing."""
    if current_shell() is None:
        return lambda *_: None
    from IPython.display import display
    from ipywidgets import HTML, IntProgress, VBox

    bar = IntProgress(description=unit, style={"description_width": "initial"})
    step = HTML()
    display(VBox([bar, step]))  # type: ignore[no-untyped-call]

    def tell(now: str, done: int, total: int) -> None:
        bar.max, bar.value = total, done
        step.value = escape(f"{done} of {total}: {now}")

    return tell


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run `coroutine` to its end and give its result, with or without a running loop.

    A cell can `await` directly, and that is the way to prefer. Where a plain function has to wait
    for a coroutine, as a widget's callback may, the kernel's loop is already running and asyncio
    refuses to enter it again; nest-asyncio2 (the maintained fork of nest-asyncio) patches the loop
    so that it may. Patching is the last resort: it reorders callbacks that expect not to be nested.

    Loops that are not asyncio's own, such as uvloop's, cannot be patched. There the coroutine runs
    on a thread with a loop of its own, so it must not use what belongs to the running loop: a
    connection that was opened there, a lock that is held there.
    """
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
