"""What each row of the bench measures: server and floor, or two servers, by turns in one run."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import median as middle
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np

from labkit.audio.pcm import SAMPLE_RATE, Float32, encode_s16le, read_audio
from labkit.client.answers import Deadlines
from labkit.client.plain import VoiceClient
from labkit.client.speech import spoken_ns
from labkit.client.turn import ClientTurn
from labkit.client.v1 import SessionClient
from labkit.errors import InstrumentError, ServerError
from labkit.measure.barge_in import Overlap, speak_over
from labkit.measure.bench import Bench, Measure, Reading
from labkit.measure.callers import Manners, Pings, pinging
from labkit.measure.decided import CUT_OFF, say
from labkit.measure.endpointing import EndpointingExperiment
from labkit.measure.floor import Beneath, Floor, policy_decides_s
from labkit.measure.load import Load, recorded_speech, run_level
from labkit.measure.pauses import conversations, voices
from labkit.measure.plan import (
    LONGEST_S,
    SENTENCES,
    PlannedTurn,
    count_sentences,
    prepared,
    short_utterances,
)
from labkit.measure.recordings import Recording, utterances
from labkit.measure.results import Results, Tell, conduct
from labkit.measure.server_process import (
    RunningServer,
    ServerStatus,
    Usage,
    labkit_server,
    naive_server,
    running_server,
    running_servers,
)
from labkit.measure.statistics import (
    FEW,
    FEW_99,
    Estimate,
    median,
    percentile,
    percentile_95,
    percentile_99,
    ratio,
    resampled,
)
from labkit.measure.targets import LABKIT, NAIVE
from labkit.measure.wer import word_errors
from labkit.protocol import v1
from labkit.trace import Mark, wrong_parts
from labkit.voice.engines import Vad
from labkit.voice.hearing import Endpointing
from labkit.voice.loading import load_engines
from labkit.voice.models import Role, resolve

_CHUNK_MS: Final = 40
_PATIENT: Final = Deadlines(answer_s=180.0)
"""The naive server lets the last of four callers wait for all of the others' replies."""
_AFTER: Final = round(0.2 * SAMPLE_RATE)
"""Samples behind the last word that the floor hears, as the server does."""
_ALONG_S: Final = 8.0
"""A caller listens to a reply for so long before it speaks again."""
_ECHO_DB: Final = -12.0
_HEARD_OF_IT_S: Final = 0.5
_SESSIONS: Final = 100
_FIRST: Final = 5
_HEARD_S: Final = 2.0
"""Time for a server to have heard what was sent to it at once."""
_LEAST: Final = 3
"""Fewer values have no median that means anything."""
_BOUNDED: Final = 72
"""With fewer values, the true 95th percentile may well lie above all of them (0.95^72 = 2.5 %)."""
_TOO_FEW: Final = f"fewer than {FEW} values tell no 95th percentile"


@dataclass(slots=True)
class _Turns:
    """What the turns of one server and the floor gave, a value per recording."""

    over_floor: list[float] = field(default_factory=list)
    audible_ms: list[float] = field(default_factory=list)
    push: list[float] = field(default_factory=list)
    listening: list[float] = field(default_factory=list)
    worse: list[float] = field(default_factory=list)
    words: list[float] = field(default_factory=list)
    dead_air_ms: list[float] = field(default_factory=list)
    cut_off: int = 0
    silent: int = 0


def _said(bench: Bench, count: int) -> list[tuple[Recording, Float32, int]]:
    """Recordings with the end of their speech, anywhere in a chunk with equal chance."""
    rng = random.Random(bench.seed)
    found = short_utterances()[1:]  # the first one warms servers up
    drawn = rng.sample(found, min(count, len(found)))
    planned = [PlannedTurn("", 0, _CHUNK_MS, rng.random(), 0) for _ in drawn]
    return [(one, *prepared(one, turn)) for one, turn in zip(drawn, planned, strict=True)]


