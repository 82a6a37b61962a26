"""Audio that is not what its caller declared: found by looking at the bytes and at the clock.

A `FormatWatch` looks at one block of bytes in every 0.2 s of audio, and at when messages come.
`RULES` holds what it looks for. A rule about the layout speaks only where the declared reading is
bad *and* another one is good; a rule about rate or channels only where the declared reading is
good *and* the pace is that of the other rate or number of channels.

What `labkit drill formats` measures, on the 55 recordings of speech in `data/speech`, with
messages of 20, 40 and 100 ms, up to 60 ms of jitter, and rates from 8 to 48 kHz (all figures are
seconds of audio until half of the streams were found):

==============================  ==================  ========  ============================
sent                            found, named right  median s  told by
==============================  ==================  ========  ============================
another encoding, byte order    99 % or more        0.6 to 4  level and predictability
header of a file or an encoder  100 %               0.04      the first bytes
MP3, Ogg from the middle        100 %               0.6 to 4  frame headers, page marks
encoded, no mark at all         100 %               2 to 8    byte entropy, and slow pace
two channels as one             100 %               1.8 to 2  period of two, and twice live
one channel as two              100 %               3 to 4    no period, and half of live
opposite channels               100 %               1.3       energy of the mix
another rate                    100 %               3 to 6    steady pace of a usual rate
==============================  ==================  ========  ============================

and no false alarm over 1992 streams that are as declared: the utterances, silence, noise of all
levels, tones, clicks, offsets, quiet, clipped and telephone speech, in 24 formats; live, jittered,
stalling, with pauses, with a head start, and all at once. On eight recordings of other voices, out
of `data/heldout`, it was the same, but for Opus without container declared as floats: of that, 62 %
were found within the ten seconds of a stream.

What cannot be told, and is not:

- Anything about silence or noise: they are the same under many readings.
- A layout, where the audio itself is louder than -10 dBFS RMS all the time.
- A rate, of what comes in one burst, or is sent with pauses of speech only; or one so near to the
  declared one (0.72 to 1.36 times) that a network may be the cause. An empty upper band says
  nothing: telephone speech at 48 kHz is an ordinary thing.
- Left and right swapped. Labkit mixes them, so that nothing comes of it. One silent channel is no
  fault either; the mix is 6 dB softer.
- Encoded audio without marks that takes as many bytes a second as what was declared, such as FLAC
  declared as µ-law.

What is told wrongly: a file without any hiss in it that is sent steadily at exactly the pace of
another usual rate, as `rate_mismatch`; uniform noise over the full scale that comes steadily
slower than live, as `looks_like_compressed`.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from labkit.audio.formats import AudioFormat
from labkit.audio.misread.arrival import Pace, PaceMeter
from labkit.audio.misread.containers import encoder_inside, encoder_of, file_of
from labkit.audio.misread.mismatch import Mismatch
from labkit.audio.misread.readings import ALTERNATIVES, DECLARED, Float64, Reading, Sound, sound_of
from labkit.errors import ErrorCode

__all__ = ["RULES", "FormatWatch", "Mismatch", "Rule", "Window"]

_WINDOW_S: Final = 0.2
"""One block is looked at in every such stretch of audio, as declared."""
_MIN_BYTES: Final = 2048
_MAX_BYTES: Final = 4096
"""Sizes of a block: enough for a predictor under any reading, and soon looked at."""
_AUDIBLE_DB: Final = -50.0
"""RMS, in dBFS, below which a block is taken for silence."""
_LOUD_DB: Final = -15.0
"""Misread speech is louder: its RMS was never below -13 dBFS."""
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
_SURE_DB: Final = 13.0
"""Gain of the predictor that no misread bytes have."""
_SLOW: Final = 0.72
_FAST: Final = 1.36
"""Paces between these are left alone: 44.1 kHz as 48 kHz cannot be told from a clock or a
network that is a little off, and 22.05 kHz as 16 kHz can."""
_SPEECH_HZ: Final = 8_800
"""Speech has little above it."""
_RATES: Final = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)


@dataclass(frozen=True)
class Window:
    """A block of a stream, as the rules see it.

    Attributes:
        form: What the caller declared.
        block: Bytes that begin on a whole frame of any encoding.
        pace: How fast the stream comes in, where that is known.
    """

    form: AudioFormat
    block: bytes
    pace: Pace | None

    @cached_property
    def frames(self) -> Float64:
        """The block read as declared, shape `(frames, channels)`."""
        return DECLARED[self.form.encoding].frames(self.block, self.form.channels)

    @cached_property
    def sound(self) -> Sound:
        """How much like sound the declared reading is."""
        return sound_of(self.frames)

    @property
    def is_silent(self) -> bool:
        """Whether there is too little in it to judge."""
        return self.sound.valid and self.sound.level_db < _AUDIBLE_DB

    @property
    def seems_misread(self) -> bool:
        """Whether the level is that of misread bytes, or no level at all.

        One law of G.711 read as the other, or unsigned bytes as either, need not be loud.
        """
        if not self.sound.valid or self.sound.level_db > _LOUD_DB:
            return True
        return self.form.frame_bytes == self.form.channels and self.sound.gain_db < _SURE_DB

    @property
    def reads_well(self) -> bool:
        """Whether the declared reading is sound."""
        return self.sound.valid and (
            self.sound.level_db < _LOUD_DB or self.sound.gain_db > _SOUND_DB
        )


Judge = Callable[[Window], Mismatch | None]
"""What one audible window says for a mismatch, or None where it says nothing for it."""


@dataclass(frozen=True, slots=True)
class Rule:
    """When windows become a finding.

    Attributes:
        judge: What one window says.
        misread: Whether it is asked about windows that seem misread; else about those that
            read well.
        votes: Windows that must agree on a kind...
        of: ...among this many last audible ones.
    """

    judge: Judge
    misread: bool
    votes: int
    of: int

    def ask(self, window: Window) -> Mismatch | None:
        """What the window says, if the rule is for windows of this sort."""
        asked = window.seems_misread if self.misread else window.reads_well
        return self.judge(window) if asked else None


def another_reading(window: Window) -> Mismatch | None:
    """Read as declared it is loud noise or no numbers at all, read otherwise it is sound.

    Both must be so: white noise stays noise under every reading, and sound stays sound.
    """
    reading, sound = _best_reading(window)
    if not _AUDIBLE_DB < sound.level_db < _TOO_LOUD_DB:
        return None
    declared_db = window.sound.gain_db
    if sound.gain_db < max(_OTHER_DB, declared_db + _MARGIN_DB, declared_db * _MARGIN):
        return None
    return Mismatch(
        reading.kind,
        f"read as declared ({window.form}) this is {_described(window.sound)};"
        f" read as {reading.name} it is sound at {sound.level_db:.0f} dBFS,"
        f" predictable by {sound.gain_db:.0f} dB",
        reading.hint,
    )


def _best_reading(window: Window) -> tuple[Reading, Sound]:
    """The other reading that is most like sound; one with nothing in it only if all are."""
    form = window.form
    heard = [
        (reading, sound_of(reading.frames(window.block, form.channels)))
        for reading in ALTERNATIVES
        if reading is not DECLARED[form.encoding] and reading.only in (None, form.encoding)
    ]
    return max(heard, key=lambda pair: (pair[1].level_db > _NOTHING_DB, pair[1].gain_db))


def _described(sound: Sound) -> str:
    if not sound.valid:
        return "beyond the full scale or not a number"
    return f"noise at {sound.level_db:.0f} dBFS, predictable by {sound.gain_db:.0f} dB"


def encoded(window: Window) -> Mismatch | None:
    """Misread, and with the marks that an encoder puts into its stream."""
    found = encoder_inside(window.block)
    return _compressed(f"this is a stream of {found}, and no samples") if found else None


def _compressed(message: str) -> Mismatch:
    hint = "decode it before sending; in a browser, take samples from an AudioWorklet"
    return Mismatch(ErrorCode.LOOKS_LIKE_COMPRESSED, message, hint)


def incompressible(window: Window) -> Mismatch | None:
    """All bytes equally frequent, no sound under any reading, and slower than live audio.

    What an encoder leaves is as random as white noise of uniform distribution over the full
    scale. Only the pace tells them apart: encoded audio takes fewer bytes a second.
    """
    pace = window.pace
    if window.sound.gain_db > 1 or pace is None:
        return None
    if pace.span_s < 1.5 or pace.ratio > _SLOW or (entropy := _entropy(window.block)) < 7.8:
        return None
    return _compressed(
        f"the bytes are random ({entropy:.2f} bits each), and come {pace.ratio:.2f} times as fast"
        f" as live {window.form}"
    )


def _entropy(block: bytes) -> float:
    """Shannon entropy of the bytes, in bits."""
    share = np.bincount(np.frombuffer(block, np.uint8), minlength=256) / len(block)
    share = share[share > 0]
    return float(-(share * np.log2(share)).sum())


def stereo_as_mono(window: Window) -> Mismatch | None:
    """Every second sample belongs to another signal, and twice the audio comes in.

    Either alone would not do: a tone of a quarter of the sample rate has a period of two as
    well, and so has audio whose rate was doubled by repeating samples.
    """
    pace = window.pace
    if pace is None or not pace.steady or pace.span_s < 1.5 or pace.ratio < 1.9:
        return None
    if window.form.channels == 2 or not _twofold(window.frames[:, 0]):
        return None
    return Mismatch(
        ErrorCode.LOOKS_LIKE_STEREO,
        f"every second sample belongs to another signal, and audio comes {pace.ratio:.2f} times"
        f" as fast as live {window.form}: these are two interleaved channels",
        "declare 2 channels, or send the average of the two",
    )


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


def mono_as_stereo(window: Window) -> Mismatch | None:
    """Left and right are one smooth signal in turns, and half of the audio comes in.

    The pace is needed: the two microphones of a laptop may be half a sample apart.
    """
    pace = window.pace
    if pace is None or not pace.steady or pace.span_s < 1.5 or not 0.45 < pace.ratio < 0.55:
        return None
    if window.form.channels == 1 or not _single(window.frames):
        return None
    return Mismatch(
        ErrorCode.LOOKS_LIKE_MONO,
        f"left and right follow each other as one signal, and audio comes {pace.ratio:.2f} times"
        f" as fast as live {window.form}: this is one channel",
        "declare 1 channel, or send each sample twice",
    )


def _single(frames: Float64) -> bool:
    samples = frames.reshape(-1)
    steps = np.diff(samples[: len(samples) - 1])
    steps = steps[: len(steps) // 2 * 2].reshape(-1, 2)
    balanced = _imbalance(frames) < 1.3 and _imbalance(steps) < 1.5
    one, two = _correlations(samples)
    return balanced and two < one


def cancelling(window: Window) -> Mismatch | None:
    """Two channels of which the mix has less than a hundredth of the energy."""
    if window.form.channels == 1:
        return None
    centred = window.sound.centred
    mixed = np.square(centred.sum(axis=1)).sum() / (2 * np.square(centred).sum())
    if not mixed < 0.01:
        return None
    return Mismatch(
        ErrorCode.CHANNELS_CANCEL,
        f"left and right are opposite: their mix has {100 * mixed:.1f} % of the energy",
        "turn the sign of one channel, or declare and send only one of them",
    )


def other_rate(window: Window) -> Mismatch | None:
    """Read as declared it is sound, and comes in steadily at the pace of another usual rate.

    Faster than live is also a file that is sent fast. It is told apart where it holds a hiss,
    such as an s: then there is more above 8.8 kHz of the other rate than speech has there.
    """
    pace = window.pace
    if pace is None or not pace.steady or pace.span_s < 3:
        return None
    if _SLOW < pace.ratio < _FAST or (rate := _usual_rate(window.form, pace.ratio)) is None:
        return None
    if pace.ratio > 1 and _share_above(window, _SPEECH_HZ / pace.ratio) > 0.5:
        return None
    return Mismatch(
        ErrorCode.RATE_MISMATCH,
        f"audio comes {pace.ratio:.2f} times as fast as live {window.form}, for"
        f" {pace.span_s:.0f} s: {pace.ratio * window.form.sample_rate:.0f} frames a second",
        f"declare the sample rate {rate}, or resample to {window.form.sample_rate}; a file may be"
        " sent faster, but not at the pace of another rate",
    )


def _usual_rate(form: AudioFormat, ratio: float) -> int | None:
    """The usual sample rate within 4 % of what comes in."""
    seen = ratio * form.sample_rate
    nearest = min(_RATES, key=lambda rate: abs(rate - seen))
    return nearest if abs(nearest - seen) < 0.04 * nearest else None


def _share_above(window: Window, hertz: float) -> float:
    """Largest share of energy above `hertz` in any 512 frames of the window."""
    mono = window.frames.mean(axis=1)
    pieces = mono[: len(mono) // 512 * 512].reshape(-1, 512) * np.hanning(512)
    power = np.square(np.abs(np.fft.rfft(pieces, axis=1)))
    above = np.fft.rfftfreq(512, 1 / window.form.sample_rate) > hertz
    return float((power[:, above].sum(axis=1) / (power.sum(axis=1) + 1e-12)).max(initial=0))


RULES: Final = (
    Rule(another_reading, misread=True, votes=3, of=8),
    Rule(encoded, misread=True, votes=1, of=1),
    Rule(incompressible, misread=True, votes=2, of=2),
    Rule(stereo_as_mono, misread=False, votes=3, of=6),
    Rule(mono_as_stereo, misread=False, votes=3, of=6),
    Rule(cancelling, misread=False, votes=4, of=6),
    Rule(other_rate, misread=False, votes=2, of=2),
)
"""The rules, in the order in which they are asked."""

_PASSING: Final = (ErrorCode.LOOKS_LIKE_FILE, ErrorCode.CHANNELS_CANCEL)
"""Findings that do not explain everything that follows."""


class FormatWatch:
    """Watches one stream for audio that is not what was declared.

    Feed it each message before decoding: misread floats are often NaN, which the decoder
    refuses at once. Each kind is told once, and nothing more after a kind that says how the
    bytes are laid out, for the rest follows from that.
    """

    def __init__(self, form: AudioFormat) -> None:
        """Watch a stream that its caller declared as `form`."""
        self._format = form
        self._pace = PaceMeter()
        self._recent = {rule: deque[Mismatch | None](maxlen=rule.of) for rule in RULES}
        self._pending = bytearray()
        self._period = _whole(max(_MIN_BYTES, _WINDOW_S * form.bytes_per_second))
        self._told: set[ErrorCode] = set()

    def feed(self, payload: bytes, at_ns: int) -> Mismatch | None:
        """Take a message that came at `at_ns` of a monotonic clock; give what is new about it."""
        if self._told.difference(_PASSING):
            return None
        self._pace.feed(at_ns, len(payload) / self._format.bytes_per_second)
        self._pending += payload
        found = _header(payload)
        if found is not None and found.kind not in self._told:
            return self._tell(found)
        return next(self._findings(), None)

    def _findings(self) -> Iterator[Mismatch]:
        for window in self._windows():
            explained = False
            for rule, recent in self._recent.items():
                # What one rule explains is no evidence for the rules below it.
                recent.append(None if explained else rule.ask(window))
                explained = explained or recent[-1] is not None
                found = _agreed(recent, rule.votes)
                if found is not None and found.kind not in self._told:
                    yield self._tell(found)

    def _tell(self, found: Mismatch) -> Mismatch:
        self._told.add(found.kind)
        return found

    def _windows(self) -> Iterator[Window]:
        """One audible block of every period of the stream."""
        pace = self._pace.pace() if len(self._pending) >= self._period else None
        while len(self._pending) >= self._period:
            block = bytes(self._pending[: min(self._period, _MAX_BYTES)])
            del self._pending[: self._period]
            window = Window(self._format, block, pace)
            if not window.is_silent:
                yield window


def _whole(size: float) -> int:
    """A multiple of eight bytes: whole frames of any encoding and number of channels."""
    return int(size) // 8 * 8


def _header(payload: bytes) -> Mismatch | None:
    """What the first bytes of a message say."""
    if (encoder := encoder_of(payload)) is not None:
        return _compressed(f"the message begins as a stream of {encoder} does")
    if (file := file_of(payload)) is None:
        return None
    return Mismatch(
        ErrorCode.LOOKS_LIKE_FILE,
        f"the message begins with the header of a {file} file",
        "read the format from the header, declare it, and send only what follows the header",
    )


def _agreed(recent: deque[Mismatch | None], votes: int) -> Mismatch | None:
    """The last window's finding, where enough windows found the same kind."""
    last = recent[-1]
    if last is None:
        return None
    same = sum(1 for found in recent if found is not None and found.kind is last.kind)
    return last if same >= votes else None
