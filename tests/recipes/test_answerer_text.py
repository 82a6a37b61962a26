"""What the answerer trains on, and what it must never see."""

import random

import pytest

from data.recipes.answerer.text import training_dialogue
from data.recipes.domain import is_held_out


@pytest.mark.parametrize("copy_share", [0.0, 0.5, 1.0])
def test_no_user_sentence_of_the_training_is_held_out(copy_share: float) -> None:
    rng = random.Random(1)
    dialogues = [training_dialogue(rng, copy_share) for _ in range(400)]
    assert [e.user for d in dialogues for e in d if is_held_out(e.user)] == []
