"""What the checks of chapter 5 are tried on: functions, and predictions; none of it is a server."""

from tests.course.servers import Servers

BEFORE = """
from labkit.course import measured, predict, predictions_of

def all_measured():
    for name in predictions_of("ch5"):
        measured(name, 120.0)
    return predictions_of("ch5")
"""

ODD = {
    "numbers of numpy": """
import numpy as np

def odd(function):
    def call(*arguments):
        given = function(*arguments)
        if isinstance(given, dict):
            return {key: np.array(value)[()] for key, value in given.items()}
        return np.float64(given)
    return call

for name in ("wait_ms", "packetisation_ms", "parts_ms", "headers_percent", "conclude"):
    if name in globals():
        globals()[name] = odd(globals()[name])
""",
    "a class, with more to say": """
class Odd:
    def __init__(self, function):
        self.function = function
    def __call__(self, *arguments):
        given = self.function(*arguments)
        if not isinstance(given, dict):
            return str(given)
        return {key: tuple(v) if isinstance(v, list) else v for key, v in reversed(given.items())}

for name in ("wait_ms", "packetisation_ms", "parts_ms", "headers_percent", "conclude"):
    if name in globals():
        globals()[name] = Odd(globals()[name])
""",
}

WRONG = {
    "ch5.predicted_first": {
        "predicts afterwards": """
right = all_measured
def all_measured():
    return {
        name: one.model_copy(update={"late": True, "predicted": 120.0})
        for name, one in right().items()
    }
""",
        "predicts one thing only": """
right = all_measured
def all_measured():
    return {"ch5.wait_ms": right()["ch5.wait_ms"]}
""",
        "measures nothing": """
def all_measured():
    return predictions_of("ch5")
""",
    },
    "ch5.wait": {
        "always the same": """
def wait_ms(marks):
    return 412.0
""",
        "ends at the first byte": """
def wait_ms(marks):
    return (marks["first_audio_received"] - marks["end_of_speech"]) / 1e6
""",
        "begins at the request": """
def wait_ms(marks):
    return (marks["first_audio_heard"] - marks["end_stream_sent"]) / 1e6
""",
        "takes marks for milliseconds": """
def wait_ms(marks):
    return marks["first_audio_heard"] - marks["end_of_speech"]
""",
    },
    "ch5.packetisation": {
        "half a chunk, by heart": """
def packetisation_ms(marks):
    return 20.0
""",
        "stops at the last chunk": """
def packetisation_ms(marks):
    return (marks["last_chunk_sent"] - marks["end_of_speech"]) / 1e6
""",
        "takes the way to the server as well": """
def packetisation_ms(marks):
    return (marks["end_stream_received"] - marks["end_of_speech"]) / 1e6
""",
    },
    "ch5.marks_add_up": {
        "off by one stage": """
def parts_ms(marks):
    there = [mark for mark in ORDER if mark in marks]
    return {start: (marks[end] - marks[start]) / 1e6 for start, end in zip(there, there[1:])}
""",
        "needs every mark": """
def parts_ms(marks):
    return {end: (marks[end] - marks[start]) / 1e6 for start, end in zip(ORDER, ORDER[1:])}
""",
        "leaves out what is not told": """
def parts_ms(marks):
    return {
        end: (marks[end] - marks[start]) / 1e6
        for start, end in zip(ORDER, ORDER[1:])
        if start in marks and end in marks
    }
""",
        "counts from the end of speech": """
def parts_ms(marks):
    first, *rest = [mark for mark in ORDER if mark in marks]
    return {end: (marks[end] - marks[first]) / 1e6 for end in rest}
""",
        "in the order in which they came": """
def parts_ms(marks):
    there = [mark for mark in marks if mark in ORDER]
    return {end: (marks[end] - marks[start]) / 1e6 for start, end in zip(there, there[1:])}
""",
    },
    "ch5.headers": {
        "one segment for everything": """
def headers_percent(chunk_ms):
    return 100 * 60 / (32 * chunk_ms)
""",
        "a segment too many": """
def headers_percent(chunk_ms):
    audio = 32 * chunk_ms
    return 100 * (8 + 52 * ((audio + 8) // 1448 + 1)) / audio
""",
        "forgets that the header needs room": """
def headers_percent(chunk_ms):
    audio = 32 * chunk_ms
    return 100 * (8 + 52 * -(-audio // 1448)) / audio
""",
        "the table of the text": """
def headers_percent(chunk_ms):
    return {10: 18.75, 20: 9.375, 40: 4.6875, 45: 4.1667, 50: 7.0}.get(chunk_ms, 4.0)
""",
    },
    "ch5.conclusion": {
        "always 20 to 100": """
def conclude(rows, most_added_ms, most_headers_percent):
    return {"sizes_ms": [20, 40, 100], "clear": True, "explained": True}
""",
        "takes the last row for the largest": """
right = conclude
def conclude(rows, *limits):
    last = rows[-1]
    return {
        **right(rows, *limits),
        "clear": not last["low_ms"] <= 0 <= last["high_ms"],
        "explained": 0.9 * last["predicted_ms"] <= last["high_ms"]
        and last["low_ms"] <= 1.1 * last["predicted_ms"],
    }
""",
        "looks at the wait only": """
right = conclude
def conclude(rows, most_added_ms, most_headers_percent):
    return right(rows, most_added_ms, 100)
""",
        "takes any difference for an effect": """
right = conclude
def conclude(rows, *limits):
    return {**right(rows, *limits), "clear": any(row["added_ms"] > 0 for row in rows)}
""",
        "an interval that is too narrow convicts": """
right = conclude
def conclude(rows, *limits):
    largest = max(rows, key=lambda row: row["chunk_ms"])
    low, high = largest["low_ms"], largest["high_ms"]
    return {**right(rows, *limits), "explained": low <= largest["predicted_ms"] <= high}
""",
        "always agrees with the model": """
right = conclude
def conclude(rows, *limits):
    return {**right(rows, *limits), "explained": True}
""",
    },
}

CH5 = Servers(
    chapter=5,
    wrong=WRONG,
    odd=ODD,
    values={
        "ch5.predicted_first": "all_measured()",
        "ch5.wait": "wait_ms",
        "ch5.packetisation": "packetisation_ms",
        "ch5.marks_add_up": "parts_ms",
        "ch5.headers": "headers_percent",
        "ch5.conclusion": "conclude",
    },
    before=BEFORE,
)
