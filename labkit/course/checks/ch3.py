"""The checks of chapter 3: labkit.v1, its negotiation, its formats, and its refusals."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from labkit.audio.formats import AudioFormat
from labkit.audio.pcm import Encoding, Float32
from labkit.course.checks.ch1 import digits_in, heard_in, require_speech
from labkit.course.checks.check import checked
from labkit.course.conversation import Conversation
from labkit.course.models import Models
from labkit.course.probe import Answer, Probe
from labkit.course.verdict import NotYet
from labkit.measure.recordings import Recording
from labkit.measure.wer import normalise
from labkit.protocol.v1 import SUBPROTOCOL

_SEAM_DB: Final = -50.0
"""What lies above the speech's own band in a reply at 48 kHz, beside all of it, in its worst 10 ms.

Of four sentences of the embedded voice, -63 to -90 as a stream, -33 to -20 chunk by chunk."""
_BAND_HZ: Final = 9_000
_TINY_MS: Final = 2
"""A chunk of so little audio that resampling it by itself spoils it."""
_SHOWN: Final = 70
"""Characters of a wrong text that a report shows."""
_WIDE: Final = 48_000
_TELEPHONE: Final = 8_000
_LOW_VOICES: Final = ("kal", "slt-deep")
"""Whom the embedded recogniser understands over a telephone, of whose band it lacks the upper half.

Of the others' sentences, some come out with most words wrong.
"""


@checked("ch3.start", "`session.start` opens a session, in formats that both sides know.")
async def start(probe: Probe) -> None:
    """Two clients: `session.start` with drawn formats; one goes on to a whole conversation.

    It sends a recording with its `audio.end` and, without waiting for the answer, most of a second
    recording; the rest and its `audio.end` behind the answer; then `audio.end` alone.
    `session.started` has to repeat both formats, with a `session` and a `token` of that client's
    own. `seq` counts from 1, and `samples` is what came. A third client asks to `resume` a session
    that never was.
    """
    told = []
    for _ in range(2):
        one = await Conversation.connect(probe, _drawn(probe), _drawn(probe))
        told.append(await one.start())
    probe.ok("answers `session.start` with `session.started`, in the formats asked for")
    for key in ("session", "token"):
        if told[0][key] == told[1][key]:
            raise NotYet(f"a {key} of its own for each client", f"twice {told[0][key]!r}")
    probe.ok("gives each client a session and a token of its own")
    first, second = probe.draw(2, _low)
    await one.say(first)
    await one.end()
    audio = one.encoded(second)
    most = len(audio) * 3 // 4 // one.input.frame_bytes * one.input.frame_bytes
    await one.say_bytes(audio[:most])
    probe.require_heard(first, await one.answer())
    probe.ok("answers `audio.end` with `transcript.final`, audio and `response.done`")
    await one.say_bytes(audio[most:])
    when = ", most of which was said before the one before it was answered"
    probe.require_heard(second, await one.finish(), when=when)
    probe.ok("answers what was said meanwhile in the next turn")
    answer = await one.finish()
    if answer.transcript or answer.audio:
        raise NotYet(
            "an empty turn for `audio.end` without any audio before it",
            f'"{answer.transcript}"' if answer.transcript else "a reply",
            event=answer.heard,
        )
    probe.ok("says `nothing_heard` where nothing was said")
    back = await Conversation.connect(probe)
    never = "".join(probe.rng.sample("0123456789abcdef", 16))
    resume = {"session": never, "token": told[0]["token"], "received": back.received}
    await back.caller.send_json("session.start", resume=resume)
    await back.expect("error", code="session_unknown", message=str, hint=str)
    probe.ok("refuses to go on with a session that it does not have")


def _low(said: Recording) -> bool:
    return said.name.startswith(_LOW_VOICES)


def _with_digits(said: Recording) -> bool:
    """Of the replies to these, the embedded recogniser understands some words."""
    return digits_in(said.text) >= 3 and not said.name.startswith("ked-lively")


def _drawn(probe: Probe) -> AudioFormat:
    """A format: 16-bit samples at some rate, or a telephone's."""
    rate = probe.rng.choice((16_000, 22_050, 24_000, 44_100, _WIDE))
    law = probe.rng.choice((Encoding.MULAW, Encoding.ALAW))
    return (
        AudioFormat(law, _TELEPHONE) if probe.rng.random() < 0.3 else AudioFormat(sample_rate=rate)
    )


