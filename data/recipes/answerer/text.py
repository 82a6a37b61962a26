"""Variations of the domain's dialogues that the answerer learns from.

The domain's own sentences are few and clean. What a recogniser makes of speech is neither, and
most of what people say lies outside any domain; both are made here.
"""

import random
import re
from dataclasses import replace
from typing import Final

from data.recipes import domain
from data.recipes.domain import DIGITS, Exchange

_VALUES: Final = {domain.number(value): value for value in range(100, -1, -1)}
_NUMBER: Final = re.compile(r"\b(" + "|".join(sorted(_VALUES, key=len, reverse=True)) + r")\b")
_DIGIT_RUN: Final = re.compile(rf"\b(?:{'|'.join(DIGITS)})(?: (?:{'|'.join(DIGITS)}))+\b")
_FILLERS: Final = ("please", "the", "a", "my", "so", "can", "you", "hello", "hi")

_STARTS: Final = (
    "what is", "what are", "what was", "who is", "who was", "where is", "where are", "when is",
    "when did", "why is", "why do", "how do i", "how can i", "how many", "how much is",
    "how old is", "how far is", "how big is", "can you", "could you", "would you", "do you",
    "did you", "is there", "are there", "tell me about", "tell me", "find", "show me", "open",
    "play", "read", "buy", "call", "write", "explain", "what do you think about",
    "i want to know about", "i need", "give me", "which", "what color is", "should i",
    "what happened in", "have you seen", "what time is it in", "what does", "let us talk about",
    "look up", "search for", "name a", "what's", "who's", "where's",
)  # fmt: skip
_WORDS: Final = tuple(
    """the a of in for to and my your best next last first new old big small red blue green
    weather news dog cat horse bird fish car train plane boat bicycle city town village country
    river lake sea ocean mountain forest island street road bridge house garden school church
    hospital library museum theatre cinema restaurant market shop bank station airport hotel
    president king queen minister doctor teacher lawyer farmer soldier writer singer actor painter
    scientist engineer history geography physics chemistry biology mathematics algebra philosophy
    music song film book poem story picture game football tennis chess swimming running cooking
    bread butter cheese milk coffee tea sugar salt pepper apple banana orange tomato potato onion
    chicken beef soup pizza cake chocolate wine beer water juice breakfast lunch dinner money
    price ticket email letter message phone computer program python java keyboard mouse printer
    television radio camera battery engine wheel window door chair table bed shoe shirt hat coat
    sun moon star planet mars earth space rocket gravity energy electricity winter summer spring
    autumn monday tuesday sunday january july year week month today tomorrow yesterday birthday
    christmas holiday mother father brother sister friend child baby man woman people world war
    peace law tax election government stock market gold silver oil gas rain snow wind storm
    temperature speed distance height weight age paris london rome berlin madrid tokyo moscow
    france spain italy germany china india brazil africa europe america shakespeare mozart einstein
    napoleon dinosaur elephant tiger lion snake spider flower tree leaf grass stone iron glass paper
    repair build grow sleep walk drive travel learn speak french german latin dance fix clean wash
    invest win lose believe remember dream love hate life death god soul happiness health medicine
    headache fever vitamin exercise yoga diet""".split()
)
_ONSETS: Final = "b c d f g h j k l m n p r s t v w z br ch cl dr fr gr kl kr sh st th tr".split()
_VOWELS: Final = "a e i o u ai ea ee ia io oa ou".split()
_CODAS: Final = ["", "", "n", "r", "l", "s", "m", "t", "d", "x", "nd", "rt", "ll", "ck"]


def made_up_name(rng: random.Random) -> str:
    """A name that nobody has, of one to three syllables."""
    syllables = rng.choices((1, 2, 3), (1, 5, 3))[0]
    name = "".join(rng.choice(_ONSETS) + rng.choice(_VOWELS) for _ in range(syllables))
    return name[rng.random() < 0.2 :] + rng.choice(_CODAS)


def open_question(rng: random.Random) -> str:
    """A question about anything but the domain, not always a sensible one."""
    words = rng.choices(_WORDS, k=rng.randint(1, 5))
    if rng.random() < 0.25:
        words[rng.randrange(len(words))] = made_up_name(rng)
    return " ".join((rng.choice(_STARTS), *words))


