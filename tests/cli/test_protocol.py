"""`labkit protocol`: the page and the schema."""

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from labkit.cli.protocol import page, protocol
from labkit.protocol.schema import schema_text

app = typer.Typer()
app.command()(protocol)


@pytest.mark.parametrize(("options", "wanted"), [([], page()), (["--schema"], schema_text())])
def test_what_is_asked_for_is_printed_or_written(
    options: list[str], wanted: str, tmp_path: Path
) -> None:
    assert CliRunner().invoke(app, options).stdout == wanted
    out = tmp_path / "out"
    assert CliRunner().invoke(app, [*options, "--out", str(out)]).stdout == ""
    assert out.read_text(encoding="utf-8") == wanted
