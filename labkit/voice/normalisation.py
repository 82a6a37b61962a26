"""What the voice would read wrongly, in words: text normalisation for American English.

Piper's voices read phonemes that espeak-ng makes of the text. It reads most things right: whole
and decimal numbers, "1,000", "5%", "3pm", acronyms, "1st" to "99th". Here is what it does not,
each with what it makes of it. A full stop inside a sentence ends it for Piper, with a pause and
another melody, so abbreviations are written out for that alone.

==============  =====================  ================================  =========================
what            written                espeak-ng                         here
==============  =====================  ================================  =========================
amounts         $5.50, $2M, €20        dollar five point five zero       5 dollars and 50 cents
ranges          5-10, 5–10 km          five dash ten; five ten           5 to 10
dates           2024-05-06, 5/6/2024   … dash zero five dash zero six    May sixth, 2024
days            May 6, Jan. 5          May six; Jan                      May sixth
years           in 1776, the 1990s     one thousand seven hundred …      seventeen seventy-six
times           14:05, 10:00, 5 am     fourteen zero five; five am       14 oh 5, 10 o'clock
ordinals        100th                  one hundred th                    one hundredth
telephones      555-1234, call 911     five hundred fifty five dash …    5 5 5, 1 2 3 4
units           5 km, 60 km/h, 6'2"    k m; k m slash h; six two         5 kilometers
fractions       1/2, 2½, 8/10          one slash two; two a half         one half, 2 and a half
quotients       8/2, c/d, km/hour      eight slash two                   8 over 2, c over d
ratios          16:9                   sixteen nine                      16 to 9
factors         100K, 3M               one hundred k                     100 thousand
versions        2.0.1, 10.0.0.1        two point zeropoint one           2 point 0 point 1
Roman numerals  World War II           roman two                         World War 2
abbreviations   Dr., e.g., No. 5       doctor (a sentence of its own)    doctor, for example
initials        J. K. Rowling, U.S.    three sentences                   J K Rowling, U S
signs           2 * 3, x^2, #1, a → b  asterisk; nothing; hash           2 times 3, x squared
slashes         he/she, TCP/IP         he slash she                      he or she, TCP IP
==============  =====================  ================================  =========================
"""

import re
import unicodedata
from collections.abc import Callable
from typing import Final

from num2words import num2words

Match = re.Match[str]
Rule = tuple[re.Pattern[str], str | Callable[[Match], str]]

_NUMBER: Final = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?"
_TO: Final = r"\s?[-–—]\s?"

_MONTHS: Final = (
    "January February March April May June July August September October November December"
).split()
_FULL_MONTH: Final = "|".join(_MONTHS)
_MONTH: Final = "|".join(f"{month}|{month[:3]}" for month in _MONTHS) + "|Sept"

_DAYS: Final = {
    day[:3]: day for day in "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
}
_DAY: Final = "(?:Mon|Tues?|Wed|Thu|Thurs?|Fri|Sat|Sun)"

