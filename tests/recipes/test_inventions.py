"""Sounds without words lead to no words, with public models, too."""

import pytest

from data.recipes.evaluation.inventions import SOUNDS, listen
from labkit.voice.loading import load_pipeline
from labkit.voice.models import resolve


@pytest.mark.public
async def test_nothing_is_heard_in_sounds_and_nothing_answered() -> None:
    pipeline = load_pipeline(resolve("tiny"), threads=1)
    outcomes = await listen(pipeline, seed=3, seconds=60)
    pipeline.close()
    assert {one.kind for one in outcomes} == set(SOUNDS)
    # Else the recogniser was never asked.
    assert any(one.stretches for one in outcomes)
    assert [one for one in outcomes if one.transcript or one.reply] == []
