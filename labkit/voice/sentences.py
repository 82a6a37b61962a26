"""Where the language model's text is cut, so that the voice can begin before it is all written.

The synthesiser speaks piece by piece, and the first piece is what the listener waits for. Text
comes in deltas of any size and is looked at character by character, so the cuts depend on the
text alone. A cut waits for the first letter behind it at most, since only that tells "3." from
"3.5"; where the capital after an abbreviation leaves it open, for the word behind it.

=================  ==========================================================================
a piece ends       rule
=================  ==========================================================================
at a sentence end  at `.`, `!`, `?` or `…` with the quotation marks, brackets and markup behind
                   it, before a space. "Hello.How" has an end, too: small letters or a figure
                   before the mark, a capital and a small letter behind it.
  but not          behind titles and the like ("Dr.", "e.g.", "vs."); behind "No." and months
                   before a figure; behind initials and other abbreviations ("J.", "U.S.",
                   "p.m.", "etc."), unless a word follows that begins sentences ("U.S. The");
                   where a small letter follows an ellipsis or a quotation ('"Stop!" he said').
at a line's end    at an empty line, behind a mark of punctuation, and before anything but a
                   small letter: a line that goes on in small letters was merely wrapped. An item
                   of a list ends with its line.
at a clause        from 32 characters of the first piece on, at a comma, a semicolon, a colon
                   or a dash; from 64 on, before a conjunction. In later pieces from 120 on:
                   an engine's memory grows with the longest sentence that it ever spoke.
  but not          between two figures ("May 6, 2024", "5 and 10"), between two words with
                   capitals ("Paris, France", "Tom and Jerry"), and inside brackets.
at a word          at 240 characters, 16 s of speech, whatever they are.
=================  ==========================================================================

Code between fences (three backticks or tildes), and what has 240 characters without a space, is
cut off line by line and marked as not for the ear; so is a block of code that never ends.
"""

import re
from dataclasses import dataclass
from typing import Final

_FIRST_CLAUSE: Final = 32
"""Characters from which on the first piece may end at a clause: 2 s of speech, in which the next
piece is written and spoken."""
_FIRST_CONJUNCTION: Final = 64
_LATER_CLAUSE: Final = 120
_LONGEST: Final = 240

_END: Final = re.compile(r"""([.!?…]+)(["'”’)\]*_`~]*)$""")
_GLUED: Final = re.compile(r"""(?:[a-z]{2}|\d)[.!?]+["'”’)*_]*[A-Z]$""")
_ADDRESS: Final = re.compile(r"://|@|www\.|[/`\\]")
_INITIALS: Final = re.compile(r"(?:[A-Za-z]{1,2}\.){2,}|[A-Z]\.")
_NUMBER: Final = re.compile(r"[#>*_+\s-]*(\d{1,3}[.)])[*_]*")
_APOSTROPHE: Final = re.compile("['’]")
_ITEM: Final = re.compile(r"\s*(?:[-+*•–>]|\w{1,3}[.)])\s")
_QUOTES: Final = frozenset("\"'”’)]")
_OPENING: Final = "\"'“‘([*_`~"

_TITLES: Final = frozenset(
    "mr. mrs. ms. dr. prof. st. mt. gen. sen. rep. rev. gov. capt. lt. col. sgt. vs. e.g. i.e. "
    "approx. fig. vol. pp. cf. al. est. dept.".split()
)
"""A sentence never ends behind these."""
_BEFORE_FIGURES: Final = frozenset(
    "no. nos. jan. feb. mar. apr. jun. jul. aug. sep. sept. oct. nov. dec. p. ch. sec.".split()
)
_MAYBE: Final = frozenset(
    "etc. inc. ltd. co. corp. jr. sr. ave. blvd. rd. mon. tue. tues. wed. thu. thurs. fri. "
    "hr. hrs. min. max. sec. tbsp. tsp. oz. lb. lbs. ft.".split()
)
_STARTERS: Final = frozenset(
    "a an the this that these those it its he she we you they i there here let don what in on at "
    "for from with by to and but or so yet also as if when while after before since because "
    "however then now today yes no not what who where why how is are was can do does let my your "
    "his her our their one some most many all each both another please".split()
)
"""Words that show by their capital that a sentence begins, not that they are names."""
_CONJUNCTIONS: Final = frozenset(
    "and but or because so while although though which whereas since when if until unless".split()
)
_BOUND: Final = _CONJUNCTIONS | frozenset("as even only than both not just".split())
"""Words that a conjunction belongs to: "even if", "and when", "as though"."""


