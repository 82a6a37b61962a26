"""What a check found, in words: four verdicts, and a report for a terminal and for a notebook."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from html import escape
from pathlib import Path
from typing import Final, Self

from labkit.errors import LabkitError

_WIDTH: Final = 76
"""Characters of a line that carries a caret."""
_BYTES: Final = 16
_CODE: Final = re.compile("`([^`]+)`")
_LINES: Final = (
    "margin:0;white-space:pre-wrap;word-break:normal;overflow-wrap:anywhere;"
    "font-family:var(--jp-code-font-family,monospace)"
)
"""How a notebook shows a report: Jupyter itself would break lines within words, and a page that was
made of a notebook has proportional text here, in which carets point beside what they mean."""
SERVER_SAYS: Final = "[your server]"
"""Begins each line of the server's log in a report."""


class Verdict(StrEnum):
    """How a check ended."""

    PASSED = "passed"
    """The server does what the check asks for."""
    NOT_YET = "not yet"
    """It does not; the report says what was expected, and what came instead."""
    CANNOT_TELL = "cannot tell"
    """Nothing is known: the machine is too busy, or something is missing here."""
    OUR_FAULT = "our fault"
    """The check itself failed; the server may be right."""


_SIGNS: Final = {
    Verdict.PASSED: "✔",
    Verdict.NOT_YET: "✘",
    Verdict.CANNOT_TELL: "?",
    Verdict.OUR_FAULT: "!",
}
_COLOURS: Final = {
    Verdict.PASSED: "#00694e",
    Verdict.NOT_YET: "#b34700",
    Verdict.CANNOT_TELL: "#565656",
    Verdict.OUR_FAULT: "#7a3b76",
}


class CheckFailed(LabkitError):
    """A check did not pass, and `LABKIT_STRICT=1` asked for an error where one does not."""


