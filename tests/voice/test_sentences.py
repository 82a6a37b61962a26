"""Where a model's text is cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.voice.sentences import Cut, SentenceSplitter


def cuts(*deltas: str) -> list[Cut]:
    splitter = SentenceSplitter()
    found = [cut for delta in deltas for cut in splitter.feed(delta)]
    return found + splitter.flush()


def split(*deltas: str) -> list[str]:
    return [cut.text.strip() for cut in cuts(*deltas) if not cut.mute and cut.text.strip()]


@pytest.mark.parametrize(
    "pieces",
    [
        ["Hello.", "How are you?"],
        ["It takes 3.5 seconds.", "Good."],
        ["It has 5.", "Or 6."],
        ["5.", "That is all."],
        ["Ask Dr. Lee.", "Or Mr. Poe, e.g. now.", "Or St. John vs. him."],
        ["I read J. K. Rowling.", "And J. R. R. Tolkien."],
        ["In the U.S. Army.", "He lives in the U.S.", "The end."],
        ["Come at 5 p.m. tomorrow.", "Or at 6 a.m.", "It's up to you."],
        ["Milk, eggs, etc. are here.", "Milk, etc.", "They are here."],
        ["Choose No. 5.", "The answer is no.", "Why?"],
        ["On Jan. 5 it rained.", "Plan B.", "The best one."],
        ["He has a Ph.D. in physics.", "She too."],
        ["Well... maybe later.", "Yes…", "What?!", "No."],
        ['He said "stop!"', "Then he left."],
        ['"Stop!" he said.', "“Why?” she asked.", '"Go."', '"No."'],
        ["(It rained.)", "**It stopped.**", "`Now.`", "Go."],
        ["Call example.org now.", "It is v2.0.1 of it."],
        ["We close at 9 p.m.", "Would you like that?", "At 9 p.m. Monday, 9 a.m. Eastern."],
        ["It closes at 9 p.m. EST.", "We met at 5 a.m.", "Get up."],
        ["See Eq. 4 and Sect. 2, ca. 1900 of 5 sq. ft. each."],
        ["It is made in the U.S.", "Would you go?"],
        ["Ask mr. Lee, DR. LEE or Ms. Poe."],
        ["It took 10 ms.", "The next one took 20 ms of it, or 5 ms. in all.", "Good."],
        ["It is approx. 5.", "Is it approx.", "The end."],
        ["She is a prof. at MIT.", "He is a prof.", "Ask Prof. Lee.", "One more rep.", "Rest."],
        ["See Fig. A and fig. 2.", "I ate a fig.", "It was good.", "Poe et al. say so."],
        ["no end"],
    ],
)
def test_sentence_ends(pieces: list[str]) -> None:
    assert split(" ".join(pieces)) == pieces


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("Hello.How are you?Good!Yes", ["Hello.", "How are you?", "Good!", "Yes"]),
        ("It has 5.The end", ["It has 5.", "The end"]),
        ("No.Yes.So?I do.I'm", ["No.", "Yes.", "So?", "I do.", "I'm"]),
        ("Ask Prof.Smith or Mr.Poe", None),
        ("See www.Example.Org or http://a.b/Foo.Bar or x@big.Company", None),
        ("A Ph.D. or Node.js or e.g.This", None),
        ("", []),
        ("  \n ", []),
    ],
)
def test_sentences_without_a_space(text: str, pieces: list[str] | None) -> None:
    assert split(text) == ([text] if pieces is None else pieces)


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("One\n\ntwo", ["One", "two"]),
        ("One line\nthat goes on\nand ends.\nNext", ["One line\nthat goes on\nand ends.", "Next"]),
        ("# Title\nit is here", ["# Title", "it is here"]),
        ("Now:\nlisten", ["Now:", "listen"]),
        ("- milk\n- two eggs\n1. salt", ["- milk", "- two eggs", "1. salt"]),
        ("a) one\nb) two", ["a) one", "b) two"]),
        ("1. Open it. Look.\n2. Shut it.", ["1. Open it.", "Look.", "2. Shut it."]),
        ("|a|b|\n|c|d|", ["|a|b|", "|c|d|"]),
    ],
)
def test_lines(text: str, pieces: list[str]) -> None:
    assert split(text) == pieces


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Do:\n```python\na. b\n\nC\n```\nDone.", "```python\na. b\n\nC\n```\n"),
        ("~~~\n```\n~~~", "~~~\n```\n~~~"),
        ("- ```\n  x\n  ```\nDone.", "- ```\n  x\n  ```\n"),
        ("````\n```\n````\nDone.", "````\n```\n````\n"),
        ("```\nnever closed. Yes. No", "```\nnever closed. Yes. No"),
        ("A ```b``` c.", ""),
        ("```b``` c.", ""),
        ("Do this:```\na\n```\nDone.", "```\na\n```\n"),
        ("Do this, ```py\na. B\n``` or that.", "```py\na. B\n```"),
        ("```\na\n```Then go on.", "```\na\n```"),
        ("```\na\n```Done.\nYes.", "```\na\n```"),
        ("```py\na()```\nDone.", "```py\na()```\n"),
        ("```md\n```py\na\n```\nDone.", "```md\n```py\na\n```\n"),
        ("Write ```a('One. Two')```\nYes.", ""),
        ("<think>\nSo. He\n\nasks.\n</think>\n\nHello.", "<think>\nSo. He\n\nasks.\n</think>"),
        ("<think>Hm.</think>Hello.", "<think>Hm.</think>"),
        ("<thinking>Hm.</think> So.</thinking>Yes.", "<thinking>Hm.</think> So.</thinking>"),
        (f"<think>{'so it is ' * 100}</think> Hi.", f"<think>{'so it is ' * 100}</think>"),
        ("<think>It never ends. So", "<think>It never ends. So"),
        ("I <think> so. <think> is a tag.", ""),
    ],
)
def test_code_is_mute(text: str, code: str) -> None:
    assert "".join(cut.text for cut in cuts(text) if cut.mute) == code


LONG = "In the middle of a long and quiet night"


@pytest.mark.parametrize(
    ("text", "first"),
    [
        (f"{LONG}, he woke up.", f"{LONG},"),
        (f"{LONG}; he woke up.", f"{LONG};"),
        (f"{LONG} — he woke up.", f"{LONG} —"),
        (f"{LONG} - he woke up.", f"{LONG} -"),
        (f"{LONG} he saw the stars and slept.", None),
        (f"{LONG} he saw the brightest of all stars far away and slept.", ""),
        ("So, he woke up.", None),
        ("They came to live in the old town on May 6, 2024.", None),
        ("They counted all of the people, and found 1,000, or more.", ""),
        ("They all went to the lovely city of Paris, France.", None),
        ("The film that all of them liked best and longest of all was Tom and Jerry.", None),
        ("The answer lies as far as anybody knows somewhere between 5 and 10.", None),
        ("They came to the old town (it was late, and cold) by bus.", None),
        ("The sun had been shining on the hills for the whole day even if it rained.", None),
    ],
)
def test_the_first_piece_ends_at_a_clause(text: str, first: str | None) -> None:
    found = split(text)
    assert " ".join(found) == text
    if first:
        assert found[0] == first
    else:
        assert (len(found) > 1) is (first == "")


def test_a_number_is_never_cut() -> None:
    figures = "It has exactly 1,000,000.50 things of $2,500.75 each in 3.5 shops, I think"
    assert split(figures) == [figures.removesuffix(" I think"), "I think"]


def test_later_pieces_end_at_a_clause_where_they_are_long() -> None:
    short = f"Yes. {LONG}, he woke."
    assert split(short) == ["Yes.", f"{LONG}, he woke."]
    long = "he saw the same star again and again" + " on a quiet night" * 6
    assert split(f"Yes. I think {long}, he woke.")[1:] == [f"I think {long},", "he woke."]


def test_a_piece_is_bounded() -> None:
    text = "word " * 1000
    assert all(len(cut.text) <= 240 for cut in cuts(text))
    assert split(text)[0] == ("word " * 48).strip()
    assert not split("x" * 5000)
    assert split("x" * 5000 + " Yes.") == ["Yes."]


def test_a_cut_waits_for_one_letter_only() -> None:
    splitter = SentenceSplitter()
    assert splitter.feed("It is 3.") == []
    assert splitter.feed("5 s long. ") == []
    assert [cut.text for cut in splitter.feed("T")] == ["It is 3.5 s long. "]
    assert [cut.text for cut in splitter.feed("hat.\n")] == ["That.\n"]


ALPHABET = st.sampled_from(
    [*"aBcI .,!?\n3-*#`~>|()\"'…", "```", "```\n", "py", ":```", "<think>", "</think>"]
    + ["Dr. ", "p.m. ", "and ", "The ", "1. "]
)
TEXTS = st.lists(ALPHABET, max_size=80).map("".join)


@given(TEXTS, st.data())
def test_deltas_do_not_matter_and_nothing_is_lost(text: str, data: st.DataObject) -> None:
    at = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    deltas = [text[a:b] for a, b in zip([0, *at], [*at, len(text)], strict=True)]
    assert cuts(*deltas) == cuts(text) == cuts(*text)
    assert "".join(cut.text for cut in cuts(text)) == text


@pytest.mark.parametrize("kind", ["x", "word ", "a, ", "```\n", "U.S. A ", "- [", "\n", "*", "(b "])
def test_time_and_memory_do_not_grow_with_the_text(kind: str) -> None:
    """The work for a character is bounded, since it sees no more than a bounded piece."""
    splitter, held = SentenceSplitter(), 0
    for _ in range(100_000 // len(kind)):
        splitter.feed(kind)
        held = max(held, len(splitter._text))
    assert held <= 240
