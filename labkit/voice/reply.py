"""The reply of a turn: the language model writes it while the voice speaks what is written."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np

from labkit.audio.pcm import SAMPLE_RATE, Float32, chunks, leading_silence
from labkit.trace import Mark
from labkit.voice.engines import MOST_TOKENS, Engines
from labkit.voice.history import Message
from labkit.voice.scheduling import EngineQueue, Stop
from labkit.voice.speakable import Piece, SpeakableText
from labkit.voice.turn import Sink, Turn

BLOCK: Final = SAMPLE_RATE // 5
"""Samples of speech that are converted and handed on at a time."""
_MOST_UNSPOKEN_S: Final = 6.0
"""Speech that is written and not yet spoken, in seconds: with so much, and a piece of it that is
not begun, the model pauses."""
_LETTERS_PER_S: Final = 15.0
"""How fast a voice speaks, about: letters, spaces and marks."""
_SLOWEST_LETTERS_PER_S: Final = 4.0
"""Slower than any voice speaks: what is short enough even so is surely short enough."""
_SPOKEN_FIRST: Final = "The timer is set for ten minutes."
_MEANWHILE_S: Final = 0.8
_TELLING_LETTERS: Final = 30
_SLOWER: Final = 0.75
"""A text may be spoken so much more slowly than the slowest before it: figures, many pauses."""
_ONSET_S: Final = 0.02
"""Silence that is kept before the first audible sample of a reply."""
_WRITTEN: Final = (1.2, 4.0)
"""A reply begins once so much of it is written, at least and at most: it lasts as many times as
long as a piece takes to be written and begun as there are turns under way. A "Sure!" would be over
long before that. Of 160 simulated replies in crowds of four 31 ran out before, and none since; of
the first sounds, the last came as soon."""
_MADE: Final = 1.1
"""And beside others so much is made, likewise: calls that cannot give way come in between."""
_LEARNS: Final = 0.2


@dataclass(frozen=True, slots=True)
class ReplyRules:
    """What the language model is told, and how long its replies may be.

    A reply ends before the piece that would make it too long. Pieces are sentences, and clauses of
    long ones. Only where the first piece alone is too long, it ends at the last word that fits.
    """

    system: str = ""
    """Told to the model before all that is said; empty for models that need no telling."""
    max_tokens: int = MOST_TOKENS
    """Most tokens of a reply. A sentence that this cuts is left out."""
    max_s: float = 15.0
    """Longest reply, in seconds of speech."""


class _Script:
    """A reply while it is written and spoken.

    Attributes:
        enough: Set once nothing more is to be written; the model stops by it, and sets it itself
            where it had to stop.
        deltas: The model's text.
        over: All of it was written.
    """

    def __init__(
        self, turn: Turn, engines: Engines, messages: Sequence[Message], max_tokens: int
    ) -> None:
        self.enough = Stop()
        self.deltas = engines.reply(messages, self.enough)
        self._llm = engines.llm
        self.over = False
        self._turn = turn
        self._text = SpeakableText()
        self._tokens_left = max_tokens
        self._pieces: asyncio.Queue[Piece | None] = asyncio.Queue()
        self._written_s = self._unspoken_s = 0.0
        self._room = asyncio.Event()
        self._room.set()

    def write(self, queue: EngineQueue, _: Stop) -> list[Piece]:
        """Write until a piece is whole, or others should go first; on the engine's thread."""
        self._llm.set_alone(queue.alone)
        for delta in self.deltas:
            if delta:
                self._turn.mark(Mark.LLM_FIRST_TOKEN)
                self._turn.trace.tokens += 1
                self._tokens_left -= 1
            whole = self._text.feed(delta)
            if not self._tokens_left or self.enough.is_set():
                self.over = True
                return [*whole, *self._text.cut()]
            if whole or queue.give_way:
                return whole
            self._llm.set_alone(queue.alone)
        self.over = True
        return self._text.cut() if self.enough.is_set() else self._text.flush()

    def due(self, now_ns: int) -> int | None:
        """When more of it should be in the making: what was not said yet comes before that."""
        return self._turn.playback.due(now_ns, round(self._unspoken_s * 1e9))

    def put(self, piece: Piece | None) -> None:
        """Add a piece; None where the reply is over."""
        self._pieces.put_nowait(piece)
        if piece is not None:
            self._written_s += _seconds(piece)
            self._count(_seconds(piece))

    def covers(self, seconds: float) -> bool:
        """Whether so much is written, or all of it."""
        return self.over or self._written_s >= seconds

    async def get(self) -> Piece | None:
        piece = await self._pieces.get()
        self._count(0.0)
        return piece

    def spoken(self, piece: Piece) -> None:
        """`piece` was made into audio, and the client has taken it."""
        self._count(-_seconds(piece))

    async def room(self) -> None:
        """Wait until more should be written, or there is enough."""
        await self._room.wait()

    def end(self) -> None:
        self.enough.set()
        self._room.set()

    def _count(self, seconds: float) -> None:
        self._unspoken_s += seconds
        # A long piece at the voice is no reason: what follows is needed when it is over.
        much = self._unspoken_s > _MOST_UNSPOKEN_S and not self._pieces.empty()
        # A piece may still come in once there is enough: nobody will speak it and make room.
        if much and not self.enough.is_set():
            self._room.clear()
        else:
            self._room.set()


