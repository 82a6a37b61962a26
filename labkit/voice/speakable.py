r"""What of a language model's text is spoken, and how, while the text comes in.

General chat models write for the eye. Read as it stands, "**Five** minutes" has four asterisks in
it. So each piece of the text goes two ways: it is *shown* as the model wrote it, and *spoken* as
this module reads it. `SentenceSplitter` cuts, `normalise` writes out figures and abbreviations;
here goes what is for the eye alone. Each piece is read by itself: nothing waits for a closing
mark, and a mark whose partner is in another piece is taken away all the same.

===================  ========================================================================
written              spoken
===================  ========================================================================
emphasis, headings,  the words; numbers and bullets of a list go, and a line without a mark at
lists, quotations    its end gets a full stop. "1." alone is a list's number on the first line.
tables               cell after cell, with commas; the row of dashes not at all
code in fences       nothing; `code` in a line as its words
links, pictures      the text, not the address; "[1]" and "[^1]" not at all
addresses            of a page the host, "example dot org"; of mail "user at example dot com"
formulas             LaTeX's fractions, roots and products in words, its signs not at all
HTML                 entities as what they stand for, tags and comments not at all
emoji, emoticons     nothing
other scripts        nothing: of other letters than Latin and Greek ones an English voice says
                     "Chinese letter", one by one. Letters in bold, wide, in circles as such
stage directions     nothing: *smiles*, (laughs softly), [clears throat]
brackets             what is in them; in round ones between commas; "file(s)" as "files"
dashes, ellipses     a comma
signs of markup      nothing is left of `* _ # | < > ~ ^ = @ $ \ ( ) [ ] { }` and backticks
long runs            nothing: what has more than 64 characters without a space is no word
===================  ========================================================================
"""

import html
import re
import unicodedata
from dataclasses import dataclass
from typing import Final

from labkit.voice.normalisation import Match, Rule, applied, normalise, rule
from labkit.voice.sentences import Cut, SentenceSplitter

NOTHING_TO_SAY: Final = "There is nothing in this answer that can be read aloud."
"""What is spoken where nothing else of a reply can be."""

