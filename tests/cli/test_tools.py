"""`labkit doctor` and `labkit protocol`."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from labkit import doctor as examination
from labkit.cli.tools import doctor, protocol, reference_page
from labkit.doctor import Check
from labkit.errors import LabkitError
from labkit.protocol.schema import schema_text
from tests.paths import ROOT

app = typer.Typer()
app.command()(doctor)
app.command()(protocol)


@pytest.mark.parametrize(
    ("options", "wanted"), [([], reference_page()), (["--schema"], schema_text())]
)
def test_what_is_asked_for_is_printed_or_written(
    options: list[str], wanted: str, tmp_path: Path
) -> None:
    assert CliRunner().invoke(app, ["protocol", *options]).stdout == wanted
    out = tmp_path / "out"
    assert CliRunner().invoke(app, ["protocol", *options, "--out", str(out)]).stdout == ""
    assert out.read_text(encoding="utf-8") == wanted


@pytest.mark.parametrize("command", ["token", "protocol"])
def test_what_would_be_printed_for_nobody_is_an_error(command: str) -> None:
    done = subprocess.run(
        f"exec {shlex.quote(sys.executable)} -m labkit {command} >&-",
        shell=True,
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert (done.returncode, done.stderr) == (
        1,
        "error: stdout is closed, so there is nowhere to print to\n",
    )


def test_a_file_that_cannot_be_written_is_named_with_the_reason(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["protocol", "--out", str(tmp_path / "none" / "x.md")])
    assert isinstance(result.exception, LabkitError)
    assert "x.md cannot be written: No such file or directory" in str(result.exception)


@pytest.mark.parametrize(("ok", "code"), [(True, 0), (False, 1)])
def test_the_doctor_names_the_mend_and_exits_1_where_something_is_amiss(
    monkeypatch: pytest.MonkeyPatch, ok: bool, code: int
) -> None:
    check = Check("port", ok, "8765 [is] free", "" if ok else "stop it")

    async def found(_: object) -> list[Check]:
        return [check]

    monkeypatch.setattr(examination, "run_checks", found)
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == code
    assert "8765 [is] free" in result.output
    assert ("mend: stop it" in result.output) is not ok
