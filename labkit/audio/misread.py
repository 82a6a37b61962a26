"""Audio that is not what its caller declared: found by looking at the bytes and at the clock.

A `FormatWatch` looks at a block of bytes now and then, and at when messages come: every 0.2 s where
something may be wrong; else each look at sound that is as declared lets the next one wait twice as
long, up to 4 s. `RULES` holds what is looked for. A rule about the layout speaks only where the
declared reading is bad *and* another one is good; a rule about rate or channels only where the
declared reading is good *and* the stream comes at the pace of the other rate or number of channels.
What is found is taken into account from then on, so that a second fault behind it is found, too.

`labkit drill formats` measures how surely, and how soon: over 18 recordings of speech each fault is
found and named in 98 % of the streams or more, nearly all in all, after 0.04 s (headers), 0.7 to
3.3 s (encodings) or 3 to 6 s (rates); and nothing is said of 1408 streams that are as declared.

What cannot be told, and is not:

- Anything about silence or noise: they are the same under many readings.
- A layout, where the audio itself is louder than -10 dBFS RMS all the time.
- A rate, of what comes in one burst, or is sent with pauses of speech only; or one so near to the
  declared one (0.72 to 1.36 times) that a network may be the cause. An empty upper band says
  nothing: telephone speech at 48 kHz is an ordinary thing.
- Two channels as one of twice their rate, and one channel as two of half of its rate: the pace is
  right then, and so, nearly, is what is heard.
- Left and right swapped, or one of them silent: labkit mixes them.
- Integers of 24 or 32 bits, which no caller can declare.
- Encoded audio without marks that takes as many bytes a second as what was declared, such as FLAC
  declared as µ-law or A-law.

What is told wrongly: a file without any hiss in it that is sent steadily at exactly the pace of
another usual rate, as `rate_mismatch`; uniform noise over the full scale that comes steadily
slower than live, as `looks_like_compressed`.
"""

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

import numpy as np

from labkit.audio.formats import AudioFormat
from labkit.audio.readings import (
    DECLARED,
    READINGS,
    Float64,
    Header,
    Reading,
    Sound,
    encoder_inside,
    header_of,
)
from labkit.errors import ErrorCode, ProtocolError

# -- the pace of a stream ----------------------------------------------------------------------

_KEPT_NS: Final = 4_000_000_000
_MARK_NS: Final = 100_000_000
"""Ten marks a second are enough to see a stall of 0.15 s, however many messages come."""
_PAUSE_NS: Final = 300_000_000
_PAUSE_TIMES: Final = 12
_STEADY_NS: Final = 150_000_000
_SLOW: Final = 0.72
_FAST: Final = 1.36
"""Paces between these are left alone: 44.1 kHz as 48 kHz cannot be told from a clock or a
network that is a little off, and 22.05 kHz as 16 kHz can."""


