"""Replies of five sentences from any model."""

from collections.abc import Iterator, Sequence

from labkit.measure.long_replies import LongReplies, repeated
from labkit.voice.history import Message
from labkit.voice.scheduling import Stop
from labkit.voice.scripted import ScriptedLlm

ASKED = [Message("user", "How are you?")]


def test_a_model_is_asked_until_its_reply_has_five_sentences_and_no_more_than_five_times() -> None:
    for said, times in (("Fine.", 5), ("Fine. And you?", 3), ("A. B. C. D. E. F.", 1), ("so", 5)):
        streamed = "".join(LongReplies(ScriptedLlm(lambda _, said=said: said)).reply(ASKED, Stop()))
        assert streamed.split() == said.split() * times
        assert "".join(repeated(lambda said=said: [said])).split() == said.split() * times


def test_a_reply_that_is_stopped_is_not_asked_for_again() -> None:
    stop, asked = Stop(), []

    class Stopping(ScriptedLlm):
        def reply(self, messages: Sequence[Message], stop: Stop) -> Iterator[str]:
            asked.append(1)
            yield "Fine. "
            stop.set()

    assert list(LongReplies(Stopping()).reply(ASKED, stop)) == ["Fine. "]
    assert asked == [1]
