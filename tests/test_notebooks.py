"""The notebooks: made from their masters, well formed, and run from top to bottom as copies."""

import ast
import importlib.util
import re
from pathlib import Path
from types import ModuleType

import nbformat
import pytest
from nbclient import NotebookClient

from labkit.notebook.copies import copy_chapters
from tests.paths import DATA, ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def generator() -> ModuleType:
    path = ROOT / "notebooks" / "masters" / "generate.py"
    spec = importlib.util.spec_from_file_location("generate", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def named(path: Path) -> str:
    return path.stem


def test_every_master_has_its_notebook() -> None:
    masters = [path.stem for path in generator().chapters()]
    assert masters == [path.stem for path in NOTEBOOKS]
    assert masters


@pytest.mark.parametrize("path", NOTEBOOKS, ids=named)
def test_the_notebook_is_what_its_master_says(path: Path) -> None:
    master = path.parent / "masters" / f"{path.stem}.py"
    made = generator().notebook_of(master)
    assert path.read_text(encoding="utf-8") == made, (
        "run 'make notebooks' after a change of the master; a notebook that was saved by hand is "
        "kept in mine/ then. To work on a chapter, take the copy that 'make lab' opens"
    )


@pytest.mark.parametrize("edit", ["output", "metadata"])
def test_what_was_saved_into_a_notebook_is_kept(
    edit: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = NOTEBOOKS[0].read_text(encoding="utf-8")
    saved = nbformat.reads(made, as_version=4)
    if edit == "output":
        cell = next(cell for cell in saved.cells if cell.cell_type == "code")
        cell.outputs = [nbformat.v4.new_output("stream", text="my result")]
    else:
        saved.metadata.language_info.version = "3.11.2"
    target = tmp_path / NOTEBOOKS[0].name
    target.write_text(nbformat.writes(saved), encoding="utf-8")
    for _ in range(2):  # the second time, there is nothing of anybody's to keep
        generator().write(made, target, tmp_path / "mine")
    assert target.read_text(encoding="utf-8") == made
    (kept,) = (tmp_path / "mine").iterdir()
    assert nbformat.read(kept, as_version=4) == saved
    assert f"kept in {kept}" in capsys.readouterr().err


@pytest.mark.parametrize("path", NOTEBOOKS, ids=named)
def test_cells_parse_and_carry_no_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    assert "jupytext" not in notebook.metadata
    for cell in notebook.cells:
        if cell.cell_type == "code":
            compile(cell.source, cell.id, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            assert not cell.outputs
            assert "asyncio.run(" not in cell.source
            assert "pip install" not in cell.source


@pytest.mark.parametrize("path", NOTEBOOKS, ids=named)
def test_every_image_says_what_it_shows(path: Path) -> None:
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            images = len(re.findall(r"\b(?:Image|show)\(", cell.source))
            assert images == cell.source.count("alt=")
        else:
            assert not re.search(r"!\[\s*\]", cell.source)


@pytest.mark.notebook
@pytest.mark.engines
@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=named)
def test_the_notebook_runs_in_a_fresh_kernel(path: Path, tmp_path: Path) -> None:
    """As a learner does it: a copy is run from top to bottom and saved; the chapter stays."""
    if not (DATA / "models" / "lab-asr-en").exists():
        pytest.skip("the embedded models are not here")
    as_made = path.read_bytes()
    copy_chapters(path.parent, tmp_path / "mine")
    copy = tmp_path / "mine" / path.name
    notebook = nbformat.read(copy, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=300,
        kernel_name="python3",
        resources={"metadata": {"path": str(copy.parent)}},
    )
    client.execute()
    nbformat.write(notebook, copy)
    assert not copy_chapters(path.parent, copy.parent)
    assert path.read_bytes() == as_made
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [o for o in outputs if o.output_type == "error"]
    if path.stem == "05_latency_exercise":
        shown = "".join(o.get("data", {}).get("text/html", "") for o in outputs)
        assert (shown.count("<img alt="), shown.count("<audio controls")) == (5, 2)
        assert (tmp_path / "results").exists()
