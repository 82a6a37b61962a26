"""What any console can show, and signals that end a command."""

import asyncio
import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from labkit.cli import terminal
from labkit.cli.measure import results_table
from labkit.errors import LabkitError
from tests.paths import ROOT


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "utf-8"])
def test_any_console_shows_something_for_every_character(
    encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding))
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BytesIO(), encoding))
    terminal.show_on_any_console()
    table = Table("≤ 5 µs … → – 漢", title="“×”")
    table.add_row("é")
    Console().print(table)
    sys.stdout.flush()
    shown = written.getvalue().decode(encoding)
    if encoding == "ascii":
        assert '"x"' in shown
        assert "<= 5 us ... -> - ?" in shown
        assert "+---" in shown
    if encoding == "utf-8":
        assert "≤ 5 µs … → – 漢" in shown


@pytest.mark.parametrize(
    ("encoding", "words"),
    [
        ("ascii", ["protocol"]),
        ("ascii", ["models", "list"]),
        ("ascii", ["serve", "--help"]),
        ("cp1252", ["drill", "--help"]),
        ("latin-1", ["protocol"]),
    ],
)
def test_no_command_fails_at_a_character(encoding: str, words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "labkit", *words],
        cwd=ROOT,
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr.decode(encoding)
    assert done.stdout.decode(encoding)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_lets_a_command_end_what_it_started(number: signal.Signals) -> None:
    ended = []

    async def work() -> None:
        try:
            signal.raise_signal(number)
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append("server")

    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as caught:
        terminal.run(work())
    assert caught.value.code == 128 + number
    assert ended == ["server"]
    assert signal.getsignal(number) is before


def test_a_result_that_was_kept_is_given_although_a_signal_came() -> None:
    async def work() -> str:
        try:
            signal.raise_signal(signal.SIGTERM)
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "kept"
        return "all"

    assert terminal.run(work()) == "kept"


def test_what_is_ignored_from_the_start_stays_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> str:
        signal.raise_signal(signal.SIGHUP)
        await asyncio.sleep(0)
        return "went on"

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert terminal.run(work()) == "went on"
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_second_signal_ends_the_process_at_once() -> None:
    program = """
import asyncio, signal
from labkit.cli.terminal import run
async def work():
    try:
        signal.raise_signal(signal.SIGTERM)
        await asyncio.Event().wait()
    finally:
        signal.raise_signal(signal.SIGTERM)
        await asyncio.Event().wait()
run(work())
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True)
    assert done.returncode == -signal.SIGTERM
    assert done.stderr == b""


def test_a_second_signal_ends_a_command_that_only_computes() -> None:
    program = """
import signal
from labkit.cli.terminal import run
async def work():
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGTERM)
    while True:
        pass
run(work())
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True)
    assert done.returncode == -signal.SIGTERM
    assert done.stderr == b""


def test_a_first_signal_waits_for_what_computes_and_then_ends_it() -> None:
    computed = []

    async def work() -> None:
        signal.raise_signal(signal.SIGTERM)
        computed.append("a part")
        await asyncio.sleep(0)
        computed.append("the rest")

    with pytest.raises(SystemExit) as caught:
        terminal.run(work())
    assert caught.value.code == 128 + signal.SIGTERM
    assert computed == ["a part"]


def test_a_file_that_cannot_be_read_is_named_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LabkitError, match=f"no file none.wav: it was not found in {tmp_path}"):
        terminal.require_file(Path("none.wav"))
    with pytest.raises(LabkitError, match="is a folder; name a file in it"):
        terminal.require_file(tmp_path)
    (tmp_path / "a.wav").touch()
    terminal.require_file(Path("a.wav"))
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may read everything
    with pytest.raises(LabkitError, match="a.wav cannot be read: permission denied"):
        terminal.require_file(Path("a.wav"))


def test_whether_a_file_can_be_written_is_known_before_and_leaves_nothing(tmp_path: Path) -> None:
    terminal.require_writable(tmp_path / "new.wav")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "old.wav").write_text("kept")
    terminal.require_writable(tmp_path / "old.wav")
    assert (tmp_path / "old.wav").read_text() == "kept"
    with pytest.raises(LabkitError, match="cannot be written: Is a directory"):
        terminal.require_writable(tmp_path)


def test_a_log_gets_a_line_for_each_tenth(capsys: pytest.CaptureFixture[str]) -> None:
    with terminal.counting_bar() as tell:
        for done in range(41):
            tell(f"step {done}", done, 40)
        tell("another part", 0, 9)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 12
    assert lines[0] == "  0 %  0 of 40: step 0"
    assert lines[-2:] == ["100 %  40 of 40: step 40", "  0 %  0 of 9: another part"]


def test_a_table_loses_no_figure_on_a_narrow_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "24")
    terminal.print_table(results_table("waits", [{f"figure {n}": f"{n}.25 ms" for n in range(5)}]))
    out = capsys.readouterr().out
    assert "…" not in out
    assert all(f"{n}.25 ms" in out for n in range(5))


def test_no_text_steers_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    text = "a\x1b]0;evil\x07\x9b31m\u202eb\rc"
    table = Table("said")
    table.add_row(text)
    terminal.print_table(table)
    terminal.errors().print(f"[bold red]error:[/] {text}", soft_wrap=True)
    terminal.console().print(f"{text}\nmore", markup=False, soft_wrap=True)
    printed = capsys.readouterr()
    for line in (printed.out + printed.err).splitlines():
        assert line.isprintable()
    assert printed.out.endswith("\nmore\n")


def test_what_is_printed_is_no_emoji_and_the_cursor_stays(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    terminal.console().print("fe80:100:1", highlight=False)
    with terminal.counting_bar() as tell:
        tell("starting [/mine]", 0, 1)
    printed = capsys.readouterr()
    assert "fe80:100:1" in printed.out
    assert "starting [/mine]" in printed.err
    assert "\x1b[?25l" not in printed.err