_MICRO: Final = "\u00b5\u03bc"
"""The sign, and the Greek letter that the plain form of Unicode makes of it."""
_PREFIXES: Final = dict(
    zip("nmchkKMGT", "nano milli centi hecto kilo kilo mega giga tera".split(), strict=True)
) | dict.fromkeys(_MICRO, "micro")
_METRIC: Final = (
    ("m", "meter/s", ("", *"nmck", *_MICRO)),
    ("g", "gram/s", ("", *"mk", *_MICRO)),
    ("l", "liter/s", ("", *"mc")),
    ("L", "liter/s", ("", "m", *_MICRO)),
    ("s", "second/s", ("", *"nm", *_MICRO)),
    ("Hz", "hertz", ("", *"kMG")),
    ("B", "byte/s", "kKMGT"),
    ("bps", "bit/s per second", "kMG"),
    ("W", "watt/s", ("", *"kM")),
    ("Wh", "watt hour/s", "k"),
    ("V", "volt/s", ("",)),
    ("Ah", "amp hour/s", "m"),
    ("Pa", "pascal/s", "hk"),
    ("cal", "calorie/s", "k"),
)
"""Units with the prefixes that people write before them, and what the plural adds."""
_UNITS: Final = {
    prefix + unit: _PREFIXES.get(prefix, "") + words
    for unit, words, prefixes in _METRIC
    for prefix in prefixes
} | {
    "km/h": "kilometer/s per hour",
    "kph": "kilometer/s per hour",
    "mph": "mile/s per hour",
    "m/s": "meter/s per second",
    "m/s²": "meter/s per second squared",
    "m/s^2": "meter/s per second squared",
    "sq ft": "square foot/feet",
    "sq. ft": "square foot/feet",
    "lb": "pound/s",
    "oz": "ounce/s",
    "ft": "foot/feet",
    "yd": "yard/s",
    "mi": "mile/s",
    "gal": "gallon/s",
    "tbsp": "tablespoon/s",
    "tsp": "teaspoon/s",
    "sec": "second/s",
    "min": "minute/s",
    "h": "hour/s",
    "hr": "hour/s",
    "dB": "decibel/s",
    "°C": "degree/s Celsius",
    "°F": "degree/s Fahrenheit",
    "°": "degree/s",
    "″": "inch/es",
}
"""Units, and what the plural adds or, where it is a word, is."""
_UNITS.update({f"{unit}s": _UNITS[unit] for unit in ("lb", "yd", "sec", "min", "hr")})
_UNITS.update({f"° {scale}": _UNITS[f"°{scale}"] for scale in "CF"})
_UNITS.update({f"{unit}²": f"square {_UNITS[unit]}" for unit in ("m", "cm", "km", "ft")})
_UNITS.update({f"{unit}³": f"cubic {_UNITS[unit]}" for unit in ("m", "cm")})
_UNIT: Final = "|".join(sorted(map(re.escape, _UNITS), key=len, reverse=True))

_CURRENCIES: Final = {
    "$": ("dollar", "dollars", "cent", "cents"),
    "€": ("euro", "euros", "cent", "cents"),
    "£": ("pound", "pounds", "penny", "pence"),
    "¥": ("yen", "yen", "", ""),
    "₹": ("rupee", "rupees", "paisa", "paise"),
}
_PERIODS: Final = {"mo": "month", "yr": "year", "wk": "week"}
_EACH: Final = frozenset("s sec second min minute h hr hour day week month year kg".split())
"""What stands behind a slash that is said "per", where no number is before it."""
_SCALES: Final = {"k": "thousand", "m": "million", "b": "billion", "bn": "billion"}

_ABBREVIATIONS: Final = {
    "mr.": "mister",
    "mrs.": "missus",
    "Ms.": "miz",
    "dr.": "doctor",
    "Prof.": "professor",
    "Mt.": "mount",
    "Gen.": "general",
    "Sen.": "senator",
    "Rep.": "representative",
    "Rev.": "reverend",
    "Gov.": "governor",
    "Capt.": "captain",
    "Lt.": "lieutenant",
    "Col.": "colonel",
    "Sgt.": "sergeant",
    "Fig.": "figure",
    "Vol.": "volume",
    "Ch.": "chapter",
    "Sec.": "section",
    "Apt.": "apartment",
    "jr.": "junior",
    "sr.": "senior",
    "inc.": "incorporated",
    "ltd.": "limited",
    "corp.": "corporation",
    "ave.": "avenue",
    "blvd.": "boulevard",
    "rd.": "road",
    "vs.": "versus",
    "vs": "versus",
    "etc.": "et cetera",
    "etc": "et cetera",
    "e.g.": "for example",
    "i.e.": "that is",
    "cf.": "compare",
    "ca.": "about",
    "eq.": "equation",
    "sect.": "section",
    "et al.": "and others",
    "approx.": "approximately",
    "est.": "estimated",
    "dept.": "department",
    "max.": "maximum",
    "min.": "minimum",
    "a.k.a.": "also known as",
    "hrs.": "hours",
    "w/o": "without",
    "w/": "with",
    "n/a": "not applicable",
    "b/c": "because",
    "c/o": "care of",
    "y/n": "yes or no",
    "i/o": "I O",
}
"""As they are written; small ones also with a capital. What is listed with a capital alone is
another word without it: "20 ms.", "one more rep.", "just a sec."."""
# In capitals, most are something else: "MS.", "CA.", "VS".
_ABBREVIATIONS.update({key.upper(): _ABBREVIATIONS[key] for key in ("mr.", "mrs.", "dr.")})
_ABBREVIATIONS.update(
    {key.capitalize(): words.capitalize() for key, words in _ABBREVIATIONS.items()}
)
_ABBREVIATED: Final = "|".join(sorted(map(re.escape, _ABBREVIATIONS), key=len, reverse=True))

