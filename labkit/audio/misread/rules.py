"""What one block of a stream says about the format that its caller declared.

`RULES` holds what is looked for. A rule about the layout speaks only where the declared reading is
bad *and* another one is good; a rule about rate or channels only where the declared reading is
good *and* the stream comes at the pace of the other rate or number of channels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

import numpy as np

from labkit.audio.formats import AudioFormat
from labkit.audio.misread.readings import (
    DECLARED,
    READINGS,
    Float64,
    Reading,
    Sound,
    encoder_inside,
)
from labkit.errors import ErrorCode

__all__ = [
    "MISMATCHES",
    "RULES",
    "Finding",
    "Layout",
    "Mismatch",
    "Pace",
    "Rule",
    "Window",
    "compressed",
    "is_live",
]

MISMATCHES: Final = frozenset(
    {
        *(reading.kind for reading in READINGS),
        ErrorCode.LOOKS_SHIFTED,
        ErrorCode.LOOKS_LIKE_COMPRESSED,
        ErrorCode.LOOKS_LIKE_FILE,
        ErrorCode.LOOKS_LIKE_STEREO,
        ErrorCode.LOOKS_LIKE_MONO,
        ErrorCode.RATE_MISMATCH,
        ErrorCode.CHANNELS_CANCEL,
    }
)
"""Everything that a stream can look like in place of what was declared."""

_LAWS: Final = frozenset({ErrorCode.LOOKS_LIKE_MULAW, ErrorCode.LOOKS_LIKE_ALAW})

_AUDIBLE_DB: Final = -50.0
"""RMS, in dBFS, below which a block is taken for silence."""
_LOUD_DB: Final = -15.0
_LOUD_BYTES_DB: Final = -17.0
"""Misread speech is louder: its RMS was never below -13 dBFS, and where single bytes were declared
(as A-law, that is) never below -16."""
_TOO_LOUD_DB: Final = -10.0
"""What another reading may not exceed, since misread bytes mostly lie near -5 dBFS."""
_NOTHING_DB: Final = -80.0
"""A reading below this holds nothing at all, such as floats of which all are minute."""
_SOUND_DB: Final = 6.0
"""Gain of the predictor from which a loud block is sound; noise has 0."""
_OTHER_DB: Final = 4.0
_MARGIN_DB: Final = 2.5
_MARGIN: Final = 1.5
"""The gain that another reading needs: at least 4 dB, and 2.5 dB more and half as much again as
the declared one. µ-law read as µ-law has 4 to 28 dB, read as something else 0 to 13."""
_LAW_DB: Final = 3.0
_LAW_MARGIN_DB: Final = 1.2
"""The same, for one law of G.711 in place of the other: where the declared one is right, the other
never had 0.1 dB more, whatever the audio."""
_NOISE_DB: Final = 2.0
"""Gain of the predictor below which single bytes are noise, loud or not."""
_GLANCE_BYTES: Final = 1024
_GLANCE_MORE_DB: Final = 4.0
_GLANCE_DB: Final = 3.0
"""Noise is noise at a glance: the whole block is read only as what has this gain in its first
bytes, and as much as all have as declared, and is at most so much louder than what is accepted."""
_SURE_DB: Final = 15.0
"""Gain of the predictor that no misread bytes have: of speech, it was never above 13."""
_SLOW: Final = 0.72
_FAST: Final = 1.36
"""Paces between these are left alone: 44.1 kHz as 48 kHz cannot be told from a clock or a
network that is a little off, and 22.05 kHz as 16 kHz can."""
_TWICE: Final = 1.9
"""Speed from which a stream may be twice too fast, whatever its rate."""
_CHANNELS_S: Final = 1.5
_RATE_S: Final = 3.0
"""How long a pace must have lasted before it counts, in seconds of the clock."""
_STEADY_NS: Final = 150_000_000
_SPEECH_HZ: Final = 8_800
"""Speech has little above it."""
_RATES: Final = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)


@dataclass(frozen=True, slots=True)
class Mismatch:
    """One fault of a stream's format."""

    kind: ErrorCode
    """What the audio looks like, one of `MISMATCHES`."""
    message: str
    """What was seen, in plain words with the figures."""
    hint: str
    """What to send or to declare instead."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What a stream is taken for: first what was declared, then that with what was found."""

    name: str
    """The encoding, in words."""
    reading: Reading
    sample_rate: int
    channels: int

    @classmethod
    def of(cls, form: AudioFormat) -> "Layout":
        """What was declared."""
        return cls(form.encoding, DECLARED[form.encoding], form.sample_rate, form.channels)

    @property
    def bytes_per_second(self) -> int:
        """Bytes of one second."""
        return self.reading.sample_bytes * self.channels * self.sample_rate

    def speed(self, bytes_per_second: float | None) -> float:
        """Seconds of audio per second of the clock; 1 is live, and what is not known is, too."""
        return 1.0 if bytes_per_second is None else bytes_per_second / self.bytes_per_second

    def __str__(self) -> str:
        channels = "mono" if self.channels == 1 else "stereo"
        return f"{self.name} {self.sample_rate} Hz {channels}"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a rule concludes: at least one fault."""

    mismatches: tuple[Mismatch, ...]
    layout: Layout | None
    """What the stream is taken for from then on; None where that is no layout of samples."""

    @property
    def kinds(self) -> tuple[ErrorCode, ...]:
        """The kinds of the faults."""
        return tuple(mismatch.kind for mismatch in self.mismatches)


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a stretch of a stream came in.

    Attributes:
        marks: Nanoseconds of the clock, and bytes that had come by then; two at least.
    """

    marks: Sequence[tuple[int, int]]

    @property
    def span_s(self) -> float:
        """Length of the stretch on the clock, in seconds."""
        return (self.marks[-1][0] - self.marks[0][0]) / 1e9

    @property
    def bytes_per_second(self) -> float:
        """Bytes per second of the clock."""
        return (self.marks[-1][1] - self.marks[0][1]) / self.span_s

    def is_steady(self) -> bool:
        """Whether nothing came more than 0.15 s off its time on a straight line."""
        (begin_ns, begin_bytes), per_ns = self.marks[0], self.bytes_per_second / 1e9
        return all(
            abs((size - begin_bytes) / per_ns - (at_ns - begin_ns)) <= _STEADY_NS
            for at_ns, size in self.marks
        )


