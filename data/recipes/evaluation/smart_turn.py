"""What Smart Turn v3 decides on the turns of `labkit endpointing`, for its option `--compare`.

The model comes in the wheel of pipecat, which labkit does not need: install both into an
environment of their own::

    python -m venv smart && smart/bin/pip install . pipecat-ai==1.14.0
    smart/bin/python -m data.recipes.evaluation.smart_turn --out smart.csv
    python -m labkit endpointing --compare smart.csv

As in pipecat, the model is asked once in each pause, after 0.2 s, with up to 8 s of what was said.
Above a threshold the turn is over, else once a time-out of silence is. Shipped are 0.5 and 3 s,
which the file holds as a policy of its own (behind a turn lie 2.5 s, so no dead air is longer).
Each pair of a threshold and a time-out is a setting of the other.

On 108 turns (seed 1) it cuts off 50 % as shipped, with 0.64 s of dead air. At 5 % cut-offs its best
pair has 1.06 s of dead air, as a fixed wait has: a threshold of 0.99, at which hardly anything is
believed. At 0.3 s it cuts off 52 %, at 0.6 s 32 %, where a fixed wait cuts off 54 and 33 %. Of the
pauses 90 % lie above 0.5, of the ends 84 %. These are synthetic voices whose pauses are cut into
fluent speech, so this says little about the model with people, for whom it was trained, and where
others measure it well ahead of a fixed wait (eot-bench, 2026).
"""

import argparse
import csv
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from random import Random
from typing import Final

from pipecat.audio.turn.smart_turn.local_smart_turn_v3 import LocalSmartTurnAnalyzerV3

from labkit.audio.pcm import SAMPLE_RATE
from labkit.measure.endpointing import Decision, Heard, decide, judge, pauses_of
from labkit.measure.pauses import FRAME_S, Turn, conversations, voices
from labkit.voice.turn_taking import Prosody

_ACTION_S: Final = 0.2
_SHIPPED: Final = (0.5, 3.0)
_THRESHOLDS: Final = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)
_TIME_OUTS_S: Final = (0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0, 2.5)


@dataclass(frozen=True, slots=True)
class SmartTurn:
    """Takes the model's word for it, or waits for a time-out."""

    threshold: float
    time_out_s: float

    def wait_s(self, said: str | None, sound: Prosody | None = None) -> float:
        """Seconds of silence that end the turn; instead of words it gets a probability."""
        return _ACTION_S if said and float(said) > self.threshold else self.time_out_s

    def paused(self, seconds: float) -> None:
        """Learn nothing."""


def decisions(seed: int, each: int) -> Iterator[Decision]:
    """Ask the model in each pause, and decide at each setting."""
    model = LocalSmartTurnAnalyzerV3()
    policies: Mapping[str, list[tuple[float, float]]] = {
        "Smart Turn v3": list(product(_THRESHOLDS, _TIME_OUTS_S)),
        "Smart Turn v3, as shipped": [_SHIPPED],
    }
    for caller, turns in enumerate(conversations(Random(seed), voices(), each=each)):
        for number, turn in enumerate(turns):
            asked = Heard(turn, {frame: _asked(model, turn, frame) for frame in pauses_of(turn)})
            for name, settings in policies.items():
                for setting, knobs in enumerate(settings):
                    found = judge(decide(asked, SmartTurn(*knobs)), turn)
                    yield Decision(name, setting, caller, number, *found)


def _asked(model: LocalSmartTurnAnalyzerV3, turn: Turn, frame: int) -> str:
    said = turn.samples[: round(frame * FRAME_S * SAMPLE_RATE)]
    return str(model._predict_endpoint(said)["probability"])


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="the file to write")
    parser.add_argument("--seed", type=int, default=1, help="as of labkit endpointing")
    parser.add_argument("--each", type=int, default=2, help="as of labkit endpointing")
    asked = parser.parse_args()
    with asked.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(Decision.__dataclass_fields__))
        writer.writeheader()
        writer.writerows(asdict(one) for one in decisions(asked.seed, asked.each))


if __name__ == "__main__":
    main()
