"""The notebooks: made from their masters, well formed, and run from top to bottom."""

import ast
import importlib.util
import re
from pathlib import Path
from types import ModuleType

import nbformat
import pytest
from nbclient import NotebookClient

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
    assert path.read_text(encoding="utf-8") == made, "run 'make notebooks'"


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
            assert cell.source.count("Image(") == cell.source.count("alt=")
        else:
            assert not re.search(r"!\[\s*\]", cell.source)


@pytest.mark.notebook
@pytest.mark.engines
@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=named)
def test_the_notebook_runs_in_a_fresh_kernel(path: Path, tmp_path: Path) -> None:
    """From a folder of its own, so that its results do not land in the checkout."""
    if not (DATA / "models" / "lab-asr-en").exists():
        pytest.skip("the embedded models are not here")
    notebook = nbformat.read(path, as_version=4)
    folder = tmp_path / "notebooks"
    folder.mkdir()
    client = NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    client.execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [o for o in outputs if o.output_type == "error"]
    if path.stem == "05_latency_exercise":
        images = [o for o in outputs if "image/png" in o.get("data", {})]
        assert len(images) == 3
        assert (tmp_path / "results").exists()
