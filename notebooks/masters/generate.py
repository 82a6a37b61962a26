"""Make the notebooks from their masters: `make notebooks`.

A master is a script in jupytext's "percent" form, which can be read, reviewed and compared like
any other code. The notebook that comes from it has no outputs and no pairing, and always the
same cell names.
"""

from pathlib import Path

import jupytext
import nbformat

MASTERS = Path(__file__).resolve().parent
NOTEBOOKS = MASTERS.parent
METADATA = {
    "kernelspec": {
        "display_name": "Python 3 (ipykernel)",
        "language": "python",
        "name": "python3",
    },
    "language_info": {"name": "python"},
}


def chapters() -> list[Path]:
    """The masters, in the order of the chapters."""
    return sorted(MASTERS.glob("[0-9][0-9]_*.py"))


def notebook_of(master: Path) -> str:
    """The notebook that `master` stands for, as JSON."""
    notebook = jupytext.read(master, fmt="py:percent")
    notebook.metadata = METADATA
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for number, cell in enumerate(notebook.cells, start=1):
        cell.id = f"{master.stem[:2]}-{number:02}"
        cell.metadata = {}
    nbformat.validate(notebook)
    return nbformat.writes(notebook) + "\n"


def main() -> None:
    """Write every notebook."""
    for master in chapters():
        target = NOTEBOOKS / f"{master.stem}.ipynb"
        target.write_text(notebook_of(master), encoding="utf-8")


if __name__ == "__main__":
    main()