@asynccontextmanager
async def _warm(commands: Mapping[str, Sequence[str]]) -> AsyncIterator[dict[str, RunningServer]]:
    """Servers, by their names, that have done what is slow once.

    A model answers sooner what it was asked before. So whatever is compared on one recording has a
    server of its own, and what warms them up is not said again.
    """
    samples, end = prepared(short_utterances()[0], PlannedTurn("", 0, _CHUNK_MS, 0.5, None))
    async with running_servers(commands) as servers:
        for server in servers.values():
            await _push(server.url, samples, end)
        yield servers


async def _push(url: str, samples: Float32, end: int, start_ns: int | None = None) -> ClientTurn:
    async with VoiceClient.connect(url, deadlines=_PATIENT) as client:
        turn = await client.say(samples, chunk_ms=_CHUNK_MS, end_of_speech=end, start_ns=start_ns)
    return believed(turn)


def believed(turn: ClientTurn) -> ClientTurn:
    """A turn whose parts add up.

    Raises:
        InstrumentError: They do not: nothing that follows from its marks means anything.
    """
    if wrong := wrong_parts(turn.trace.stages_ms(), turn.trace.ttfa_ms()):
        raise InstrumentError(f"a turn cannot be believed: {wrong}")
    return turn


async def measure_turns(bench: Bench, tell: Tell) -> Mapping[str, Reading]:
    """Turns whose end the client tells or the server decides, over the engines without a server."""
    paths = resolve(bench.models)
    engines = await asyncio.to_thread(load_engines, paths)
    said, found = _said(bench, 8 if bench.quick else FEW + 5), _Turns()
    rng, command = random.Random(bench.seed), labkit_server("--models", bench.models)
    ways = {way: command for way, rows in _WAYS.items() if any(map(bench.wants, rows))}
    async with _warm(ways) as servers:
        with Beneath(engines, paths.system) as beneath:
            for number, one in enumerate(said):
                tell(f"turns: {one[0].name}", number, len(said))
                await _one_recording(found, bench, servers, beneath, one, rng)
    return _read_turns(found)


_WAYS: Final[Mapping[str, Sequence[str]]] = {
    "push": ("push", "listening"), "decided": ("decided",), "partials": ("words",),
}  # fmt: skip
"""Ways to say a recording, and the rows that need them."""


async def _one_recording(
    found: _Turns,
    bench: Bench,
    servers: Mapping[str, RunningServer],
    beneath: Beneath,
    one: tuple[Recording, Float32, int],
    rng: random.Random,
) -> None:
    """All that is compared, on one recording, in random order."""
    recording, samples, end = one
    turns: dict[str, ClientTurn] = {}
    floor = Floor("", None)
    for way in rng.sample(("floor", *servers), 1 + len(servers)):
        if way == "floor":
            floor = await beneath.floor(samples[: end + 1 + _AFTER])
        elif way == "push":
            turns[way] = await _push(servers[way].url, samples, end)
        else:
            start = v1.SessionStart(partials=way == "partials")
            url = servers[way].url
            turn = await say(url, samples, end_of_speech=end, chunk_ms=_CHUNK_MS, start=start)
            turns[way] = believed(turn)
    if floor.first_audio_s is None:
        found.silent += 1
        return
    if push := turns.get("push"):
        wait_ms = push.trace.between_ms(Mark.END_STREAM_SENT, Mark.FIRST_AUDIO_RECEIVED)
        if wait_ms is not None:
            found.push.append(wait_ms / 1000 / floor.first_audio_s)
        if bench.wants("listening") and push.listening_cpu_ms is not None:
            own_s = await asyncio.to_thread(_paced_cpu_s, beneath.vad, samples[: end + 1])
            found.listening.append(push.listening_cpu_ms / 1000 / own_s)
    if decided := turns.get("decided"):
        at_s = policy_decides_s(
            beneath.vad,
            samples,
            end_of_speech=end,
            silence_s=Endpointing().stop_s,
            chunk_ms=_CHUNK_MS,
        )
        _note_decided(found, decided, at_s, floor.first_audio_s)
    if partials := turns.get("partials"):
        await _note_words(found, partials, beneath, recording.text, samples)


