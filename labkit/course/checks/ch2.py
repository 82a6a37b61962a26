"""The checks of chapter 2: callers side by side, what is remembered, and what is let go of."""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from math import inf
from typing import Final

from labkit.audio.formats import WIRE
from labkit.audio.pcm import SAMPLE_RATE, Float32, chunks, encode_s16le, read_audio
from labkit.course.checks.ch1 import require_speech
from labkit.course.checks.check import checked
from labkit.course.models import Models
from labkit.course.probe import Answer, Caller, Probe
from labkit.course.verdict import NotYet
from labkit.measure.recordings import Recording
from labkit.measure.server_process import read_status
from labkit.measure.wer import normalise, word_errors

_NAMES: Final = re.compile(
    r"^(?:hi i am|i'm|i am|(?:please )?call me|(?:hello )?my name is) (\w+)$"
)
_SMALL_TALK: Final = re.compile(r"\b(?:light|lights|timer|remind|wake|dim)\b")
_QUESTIONS: Final = ("do you know my name", "what is my name", "who am i")
_TURNS_BETWEEN: Final = 3
_MANY_TURNS: Final = 16
"""With all of them before it, the embedded model knew a name in none of 20 conversations."""
_TRIES: Final = 4
_SETTLES_S: Final = 3.0
_LOOK_S: Final = 0.02


@checked("ch2.sessions_isolated", "Two callers at once never get what belongs to the other.")
async def sessions_isolated(probe: Probe) -> None:
    """Two recordings on two connections, a chunk of each in turn, and `end_stream` on both.

    Then each tells a name in the same way; a third caller says something else, and all three ask,
    "do you know my name".
    """
    models = await asyncio.to_thread(Models.load)
    callers = [await probe.connect(), await probe.connect()]
    said = probe.draw(2)
    pending = await _speak_at_once(probe, callers, said)
    for caller, own, other, answer in zip(callers, said, reversed(said), pending, strict=True):
        await caller.take_answer(answer)
        _require_own(caller, own, other, answer)
        probe.require_heard(own, answer)
        if answer.reply_text and not answer.audio:
            raise NotYet("the reply as audio, too", "no audio before `done`", event=answer.last)
        if answer.audio:
            await require_speech(models, answer, WIRE)
        probe.ok(f"gives client {caller.number} what this client has said")
    names = probe.draw(2, tells_a_name, words=1)
    for caller, answer in zip(callers, await _speak_at_once(probe, callers, names), strict=True):
        await caller.take_answer(answer)
    third = await probe.connect()
    await third.ask(probe.draw(1, is_small_talk, words=1)[0])  # so that it has a history, too
    for caller, others in ((callers[0], names[1:]), (callers[1], names[:1]), (third, names)):
        await _require_unknown(probe, caller, others)


async def _speak_at_once(
    probe: Probe, callers: list[Caller], said: list[Recording]
) -> list[Answer]:
    """Let callers speak at the same time, chunk by chunk in turn; gives the answers to take in."""
    size = probe.rng.randint(20, 100) * SAMPLE_RATE // 1000
    waiting = [list(chunks(read_audio(one.path), size)) for one in said]
    while any(waiting):
        for caller, left in zip(callers, waiting, strict=True):
            if left:
                await caller.send(encode_s16le(left.pop(0)))
    return [Answer(asked_ns=await caller.send("end_stream")) for caller in callers]


def _require_own(caller: Caller, own: Recording, other: Recording, answer: Answer) -> None:
    wrong, words = word_errors(other.text, answer.transcript)
    if 2 * wrong <= words and wrong < word_errors(own.text, answer.transcript)[0]:
        raise NotYet(
            f'client {caller.number} to get a transcript of "{own.text}"',
            f'"{answer.transcript}", which the other client has said',
            event=answer.heard,
        )


@checked("ch2.history_remembers", "A name is remembered, three turns later.")
async def history_remembers(probe: Probe) -> None:
    """A name, three turns about something else, "do you know my name"; the same with a second name.

    The reply has to hold the name that was told last, as it was heard. A turn has about 7 to 17
    words: what is said and what is replied together. Then another client says something, and asks
    as well: it may be told neither.
    """
    caller = await probe.connect()
    told = [await _require_remembered(probe, caller) for _ in range(2)]
    other = await probe.connect()
    await other.ask(probe.draw(1, is_small_talk, words=1)[0])  # so that it has a history, too
    await _require_unknown(probe, other, told)


@checked("ch2.history_bounded", "In a long conversation, the model still knows what it is about.")
async def history_bounded(probe: Probe) -> None:
    """Sixteen turns about other things; then a name, three turns, and "do you know my name".

    Each of the other turns has about 10 to 17 words, what is said and what is replied together.
    """
    caller = await probe.connect()
    for said in probe.draw(_MANY_TURNS, is_small_talk, words=1):
        await caller.ask(said)
    probe.ok(f"answers {_MANY_TURNS} turns")
    await _require_remembered(probe, caller)


