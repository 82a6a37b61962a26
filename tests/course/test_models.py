"""The calls of a learner's server: what they take, and what they refuse."""

from types import SimpleNamespace

import pytest

from labkit.course.models import Models


def models() -> Models:
    return Models(SimpleNamespace(reply=lambda chat, stop: ["Hello, Laura. ", "Welcome."]))  # type: ignore[arg-type]


def chat(roles: str) -> list[dict[str, str]]:
    names = {"s": "system", "u": "user", "a": "assistant"}
    return [{"role": names[one], "content": "words"} for one in roles]


@pytest.mark.parametrize("roles", ["u", "uau", "su", "suauau"])
def test_a_reply_comes_sentence_by_sentence(roles: str) -> None:
    assert models().think(chat(roles)) == ["Hello, Laura.", "Welcome."]


@pytest.mark.parametrize("roles", ["", "a", "ua", "au", "uu", "aau", "uaau", "uuu"])
def test_a_conversation_that_lacks_one_side_is_refused(roles: str) -> None:
    with pytest.raises(ValueError, match="take turns, from `user` to `user`"):
        models().think(chat(roles))
