"""Pieces of Markdown, written and made from reStructuredText."""

import re
from collections.abc import Sequence

__all__ = ["anchor", "simple_table", "table"]


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def anchor(name: str) -> str:
    """A link to the heading that `name` has on the same page."""
    return f"[`{name}`](#{re.sub(r'[^a-z0-9_-]', '', name.lower())})"


def simple_table(text: str) -> str:
    """The simple tables of reStructuredText in `text`, and its literals, as Markdown."""
    rule = re.compile(r"^=+(?: +=+)+$", re.M)
    before, *parts = rule.split(text)
    if parts:
        header, rows, after = parts
        columns = [match.span() for match in re.finditer("=+", _line(rule, text))]
        lines = [_cells(line, columns) for line in (header + rows).strip("\n").splitlines()]
        merged = _merged([line for line in lines if any(line)])
        text = before + table(merged[0], merged[1:]) + simple_table(after)
    return text.replace("``", "`")


def _line(rule: re.Pattern[str], text: str) -> str:
    found = rule.search(text)
    return found.group() if found else ""


def _cells(line: str, columns: Sequence[tuple[int, int]]) -> list[str]:
    """The cells of a line; the last one may be longer than its rule."""
    ends = [end for _, end in columns[:-1]] + [len(line)]
    return [line[start:end].strip() for (start, _), end in zip(columns, ends, strict=True)]


def _merged(lines: Sequence[list[str]]) -> list[list[str]]:
    """Rows of several lines as one: the lines after the first have an empty first cell."""
    rows: list[list[str]] = []
    for line in lines:
        if line[0]:
            rows.append(line)
        else:
            rows[-1] = [f"{a} {b}".strip() for a, b in zip(rows[-1], line, strict=True)]
    return rows
