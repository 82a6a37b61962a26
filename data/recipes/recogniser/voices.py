"""Which voices speak the training clips, and which are held out.

Never used here, because the test recordings speak with them: Festival's voices, and flite's
`kal`, `kal16` and `slt` (the same speakers as two of Festival's).
"""

import random
from dataclasses import dataclass

ACCENTS = {
    "en-us": 50,
    "en-us-nyc": 10,
    "en": 10,
    "en-gb-x-rp": 8,
    "en-gb-scotland": 7,
    "en-gb-x-gbclan": 5,
    "en-gb-x-gbcwmd": 5,
    "en-029": 5,
}
"""espeak-ng's accents of English ("en" is British), each with its weight in the corpus."""

VARIANTS = (
    "",
    *("m1", "m2", "m3", "m4", "m6", "m7", "m8", "f1", "f2", "f4", "f5"),
    *("klatt", "klatt2", "klatt4", "klatt5", "klatt6"),
    *("Alex", "Alicia", "Andy", "Annie", "Denis", "Diogo", "Gene", "Gene2", "Henrique", "Hugo"),
    *("Jacky", "Lee", "Marco", "Mario", "Mike", "Nguyen", "adam", "anika", "antonio"),
    *("aunty", "belinda", "boris", "caleb", "david", "ed", "edward", "edward2"),
    *("grandma", "grandpa", "gustave", "iven2", "john", "marcelo", "max"),
    *("michel", "miguel", "norbert", "pablo", "paul", "pedro", "quincy", "rob", "robert"),
    *("sandro", "shelby", "steph", "steph2", "travis", "victor", "zac", "announcer"),
)
"""espeak-ng's voice variants that train; the empty one is the plain voice."""

HELD_OUT_VARIANTS = ("Andrea", "Michael", "benjamin", "f3", "klatt3", "linda", "m5", "steph3")
"""espeak-ng's voice variants that no training clip uses."""

FLITE_VOICES = ("awb", "rms")
"""flite's voices that train: statistical ones, of a Scottish and a US speaker."""

HELD_OUT_SPEAKER = "theo"
"""The speaker of human digits that no training clip uses."""

HUMAN_SPEAKERS = ("george", "jackson", "nicolas", "theo", "yweweler")


@dataclass(frozen=True)
class EspeakVoice:
    """One way in which espeak-ng speaks.

    Attributes:
        name: Accent and variant, as espeak-ng names them.
        rate: Words per minute.
        pitch: 0 to 100, 50 is the voice's own.
        range: Liveliness of the melody, 0 to 100, 50 is the voice's own.
        gap: Pause between words in units of 10 ms at the default rate.
    """

    name: str
    rate: int
    pitch: int
    range: int
    gap: int


@dataclass(frozen=True)
class FliteVoice:
    """One way in which flite speaks.

    Attributes:
        name: The voice.
        stretch: Duration relative to the voice's own.
        pitch_hz: Mean of the melody.
        spread_hz: Standard deviation of the melody.
    """

    name: str
    stretch: float
    pitch_hz: float
    spread_hz: float


Voice = EspeakVoice | FliteVoice


def espeak_voice(rng: random.Random, variants: tuple[str, ...] = VARIANTS) -> EspeakVoice:
    """Draw a way to speak for espeak-ng."""
    accent = rng.choices(list(ACCENTS), weights=list(ACCENTS.values()))[0]
    variant = rng.choice(variants)
    return EspeakVoice(
        name=f"{accent}+{variant}" if variant else accent,
        rate=rng.randint(115, 225),
        pitch=rng.randint(15, 85),
        range=rng.randint(10, 90),
        gap=rng.choice((0, 0, 0, 1, 2, 4)),
    )


def flite_voice(rng: random.Random) -> FliteVoice:
    """Draw a way to speak for flite."""
    return FliteVoice(
        name=rng.choice(FLITE_VOICES),
        stretch=round(rng.uniform(0.8, 1.25), 3),
        pitch_hz=round(rng.uniform(80, 200), 1),
        spread_hz=round(rng.uniform(5, 25), 1),
    )