def _seconds(piece: Piece) -> float:
    return len(piece.spoken) / _LETTERS_PER_S


class _Average:
    """A moving average, which begins with a guess."""

    def __init__(self, guess: float) -> None:
        self.value = guess
        self._taken = 0

    def take(self, value: float) -> None:
        self._taken += 1
        self.value += max(_LEARNS, 1 / self._taken) * (value - self.value)


class _Pace:
    """How slowly a voice may speak, and how long the engines work on a piece, learnt from before.

    Attributes:
        write_s: Seconds in which the model writes a piece.
        begin_s: Seconds in which the voice begins one.
    """

    def __init__(self) -> None:
        self._letters_per_s: float | None = None
        self.write_s, self.begin_s = _Average(0.4), _Average(0.25)  # those of the public models

    def longest_s(self, text: str) -> float:
        return len(text) / (self._letters_per_s or _SLOWEST_LETTERS_PER_S)

    def learn(self, text: str, seconds: float) -> None:
        """A word or two say little, since voices pause at both ends."""
        if len(text) >= _TELLING_LETTERS and seconds > 0:
            slow = len(text) / seconds * _SLOWER
            self._letters_per_s = min(slow, self._letters_per_s or slow)


class Replies:
    """The replies of one pipeline: what it learns from each helps the next to begin in time.

    Attributes:
        under_way: Turns that are answered now; whoever answers them counts them here.
    """

    def __init__(
        self, engines: Engines, llm: EngineQueue, tts: EngineQueue, rules: ReplyRules
    ) -> None:
        """Write and speak by `rules`, in the order of the engines' two queues."""
        self.under_way = 0
        self._engines = engines
        self._llm = llm
        self._tts = tts
        self._rules = rules
        self._pace = _Pace()

    def warm_up(self) -> None:
        """Learn how fast the voice speaks. Blocks.

        Else a long first sentence might be too long, and be made whole before any of it is heard.
        """
        pieces = self._engines.synthesise(_SPOKEN_FIRST, Stop())
        self._pace.learn(_SPOKEN_FIRST, _length_s(pieces))

    async def reply(self, turn: Turn, said: str, sink: Sink) -> str:
        """Think and speak at once: each piece is spoken while the next is written.

        Gives what was shown.

        Raises:
            EngineError: An engine failed.
        """
        rules = self._rules
        told = [Message("system", rules.system)] if rules.system else []
        messages = [*told, *turn.history.messages(said)]
        script = _Script(turn, self._engines, messages, rules.max_tokens)
        return await _only_error(self._at_once(turn, script, sink))

    async def _at_once(self, turn: Turn, script: _Script, sink: Sink) -> str:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._think(turn, script))
            speaking = group.create_task(self._speak(turn, script, sink))
        return speaking.result()

    async def _think(self, turn: Turn, script: _Script) -> None:
        """Write the reply until there is enough, piece by piece, as far as it may run ahead.

        What is written and not spoken will be heard behind the audio in hand, so the model is due
        only then: between its tokens it gives way to callers who wait for their first sound.
        """
        write, took_s = partial(script.write, self._llm), 0.0
        try:
            while not script.over and not script.enough.is_set():
                pieces = await self._llm.run(turn.session, script.due, write)
                took_s += self._llm.took_s
                if pieces:
                    # For the first one the model has read what was said, too.
                    if Mark.LLM_FIRST_SENTENCE in turn.trace.marks:
                        self._pace.write_s.take(took_s / len(pieces))
                    took_s = 0.0
                for piece in pieces:
                    if piece.spoken:
                        turn.mark(Mark.LLM_FIRST_SENTENCE)
                    script.put(piece)
                await script.room()
        finally:
            script.end()
            self._llm.tidy(script.deltas.close)
        script.put(None)
        turn.mark(Mark.LLM_DONE)

    def _may_begin(self, script: _Script, made_s: float) -> bool:
        """Whether the client will not run out behind the beginning of a reply."""
        piece_s = self._pace.write_s.value + self._pace.begin_s.value
        least, most = _WRITTEN
        written = script.covers(max(least, min(self.under_way, most)) * piece_s)
        return written and (self.under_way == 1 or made_s >= _MADE * piece_s)

    async def _speak(self, turn: Turn, script: _Script, sink: Sink) -> str:
        """Show and speak each piece that there is time for; gives what was shown.

        A piece is heard while the rest of it is made, unless it may turn out to be too long.
        """
        shown: list[str] = []
        beginning = _Beginning(partial(self._may_begin, script))
        left_s = self._rules.max_s
        while (written := await script.get()) is not None:
            await _play(beginning.feed(_NOTHING), turn, sink)  # more of it is written now
            piece, speech = await self._fitting(turn, written, left_s)
            if speech is None:
                break
            if text := piece.shown.strip():
                await sink.text(text)
            before_s = left_s
            async with aclosing(speech):
                async for samples in speech:
                    room = round(left_s * SAMPLE_RATE)
                    left_s -= len(samples) / SAMPLE_RATE
                    await _play(beginning.feed(samples[:room]), turn, sink)
                    if left_s <= 0:
                        break
            self._pace.learn(piece.spoken, before_s - left_s)
            script.spoken(written)
            shown.append(piece.shown)
            if left_s <= 0:
                break
        script.end()
        await _play(beginning.rest(), turn, sink)
        turn.mark(Mark.TTS_DONE)
        return "".join(shown).strip()

    async def _fitting(
        self, turn: Turn, piece: Piece, left_s: float
    ) -> tuple[Piece, AsyncGenerator[Float32, None] | None]:
        """What there is time for of a piece, and its speech; None where there is too little time.

        What may be too long is made before it is heard, so far that it can be told; where its
        client cannot wait for that, it is taken to be as long as usual.
        """
        first = left_s == self._rules.max_s
        while True:
            speech, longest_s = self._synthesise(turn, piece), self._pace.longest_s(piece.spoken)
            if longest_s <= left_s:
                return piece, speech
            made, whole = list[Float32](), True
            async for samples in speech:
                made.append(samples)
                if _length_s(made) > left_s * (1 + first) or turn.playback.is_short(turn.clock()):
                    whole = False
                    break
            too_long = _length_s(made) > left_s
            if not too_long and (whole or _SLOWER * longest_s <= left_s):
                return piece, _given(made, speech)
            await speech.aclose()
            if not first or len(piece.spoken) <= 1:
                return piece, None
            piece = _shortened(piece, left_s / _length_s(made))

    async def _synthesise(self, turn: Turn, piece: Piece) -> AsyncGenerator[Float32, None]:
        """Speech for a piece as the voice makes it; others may be served in between."""
        if not piece.spoken:
            return
        stop = Stop()
        pieces = self._engines.synthesise(piece.spoken, stop)
        go_on = partial(_next, pieces, self._tts)
        over, begun = False, False
        try:
            while not over:
                samples, over = await self._tts.run(turn.session, turn.playback.due, go_on)
                if not begun:
                    begun = True
                    self._pace.begin_s.take(self._tts.took_s)
                yield samples
        finally:
            stop.set()
            self._tts.tidy(pieces.close)


