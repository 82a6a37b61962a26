"""The checks of chapter 4: lost connections, wrong formats, slow readers, absence, crashes."""

import asyncio
import json
import random
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any, Final
from urllib.parse import urlsplit

import numpy as np
from websockets.exceptions import InvalidStatus

from labkit.audio.formats import AudioFormat
from labkit.audio.pcm import SAMPLE_RATE, Encoding, Float32, encode_s16le, read_audio
from labkit.course.checks.ch2 import (
    is_small_talk,
    name_in,
    question_of_a_name,
    read_counts,
    require_sessions,
    tell_a_name,
)
from labkit.course.checks.check import checked
from labkit.course.conversation import Conversation
from labkit.course.probe import Caller, Probe, halves
from labkit.course.verdict import CannotTell, NotYet
from labkit.errors import ServerError
from labkit.measure.links import Conditions, Fault, Link
from labkit.measure.netem import UNCHANGED, Proxy
from labkit.measure.wer import normalise
from labkit.protocol.v1 import SUBPROTOCOL

_UNKNOWN: Final = "session_unknown"
_NOTHING: Final = {"messages": 0, "samples": 0}
_TOKEN: Final = 22
"""Characters of 128 bits in base64: fewer can be guessed."""
_ALIKE: Final = 8
_TAKEN_OVER: Final = 4006
_TRY_LATER: Final = 1013
_CUTS: Final = 6
_CUT_BYTES: Final = (3_000, 60_000)
"""Behind the handshake and `session.started`."""
_MOST_UNACKNOWLEDGED: Final = 512 * 1024
_LOOKS: Final = 6
_MOST_CALLERS: Final = 100
_LONGEST_WAIT_S: Final = 10.0


@checked("ch4.resume_keeps", "A conversation survives its connection.")
async def resume_keeps(probe: Probe) -> None:
    """A name, then half of a recording; the connection is dropped. `session.start` with `resume`.

    Then the other half, `audio.end`: the transcript has all of it, and it is the next turn.
    `/metrics` is read before and after: the connection that came back has no second session. In
    the third turn it asks for the name, drops behind `audio.end` and a `ping`, and comes back after
    as long as a turn took. All of the answer has to come then, with the name in it.
    """
    before = (await read_counts(probe)).sessions
    talk = await Conversation.begin(probe)
    named = await tell_a_name(probe, talk.transcript_of)
    probe.ok("answers a turn")
    second = probe.draw(1, is_small_talk)[0]
    half, rest = halves(second)
    await talk.say(half)
    await talk.settle()
    talk.caller.drop()
    await talk.resume()
    _same(talk.place, "samples", talk.sent_samples, probe)
    _same(talk.place, "messages", talk.turns, probe)
    probe.ok("goes on with the session, and knows how much of the utterance it has")
    await require_sessions(probe, before + 1, "a client came back to its session", or_fewer=True)
    probe.ok("lets go of the session with which the new connection began")
    turns, started_s = talk.done["turn"], time.monotonic()
    again = await talk.ask(rest, about=second)
    turn_s = time.monotonic() - started_s
    _same(again.done, "turn", turns + 1, probe)
    probe.ok("hears both halves as one utterance, in the next turn of the same conversation")
    await talk.say(await question_of_a_name(probe))
    await talk.end()
    await talk.settle()
    talk.caller.drop()
    await asyncio.sleep(turn_s)
    await talk.resume()
    try:
        await talk.take_in(talk.ended)
    except NotYet as lost:
        told = "all of the answer that was made while nobody was connected"
        raise lost.expecting(f"{told}: {lost.expected}") from lost
    probe.ok("keeps what it answers while nobody is connected")
    name, reply = name_in(named), str(talk.done.get("text"))
    if name not in normalise(reply):
        raise NotYet(
            f'"{name}" in the reply to "{talk.heard}"; before the connection was lost, the caller '
            f'had said "{named.text}"',
            f'"{reply}"',
            event=probe.last,
        )
    probe.ok(f'knows what was said on an earlier connection: "{named.text}"')


def _same(message: Mapping[str, Any], key: str, expected: object, probe: Probe) -> None:
    if message.get(key) != expected:
        told = f'"{key}": {message[key]!r}' if key in message else f'no "{key}"'
        raise NotYet(f'"{key}": {expected!r} in "{_TYPES[key]}"', told, event=probe.last)