_ROMAN: Final = r"(?=[IVXL]{2})L?X{0,3}(?:IX|IV|V?I{0,3})(?<=[IVXL])"
"""From two on; V, X and L alone are more often letters."""
_ROMAN_DIGITS: Final = {"I": 1, "V": 5, "X": 10, "L": 50}
_PARTS: Final = {2: "half", 4: "quarter"}
_DENOMINATORS: Final = frozenset((2, 3, 4, 5, 6, 8, 16, 100, 1000))


def normalise(text: str) -> str:
    """`text` with words for what the voice reads wrongly; other text stays as it is."""
    text = applied(_NAMES, text)
    if any(map(str.isnumeric, text)):
        text = applied(_FIGURES, text)
    return applied(_WORDS, text)


def applied(rules: tuple[Rule, ...], text: str) -> str:
    """Apply the rules in their order: each sees what those before it have left."""
    for pattern, words in rules:
        text = pattern.sub(words, text)
    return text


def _telephone(found: Match) -> str:
    groups = re.findall(r"\d+", found[0])
    plus = "plus " if found[0].startswith("+") else ""
    return plus + ", ".join(map(" ".join, groups))


def _year(number: int) -> str:
    """As years are said; those of this century are said like other numbers, too."""
    return str(num2words(number, to="year")) if 1100 <= number < 2000 else str(number)


def _ordinal(number: int) -> str:
    return str(num2words(number, to="ordinal"))


def _roman(found: Match) -> str:
    digits = [_ROMAN_DIGITS[letter] for letter in found[2]]
    # What stands before a larger one is taken away from it.
    pairs = zip(digits, [*digits[1:], 0], strict=True)
    return found[1] + str(sum(-one if one < behind else one for one, behind in pairs))


def _date(found: Match) -> str:
    """A date whose parts are called d, m and y, in whatever order; as it stands where it is none.

    Where the month cannot be one, the day stands before it.
    """
    parts = found.groupdict("")
    month, day, year = parts["m"], int(parts.get("d") or 1), parts.get("y", "")
    if month.isdigit():
        number, day = (day, int(month)) if int(month) > 12 else (int(month), day)
        names = _MONTHS[number - 1 : number] if number else []
    else:
        names = [name for name in _MONTHS if name.startswith(month[:3])]
    if not names or not 1 <= day <= 31:
        return found[0]
    if len(year) == 2:
        year = ("20" if year < "50" else "19") + year
    said = f"{names[0]} {_ordinal(day)}" if parts.get("d") else names[0]
    comma = "," if parts.get("d") else ""
    return f"{said}{comma} {_year(int(year))}" if year else said


def _decade(found: Match) -> str:
    century, decade = found[1] or "", int(found[2])
    if not decade:
        return f"{num2words(int(century + '00'), to='year')}s" if century else found[0]
    many = re.sub("y$", "ies", str(num2words(decade))) if decade > 10 else "tens"
    return f"{num2words(int(century))} {many}" if century else many


def _clock(found: Match) -> str:
    hour, minute, half = int(found[1]), int(found[2]), found[3]
    if hour > 24 or minute > 59:
        return f"{found[1]} to {found[2]}" + (half or "")
    said = f"{hour} oh {minute}" if 0 < minute < 10 else f"{hour} {minute}"
    if not minute:
        said = str(hour) if half else f"{hour} o'clock" if 0 < hour <= 12 else f"{hour} hundred"
    return said + (half or "")


