"""What the voice learns to say: its domain, and enough other English to speak any sentence.

Everything follows from a seed. Sentences of the domain that belong to the held-out tenth are
left out.
"""

import random
import re
from collections.abc import Callable, Iterator, Sequence

from data.recipes.domain import commands, is_held_out, number, reply_sentence, utterance

__all__ = ["made_up_name", "spelled", "training_texts"]

_NOUNS = """apple bridge captain dragon engine feather garden hammer island jacket kettle ladder
measure needle orange picture question river shadow thunder uncle village weather xylophone yellow
zebra child church judge vision pleasure treasure boat voice oil boy cow house mouse flower power
cloud thing ring singer finger language father brother tooth cloth breath path bath moth sheep
ship chip cheese shoe sugar ocean machine nation station question future nature teacher kitchen
watch page bridge village garage beach fish dish wish bush foot book wood wool bull school pool
moon spoon fruit juice music unit huge human hat cat map cup bus truck drum sun gun door floor
horse storm corn fork bird girl shirt nurse word world earth bear chair hair air ear year beer
deer car star heart farm tour cure fire tire hour tower lawyer mayor player layer idea area radio
piano video studio cargo echo hero zero photo motor author doctor sailor mirror error letter
butter water matter winter summer dinner corner market basket ticket pocket rocket planet blanket
button cotton lesson reason season person prison dozen oven seven heaven open table bottle apple
people purple middle candle handle bundle single angle uncle circle muscle castle whistle travel
level model metal medal pedal pencil council evil devil film elm help belt salt cold gold field
shield world girl curl twelve shelf self bulb milk silk desk risk task mask ghost coast toast nest
guest list fist dust rust lamp camp jump lump stamp hand land sand wind friend bond pound sound
tent cent plant aunt month ninth width length strength sixth eighth text next context axe box fox
tax six mix quilt queen quick square squirrel twig twin dwarf swan sweat switch script spring
spray split splash street stream screw thread throat shrimp sphere""".split()
_ADJECTIVES = """old new big small quiet loud strange usual gentle rough smooth thick thin cheap
rich
foreign curious serious nervous famous broken hidden golden frozen clever lazy easy heavy early
ugly royal loyal proud brown round young long strong wrong pink blue green grey white black bright
light dry shy wide wild mild blind kind fair rare bare near clear poor pure sure sore short
northern southern modern certain ancient gigantic careful joyful beautiful terrible possible
electric magic public private digital musical official medical national original annual""".split()
_VERBS = """watched carried followed borrowed measured finished started wanted needed noticed pushed
pulled painted answered whispered shouted imagined described enjoyed destroyed avoided joined
pointed cooked looked took shook caught brought thought bought taught found ground wound bound
chose froze wrote drove broke spoke woke threw grew drew flew knew sang rang drank began won lost
kept slept left felt dealt meant sent spent lent built filled killed sold told held heard turned
burned learned earned served deserved shared prepared repaired compared cleared feared hired fired
admired required allowed showed followed used refused confused excused reused""".split()
_PLACES = """at the station|behind the church|under the bridge|near the ocean|over the mountains|in
the
middle of the village|beside the river|between two houses|through the forest|across the square|
along the beach|around the corner|on the third floor|above the clouds|outside the school|
without a reason|with great pleasure|before the storm|after the lesson|during the winter|
for the first time|every other Thursday|on a cold January morning|in the middle of July|
until the end of August|by six o'clock|at a quarter past eight|as usual|just in time"""
_PEOPLE = """the teacher|my uncle|their daughter|his younger brother|our neighbour|the judge|a
sailor|
the old lawyer|nobody|everyone|somebody|George|Elizabeth|Joyce|Hugh|Theodore|Virginia|Arthur|
Jonathan|Margaret|the children|those boys|these women|she|he|they|we|you|I"""
_PHRASES = (
    "Could you tell me the way to {}, please?",
    "Where did you put the {n}?",
    "I thought that the {n} was {a}.",
    "There is a {a} {n} {w}.",
    "Why would {p} need a {a} {n}?",
    "{P} {v} the {n} {w}, and then {p} {v} the {m}.",
    "{P} {v} the {a} {n} {w}.",
    "{P} {v} a {n}, a {m} and a {a} {k}.",
    "The {n} and the {m} are {a}, but the {k} is not.",
    "If the {n} is {a}, use the {m} instead.",
    "{P} usually {v} the {n} {w}.",
    "Yes, the {a} {n} is here; no, the {m} is not.",
    "What a {a} {n}!",
    "It was the {n}, not the {m}, that {p} {v}.",
    "Please give this {n} to the {a} {m}.",
    "Have you ever heard of a {a} {n}?",
    "First the {n}, then the {m}, and finally the {k}.",
)
_ONSETS = """b bl br ch d dr f fl fr g gl gr h j k kl kr l m n p pl pr kw r s sh sk sl sm sn sp st
str
sw t th thr tr v w y z""".split()
_RIMES = """a ab ack ad an anda ar ara as ay e ee een ell en ent er est eth i ick id ie im in ing io
is o oa ock old on ond oom or ora ost ow u ub um un und ur us yn""".split()
_LETTERS = "A B C D E F G H I J K L M N O P Q R S T U V W X Y Z".split()
_SHORT = """yes|no|maybe|hello|goodbye|thank you|sorry|of course|I do not know|all right|good
morning|
good night|wait|stop|go on|really|not yet|see you tomorrow|that is right|never mind|
what|who|why|how|when|where|which one|pong|ready"""