_TYPES: Final = {"turn": "response.done", "samples": "received", "messages": "received"}
"""Where each of these fields stands."""


@checked("ch4.nothing_lost", "A cut at any byte loses nothing, and repeats nothing.")
async def nothing_lost(probe: Probe) -> None:
    """Turns through a proxy that cuts each connection at a drawn byte, up or down, six times.

    `acknowledges` is true; some of what came is acknowledged. After each cut, the client resumes
    at a place behind its last acknowledgement, and compares what then comes again with what it
    had. In the end, samples, numbers and words must be those of a connection that never broke.
    """
    address = urlsplit(probe.server.url)
    if address.scheme != "ws":
        raise CannotTell("the proxy that cuts connections knows ws:// only")
    plans = [_cut(probe.rng, up=bool(number % 2)) for number in range(_CUTS)]
    cuts = 0
    async with Proxy(
        address.hostname or "localhost",
        address.port or 80,
        conditions=lambda number: plans[number] if number < _CUTS else UNCHANGED,
    ) as proxy:
        talk = await Conversation.begin(probe, url=proxy.url(), acknowledges=True)
        turns = 0
        while cuts < _CUTS:
            said = probe.draw(1)[0]
            await talk.say(said)
            await talk.end()
            turns += 1
            while not await talk.take_turn(said, turns):
                cuts += 1
                talk.forget()
                await talk.resume(url=proxy.url())
                await talk.send_again()
        probe.ok(f"answers every turn over {cuts} cuts, no sample lost, and none repeated")
        await talk.settle()
    _require_acknowledged(talk, turns)
    probe.ok("has acknowledged all that was sent, and no more")


def _require_acknowledged(talk: Conversation, turns: int) -> None:
    """Make sure that the server says of all that was sent that it has it."""
    has = {"messages": turns, "samples": talk.sent_samples}
    if talk.acknowledged != has:
        raise NotYet(
            f'an `audio.ack` with "received": {json.dumps(has)}, all that was sent',
            f"the last one says {json.dumps(talk.acknowledged)}",
            off=talk.off_by(talk.acknowledged["samples"], talk.sent_samples),
            event=talk.last_ack,
        )


def _cut(rng: random.Random, *, up: bool) -> Conditions:
    link = Link(cut_after=rng.randint(*_CUT_BYTES), fault=rng.choice((Fault.CLOSE, Fault.RESET)))
    return Conditions(up=link) if up else Conditions(down=link)


@checked("ch4.tokens", "A session is resumed by its own client only.")
async def tokens(probe: Probe) -> None:
    """Three sessions. One is resumed with wrong tokens, then with its own.

    These tokens are wrong: its own with all characters in another order; that of another session;
    the first half of its own; its own with the second half backwards; its own with capitals for
    small letters, and small letters for capitals; its own with a letter that is not ASCII; an empty
    one. Then its own token comes with a position in the reply that was never sent. While a resume
    is refused, the session's own client keeps its connection. Then this client comes back, three
    times. The token changes with each resume. The one before stays good until the new one was used.
    """
    talks = [await Conversation.begin(probe) for _ in range(3)]
    _require_secret([talk.token for talk in talks])
    probe.ok("gives each session a token of its own, too long to be guessed")
    mine, other, _ = talks
    first = mine.token
    half = len(first) // 2
    for token, what in (
        ("".join(probe.rng.sample(first, len(first))), "a made-up token"),
        (other.token, "the token of another session"),
        (first[:half], "the first half of its token"),
        (first[:half] + first[: half - 1 : -1], "its token with the second half backwards"),
        (first.swapcase(), "its token with capitals for small letters"),
        (f"{first[:-1]}é", "its token with a letter that is not ASCII"),
        ("", "an empty token"),
    ):
        await _require_refused(probe, mine, token, what)
    probe.ok("refuses a wrong token with `session_unknown`, and keeps the connection")
    nowhere = {"messages": probe.rng.randint(1, 99), "samples": 0}
    what = f"its own token, and a place that was never sent: {json.dumps(nowhere)}"
    await _require_refused(probe, mine, first, what, "position_invalid", nowhere)
    try:
        await mine.settle()
    except NotYet as lost:
        wanted = "the session's own client to keep its connection, since each resume was refused"
        raise lost.expecting(wanted) from lost
    probe.ok("refuses a place that was never sent, and leaves the session to its client")
    mine.caller.drop()
    await mine.resume()
    second = mine.token
    if second == first:
        raise NotYet("a new token with each resume", "the same one again", event=probe.last)
    mine.caller.drop()
    await _resume_with_the_one_before(mine, first)
    probe.ok("gives a new token with a resume, and takes the one before until that is used")
    third = mine.token
    mine.caller.drop()
    await mine.resume(token=third)
    await _require_refused(probe, mine, first, "a token from before the last one that was used")
    probe.ok("refuses a token once a newer one was used")


