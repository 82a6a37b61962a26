"""The notebooks: made from their masters, well formed, and run from top to bottom as copies."""

import ast
import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import nbformat
import pytest
from nbclient import NotebookClient

from labkit import course
from labkit.course.folder import Progress
from labkit.course.verdict import Verdict
from labkit.notebook.copies import copy_chapters
from tests.paths import DATA, ROOT
from tests.support import chromium

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
            magic, _, code = cell.source.partition("\n")
            kept = magic.startswith("%%keep ")
            program = code if kept else cell.source
            compile(program, cell.id, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            assert not cell.outputs
            assert "asyncio.run(" not in cell.source or magic == "%%keep main"
            assert "pip install" not in cell.source


@pytest.mark.parametrize("path", NOTEBOOKS, ids=named)
def test_what_a_chapter_tells_learners_to_call_is_imported_first(path: Path) -> None:
    cells = nbformat.read(path, as_version=4).cells
    first = next(cell.source for cell in cells if cell.cell_type == "code")
    imported = set(re.findall(r"\w+", first))
    told = "\n".join(cell.source for cell in cells)
    called = {name for name in course.__all__ if re.search(rf"(?<![\w.]){name}\(", told)}
    assert called <= imported


@pytest.mark.parametrize("path", NOTEBOOKS, ids=named)
def test_every_image_says_what_it_shows(path: Path) -> None:
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            images = len(re.findall(r"\b(?:Image|show)\(", cell.source))
            assert images == cell.source.count("alt=")
        else:
            assert not re.search(r"!\[\s*\]", cell.source)


class Learner:
    """Somebody who works through the chapters in a folder of their own."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, *, strict: bool) -> None:
        self.mine = folder / "mine"
        copy_chapters(ROOT / "notebooks", self.mine)
        monkeypatch.setenv("LABKIT_MINE", str(self.mine))
        monkeypatch.setenv("LABKIT_STRICT", "1" if strict else "0")

    def run(self, text: str, *, allow_errors: bool = False) -> list[nbformat.NotebookNode]:
        """Run a notebook from top to bottom in a fresh kernel; gives its outputs."""
        notebook = nbformat.reads(text, as_version=4)
        NotebookClient(
            notebook,
            timeout=600,
            kernel_name="python3",
            allow_errors=allow_errors,
            resources={"metadata": {"path": str(self.mine)}},
        ).execute()
        return [output for cell in notebook.cells for output in cell.get("outputs", [])]


needs_engines = [
    pytest.mark.notebook,
    pytest.mark.engines,
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(
        not (DATA / "models" / "lab-asr-en").exists(), reason="the embedded models are not here"
    ),
]


def in_a_kernel(paths: list[Path]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    def marked(test: Callable[..., None]) -> Callable[..., None]:
        for mark in needs_engines:
            test = mark(test)
        return pytest.mark.parametrize("path", paths, ids=named)(test)

    return marked


@in_a_kernel(NOTEBOOKS)
def test_the_solved_chapter_runs_with_strict_checks(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = Learner(tmp_path, monkeypatch, strict=True)
    master = path.parent / "masters" / f"{path.stem}.py"
    outputs = learner.run(generator().notebook_of(master, solved=True))
    assert not [o for o in outputs if o.output_type == "error"]
    if path.stem == "05_latency_exercise":
        shown = "".join(o.get("data", {}).get("text/html", "") for o in outputs)
        assert (shown.count("<img alt="), shown.count("<audio controls")) == (6, 2)
        assert len(list((tmp_path / "results").iterdir())) == 3
        assert (learner.mine / "lab_report.html").exists()


# Those that tests/browser runs unedited are not run a second time.
IN_A_BROWSER = ("00_start_here", "01_server", "05_latency_exercise") if chromium() else ()


@in_a_kernel([path for path in NOTEBOOKS if path.stem not in IN_A_BROWSER])
def test_an_unedited_chapter_runs_to_its_end(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only stubs may raise, and no check takes an exercise that was not done for one that was."""
    learner = Learner(tmp_path, monkeypatch, strict=False)
    made = path.read_bytes()
    outputs = learner.run(path.read_text(encoding="utf-8"), allow_errors=True)
    raised = {o.ename for o in outputs if o.output_type == "error"}
    assert raised <= {"NotImplementedError"}
    assert path.read_bytes() == made  # the learner works on a copy
    own = f"ch{int(path.stem[:2])}."  # what earlier chapters built is there, from their solutions
    for name, noted in Progress.load().checks.items():
        assert noted.verdict is Verdict.NOT_YET or not name.startswith(own), name