class Pace:
    """How fast a stream came in over the last four seconds, or since the last pause.

    A message that comes later behind the one before than 0.3 s and twelve times its length comes
    behind a pause: a caller that is muted, or sends only speech, is not slow, so measuring begins
    anew. What comes in one burst has no pace, and a burst followed by live audio is not steady.
    """

    def __init__(self, bytes_per_second: int) -> None:
        # Nanoseconds of the clock, and bytes that had come by then.
        self._marks: deque[tuple[int, int]] = deque()
        self._due_ns = self._last_ns = self._bytes = 0
        self._pause_ns = _PAUSE_TIMES * 1e9 / bytes_per_second

    def feed(self, at_ns: int, size: int) -> bool:
        """Count a message of `size` bytes that came at `at_ns` of a monotonic clock.

        This runs for every message of every caller, so all that can wait for a mark does.

        Returns:
            Whether a mark was set, and the pace is to be looked at.
        """
        gap_ns = at_ns - self._last_ns
        self._last_ns = at_ns
        self._bytes += size
        if gap_ns > _PAUSE_NS and gap_ns > _PAUSE_NS + self._pause_ns * size:
            self._marks.clear()
        elif at_ns < self._due_ns:
            return False
        self._marks.append((at_ns, self._bytes))
        self._due_ns = at_ns + _MARK_NS
        self._forget()
        return True

    def _forget(self) -> None:
        while self._marks and self._last_ns - self._marks[0][0] > _KEPT_NS:
            self._marks.popleft()

    def _measured(self) -> tuple[int, int]:
        """Nanoseconds and bytes of the stretch, both 0 before there is any to measure on."""
        self._forget()
        if not self._marks:
            return 0, 0
        span_ns, size = self._last_ns - self._marks[0][0], self._bytes - self._marks[0][1]
        return (span_ns, size) if span_ns > 0 and size > 0 else (0, 0)

    @property
    def span_s(self) -> float:
        """Length of the stretch, in seconds of the clock."""
        return self._measured()[0] / 1e9

    def speed(self, bytes_per_second: int) -> float:
        """Seconds of audio per second of the clock; 1 is live, and what is not known is, too."""
        span_ns, size = self._measured()
        return size / (span_ns / 1e9) / bytes_per_second if span_ns else 1.0

    def is_steady(self) -> bool:
        """Whether nothing came more than 0.15 s off its time on a straight line."""
        span_ns, size = self._measured()
        if not span_ns:
            return False
        (begin_ns, begin_bytes), ns_per_byte = self._marks[0], span_ns / size
        return all(
            abs((passed - begin_bytes) * ns_per_byte - (at_ns - begin_ns)) <= _STEADY_NS
            for at_ns, passed in self._marks
        )

    def is_off(self, bytes_per_second: int, span_s: float) -> bool:
        """Whether it was steadily faster or slower than that, for `span_s` or longer."""
        if _SLOW < self.speed(bytes_per_second) < _FAST or self.span_s < span_s:
            return False
        return self.is_steady()


# -- what one block says ------------------------------------------------------------

MISMATCHES: Final = frozenset(code for code in ErrorCode if code.startswith("looks_")) | {
    ErrorCode.FLOAT_OUT_OF_SCALE,
    ErrorCode.RATE_MISMATCH,
    ErrorCode.CHANNELS_CANCEL,
}
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
_SURE_DB: Final = 15.0
"""Gain of the predictor that no misread bytes have: of speech, it was never above 13."""
_FEW_BYTES: Final = 9
"""Different bytes of two levels and of zero, each of four bytes with one in common."""
_NEARLY_LIVE: Final = 0.9
"""Speed from which a stream may be live, or sent faster than that, whatever its rate."""
_CHANNELS_S: Final = 1.5
_RATE_S: Final = 3.0
"""How long a pace must have lasted before it counts, in seconds of the clock."""
_MIN_BYTES: Final = 2048
_MAX_BYTES: Final = 4096
"""Sizes of a block. The lesser is enough for a predictor under any reading."""
_SPEECH_HZ: Final = 8_800
"""Speech has little above it."""
_RATES: Final = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)