async def _note_words(
    found: _Turns, turn: ClientTurn, beneath: Beneath, said: str, samples: Float32
) -> None:
    """Hold what was heard as it came in against the same audio, heard at once."""
    over_ms = turn.trace.between_ms(Mark.STREAM_STARTED, Mark.END_STREAM_RECEIVED)
    if over_ms is None:  # it was taken for two turns
        over_ms = 1000 * len(samples) / SAMPLE_RATE
    heard = turn.transcript, await beneath.words(samples, over_ms / 1000)
    errors = [word_errors(said, words) for words in heard]
    found.worse.append(errors[0][0] - errors[1][0])
    found.words.append(errors[0][1])


def _note_decided(found: _Turns, turn: ClientTurn, decides_s: float | None, floor_s: float) -> None:
    first_ms = turn.trace.between_ms(Mark.STREAM_STARTED, Mark.FIRST_AUDIO_RECEIVED)
    audible_ms = turn.trace.ttfa_ms()
    if CUT_OFF in turn.remarks or decides_s is None:
        found.cut_off += 1
    elif first_ms is None or audible_ms is None:
        found.silent += 1
    elif first_ms / 1000 < decides_s:
        raise InstrumentError("a reply came before anybody could know that it was due")
    else:
        found.over_floor.append((first_ms / 1000 - decides_s) / floor_s)
        found.audible_ms.append(audible_ms)
        end_ms = turn.trace.between_ms(Mark.STREAM_STARTED, Mark.END_OF_SPEECH) or 0.0
        found.dead_air_ms.append(1000 * decides_s - end_ms)


def _paced_cpu_s(vad: Vad, samples: Float32) -> float:
    """CPU seconds of the detector alone, frame by frame as speech comes in."""
    frame, state, spent_s = vad.frame_samples, None, 0.0
    begun_s = time.perf_counter()
    for start in range(0, len(samples) - frame + 1, frame):
        time.sleep(max(0.0, begun_s + (start + frame) / SAMPLE_RATE - time.perf_counter()))
        before_s = time.process_time()
        _, state = vad.probabilities(state, samples[start : start + frame])
        spent_s += time.process_time() - before_s
    return spent_s


def _read_turns(found: _Turns) -> dict[str, Reading]:
    waits = f"{found.cut_off} cut off, {found.silent} without a reply are left out"
    if found.dead_air_ms:
        waits += f"; the endpointer itself waits {middle(found.dead_air_ms):.0f} ms (median)"
    words, worse = sum(found.words), [100 * errors for errors in found.worse]
    return {
        "decided p50": _half(found.over_floor),
        "decided p95": _tail(found.over_floor),
        "audible p50": _half(found.audible_ms, note=waits),
        "audible p95": _tail(found.audible_ms),
        "push p50": _half(found.push),
        "listening": _half(found.listening),
        "words": Reading(
            resampled(ratio(np.sum), worse, found.words, paired=True),
            note=f"of {words:.0f} words",
        )
        if words
        else Reading(why="nothing was understood"),
    }


def _half(values: Sequence[float], note: str = "") -> Reading:
    if len(values) < _LEAST:
        return Reading(why=f"{len(values)} turns were answered, and {_LEAST} are needed", note=note)
    return Reading(median(values), note=note)


def _tail(values: Sequence[float]) -> Reading:
    if (found := percentile_95(values)) is None:
        return Reading(why=_TOO_FEW)
    return Reading(found, note=_unbounded(len(values)))


def _unbounded(sample: int) -> str:
    """What the interval of a 95th percentile of so few values does not say."""
    few = f"above the largest of {sample} values nothing bounds it, as {_BOUNDED} would"
    return few if sample < _BOUNDED else ""


async def measure_naive(bench: Bench, tell: Tell) -> Mapping[str, Reading]:
    """The same recordings to the naive server and to labkit's, replies of five sentences."""
    commands = {
        name: ["labkit.measure.long_replies", name, bench.models] for name in (LABKIT, NAIVE)
    }
    waits = list[tuple[int, float]]()  # sentences, and times as long
    said, rng = _said(bench, 4 if bench.quick else 12), random.Random(bench.seed)
    async with _warm(commands) as servers:
        for number, (recording, samples, end) in enumerate(said):
            tell(f"naive: {recording.name}", number, len(said))
            turns = {
                name: await _push(servers[name].url, samples, end)
                for name in rng.sample((LABKIT, NAIVE), 2)
            }
            ours, theirs = turns[LABKIT], turns[NAIVE]
            first = [turn.trace.ttfb_ms() for turn in (ours, theirs)]
            if first[0] and first[1]:
                count = min(count_sentences(turn.reply_text) for turn in (ours, theirs))
                waits.append((count, first[1] / first[0]))
    long = [wait for count, wait in waits if count >= SENTENCES]
    note = f"{len(long)} of {len(said)} replies had five: the model's own answer, several times"
    return {"naive": _half(long, note)}