def is_live(speed: float) -> bool:
    """Whether a stream comes about as fast as it should."""
    return _SLOW < speed < _FAST


class Window:
    """A block of a stream, as the rules see it.

    Attributes:
        layout: What the stream is taken for.
        block: Bytes that begin on a whole frame of any encoding.
        pace: How fast the stream comes in, where that is known.
        speed: Seconds of audio per second of the clock; 1 is live, and what is not known is, too.
    """

    def __init__(self, layout: Layout, block: bytes, pace: Pace | None) -> None:
        """Read a block."""
        self.layout = layout
        self.block = block
        self.pace = pace
        self.speed = layout.speed(pace.bytes_per_second if pace else None)
        # Single bytes need not be loud where they are misread.
        self.is_bytes = layout.reading.sample_bytes == 1

    @cached_property
    def sound(self) -> Sound:
        """How much like sound the block is, read as its layout says."""
        return Sound(self.layout.reading.frames(self.block, self.layout.channels))

    @cached_property
    def is_loud(self) -> bool:
        """Whether the level is that of misread bytes, or no level at all."""
        loud_db = _LOUD_BYTES_DB if self.is_bytes else _LOUD_DB
        return not self.sound.valid or self.sound.level_db > loud_db

    def is_off_pace(self, span_s: float) -> bool:
        """Whether it came steadily faster or slower than it should, for `span_s` or longer."""
        pace = self.pace
        if pace is None or is_live(self.speed):
            return False
        return pace.span_s >= span_s and pace.is_steady()

    @property
    def is_noise(self) -> bool:
        """Whether it is no sound, and loud where its samples are not single bytes."""
        if self.is_loud:
            return self.sound.gain_db < _SOUND_DB
        return self.is_bytes and self.sound.gain_db < _NOISE_DB

    @cached_property
    def glance(self) -> Sequence[tuple[Reading, Sound]]:
        """What the first bytes sound like under every other reading that is likely.

        What is sound, and not loud, can only be one kind of single bytes read as another.
        """
        any_width = self.is_loud or self.is_noise
        return [
            (reading, Sound(reading.frames(self.block[:_GLANCE_BYTES], 1)))
            for reading in READINGS
            if reading is not self.layout.reading and (any_width or reading.sample_bytes == 1)
        ]

    @property
    def is_silent(self) -> bool:
        """Whether there is too little in it to judge."""
        if self.block.count(self.block[:1]) == len(self.block):  # digital silence: no arithmetic
            return True
        return self.sound.valid and self.sound.level_db < _AUDIBLE_DB

    @property
    def is_silent_otherwise(self) -> bool:
        """Whether another reading would make silence of what is loud, or of single bytes.

        So begin the floats of a microphone that are read as integers, and so are the pauses of
        A-law that is read as µ-law.
        """
        if not (self.is_noise or self.is_bytes):
            return False
        return any(
            sound.valid and sound.level_db < _AUDIBLE_DB
            for reading, sound in self.glance
            # On a scale of 32768, floats within ±1 are always silence.
            if reading.kind is not ErrorCode.FLOAT_OUT_OF_SCALE or not self.sound.valid
        )

    @property
    def seems_misread(self) -> bool:
        """Whether another layout is worth a look.

        One law of G.711 read as the other, or unsigned bytes as either, need not be loud.
        """
        return (self.is_loud or self.is_bytes) and self.sound.gain_db < _SURE_DB


