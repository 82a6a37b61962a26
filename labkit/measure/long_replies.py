"""Labkit's server and the naive one, with replies of five sentences from any model.

How much streaming saves shows in a long reply, and small models write one sentence, whatever they
are told. So the model is asked the same thing again, and all of its answers are one reply, until
that has five sentences. The words repeat; but each of them is written by the model and spoken by
the voice, at what both take. Labkit's bound on a reply is wider than usual, or only the shortest
sentences would come to five. Run one with
``python -m labkit.measure.long_replies labkit MODELS``, or ``naive MODELS``.
"""

import asyncio
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from labkit.measure.plan import SENTENCES, count_sentences
from labkit.server.app import VoiceServer, serve_until_signal
from labkit.session.settings import ServerSettings
from labkit.voice.engines import Llm
from labkit.voice.history import Message
from labkit.voice.loading import default_threads, load_engines, usable_cores
from labkit.voice.models import resolve
from labkit.voice.pipeline import VoicePipeline
from labkit.voice.reply import ReplyRules
from labkit.voice.scheduling import Stop

_MOST_TOKENS: Final = 800
_LONGEST_S: Final = 90.0


def repeated(
    answer: Callable[[], Iterable[str]], enough: Callable[[], bool] = lambda: False
) -> Iterator[str]:
    """Pieces of one answer after the other: until there are five sentences, or it is `enough`."""
    said = ""
    for _ in range(SENTENCES):
        for piece in answer():
            said += piece
            yield piece
        if enough() or count_sentences(said) >= SENTENCES:
            return
        said += " "
        yield " "


@dataclass(frozen=True, slots=True)
class LongReplies(Llm):
    """A language model that is asked again until its reply is long, five times at most."""

    llm: Llm

    def warm_up(self) -> None:
        """Warm the model up."""
        self.llm.warm_up()

    def set_alone(self, alone: bool) -> None:
        """Tell the model."""
        self.llm.set_alone(alone)

    def reply(self, messages: Sequence[Message], stop: Stop) -> Iterator[str]:
        """Its replies, one after the other."""
        return repeated(lambda: self.llm.reply(messages, stop), stop.is_set)


def _serve_naively(models: str) -> None:
    from labkit.course.naive_server import NaiveServer, main  # which loads the engines' libraries

    class LongNaiveServer(NaiveServer):
        def reply(self, text: str, history: list[dict[str, str]]) -> str:
            answer = super().reply  # with a history of its own each time: nobody goes on with it
            return "".join(repeated(lambda: [answer(text, history.copy())]))

    main(["--port", "0", "--models", models], LongNaiveServer)


def _serve(models: str) -> None:
    paths = resolve(models)
    engines = load_engines(paths)
    pipeline = VoicePipeline(
        replace(engines, llm=LongReplies(engines.llm)),
        ReplyRules(paths.system, max_tokens=_MOST_TOKENS, max_s=_LONGEST_S),
        calls=max(1, usable_cores() // default_threads()),
    )
    pipeline.warm_up()
    settings = ServerSettings(host="127.0.0.1", port=0)
    asyncio.run(serve_until_signal(pipeline, settings, _announce))


def _announce(server: VoiceServer) -> None:
    sys.stdout.write(f"the server is ready at {server.url}\n")
    sys.stdout.flush()


def main() -> None:
    """Run the server that the command line names, with that set of models."""
    name, models = sys.argv[1:]
    {"labkit": _serve, "naive": _serve_naively}[name](models)


if __name__ == "__main__":
    main()