def training_texts(seed: int, dictionary: Sequence[str], scale: float = 1.0) -> list[str]:
    """Different sentences to train on, in a fixed order.

    Args:
        seed: Of everything that is drawn.
        dictionary: English words, for what the domain never says.
        scale: 1.0 for about 2,900 sentences.
    """
    rng = random.Random(seed)
    kinds: tuple[tuple[int, Callable[[random.Random], str]], ...] = (
        (700, reply_sentence),
        (550, lambda r: _ended(r, commands(r, 1)[0])),
        (300, lambda r: _ended(r, utterance(r))),
        (650, _phrase),
        (350, lambda r: _word_list(r, dictionary)),
        (120, lambda r: f"{r.choice(('Hello', 'My name is', 'Your name is'))} {made_up_name(r)}."),
        (100, lambda r: f"{spelled(r)}."),
        (100, _number_sentence),
        (30, lambda r: _ended(r, r.choice(_split(_SHORT)).capitalize())),
    )
    texts = [t for count, make in kinds for t in _different(rng, make, round(count * scale))]
    rng.shuffle(texts)
    return texts


def _different(
    rng: random.Random, make: Callable[[random.Random], str], count: int
) -> Iterator[str]:
    """Up to `count` different sentences that may be trained on."""
    found: set[str] = set()
    for _ in range(20 * count):
        text = make(rng)
        if len(found) < count and text not in found and not is_held_out(text):
            found.add(text)
            yield text


def _ended(rng: random.Random, text: str) -> str:
    """A sentence in transcript form as it may be written: often with an end mark."""
    return text + rng.choice(("", ".", ".", "?", "!"))


def _split(choices: str) -> list[str]:
    return [" ".join(choice.split()) for choice in choices.split("|")]


def _phrase(rng: random.Random) -> str:
    filled = rng.choice(_PHRASES).format(
        f"the {rng.choice(_NOUNS)}",
        n=rng.choice(_NOUNS),
        m=rng.choice(_NOUNS),
        k=rng.choice(_NOUNS),
        a=rng.choice(_ADJECTIVES),
        v=rng.choice(_VERBS),
        p=rng.choice(_split(_PEOPLE)),
        P=rng.choice(_split(_PEOPLE)),
        w=rng.choice(_split(_PLACES)),
    )
    return filled[0].upper() + re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", filled[1:])


def _word_list(rng: random.Random, dictionary: Sequence[str]) -> str:
    """Words that have nothing to do with each other."""
    words = rng.sample(dictionary, rng.randint(3, 6))
    if rng.random() < 0.3:
        words.insert(2, "and")
    return " ".join(words).capitalize() + "."


def made_up_name(rng: random.Random) -> str:
    """A name that nobody has, of one to three syllables."""
    syllables = (rng.choice(_ONSETS) + rng.choice(_RIMES) for _ in range(rng.choice((1, 2, 2, 3))))
    return "".join(syllables).capitalize()


def spelled(rng: random.Random) -> str:
    """Two to six letters, one by one."""
    return " ".join(rng.choices(_LETTERS, k=rng.randint(2, 6)))


def _number_sentence(rng: random.Random) -> str:
    thousands, hundreds, rest = rng.randint(1, 99), rng.randint(1, 9), rng.randint(1, 99)
    form = rng.choice(
        (
            "It costs {h} hundred and {r} dollars.",
            "There were {t} thousand {h} hundred people.",
            "In nineteen {r}, we counted {t} of them.",
            "The answer is {t} point {h}.",
            "About {r} percent of {t} million.",
            "{t} times {h} makes more than {r}.",
        )
    )
    filled = form.format(t=number(thousands), h=number(hundreds), r=number(rest))
    return filled[0].upper() + filled[1:]