def written(rng: random.Random, sentence: str) -> str:
    """`sentence` as other recognisers write it: capitals, punctuation, numerals."""
    if rng.random() < 0.6:
        glue = rng.choice(("", " ", "-"))
        sentence = _DIGIT_RUN.sub(
            lambda run: glue.join(str(DIGITS.index(d)) for d in run[0].split()), sentence
        )
        sentence = _NUMBER.sub(lambda found: str(_VALUES[found[0]]), sentence)
    sentence = re.sub(r"\bi\b", "I", sentence[:1].upper() + sentence[1:])
    question = sentence.split()[0] in {"What", "What's", "How", "Who", "Is", "Do", "Can", "Are"}
    return sentence + ("?" if question else rng.choice((".", ".", "!", "")))


def misheard(rng: random.Random, exchange: Exchange) -> str:
    """What a recogniser might make of it: a word lost, doubled or put in, but no fact changed."""
    words = exchange.user.split()
    facts = {word for fact in exchange.facts for word in fact.split()}
    at = rng.randrange(len(words))
    free = words[at] not in facts and len(words) > 3
    match rng.randrange(3):
        case 0 if free and words[at] in _FILLERS:
            del words[at]
        case 1 if free:
            words.insert(at, words[at])
        case _:
            words.insert(rng.choice((0, len(words))), rng.choice(_FILLERS[:5]))
    return " ".join(words)


def varied(rng: random.Random, exchange: Exchange) -> Exchange:
    """The exchange as it is trained on: mostly as it is, sometimes varied in form."""
    chance = rng.random()
    if exchange.kind == "elsewhere" and chance < 0.7:
        return replace(exchange, user=open_question(rng))
    if chance < 0.12 and exchange.kind != "digits":
        return replace(exchange, user=misheard(rng, exchange))
    if chance > 0.85:
        return replace(exchange, user=written(rng, exchange.user))
    return exchange


def renamed(rng: random.Random, exchanges: list[Exchange]) -> list[Exchange]:
    """The dialogue with its names replaced by made-up ones."""
    names: dict[str, str] = {}

    def other(found: re.Match[str]) -> str:
        new = names.setdefault(found[0].lower(), made_up_name(rng))
        return new.capitalize() if found[0][0].isupper() else new

    told = {e.facts[0] for e in exchanges if e.kind == "name_told"}
    if not told:
        return exchanges
    pattern = re.compile(r"\b(" + "|".join(told) + r")\b", re.IGNORECASE)
    return [
        replace(
            e,
            user=pattern.sub(other, e.user),
            assistant=pattern.sub(other, e.assistant),
            facts=tuple(pattern.sub(other, fact) for fact in e.facts),
        )
        if e.kind in ("name_told", "name_asked")
        else e
        for e in exchanges
    ]


def copying(rng: random.Random) -> list[Exchange]:
    """Drill for copying: say after me, and remember over a gap."""
    kind = rng.randrange(4)
    if kind == 0:
        said = " ".join(rng.choices(_WORDS, k=rng.randint(1, 8)))
        return [Exchange(f"say {said}", f"{said[0].upper()}{said[1:]}.", "copy")]
    if kind == 1:
        said = domain.digits(rng, 2, 12)
        return [Exchange(f"repeat {said}", f"{said[0].upper()}{said[1:]}.", "copy")]
    name = made_up_name(rng)
    told = Exchange(f"my name is {name}", f"Nice to meet you, {name.capitalize()}.", "copy")
    asked = Exchange("what is my name", f"Your name is {name.capitalize()}.", "copy")
    if kind == 2:
        return [told, asked]
    value = domain.digits(rng, 2, 9)
    number = Exchange(f"remember {value}", f"I will remember {value}.", "copy")
    recalled = Exchange("what is my number", f"Your number is {value}.", "copy")
    return rng.sample([told, number], 2) + rng.sample([asked, recalled], 2)


def training_dialogue(rng: random.Random, copy_share: float) -> list[Exchange]:
    """One dialogue to learn from; none of its user sentences is held out."""
    while True:
        exchanges = copying(rng) if rng.random() < copy_share else _from_domain(rng)
        # Last of all: a drill or a changed name may make a held-out sentence, too.
        if not any(domain.is_held_out(exchange.user) for exchange in exchanges):
            return exchanges


def _from_domain(rng: random.Random) -> list[Exchange]:
    exchanges = domain.dialogue(rng)
    if rng.random() < 0.4:
        exchanges = renamed(rng, exchanges)
    return [varied(rng, exchange) for exchange in exchanges]