def _shortened(piece: Piece, share: float) -> Piece:
    """A piece without its last words, or letters, about `share` of what is spoken of it."""
    words = len(piece.spoken.split())
    if words == 1:  # the digits of pi, say
        return Piece(
            *(text[: max(1, int(len(text) * share))] for text in (piece.shown, piece.spoken))
        )
    dropped = words - max(1, int(words * share))

    def rest(text: str) -> str:
        return "".join(text.rsplit(None, dropped)[:1])

    return Piece(rest(piece.shown), rest(piece.spoken))


def _next(pieces: Iterator[Float32], queue: EngineQueue, stop: Stop) -> tuple[Float32, bool]:
    """The next piece, and whether it is known to be the last.

    Where others wait for the voice, enough to be heard while they are served: this caller asks for
    more only when it was given this, and then somebody else has the voice. That goes for an end
    that is asked for, too, and what comes behind it would wait a second time.
    """
    made = list[Float32]()
    for piece in pieces:
        made.append(piece)
        if not len(queue) or stop.is_set() or _length_s(made) >= _MEANWHILE_S:
            return _joined(made), False
    return _joined(made), True


def _joined(pieces: Iterable[Float32]) -> Float32:
    """One array of them; a single one itself: a client that stalls would keep a copy, too."""
    full = [piece for piece in pieces if len(piece)]
    return full[0] if len(full) == 1 else np.concatenate([_NOTHING, *full])