async def measure_bystander(bench: Bench, tell: Tell) -> Mapping[str, Reading]:
    """Pings of somebody who only looks on, while four callers have their turns."""
    rounds, rng = (1 if bench.quick else 4), random.Random(bench.seed)
    said = _said(bench, 4 * rounds)
    options = ("--models", bench.models)
    commands = {LABKIT: labkit_server(*options), NAIVE: naive_server(*options)}
    async with _warm(commands) as servers:
        seen = {name: Pings() for name in servers}
        for number in range(rounds):
            tell("ping while four turns run", number, rounds)
            own = said[4 * number : 4 * number + 4]
            for name in rng.sample(list(servers), 2):
                url = servers[name].url
                async with pinging(url, seen[name]):
                    _first_ms(await asyncio.gather(*(_push(url, *one[1:]) for one in own)))
                seen[name].require_answers()
    return _read_pings(seen[NAIVE].ms, seen[LABKIT].ms)


def _read_pings(naive: Sequence[float], labkit: Sequence[float]) -> dict[str, Reading]:
    """Without intervals: pings of one busy moment wait together, so few are independent."""
    theirs, ours = percentile_99(naive), percentile_99(labkit)
    if theirs is None or ours is None:
        few = Reading(why=f"fewer than {FEW_99} values tell no 99th percentile")
        return {"ping": few, "ping p99": few}
    return {
        "ping": Reading(Estimate.exact(theirs / ours, len(labkit))),
        "ping p99": Reading(Estimate.exact(ours, len(labkit))),
    }


async def measure_crowd(bench: Bench, tell: Tell) -> Mapping[str, Reading]:
    """One caller, four who stop within a second, and eight who talk for a minute."""
    found: dict[str, Reading] = {}
    command = labkit_server("--models", bench.models, "--max-sessions", "64")
    async with _warm({"one": command, "four": command}) as servers:
        if bench.wants("four"):
            found |= await _four(bench, tell, servers["one"].url, servers["four"])
        if bench.wants("eight"):
            found |= await _eight(bench, tell, servers["one"])
    return found


async def _four(bench: Bench, tell: Tell, alone: str, server: RunningServer) -> dict[str, Reading]:
    rounds, rng = (2 if bench.quick else 6), random.Random(bench.seed)
    said = _said(bench, 4 * rounds)
    before = await _underruns(server)
    one, four = list[float](), list[float]()
    for number in range(rounds):
        tell("one caller and four", number, rounds)
        own = said[4 * number : 4 * number + 4]
        for _, samples, end in own:
            one += _first_ms([await _push(alone, samples, end)])
        stop_ns = time.perf_counter_ns() + round((LONGEST_S + 1) * 1e9)
        starts = [stop_ns + round(rng.random() * 1e9) - spoken_ns(end) for _, _, end in own]
        asked = [
            _push(server.url, samples, end, start)
            for (_, samples, end), start in zip(own, starts, strict=True)
        ]
        four += _first_ms(await asyncio.gather(*asked))
    ran_out = await _underruns(server) - before
    enough = min(len(one), len(four)) >= FEW
    half = f"one caller waits {middle(one):.0f} ms (median), four {middle(four):.0f}"
    note = "; ".join(filter(None, (half, _unbounded(len(four)))))
    return {
        "four p95": Reading(
            resampled(ratio(percentile(95)), four, one), "" if enough else _TOO_FEW, note
        ),
        "four underruns": Reading(Estimate.exact(ran_out, len(four))),
    }


def _first_ms(turns: Sequence[ClientTurn]) -> list[float]:
    """Waits for the first audio; of a turn without any nothing is told, for it would look good."""
    waits = [turn.trace.ttfb_ms() for turn in turns]
    if None in waits:
        raise ServerError("a caller had no reply; nothing is told of the others")
    return [wait for wait in waits if wait is not None]


