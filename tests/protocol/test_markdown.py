"""Markdown made from pieces, and from the tables of docstrings."""

from labkit.protocol.markdown import anchor, simple_table, table

DOCSTRING = """Before, ``code``.

=====  ==========
sent   answered
=====  ==========
one    the first
       and more
two    second, longer than its rule
=====  ==========

After.
"""


def test_a_simple_table_becomes_a_table() -> None:
    assert simple_table(DOCSTRING) == (
        "Before, `code`.\n\n"
        "| sent | answered |\n"
        "| --- | --- |\n"
        "| one | the first and more |\n"
        "| two | second, longer than its rule |\n\n"
        "After.\n"
    )


def test_text_without_a_table_stays() -> None:
    assert simple_table("a = b\n") == "a = b\n"


def test_a_table() -> None:
    assert table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


def test_an_anchor_is_written_as_the_heading_is_found() -> None:
    assert anchor("audio.end") == "[`audio.end`](#audioend)"
