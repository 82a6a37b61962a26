"""Make the notebooks from their masters: `make notebooks`.

A master is a script in jupytext's "percent" form, which can be read, reviewed and compared like
any other code. The notebook that comes from it has no outputs and no pairing, and always the
same cell names. What stands behind a cell's marker is explained in `labkit.course.masters`.

Learners work on copies in mine/ (`make lab`). Where somebody saved into notebooks/ all the same,
that file is kept in mine/ before it is made anew.
"""

import sys
from pathlib import Path

import jupytext
import nbformat

from labkit.course import card
from labkit.notebook.copies import write_beside

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


def notebook_of(master: Path, *, solved: bool = False) -> str:
    """The notebook that `master` stands for, as JSON.

    Args:
        master: The master.
        solved: Leave out the stubs instead of the solutions, and predict what `guess` says, as for the
            tests.
    """
    notebook = jupytext.read(master, fmt="py:percent")
    notebook.metadata = METADATA
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    left_out = "exercise" if solved else "solution"
    notebook.cells = [cell for cell in notebook.cells if left_out not in cell.metadata]
    for number, cell in enumerate(notebook.cells, start=1):
        cell.id = f"{master.stem[:2]}-{number:02}"
        if solved and (guess := cell.metadata.get("guess")) is not None:
            cell.source = cell.source.replace("...", guess)
        if (section := cell.metadata.get("keep")) is not None:
            cell.source = f"%%keep {section}\n{cell.source}"
        if (exercise := cell.metadata.get("card")) is not None:
            cell.source = str(card(exercise))
        cell.metadata = {}
    nbformat.validate(notebook)
    return nbformat.writes(notebook) + "\n"


def is_generated(text: str) -> bool:
    """Whether a notebook looks as made by this program, from whatever master.

    JupyterLab and its like leave outputs, or at least what they know of the kernel's language.
    """
    notebook = nbformat.reads(text, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return notebook.metadata == METADATA and not any(cell.outputs for cell in code)


def write(text: str, target: Path, mine: Path) -> None:
    """Write a notebook; what somebody saved in its place is kept in `mine` first."""
    if target.exists() and not is_generated(old := target.read_text(encoding="utf-8")):
        mine.mkdir(exist_ok=True)
        kept = write_beside(mine / f"{target.stem}_saved.ipynb", old.encode())
        sys.stderr.write(f"{target.name} was saved by hand; that is kept in {kept}\n")
    target.write_text(text, encoding="utf-8")


def main() -> None:
    """Write every notebook."""
    for master in chapters():
        write(notebook_of(master), NOTEBOOKS / f"{master.stem}.ipynb", NOTEBOOKS.parent / "mine")


if __name__ == "__main__":
    main()
