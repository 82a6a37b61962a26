"""Turns with pauses in them, of callers who each pause in a rhythm of their own.

The recordings are read without a stop. People do stop, in the middle of a sentence. Here pauses are
put into recordings: at a quiet place within the speech, the room's own noise goes on for a while,
and then the speech does. Where a turn ends is known from the recording's annotation, whatever a
detector thinks.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

import numpy as np

from labkit.audio.pcm import SAMPLE_RATE, Float32, read_audio
from labkit.measure.recordings import Recording, utterances
from labkit.voice.silero import SileroVad

FRAME_S: Final = 512 / SAMPLE_RATE
"""Length of one frame of the detector, in seconds."""

_TURNS: Final = 9
"""As many as there are utterances of each voice."""
_RHYTHM_S: Final = (0.12, 1.0)
"""A speaker's usual pause lies between these."""
_SPREAD: Final = 0.2
"""How far a pause is from the speaker's usual one: the deviation of its logarithm."""
_PAUSES: Final = (0, 1, 1, 2, 2)
_SNR_DB: Final = (18.0, 35.0)
_VALLEY_S: Final = 0.02
_FADE_S: Final = 0.005
_AFTER_S: Final = 2.5


@dataclass(frozen=True, slots=True, eq=False)
class Turn:
    """One turn of somebody who pauses.

    Attributes:
        speaker: Who speaks; the turns of one speaker belong together.
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


def voices() -> list[str]:
    """The voices that the course has recordings of."""
    return sorted({one.voice for one in utterances()})


def conversations(rng: Random, of: Iterable[str], *, each: int = 1) -> list[list[Turn]]:
    """Conversations of nine turns, `each` of every voice, in rhythms of pauses that are drawn."""
    return list(drawn_conversations(rng, of, each=each))


def drawn_conversations(rng: Random, of: Iterable[str], *, each: int) -> Iterator[list[Turn]]:
    """The same one by one, since each takes a while to draw."""
    known, vad = utterances(), SileroVad()
    voices = [voice for voice in of for _ in range(each)]
    for voice, usual_s in zip(voices, _rhythms(rng, len(voices)), strict=True):
        said = rng.sample([one for one in known if one.voice == voice], _TURNS)
        snr_db = rng.uniform(*_SNR_DB)
        speaker = f"{voice}, pauses of about {usual_s:.1f} s"
        yield [_turn(rng, one, vad, speaker, usual_s, snr_db) for one in said]


def _rhythms(rng: Random, count: int) -> list[float]:
    """The usual pause of each of so many speakers: hasty and slow ones, in any order."""
    low, high = np.log(_RHYTHM_S)
    step = (high - low) / count
    drawn = [float(np.exp(low + (n + rng.random()) * step)) for n in range(count)]
    rng.shuffle(drawn)
    return drawn


def _turn(
    rng: Random, said: Recording, vad: SileroVad, speaker: str, usual_s: float, snr_db: float
) -> Turn:
    samples = read_audio(said.path)
    end = said.end_of_speech_sample or len(samples)
    places = _quiet_places(samples, end, rng.choice(_PAUSES))
    lengths = [rng.lognormvariate(float(np.log(usual_s)), _SPREAD) for _ in places]
    pieces, pauses, at = [], [], 0
    for place, length_s in zip(places, lengths, strict=True):
        pieces.append(_faded(samples[at:place]))
        pauses.append((sum(map(len, pieces)) / SAMPLE_RATE, length_s))
        pieces.append(np.zeros(round(length_s * SAMPLE_RATE), np.float32))
        at = place
    pieces += [_faded(samples[at:end]), np.zeros(round(_AFTER_S * SAMPLE_RATE), np.float32)]
    whole = np.concatenate(pieces)
    level = float(np.sqrt(np.mean(np.square(samples[:end])))) * 10 ** (-snr_db / 20)
    noise = np.random.default_rng(rng.getrandbits(32)).normal(0, level, len(whole))
    whole = (whole + noise).astype(np.float32)
    framed = np.pad(whole, (0, -len(whole) % vad.frame_samples))
    voiced, _ = vad.probabilities(None, framed)
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