_MOST_SHOWN: Final = 1000
"""Characters without anything to say, such as lines of code, that are shown together."""
_ENDED: Final = re.compile(r"""[.!?…]["'”’)*_]*\s*$""")


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a reply."""

    shown: str
    """As the model wrote it; all of them together are the text."""
    spoken: str
    """What the voice reads; empty where nothing of it is for the ear."""


class SpeakableText:
    """Takes a model's text as it comes, gives pieces to show and to speak.

    However the text is split into deltas, the pieces are the same. What has nothing to say is
    shown with the next piece that has.
    """

    def __init__(self) -> None:
        self._splitter = SentenceSplitter()
        self._shown = ""
        self._spoke = False

    def feed(self, delta: str) -> list[Piece]:
        """Take the next text, give the pieces that it completed."""
        return self._pieces(self._splitter.feed(delta))

    def flush(self) -> list[Piece]:
        """Give what is left at the end; where nothing was said so far, a sentence that says so."""
        pieces = self._pieces(self._splitter.flush())
        if not self._spoke:
            pieces.append(self._piece(NOTHING_TO_SAY))
        elif self._shown:
            pieces.append(self._piece(""))
        return pieces

    def cut(self) -> list[Piece]:
        """Give what is left where the model was stopped.

        A sentence that it was writing is left out, unless nothing was said before it.
        """
        spoke = self._spoke
        return [piece for piece in self.flush() if not spoke or _ENDED.search(piece.shown)]

    def _pieces(self, cuts: list[Cut]) -> list[Piece]:
        pieces = []
        for cut in cuts:
            self._shown += cut.text
            said = spoken(cut)
            if said or len(self._shown) >= _MOST_SHOWN:
                pieces.append(self._piece(said))
        return pieces

    def _piece(self, said: str) -> Piece:
        piece = Piece(self._shown, said)
        self._shown = ""
        self._spoke = self._spoke or bool(said)
        return piece


def spoken(cut: Cut) -> str:
    """What the voice reads of a piece; empty where no word is left."""
    if cut.mute:
        return ""
    words = _in_words(_without_line_start(cut) if cut.at_line_start else cut.text)
    if not any(map(str.isalnum, words)):
        return ""
    return words if not cut.ends_line or words[-1] in ".!?:;,\"')" else words + "."


def _in_words(text: str) -> str:
    text = html.unescape(applied(_ADDRESSES, text))
    text = applied(_REMARKS, "".join(map(_plain, text)).replace("’", "'"))
    text = text.strip(" \t\n|").replace("|", ", ")
    text = normalise(_EMPHASIS.sub("", "".join(filter(_has_sound, text))))
    return " ".join(applied(_PAUSES, text).split()).lstrip(",;:.!? ")


_LINE_START: Final = re.compile(r"\s*(?:(?:#{1,6}|>|[-+*•])\s+(?:\[[ xX]\]\s+)?)+")
_ITEM: Final = re.compile(r"\s*[*_]*(\d{1,3}[.)])[*_]*\s+")
_DEFINITION: Final = re.compile(r"\s*\[[^\]]+\]:\s*(?:<|https?:|www\.|[/#])\S*")


def _without_line_start(cut: Cut) -> str:
    text = _DEFINITION.sub("", cut.text, count=1)
    if start := _LINE_START.match(text):
        text = re.sub(r"\s#+\s*$", "", text[start.end() :])
    item = _ITEM.match(text)
    if item and (not cut.on_first_line or item[1] in ("1.", "1)")):
        text = text[item.end() :]
    return text


_PLACE: Final = r"\((?:[^()\s]|\([^()\s]*\))*(?:\s+\"[^\"]*\")?\)?"
"""Where a link leads to; there may be brackets in it, and it may not be closed."""
_TRAILING: Final = ".,;:!?)'\""


def _host(found: Match) -> str:
    """The host, and what the sentence puts behind the address."""
    whole = found[0].rstrip(">")
    behind = whole[len(whole.rstrip(_TRAILING)) :]
    return _dotted(found[1].rstrip(".")) + behind


def _mail(found: Match) -> str:
    return f"{_dotted(found[1].replace('_', ' underscore '))} at {_dotted(found[2])}"


def _dotted(name: str) -> str:
    return name.replace(".", " dot ")


_TAG_NAME: Final = (
    "a|abbr|article|audio|b|blockquote|body|br|button|center|code|dd|del|details|div|dl|dt|em|"
    "figure|font|footer|form|h[1-6]|head|header|hr|html|i|iframe|img|input|ins|kbd|label|li|link|"
    "main|mark|meta|nav|ol|option|p|pre|q|s|script|section|select|small|source|span|strong|style|"
    "sub|summary|sup|svg|table|tbody|td|textarea|tfoot|th|thead|think|title|tr|tt|u|ul|video|speak"
)
"""Only these are tags, and what closes one or has attributes; "<your name>" is to be said."""
_ADDRESSES: Final[tuple[Rule, ...]] = (
    rule(r"<!--.*?(?:-->|$)", " ", re.DOTALL),
    rule(r"\s?(?<!\])(?:\[\^?\d+\])+(?:\([^)\s]*\))?|【[^】]*】?", ""),
    rule(rf"!?\[([^\]]*)\](?:{_PLACE}|\[[^\]]*\])", r"\1"),
    rule(rf"\]{_PLACE}", ""),
    rule(r"<?(?:mailto:)?([\w.+-]+)@((?:[\w-]+\.)+[A-Za-z]{2,})>?", _mail),
    rule(r"<?\b(?:https?|ftp|wss?)://(?:www\.)?([\w.-]+)[^\s<>\]\"]*>?", _host),
    rule(
        r"(?<![\w.@/-])(?:www\.)?"
        r"((?:[\w-]+\.)+(?:com|org|net|edu|gov|io|ai|dev|app|info|co\.uk|eu|de|fr|nl|ch))\b"
        r"(?:/[^\s<>\]\")]*)?",
        _host,
    ),
    rule(
        rf"<(?:{_TAG_NAME})(?:\s[^<>]*)?/?>|<(?:{_TAG_NAME})\s+[\w:-]+=[^<>]*$|<!DOCTYPE[^>]*>"
        r"|</[a-z][\w:-]*\s*>"
        r"|<[a-z][\w:-]*(?:\s+[\w:-]+=(?:\"[^\"<>]*\"|'[^'<>]*'))+\s*/?>|<\|\w+\|>",
        " ",
        re.IGNORECASE,
    ),
)

_ACTS: Final = (
    "smiles|smiling|laughs|laughing|chuckles|chuckling|giggles|giggling|grins|grinning|sighs|"
    "sighing|nods|nodding|shrugs|shrugging|winks|winking|waves|waving|bows|blushes|coughs|gasps|"
    "whispers|whispering|pauses|pausing|clears|leans|tilts|raises|scratches|yawns|sniffs|gulps|"
    "cries|crying|sobs|sobbing|beams|claps|clapping|looks|takes|rubs|rolls|hugs|cheers|adjusts|"
    "bounces|blinks|blushing|gestures|glances|hums|humming|mutters|mumbles|nudges|points|shakes|"
    "shivers|sips|sipping|smirks|smirking|snickers|stretches|turns|beat"
)
_ACT: Final = (
    rf"(?:\w+ly )?(?:{_ACTS})(?: (?:\w+ly|and|at|up|down|around|away|back|forward|with|in|to|a|an|"
    rf"the|deep|big|breath|his|her|their|its|my|head|hand|hands|throat|eye|eyes|eyebrow|chin|"
    rf"shoulders|you|user|camera|closer|softly|sip|of|coffee|tea|water|glasses|hair|toward|towards|"
    rf"to|herself|himself|itself|{_ACTS})){{0,8}}[.!]?"
)
"""What somebody does who speaks. Only these words, so that no other remark is taken for one."""
_SIGNS: Final = {
    "times|cdot": "times",
    "div": "divided by",
    "pm": "plus or minus",
    "leq?": "at most",
    "geq?": "at least",
    "neq": "is not equal to",
    "approx": "about",
}
_OVER: Final = rule(r"\\d?frac\{([^{}]*)\}\{([^{}]*)\}", r"\1 over \2")
_REMARKS: Final[tuple[Rule, ...]] = (
    # What of LaTeX is common in answers; a fraction may hold another one, or a root.
    rule(r"\${1,2}([^$]*(?:[=\\^_{+<>]| - )[^$]*)\${1,2}(?!\d)|\\[()\[\]]", r"\1"),
    rule(r"\\(?:boxed|text|textbf|mathrm|mathbf)\{([^{}]*)\}", r"\1"),
    _OVER,
    rule(r"\\sqrt\{([^{}]*)\}", r"the square root of \1"),
    _OVER,
    *(rule(rf"\\(?:{sign})\b", f" {words} ") for sign, words in _SIGNS.items()),
    # A power as programs write it, which would look like emphasis.
    rule(r"((?<![\w*])(?:\d+|[A-Za-z])|\))(?:\*\*| \*\* )(?=-?\d)", r"\1^"),
    rule(r"(?<!\w)==(?=\w)([^=]+)(?<=\w)==(?!\w)", r"\1"),
    rule(
        # In "he *laughs*" it is a part of the sentence.
        r"(\b(?:he|she|it|they|who|that|one|and|everyone|nobody) )?"
        rf"[*_]{{1,2}}{_ACT}[*_]{{1,2}}(?!\s+(?-i:[a-z]))"
        rf"|[(\[]\s?(?:{_ACT}|laughter\.?|applause\.?|music\.?|silence\.?|pause\.?)\s?[)\]]",
        lambda found: found[0] if found[1] else "",
        re.IGNORECASE,
    ),
    rule(
        r"(?<!\S)(?:[:;=8][-o'^]?[)(DPpOo/\\|]|<3|[xX]D|\^_\^|T_T|¯\\{0,2}_\(ツ\)_/¯)"
        r"(?=\s|[.!?,]|$)",
        "",
    ),
)
_EMPHASIS: Final = re.compile(
    r"[*_`~]{2,}|`|(?<![^\s`])--+(?=\w)|(?<!\s)[*_](?!\w)|(?<!\w)[*_](?!\s)"
)
_PAUSES: Final[tuple[Rule, ...]] = (
    rule(r"(?<=[a-z])\((e?s|ies|e?d|er|)\)", r"\1"),
    # Brackets of a function or a sum: nobody pauses there.
    rule(r"(?<=\w)[(]|(?<=equals) [(]|(?<=times) [(]|(?<=minus) [(]|(?<=\+) [(]", " "),
    rule(
        r"\s*\)(?=\s+\w)(?!\s+(?:equals|times|minus|divided by|is|squared|cubed|to the power)\b)",
        ",",
    ),
    rule(r"(?<=\S)\s+\(\s*", ", "),
    rule(
        r"\s*(?:—|(?<!\w)–(?!\w)|(?<=\w)–(?=[A-Za-z])|(?<![-\w])--+(?!\w)|(?<=\w)--+(?=\w)"
        r"|(?:^|(?<=\s))-(?=\s))\s*",
        ", ",
    ),
    rule(r"\s*(?:\.{2,}|…)(?=[,;:!?])", ""),
    rule(r"\s*(?:\.{2,}|…)\s*(?=\w)", ", "),
    rule(r"\s*(?:\.{2,}|…)", "."),
    rule(r"[*_#|<>`~^=@$→⇒←\\()\[\]{}]+", " "),
    rule(r"\S{65,}", ""),
    rule(r"(?<=[.,:;!?])(?:\s*,)+", ""),
    rule(r"[\s,]+(?=[.!?;:](?![\w/]))|\s+(?=,)", ""),
)
_KEPT: Final = frozenset("°©®™№♭\n\t^`")
_SHOWN_OTHERWISE: Final = tuple("<font> <wide> <narrow> <circle> <square> <sub> <compat>".split())
"""Unicode's words for it. Raised figures and fractions have a meaning of their own."""
_NO_SOUND: Final = frozenset(("So", "Sk", "Cf", "Cc", "Cs", "Co", "Cn", "Me"))
"""Unicode categories of pictures, joiners and what is no letter at all."""


def _plain(character: str) -> str:
    """A letter that is only shown in another way, or several in one sign, as it is read."""
    decomposed = unicodedata.decomposition(character)
    if character in _KEPT or not decomposed.startswith(_SHOWN_OTHERWISE):
        return character
    plain = unicodedata.normalize("NFKC", character)
    # Signs such as the double prime or the macron have their own meaning, too.
    return plain if decomposed.startswith("<wide>") or any(map(str.isalnum, plain)) else character


def _has_sound(character: str) -> bool:
    if character in _KEPT:
        return True
    if "\u0400" <= character < "\u1e00" or character >= "\u2e80":
        return False
    return unicodedata.category(character) not in _NO_SOUND
