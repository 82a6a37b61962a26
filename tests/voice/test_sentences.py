"""Sentences out of pieces of text, without what is only for the eye."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.voice.sentences import SentenceSplitter, speakable


def split(*pieces: str) -> list[str]:
    splitter = SentenceSplitter()
    found = [sentence for piece in pieces for sentence in splitter.feed(piece)]
    return found + splitter.flush()


@pytest.mark.parametrize(
    ("pieces", "sentences"),
    [
        (["Hello. How are you?"], ["Hello.", "How are you?"]),
        (["Hel", "lo", ". ", "Bye", "."], ["Hello.", "Bye."]),
        (["It takes 3.5 seconds. Good."], ["It takes 3.5 seconds.", "Good."]),
        (["Ask Dr. Lee. Or Mr. Poe."], ["Ask Dr. Lee.", "Or Mr. Poe."]),
        (['He said "stop!" Then he left.'], ['He said "stop!"', "Then he left."]),
        (["One\n\ntwo"], ["One", "two"]),
        (["Wait... what?! Yes"], ["Wait...", "what?!", "Yes"]),
        (["no end"], ["no end"]),
        (["", "  "], []),
    ],
)
def test_sentences(pieces: list[str], sentences: list[str]) -> None:
    assert split(*pieces) == sentences


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("**Five** minutes.", ["Five minutes."]),
        ("1. Open the lid.\n2. Press *start*.", ["Open the lid.", "Press start."]),
        ("You need:\n\n- milk\n* *two* eggs\n+ salt", ["You need:", "milk", "two eggs", "salt"]),
        ("# Answer\n\nIt is __here__.", ["Answer", "It is here."]),
        ("**Stop.** Then `go`.", ["Stop.", "Then go."]),
        ("> He said _yes_.", ["He said yes."]),
        ("Use this:\n```python\nprint('a. b')\n```\nDone.", ["Use this:", "Done."]),
        ("See [the page](https://a.org/b?c=d).", ["See the page."]),
        ("Go to https://www.example.org/a/b now.", ["Go to example.org now."]),
        ("| a | b |\n|---|:-:|\n| 1 | 2 |", ["a, b", "1, 2"]),
        ("Before.\n\n---\n\nAfter.", ["Before.", "After."]),
        ("So <b>bold</b><br>and new.", ["So bold and new."]),
        ("Well done! 🎉👍🏽 Bye 👩‍🚀.", ["Well done!", "Bye ."]),
        ("5.", ["5."]),
        ("5. That is all.", ["5.  That is all."]),
        ("It has 5. Or 6.", ["It has 5.", "Or 6."]),
        ("2 * 3 is 6, a_b is a name, 20 °C.", ["2 * 3 is 6, a_b is a name, 20 °C."]),
        ("Don't. \"Won't\" (can't).", ["Don't.", "\"Won't\" (can't)."]),
    ],
)
def test_markup_is_not_spoken(text: str, sentences: list[str]) -> None:
    wanted = [" ".join(sentence.split()) for sentence in sentences]
    assert split(text) == wanted
    assert split(*text) == wanted


def test_a_sentence_is_whole_only_after_the_space_behind_it() -> None:
    splitter = SentenceSplitter()
    assert splitter.feed("It is 3.") == []
    assert splitter.feed("5 s long. ") == ["It is 3.5 s long."]


@given(st.text(alphabet="ab .!?\n3", max_size=60), st.data())
def test_where_the_pieces_are_cut_does_not_matter(text: str, data: st.DataObject) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=5).map(sorted))
    edges = [0, *cuts, len(text)]
    pieces = [text[a:b] for a, b in zip(edges, edges[1:], strict=False)]
    words = [word for sentence in split(*pieces) for word in sentence.split()]
    assert [word for word in words if word.strip(".!?")] == [
        word for sentence in split(text) for word in sentence.split() if word.strip(".!?")
    ]


@given(st.text(max_size=80))
def test_any_text_is_speakable_or_nothing(text: str) -> None:
    for sentence in split(text):
        assert sentence == " ".join(sentence.split())
        assert any(character.isalnum() for character in sentence)


@given(st.text(alphabet="abc XYZ,.'", max_size=60))
def test_plain_words_stay_as_they_are(text: str) -> None:
    words = " ".join(text.split())
    assert speakable(text) == (words if any(c.isalnum() for c in words) else "")
