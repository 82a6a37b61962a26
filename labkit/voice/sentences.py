"""Cut the language model's text into sentences while it comes in.

The synthesiser speaks sentence by sentence, so the first whole sentence is what the listener
waits for.
"""

import re
from typing import Final

__all__ = ["SentenceSplitter"]

_END: Final = re.compile(r"[.!?…]+[\"')\]]*\s+|\n+")
_ABBREVIATIONS: Final = frozenset(("mr.", "mrs.", "ms.", "dr.", "prof.", "vs.", "e.g.", "i.e."))


class SentenceSplitter:
    """Collects pieces of text and gives back whole sentences.

    A sentence is whole once the white space behind its full stop was seen, since only that
    tells "3." from "3.5".
    """

    def __init__(self) -> None:
        self._text = ""

    def feed(self, piece: str) -> list[str]:
        """Take the next piece of text, give the sentences that it completed."""
        self._text += piece
        sentences: list[str] = []
        searched = 0
        while end := _END.search(self._text, searched):
            if self._abbreviated(end.end()):
                searched = end.end()
                continue
            sentences.append(self._text[: end.end()].strip())
            self._text, searched = self._text[end.end() :], 0
        return [sentence for sentence in sentences if sentence]

    def flush(self) -> list[str]:
        """Give what is left at the end of the text, as a last sentence."""
        rest, self._text = self._text.strip(), ""
        return [rest] if rest else []

    def _abbreviated(self, end: int) -> bool:
        words = self._text[:end].split()
        return bool(words) and words[-1].lower() in _ABBREVIATIONS
