"""The drill `fuzz`: hostile clients against a server that has to bear them.

It promises that no message makes it fail: every answer is one of the dialect, nothing is left
behind, its event loop is never held up, and a client that behaves is served meanwhile and
afterwards as before.
"""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from labkit.audio.pcm import SAMPLE_RATE, Float32, decode_s16le
from labkit.client.plain import VoiceClient
from labkit.client.v1 import SessionClient
from labkit.drills.answers import Tally
from labkit.drills.attackers import MAX_READ_BYTES, Attackers, Crowd
from labkit.drills.inputs import Dialect
from labkit.drills.target import (
    Pings,
    Vitals,
    fetch,
    log_faults,
    pinging,
    quiet_vitals,
    target_command,
)
from labkit.drills.verdict import Finding, Verdict
from labkit.errors import ClientError, LabkitError
from labkit.measure.server_process import RunningServer, running_server

__all__ = ["TARGET", "Fuzzed", "fuzz", "fuzz_own_server", "judge_fuzz", "well_served"]

_GROWTH_MB: Final = 5.0
"""Most that the server's memory may grow from the half of the messages to their end."""
_SETTLED: Final = 40_000
"""Messages from which on memory is judged; with fewer, the server still grows to its size."""
_HELD_MS: Final = 100.0
"""Longest that the server's loop may be held up, as the round trips of an honest caller show."""
_RESUME_S: Final = 2.0
_QUIET_S: Final = 20.0
"""Longest that sessions may take to go once their clients are gone."""

TARGET: Final[dict[str, Any]] = {
    "max_messages_per_s": 1e6,
    "message_burst": 1_000_000,
    "max_frames_per_s": 1e6,
    "frame_burst": 1_000_000,
    "max_audio_speed": 1e6,
    "max_read_bytes": MAX_READ_BYTES,
    "max_detached": 16,
    "resume_s": _RESUME_S,
    "reap_interval_s": 0.25,
}
"""Settings of a server that is drilled: floods are let in, and what is left goes soon."""

Tell = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Fuzzed:
    """What a run found.

    Attributes:
        tally: What was sent and what came.
        seconds: How long sending took.
        before: The server before the first message.
        half: The server after half of the messages, once no session was left.
        after: The server after all of them, likewise.
        log_faults: Lines of its log that tell of faults; None where it cannot be read.
        served: For each dialect, what was wrong with a good turn at the end; empty is good.
        health: What was wrong with its health page.
        pings: Round trips of an honest caller meanwhile.
    """

    tally: Tally
    seconds: float
    before: Vitals
    half: Vitals
    after: Vitals
    log_faults: list[str] | None
    served: dict[Dialect, str]
    health: str
    pings: Pings


async def fuzz_own_server(messages: int, crowd: Crowd, tell: Tell = lambda _: None) -> Fuzzed:
    """Start a server, and attack it with `messages` messages.

    Raises:
        ServerError: It did not start.
    """
    async with running_server(target_command(**TARGET)) as server:
        return await fuzz(server, messages, crowd, tell)


