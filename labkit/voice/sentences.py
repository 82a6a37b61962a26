"""Where the language model's text is cut, so that the voice can begin before it is all written.

The synthesiser speaks piece by piece, and the first piece is what the listener waits for. Text
comes in deltas of any size and is looked at character by character, so the cuts depend on the
text alone. A cut waits for the first letter behind it at most, since only that tells "3." from
"3.5"; where the capital after an abbreviation leaves it open, for the word behind it.

=================  ==========================================================================
a piece ends       rule
=================  ==========================================================================
at a sentence end  at `.`, `!`, `?` or `…` with the quotation marks, brackets and markup behind
                   it, before a space. "Hello.How" and "So?I" have an end, too: letters or a figure
                   before the mark, behind it a capital and a small letter, or "I" alone.
  but not          behind titles with their capital ("Dr."), "e.g.", "vs." and the like; behind
                   "No." and months before a figure; behind initials and other abbreviations
                   ("J.", "U.S.", "p.m.", "etc."), unless a word follows that begins sentences
                   ("U.S. The", and behind "p.m." any with a capital but "Monday", "May", "Eastern"
                   and the like); where a small letter follows an ellipsis or a quotation ('"Stop!"
                   he said').
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

Code between fences (three backticks or tildes), what a model says that it thinks (`<think>`), and
what has 240 characters without a space, is cut off line by line and marked as not for the ear; so
is a block of code that never ends. Words behind a fence that closes, on its own line, are text.
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
_SPACE: Final = " "

_END: Final = re.compile(r"""([.!?…]+)(["'”’)\]*_`~]*)$""")
_GLUED: Final = re.compile(r"""((?:[A-Za-z][a-z]|\d)[.!?]+)["'”’)*_]*[A-Z]$""")
_ADDRESS: Final = re.compile(r"://|@|www\.|[/`\\]")
_INITIALS: Final = re.compile(r"(?:[A-Za-z]{1,2}\.){2,}|[A-Z]\.")
_NUMBER: Final = re.compile(r"[#>*_+\s-]*(\d{1,3}[.)])[*_]*")
_APOSTROPHE: Final = re.compile("['’]")
_ITEM: Final = re.compile(r"\s*(?:[-+*•–>]|\w{1,3}[.)])\s")
_QUOTES: Final = frozenset("\"'”’)]")
_OPENING: Final = "\"'“‘([*_`~"

_TITLES: Final = frozenset(
    "mr. mrs. dr. Ms. Prof. St. Mt. Gen. Sen. Rep. Rev. Gov. Capt. Lt. Col. Sgt. Fig. Vol. "
    "Apt. vs. e.g. i.e. pp. cf. sq. cu.".split()
)
"""A sentence never ends behind these. "Ms." is a title, but "20 ms." may end one."""
_BEFORE_FIGURES: Final = frozenset(
    "no. nos. jan. feb. mar. apr. jun. jul. aug. sep. sept. oct. nov. dec. p. ch. sec. sect. eq. "
    "ca. est.".split()
)
_MAYBE: Final = frozenset(
    "etc. inc. ltd. co. corp. jr. sr. ave. blvd. rd. mon. tue. tues. wed. thu. thurs. fri. "
    "hr. hrs. min. max. sec. tbsp. tsp. oz. lb. lbs. ft. approx. dept. "
    "apt. vol. fig. al.".split()
)
_STARTERS: Final = frozenset(
    "a an the this that these those it its he she we you they i there here let don what in on at "
    "for from with by to and but or so yet also as if when while after before since because "
    "however then now today yes no not what who where why how is are was can do does let my your "
    "his her our their one some most many all each both another please would could should have has "
    "had will did were remember make try thank any every its without during until although once "
    "there's overall additionally finally first next".split()
)
"""Words that show by their capital that a sentence begins, not that they are names."""
_BEHIND_TIMES: Final = frozenset(
    "monday tuesday wednesday thursday friday saturday sunday january february march april may "
    "june july august september october november december eastern central mountain pacific".split()
)
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
        self._fence = ""  # what ends the code that is being left out; _SPACE after a long run
        self._doubt: int | None = None

    def feed(self, text: str) -> list[Cut]:
        """Take the next text, give the pieces that it completed."""
        for character in text:
            if self._fence:
                self._take_code(character)
            else:
                self._take(character)
        return self._given()

    def flush(self) -> list[Cut]:
        """Give what is left at the end of the text."""
        if self._fence:
            self._end_code("")
        else:
            self._settle_doubt()
            self._begin_code()
        mute = bool(self._fence)
        self._cut(len(self._text), ends_line=not mute, mute=mute)
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

    def _begin_code(self) -> None:
        """Cut before a fence, if one opens in the last line."""
        body = self._text.rstrip()
        if self._at_line_start and (found := _OPENS.match(body)):
            self._fence = found[1]
        elif found := _OPENS_BEHIND.search(body):
            if found[2] or body[: found.start()].rstrip().endswith(":"):
                self._fence = found[1]
                self._cut(found.start(), ends_line=True)

    def _take_code(self, character: str) -> None:
        self._text += character
        if character.isspace() or character == ">":
            self._end_code(character)
        if self._fence and character == "\n":
            self._cut(len(self._text), mute=True)
        elif self._fence and len(self._text) >= _LONGEST:
            self._cut(len(self._text) - len(self._fence), mute=True)

    def _end_code(self, last: str) -> None:
        """Go on with what is behind the marks that close, if they are there.

        Args:
            last: The character that came last; empty at the end of the text.
        """
        at = self._closed_at(line_over=last in ("\n", ""))
        if at is not None:
            self._fence, rest = "", self._text[at:]
            self._text = self._text[:at]
            self._cut(at, mute=True)
            for character in rest:
                self._take(character)

    def _closed_at(self, *, line_over: bool) -> int | None:
        """Where the marks end that close the code, if they are there."""
        if self._fence == _SPACE:
            return len(self._text) - 1 if self._text[-1:].isspace() else None
        if self._fence.startswith("<"):
            at = self._text.find(self._fence)
            return None if at < 0 else at + len(self._fence)
        found = _CLOSES.match(self._text) if self._at_line_start else None
        if found and found[1].startswith(self._fence):
            behind = self._text[found.end() :].strip()
            if not behind:
                return len(self._text) if line_over else None
            # One word alone names the language of a block inside this one.
            return None if line_over and _LANGUAGE.fullmatch(behind) else found.end()
        return len(self._text) if line_over and self._text.rstrip().endswith(self._fence) else None

    def _take(self, character: str) -> None:
        if self._is_glued(character):
            self._cut(len(self._text) - 1, ends_line=True)
        if character.isspace():
            self._settle_doubt()
            self._text += character
            if character == "\n":
                self._line_over()
        else:
            if not self._text or self._text[-1].isspace():
                self._word_begins(character)
            self._text += character
        if character == ">" and self._at_line_start and self._text.strip() in _THOUGHTS:
            self._fence = self._text.strip().replace("<", "</")
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
            self._fence = _SPACE

    def _line_over(self) -> None:
        """Cut at once where the next line cannot go on with this one."""
        self._begin_code()
        body = self._text.rstrip()
        if self._fence:
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
        if _is_title(bare) or (lower in _BEFORE_FIGURES and first.isdigit()):
            return True
        if lower in _MAYBE or _INITIALS.fullmatch(bare):
            self._doubt = len(self._text)
            return True
        return bare.title() in _TITLES and (first.islower() or first.isdigit())

    def _settle_doubt(self) -> None:
        """A word is whole: does it show that the abbreviation before it ended a sentence?"""
        if self._doubt is None:
            return
        word = self._text[self._doubt :].strip(_OPENING + ".,;:!?)]”’")
        lower = _APOSTROPHE.split(word.lower())[0]
        begins = lower in _STARTERS
        if self._text[: self._doubt].rstrip(_OPENING + ")]”’ ").lower().endswith((" a.m.", "p.m.")):
            begins = not word.isupper() and lower not in _BEHIND_TIMES
        if word[:1].isupper() and begins:
            self._cut(self._doubt, ends_line=True)
        self._doubt = None

    def _is_glued(self, character: str) -> bool:
        """Whether a sentence ended just before the capital that came last."""
        last = self._text[-1:]
        if not (last.isupper() and character.islower()) and not (
            last == "I" and character in " '’"
        ):
            return False
        word = self._text.rsplit(None, 1)[-1]
        found = _GLUED.search(word)
        title = found is not None and _is_title(word[: found.end(1)].lstrip(_OPENING))
        return found is not None and not title and not _ADDRESS.search(word)

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


def _is_title(word: str) -> bool:
    return word in _TITLES or word.lower() in _TITLES


def _belong(word: str, first: str) -> bool:
    """Whether a word and the one that begins with `first` make a name or a figure together."""
    bare = word.strip(_OPENING + ",;:—–)]”’")
    if first.isdigit():
        return bare[-1:].isdigit() or bare[:1].isupper()
    return first.isupper() and bare[:1].isupper()


_OPENS: Final = re.compile(r"(?:\s|>|[-*+]\s|\d{1,3}[.)]\s)*(`{3,}(?=[^`]*$)|~{3,})")
_OPENS_BEHIND: Final = re.compile(r"(?<!`)(`{3,})([\w+#-]*)$")
"""Behind words on their line; these marks may also close there, so more has to speak for it."""
_CLOSES: Final = re.compile(r"[>\s]*(`{3,}|~{3,})")
_LANGUAGE: Final = re.compile(r"[\w+#-]+")
_THOUGHTS: Final = frozenset(("<think>", "<thinking>", "<thought>", "<reasoning>"))
"""What models write before what they think; behind it, they write the same with a slash."""
