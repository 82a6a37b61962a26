"""Write the conversations that the answerer is examined on.

    python data/recipes/answerer/heldout.py data/heldout/answerer

Only the user's side is written down: at the examination the model gives its own answers, and
only the last of them is judged, by the facts that it must contain.
"""

import json
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from data.recipes import domain
from data.recipes.domain import Exchange, Memory

SEED = 2_026
OUTSIDE = """
who painted the mona lisa
what is the boiling point of mercury
how many legs does a spider have
can you recommend a good restaurant
what should i wear today
how do airplanes stay in the air
who was the first man on the moon
what is the fastest animal
how do i change a tyre
when does the next bus leave
is there life on mars
what is your favourite colour
how much does a house cost
which language is spoken in brazil
what is the square root of ninety
who discovered america
how do i bake bread
what happened in nineteen sixty nine
can you read me a bedtime story
what is love
how many people live in china
tell me about dinosaurs
where can i buy shoes
what is the tallest building in the world
how does a car engine work
who is the richest person
why is the sky blue
what is the stock market doing
how do i learn to swim
what day is christmas
can you drive a car
what is a black hole
who invented the telephone
how do plants grow
what is the population of germany
where do penguins live
should i invest in gold
how long do turtles live
what is the recipe for pancakes
who plays guitar in that band
do you believe in ghosts
how do i fix my printer
what is the exchange rate of the dollar
tell me about the roman empire
when was the piano invented
what is good for a headache
how cold is it outside
which team won last night
what is the longest river
how do i tie a tie
""".strip().splitlines()

ASK_TIMER_LENGTH = ("what is the timer set to", "how long is the timer", "what timer did i set")
_TELLING = ("name_told", "number_told", "timer_set", "light_set")
_JUDGED = (*_TELLING, "digits", "term")


def _exchange(rng: random.Random, memory: Memory, wanted: Callable[[Exchange], bool]) -> Exchange:
    while True:
        found = domain.exchange(rng, memory)
        if wanted(found):
            return found


def _row(users: list[str], last: Exchange, kind: str) -> dict[str, object]:
    return {"user": users, "facts": list(last.facts), "kind": kind}


def answers(rng: random.Random, count: int) -> Iterator[dict[str, object]]:
    """Held-out questions after zero to three others, every kind equally often."""
    for number in range(count):
        kind = _JUDGED[number % len(_JUDGED)]
        memory = Memory()
        before = [domain.exchange(rng, memory).user for _ in range(rng.randrange(4))]
        last = _exchange(
            rng, memory, lambda e, kind=kind: e.kind == kind and domain.is_held_out(e.user)
        )
        yield _row([*before, last.user], last, last.kind)


def memories(rng: random.Random, count: int) -> Iterator[dict[str, object]]:
    """Something told in a held-out sentence, and asked for one to six turns later."""
    asks = {
        "name_told": domain.ASK_NAME,
        "number_told": domain.ASK_NUMBER,
        "timer_set": ASK_TIMER_LENGTH,
    }
    for number in range(count):
        kind = tuple(asks)[number % len(asks)]
        told = _exchange(
            rng, Memory(), lambda e, kind=kind: e.kind == kind and domain.is_held_out(e.user)
        )
        gap = number // len(asks) % 6
        neutral = [
            _exchange(rng, Memory(), lambda e: e.kind not in _TELLING and "timer" not in e.user)
            for _ in range(gap)
        ]
        users = [told.user, *(e.user for e in neutral), rng.choice(asks[kind])]
        yield _row(users, told, f"{kind}, {gap + 1} turns ago")


def outside(rng: random.Random, count: int) -> Iterator[dict[str, object]]:
    """Questions outside the domain: unheard ones, and held-out ones of known forms."""
    for question in OUTSIDE:
        yield {"user": [question], "facts": ["i only know"], "kind": "unheard"}
    for _ in range(count):
        last = _exchange(
            rng, Memory(), lambda e: e.kind == "elsewhere" and domain.is_held_out(e.user)
        )
        yield _row([last.user], last, "known form")


def main() -> None:
    """Write the three files."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(SEED)
    for name, rows in (
        ("answers", answers(rng, 300)),
        ("memory", memories(rng, 180)),
        ("outside", outside(rng, 50)),
    ):
        lines = [json.dumps(row) + "\n" for row in rows]
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