async def fuzz(
    server: RunningServer, messages: int, crowd: Crowd, tell: Tell = lambda _: None
) -> Fuzzed:
    """Attack a server that runs.

    Memory is compared between the half and the end: before, the server grows to its working
    size. Both times no session is left, so what remains is what was lost.

    Raises:
        ClientError: Nobody answers there.
    """
    attackers = Attackers(server.url, crowd, tell)
    before = await quiet_vitals(server.url, 0)
    pings, seconds, seen = Pings(), 0.0, []
    for part in (messages // 2, messages - messages // 2):
        start_ns = time.perf_counter_ns()
        async with pinging(server.url, pings):
            await attackers.send(part)
        seconds += (time.perf_counter_ns() - start_ns) / 1e9
        seen.append(await quiet_vitals(server.url, _QUIET_S))
    return Fuzzed(
        attackers.tally,
        seconds,
        before,
        seen[0],
        seen[1],
        None if server.output is None else log_faults(server.log()),
        {dialect: await well_served(server.url, dialect) for dialect in crowd.dialects},
        await _health(server.url),
        pings,
    )


async def well_served(url: str, dialect: Dialect) -> str:
    """What is wrong with one good turn against a server that echoes; empty where nothing is."""
    spoken = np.full(SAMPLE_RATE // 5, 0.25, np.float32)
    turn = _plain_turn if dialect is Dialect.PLAIN else _v1_turn
    try:
        transcript, reply = await turn(url, spoken)
    except LabkitError as error:
        return f"{type(error).__name__}: {error}"
    if transcript != "0.20 seconds of audio":
        return f"the transcript is {transcript!r}"
    if len(reply) != len(spoken) or np.abs(reply - spoken).max() > 1e-3:
        return f"the reply of {len(reply)} samples is not what was said"
    return ""


async def _plain_turn(url: str, spoken: Float32) -> tuple[str, Float32]:
    async with VoiceClient.connect(url) as client:
        turn = await client.say(spoken)
    return turn.transcript, turn.reply


async def _v1_turn(url: str, spoken: Float32) -> tuple[str, Float32]:
    async with SessionClient.connect(url) as client:
        answer = await client.say(spoken, pace=0)
        await client.end()
    return answer.transcript, decode_s16le(bytes(answer.audio))


async def _health(url: str) -> str:
    try:
        status, text = await fetch(url, "/healthz")
    except ClientError as error:
        return str(error)
    return "" if (status, text) == (200, "alive\n") else f"HTTP {status}: {text[:80]}"


def judge_fuzz(fuzzed: Fuzzed, crowd: Crowd) -> Verdict:
    """Hold what was found against what was promised. Pure."""
    tally = fuzzed.tally
    messages = tally.sent.total()
    told = (
        Finding.told("messages", messages),
        Finding.told("messages a second", round(messages / fuzzed.seconds)),
        Finding.told("connections", tally.connections),
        Finding.told("sent", _counts(tally.sent)),
        Finding.told("answers", _counts(tally.answers)),
        Finding.told("errors", _counts(tally.codes)),
        Finding.told("closed by the server with", _counts(tally.closes)),
    )
    return Verdict(
        f"{messages:,} hostile messages, seed {crowd.seed}",
        (
            *told,
            Finding.none_of("answers outside of the dialect", tally.illegal),
            *(Finding.told("such as", example) for example in tally.examples),
            Finding.none_of("connections without an end", tally.stuck.total()),
            *(Finding.told("such as", name) for name in tally.stuck),
            Finding.none_of("pings of an honest caller that were lost", fuzzed.pings.lost),
            Finding.at_most("its longest round trip, ms", fuzzed.pings.longest_trip_ms, _HELD_MS),
            Finding.told("its pings", len(fuzzed.pings.ms)),
            *_log_findings(fuzzed.log_faults),
            *_left_behind(fuzzed),
            *(
                Finding(
                    f"a good turn of {dialect.value}", wrong or "answered", "answered", not wrong
                )
                for dialect, wrong in fuzzed.served.items()
            ),
            Finding("/healthz", fuzzed.health or "alive", "alive", not fuzzed.health),
        ),
    )


def _counts(counter: "Counter[str] | Counter[int]") -> str:
    return "\n".join(f"{name} {count:,}" for name, count in counter.most_common()) or "-"


def _log_findings(faults: list[str] | None) -> list[Finding]:
    if faults is None:
        return [Finding.told("faults in the log", "not seen: it is another process's")]
    return [
        Finding.none_of("faults in the log", len(faults)),
        *(Finding.told("such as", line) for line in faults[:3]),
    ]


def _left_behind(fuzzed: Fuzzed) -> list[Finding]:
    """Sessions, open files and memory, where the server tells of them."""
    before, half, after = fuzzed.before, fuzzed.half, fuzzed.after
    found = []
    if after.sessions is not None and before.sessions is not None:
        found.append(Finding.none_of("sessions left over", after.sessions - before.sessions))
    if after.open_files is not None and before.open_files is not None:
        more = max(0, after.open_files - before.open_files)
        found.append(Finding.none_of("files left open", more))
    if after.rss_bytes is not None and half.rss_bytes is not None:
        found.append(Finding.told("memory at the half, MB", half.rss_bytes / 1e6))
        name, grown = (
            "growth from the half to the end, MB",
            (after.rss_bytes - half.rss_bytes) / 1e6,
        )
        settled = fuzzed.tally.sent.total() >= _SETTLED
        found.append(
            Finding.at_most(name, grown, _GROWTH_MB) if settled else Finding.told(name, grown)
        )
    return found
