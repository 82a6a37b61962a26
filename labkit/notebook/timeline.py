"""The waterfall of a turn, each row of it a button that plays the turn from there."""

from pathlib import Path
from typing import Any

import anywidget
import traitlets


class Timeline(anywidget.AnyWidget):
    """Rows of a turn over its sound (`timeline.js`).

    Where no widgets can be shown, a page has a picture in its place, and a terminal text.
    """

    _esm = Path(__file__).with_name("timeline.js")
    _css = Path(__file__).with_name("timeline.css")

    wav = traitlets.Bytes().tag(sync=True)
    """The whole turn as a WAV file."""
    label = traitlets.Unicode().tag(sync=True)
    """What can be heard in it."""
    rows = traitlets.List(traitlets.Dict()).tag(sync=True)
    """Each with `label`, `text`, `start` and `end` in seconds, and whether it has a `bar`."""
    wait = traitlets.Tuple().tag(sync=True)
    """Start and end of the axis under the bars, in seconds."""

    def __init__(self, picture: str, text: str, **values: Any) -> None:
        """Show `values`; where that is not possible, the `picture` (HTML), or the `text`."""
        super().__init__(**values)
        self._picture = picture
        self._text = text

    def __repr__(self) -> str:
        return self._text

    def _repr_html_(self) -> str:
        return self._picture
