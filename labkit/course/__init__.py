"""The course: checks on a learner's server, exercises, hints, solutions, and what was done so far.

What a chapter needs, in one line of import::

    from labkit.course import Models, begin, check, hint, predict, progress, quiz, solution

    await begin(1)                                  # what is missing, and what was done so far
    await check("ch1.pong", handle)                 # a handler, a file, or an address
    hint("ch1.pong")                                # one further hint at each call
    solution("ch1.samples")
    predict("ch1.pong_ms", 5)                       # until `measured` locks it
    predicted("ch1.pong_ms")                        # or the cell goes no further
    quiz("ch1")                                     # or quiz("ch1", 2, "b")

`Models` are the engines as a learner's server uses them, `Turns` runs what it answers one after the
other, and `microphone` is a recorder for the learner's own voice. Importing this loads none of it.
"""

from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from labkit.course.cards import begin, card, hint, progress, quiz, solution
    from labkit.course.checking import check
    from labkit.course.models import Models
    from labkit.course.predictions import measured, predict, predicted, predictions_of
    from labkit.course.recorder import microphone
    from labkit.course.report import lab_report
    from labkit.course.turn_queue import Turns

__all__ = [
    "Models",
    "Turns",
    "begin",
    "card",
    "check",
    "hint",
    "lab_report",
    "measured",
    "microphone",
    "predict",
    "predicted",
    "predictions_of",
    "progress",
    "quiz",
    "solution",
]

_PLACES = MappingProxyType(
    {
        "Models": "models",
        "Turns": "turn_queue",
        "begin": "cards",
        "card": "cards",
        "check": "checking",
        "hint": "cards",
        "lab_report": "report",
        "measured": "predictions",
        "microphone": "recorder",
        "predict": "predictions",
        "predicted": "predictions",
        "predictions_of": "predictions",
        "progress": "cards",
        "quiz": "cards",
        "solution": "cards",
    }
)


def __getattr__(name: str) -> object:
    """Load what is asked for, once."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
    globals()[name] = found
    return found