def _amount(found: Match) -> str:
    article, sign, low, high, scale, per = found.groups()
    one, many, cent, cents = _CURRENCIES[sign]
    whole, _, part = low.partition(".")
    each = _per(per)
    if scale or high:
        factor = f" {_SCALES.get(scale.lower(), scale)}" if scale else ""
        return f"{article or ''}{low}{f' to {high}' if high else ''}{factor} {many}{each}"
    said = [f"{whole} {one if whole == '1' or article else many}"] if int(_bare(whole)) else []
    if len(part) == 2 and int(part):
        said.append(f"{int(part)} {cent if part == '01' else cents}")
    elif part and len(part) != 2:
        said = [f"{low} {many}"]
    return (article or "") + (" and ".join(said) or f"{whole} {many}") + each


def _bare(number: str) -> str:
    return number.replace(",", "")


def _measure(found: Match) -> str:
    article, number, unit, per = found.groups()
    said = _measure_words(unit, many=not (number == "1" or article))
    return f"{article or ''}{number} {said}{_per(per)}"


def _measure_words(unit: str, *, many: bool) -> str:
    words, _, ending = _UNITS[unit].partition("/")
    plural, space, rest = ending.partition(" ")
    if not many:
        return f"{words}{space}{rest}"
    if plural in ("s", "es", ""):
        return f"{words}{plural}{space}{rest}"
    return f"{words.rpartition(' ')[0]} {plural}".strip()


def _per(unit: str | None) -> str:
    """What an amount is for: "/mo" is per month."""
    if not unit:
        return ""
    return f" per {_UNITS.get(unit, _PERIODS.get(unit, unit)).partition('/')[0]}"


def _part_of(found: Match) -> str:
    """Half a pound, but two and a half pounds."""
    whole, part, unit = found.groups()
    words = _measure_words(unit, many=bool(whole))
    return f"{whole or ''}{part} {words}"


def _days(found: Match) -> str:
    """Days of the week, one or a range, or as they stand where they are other words."""
    return " to ".join(_DAYS[day[:3]] for day in re.findall(r"[A-Z]\w+", found[0]))


def _power_of_ten(found: Match) -> str:
    return f"{found[1]} times 10 to the power of {int(found[2])}"


def _fraction(found: Match) -> str:
    """Three quarters for "3/4", 8 over 2 for "8/2"; two numbers for "24/7" and "9/11"."""
    whole, above, below, of, equals = found[1], int(found[2]), int(found[3]), found[4], found[5]
    usual = below in _DENOMINATORS or (above == 1 and below != 10)
    if not whole and (above >= below or not (usual or of)):
        marks = above == below in (5, 10, 100) or above < below == 10
        over = equals or (above > below and below != 7)
        return f"{above}{' over ' if over else ' out of ' if marks else ' '}{below}"
    part = _PARTS.get(below) or str(num2words(below, to="ordinal"))
    if whole and above == 1:
        return f"{whole} and a {part}"
    plural = part.replace("half", "halve") + "s" if above > 1 else part
    return f"{whole} and " * bool(whole) + f"{num2words(above)} {plural}"


def _vulgar(found: Match) -> str:
    """Write "2½" as "2 1/2"."""
    plain = unicodedata.normalize("NFKC", found[1]).replace("⁄", "/")
    return f" {plain}"


def _slash(found: Match) -> str:
    one, other = found.groups()
    if other in _EACH and (one in _UNITS or one.endswith("s")):
        return (_measure_words(one, many=True) if one in _UNITS else one) + _per(other)
    either = one.islower() and other.islower() and "or" not in (one, other)
    between = " " if not either else " over " if len(one + other) == 2 else " or "
    return f"{one}{between}{other}"


def _power(found: Match) -> str:
    known = {"2": " squared", "3": " cubed"}
    return known.get(found[1], f" to the power of {found[1]}")


def _raised(found: Match) -> str:
    """Write "10⁸" as "10^{8}"."""
    return f"^{{{unicodedata.normalize('NFKC', found[0]).replace('−', '-')}}}"


