"""Cut the language model's text into sentences while it comes in, and make them speakable.

The synthesiser speaks sentence by sentence, so the first whole sentence is what the listener
waits for. General chat models write for the eye: lists, headings, bold words, links, code. Read
aloud as it stands, "**Five** minutes" has four asterisks in it; so markup goes, words stay, and
blocks of code, which nobody can follow by ear, are left out.
"""

import re
import unicodedata
from typing import Final

__all__ = ["SentenceSplitter", "speakable"]

_END: Final = re.compile(r"""[.!?…]+["')\]*_`]*\s+|\n+""")
_ABBREVIATIONS: Final = frozenset(("mr.", "mrs.", "ms.", "dr.", "prof.", "vs.", "e.g.", "i.e."))

_NUMBER: Final = re.compile(r"\s*\d+[.)][^\S\n]+")
"""The number before an item of a list."""
_LINE_START: Final = re.compile(r"\s*(?:(?:#{1,6}|>|[-+*•])\s+)+")
"""Signs of headings, quotations and lists."""
_FENCE: Final = re.compile(r"\s*(?:```|~~~)")
_LINK: Final = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
_ADDRESS: Final = re.compile(r"https?://(?:www\.)?([^\s/)>\]]+)[^\s)>\]]*")
_TAG: Final = re.compile(r"</?[a-zA-Z][^<>]*>")
_EMPHASIS: Final = re.compile(r"[*_`~]{2,}|`|(?<!\s)[*_](?!\w)|(?<!\w)[*_](?!\s)")
"""Signs around bold, slanted and typed words; not those between numbers, as in "2 * 3"."""
_CELLS: Final = re.compile(r"\s*\|\s*")
_SPOKEN_SIGNS: Final = frozenset("°©®™")
_NO_SOUND: Final = frozenset(("So", "Sk", "Cf", "Cc", "Cs", "Co", "Cn"))
"""Unicode categories of pictures, joiners and what is no letter at all."""


class SentenceSplitter:
    """Collects pieces of text and gives back whole sentences, without markup.

    A sentence is whole once the white space behind its full stop was seen, since only that
    tells "3." from "3.5".
    """

    def __init__(self) -> None:
        self._text = ""
        self._at_line_start = True
        self._lines = 0
        self._in_code = False

    def feed(self, piece: str) -> list[str]:
        """Take the next piece of text, give the sentences that it completed."""
        self._text += piece
        sentences: list[str] = []
        searched = 0
        while end := _END.search(self._text, searched):
            if self._goes_on(end):
                searched = end.end()
                continue
            sentences.append(self._take(end.end(), line_ends="\n" in end.group()))
            searched = 0
        return [sentence for sentence in sentences if sentence]

    def flush(self) -> list[str]:
        """Give what is left at the end of the text, as a last sentence."""
        rest = self._take(len(self._text), line_ends=False)
        return [rest] if rest else []

    def _goes_on(self, end: re.Match[str]) -> bool:
        """Whether the full stop is that of an abbreviation, or of a number before an item."""
        if self._at_line_start and _NUMBER.fullmatch(self._text, 0, end.end()):
            return True
        words = self._text[: end.end()].split()
        return bool(words) and words[-1].lower() in _ABBREVIATIONS

    def _take(self, end: int, *, line_ends: bool) -> str:
        """Cut off the text before `end`; gives what of it can be spoken."""
        raw, self._text = self._text[:end], self._text[end:]
        at_line_start, lines = self._at_line_start, self._lines
        self._at_line_start = line_ends
        self._lines += line_ends
        if at_line_start and _FENCE.match(raw):
            self._in_code = not self._in_code
            return ""
        if self._in_code:
            return ""
        # A reply may begin with a number that is the answer: "5. That is all." Only where there
        # are several lines is it the number of an item.
        if at_line_start and (lines or line_ends):
            raw = _NUMBER.sub("", raw, count=1) if _NUMBER.match(raw) else raw
        return speakable(raw, at_line_start=at_line_start)


def speakable(text: str, *, at_line_start: bool = True) -> str:
    """`text` without markup; empty where no word is left.

    Args:
        text: A sentence as a language model wrote it.
        at_line_start: Whether a line begins with it, where signs of lists and headings stand.
    """
    if at_line_start:
        text = _LINE_START.sub("", text, count=1) if _LINE_START.match(text) else text
    text = _ADDRESS.sub(r"\1", _LINK.sub(r"\1", text))
    text = _EMPHASIS.sub("", _TAG.sub(" ", text))
    text = _CELLS.sub(", ", text.strip(" |\n")) if "|" in text else text
    text = "".join(one for one in text if one in "\n\t" or _has_sound(one))
    words = " ".join(text.split())
    return words if any(one.isalnum() for one in words) else ""


def _has_sound(character: str) -> bool:
    return character in _SPOKEN_SIGNS or unicodedata.category(character) not in _NO_SOUND
