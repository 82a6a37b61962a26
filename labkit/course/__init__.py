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
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from labkit.course.cards import begin as begin
    from labkit.course.cards import card as card
    from labkit.course.cards import hint as hint
    from labkit.course.cards import progress as progress
    from labkit.course.cards import quiz as quiz
    from labkit.course.cards import solution as solution
    from labkit.course.checking import check as check
    from labkit.course.models import Models as Models
    from labkit.course.predictions import measured as measured
    from labkit.course.predictions import predict as predict
    from labkit.course.predictions import predicted as predicted
    from labkit.course.predictions import predictions_of as predictions_of
    from labkit.course.recorder import microphone as microphone
    from labkit.course.report import lab_report as lab_report
    from labkit.course.turn_queue import Turns as Turns

_PLACES: Final = {
    name: module
    for module, names in {
        "cards": "begin card hint progress quiz solution",
        "checking": "check",
        "models": "Models",
        "predictions": "measured predict predicted predictions_of",
        "recorder": "microphone",
        "report": "lab_report",
        "turn_queue": "Turns",
    }.items()
    for name in names.split()
}
__all__ = sorted(_PLACES)


def __getattr__(name: str) -> object:
    """Load what is asked for, once."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
    globals()[name] = found
    return found
