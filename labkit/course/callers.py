"""What chapter 2 looks at: callers who talk at once, for long, and who leave without a word.

Each measurement gives plain data, which a function draws: data in, `Axes` out.
"""

import asyncio
import random
import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Final

from websockets.asyncio.client import ClientConnection, connect

from labkit.audio.pcm import SAMPLE_RATE, Float32, chunks, encode_s16le, read_audio
from labkit.client.plain import VoiceClient
from labkit.course.models import Models
from labkit.measure.recordings import Recording
from labkit.measure.server_process import RunningServer, fetch_status
from labkit.measure.wer import normalise, percent_right

if TYPE_CHECKING:  # matplotlib takes a second to load
    from matplotlib.axes import Axes

_CHUNK: Final = SAMPLE_RATE // 25
_SHOWN_S: Final = 1.0
_SETTLES_S: Final = 0.5
_LOOK_S: Final = 0.02
_NAMES: Final = ("laura", "oliver", "isabel", "theo", "george", "felix", "james")
_QUESTION: Final = "do you know my name"
_TURNS_BETWEEN: Final = 3


def words_right(said: Sequence[str], heard: Sequence[str]) -> float:
    """Percentage of the words said that came out right, over all callers."""
    return percent_right(zip(said, heard, strict=True))


def plot_buffer(messages: Sequence[tuple[str, int]], *, ax: "Axes | None" = None) -> "Axes":
    """Draw whose audio lies where in a buffer, for its first second.

    Args:
        messages: Who sent each message, and its bytes, in the order in which they came.
        ax: Draw here; without it, into a figure of its own.
    """
    from labkit.measure.figures import BLUE, RED, axes, tidy

    drawn = axes(ax, 7.0, 1.8)
    owners = list(dict.fromkeys(owner for owner, _ in messages))
    looks = dict(zip(owners, ((BLUE, ""), (RED, "////")), strict=True))
    start = 0.0
    for owner, group in groupby(messages, key=lambda one: one[0]):
        length = sum(size for _, size in group) / 2 / SAMPLE_RATE
        colour, hatch = looks[owner]
        drawn.barh(owner, length, left=start, color=colour, hatch=hatch, edgecolor="white")
        start += length
    drawn.set_xlim(0, _SHOWN_S)
    drawn.invert_yaxis()
    return tidy(drawn, "Whose audio lies where in the buffer", "s of the buffer", "", grid="x")


@dataclass(frozen=True, slots=True, repr=False)
class Talk:
    """A conversation: what was said, heard and answered, turn by turn."""

    turns: list[tuple[str, str, str]]

    def __repr__(self) -> str:
        """A table, as Markdown."""
        rows = ["| said | heard | reply |", "|---|---|---|"]
        return "\n".join(rows + [f"| {' | '.join(turn)} |" for turn in self.turns])

    def _repr_markdown_(self) -> str:
        return repr(self)


async def talk(server: RunningServer | str, *said: Recording | str) -> Talk:
    """Say several things on one connection, each once the one before was answered.

    Args:
        server: The server, or its address.
        said: Recordings, and sentences that are spoken by the embedded voice first.
    """
    turns = []
    async with VoiceClient.connect(_url(server)) as client:
        for one in said:
            words = one if isinstance(one, str) else one.text
            turn = await client.say(await _audio_of(one), pace=0)
            turns.append((words, turn.transcript, turn.reply_text))
    return Talk(turns)


async def _audio_of(said: Recording | str) -> Float32:
    if isinstance(said, str):
        models = await asyncio.to_thread(Models.load)
        return await asyncio.to_thread(models.speak, said)
    return read_audio(said.path)


def _url(server: RunningServer | str) -> str:
    return server if isinstance(server, str) else server.url


async def _speak(socket: ClientConnection, samples: Float32) -> int:
    """Send audio as fast as it is taken, and wait until it was read; gives its bytes."""
    for chunk in chunks(samples, _CHUNK):
        await socket.send(encode_s16le(chunk))
    await socket.send("ping")
    await socket.recv()
    return 2 * len(samples)


@dataclass(frozen=True, slots=True)
class Recall:
    """How well a model knows a name, with so much before it.

    Attributes:
        exchanges: Exchanges about other things, before the name was told.
        words: Words of the whole conversation, a mean.
        known: In how many conversations it knew the name.
        of: How many there were.
        think_ms: How long it took to reply, the median.
    """

    exchanges: int
    words: float
    known: int
    of: int
    think_ms: float


def measure_recall(
    models: Models, talk: Sequence[Recording], lengths: Sequence[int], *, of: int = 5, seed: int = 1
) -> list[Recall]:
    """Tell the model a name, three exchanges later ask for it, with ever more before that.

    Args:
        models: The models; only the language model has work.
        talk: What else is said, drawn anew for each conversation.
        lengths: How many exchanges stand before the name.
        of: Conversations for each length.
        seed: What they are drawn from.
    """
    rng = random.Random(seed)
    replies = {one.text: _reply(models, [_user(one.text)]) for one in talk}
    found = []
    for length in lengths:
        known, words, took_ms = 0, [], []
        for _ in range(of):
            name = rng.choice(_NAMES)
            small = [rng.choice(list(replies)) for _ in range(length + _TURNS_BETWEEN)]
            told = f"my name is {name}"
            chat = [*small[:length], told, *small[length:]]
            messages = [m for said in chat for m in _exchange(said, replies.get(said, ""))]
            asked = [*messages, _user(_QUESTION)]
            started = time.perf_counter()
            reply = _reply(models, asked)
            took_ms.append((time.perf_counter() - started) * 1e3)
            known += name in normalise(reply)
            words.append(sum(len(one["content"].split()) for one in asked))
        took = statistics.median(took_ms)
        found.append(Recall(length, statistics.mean(words), known, of, took))
    return found