def tells_a_name(said: Recording) -> bool:
    """Whether somebody tells their name in it."""
    return _NAMES.match(said.text) is not None


def is_small_talk(said: Recording) -> bool:
    """Whether it is about something else, which the embedded models answer in a sentence."""
    return _SMALL_TALK.search(said.text) is not None


def name_in(said: Recording) -> str:
    """The name that is told."""
    found = _NAMES.match(said.text)
    assert found is not None
    return found[1]


def _knows(answer: Answer, told: Recording) -> bool:
    return name_in(told) in normalise(answer.reply_text)


async def question_of_a_name(probe: Probe) -> Float32:
    """The question whether the caller's name is known, in the voice of the embedded models."""
    models = await asyncio.to_thread(Models.load)
    return await asyncio.to_thread(models.speak, probe.rng.choice(_QUESTIONS))


async def _ask_for_name(probe: Probe, caller: Caller) -> Answer:
    return await caller.ask(await question_of_a_name(probe))


async def _require_unknown(probe: Probe, caller: Caller, others: list[Recording]) -> None:
    """Make sure that a caller is told none of the names that others have told."""
    answer = await _ask_for_name(probe, caller)
    for other in others:
        if _knows(answer, other):
            raise NotYet(
                f"client {caller.number} to be told nothing of other callers",
                f'"{answer.reply_text}", after another caller had said "{other.text}"',
                event=answer.last,
            )
    probe.ok(f"tells client {caller.number} nothing that another client has said")


async def _require_remembered(probe: Probe, caller: Caller) -> Recording:
    """Make sure that a name is known three turns later; gives what told it."""

    async def transcript_of(said: Recording) -> str:
        return (await caller.ask(said)).transcript

    told = await tell_a_name(probe, transcript_of)
    for said in probe.draw(_TURNS_BETWEEN, is_small_talk, words=1):
        await caller.ask(said)
    answer = await _ask_for_name(probe, caller)
    if not _knows(answer, told):
        raise NotYet(
            f'"{name_in(told)}" in the reply to "{answer.transcript}"; {_TURNS_BETWEEN + 1} turns '
            f'before, the caller had said "{told.text}"',
            f'"{answer.reply_text}"',
            event=answer.last,
        )
    probe.ok(f'remembers "{told.text}", {_TURNS_BETWEEN} turns later')
    return told


async def tell_a_name(
    probe: Probe, transcript_of: Callable[[Recording], Awaitable[str]]
) -> Recording:
    """Tell drawn names until one of them is heard right; gives that one."""
    for told in probe.draw(_TRIES, tells_a_name, words=1):
        heard = await transcript_of(told)
        if name_in(told) in normalise(heard):
            return told
    raise NotYet(
        f'"{name_in(told)}" in the transcript of "{told.text}", or one of the {_TRIES - 1} other '
        "names in theirs",
        f'"{heard}"' if heard else "an empty transcript",
        event=probe.last,
    )


@dataclass(frozen=True, slots=True)
class Counts:
    """What a server's page of metrics says.

    Attributes:
        sessions: Callers that are here.
        held_bytes: Audio that is kept for all of them.
    """

    sessions: int
    held_bytes: int


async def read_counts(probe: Probe) -> Counts:
    """What the page says now."""
    page = await probe.page("/metrics")
    status = read_status(probe.server.url, page)
    if status.trouble or status.held_bytes is None:
        wanted = 'a line "sessions N" and a line "held_bytes N" in the page /metrics'
        raise NotYet(wanted, f"{page[:60]!r}" + (status.trouble and f": {status.trouble}"))
    return Counts(status.sessions.get("attached", status.session_count), status.held_bytes)


async def require_sessions(
    probe: Probe, wanted: int, after: str, *, or_fewer: bool = False, within_s: float = inf
) -> Counts:
    """Make sure that the server comes to count so many callers: coming and going take a moment.

    Args:
        probe: The check.
        wanted: How many.
        after: What has happened, for people.
        or_fewer: Sessions that others have left may go as well.
        within_s: Most seconds that it may take.
    """
    limit_s = min(probe.limit(_SETTLES_S), within_s)
    deadline_s = time.monotonic() + limit_s
    while (counts := await read_counts(probe)).sessions != wanted:
        if or_fewer and counts.sessions < wanted:
            break
        if time.monotonic() > deadline_s:
            raise NotYet(
                f'"sessions {wanted}" in /metrics, after {after}',
                f'still "sessions {counts.sessions}", {limit_s:.1f} s later',
                late=True,
            )
        await asyncio.sleep(_LOOK_S)
    return counts


