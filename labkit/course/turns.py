"""Turns with pauses in them, and what an endpointer makes of them.

The recordings of the course are read without a stop. People do stop, in the middle of a sentence,
each in a rhythm of their own. `conversations` puts pauses into recordings: at a quiet place within
the speech, the room's own noise goes on for a while, and then the speech does. Where a turn ends is
known from the recording's annotation, whatever a detector thinks.

`decisions` then plays a turn to an endpointer, frame by frame, and nothing is known early.
`say_to_server` does the same with labkit's own server, which finds the ends by itself.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from random import Random
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from labkit.audio.pcm import SAMPLE_RATE, Float32, encode_s16le, read_audio
from labkit.client.speech import speak
from labkit.client.v1 import SessionClient
from labkit.measure.recordings import Kind, Recording, load_manifest
from labkit.protocol import v1
from labkit.voice.engines import SileroVad
from labkit.voice.models import data_folder

if TYPE_CHECKING:  # matplotlib takes a second to load
    from matplotlib.axes import Axes

__all__ = [
    "FRAME_S",
    "FixedWait",
    "Policy",
    "Turn",
    "conversations",
    "decisions",
    "plot_lines",
    "plot_voiced",
    "say_to_server",
    "voices",
]

FRAME_S: Final = 512 / SAMPLE_RATE
"""Length of one frame of the detector, in seconds."""
_SHORTEST_PAUSE_S: Final = 0.1
"""Shorter silences lie between the sounds of a word."""

_RHYTHM_S: Final = (0.12, 1.0)
"""A speaker's usual pause lies between these."""
_SPREAD: Final = 0.2
"""How far a pause is from the speaker's usual one: the deviation of its logarithm."""
_PAUSES: Final = (0, 1, 1, 2, 2)
_SNR_DB: Final = (18.0, 35.0)
_VALLEY_S: Final = 0.02
_FADE_S: Final = 0.005
_AFTER_S: Final = 2.5
_QUIET_S: Final = 2.0


@dataclass(frozen=True, slots=True, eq=False)
class Turn:
    """One turn of somebody who pauses.

    Attributes:
        speaker: Who speaks; the turns of one speaker belong together.
        text: What is said.
        samples: The audio, 16 kHz, with silence enough behind it.
        voiced: Probability of speech in each frame of 32 ms.
        pauses: The pauses within it, as (start, length) in seconds.
        end_s: Where the speech ends, in seconds.
    """

    speaker: str
    text: str
    samples: Float32
    voiced: Sequence[float]
    pauses: Sequence[tuple[float, float]]
    end_s: float


class Policy(Protocol):
    """Decides how much silence ends a turn; one object follows one caller."""

    def wait_s(self) -> float:
        """Seconds of silence that would end the turn now."""

    def paused(self, seconds: float) -> None:
        """Learn that the caller was silent for so long, and then spoke on."""


@dataclass(frozen=True, slots=True)
class FixedWait:
    """Waits for the same time, whoever speaks."""

    seconds: float

    def wait_s(self) -> float:
        """The same as ever."""
        return self.seconds

    def paused(self, seconds: float) -> None:
        """Learn nothing."""


def voices() -> list[str]:
    """The voices that the course has recordings of."""
    return sorted({one.voice for one in _sentences()})


def _sentences() -> list[Recording]:
    return [one for one in load_manifest(data_folder() / "speech") if one.kind is Kind.UTTERANCE]


def conversations(
    rng: Random, of: Iterable[str], *, turns: int = 9, each: int = 1
) -> list[list[Turn]]:
    """Conversations of callers who pause, each in a rhythm that is drawn.

    Args:
        rng: What everything is drawn from.
        of: The voices.
        turns: Turns of a conversation, at most nine.
        each: Conversations of one voice.
    """
    known, vad = _sentences(), SileroVad()
    voices = [voice for voice in of for _ in range(each)]
    rhythms = _rhythms(rng, len(voices))
    return [
        _conversation(
            rng, rng.sample([one for one in known if one.voice == voice], turns), vad, usual
        )
        for voice, usual in zip(voices, rhythms, strict=True)
    ]


def _rhythms(rng: Random, count: int) -> list[float]:
    """The usual pause of each of so many speakers: hasty and slow ones, in any order."""
    low, high = np.log(_RHYTHM_S)
    step = (high - low) / count
    drawn = [float(np.exp(low + (n + rng.random()) * step)) for n in range(count)]
    rng.shuffle(drawn)
    return drawn