@dataclass(frozen=True, slots=True)
class Layout:
    """What a stream is taken for: first what was declared, then that with what was found."""

    name: str
    reading: Reading
    sample_rate: int
    channels: int

    @classmethod
    def of(cls, form: AudioFormat) -> "Layout":
        """Take what was declared."""
        return cls(form.encoding, DECLARED[form.encoding], form.sample_rate, form.channels)

    @property
    def bytes_per_second(self) -> int:
        """Bytes of one second."""
        return self.reading.sample_bytes * self.channels * self.sample_rate

    def __str__(self) -> str:
        channels = "mono" if self.channels == 1 else "stereo"
        return f"{self.name} {self.sample_rate} Hz {channels}"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a rule concludes."""

    faults: tuple[ProtocolError, ...]
    layout: Layout | None
    """What the stream is taken for from then on; None where that is no layout of samples."""

    @property
    def codes(self) -> tuple[ErrorCode, ...]:
        """What it looks like, of `MISMATCHES`; at least one."""
        return tuple(fault.code for fault in self.faults)


def _found(code: ErrorCode, message: str, hint: str, layout: Layout | None) -> Finding:
    return Finding((ProtocolError(code, message, hint),), layout)


class Window:
    """A block of a stream, as the rules see it.

    Attributes:
        layout: What the stream is taken for.
        block: Bytes that begin on a whole frame of any encoding.
        pace: How fast the stream comes in.
        speed: That in seconds of audio per second of the clock.
    """

    def __init__(self, layout: Layout, block: bytes, pace: Pace) -> None:
        self.layout = layout
        self.block = block
        self.pace = pace
        self.speed = pace.speed(layout.bytes_per_second)
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
        return self.pace.is_off(self.layout.bytes_per_second, span_s)

    @property
    def is_noise(self) -> bool:
        """Whether it is no sound, and loud where its samples are not single bytes."""
        if self.is_loud:
            return self.sound.gain_db < _SOUND_DB
        return self.is_bytes and self.sound.gain_db < _NOISE_DB

    @cached_property
    def otherwise(self) -> Sequence[tuple[Reading, Sound]]:
        """What it sounds like under every other reading that is likely.

        What is sound, and not loud, can only be one kind of single bytes read as another.
        """
        any_width = self.is_loud or self.is_noise
        return [
            (reading, self.read(reading, 1))
            for reading in READINGS
            if reading is not self.layout.reading and (any_width or reading.sample_bytes == 1)
        ]

    def read(self, reading: Reading, channels: int) -> Sound:
        """What its beginning sounds like under another reading."""
        return Sound(reading.frames(self.block[:_MIN_BYTES], channels))

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
            for reading, sound in self.otherwise
            # On a scale of 32768, floats within ±1 are always silence.
            if reading.kind is not ErrorCode.FLOAT_OUT_OF_SCALE or not self.sound.valid
        )

    @property
    def seems_misread(self) -> bool:
        """Whether another layout is worth a look.

        One law of G.711 read as the other, or unsigned bytes as either, need not be loud.
        """
        may_be = (self.is_loud or self.is_bytes) and self.sound.gain_db < _SURE_DB
        return may_be and not self.has_few_levels

    @property
    def has_few_levels(self) -> bool:
        """Whether it is made of so few values that it means nothing how else it can be read.

        Such are the beeps of an alarm or a game: square waves, which few samples do not predict.
        """
        counts = np.bincount(np.frombuffer(self.block, np.uint8))
        return int(np.count_nonzero(counts)) <= _FEW_BYTES


@dataclass(frozen=True, slots=True)
class Rule:
    """When windows become a finding."""

    judge: Callable[[Window], Finding | None]
    """What one audible window says for a fault, if anything."""
    misread: bool
    """Whether it is asked about windows that seem misread; else about those that are sound."""
    votes: int
    of: int
    """So many of the last audible windows, `votes` of them, must agree on a kind."""

    def ask(self, window: Window) -> Finding | None:
        """What the window says, if it is of the sort that the rule is for."""
        asked = window.seems_misread if self.misread else not window.is_noise
        return self.judge(window) if asked else None


def another_reading(window: Window) -> Finding | None:
    """Read as declared it is loud noise or no numbers at all, read otherwise it is sound.

    Both must be so: white noise stays noise under every reading, and sound stays sound.
    """
    channels = window.layout.channels
    heard = [
        (reading, window.read(reading, count))
        for reading, sound in window.otherwise
        if _AUDIBLE_DB < sound.level_db < _TOO_LOUD_DB
        # What was declared as two channels is read as one, too: every second sample of telephone
        # speech is hardly like sound. But not bytes as bytes, which sound alike where quiet.
        for count in {channels if window.is_bytes and reading.sample_bytes == 1 else 1, channels}
    ]
    if not heard:
        return None
    reading, sound = max(heard, key=lambda one: one[1].gain_db)
    if sound.gain_db < _least_gain_db(window, reading):
        return None
    message = (
        f"read as declared ({window.layout}) this is {_described(window.sound)};"
        f" read as {reading.name} it is sound at {sound.level_db:.0f} dBFS,"
        f" predictable by {sound.gain_db:.0f} dB"
    )
    faults = []
    if reading.kind is not window.layout.reading.kind:
        faults.append(ProtocolError(reading.kind, message, reading.hint))
    if reading.skip:
        hint = "send whole samples only: bytes were lost or added, such as a header of odd length"
        faults.append(ProtocolError(ErrorCode.LOOKS_SHIFTED, message, hint))
    layout = replace(window.layout, name=reading.name, reading=reading)
    return Finding(tuple(faults), layout)


def _least_gain_db(window: Window, reading: Reading) -> float:
    """From which gain on the reading is believed in place of the declared one."""
    declared_db = window.sound.gain_db
    if {window.layout.reading.kind, reading.kind} == _LAWS:
        return max(_LAW_DB, declared_db + _LAW_MARGIN_DB)
    return max(_OTHER_DB, declared_db + _MARGIN_DB, declared_db * _MARGIN)


def _described(sound: Sound) -> str:
    if not sound.valid:
        return "beyond the full scale or not a number"
    return f"noise at {sound.level_db:.0f} dBFS, predictable by {sound.gain_db:.0f} dB"


def encoded(window: Window) -> Finding | None:
    """Misread, and with the marks that an encoder puts into its stream."""
    found = encoder_inside(window.block)
    return _compressed(f"this is a stream of {found}, and no samples") if found else None


def _compressed(message: str) -> Finding:
    hint = "decode it before sending; in a browser, take samples from an AudioWorklet"
    return _found(ErrorCode.LOOKS_LIKE_COMPRESSED, message, hint, None)


def incompressible(window: Window) -> Finding | None:
    """All bytes equally frequent, no sound under any reading, and slower than live audio.

    What an encoder leaves is as random as white noise of uniform distribution over the full
    scale. Only the pace tells them apart: encoded audio takes fewer bytes a second.
    """
    if window.speed > _SLOW or window.pace.span_s < _CHANNELS_S:
        return None
    if window.sound.gain_db > 1 or (entropy := _entropy(window.block)) < 7.8:
        return None
    return _compressed(
        f"the bytes are random ({entropy:.2f} bits each), and come {window.speed:.2f} times as fast"
        f" as live {window.layout}"
    )


def _entropy(block: bytes) -> float:
    """Shannon's, in bits."""
    share = np.bincount(np.frombuffer(block, np.uint8), minlength=256) / len(block)
    share = share[share > 0]
    return float(-(share * np.log2(share)).sum())