Judge = Callable[[Window], Finding | None]
"""What one audible window says for a mismatch, or None where it says nothing for it."""


@dataclass(frozen=True, slots=True)
class Rule:
    """When windows become a finding."""

    judge: Judge
    misread: bool
    """Whether it is asked about windows that seem misread; else about those that are sound."""
    votes: int
    """Windows that must agree on a kind..."""
    of: int
    """...among this many last audible ones."""

    def ask(self, window: Window) -> Finding | None:
        """What the window says, if the rule is for windows of this sort."""
        asked = window.seems_misread if self.misread else not window.is_noise
        return self.judge(window) if asked else None


def another_reading(window: Window) -> Finding | None:
    """Read as declared it is loud noise or no numbers at all, read otherwise it is sound.

    Both must be so: white noise stays noise under every reading, and sound stays sound.
    """
    if (best := _best_reading(window)) is None:
        return None
    reading, sound = best
    if not _AUDIBLE_DB < sound.level_db < _TOO_LOUD_DB:
        return None
    if sound.gain_db < _least_gain_db(window, reading):
        return None
    message = (
        f"read as declared ({window.layout}) this is {_described(window.sound)};"
        f" read as {reading.name} it is sound at {sound.level_db:.0f} dBFS,"
        f" predictable by {sound.gain_db:.0f} dB"
    )
    mismatches = []
    if reading.kind is not window.layout.reading.kind:
        mismatches.append(Mismatch(reading.kind, message, reading.hint))
    if reading.skip:
        hint = "send whole samples only: bytes were lost or added, such as a header of odd length"
        mismatches.append(Mismatch(ErrorCode.LOOKS_SHIFTED, message, hint))
    layout = replace(window.layout, name=reading.name, reading=reading)
    return Finding(tuple(mismatches), layout)


def _least_gain_db(window: Window, reading: Reading) -> float:
    """The gain from which the reading is believed in place of the declared one."""
    declared_db = window.sound.gain_db
    if {window.layout.reading.kind, reading.kind} == _LAWS:
        return max(_LAW_DB, declared_db + _LAW_MARGIN_DB)
    return max(_OTHER_DB, declared_db + _MARGIN_DB, declared_db * _MARGIN)


def _best_reading(window: Window) -> tuple[Reading, Sound] | None:
    """The other reading that is most like sound, of those that may be at a glance."""
    likely, channels = window.glance, window.layout.channels
    if window.is_loud or window.is_noise:
        least_db = max(_GLANCE_DB, window.sound.gain_db)
        likely = [
            (reading, sound)
            for reading, sound in likely
            if _NOTHING_DB < sound.level_db < _TOO_LOUD_DB + _GLANCE_MORE_DB
            and sound.gain_db > least_db
        ]
    heard = [(reading, Sound(reading.frames(window.block, channels))) for reading, _ in likely]
    return max(heard, key=lambda pair: pair[1].gain_db, default=None)