def _conversation(
    rng: Random, recordings: Sequence[Recording], vad: SileroVad, usual_s: float
) -> list[Turn]:
    snr_db = rng.uniform(*_SNR_DB)
    speaker = f"{recordings[0].voice}, pauses of about {usual_s:.1f} s"
    return [_turn(rng, one, vad, speaker, usual_s, snr_db) for one in recordings]


def _turn(
    rng: Random, said: Recording, vad: SileroVad, speaker: str, usual_s: float, snr_db: float
) -> Turn:
    samples = read_audio(said.path)
    end = said.end_of_speech_sample or len(samples)
    places = _quiet_places(samples, end, rng.choice(_PAUSES))
    lengths = [rng.lognormvariate(float(np.log(usual_s)), _SPREAD) for _ in places]
    pieces, pauses, at = [], [], 0
    for place, length_s in zip(places, lengths, strict=True):
        pieces += [_faded(samples[at:place]), np.zeros(round(length_s * SAMPLE_RATE), np.float32)]
        before = sum(len(piece) for piece in pieces[:-1])
        pauses.append((before / SAMPLE_RATE, length_s))
        at = place
    pieces += [_faded(samples[at:end]), np.zeros(round(_AFTER_S * SAMPLE_RATE), np.float32)]
    whole = np.concatenate(pieces)
    level = float(np.sqrt(np.mean(np.square(samples[:end])))) * 10 ** (-snr_db / 20)
    noise = np.random.default_rng(rng.getrandbits(32)).normal(0, level, len(whole))
    whole = (whole + noise).astype(np.float32)
    framed = np.pad(whole, (0, -len(whole) % vad.frame_samples))
    voiced, _ = vad.probabilities(vad.start(), framed)
    end_s = (len(whole) / SAMPLE_RATE) - _AFTER_S
    return Turn(speaker, said.text, whole, voiced, pauses, end_s)


def _quiet_places(samples: Float32, end: int, count: int) -> list[int]:
    """The quietest place of each of `count` equal parts of the speech, without its ends."""
    size = round(_VALLEY_S * SAMPLE_RATE)
    power = np.convolve(np.square(samples[:end]), np.ones(size) / size, "same")
    edges = np.linspace(end * 0.25, end * 0.8, count + 1).astype(int)
    return [
        int(start + np.argmin(power[start:stop]))
        for start, stop in zip(edges, edges[1:], strict=False)
    ]


