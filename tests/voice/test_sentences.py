"""Sentences out of pieces of text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.voice.sentences import SentenceSplitter


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


def test_a_sentence_is_whole_only_after_the_space_behind_it() -> None:
    splitter = SentenceSplitter()
    assert splitter.feed("It is 3.") == []
    assert splitter.feed("5 s long. ") == ["It is 3.5 s long."]


@given(st.text(alphabet="ab .!?\n3", max_size=60), st.data())
def test_where_the_pieces_are_cut_does_not_matter(text: str, data: st.DataObject) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=5).map(sorted))
    edges = [0, *cuts, len(text)]
    pieces = [text[a:b] for a, b in zip(edges, edges[1:], strict=False)]
    whole = split(text)
    assert "".join("".join(split(*pieces)).split()) == "".join(text.split())
    assert "".join("".join(whole).split()) == "".join(text.split())