_CHANNELS: Final = {
    1: (
        ErrorCode.LOOKS_LIKE_MONO,
        "left and right follow each other as one signal",
        "this is one channel",
        "declare 1 channel, or send each sample twice",
    ),
    2: (
        ErrorCode.LOOKS_LIKE_STEREO,
        "every second sample belongs to another signal",
        "these are two interleaved channels",
        "declare 2 channels, or send the average of the two",
    ),
}


def other_channels(window: Window) -> Finding | None:
    """One channel declared as two, or two as one; both the samples and the pace say so.

    Either alone would not do: a tone of a quarter of the sample rate has a period of two as
    well, and so has audio whose rate was doubled by repeating samples; and the two microphones
    of a laptop may be half a sample apart.
    """
    layout = window.layout
    other = replace(layout, channels=3 - layout.channels)
    speed = window.speed * layout.channels / other.channels
    if not window.is_off_pace(_CHANNELS_S):
        return None
    if speed < _NEARLY_LIVE and _usual_rate(other, speed) is None:
        return None
    if not _interleaved(window.sound.frames.reshape(-1), other.channels):
        return None
    code, seen, meaning, hint = _CHANNELS[other.channels]
    message = f"{seen}, and audio comes {window.speed:.2f} times as fast as live {layout}"
    return _found(code, f"{message}: {meaning}", hint, other)


