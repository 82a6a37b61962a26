"""Turns with pauses in them, and what an endpointer makes of them.

The recordings of the course are read without a stop; `conversations` puts pauses into them, as
callers make them who each have a rhythm of their own.

`decisions` plays a turn to an endpointer, frame by frame, and nothing is known early.
`follow` does the same with labkit's own server, which finds the ends by itself.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from labkit.audio.pcm import SAMPLE_RATE, encode_s16le
from labkit.client.events import Event, ReplyAudio
from labkit.client.speech import speak
from labkit.client.v1 import SessionClient
from labkit.measure.pauses import FRAME_S, Turn
from labkit.protocol import v1

if TYPE_CHECKING:  # matplotlib takes a second to load
    from matplotlib.axes import Axes

_SHORTEST_PAUSE_S: Final = 0.1
"""Shorter silences lie between the sounds of a word."""

_QUIET_S: Final = 2.0


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


@dataclass(slots=True)
class Followed:
    """What labkit's server made of a turn that it found the end of by itself.

    Times are in seconds since the caller began to speak.

    Attributes:
        heard: What it heard, utterance by utterance.
        partials: What it told meanwhile: when, the words so far, and those of them that are sure.
        first_sound_s: From the end of speech to the first sound of a reply behind it; None where
            none came.
    """

    heard: list[str] = field(default_factory=list)
    partials: list[tuple[float, str, str]] = field(default_factory=list)
    first_sound_s: float | None = None

    def take(self, event: Event, at_s: float, end_s: float) -> None:
        """Note what is told; the speech ends at `end_s`."""
        match event:
            case v1.TranscriptFinal(text=text) if text:
                self.heard.append(text)
            case v1.TranscriptPartial(text=text, confirmed=confirmed):
                self.partials.append((at_s, text, confirmed))
            case ReplyAudio() if self.first_sound_s is None and at_s > end_s:
                self.first_sound_s = at_s - end_s


async def follow(
    url: str, turn: Turn, *, silence_s: float | None = None, adaptive: bool = False
) -> Followed:
    """Say a turn to labkit's server, which decides by itself when it is over.

    Args:
        url: The server's address.
        turn: What is said, at the pace of speech.
        silence_s: Silence that ends an utterance, 0.2 to 3 s; by default, the server's own.
        adaptive: Let it follow the caller and the words.
    """
    start = v1.SessionStart(
        turn_detection=v1.TurnDetection.SERVER,
        silence_s=silence_s,
        endpointing=v1.Endpointing.ADAPTIVE if adaptive else v1.Endpointing.FIXED,
        partials=True,
        acknowledges=True,
    )
    followed, loop = Followed(), asyncio.get_running_loop()
    async with SessionClient.connect(url, start) as client:
        begun_s = loop.time()
        saying = asyncio.create_task(
            speak(turn.samples, lambda chunk: client.send_audio(encode_s16le(chunk)))
        )
        said_s = begun_s + len(turn.samples) / SAMPLE_RATE
        try:
            async with asyncio.timeout_at(said_s + _QUIET_S) as quiet:
                while True:
                    event = await client.next_event()
                    quiet.reschedule(max(said_s, loop.time()) + _QUIET_S)
                    followed.take(event, loop.time() - begun_s, turn.end_s)
        except TimeoutError:
            return followed
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