async def _resume_with_the_one_before(talk: Conversation, token: str) -> None:
    """Come back with a token that is still good: its successor may have been lost."""
    try:
        await talk.resume(token=token)
    except NotYet as fault:
        raise fault.expecting(
            f"{fault.expected}, for the token that the last resume came with: the client shows it "
            "again where the answer with the new one was lost"
        ) from fault


def _require_secret(found: list[str]) -> None:
    for token in found:
        if len(token) < _TOKEN:
            raise NotYet(
                f"tokens of {_TOKEN} characters or more, which nobody can guess",
                f'"{token}"',
                off=f"{_TOKEN - len(token)} characters too short",
            )
    for one, two in zip(found, found[1:], strict=False):
        differ = sum(a != b for a, b in zip(one, two, strict=False))
        if differ < _ALIKE:
            raise NotYet(
                "tokens that say nothing about each other",
                f'"{one}" and "{two}", which differ in {differ} characters',
            )


async def _require_refused(
    probe: Probe,
    talk: Conversation,
    token: str,
    what: str,
    code: str = _UNKNOWN,
    place: Mapping[str, int] = _NOTHING,
) -> None:
    """A resume is refused, and the connection can still begin a session."""
    caller = await probe.connect("/", protocol=SUBPROTOCOL)
    await _resume(caller, talk.session, token, place)
    wanted = f'JSON {{"type": "error", "code": "{code}", …}} for {what}'
    number = await caller.next_number(wanted)
    message = caller.json_of(number, wanted)
    if message["type"] == "session.started":
        raise NotYet(wanted, "`session.started`", event=number)
    caller.require_fields(number, message, {"type": "error", "code": code})
    await caller.send_json("session.start")
    await caller.expect_json("session.started", resumed=False)


async def _resume(
    caller: Caller, session: str, token: str, place: Mapping[str, int] = _NOTHING
) -> None:
    resume = {"session": session, "token": token, "received": place}
    await caller.send_json("session.start", resume=resume)


@checked("ch4.takeover", "A client that comes back takes its session from the old connection.")
async def takeover(probe: Probe) -> None:
    """Half of a recording; a second connection resumes while the first is open and goes on sending.

    The first is closed with 4006, and what it still sent is ignored: the second sends the other
    half, and the transcript is right. When a session that waits would be let go, the second is
    dropped, and resumes.
    """
    talk = await Conversation.begin(probe)
    said = probe.draw(1)[0]
    half, rest = halves(said)
    await talk.say(half)
    await talk.settle()
    old = talk.caller
    await talk.resume()
    probe.ok("lets a second connection resume, while the first is still open")
    noise = np.random.default_rng(probe.rng.randrange(9999)).normal(0, 0.2, SAMPLE_RATE)
    await old.send(encode_s16le(noise.astype(np.float32)))
    closed = await old.closed()
    if closed is None or closed.code != _TAKEN_OVER:
        raise NotYet(
            f"the first connection to be closed with {_TAKEN_OVER}",
            f"code {closed.code}" if closed else "that it stays open",
            event=probe.last,
        )
    probe.ok(f"closes the first connection with {_TAKEN_OVER}")
    await talk.ask(rest, about=said)
    probe.ok("hears what the second one says, and nothing more of the first")
    waits_s = _wait_told(probe, talk)
    if waits_s > _LONGEST_WAIT_S:
        return
    await asyncio.sleep(waits_s + 1)
    talk.caller.drop()
    try:
        await talk.resume()
    except NotYet as lost:
        when = f"{waits_s + 1:g} s after the first connection was closed"
        raise lost.expecting(f"a session that its client may come back to, {when}") from lost
    probe.ok("goes on when a session that waits would be let go")