def _interleaved(samples: Float64, channels: int) -> bool:
    """Whether samples are those of so many channels in turns.

    Those of two differ in level or in steps, or a sample follows from the one before last, and
    less from the last one; of a hiss, it is the opposite of the last one. Those of one do not.
    """
    pairs = samples[: len(samples) // 2 * 2]
    by_level, by_step = _imbalance(pairs), _imbalance(np.diff(pairs)[:-1])
    centred = samples - samples.mean()
    energy = float(centred @ centred) + 1e-12
    one, two = (float(centred[:-lag] @ centred[lag:]) / energy for lag in (1, 2))
    if channels == 1:
        return by_level < 1.3 and by_step < 1.5 and two < one
    return by_level > 1.5 or by_step > 1.5 or (two > 0.6 and -0.2 < one < two - 0.15)


def _imbalance(samples: Float64) -> float:
    """Energy of even samples over that of odd ones, or the other way round: at least 1."""
    energies = np.square(samples.reshape(-1, 2)).sum(axis=0) + 1e-12
    return float(energies.max() / energies.min())


def cancelling(window: Window) -> Finding | None:
    """Two channels of which the mix has less than a hundredth of the energy."""
    if window.layout.channels == 1:
        return None
    centred = window.sound.centred
    mixed = np.square(centred.sum(axis=1)).sum() / (2 * np.square(centred).sum())
    if not mixed < 0.01:
        return None
    return _found(
        ErrorCode.CHANNELS_CANCEL,
        f"left and right are opposite: their mix has {100 * mixed:.1f} % of the energy",
        "turn the sign of one channel, or declare and send only one of them",
        window.layout,
    )


def other_rate(window: Window) -> Finding | None:
    """Read as declared it is sound, and comes in steadily at the pace of another usual rate.

    Faster than live is also a file that is sent fast. It is told apart where it holds a hiss,
    such as an s: then there is more above 8.8 kHz of the other rate than speech has there.
    """
    layout, speed = window.layout, window.speed
    if not window.is_off_pace(_RATE_S) or (rate := _usual_rate(layout, speed)) is None:
        return None
    if speed > 1 and _share_above(window, _SPEECH_HZ / speed) > 0.5:
        return None
    return _found(
        ErrorCode.RATE_MISMATCH,
        f"audio comes {speed:.2f} times as fast as live {layout}, for"
        f" {window.pace.span_s:.0f} s: {speed * layout.sample_rate:.0f} frames a second",
        f"declare the sample rate {rate}, or resample to {layout.sample_rate}; a file may be"
        " sent faster, but not at the pace of another rate",
        replace(layout, sample_rate=rate),
    )


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
    Rule(other_channels, misread=False, votes=3, of=6),
    Rule(cancelling, misread=False, votes=4, of=6),
    Rule(other_rate, misread=False, votes=3, of=3),
)
"""The rules, in the order in which they are asked."""

# -- the watch ------------------------------------------------------------

_ALIGNMENT: Final = 8
"""Bytes: whole frames of any encoding and number of channels begin at multiples of it."""
_CLOSE_S: Final = 0.2
_SILENT_S: Final = 0.4
_RARE_S: Final = 4.0
"""Time from one look to the next: while something may be wrong, in silence, and at last."""
_BACKOFF: Final = 2.0
"""Each look at sound that is as declared lets the next one wait so much longer."""
_MOST_LOOKS: Final = 6
"""Looks at one message: it may hold minutes, and all other callers wait meanwhile."""
_PACE_S: Final = 1.4
_PACE_LOOKS: Final = 20
"""Span of a wrong pace, in seconds, from which the rules about it are asked often, and how often:
who sends a file faster than speech is no reason to look closely for all of its length."""


