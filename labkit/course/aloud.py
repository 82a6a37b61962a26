"""A line of text for widgets, which a screen reader reads whenever it changes."""

import anywidget
import traitlets


class Aloud(anywidget.AnyWidget):
    """Text that is shown as it is.

    A screen reader reads the changes of a region that stays. The value of an `ipywidgets.HTML`
    would bring a new region along each time, in which nothing has changed.
    """

    _esm = """
    function render({ model, el }) {
      const write = () => { el.textContent = model.get("text"); };
      el.setAttribute("role", "status");
      el.setAttribute("aria-live", "polite");
      el.style.whiteSpace = "pre-wrap";
      model.on("change:text", write);
      write();
      return () => model.off("change:text", write);
    }
    export default { render };
    """

    text = traitlets.Unicode("").tag(sync=True)
    """What is said."""

    def __init__(self, text: str = "") -> None:
        super().__init__(text=text)
