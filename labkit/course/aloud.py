"""For widgets without a mouse or without eyes: keys that work, and a line that is read aloud."""

import anywidget
import traitlets

__all__ = ["Aloud"]


class Aloud(anywidget.AnyWidget):
    """A line of text in a box of controls, which a screen reader reads whenever it changes.

    It reads the changes of a region that stays. The value of an `ipywidgets.HTML` would bring a new
    region along each time, in which nothing has changed.

    Keys that are pressed in the box are the controls' own: JupyterLab would take the arrow keys of
    radio buttons for a step to the next cell.
    """

    _esm = """
    function render({ model, el }) {
      const write = () => { el.textContent = model.get("text"); };
      const keepKeys = ({ target }) => {  // JupyterLab looks for this at what has the focus only
        const box = el.parentElement?.closest(".widget-vbox");
        if (box?.contains(target)) target.dataset.lmSuppressShortcuts = "true";
      };
      el.setAttribute("role", "status");
      el.setAttribute("aria-live", "polite");
      el.style.whiteSpace = "pre-wrap";
      model.on("change:text", write);
      document.addEventListener("focusin", keepKeys);
      write();
      return () => {
        model.off("change:text", write);
        document.removeEventListener("focusin", keepKeys);
      };
    }
    export default { render };
    """

    text = traitlets.Unicode("").tag(sync=True)
    """What is said."""

    def __init__(self, text: str = "") -> None:
        super().__init__(text=text)
