"""The text domain of the embedded models."""

import random
import re

import pytest

from data.recipes import domain
from data.recipes.domain import Exchange, is_held_out

SHORT = ("yes", "no", "yeah", "yep", "nope", "okay", "sure", "yes please", "no thank you", "maybe")


@pytest.fixture(scope="module")
def exchanges() -> list[Exchange]:
    rng = random.Random(1)
    return [exchange for _ in range(4000) for exchange in domain.dialogue(rng)]


@pytest.mark.parametrize("said", SHORT)
def test_short_answers_are_said_answered_and_never_held_out(
    said: str, exchanges: list[Exchange]
) -> None:
    replies = {exchange.assistant for exchange in exchanges if exchange.user == said}
    assert len(replies) == 1
    assert not is_held_out(said)


def test_requests_begin_with_a_short_answer_now_and_then(exchanges: list[Exchange]) -> None:
    led = [e for e in exchanges if e.user.startswith(("yes ", "no ")) and e.kind != "yes_no"]
    assert 0.01 < len(led) / len(exchanges) < 0.05
    assert {"timer_set", "light_set", "name_asked"} <= {exchange.kind for exchange in led}


def test_what_is_said_is_in_transcript_form(exchanges: list[Exchange]) -> None:
    wrong = [e.user for e in exchanges if not re.fullmatch(r"[a-z']+( [a-z']+)*", e.user)]
    assert wrong == []


def test_replies_are_whole_sentences_that_hold_their_facts(exchanges: list[Exchange]) -> None:
    for exchange in exchanges:
        assert re.fullmatch(r"[A-Z].*[.!?]", exchange.assistant), exchange
        for fact in exchange.facts:
            assert fact.lower() in exchange.assistant.lower(), exchange


def test_about_a_tenth_of_the_sentences_with_a_slot_is_held_out(
    exchanges: list[Exchange],
) -> None:
    said = {exchange.user for exchange in exchanges if exchange.kind in ("timer_set", "digits")}
    assert 0.08 < sum(map(is_held_out, said)) / len(said) < 0.12