@checked("ch4.wrong_format", "Audio that is not what was declared is named.")
async def wrong_format(probe: Probe) -> None:
    """Two recordings as 16-bit integers, as declared; then otherwise than declared, in drawn order.

    That is: as floats, with the high byte first, one of them as a WAV file in one message; each on
    a connection of its own. The error has to come before `response.done`. All of it counts as
    received, and of the file, whose samples are right, the words have to be heard. One client
    declares floats, and sends up to eight recordings as integers. Then come an odd number of bytes,
    of which nothing counts, and a recording as declared.
    """
    talk = await _send_as(probe, "", encode_s16le)
    probe.ok("finds nothing wrong with audio that is right")
    wrong = list(_WRONG.items())
    probe.rng.shuffle(wrong)
    for code, encode in wrong:
        talk = await _send_as(probe, code, encode)
        probe.ok(f"names it: `{code}`, and takes it all the same")
    await _send_integers_as_floats(probe)
    probe.ok(f"names it: `{_INTEGERS}`")
    said = probe.draw(1)[0]
    await talk.caller.send(probe.rng.randbytes(probe.rng.randrange(101, 640, 2)))
    await talk.say(said)
    await talk.end()
    await talk.until("response.done", errors=True)
    talk.require_heard(said)
    await talk.settle()
    _require_acknowledged(talk, 2)
    probe.ok("goes on with the session, and counts nothing of half a sample")


def _with_header(samples: Float32) -> bytes:
    data = encode_s16le(samples)
    size = len(data).to_bytes(4, "little")
    form = bytes.fromhex("10000000 0100 0100 803e0000 007d0000 0200 1000".replace(" ", ""))
    return b"RIFF" + size + b"WAVEfmt " + form + b"data" + size + data


_INTEGERS: Final = "looks_like_int16"
_MOST_SAID: Final = 8
_WRONG: Final[Mapping[str, Callable[[Float32], bytes]]] = {
    "looks_like_float32": lambda samples: samples.astype("<f4").tobytes(),
    "looks_like_big_endian": lambda samples: (samples * 32767).astype(">i2").tobytes(),
    "looks_like_file": _with_header,
}


async def _send_as(probe: Probe, code: str, encode: Callable[[Float32], bytes]) -> Conversation:
    """Say recordings in one encoding, and make sure which error comes; none for no code."""
    talk = await Conversation.begin(probe)
    is_file = encode is _with_header
    said = probe.draw(1 if is_file else 2)
    data = encode(np.concatenate([read_audio(one.path) for one in said]))
    await talk.say_bytes(data, len(data) if is_file else 0)
    await talk.end()
    _require_named(probe, await talk.until("response.done", errors=True), code)
    if is_file:
        talk.require_heard(said[0], "; what looks wrong is taken all the same")
    await talk.settle()
    _require_acknowledged(talk, 1)
    return talk


