"""The command line: what it prints, and how it fails."""

import pytest

from tests.cli.commands import Labkit


def test_an_error_of_labkit_is_one_line_with_its_path_as_it_is(labkit: Labkit) -> None:
    path = "recordings/[old]/[/b]/" + "long" * 40 + ".wav"
    done = labkit("talk", path)
    assert done.code == 1
    assert done.err.startswith(f"error: there is no file {path}: it was not found in ")
    assert done.err.count("\n") == 1


def test_the_help_of_a_command_says_what_its_options_do(
    labkit: Labkit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert "as far as the model bears it" in labkit("serve", "--help").out