class FormatWatch:
    """Watches one stream for audio that is not what was declared; each kind is told once.

    Feed it each message before decoding: misread floats are often NaN, which the decoder
    refuses at once.
    """

    def __init__(self, form: AudioFormat, seconds: float = math.inf, phase: float = 0.0) -> None:
        """Watch the first `seconds` of a stream that its caller declared as `form`.

        The first look is after 0.2 s times `phase`, 0 to 1. Streams that began together should
        not all be looked at in the same instant: others wait for the sum.
        """
        self._pace = Pace(form.bytes_per_second)
        self._left_bytes = seconds * form.bytes_per_second
        self._told: set[ErrorCode] = set()
        self._pending = bytearray()
        self._pace_looks = 0
        self._votes = {rule: deque[Finding | None](maxlen=rule.of) for rule in RULES}
        self._suppose(Layout.of(form))
        self._wait_bytes = _aligned(phase * _CLOSE_S * form.bytes_per_second)
        self._looked_ns, self._due_ns = 0, math.inf

    def _suppose(self, layout: Layout) -> None:
        """Take the stream for `layout`; what was seen under another one is no evidence."""
        self._layout = layout
        close_bytes = _aligned(_CLOSE_S * layout.bytes_per_second)
        self._block_bytes = min(max(_MIN_BYTES, close_bytes), _MAX_BYTES)
        self._next_s = _CLOSE_S
        for votes in self._votes.values():
            votes.clear()

    def feed(self, payload: bytes, at_ns: int) -> Sequence[ProtocolError]:
        """Take a message that came at `at_ns` of a monotonic clock; give what is new about it.

        This runs for every message of every caller, mostly for nothing. So it counts; all that
        costs more waits for a mark or for a look.
        """
        if self._left_bytes <= 0:
            return ()
        size = len(payload)
        self._left_bytes -= size
        if self._pace.feed(at_ns, size):
            self._hurry(at_ns)
        found: Sequence[ProtocolError] = ()
        if (header := header_of(payload)) is not None:
            found = self._begins_with(header)
            if header.encoded:
                return found
        if self._wait_bytes >= size:
            self._wait_bytes -= size
            return found
        self._pending += payload[self._wait_bytes :]
        self._wait_bytes = 0
        if len(self._pending) < self._block_bytes:
            return found
        return (*found, *self._look(at_ns))

    def _hurry(self, at_ns: int) -> None:
        """Look now where the clock says so before the bytes do, or the pace is wrong."""
        if at_ns >= self._due_ns:
            self._wait_bytes %= _ALIGNMENT
        elif self._pace_looks < _PACE_LOOKS and at_ns >= self._looked_ns + _CLOSE_S * 1e9:
            if self._pace.is_off(self._layout.bytes_per_second, _PACE_S):
                self._wait_bytes %= _ALIGNMENT

    def _begins_with(self, header: Header) -> Sequence[ProtocolError]:
        if header.encoded:
            return self._tell(_compressed(f"the message begins as a stream of {header.name} does"))
        return self._tell(
            _found(
                ErrorCode.LOOKS_LIKE_FILE,
                f"the message begins with the header of a {header.name} file",
                "read the format from the header, declare it, and send only what follows it",
                self._layout,
            )
        )

    def _look(self, at_ns: int) -> list[ProtocolError]:
        """Judge the blocks that are complete, and decide when the next one is due."""
        found: list[ProtocolError] = []
        for _ in range(_MOST_LOOKS):
            if len(self._pending) < self._block_bytes:
                return found
            block = bytes(self._pending[: self._block_bytes])
            window = Window(self._layout, block, self._pace)
            wait_s = _SILENT_S
            if not (window.is_silent or window.is_silent_otherwise):
                found += self._judge(window)
                wait_s = self._wait_s(window)
            self._looked_ns, self._due_ns = at_ns, at_ns + round(wait_s * 1e9)
            self._leave_out(max(len(block), _aligned(wait_s * self._layout.bytes_per_second)))
        self._leave_out(len(self._pending) + -len(self._pending) % _ALIGNMENT)
        return found

    def _leave_out(self, passed: int) -> None:
        self._wait_bytes = max(0, passed - len(self._pending))
        del self._pending[:passed]

    def _wait_s(self, window: Window) -> float:
        """Time from the begin of an audible look to that of the next one."""
        off_pace = self._pace_looks < _PACE_LOOKS and window.is_off_pace(_PACE_S)
        self._pace_looks += off_pace
        if off_pace or any(any(votes) for votes in self._votes.values()):
            self._next_s = _CLOSE_S
        wait_s = self._next_s
        self._next_s = min(wait_s * _BACKOFF, _RARE_S)
        return wait_s

    def _judge(self, window: Window) -> Sequence[ProtocolError]:
        explained = False
        for rule, votes in self._votes.items():
            # What one rule explains is no evidence for the rules below it.
            votes.append(None if explained else rule.ask(window))
            explained = explained or votes[-1] is not None
            finding = _agreed(votes, rule.votes)
            if finding is not None:
                # It is asked no more, nor are the others about the layout where it is one of them.
                for other in list(self._votes):
                    if other is rule or (other.misread and rule.misread):
                        del self._votes[other]
                return self._tell(finding)
        return ()

    def _tell(self, finding: Finding) -> Sequence[ProtocolError]:
        """Go on with what was found; give what of it was not told yet."""
        if finding.layout is None:
            self._left_bytes = 0
            self._pending.clear()
        elif finding.layout != self._layout:
            self._suppose(finding.layout)
        new = [fault for fault in finding.faults if fault.code not in self._told]
        self._told.update(fault.code for fault in new)
        return new


def _aligned(size: float) -> int:
    return int(size) // _ALIGNMENT * _ALIGNMENT


def _agreed(votes: deque[Finding | None], enough: int) -> Finding | None:
    """The last window's finding, where enough windows found the same kinds."""
    last = votes[-1]
    if last is None:
        return None
    same = sum(1 for finding in votes if finding is not None and finding.codes == last.codes)
    return last if same >= enough else None
