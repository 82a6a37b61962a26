"""The functions for the checks of chapter 0."""

from tests.course.servers import Servers

ODD = {
    "in numpy's own types": """
def wrapped(right):
    return lambda *given: np.float64(right(*given))
for name in {"dead_air", "error_rate", "level_db"} & set(globals()):
    globals()[name] = wrapped(globals()[name])
""",
    "in words and loops": """
import math
def level_db(samples):
    power = 0.0
    for sample in samples:
        power += float(sample) ** 2
    return 10 * math.log10(power / len(samples))
def dead_air(end, first, reply):
    silent = next(n for n, sample in enumerate(reply) if abs(sample) > 0.01)
    return first + silent / 16000 - end
def error_rate(pairs):
    wrong = words = 0
    for pair in pairs:
        counted = word_errors(*pair)
        wrong, words = wrong + counted[0], words + counted[1]
    return wrong / words
""",
}

WRONG = {
    "ch0.level": {
        "of the loudest sample": """
def level_db(samples):
    return 20 * np.log10(np.abs(samples).max())
""",
        "twenty instead of ten": """
def level_db(samples):
    return 20 * np.log10(np.mean(samples**2))
""",
        "a constant": """
def level_db(samples):
    return -20
""",
        "gives nothing": """
def level_db(samples):
    10 * np.log10(np.mean(samples**2))
""",
    },
    "ch0.dead_air": {
        "to the first byte": """
def dead_air(end_of_speech_s, first_byte_s, reply):
    return first_byte_s - end_of_speech_s
""",
        "any sound at all": """
def dead_air(end_of_speech_s, first_byte_s, reply):
    return first_byte_s - end_of_speech_s + np.flatnonzero(reply)[0] / 16_000
""",
        "only upwards": """
def dead_air(end_of_speech_s, first_byte_s, reply):
    return first_byte_s - end_of_speech_s + np.argmax(reply > 0.01) / 16_000
""",
        "in samples": """
def dead_air(end_of_speech_s, first_byte_s, reply):
    return first_byte_s - end_of_speech_s + np.flatnonzero(np.abs(reply) > 0.01)[0]
""",
    },
    "ch0.error_rate": {
        "mean of the rates": """
def error_rate(pairs):
    counts = [word_errors(said, heard) for said, heard in pairs]
    return sum(wrong / words for wrong, words in counts) / len(counts)
""",
        "sentences, not words": """
def error_rate(pairs):
    return sum(said != heard for said, heard in pairs) / len(pairs)
""",
        "over what was heard": """
def error_rate(pairs):
    wrong = sum(word_errors(said, heard)[0] for said, heard in pairs)
    return wrong / sum(len(heard.split()) for _, heard in pairs)
""",
        "a constant": """
def error_rate(pairs):
    return 0.063
""",
    },
}

CH0 = Servers(
    0,
    WRONG,
    ODD,
    values={"ch0.level": "level_db", "ch0.dead_air": "dead_air", "ch0.error_rate": "error_rate"},
    before="import numpy as np",
)
