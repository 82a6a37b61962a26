"""The checks of chapter 1: one caller, audio in, words and speech out, and `ping` all the while."""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import numpy as np

from labkit.audio.formats import WIRE, AudioFormat
from labkit.audio.misread import FormatWatch
from labkit.audio.pcm import SAMPLE_RATE, Float32, encode_s16le, read_audio, resample
from labkit.course.checks.check import checked
from labkit.course.models import Models
from labkit.course.probe import Answer, Caller, Probe, halves
from labkit.course.verdict import CannotTell, Caret, NotYet
from labkit.measure.recordings import Recording
from labkit.measure.wer import normalise
from labkit.tasks import stop

_DIGITS: Final = frozenset("zero one two three four five six seven eight nine".split())
_SENTENCE_END: Final = re.compile(r"(?<=[.!?])\s+")
_OTHER_RATES: Final = (8_000, 22_050, 24_000, 32_000, 44_100, 48_000)
"""Rates of other voices; as 32 kHz sounds what has each sample twice, for two channels."""
_BLOCK_S: Final = 0.02
_SPOKEN: Final = 0.4
"""Share of a reply's frames in which the detector hears speech; of labkit's voice, 0.7 to 0.9."""
_LONGEST_PIECE_S: Final = 1.0
_AHEAD: Final = 0.12
"""Share of a turn by which the first sound comes before the last, where the reply streams: 0.22 at
least, and 0.06 at most where it is only sent in pieces."""
_AHEAD_IN: Final = 2
"""Replies in which it has to, where so many have two sentences: one may be held up by chance."""
_TRIES: Final = 4
_GOOD, _LATE, _UNCLEAR = 3, 3, 12
"""Turns that decide: without a late pong, with one, or with one that nothing follows from."""
_LOOK_S: Final = 0.002
_SHARE_OF_A_PONG: Final = 0.5
_SHARE_OF_A_TURN: Final = 0.25
_BLOCKED: Final = 0.5
"""A pong that takes more of a turn than this was not read at all, on a busy machine too."""
_TIMES_IDLE: Final = 20
_FITS_S: Final = (45, 55)
"""Seconds of audio that one utterance has to take, at least and at most."""
_FULL_S: Final = 75
"""Seconds that are too many for any."""
_SLIVER: Final = 640
"""Bytes of a short chunk, 20 ms."""
_LOST_S: Final = 0.01
"""How much shorter a reply may be than what the voice gives for its text, for each sentence."""


@checked("ch1.pong", "`ping` is answered with `pong`, at once.")
async def pong(probe: Probe) -> None:
    """Text `ping` three times, then audio with one `ping` in its middle, then nothing."""
    caller = await probe.connect()
    for _ in range(3):
        await caller.send("ping")
        await caller.expect("pong")
    probe.ok("answers `ping` with `pong`, three times")
    first, second = halves(probe.draw(1)[0])
    await caller.say(first)
    await caller.send("ping")
    await caller.say(second)
    await caller.expect("pong")
    await caller.expect_quiet("since audio has no answer of its own")
    probe.ok("answers a `ping` between chunks of audio, and nothing else")