async def _send_integers_as_floats(probe: Probe) -> None:
    """Declare floats, and send integers until the error comes: of some voices, it takes longer."""
    talk = await Conversation.begin(probe, AudioFormat(Encoding.PCM_F32LE))
    size, told = 4 * probe.rng.randint(600, 1600), list[dict[str, Any]]()
    for said in probe.draw(_MOST_SAID):
        samples = read_audio(said.path)
        await talk.say_bytes(encode_s16le(samples[: len(samples) // 2 * 2]), size)
        await talk.caller.send_json("ping")
        told += await talk.until("pong", errors=True)
        if any(one.get("code") == _INTEGERS for one in told):
            break
    _require_named(probe, told, _INTEGERS)


def _require_named(probe: Probe, told: list[dict[str, Any]], code: str) -> None:
    """Make sure that, of all errors about an encoding, this one came; none for no code."""
    codes = [str(one.get("code")) for one in told if one["type"] == "error"]
    named = [one for one in codes if one.startswith("looks_like_")]
    if named != ([code] if code else []):
        raise NotYet(
            f'JSON {{"type": "error", "code": "{code}", …}} before `{told[-1]["type"]}`'
            if code
            else "no error about audio that is right",
            f"the codes {', '.join(dict.fromkeys(codes))}" if codes else "no error",
            event=probe.last,
        )


@checked(
    "ch4.slow_reader", "Who does not take their reply costs a bounded amount, and harms nobody."
)
async def slow_reader(probe: Probe) -> None:
    """Client 1 says that it acknowledges, asks again and again, and acknowledges nothing.

    No more than 512 KiB may be sent to it. Client 2 has its turns meanwhile. Then client 1
    acknowledges what came, and does the same once more. In the end it acknowledges all that comes,
    and the rest comes.
    """
    slow = await Conversation.begin(probe, output=_WIDE, acknowledges=True)
    other = await Conversation.begin(probe)
    turns = await _until_it_stops(probe, slow, other, 0)
    probe.ok("stops the reply where nothing is acknowledged, and answers `ping`")
    probe.ok("answers another client meanwhile")
    await slow.acknowledge()
    await slow.take_one("more of the reply, since all that came of it is acknowledged")
    turns = await _until_it_stops(probe, slow, other, turns)
    probe.ok("goes on when that is acknowledged, and stops again")
    while slow.turns < turns:
        await slow.acknowledge()
        await slow.until("response.done", acknowledging=True)
    probe.ok("goes on when it is acknowledged, to the last sample")


async def _until_it_stops(probe: Probe, slow: Conversation, other: Conversation, turns: int) -> int:
    """Ask for more and more, until no more of it comes; gives how many turns were asked for."""
    start, before = len(slow.came), -1
    for _ in range(_LOOKS):
        if slow.turns == turns:  # all of it was sent: more has to be asked for
            for said in probe.draw(3):
                await slow.say(said)
                await slow.end()
            turns += 3
        await other.ask(probe.draw(1)[0])
        await slow.settle()
        came = len(slow.came) - start
        if came > _MOST_UNACKNOWLEDGED:
            raise NotYet(
                "a reply that waits for acknowledgements after 512 KiB",
                f"{came:,} bytes, and none of them acknowledged",
                event=probe.last,
            )
        if came == before and slow.turns < turns:
            return turns
        before = came
    raise CannotTell("the replies were too short to find out where they stop")


_WIDE: Final = AudioFormat(sample_rate=48_000)


@checked("ch4.abandoned", "A session that nobody comes back to is let go of.")
async def abandoned(probe: Probe) -> None:
    """A plain client and one that begins nothing go away without a word; `/metrics` is read.

    Then two sessions are dropped, and one of them is resumed. Where `limits` of `session.started`
    say that a session waits for 10 s or less, that time and a second more passes. Then the other
    one is gone, and the one that was resumed can be dropped and resumed once more.
    """
    before = (await read_counts(probe)).sessions
    back = await Conversation.begin(probe)
    waits_s = _wait_told(probe, back)
    await _leave_for_good(probe, before + 1, waits_s)
    gone = await Conversation.begin(probe)
    for talk in (back, gone):
        talk.caller.drop()
    await back.resume()
    probe.ok("keeps a session for a client that comes back")
    if waits_s > _LONGEST_WAIT_S:
        probe.ok(f"says that a session waits for {waits_s:g} s, too long to be waited for here")
        return
    await asyncio.sleep(waits_s + 1)
    await _require_refused(probe, gone, gone.token, f"a session that waits for {waits_s + 1:g} s")
    probe.ok(f"lets a session go after the {waits_s:g} s that it tells")
    back.caller.drop()
    try:
        await back.resume()
    except NotYet as lost:
        told = "a session that goes on for as long as its client is there, which came back in time"
        raise lost.expecting(told) from lost
    probe.ok("keeps a session whose client came back in time")


async def _leave_for_good(probe: Probe, most: int, waits_s: float) -> None:
    plain = await probe.connect()
    await plain.say(read_audio(probe.draw(1)[0].path))
    idle = await probe.connect("/", protocol=SUBPROTOCOL)
    plain.drop()
    idle.drop()
    why = (
        "clients went away to whose sessions nobody can come back: a plain one, and an unbegun one"
    )
    await require_sessions(probe, most, why, or_fewer=True, within_s=waits_s / 2)
    probe.ok("does not let sessions wait to which nobody can come back")


def _wait_told(probe: Probe, talk: Conversation) -> float:
    """How long the server says that a session waits for its client, in seconds."""
    limits = talk.started.get("limits")
    waits_s = limits.get("resume_s") if isinstance(limits, dict) else None
    if not isinstance(waits_s, int | float) or waits_s <= 0:
        raise NotYet('"limits": {"resume_s": …} in `session.started`', "none", event=probe.last)
    return float(waits_s)


@checked("ch4.too_many", "Who finds no place is told so, and those who have one keep it.")
async def too_many(probe: Probe) -> None:
    """Up to 100 clients, each with a `ping`, until one is refused.

    Then one goes away without a word, and its place is for the next one.

    Polite is HTTP status 503 or 429 with `Retry-After`, or close code 1013 with a reason.
    """
    async with AsyncExitStack() as stack:
        callers: list[Caller] = []
        while len(callers) < _MOST_CALLERS:
            caller = await _place(probe, stack)
            if caller is None:
                break
            callers.append(caller)
        else:
            raise NotYet(
                f"a refusal, at the latest of client {_MOST_CALLERS}",
                f"{_MOST_CALLERS} clients at once, and no end to it",
                event=probe.last,
            )
        if len(callers) < 2:
            raise NotYet("two clients at once", "that the second is refused", event=probe.last)
        probe.ok(f"has {len(callers)} places, and refuses the next client politely")
        await callers[0].send("ping")
        await callers[0].expect("pong")
        probe.ok("goes on with those who have a place")
        callers[1].drop()
        deadline_s = time.monotonic() + probe.limit(2)
        while await _place(probe, stack) is None:
            if time.monotonic() > deadline_s:
                raise NotYet(
                    "a place again when a client has gone away without a word",
                    "none", event=probe.last,
                )  # fmt: skip
            await asyncio.sleep(0.05)
        probe.ok("has a place again when a client has gone away without a word")


async def _place(probe: Probe, stack: AsyncExitStack) -> Caller | None:
    """One more client; None where it is refused politely."""
    try:
        caller = await stack.enter_async_context(probe.caller())
    except NotYet as refused:
        if _is_polite(refused.__cause__):
            return None
        raise
    await caller.send("ping")
    number = await caller.number_or_end("`pong`, or a refusal")
    if number is not None and probe.events[number].payload == "pong":
        return caller
    closed = await caller.closed()
    if closed is not None and closed.code == _TRY_LATER and closed.reason:
        return None
    raise NotYet(
        "`pong`, or politely: status 503 with Retry-After, or close code 1013 with a reason",
        "neither" if closed is None else f"close code {closed.code}, reason {closed.reason!r}",
        event=probe.last,
    )


def _is_polite(error: BaseException | None) -> bool:
    if not isinstance(error, InvalidStatus):
        return False
    response = error.response
    return response.status_code in (429, 503) and "Retry-After" in response.headers


@checked("ch4.killed", "A server that was killed starts again, and says what it has lost.")
async def killed(probe: Probe) -> None:
    """A turn; the server is killed, and started again; resume, `session.start`, a turn.

    A server at an address, or in the notebook, cannot be killed from here; it is asked for a
    session that it never had, as it would be after a restart.
    """
    talk = await Conversation.begin(probe)
    await talk.ask(probe.draw(1)[0])
    probe.ok("answers a turn")
    try:
        await probe.server.restart()
    except ServerError:
        talk.session = "".join(probe.rng.sample("0123456789abcdef", 16))
    else:
        probe.ok("was killed, and takes callers again")
    await _require_refused(probe, talk, talk.token, "a session that this server does not know")
    probe.ok("tells a client that its session is gone, and offers a new one")
    await (await Conversation.begin(probe)).ask(probe.draw(1)[0])
    probe.ok("answers a turn of the new session")


CHECKS: Final = (
    resume_keeps, nothing_lost, tokens, takeover, wrong_format, slow_reader, abandoned, too_many,
    killed,
)  # fmt: skip
"""In the order in which the chapter comes to them."""