def rule(pattern: str, words: str | Callable[[Match], str], flags: int = 0) -> Rule:
    """What fits `pattern` becomes `words`, as in `re.sub`."""
    return re.compile(pattern, flags), words


_NAMES: Final[tuple[Rule, ...]] = (
    rule(r"\b([ap])\.m\.(?=\s+\S|[^\w\s])", lambda found: found[1].upper() + "M"),
    rule(r"\b([ap])\.m\.?", lambda found: found[1].upper() + "M."),
    rule(r"\b(?P<m>Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)\.(?= \w)", _date),
    rule(rf"\b{_DAY}\s?[-–]\s?{_DAY}\b", _days),
    rule(r"\b(?:Mon|Tues?|Wed|Thu|Thurs?|Fri)(?:\.|\b(?=,|\s[A-Z\d]))", _days),
    rule(r"\b(?:Sat|Sun)(?:\.(?=\s)|(?= \d+(?:[:–-]\d| ?[AaPp]\.?[Mm])))", _days),
)
_FIGURES: Final[tuple[Rule, ...]] = (
    # Telephones and dates before ranges, since both are figures with dashes between them.
    rule(
        r"(?<![\w-])(?:\+?\d{1,3}[ .-])?(?:\(\d{3}\)\s?|\d{3}[.-])\d{3}[ .-]\d{4}(?![\w-])",
        _telephone,
    ),
    rule(r"(?<!\w)\+\d[\d ().-]{7,}\d(?!\w)", _telephone),
    rule(r"(?<![\w$€£-])\d{3}-(?!\d*00\b)\d{4}(?![\w-])", _telephone),
    rule(r"(?<![\w.,])0\d{2,4} ?\d{3,4} ?\d{3,4}(?!\w)", _telephone),
    rule(r"(?<![\w.,])\(0\d{1,3}\) ?\d{3,4} ?\d{3,4}(?!\w)", _telephone),
    rule(r"(?<![\w-])(?P<m>\d{1,2})-(?P<d>\d{1,2})-(?P<y>\d{4})(?![\w-])", _date),
    # Numbers of cards, of books and the like.
    rule(r"(?<![\w-])\d{4}(?:[ -]\d{4}){3}(?![\w-])|(?<![\w-])\d{5}-\d{4}(?![\w-])", _telephone),
    rule(r"(?<![\w-])(?!\d{4}-\d\d-\d\d\b)(?=[\d-]{9})\d+(?:-\d+){2,}(?![\w-])", _telephone),
    rule(r"(?<=\b[Cc]all )\d{3}\b|(?<=\b[Dd]ial )\d{3}\b", _telephone),
    rule(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d)(?::[\d.]+)?(?:Z\b|[+-]\d\d:\d\d)?", r"\1, \2"),
    rule(r"(?<![\w-])(?P<y>\d{4})([-/])(?P<m>\d\d)\2(?P<d>\d\d)(?![\w-])", _date),
    rule(r"(?<![\w/])(?P<m>\d{1,2})/(?P<d>\d{1,2})/(?P<y>\d{4}|\d\d)(?![\w/])", _date),
    # Before 2013, "2008-09" are two years.
    rule(r"(?<![\w-])(?P<y>(?:19|20)(?:1[3-9]|[2-9]\d))-(?P<m>0[1-9]|1[0-2])(?![\w-])", _date),
    rule(r"(?<![\w.])(?P<d>\d{1,2})\.(?P<m>\d{1,2})\.(?P<y>\d{4})(?![\w.]*\d)", _date),
    rule(r"(?<=[inrs]day )(?P<m>\d{1,2})/(?P<d>\d{1,2})(?![\w/])", _date),
    rule(
        rf"(?<![\w.,:/-])(?P<d>\d{{1,2}})(?:st|nd|rd|th)? (?P<m>{_FULL_MONTH})\b"
        r"(?:,? (?P<y>\d{4})\b)?",
        _date,
    ),
    rule(
        rf"(?<![\w-])(?P<d>\d{{1,2}})-(?P<m>{_MONTH})-(?P<y>\d{{4}}|\d\d)(?![\w-])",
        _date,
    ),
    rule(rf"(?<=\d)\s?[-–—]\s?(?=(?:{_MONTH})\b)", " to "),
    rule(
        rf"\b({_MONTH}) (\d{{1,2}})(?:st|nd|rd|th)?{_TO}"
        r"(?=\d{1,2}(?:st|nd|rd|th)?\b(?![:.%]\d|\s?[AaPp]\.?[Mm]\b))",
        r"\1 \2 to \1 ",
    ),
    rule(
        rf"\b(?P<m>{_MONTH})\b\.? (?P<d>\d{{1,2}})(?:st|nd|rd|th)?(?![\w:%.]*\d)"
        r"(?:,? (?P<y>\d{4})\b)?",
        _date,
    ),
    # "20s" behind minutes is no decade, and "30m" behind hours no length.
    rule(r"(?<=\d)\s?m(?:in)?\s?(\d+)\s?s\b", r" min \1 sec"),
    rule(r"\b(\d+)\s?h\s?(\d+)\s?m(?:in)?\b", r"\1 h \2 min"),
    rule(r"(?:\b(1[1-9]|20)|(?<![\w$€£.,])['’]?)(\d0)['’]?s\b", _decade),
    rule(r"\b\d{1,3}([ _'])\d{3}(?:\1\d{3})+\b", lambda found: re.sub(r"\D", ",", found[0])),
    rule(r"(?<![\w.])\.(?=\d)", "0."),
    rule(
        r"\b(1[1-9]\d\d)[-–](1[1-9]\d\d|20\d\d)\b(?!-)",
        lambda found: f"{_year(int(found[1]))} to {_year(int(found[2]))}",
    ),
    # Times before ranges and ratios.
    rule(r"(?<=:\d\d)\s?[-–—]\s?(?=\d)", " to "),
    rule(r"(?<![\d:.])(\d{1,2}):(\d\d)(?![\d:]|,\d)(\s?[AaPp][Mm]\b)?", _clock),
    rule(r"(?<![\d:.])(\d+):(\d[\d,]*)(?![\d:])", r"\1 to \2"),
    rule(r"(?<=\d)\s?([ap])m\b", lambda found: f" {found[1].upper()}M"),
    rule(r"(?<=[AP]M)\s?[-–]\s?(?=\d)", " to "),
    rule(r"(\d)[eE]([+-]?\d{1,3})\b", _power_of_ten),
    rule(r"(?<![\w-])(\d\d)-\1(?![\w-])", r"\1 \1"),
    rule(r"(?<=\d(?:st|nd|rd|th))\s?[-–—]\s?(?=\d)", " to "),
    rule(r"(?<=°[CF])\s?/\s?(?=\d)", " or "),
    rule(r"(?:(?<=\d[kKMB%])|(?<=illion)|(?<=thousand))\s?[-–—]\s?(?=[$€£]?\d)", " to "),
    # Amounts as others write them: 1,00,000; €1.299,99; 5$; $-5.
    rule(r"(?<![\w.,])\d{1,2}(?:,\d\d)+,\d{3}(?!,?\d)", lambda f: f"{int(_bare(f[0])):,}"),
    rule(
        r"[$€£]\s?\d[\d.]*,\d\d(?!,?\d)|(?<![\w.,])\d[\d.]*,\d\d(?=\s?[$€£](?!\w))",
        lambda found: found[0].translate({ord(","): ".", ord("."): ","}),
    ),
    rule(rf"(?<![\w.,/^=+*$€£¥₹])({_NUMBER})\s?([$€£¥₹])(?!\w)", r"\2\1"),
    rule(r"(?<!\d)([$€£¥₹])-(?=\d)", r"-\1"),
    # Amounts and units take their ranges with them.
    rule(
        rf"(\ban? )?(?:\bUS)?([$€£¥₹])\s?({_NUMBER})(?:{_TO}[$€£¥₹]?({_NUMBER}))?(?![,.]?\d)"
        r"(?:\s?([kKMBm]|bn|thousand|million|billion|trillion)\b)?(?:\s?/\s?([^\W\d]\w*))?",
        _amount,
    ),
    # One and a half, no range; but "7-8/10" are marks.
    rule(r"(?<![\w.,/-])(\d+)-(?=\d/(?:[2348]|16)(?![\w/-]))", r"\1 "),
    rule(rf"(?<![\w.,^-])({_NUMBER}){_TO}(?={_NUMBER}(?![\d-]))(?!\d+ ?=)", r"\1 to "),
    rule(r"([\d°])\s?[–—]\s?(?=\d)|(?<=°)-(?=\d)", lambda found: f"{found[1] or ''} to "),
    rule(r"(?<=\d)⁄(?=\d)", "/"),
    rule(r"(?:(?<=\d)-|\s*)([¼½¾⅐-⅞])", _vulgar),
    rule(rf"(?<![\w/])(\d+ )?(\d/\d{{1,3}})\s({_UNIT})(?![\w'’])(?:\.(?=\s+[a-z\d]))?", _part_of),
    rule(r"\b(\d{2,3})/(\d{2,3})\s?mm\s?Hg\b", r"\1 over \2"),
    rule(r"(\.\d+)/(?=(?:5|10)(?![\w/]|\.\d))", r"\1 out of "),
    rule(
        r"(?<![\w/.])(?<!\d,)(?:(\d+) )?(\d{1,3})/(\d{1,3})(?![\w/])"
        r"(?=( of )?(\s?=| (?:is|equals) \d)?)",
        _fraction,
    ),
    rule(r"\b(\d)['′]\s?(\d{1,2})(?:[\"”″]|'')(?!\w)", r"\1 ft \2 ″"),
    rule(r"(?<=\d)'(?= (?:wide|tall|long|high|deep|thick|by|x)\b)", " ft"),
    rule(r"(?<=\d)\"(?= (?:wide|tall|long|high|deep|thick|by|x)\b)", " ″"),
    rule(r"(?<=\d) in\.(?=\s+[a-z]|[,;:)])", " ″"),
    rule(r"(?<=\d)(\s?f(?:t\.?|eet|oot) \d{1,2})\s?in\b\.?", r"\1 ″"),
    rule(
        rf"(?<![\w.])(?<![A-Za-z]-)(\b[Aa]n? )?({_NUMBER})[\s-]?({_UNIT})(?![\w'’²³^])"
        r"(?:\s?/\s?([^\W\d]\w*)|\.(?=\s+[a-z\d]|[,;:)]))?",
        _measure,
    ),
    rule(rf"(?<=\d)/({_UNIT})(?![\w'’])", lambda found: _per(found[1])),
    rule(r"(?<![\w.,])(\d{2,}|\d[.,]\d+)K\b", r"\1 thousand"),
    rule(r"(?<![\w.,])(\d{3,}|\d+\.\d+)k\b", r"\1 thousand"),
    rule(rf"(?<![\w.,])({_NUMBER}\s?(?=bn)|\d+\.\d+(?=B))(?:bn|B)\b", r"\1 billion"),
    rule(rf"(?<![\w.,])({_NUMBER})M\b", r"\1 million"),
    rule(r"\b(\d[\d,]{,8})(?:st|nd|rd|th)\b", lambda found: _ordinal(int(_bare(found[1])))),
    rule(
        r"\b((?:[Ii]n|of|[Bb]y|to|and|[Ss]ince|[Uu]ntil|[Ff]rom|[Aa]fter|[Bb]efore|[Dd]uring"
        rf"|around|year|[Bb]etween|{_MONTH}) )(1[1-9]\d\d)\b(?![,.]?\d)",
        lambda found: found[1] + _year(int(found[2])),
    ),
    rule(r"\d+(?:\.\d+){2,}", lambda found: found[0].replace(".", " point ")),
)
_WORDS: Final[tuple[Rule, ...]] = (
    rule(rf"\b([A-Z][a-z]+\.? )({_ROMAN})\b(?!['’])", _roman),
    rule(r"\b((?:World War|Part|Act|Scene|Chapter|Phase|Book|Vol\.) )([IVX])\b(?!['’])", _roman),
    # Abbreviations
    rule(r"\b[Nn]os?\.\s?(?=\d)", "number "),
    rule(r"\bSt\.(?=\s+[A-Z])", "Saint"),
    rule(r"\bSt\.", "Street"),
    rule(r"\bCo\.", "Company"),
    rule(r"\bp\.\s?(?=\d)", "page "),
    rule(r"\bpp\.\s?(?=\d)", "pages "),
    rule(
        rf"(?<![\w.])({_ABBREVIATED})(?=\.?(?:[\s,;:!?)\]]|$))",
        lambda found: _ABBREVIATIONS[found[1]],
    ),
    rule(
        r"\b(fig|vol|ch|sec|apt)\.(?= (?:\d|[A-Z]+\b))",
        lambda f: _ABBREVIATIONS[f[0].capitalize()].lower(),
    ),
    rule(r"\bPh\.D\.?", "PhD"),
    rule(
        r"(?<![\w.'])[A-Z]\.(?:\s?[A-Z]\.)*(?=\s+\w|[,;:)']|$)",
        lambda found: " ".join(found[0].replace(".", " ").split()),
    ),
    # Signs
    rule(r"(?<=\^\d)[-−](?=\d)", " minus "),
    # Behind a longer word it is the number of a footnote.
    rule(r"(?<![^\W\d]{3})(?<=[\w)])[⁺⁻]?[⁰¹²³⁴-⁹ⁿ]+", _raised),
    rule(r"(?<=[\w)])\^[({]?([-+]?\w+)[)}]?", _power),
    rule(r"[⁰¹²³⁴-⁹]+", ""),
    rule(r"(?<=[\d)]) ?[*×] ?(?=[\d(])|(?<=\w) [*×] (?=\w)|(?<=\d)(?<!\b0) ?x ?(?=\d)", " times "),
    rule(r"(?<=[\w)]) ?÷ ?(?=[\w(])|(?<=\d) / (?=\d)|(?<=\))/(?=[\d(]|[a-z]\b)", " divided by "),
    rule(r"(?<=\w) / (?=\w)", " or "),
    rule(r"(?:(?<=[\d)])|(?<=\d[a-z])) [-−] (?=[\d(])", " minus "),
    rule(r"\s?(?:!=|≠)\s?", " is not equal to "),
    rule(r"\s?(?:<=|≤)\s?", " at most "),
    rule(r"\s?(?:>=|≥)\s?", " at least "),
    rule(r"\s?(?:=>|->|→|⇒|⟶)\s?(?=\S)", " to "),
    rule(r"(?<=[a-z]) > (?=[A-Z])", ", "),
    rule(r"(?<=[\w)/]) < (?=\S)|(?<=\d)<(?=\d)|(?<=\b\w)<(?=\w\b)", " less than "),
    rule(r"(?<=[\w)]) > (?=\S)|(?<=\d)>(?=\d)|(?<=\b\w)>(?=\w\b)", " greater than "),
    rule(r"(?<=[\w)\]}])\s?={1,3}\s?(?=[\w$(\"'-])", " equals "),
    rule(r"(?<!\w)[~≈] ?(?=[\d$€£])", "about "),
    rule(r"#(?=\d)", "number "),
    rule(r"\b([CF])#|\b([A-G])♯", r"\1\2 sharp "),
    rule(r"\b([A-G])♭", r"\1 flat "),
    rule(r"№ ?(?=\d)", "number "),
    rule(r"\s&{1,2}\s", " and "),
    rule(r"(?<![\w/])~?(?:/[\w.-]+){2,}/?", lambda found: found[0].replace("/", " ")),
    rule(r"\b([A-Za-z]+)/([A-Za-z]+)\b", _slash),
    rule(r"(?<=\b[a-z])/(?=\d+\b)|(?<=\d)/(?=[a-z]\b)", " over "),
    rule(r"(?<=\w)/(?=\w)|(?<!\S)/(?=\w)", " "),
)