def _faded(piece: Float32) -> Float32:
    """A piece that begins and ends softly, so that cutting it makes no click."""
    size = min(round(_FADE_S * SAMPLE_RATE), len(piece) // 2)
    ramp = np.ones(len(piece), np.float32)
    ramp[:size] = np.linspace(0, 1, size)
    ramp[len(piece) - size :] = np.linspace(1, 0, size)
    return piece * ramp


def decisions(
    turns: Sequence[Turn],
    policy: Policy,
    *,
    threshold: float = 0.5,
    min_speech_s: float = 0.064,
    time_out_s: float = 2.0,
) -> list[list[float]]:
    """Play the turns of one caller to an endpointer, one after the other.

    It decides once in each silence, when it has lasted for as long as the policy waits. Where the
    caller speaks on after that, it was wrong, and goes on listening.

    Args:
        turns: The turns of one caller.
        policy: How long it waits.
        threshold: Probability from which a frame counts as speech.
        min_speech_s: Shorter bursts are no speech.
        time_out_s: A silence of this length ends a turn, whatever the policy says.

    Returns:
        For each turn, the times at which it was taken for finished, in seconds.
    """
    return [_in_one(turn, policy, threshold, min_speech_s, time_out_s) for turn in turns]


def _in_one(
    turn: Turn, policy: Policy, threshold: float, min_speech_s: float, time_out_s: float
) -> list[float]:
    times: list[float] = []
    runs = _silences(turn.voiced, threshold, min_speech_s)
    for number, (start, stop) in enumerate(runs):
        length_s = (stop - start) * FRAME_S
        wait_s = min(max(policy.wait_s(), FRAME_S), time_out_s)
        if length_s >= wait_s:
            times.append(start * FRAME_S + wait_s)
        if number < len(runs) - 1 and length_s >= _SHORTEST_PAUSE_S:
            policy.paused(length_s)
    return times


def _silences(
    voiced: Sequence[float], threshold: float, min_speech_s: float
) -> list[tuple[int, int]]:
    """The silences after the first word, as frames; bursts that are too short belong to them."""
    spoken = np.asarray(voiced) >= threshold
    frame = 0
    for speaking, members in groupby(spoken.tolist()):
        count = sum(1 for _ in members)
        if speaking and count * FRAME_S < min_speech_s:
            spoken[frame : frame + count] = False
        frame += count
    found, frame = [], 0
    for speaking, members in groupby(spoken.tolist()):
        count = sum(1 for _ in members)
        if not speaking and frame:
            found.append((frame, frame + count))
        frame += count
    return found


async def say_to_server(url: str, turn: Turn, *, silence_s: float) -> list[str]:
    """Say a turn to labkit's server, which decides by itself when it is over.

    Args:
        url: The server's address.
        turn: What is said, at the pace of speech.
        silence_s: Silence that ends an utterance, 0.2 to 3 s.

    Returns:
        What it heard, utterance by utterance.
    """
    start = v1.SessionStart(
        turn_detection=v1.TurnDetection.SERVER, silence_s=silence_s, acknowledges=True
    )
    async with SessionClient.connect(url, start) as client:
        saying = asyncio.create_task(
            speak(turn.samples, lambda chunk: client.send_audio(encode_s16le(chunk)))
        )
        heard: list[str] = []
        loop = asyncio.get_running_loop()
        end_s = loop.time() + len(turn.samples) / SAMPLE_RATE
        try:
            async with asyncio.timeout_at(end_s + _QUIET_S) as quiet:
                while True:
                    event = await client.next_event()
                    quiet.reschedule(max(end_s, loop.time()) + _QUIET_S)
                    if isinstance(event, v1.TranscriptFinal) and event.text:
                        heard.append(event.text)
        except TimeoutError:
            return heard
        finally:
            saying.cancel()
            await asyncio.gather(saying, return_exceptions=True)


def plot_voiced(
    turn: Turn, times: Sequence[float] = (), *, threshold: float = 0.5, ax: "Axes | None" = None
) -> "Axes":
    """Draw how probable speech is in each frame, and where a turn was taken for finished.

    Args:
        turn: The turn.
        times: Decisions, in seconds.
        threshold: Drawn as a line.
        ax: Draw here instead of into a figure of its own.
    """
    from labkit.measure.figures import BLACK, BLUE, GREEN, GREY, RED, axes, tidy

    ax = axes(ax, 8.5, 2.6)
    at_s = np.arange(len(turn.voiced)) * FRAME_S
    ax.fill_between(at_s, turn.voiced, step="post", color=BLUE, alpha=0.5, label="speech, says VAD")
    ax.axhline(threshold, color=GREY, linestyle=":", label="threshold")
    ax.axvline(turn.end_s, color=BLACK, linestyle="--", label="end of speech")
    for time in times:
        wrong = time < turn.end_s
        ax.plot(time, 1.05, "X" if wrong else "v", color=RED if wrong else GREEN, markersize=9)
        ax.annotate("cut off" if wrong else "finished", (time, 1.12), ha="center", fontsize=8)
    ax.set_ylim(0, 1.3)
    ax.legend(loc="lower right", fontsize=8)
    return tidy(ax, f"{turn.text} ({turn.speaker})", "seconds", "probability")


def plot_lines(
    named: "dict[str, Sequence[tuple[float, float]]]", *, ax: "Axes | None" = None
) -> "Axes":
    """Draw endpointers as lines: mean dead air to the right, share of turns cut off upwards.

    Args:
        named: By name, (seconds, share) of each setting; a single one is drawn as a point.
        ax: Draw here instead of into a figure of its own.
    """
    from labkit.measure.figures import BLUE, GREEN, ORANGE, PURPLE, axes, tidy

    ax = axes(ax)
    looks = ((BLUE, "o", "--"), (ORANGE, "", "-"), (GREEN, "D", "-"), (PURPLE, "s", ":"))
    for (name, points), (colour, marker, style) in zip(named.items(), looks, strict=False):
        seconds, shares = [s for s, _ in points], [100 * share for _, share in points]
        size = 10 if len(points) == 1 else 4
        ax.plot(seconds, shares, style, marker=marker, color=colour, label=name, markersize=size)
    ax.set_ylim(bottom=0)
    ax.legend()
    return tidy(ax, "Lower and further left is better", "mean dead air, s", "turns cut off, %")