@dataclass(frozen=True, slots=True)
class Cut:
    """A piece of the model's text, as the model wrote it; all of them together are the text."""

    text: str
    """The piece, with the white space behind it."""
    at_line_start: bool = False
    """A line begins with it, so marks of lists and headings may stand there."""
    on_first_line: bool = False
    """No line of the text ended before it."""
    ends_line: bool = False
    """It is not merely a clause: nothing follows it in its sentence."""
    mute: bool = False
    """Code, or another run of characters that is not for the ear."""


class SentenceSplitter:
    """Collects text and gives back pieces to speak. What it holds is bounded by `_LONGEST`."""

    def __init__(self) -> None:
        self._text = ""
        self._cuts: list[Cut] = []
        self._at_line_start = True
        self._first_line = True
        self._spoken = False
        self._fence = ""
        self._in_run = False
        self._doubt: int | None = None

    def feed(self, text: str) -> list[Cut]:
        """Take the next text, give the pieces that it completed."""
        for character in text:
            if self._fence:
                self._take_code(character)
            elif self._in_run:
                self._take_run(character)
            else:
                self._take(character)
        return self._given()

    def flush(self) -> list[Cut]:
        """Give what is left at the end of the text."""
        if self._fence or self._in_run:
            self._cut(len(self._text), mute=True)
        else:
            self._settle_doubt()
            if _fence(self._text, self._at_line_start):
                self._cut(len(self._text), mute=True)
            self._cut(len(self._text), ends_line=True)
        return self._given()

    def _given(self) -> list[Cut]:
        given, self._cuts = self._cuts, []
        return given

    def _cut(self, at: int, *, ends_line: bool = False, mute: bool = False) -> None:
        """Give the text before `at`, and go on with the rest."""
        text, self._text = self._text[:at], self._text[at:]
        self._doubt = None
        if not text:
            return
        self._cuts.append(Cut(text, self._at_line_start, self._first_line, ends_line, mute))
        self._spoken = self._spoken or (not mute and any(map(str.isalnum, text)))
        self._at_line_start = "\n" in text[len(text.rstrip()) :]
        self._first_line = self._first_line and "\n" not in text

    def _take_code(self, character: str) -> None:
        self._text += character
        if character == "\n":
            line = self._text.strip("> \t\r\n")
            closes = self._at_line_start and line.startswith(self._fence) and not line.strip("`~")
            self._cut(len(self._text), mute=True)
            self._fence = "" if closes else self._fence
        elif len(self._text) >= _LONGEST:
            self._cut(len(self._text), mute=True)

    def _take_run(self, character: str) -> None:
        """Leave out the rest of what is too long for a word."""
        if character.isspace():
            self._cut(len(self._text), mute=True)
            self._in_run = False
            self._take(character)
            return
        self._text += character
        if len(self._text) >= _LONGEST:
            self._cut(len(self._text), mute=True)

    def _take(self, character: str) -> None:
        if character.isspace():
            self._settle_doubt()
            self._text += character
            if character == "\n":
                self._line_over()
        else:
            if not self._text or self._text[-1].isspace():
                self._word_begins(character)
            elif self._is_glued(character):
                self._cut(len(self._text) - 1, ends_line=True)
            self._text += character
        if len(self._text) >= _LONGEST:
            self._cut_at_word()

    def _cut_at_word(self) -> None:
        body = self._text.rstrip()
        at = max(body.rfind(" "), body.rfind("\n")) + 1
        if len(body) < len(self._text):
            self._cut(len(self._text))
        elif at:
            self._cut(at)
        else:
            self._cut(len(self._text), mute=True)
            self._in_run = True

    def _line_over(self) -> None:
        """Cut at once where the next line cannot go on with this one."""
        body = self._text.rstrip()
        if fence := _fence(body, self._at_line_start):
            self._fence = fence
            self._cut(len(self._text), mute=True)
        elif not body or "\n" in self._text[len(body) : -1] or self._stands_alone(body):
            self._cut(len(self._text), ends_line=True)

    def _stands_alone(self, body: str) -> bool:
        last = body.rsplit("\n", 1)[-1].lstrip()
        return last.startswith(("#", "|")) or body.endswith((":", "|")) or bool(_END.search(body))

    def _word_begins(self, first: str) -> None:
        """Cut before the word that begins with `first`, or before the one before it."""
        body = self._text.rstrip()
        if not body:
            return
        if "\n" in self._text[len(body) :]:
            if not first.islower() or _ITEM.match(body.rsplit("\n", 1)[-1]):
                self._cut(len(self._text), ends_line=True)
            return
        words = body[-_LONGEST:].split()
        end = _END.search(words[-1])
        if end and self._is_sentence_end(body, words[-1], end, first):
            self._cut(len(self._text), ends_line=True)
        elif not end:
            self._cut_clause(body, words, first)

    def _is_sentence_end(self, body: str, word: str, end: re.Match[str], first: str) -> bool:
        marks, closing = end.groups()
        if self._at_line_start and (number := _NUMBER.fullmatch(body)):
            return self._first_line and number[1] != "1."
        if first.islower() and (marks in ("...", "…") or _QUOTES.intersection(closing)):
            return False
        return marks != "." or not self._is_abbreviated(word, first)

    def _is_abbreviated(self, word: str, first: str) -> bool:
        bare = word.lstrip(_OPENING).rstrip(_OPENING + ")]”’")
        lower = bare.lower()
        if lower in _TITLES or (lower in _BEFORE_FIGURES and first.isdigit()):
            return True
        if lower in _MAYBE or _INITIALS.fullmatch(bare):
            self._doubt = len(self._text)
            return True
        return False

    def _settle_doubt(self) -> None:
        """A word is whole: does it show that the abbreviation before it ended a sentence?"""
        if self._doubt is None:
            return
        word = self._text[self._doubt :].strip(_OPENING + ".,;:!?)]”’")
        if word[:1].isupper() and _APOSTROPHE.split(word.lower())[0] in _STARTERS:
            self._cut(self._doubt, ends_line=True)
        self._doubt = None

    def _is_glued(self, character: str) -> bool:
        """Whether a sentence ended just before the capital that came last."""
        if not (self._text[-1].isupper() and character.islower()):
            return False
        if not _GLUED.search(self._text[-16:]):
            return False
        return not _ADDRESS.search(self._text.rsplit(None, 1)[-1])

    def _cut_clause(self, body: str, words: list[str], first: str) -> None:
        if len(body) < (_LATER_CLAUSE if self._spoken else _FIRST_CLAUSE):
            return
        if any(body.count(a) > body.count(b) for a, b in ("()", "[]")) or body[0] in "|`~":
            return
        word, before = words[-1], words[-2] if len(words) > 1 else ""
        if word[-1] in ",;:—–" or word in ("-", "--"):
            if not _belong(word if word[-1] == "," else before, first):
                self._cut(len(self._text))
        elif word.lower() in _CONJUNCTIONS and len(body) >= _FIRST_CONJUNCTION:
            if before.lower() not in _BOUND and not _belong(before, first):
                self._cut(len(body) - len(word))


def _belong(word: str, first: str) -> bool:
    """Whether a word and the one that begins with `first` make a name or a figure together."""
    bare = word.strip(_OPENING + ",;:—–)]”’")
    if first.isdigit():
        return bare[-1:].isdigit() or bare[:1].isupper()
    return first.isupper() and bare[:1].isupper()


def _fence(line: str, at_line_start: bool) -> str:
    """The marks with which `line` opens a block of code; empty where it opens none."""
    found = _FENCE.match(line) if at_line_start else None
    return found[1] if found else ""


_FENCE: Final = re.compile(r"(?:\s|>|[-*+]\s|\d{1,3}[.)]\s)*(`{3,}(?=[^`]*$)|~{3,})")