async def _given(
    made: list[Float32], rest: AsyncGenerator[Float32, None]
) -> AsyncGenerator[Float32, None]:
    """Give what is made, and keep none of it: a client that stalls takes one in for long."""
    async with aclosing(rest):
        made.reverse()
        while made:
            yield made.pop()
        async for samples in rest:
            yield samples


async def _play(samples: Float32, turn: Turn, sink: Sink) -> None:
    """Hand speech to the sink, block by block: it may take in a little and wait for long."""
    for block in chunks(samples, BLOCK):
        turn.mark(Mark.TTS_FIRST_AUDIO)
        await sink.audio(block)


def _length_s(pieces: Iterable[Float32]) -> float:
    return sum(map(len, pieces)) / SAMPLE_RATE


class _Beginning:
    """Lets a reply begin once it may, and shortly before its first audible sample.

    Quiet consonants are there.
    """

    def __init__(self, may_begin: Callable[[float], bool]) -> None:
        """Ask `may_begin` with the seconds of speech that are made."""
        self._may_begin = may_begin
        self._held: Float32 | None = _NOTHING

    def feed(self, samples: Float32) -> Float32:
        """What of the next samples, and of those that were held back, is to be heard."""
        if self._held is None:
            return samples
        held = _joined([self._held, samples])
        silence_s = leading_silence(held, SAMPLE_RATE)
        silent = silence_s == len(held) / SAMPLE_RATE
        self._held = held = held[max(0, round((silence_s - _ONSET_S) * SAMPLE_RATE)) :]
        if silent or not self._may_begin(len(held) / SAMPLE_RATE):
            return _NOTHING
        return self.rest()

    def rest(self) -> Float32:
        """What is held back still, where nothing follows."""
        held, self._held = self._held, None
        return _NOTHING if held is None else held


_NOTHING: Final[Float32] = np.zeros(0, np.float32)


async def _only_error(work: Awaitable[str]) -> str:
    """Await `work`, and raise the first error itself instead of the group around it."""
    try:
        return await work
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from None