async def _underruns(server: RunningServer) -> int:
    return (await _status(server)).underruns or 0


async def _status(server: RunningServer) -> ServerStatus:
    status = await asyncio.to_thread(server.status)
    if status.trouble or status.underruns is None:
        raise ServerError(f"{server.url} does not tell of its work: {status.trouble}")
    return status


async def _eight(bench: Bench, tell: Tell, server: RunningServer) -> dict[str, Reading]:
    tell("eight callers for a minute", 0, 1)
    manners = Manners(pause_s=_ALONG_S, patience_s=60.0)
    seconds = 20.0 if bench.quick else 60.0
    load = Load(pipeline="voice", seconds=seconds, seed=bench.seed, manners=manners)
    before = await _underruns(server)
    speeches = recorded_speech(None, manners.chunk_ms)
    level = await run_level(server, 8, speeches, load, name=LABKIT)
    ran_out = await _underruns(server) - before
    waits = level.turn_ms
    half = f"median {waits.p50:.0f} ms, " if waits else ""
    note = f"{half}{level.lost} turns lost, each caller listens for {_ALONG_S:g} s to a reply"
    asked = Reading(why="no turn was asked for", note=note)
    if waits is not None:
        asked = Reading(waits.tail, "" if waits.sample >= FEW else _TOO_FEW, note)
    # Audio that never came has not run out, and holds nothing.
    unheard = level.lost + level.refused + (not level.turns)
    why = "not every turn was answered" if unheard else ""
    return {
        "eight p95": asked,
        "eight underruns": Reading(Estimate.exact(ran_out, level.turns), why),
    }


async def measure_ahead(bench: Bench, tell: Tell) -> Mapping[str, Reading]:
    """Turns of callers who pause, with work ahead and without: what it throws away."""
    callers = await asyncio.to_thread(conversations, random.Random(bench.seed), voices(), each=1)
    turns = [turn for caller in callers for turn in caller[: 3 if bench.quick else 6]]
    rng = random.Random(bench.seed)
    cpu_s: dict[str, list[float]] = {"with": [], "without": []}
    vain, used = list[float](), 0
    options = ("--models", bench.models)
    commands = {
        "with": labkit_server(*options),
        "without": labkit_server(*options, "--no-work-ahead"),
    }
    async with _warm(commands) as servers:
        for number, turn in enumerate(turns):
            tell("work ahead", number, len(turns))
            end = round(turn.end_s * SAMPLE_RATE) - 1
            for name in rng.sample(list(servers), 2):
                server = servers[name]
                before, before_s = (await _status(server)).ahead, _usage(server).cpu_s
                await say(server.url, turn.samples, end_of_speech=end, chunk_ms=_CHUNK_MS)
                cpu_s[name].append(_usage(server).cpu_s - before_s)
                made = Counter((await _status(server)).ahead) - Counter(before)
                if name == "with":
                    vain.append(float(made["dropped"]))
                    used += made["used"]
    return _read_ahead(vain, used, cpu_s["with"], cpu_s["without"])


def _read_ahead(
    vain: Sequence[float], used: int, ahead_s: Sequence[float], waiting_s: Sequence[float]
) -> dict[str, Reading]:
    """What a server wastes that works ahead; of one that does not, nothing can be told."""
    why = "" if used else "nothing that was done ahead was of use"
    note = f"{used} answers of {len(vain)} turns were begun ahead and used"
    return {
        "ahead calls": Reading(resampled(np.mean, vain), why, note),
        "ahead cpu": Reading(resampled(ratio(np.sum), ahead_s, waiting_s, paired=True), why),
    }


def _usage(server: RunningServer) -> Usage:
    if (usage := server.usage()) is None:
        raise ServerError(f"the system does not tell what {server.url} takes up")
    return usage