def _described(sound: Sound) -> str:
    if not sound.valid:
        return "beyond the full scale or not a number"
    return f"noise at {sound.level_db:.0f} dBFS, predictable by {sound.gain_db:.0f} dB"


def encoded(window: Window) -> Finding | None:
    """Misread, and with the marks that an encoder puts into its stream."""
    found = encoder_inside(window.block)
    return compressed(f"this is a stream of {found}, and no samples") if found else None


def compressed(message: str) -> Finding:
    """What an encoder's output comes to."""
    hint = "decode it before sending; in a browser, take samples from an AudioWorklet"
    return Finding((Mismatch(ErrorCode.LOOKS_LIKE_COMPRESSED, message, hint),), layout=None)


def incompressible(window: Window) -> Finding | None:
    """All bytes equally frequent, no sound under any reading, and slower than live audio.

    What an encoder leaves is as random as white noise of uniform distribution over the full
    scale. Only the pace tells them apart: encoded audio takes fewer bytes a second.
    """
    if window.speed > _SLOW or window.pace is None or window.pace.span_s < _CHANNELS_S:
        return None
    if window.sound.gain_db > 1 or (entropy := _entropy(window.block)) < 7.8:
        return None
    return compressed(
        f"the bytes are random ({entropy:.2f} bits each), and come {window.speed:.2f} times as fast"
        f" as live {window.layout}"
    )


def _entropy(block: bytes) -> float:
    """Shannon entropy of the bytes, in bits."""
    share = np.bincount(np.frombuffer(block, np.uint8), minlength=256) / len(block)
    share = share[share > 0]
    return float(-(share * np.log2(share)).sum())


def stereo_as_mono(window: Window) -> Finding | None:
    """Every second sample belongs to another signal, and too much audio comes in.

    Either alone would not do: a tone of a quarter of the sample rate has a period of two as
    well, and so has audio whose rate was doubled by repeating samples.
    """
    layout = window.layout
    if layout.channels == 2 or not window.is_off_pace(_CHANNELS_S):
        return None
    if window.speed < _TWICE and _usual_rate(layout, window.speed / 2) is None:
        return None
    if not _twofold(window.sound.frames[:, 0]):
        return None
    mismatch = Mismatch(
        ErrorCode.LOOKS_LIKE_STEREO,
        f"every second sample belongs to another signal, and audio comes {window.speed:.2f} times"
        f" as fast as live {layout}: these are two interleaved channels",
        "declare 2 channels, or send the average of the two",
    )
    return Finding((mismatch,), replace(layout, channels=2))