@dataclass(frozen=True, slots=True)
class Caret:
    """A line that was received, and where in it the fault lies.

    Attributes:
        line: The text, or the first bytes in hexadecimal.
        start: The first character at fault.
        length: How many.
        note: What belongs there.
    """

    line: str
    start: int
    length: int
    note: str

    @classmethod
    def in_text(cls, text: str, start: int, length: int, note: str) -> Self:
        """Point into `text`; of a long one, the part around the fault is shown."""
        first = max(0, min(start - _WIDTH // 2, len(text) - _WIDTH))
        shown = text[first : first + _WIDTH].replace("\n", " ").replace("\t", " ")
        at = start - first
        return cls(shown, at, max(1, min(length, _WIDTH - at)), note)

    @classmethod
    def in_json(cls, text: str, key: str, note: str) -> Self:
        """Point at the value of `key`, or at the end of the object where there is none."""
        found = re.search(rf"{re.escape(json.dumps(key))}\s*:\s*", text)
        if found is None:
            return cls.in_text(text, max(0, text.rfind("}")), 1, note)
        _, end = json.JSONDecoder().raw_decode(text, found.end())
        return cls.in_text(text, found.end(), end - found.end(), note)

    @classmethod
    def in_bytes(cls, data: bytes, start: int, length: int, note: str) -> Self:
        """Point into a binary message, written in hexadecimal."""
        first = max(0, min(start - _BYTES // 2, len(data) - _BYTES))
        shown = data[first : first + _BYTES]
        line = shown.hex(" ") + (" …" if first + _BYTES < len(data) else "")
        return cls(line, 3 * (start - first), 3 * length - 1, note)

    def lines(self) -> tuple[str, str]:
        """The line, and the one below it with the carets."""
        return self.line, " " * self.start + "^" * self.length + " " + self.note


class NotYet(Exception):  # noqa: N818 - it is no error of ours
    """The server did not do what a check expects of it.

    Attributes:
        expected: What should have come, or happened.
        observed: What did.
        off: How far off that is, where it can be measured.
        caret: Where in a message the fault lies.
        event: Number of the event at fault, in the check's record; None where something lacks.
        late: It was about time, so a busy machine may be the reason.
    """

    def __init__(
        self,
        expected: str,
        observed: str,
        *,
        off: str = "",
        caret: Caret | None = None,
        event: int | None = None,
        late: bool = False,
    ) -> None:
        super().__init__(f"expected {expected}, observed {observed}")
        self.expected = expected
        self.observed = observed
        self.off = off
        self.caret = caret
        self.event = event
        self.late = late

    def expecting(self, expected: str) -> "NotYet":
        """The same, where what was expected is told otherwise."""
        return NotYet(
            expected,
            self.observed,
            off=self.off,
            caret=self.caret,
            event=self.event,
            late=self.late,
        )


class CannotTell(Exception):  # noqa: N818
    """Nothing can be said about the server, for a reason that is not its own."""


@dataclass(frozen=True, slots=True, repr=False, kw_only=True)
class Report:
    """What a check found. As the last line of a cell it shows itself.

    Attributes:
        check: Name of the check.
        title: What the check asks for.
        verdict: How it ended.
        told: What held, and what the server logged meanwhile, in the order of time.
        fault: What did not hold, where the verdict is *not yet*.
        reason: Why, for the verdicts *cannot tell* and *our fault*.
        notes: What else was seen, such as tasks that were left behind.
        help: What to do now.
        seed: What the inputs were drawn from.
        evidence: The folder with all that was sent and received; None where no server was asked.
        diagram: The messages as SVG.
    """

    check: str
    title: str
    verdict: Verdict
    told: Sequence[str] = ()
    fault: NotYet | None = None
    reason: str = ""
    notes: Sequence[str] = ()
    help: Sequence[str] = ()
    seed: int
    evidence: Path | None = None
    diagram: str = field(default="", repr=False)

    @property
    def passed(self) -> bool:
        """Whether the server does what was asked for."""
        return self.verdict is Verdict.PASSED

    @property
    def cause(self) -> str:
        """The last that the server logged, where something did not hold; else nothing."""
        logged = [line for line in self.told if line.startswith(SERVER_SAYS)]
        return logged[-1] if logged and self.fault is not None else ""

    def heading(self) -> str:
        """Verdict, name and title in a line."""
        return f"{_SIGNS[self.verdict]} {self.check}: {self.verdict}. {self.title}"

    def heading_html(self) -> str:
        """The same for a notebook."""
        return (
            f'<div><b style="color:{_COLOURS[self.verdict]}">{_code_html(self.heading())}</b></div>'
        )

    def __repr__(self) -> str:
        """Everything in plain text."""
        return "\n".join((self.heading(), *self._body(f"LABKIT_SEED={self.seed} repeats it")))

    def _body(self, repeats: str) -> list[str]:
        lines = [f"  {line}" for line in self.told]
        if self.fault is not None:
            lines += _fault_lines(self.fault)
        if self.reason:
            lines += [f"  {_SIGNS[self.verdict]} {self.reason}"]
        lines += [f"  note: {note}" for note in self.notes]
        if self.verdict is not Verdict.PASSED:
            lines += [f"  → {line}" for line in self.help]
            lines.append(f"  seed {self.seed} ({repeats})")
            if self.evidence is not None:
                lines.append(f"  evidence: {self.evidence}")
        return lines

    def _repr_html_(self) -> str:
        body = "\n".join(self._body(f'check("{self.check}", …, seed={self.seed}) repeats it'))
        parts = [
            self.heading_html(),
            f'<pre style="{_LINES}">{_code_html(body)}</pre>' if body else "",
        ]
        if self.diagram and not self.passed:
            parts.append(f"<details><summary>The messages</summary>{self.diagram}</details>")
        return f'<section aria-label="{escape(self.check)}">{"".join(parts)}</section>'


def _code_html(text: str) -> str:
    """Text as HTML, with what stands between backticks on a line as code.

    Lines with a caret below them, and those of a server, stay as they are.
    """
    return "\n".join(
        escape(line)
        if line.startswith((" " * 14, f"  {SERVER_SAYS}"))
        else _CODE.sub(r"<code>\1</code>", escape(line))
        for line in text.splitlines()
    )


def _fault_lines(fault: NotYet) -> list[str]:
    lines = [f"  ✘ expected  {fault.expected}", f"    observed  {fault.observed}"]
    if fault.off:
        lines.append(f"    off by    {fault.off}")
    if fault.caret is not None:
        lines += [f"              {line}" for line in fault.caret.lines()]
    return lines


@dataclass(frozen=True, slots=True, repr=False)
class Reports:
    """What several checks found.

    Attributes:
        all: One report for each check, in the order of the course.
    """

    all: tuple[Report, ...]

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(report.passed for report in self.all)

    def _summary(self) -> str:
        passed = sum(report.passed for report in self.all)
        return f"{passed} of {len(self.all)} checks passed."

    def _as_before(self) -> list[str]:
        """For each report, the earlier check that failed for the same cause, if one did."""
        first: dict[str, str] = {}
        before = []
        for report in self.all:
            before.append(first.get(report.cause, ""))
            if report.cause:
                first.setdefault(report.cause, report.check)
        return before

    def __repr__(self) -> str:
        """A line for each that passed, everything about the others, and how many."""
        shown = []
        for report, before in zip(self.all, self._as_before(), strict=True):
            if before:
                shown.append(f"{report.heading()}\n  the same as in {before}: {report.cause}")
            else:
                shown.append(report.heading() if report.passed else repr(report))
        return "\n".join([*shown, self._summary()])

    def _repr_html_(self) -> str:
        parts = []
        for report, before in zip(self.all, self._as_before(), strict=True):
            if before:
                why = f"the same as in {before}: {report.cause}"
                parts.append(
                    f'{report.heading_html()}<div style="margin-left:1em">{escape(why)}</div>'
                )
            else:
                parts.append(report._repr_html_())
        return f"{''.join(parts)}<p>{self._summary()}</p>"