@checked("ch3.formats", "Callers at other sample rates and encodings are understood, and hear.")
async def formats(probe: Probe) -> None:
    """Three callers who say digits: at 48 kHz in chunks of 2 ms, in G.711 µ-law, and in A-law.

    They want to hear µ-law, 48 kHz, and A-law. What they get is compared with what was agreed; at
    48 kHz a recogniser listens, too, and there must be no clicks from chunk to chunk.
    """
    models = await asyncio.to_thread(Models.load)
    wide = AudioFormat(sample_rate=_WIDE)
    mulaw, alaw = (AudioFormat(law, _TELEPHONE) for law in (Encoding.MULAW, Encoding.ALAW))
    callers = ((wide, mulaw, _TINY_MS), (mulaw, wide, None), (alaw, alaw, None))
    spoken = probe.draw(len(callers), _with_digits)
    for (input, output, chunk_ms), said in zip(callers, spoken, strict=True):
        one = await Conversation.begin(probe, input, output)
        answer = await one.ask(said, chunk_ms=chunk_ms)
        probe.ok(f"understands {input}")
        if not answer.audio:
            raise NotYet("a spoken reply", "no audio before `response.done`", event=answer.last)
        await require_speech(models, answer, output)
        probe.ok(f"speaks {output}")
        if output is wide:
            await _require_understood(models, answer, output)
            _require_seamless(answer, output)
            probe.ok("is understood at 48 kHz, without clicks from chunk to chunk")


async def _require_understood(models: Models, answer: Answer, form: AudioFormat) -> None:
    heard = await asyncio.to_thread(models.hear, heard_in(answer, form))
    if not set(normalise(heard)) & set(normalise(str(answer.done["text"]))):
        raise NotYet(
            f'the words of its text, "{answer.done["text"]}", in {form}',
            f'"{heard}", which is what a recogniser makes of it',
            event=answer.last,
        )


def _require_seamless(answer: Answer, form: AudioFormat) -> None:
    level_db = _above_db(form.decode(answer.audio)[:, 0], form.sample_rate)
    if level_db > _SEAM_DB:
        raise NotYet(
            f"nothing above {_BAND_HZ} Hz, where speech at 16 kHz has nothing",
            f"{level_db:.0f} dB beside the speech, in the worst 10 ms: clicks",
            event=answer.last,
        )