def _twofold(samples: Float64) -> bool:
    """Whether even and odd samples differ in level, in steps, or in what predicts them."""
    even = samples[: len(samples) // 2 * 2].reshape(-1, 2)
    steps = np.diff(samples[: len(samples) // 2 * 2 - 1])
    steps = steps[: len(steps) // 2 * 2].reshape(-1, 2)
    by_level, by_step = _imbalance(even), _imbalance(steps)
    return by_level > 1.5 or by_step > 1.5 or _skips(samples)


def _imbalance(pairs: Float64) -> float:
    """Energy of one column over that of the other, at least 1."""
    energies = np.square(pairs).sum(axis=0) + 1e-12
    return float(energies.max() / energies.min())


def _skips(samples: Float64) -> bool:
    """Whether a sample follows from the one before last, and less from the last one.

    A hiss is not meant: its samples are the opposite of the last ones.
    """
    one, two = _correlations(samples)
    return two > 0.6 and -0.2 < one < two - 0.15


def _correlations(samples: Float64) -> tuple[float, float]:
    """Autocorrelation at one sample and at two."""
    centred = samples - samples.mean()
    energy = float(centred @ centred) + 1e-12
    one, two = (float(centred[:-lag] @ centred[lag:]) / energy for lag in (1, 2))
    return one, two


def mono_as_stereo(window: Window) -> Finding | None:
    """Left and right are one smooth signal in turns, and too little audio comes in.

    The pace is needed: the two microphones of a laptop may be half a sample apart.
    """
    layout = window.layout
    if layout.channels == 1 or not window.is_off_pace(_CHANNELS_S):
        return None
    if not 0.45 < window.speed < 0.55 and _usual_rate(layout, 2 * window.speed) is None:
        return None
    if not _single(window.sound.frames):
        return None
    mismatch = Mismatch(
        ErrorCode.LOOKS_LIKE_MONO,
        f"left and right follow each other as one signal, and audio comes {window.speed:.2f} times"
        f" as fast as live {layout}: this is one channel",
        "declare 1 channel, or send each sample twice",
    )
    return Finding((mismatch,), replace(layout, channels=1))


def _single(frames: Float64) -> bool:
    samples = frames.reshape(-1)
    steps = np.diff(samples[: len(samples) - 1])
    steps = steps[: len(steps) // 2 * 2].reshape(-1, 2)
    balanced = _imbalance(frames) < 1.3 and _imbalance(steps) < 1.5
    one, two = _correlations(samples)
    return balanced and two < one


def cancelling(window: Window) -> Finding | None:
    """Two channels of which the mix has less than a hundredth of the energy."""
    if window.layout.channels == 1:
        return None
    centred = window.sound.centred
    mixed = np.square(centred.sum(axis=1)).sum() / (2 * np.square(centred).sum())
    if not mixed < 0.01:
        return None
    mismatch = Mismatch(
        ErrorCode.CHANNELS_CANCEL,
        f"left and right are opposite: their mix has {100 * mixed:.1f} % of the energy",
        "turn the sign of one channel, or declare and send only one of them",
    )
    return Finding((mismatch,), window.layout)


def other_rate(window: Window) -> Finding | None:
    """Read as declared it is sound, and comes in steadily at the pace of another usual rate.

    Faster than live is also a file that is sent fast. It is told apart where it holds a hiss,
    such as an s: then there is more above 8.8 kHz of the other rate than speech has there.
    """
    layout, speed = window.layout, window.speed
    if window.pace is None or not window.is_off_pace(_RATE_S):
        return None
    if (rate := _usual_rate(layout, speed)) is None:
        return None
    if speed > 1 and _share_above(window, _SPEECH_HZ / speed) > 0.5:
        return None
    mismatch = Mismatch(
        ErrorCode.RATE_MISMATCH,
        f"audio comes {speed:.2f} times as fast as live {layout}, for"
        f" {window.pace.span_s:.0f} s: {speed * layout.sample_rate:.0f} frames a second",
        f"declare the sample rate {rate}, or resample to {layout.sample_rate}; a file may be"
        " sent faster, but not at the pace of another rate",
    )
    return Finding((mismatch,), replace(layout, sample_rate=rate))


def _usual_rate(layout: Layout, speed: float) -> int | None:
    """The usual sample rate within 4 % of what comes in."""
    seen = speed * layout.sample_rate
    nearest = min(_RATES, key=lambda rate: abs(rate - seen))
    return nearest if abs(nearest - seen) < 0.04 * nearest else None


def _share_above(window: Window, hertz: float) -> float:
    """Largest share of energy above `hertz` in any 512 frames of the window."""
    frames = window.sound.frames
    pieces = frames[: len(frames) // 512 * 512].reshape(-1, 512, frames.shape[1])
    # Each channel by itself: what is left of opposite ones in a mix is rounding, which hisses.
    spectra = np.fft.rfft(pieces * np.hanning(512)[:, None], axis=1)
    power = np.square(np.abs(spectra)).sum(axis=2)
    above = np.fft.rfftfreq(512, 1 / window.layout.sample_rate) > hertz
    return float((power[:, above].sum(axis=1) / (power.sum(axis=1) + 1e-12)).max(initial=0))


RULES: Final = (
    Rule(another_reading, misread=True, votes=3, of=8),
    Rule(encoded, misread=True, votes=1, of=1),
    Rule(incompressible, misread=True, votes=2, of=2),
    Rule(stereo_as_mono, misread=False, votes=3, of=6),
    Rule(mono_as_stereo, misread=False, votes=3, of=6),
    Rule(cancelling, misread=False, votes=4, of=6),
    Rule(other_rate, misread=False, votes=3, of=3),
)
"""The rules, in the order in which they are asked."""
