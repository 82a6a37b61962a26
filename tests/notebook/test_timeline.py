"""The browser's part of the timeline: where an instant lies. `test_turn` has the kernel's part."""

import shutil
from pathlib import Path

import pytest

from labkit.notebook import timeline
from tests.support import told_by_node

SCRIPT = """
const module = await import("data:text/javascript;base64," + process.argv[1]);
const rows = [0, 1.5, 1.6, 1.6, 2].map((start) => ({ start }));
console.log(JSON.stringify({
  rows: [-1, 0, 1.49, 1.5, 1.599999, 9].map((at) => module.rowAt(rows, at)),
  places: [0, 1.5, 1.75, 2, 9].map((at) => module.place(at, [1.5, 2])),
  nowhere: module.place(1, [1, 1]),
  renders: typeof module.default.render,
}));
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not here")
def test_an_instant_lies_in_the_last_row_that_has_begun() -> None:
    told = told_by_node(SCRIPT, Path(timeline.__file__).with_suffix(".js"))
    assert told["rows"] == [0, 0, 0, 1, 3, 4]
    assert told["places"] == [0, 0, 50, 100, 100]
    assert told["nowhere"] == 0
    assert told["renders"] == "function"


def test_the_widget_loads_nothing_from_the_network() -> None:
    for suffix in (".js", ".css"):
        text = Path(timeline.__file__).with_suffix(suffix).read_text(encoding="utf-8")
        assert "http" not in text
        assert "import " not in text.replace("important", "")