@checked("ch2.activity", "The server tells how many callers are here.")
async def activity(probe: Probe) -> None:
    """`GET /metrics` over plain HTTP, while up to four clients come and go in a drawn order.

    The page is text with a number in each line, among them `sessions` and `held_bytes`; names may
    begin with `labkit_`.
    """
    before = await read_counts(probe)
    probe.ok("gives a page /metrics, with `sessions` and `held_bytes`")
    here: list[Caller] = []
    for comes in _comings(probe):
        if comes:
            here.append(await probe.connect())
        else:
            await here.pop(probe.rng.randrange(len(here))).close()
        after = "one more client came" if comes else "one of the clients hung up"
        await require_sessions(probe, before.sessions + len(here), after)
        probe.ok(f"counts {len(here)} of these clients, after {after}")


def _comings(probe: Probe) -> list[bool]:
    """Who comes (True) and who goes; there is always somebody to go."""
    steps = [True, True]
    while len(steps) < 7 or True not in steps[2:]:
        here = 2 * sum(steps) - len(steps)
        steps.append(here == 0 or (here < 4 and probe.rng.random() < 0.5))
    return steps


@checked("ch2.released", "What was kept for a caller is let go of, however they leave.")
async def released(probe: Probe) -> None:
    """Clients say half a recording each, and no `end_stream`. Then every second one hangs up.

    Then the others go away without a word. `/metrics` is read before, between and after.
    """
    before = await read_counts(probe)
    sent, callers = 0, [await probe.connect() for _ in range(2 * probe.rng.randint(2, 4))]
    for caller in callers:
        samples = read_audio(probe.draw(1)[0].path)
        await caller.say(samples[: len(samples) // 2])
        sent += len(samples) // 2 * 2
        await caller.send("ping")
        await caller.expect("pong")
    held = (await read_counts(probe)).held_bytes - before.held_bytes
    if not 0.75 * sent <= held <= 2 * sent:  # as floats, it is twice as much
        raise NotYet(
            f"held_bytes to grow by {sent:,} or so: as many bytes of audio were sent",
            f"it grew by {held:,}",
        )
    probe.ok(f"keeps the audio of {len(callers)} clients")
    for leaver in callers[::2]:
        await leaver.close()
    await require_sessions(
        probe, before.sessions + len(callers) // 2, "half of the clients hung up"
    )
    probe.ok("lets go of those that hang up")
    for leaver in callers[1::2]:
        leaver.drop()
    counts = await require_sessions(probe, before.sessions, "the others went away without a word")
    probe.ok("lets go of those that go away without a word")
    if counts.held_bytes > before.held_bytes:
        raise NotYet(
            f"held_bytes {before.held_bytes:,}, as before they came",
            f"held_bytes {counts.held_bytes:,}",
        )
    probe.ok("keeps nothing of what they said")


@checked("ch2.leaves_mid_turn", "A caller who leaves in mid-turn harms nobody.")
async def leaves_mid_turn(probe: Probe) -> None:
    """Three clients say a recording and `end_stream`, and go away without a word, in a drawn order.

    One goes at once, one when the first message of its answer comes, one when the first audio
    comes. After each, another client says a recording, and `/metrics` is read. In the end, the log
    may hold no `ConnectionClosed` that the handler let out.
    """
    began_ns, before = time.perf_counter_ns(), await read_counts(probe)
    moments = ["at once", "as its answer began", "in the middle of the reply"]
    probe.rng.shuffle(moments)
    for moment in moments:
        leaver = await probe.connect()
        await require_sessions(probe, before.sessions + 1, "a client came")
        await leaver.say(probe.draw(1)[0])
        await leaver.send("end_stream")
        if moment == "as its answer began":
            await leaver.next("an answer")
        while moment == "in the middle of the reply":
            if isinstance((await leaver.next("audio of the reply")).payload, bytes):
                break
        leaver.drop()
        await require_sessions(probe, before.sessions, f"a client went away {moment}")
        probe.ok(f"lets go of a client that went away {moment}")
        said = probe.draw(1)[0]
        async with probe.caller() as other:
            probe.require_heard(said, await other.ask(said))
        await require_sessions(probe, before.sessions, "the next client hung up")
        probe.ok("answers the next client")
    if probe.server.let_out(began_ns):
        raise NotYet(
            "a handler that ends when its caller has gone away",
            "it let `ConnectionClosed` out: websockets takes that for a fault, and writes its "
            "traceback into the log",
        )
    probe.ok("takes nobody's leaving for a fault")


CHECKS: Final = (
    sessions_isolated, history_remembers, history_bounded, activity, released, leaves_mid_turn,
)  # fmt: skip
"""In the order in which the chapter comes to them."""