@checked("ch1.pong_while_busy", "`ping` is answered while somebody else's turn runs.")
async def pong_while_busy(probe: Probe) -> None:
    """Client 1 says a recording and `end_stream`; client 2 sends `ping` all the while.

    In three of five turns, no `pong` may take longer than 20 times an idle one, or a quarter of the
    turn: a machine that is busy with something else delays a few, a frozen server nearly all. A
    turn in which this client was held up as well says nothing, and is none of the five.
    """
    speaker, pinger = await probe.connect(), await probe.connect()
    idle = [await _round_trip(pinger) for _ in range(20)]
    idle_s = sorted(idle)[len(idle) // 2]
    probe.ok("answers `ping` when nobody speaks")
    await speaker.ask(probe.draw(1)[0])  # the first turn of a server is slower than the others
    good = late = unclear = 0
    while good < _GOOD:
        await speaker.say(probe.draw(1)[0])
        async with _held_up() as waits:
            turn_s, slowest_s, slowest = await _slowest_pong(probe, speaker, pinger)
        limit_s = max(_TIMES_IDLE * idle_s, _SHARE_OF_A_TURN * turn_s)
        if slowest_s <= limit_s:
            good += 1
        elif max(waits, default=0.0) > _SHARE_OF_A_PONG * slowest_s:
            unclear += 1
        else:
            late += 1
        if unclear == _UNCLEAR:
            raise CannotTell("the machine is too busy: this client itself was held up for as long")
        if late == _LATE:
            raise NotYet(
                f"every pong within {limit_s * 1e3:.0f} ms (a quarter of the turn, or "
                f"{_TIMES_IDLE} idle pongs if that is more)",
                f"a pong that took {slowest_s * 1e3:.0f} ms, while client 1 was answered",
                off=f"{(slowest_s - limit_s) * 1e3:.0f} ms; it took "
                f"{slowest_s / idle_s:.0f} times as long as an idle one",
                event=slowest,
                # A machine with other work makes turn and pong late; this is a share of the turn,
                # and this client, on the same machine, was on time.
                late=slowest_s < _BLOCKED * turn_s,
            )
    probe.ok("answers every `ping` while another caller's turn runs")


@asynccontextmanager
async def _held_up() -> AsyncIterator[list[float]]:
    """By how many seconds this program itself came too late, again and again."""
    waits: list[float] = []

    async def wait() -> None:
        while True:
            started_s = time.perf_counter()
            await asyncio.sleep(_LOOK_S)
            waits.append(time.perf_counter() - started_s - _LOOK_S)

    waiting = asyncio.create_task(wait())
    try:
        yield waits
    finally:
        await stop(waiting)


async def _slowest_pong(probe: Probe, speaker: Caller, pinger: Caller) -> tuple[float, float, int]:
    """Seconds of a turn, of its slowest pong, and that pong's number among the events."""
    turn = asyncio.ensure_future(speaker.end())
    round_trips = []
    try:
        while not turn.done():
            round_trips.append((await _round_trip(pinger), len(probe.events) - 1))
            await asyncio.sleep(_LOOK_S)
    finally:
        answer = await turn
    return answer.seconds, *max(round_trips)


async def _round_trip(caller: Caller) -> float:
    sent_ns = await caller.send("ping")
    return (await caller.expect("pong") - sent_ns) / 1e9


@checked("ch1.transcript", "What was said comes back as a transcript.")
async def transcript(probe: Probe) -> None:
    """Three recordings, each on a connection of its own, in chunks of a drawn length.

    Half of the words may be wrong: small models mishear.
    """
    for said in probe.draw(3):
        async with probe.caller() as caller:
            probe.require_heard(said, await caller.ask(said))
        probe.ok(f'hears "{said.text}"')


@checked("ch1.reply_is_speech", "The reply is speech: 16-bit samples at 16 kHz, and nothing else.")
async def reply_is_speech(probe: Probe) -> None:
    """A recording with digits in it. A detector and a recogniser listen to the reply."""
    caller = await probe.connect()
    said = probe.draw(1, lambda one: digits_in(one.text) >= 3)[0]
    answer = await caller.ask(said)
    probe.require_heard(said, answer)
    _require_audio(answer)
    probe.ok(f"replies with {len(answer.samples) / SAMPLE_RATE:.1f} s of audio")
    models = await asyncio.to_thread(Models.load)
    await asyncio.to_thread(_require_own_words, models, answer)
    await require_speech(models, answer, WIRE)
    probe.ok("a voice activity detector hears speech in it")
    heard = await asyncio.to_thread(models.hear, answer.samples)
    if _same_audio(answer.samples, read_audio(said.path)):
        raise NotYet("a reply", "the caller's own recording", event=answer.last)
    if not set(normalise(heard)) & set(normalise(answer.reply_text)):
        raise NotYet(
            f'the words of its reply_text, "{answer.reply_text}"',
            f'"{heard}", which is what a recogniser makes of it',
            event=answer.last,
        )
    probe.ok("a recogniser finds words of its `reply_text` in it")


async def require_speech(models: Models, answer: Answer, form: AudioFormat) -> None:
    """Make sure that the reply is speech in that format, and in no other."""
    watch, size = FormatWatch(form), form.samples(_BLOCK_S) * form.frame_bytes
    for number, at in enumerate(range(0, len(answer.audio), size)):
        for found in watch.feed(answer.audio[at : at + size], round(number * _BLOCK_S * 1e9)):
            told = f"`{found.code}`: {found}"
            raise NotYet(f"a reply in {form}", told, event=answer.last)
    voiced = await asyncio.to_thread(models.voiced, heard_in(answer, form))
    share = sum(one > 0.5 for one in voiced) / len(voiced)
    if share < _SPOKEN:
        raise NotYet(
            f"speech, in {form}",
            "sound that a voice activity detector takes for something else: "
            f"{share:.0%} of the frames are speech, {_SPOKEN:.0%} would do",
            event=answer.last,
        )


def heard_in(answer: Answer, form: AudioFormat) -> Float32:
    """The reply at 16 kHz."""
    return resample(form.decode(answer.audio)[:, 0], form.sample_rate, SAMPLE_RATE)


def _require_own_words(models: Models, answer: Answer) -> None:
    """Make sure that the reply's words are spoken, at 16 kHz, where the voice is these models'."""
    whole = _spoken(models, answer.reply_text)
    for rate in _OTHER_RATES:
        if _same_audio(resample(answer.samples, rate, SAMPLE_RATE), whole):
            raise NotYet(
                f"{len(whole):,} samples, at {SAMPLE_RATE:,} a second",
                f"{len(answer.samples):,} samples: right at {rate:,} a second, wrong at this rate",
                event=answer.last,
            )
    other = normalise(answer.transcript) != normalise(answer.reply_text)
    if other and _same_audio(answer.samples, models.speak(answer.transcript)):
        raise NotYet(
            f'the words of its reply_text, "{answer.reply_text}"',
            f'the transcript, read aloud: "{answer.transcript}"',
            event=answer.last,
        )


def _spoken(models: Models, text: str) -> Float32:
    return np.concatenate([models.speak(one) for one in _SENTENCE_END.split(text)])


def digits_in(text: str) -> int:
    """How many words of a text are digits."""
    return sum(word in _DIGITS for word in text.split())


def _require_audio(answer: Answer) -> None:
    if not answer.audio:
        raise NotYet("a spoken reply", "no audio before `done`", event=answer.last)
    if answer.audio[:4] == b"RIFF":
        raise NotYet(
            "samples from the first byte on",
            "a WAV file: its header would be played as a click",
            caret=Caret.in_bytes(answer.audio, 0, 4, '"RIFF", in ASCII'),
            event=answer.last - len(answer.pieces),
        )
    odd = next((piece for _, piece in answer.pieces if len(piece) % 2), None)
    if odd is not None:
        raise NotYet(
            "whole samples of two bytes in each binary message",
            f"a binary message of {len(odd):,} bytes",
            event=answer.last,
        )


def _same_audio(one: Float32, other: Float32) -> bool:
    """Whether two recordings are nearly the same, sample by sample."""
    size = min(len(one), len(other))
    product = float(np.abs(one[:size] * other[:size]).sum())
    scale = float(np.sqrt((one[:size] ** 2).sum() * (other[:size] ** 2).sum()))
    return scale > 0 and product / scale > 0.95


@checked("ch1.loud_samples", "Loud samples keep their sign, both ways.")
async def loud_samples(probe: Probe) -> None:
    """A recording so loud that its peaks are clipped, at 32767 or −32768; then the reply's samples.

    From one sample to the next, a reply never jumps by more than three quarters of the whole range.
    """
    caller = await probe.connect()
    said = probe.draw(1)[0]
    answer = await caller.ask(_loud(read_audio(said.path)))
    probe.require_heard(said, answer)
    probe.ok("hears a recording whose peaks are clipped at full scale")
    samples = np.frombuffer(answer.audio[: len(answer.audio) // 2 * 2], "<i2").astype(np.int32)
    if not len(samples) or np.abs(samples).max() < 300:
        raise NotYet("a reply that can be heard", "silence", event=answer.last)
    jumps = np.abs(np.diff(samples))
    if (jumps > 49_152).any():
        at = int((jumps > 49_152).argmax())  # the first: a flipped sample is jumped to, and from
        before, after = int(samples[at]), int(samples[at + 1])
        raise NotYet(
            f"a sample near {before} after a sample of {before}",
            f"{after}, at {(at + 1) / SAMPLE_RATE:.3f} s of the reply: the sign has flipped",
            off=f"{abs(after - before)} of 65536 steps",
            caret=_caret_at(answer.audio, 2 * at),
            event=answer.last,
        )
    probe.ok("no sample of the reply has flipped its sign")


def _loud(samples: Float32) -> Float32:
    """The recording, half as loud again as its loudest sample allows; understood as before."""
    return np.clip(samples / np.abs(samples).max() * 1.5, -1, 1)  # type: ignore[no-any-return]


def _caret_at(audio: bytes, at: int) -> Caret:
    return Caret.in_bytes(audio, at, 4, "two samples, low byte first")


@checked("ch1.odd_frame", "An odd number of bytes is refused, and the conversation goes on.")
async def odd_frame(probe: Probe) -> None:
    """Half of a recording, a message of an odd length, `ping`; the other half, `end_stream`."""
    caller = await probe.connect()
    said = probe.draw(1)[0]
    first, second = halves(said)
    await caller.say(first)
    size = probe.rng.randrange(1, 640, 2)
    await caller.send(probe.rng.randbytes(size))
    await caller.send("ping")  # so that a server which says nothing need not be waited for
    await caller.expect_json("error", code="odd_length")
    await caller.expect("pong")
    probe.ok(f"refuses a binary message of {size} bytes")
    await caller.say(second)
    probe.require_heard(said, await caller.end(), share=0.6)
    probe.ok("hears the recording around it")


@checked("ch1.empty_utterance", "Where nothing was said, the transcript is empty.")
async def empty_utterance(probe: Probe) -> None:
    """`end_stream` without any audio, `end_stream` after half a second of silence, a recording."""
    caller = await probe.connect()
    for what, seconds in (("no audio at all", 0.0), ("silence", 0.5)):
        answer = await caller.ask(np.zeros(round(seconds * SAMPLE_RATE), np.float32))
        if answer.transcript:
            raise NotYet(
                f"an empty transcript for {what}", f'"{answer.transcript}"', event=answer.heard
            )
        probe.ok(f"answers `end_stream` after {what} with an empty transcript")
    said = probe.draw(1)[0]
    probe.require_heard(said, await caller.ask(said))
    probe.ok("hears a recording after that")


@checked("ch1.bounded_buffer", "One caller cannot fill the memory.")
async def bounded_buffer(probe: Probe) -> None:
    """45 to 55 s of silence, `ping`; silence up to 75 s, `ping`; two recordings, `end_stream` each.

    What comes first has to be taken; before the 75 s are over, `buffer_full` has to come. What is
    said behind that, the first recording, is not heard; the second one is.
    """
    caller = await probe.connect()
    fits_s = probe.rng.randint(*_FITS_S)
    if refused := await _fill(caller, probe, fits_s):
        raise NotYet(
            f"{fits_s} s of audio, {fits_s * 32_000:,} bytes, to be taken",
            f"text {probe.events[refused[0]].payload!r} before that",
            event=refused[0],
        )
    probe.ok(f"takes {fits_s} s of audio")
    refused = await _fill(caller, probe, _FULL_S - fits_s)
    if not refused:
        raise NotYet(
            'JSON {"type": "error", "code": "buffer_full", …}',
            f"none: {_FULL_S * 32_000:,} bytes were taken, {_FULL_S} s of audio, and no end to it",
            event=len(probe.events) - 1,
        )
    message = caller.json_of(refused[0], "an error")
    caller.require_fields(refused[0], message, {"type": "error", "code": "buffer_full"})
    probe.ok(f"refuses what comes, before {_FULL_S} s have come")
    behind, said = probe.draw(2)
    answer = await caller.ask(behind)
    if answer.transcript:
        raise NotYet(
            f'an empty transcript: "{behind.text}" came when the buffer was full',
            f'"{answer.transcript}"',
            event=answer.heard,
        )
    probe.ok("has not kept what it refused")
    probe.require_heard(said, await caller.ask(said))
    probe.ok("has room again for the next utterance")


async def _fill(caller: Caller, probe: Probe, seconds: int) -> list[int]:
    """Send silence, then `ping`; gives the numbers of the refusals that come before `pong`.

    That it comes faster than anybody speaks is true, and refuses nothing.
    """
    second = encode_s16le(np.zeros(SAMPLE_RATE, np.float32))
    for _ in range(seconds - 1):
        await caller.send(second)
    for start in range(0, len(second), _SLIVER):  # so that no room is left for a shorter chunk
        await caller.send(second[start : start + _SLIVER])
    await caller.send("ping")
    came = []
    while probe.events[number := await caller.next_number("text 'pong'")].payload != "pong":
        if caller.json_of(number, "text 'pong'").get("code") != "audio_too_fast":
            came.append(number)
    return came


@checked("ch1.reply_streams", "The reply is sent while it is still being made.")
async def reply_streams(probe: Probe) -> None:
    """Up to four recordings whose reply often has two sentences; the times of the reply's messages.

    No message holds more than a second. Of two replies of two sentences, the first message comes
    clearly before the last: a machine that is busy may hold up the others. Where it is the voice of
    these models, no sentence may lose its end.
    """
    replies, found = set(), list[Answer]()
    for said in probe.draw(_TRIES, _asks_for_two_sentences, words=1):
        async with probe.caller() as caller:
            answer = await caller.ask(said)
        replies.add(answer.reply_text)
        _require_audio(answer)
        _require_pieces(answer)
        if _sentences(answer.reply_text) > 1:
            found.append(answer)
            if sum(map(_is_ahead, found)) == _AHEAD_IN:
                break
    if not found:
        if len(replies) == 1:
            raise NotYet(
                f"replies to {_TRIES} different recordings",
                f'the same each time, "{answer.reply_text}"',
                event=answer.last,
            )
        raise CannotTell("no reply had two sentences, so there was nothing to send ahead")
    first = found[0]
    probe.ok(f"sends the reply in {len(first.pieces)} messages")
    await asyncio.to_thread(_require_all_of_it, first, await asyncio.to_thread(Models.load))
    if sum(map(_is_ahead, found)) < min(_AHEAD_IN, len(found)):
        late = min(found, key=_ahead_s)
        ahead_s = _ahead_s(late)
        raise NotYet(
            "the first sentence while the second is still being made",
            f"all of it {ahead_s * 1e3:.0f} ms before the end, after "
            f"{(late.seconds - ahead_s) * 1e3:.0f} ms of waiting",
            event=late.last,
            late=True,
        )
    probe.ok("sends the first sentence while the second is still being made")


def _is_ahead(answer: Answer) -> bool:
    return _ahead_s(answer) >= _AHEAD * answer.seconds


def _ahead_s(answer: Answer) -> float:
    """By how much the first audio came before the end of the turn, in seconds."""
    return (answer.done_ns - answer.pieces[0][0]) / 1e9


def _asks_for_two_sentences(said: Recording) -> bool:
    return "my name is" in said.text or "is a session" in said.text


def _require_pieces(answer: Answer) -> None:
    longest = max(len(piece) for _, piece in answer.pieces) / 2 / SAMPLE_RATE
    if longest > _LONGEST_PIECE_S:
        raise NotYet(
            f"messages of {_LONGEST_PIECE_S:g} s of audio at most",
            f"one of {longest:.1f} s, which arrives as a whole or not at all",
            event=answer.last,
        )
    if answer.done.get("reply_samples", len(answer.samples)) != len(answer.samples):
        raise NotYet(
            f'"reply_samples": {len(answer.samples)}, the samples that came',
            f'"reply_samples": {answer.done["reply_samples"]}',
            event=answer.last,
        )


def _require_all_of_it(answer: Answer, models: Models) -> None:
    """Make sure that no sentence loses its end, where the reply is in the voice of these models."""
    sentences = _SENTENCE_END.split(answer.reply_text)
    whole = _spoken(models, answer.reply_text)
    first = round(_LOST_S * 10 * SAMPLE_RATE)
    lost = len(whole) - len(answer.samples)
    if lost <= _LOST_S * SAMPLE_RATE * len(sentences):
        return
    if _same_audio(answer.samples[:first], whole[:first]):
        raise NotYet(
            f'all {len(whole)} samples of "{answer.reply_text}"',
            f"{len(answer.samples)} samples",
            off=f"{lost / SAMPLE_RATE * 1e3:.0f} ms, which the ends of its sentences lack",
            event=answer.last,
        )


def _sentences(text: str) -> int:
    return sum(text.count(end) for end in ".!?")


@checked("ch1.two_turns", "A second turn on the same connection starts from nothing.")
async def two_turns(probe: Probe) -> None:
    """Two recordings, each with its `end_stream`, on one connection."""
    caller = await probe.connect()
    for said in probe.draw(2):
        probe.require_heard(said, await caller.ask(said))
        probe.ok(f'hears "{said.text}"')


CHECKS: Final = (
    pong, pong_while_busy, transcript, reply_is_speech, loud_samples, odd_frame, empty_utterance,
    bounded_buffer, reply_streams, two_turns,
)  # fmt: skip
"""In the order in which the chapter comes to them."""