async def measure_endpointing(bench: Bench, tell: Tell) -> Mapping[str, Reading]:
    """The line of the adaptive wait against that of the fixed one, computation left out."""
    paths = resolve(bench.models)
    asr = (await asyncio.to_thread(load_engines, paths)).asr
    experiment = EndpointingExperiment(
        asr, models=paths.names[Role.ASR], seed=bench.seed, each=1 if bench.quick else 2
    )
    with TemporaryDirectory() as folder:
        summed = await conduct(experiment, Results(Path(folder)), tell)
    if (found := summed.ratios["adaptive"]) is None:
        return {"dead air": Reading(why="no setting cuts off so few")}
    return {"dead air": Reading(Estimate(*found, summed.turns))}


async def measure_barge_in(bench: Bench, tell: Tell) -> Mapping[str, Reading]:
    """Four callers at a time who each speak over a reply, every other one beside a loudspeaker.

    Replies are long: of one that was sent whole before somebody speaks, nothing is left to stop.
    """
    rounds, rng = (2 if bench.quick else 7), random.Random(bench.seed)
    recordings = utterances()
    overlaps = list[Overlap]()
    async with running_server(["labkit.measure.long_replies", LABKIT, bench.models]) as server:
        speak = partial(speak_over, server.url, after_s=_HEARD_OF_IT_S, hears_out=False)
        for number in range(rounds):
            tell("speech over replies", number, rounds)
            calls = list[Awaitable[Overlap]]()
            for place in range(4):
                voice = rng.choice(recordings).voice  # who speaks much quieter than before, asides
                asked, over = rng.sample([one for one in recordings if one.voice == voice], 2)
                said = read_audio(asked.path), read_audio(over.path)
                calls.append(speak(*said, echo_db=_ECHO_DB if place % 2 else None))
            overlaps += await asyncio.gather(*calls)
    ended = [one for one in overlaps if one.interrupted]
    stopped = [one.stopped_ms for one in ended if one.stopped_ms is not None]
    paused = [
        1000 * max(0.0, one.paused_s - one.began_s)  # a detector may hear a breath before it
        for one in ended
        if one.paused_s is not None and one.began_s is not None
    ]
    short = sum(one.began_s is None for one in overlaps)
    note = f"{len(ended)} of {len(overlaps)} replies were interrupted"
    if short:
        note += f", {short} were over before anybody spoke"
    return {
        "barge-in p95": replace(_tail(stopped), note=note),
        "pause p95": _tail(paused),
    }


async def measure_memory(bench: Bench, tell: Tell) -> Mapping[str, Reading]:
    """What a hundred sessions add to the server's memory: silent, and once each has spoken."""
    options = ("--models", bench.models, "--max-sessions", str(2 * _SESSIONS))
    payload = encode_s16le(np.zeros(2 * SAMPLE_RATE, np.float32))
    async with running_server(labkit_server(*options)) as server, AsyncExitStack() as stack:
        sessions = list[SessionClient]()

        async def open_more(count: int) -> None:
            for _ in range(count):
                connecting = SessionClient.connect(server.url)
                sessions.append(await stack.enter_async_context(connecting))

        async def speak(some: Sequence[SessionClient]) -> int:
            for client in some:
                await client.send_audio(payload)
            await asyncio.sleep(_HEARD_S)
            return _usage(server).rss_bytes

        tell("memory of sessions", 0, 1)
        await open_more(_FIRST)
        before = await speak(sessions)  # what is allocated once is no session's
        await open_more(_SESSIONS)
        idle = _usage(server).rss_bytes - before
        active = await speak(sessions[_FIRST:]) - before
    return {"idle": Reading(_each(idle)), "active": Reading(_each(active))}


def _each(grown_bytes: int) -> Estimate:
    return Estimate.exact(grown_bytes / 1024 / _SESSIONS, _SESSIONS)


MEASURES: Final[Sequence[tuple[frozenset[str], Measure]]] = (
    (frozenset({"decided", "push", "words", "listening"}), measure_turns),
    (frozenset({"endpointing"}), measure_endpointing),
    (frozenset({"naive"}), measure_naive),
    (frozenset({"ping"}), measure_bystander),
    (frozenset({"ahead"}), measure_ahead),
    (frozenset({"four", "eight"}), measure_crowd),
    (frozenset({"barge-in"}), measure_barge_in),
    (frozenset({"memory"}), measure_memory),
)
"""Rows, and what measures them."""