def _user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def _exchange(said: str, reply: str) -> list[dict[str, str]]:
    """What was said and its reply; to a name, the model's usual one."""
    words = reply or f"Hello, {said.split()[-1].capitalize()}. Nice to meet you."
    return [_user(said), {"role": "assistant", "content": words}]


def _reply(models: Models, messages: list[dict[str, str]]) -> str:
    return " ".join(models.think(messages))


def plot_recall(found: Sequence[Recall], *, ax: "Axes | None" = None) -> "Axes":
    """Draw in how many conversations the name was known, over what stood before it."""
    from labkit.measure.figures import BLUE, axes, tidy

    drawn = axes(ax, 7.0, 3.0)
    shares = [100 * one.known / one.of for one in found]
    drawn.plot([one.exchanges for one in found], shares, "o-", color=BLUE)
    for one, share in zip(found, shares, strict=True):
        drawn.annotate(
            f"{one.words:.0f}", (one.exchanges, share), xytext=(4, 7),
            textcoords="offset points", fontsize=8,
        )  # fmt: skip
    drawn.set_ylim(-5, 115)
    drawn.set_xticks([one.exchanges for one in found])
    return tidy(
        drawn,
        "Is a name known, three exchanges later?",
        "exchanges before it (at each point: words in all)",
        "% of conversations",
    )


@dataclass(frozen=True, slots=True)
class Stay:
    """What a server counts after something has happened.

    Attributes:
        event: What happened.
        here: How many callers are here by then.
        sessions: How many the server counts.
        held_bytes: Bytes of audio that it keeps for them.
    """

    event: str
    here: int
    sessions: int
    held_bytes: int


async def measure_stays(
    server: RunningServer | str, said: Recording, *, callers: int = 8
) -> list[Stay]:
    """Let callers come and speak; then half of them hang up, and half go away without a word.

    Args:
        server: A server with a page `/metrics`.
        said: What each says, without ending the utterance.
        callers: How many come.
    """
    stays = [await _count(server, "nobody", 0)]
    async with AsyncExitStack() as stack:
        here = []
        for _ in range(callers):
            socket = await stack.enter_async_context(connect(_url(server)))
            await _speak(socket, read_audio(said.path))
            here.append(socket)
            stays.append(await _count(server, "comes", len(here)))
        for number in range(callers):
            socket = here.pop()
            if number < callers // 2:
                await socket.close()
            else:
                socket.transport.abort()
            event = "hangs up" if number < callers // 2 else "goes away"
            stays.append(await _count(server, event, len(here)))
    return stays


async def measure_weight(
    server: RunningServer, said: Recording, many: int
) -> dict[str, tuple[int, int]]:
    """What many callers cost: silent ones, then with a recording each, then gone again.

    Returns:
        For each of these, the bytes of the server's process, and those of audio that it keeps.
    """
    weights = {}

    async def weigh(name: str, here: int) -> None:
        stay, usage = await _count(server, name, here), server.usage()
        weights[name] = (usage.rss_bytes if usage else 0, stay.held_bytes)

    await weigh("nobody", 0)
    async with AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(connect(_url(server))) for _ in range(many)]
        await weigh("silent", many)
        for socket in sockets:
            await _speak(socket, read_audio(said.path))
        await weigh("with speech", many)
    await weigh("gone again", 0)
    return weights


async def _count(server: RunningServer | str, event: str, here: int) -> Stay:
    """What `/metrics` says, once it counts who is here, or after half a second otherwise."""
    deadline_s = time.monotonic() + _SETTLES_S
    while True:
        status = await asyncio.to_thread(fetch_status, _url(server))
        stay = Stay(event, here, status.session_count, status.held_bytes or 0)
        if stay.sessions == here or time.monotonic() > deadline_s:
            return stay
        await asyncio.sleep(_LOOK_S)


def plot_stays(measured: Mapping[str, Sequence[Stay]], *, ax: "Axes | None" = None) -> "Axes":
    """Draw how many callers a server counts as they come and go, for one server or several."""
    from labkit.measure.figures import AFTER, BEFORE, GREY, axes, tidy

    drawn = axes(ax, 7.0, 3.2)
    first = next(iter(measured.values()))
    steps = range(len(first))
    here = [one.here for one in first]
    drawn.step(steps, here, where="post", color=GREY, linewidth=5, alpha=0.4, label="who is here")
    for (name, stays), look in zip(measured.items(), (BEFORE, AFTER), strict=False):
        counted, style = [one.sessions for one in stays], look.marker + look.style
        drawn.plot(steps, counted, style, color=look.colour, label=name, drawstyle="steps-post")
    for event in ("comes", "hangs up", "goes away"):
        at = [number for number, one in enumerate(first) if one.event == event]
        drawn.annotate(
            f"{event}, {len(at)} times", (statistics.mean(at), -0.9), ha="center", va="top",
            fontsize=9, annotation_clip=False,
        )  # fmt: skip
    drawn.set_xticks([])
    drawn.set_ylim(bottom=-0.5)
    drawn.legend(frameon=False)
    return tidy(drawn, "Callers that the server counts", "\n", "sessions")