def _above_db(samples: Float32, rate: int) -> float:
    """How much lies above the band of 16 kHz audio in the worst 10 ms, in dB beside the whole."""
    size = rate // 100
    # Windows overlap by half: at the edge of one, where nothing of a click would be left, is the
    # middle of another.
    framed = np.lib.stride_tricks.sliding_window_view(samples, size)[:: size // 2]
    power = np.abs(np.fft.rfft(framed * np.hanning(size), axis=1)) ** 2
    above = np.fft.rfftfreq(size, 1 / rate) > _BAND_HZ
    worst = power[:, above].sum(axis=1).max()
    return float(10 * np.log10(worst / power.sum(axis=1).mean() + 1e-12))


@checked("ch3.errors", "What is wrong is refused by name, and the session goes on.")
async def errors(probe: Probe) -> None:
    """Six `session.start` with one field wrong; a right one; a recording with bad text in it.

    Wrong are rates, channels, an encoding, a number in quotes, a name of a field. The bad text is
    no JSON, or no object, or has a `type` that does not exist, or none. All in drawn order. Each
    gets an `error` with its code, a `message` and a `hint`.
    """
    one = await Conversation.connect(probe)
    for text, field in _bad_starts(probe):
        number, error = await _refused(one, text, "invalid_field")
        if field not in error["message"] + error["hint"]:
            raise NotYet(
                f"an error that names {field!r}, the field at fault",
                f'"{error["message"]}"',
                event=number,
            )
    probe.ok("refuses numbers out of range, wrong types and unknown fields, and names the field")
    await one.start()
    probe.ok("takes a right `session.start` on the same connection")
    said = probe.draw(1)[0]
    audio = one.encoded(said)
    half = len(audio) // 4 * 2
    await one.say_bytes(audio[:half])
    for text, code in _bad_texts(probe):
        await _refused(one, text, code)
    probe.ok("names text that is no JSON object, and types that it does not know")
    await one.say_bytes(audio[half:])
    probe.require_heard(said, await one.finish(), share=0.6)
    probe.ok("hears the recording around it")


async def _refused(one: Conversation, text: str, code: str) -> tuple[int, dict[str, Any]]:
    """Send a text that is wrong; gives its error, and the number of that event."""
    await one.caller.send(text)
    try:
        return await one.expect_at("error", code=code, message=str, hint=str)
    except NotYet as fault:
        raise fault.expecting(f"{fault.expected}, for the text {text[:_SHOWN]}") from fault


def _bad_starts(probe: Probe) -> list[tuple[str, str]]:
    """Wrong `session.start`, each with the field that is wrong."""
    rng = probe.rng
    side = rng.choice(("input", "output"))
    wrong: list[tuple[str, dict[str, Any]]] = [
        ("sample_rate", {side: {"sample_rate": rng.randint(1, 7_999)}}),
        ("sample_rate", {side: {"sample_rate": rng.randint(48_001, 400_000)}}),
        ("sample_rate", {side: {"sample_rate": str(rng.choice((16_000, 48_000)))}}),
        ("channels", {side: {"channels": rng.choice((-1, 0, 3, 7))}}),
        ("encoding", {side: {"encoding": rng.choice(("mp3", "opus", "pcm", ""))}}),
        ("samplerate", {side: {"samplerate": 48_000}}),
    ]
    rng.shuffle(wrong)
    return [(json.dumps({"type": "session.start", **fields}), field) for field, fields in wrong]


def _bad_texts(probe: Probe) -> list[tuple[str, str]]:
    rng = probe.rng
    word = "".join(rng.choices("abcdefgh", k=6))
    wrong = [
        ('{"type": "ping"', "invalid_json"),
        ("{'type': 'ping'}", "invalid_json"),
        ("end_stream", "invalid_json"),
        (json.dumps([{"type": "ping"}]), "invalid_json"),
        (str(rng.randint(0, 99)), "invalid_json"),
        ("[" * 3_000, "invalid_json"),
        (json.dumps({"type": word}), "unknown_type"),
        (json.dumps({"type": f"audio.{word}"}), "unknown_type"),
        (json.dumps({"typ": "ping"}), "unknown_type"),
    ]
    rng.shuffle(wrong)
    return wrong


@checked("ch3.cause", "An error says which message it is about.")
async def cause(probe: Probe) -> None:
    """Without waiting: `ping`, `audio.end`, audio, `ping`; then `session.start` twice, and `ping`.

    Every text message has an `id`, which is drawn. A second client, in a session: `response.ack`
    and `ping`, then `audio.end`, which is answered although no audio came.
    `cause` has the `type` of the message at fault (`audio` for a binary one) and its `id`; `pong`
    has the `id` of its `ping`.
    """
    one = await Conversation.connect(probe)
    ids = _ids(probe)
    first, early, second = next(ids), next(ids), next(ids)
    await one.caller.send_json("ping", id=first)
    await one.caller.send_json("audio.end", id=early)
    await one.caller.send(bytes(640))
    await one.caller.send_json("ping", id=second)
    await one.expect("pong", id=first)
    await _expect_cause(one, "not_started", "audio.end", early)
    await _expect_cause(one, "not_started", "audio", None)
    await one.expect("pong", id=second)
    probe.ok("says which messages came before `session.start`")
    again, last = next(ids), next(ids)
    await one.caller.send_json("session.start", id=next(ids))
    await one.caller.send_json("session.start", id=again)
    await one.caller.send_json("ping", id=last)
    kinds = {"session.started", "error", "pong"}
    while kinds:  # `session.started` and `pong` may overtake
        expected = "JSON of type " + " or ".join(repr(kind) for kind in sorted(kinds))
        number, message = await one.next(expected)
        if isinstance(message, bytes):
            raise NotYet(expected, f"a binary message of {len(message):,} bytes", event=number)
        if message["type"] not in kinds:
            raise NotYet(expected, f"one more of type {message['type']!r}", event=number)
        kinds.remove(message["type"])
        if message["type"] == "error":
            _require_cause(one, number, message, "already_started", "session.start", again)
        elif message["type"] == "pong":
            one.caller.require_fields(number, message, {"id": last})
    probe.ok("says which of two `session.start` was one too many")
    await _require_no_fault(probe)


async def _require_no_fault(probe: Probe) -> None:
    """What is right is no fault: there is an answer to it, or, to `response.ack`, nothing."""
    one = await Conversation.begin(probe)
    await one.acknowledge()
    name = next(_ids(probe))
    await one.caller.send_json("ping", id=name)
    await one.expect("pong", id=name)
    probe.ok("takes `response.ack` in a session, and says nothing to it")
    await one.finish()
    probe.ok("answers `audio.end` in a session")


def _ids(probe: Probe) -> Iterator[str]:
    while True:
        yield f"{probe.rng.choice('abcdef')}-{probe.rng.getrandbits(24):x}"


async def _expect_cause(one: Conversation, code: str, kind: str, name: str | None) -> None:
    number, error = await one.expect_at("error", code=code, cause=...)
    _require_cause(one, number, error, code, kind, name)


def _require_cause(
    one: Conversation, number: int, error: dict[str, Any], code: str, kind: str, name: str | None
) -> None:
    one.caller.require_fields(number, error, {"type": "error", "code": code, "cause": ...})
    told = error["cause"] if isinstance(error["cause"], dict) else {}
    if (told.get("type"), told.get("id")) != (kind, name):
        about = {"type": kind} if name is None else {"type": kind, "id": name}
        raise NotYet(
            f'"cause" with {json.dumps(about)}', f'"cause": {json.dumps(error["cause"])}',
            event=number,
        )  # fmt: skip


@checked("ch3.text_and_binary", "Text is control, binary is audio, and neither is the other.")
async def text_and_binary(probe: Probe) -> None:
    """A recording with what is no audio between its thirds; then the same in G.711, in odd chunks.

    Behind the first third, in drawn order: `audio.end` as JSON in a binary message, an odd number
    of bytes, audio written as text. Behind the second: binary `ping`, which is two samples, and two
    that begin with `{`. In G.711, one byte is a sample, so that no number of bytes is odd.
    """
    one = await Conversation.begin(probe)
    said = probe.draw(1, _low)[0]
    audio = one.encoded(said)
    third = len(audio) // 6 * 2
    wrong: list[tuple[str | bytes, str]] = [
        (json.dumps({"type": "audio.end"}).encode(), "wrong_frame"),
        (probe.rng.randbytes(probe.rng.randrange(1, 640, 2)), "odd_length"),
        (audio[third : third + 8].hex(), "invalid_json"),
    ]
    probe.rng.shuffle(wrong)
    await one.say_bytes(audio[:third])
    for message, code in wrong:
        await one.caller.send(message)
        await one.expect("error", code=code, message=str, hint=str)
    probe.ok("refuses control in a binary message, audio in a text message, and half a sample")
    await one.say_bytes(audio[third : 2 * third])
    await one.caller.send(b"ping")
    await one.caller.send(b"{\0|\0")
    await one.caller.send_json("ping", id="after")
    await one.expect("pong", id="after")
    probe.ok("takes the four bytes of a binary `ping` for two samples, and any that begin with `{`")
    await one.say_bytes(audio[2 * third :])
    probe.require_heard(said, await one.finish(), share=0.6)
    probe.ok("hears the recording around it")
    phone = await Conversation.begin(probe, AudioFormat(Encoding.MULAW, _TELEPHONE))
    odd = probe.rng.randrange(201, 801, 2)
    await phone.say_bytes(phone.encoded(said), odd)
    probe.require_heard(said, await phone.finish(), share=0.6)
    probe.ok(f"takes {odd} bytes of G.711, where one byte is a sample")


@checked("ch3.versions", "A client and a server of different versions find out, and find a way.")
async def versions(probe: Probe) -> None:
    """Clients that offer `labkit.v9` and `labkit.v1`; `labkit.v9` alone; nothing. The 9 is drawn.

    The first sends `session.start` with `"protocol": "labkit.v9"`, then with `labkit.v1`; the
    others `ping`, a recording and `end_stream`.
    """
    newer = f"labkit.v{probe.rng.randint(2, 99)}"
    both = await probe.connect("/", protocol=f"{newer} {SUBPROTOCOL}")
    if both.subprotocol != SUBPROTOCOL:
        raise NotYet(
            f"the server to choose {SUBPROTOCOL}, of {newer} and {SUBPROTOCOL}",
            f"that it chose {both.subprotocol or 'none'}",
            event=probe.happened(both.number, f"connected, with {both.subprotocol or 'none'}"),
        )
    probe.ok(f"chooses {SUBPROTOCOL} where {newer} is offered, too")
    one = Conversation(probe, both)
    await both.send_json("session.start", protocol=newer)
    await one.expect("error", code="invalid_field", message=str, hint=str)
    await one.start(protocol=SUBPROTOCOL)
    probe.ok(f"refuses `session.start` for {newer}, and takes the one for {SUBPROTOCOL}")
    for offered in (newer, ""):
        plain = await probe.connect(protocol=offered)
        if plain.subprotocol is not None:
            raise NotYet(
                f"no subprotocol to be chosen, where {offered or 'none'} is offered",
                f"that it chose {plain.subprotocol}",
            )
        await plain.send("ping")
        await plain.expect("pong")
        said = probe.draw(1)[0]
        probe.require_heard(said, await plain.ask(said))
        who = f"offers {newer} alone" if offered else "offers nothing"
        probe.ok(f"speaks the plain dialect with a client that {who}")


CHECKS: Final = (start, formats, errors, cause, text_and_binary, versions)
"""In the order in which the chapter comes to them."""
