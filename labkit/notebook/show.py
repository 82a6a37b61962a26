"""Put figures and progress into the output of the cell that runs, if one does."""

import base64
from html import escape
from typing import TYPE_CHECKING

from labkit.audio.pcm import SAMPLE_RATE, Float32, wav_file
from labkit.course.shell import current_shell
from labkit.errors import LabkitError

if TYPE_CHECKING:  # matplotlib takes a second to load
    from matplotlib.figure import Figure

    from labkit.measure.results import Tell


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
    """A bar in the cell's output; gives what to tell of each step. Elsewhere it shows nothing.

    Args:
        unit: What is counted.
    """
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
