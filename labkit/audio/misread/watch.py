"""Audio that is not what its caller declared: found by looking at the bytes and at the clock.

A `FormatWatch` looks at a block of bytes now and then, and at when messages come: every 0.2 s where
something may be wrong; else each look at sound that is as declared lets the next one wait twice as
long, up to 4 s. `labkit.audio.misread.rules` holds what it looks for. What is found is taken into
account from then on, so that a second fault behind the first is found, too.

What `labkit drill formats` measures, on every third of the 55 recordings of speech in
`data/speech`, with messages of 20, 40 and 100 ms, up to 60 ms of jitter, and rates from 8 to
48 kHz (seconds are of audio, until half of the streams were found):

==============================  ==================  ==========  ============================
sent                            found, named right  median s    told by
==============================  ==================  ==========  ============================
another encoding, byte order    98 % or more        0.7 to 3.3  level and predictability
header of a file or an encoder  100 %               0.04        the first bytes
MP3, Ogg from the middle        100 %               0.6 to 1.3  frame headers, page marks
encoded, no mark at all         100 %               2 to 4      byte entropy, and slow pace
two channels as one             100 %               1.8 to 2    period of two, and twice live
one channel as two              100 %               3.2         no period, and half of live
opposite channels               100 %               1.1 to 1.2  energy of the mix
another rate                    100 %               3.2 to 5.6  steady pace of a usual rate
two or three of these at once   94 % or more        0.8 to 5.9  each as above
==============================  ==================  ==========  ============================

and no false alarm over 2656 streams that are as declared: the utterances, silence, noise of all
levels, tones, clicks, offsets, quiet, clipped and telephone speech, in 32 formats; live, jittered,
stalling, with pauses, with a head start, and all at once.

What cannot be told, and is not:

- Anything about silence or noise: they are the same under many readings.
- A layout, where the audio itself is louder than -10 dBFS RMS all the time.
- A rate, of what comes in one burst, or is sent with pauses of speech only; or one so near to the
  declared one (0.72 to 1.36 times) that a network may be the cause. An empty upper band says
  nothing: telephone speech at 48 kHz is an ordinary thing.
- Two channels as one of twice their rate, and one channel as two of half of its rate: the pace is
  right then, and so, nearly, is what is heard.
- Left and right swapped. Labkit mixes them, so that nothing comes of it. One silent channel is no
  fault either; the mix is 6 dB softer.
- Encoded audio without marks that takes as many bytes a second as what was declared, such as FLAC
  declared as µ-law or A-law.

What is told wrongly: a file without any hiss in it that is sent steadily at exactly the pace of
another usual rate, as `rate_mismatch`; uniform noise over the full scale that comes steadily
slower than live, as `looks_like_compressed`.
"""

import math
from collections import deque
from collections.abc import Sequence
from typing import Final

from labkit.audio.formats import AudioFormat
from labkit.audio.misread.readings import Header, begins, header_of
from labkit.audio.misread.rules import (
    RULES,
    Finding,
    Layout,
    Mismatch,
    Pace,
    Rule,
    Window,
    compressed,
    is_live,
)
from labkit.errors import ErrorCode

__all__ = ["ArrivalMeter", "FormatWatch", "Mismatch"]

_KEPT_NS: Final = 4_000_000_000
_MARK_NS: Final = 100_000_000
"""Ten marks a second are enough to see a stall of 0.15 s, however many messages come."""
_PAUSE_GAPS: Final = 3.0
_PAUSE_MORE_NS: Final = 100_000_000
_SMOOTHING: Final = 0.1


class ArrivalMeter:
    """Measures how fast a stream came over the last four seconds, or since the last pause.

    A gap between messages that is longer than three usual ones and 0.1 s is a pause: a caller
    that is muted, or sends only speech, is not slow, so measuring begins anew behind it. What
    comes in one burst has no pace, and a burst followed by live audio is not steady.
    """

    def __init__(self) -> None:
        """Begin before the first message."""
        self._marks: deque[tuple[int, int]] = deque()
        self._due_ns = self._last_ns = self._bytes = self._messages = 0
        self._usual_gap_ns = self._longest_gap_ns = math.inf

    def feed(self, at_ns: int, size: int) -> bool:
        """Count a message of `size` bytes that came at `at_ns` of a monotonic clock.

        This runs for every message of every caller, so all that can wait for a mark does.

        Returns:
            Whether a mark was set, and the pace is to be looked at.
        """
        gap_ns = at_ns - self._last_ns
        self._last_ns = at_ns
        self._bytes += size
        self._messages += 1
        if at_ns < self._due_ns and gap_ns <= self._longest_gap_ns:
            return False
        self._mark(at_ns, gap_ns)
        return True

    def _mark(self, at_ns: int, gap_ns: int) -> None:
        if self._marks:
            self._learn_gap(at_ns, gap_ns)
        self._marks.append((at_ns, self._bytes))
        self._due_ns = at_ns + _MARK_NS
        self._messages = 0
        self._forget()

    def _forget(self) -> None:
        while self._last_ns - self._marks[0][0] > _KEPT_NS:
            self._marks.popleft()

    def _learn_gap(self, at_ns: int, gap_ns: int) -> None:
        """Follow the mean gap since the last mark; a pause counts as the longest that is none."""
        if gap_ns > self._longest_gap_ns:
            self._marks.clear()
            mean_ns, weight = self._longest_gap_ns, _SMOOTHING
        else:
            mean_ns = (at_ns - self._marks[-1][0]) / self._messages
            weight = 1 - (1 - _SMOOTHING) ** self._messages
        usual_ns = mean_ns if math.isinf(self._usual_gap_ns) else self._usual_gap_ns
        self._usual_gap_ns = usual_ns + weight * (mean_ns - usual_ns)
        self._longest_gap_ns = _PAUSE_GAPS * self._usual_gap_ns + _PAUSE_MORE_NS

    def pace(self) -> Pace | None:
        """How fast the stream came, or None before there is any span to measure that on."""
        if self.bytes_per_second() is None:
            return None
        return Pace((*self._marks, (self._last_ns, self._bytes)))

    def bytes_per_second(self) -> float | None:
        """Its pace alone, which is cheap."""
        if not self._marks:
            return None
        self._forget()
        begin_ns, begin_bytes = self._marks[0]
        span_ns, heard = self._last_ns - begin_ns, self._bytes - begin_bytes
        return heard * 1e9 / span_ns if span_ns > 0 and heard > 0 else None


_MIN_BYTES: Final = 2048
_MAX_BYTES: Final = 4096
"""Sizes of a block: enough for a predictor under any reading, and soon looked at."""
_ALIGNMENT: Final = 8
"""Bytes: whole frames of any encoding and number of channels begin at multiples of it."""
_CLOSE_S: Final = 0.2
_SILENT_S: Final = 0.4
_RARE_S: Final = 4.0
"""Time from one look to the next: while something may be wrong, in silence, and at last."""
_BACKOFF: Final = 2.0
"""Each look at sound that is as declared lets the next one wait so much longer..."""
_NOISE_BACKOFF: Final = 4.0
"""...and one at noise, which costs most to look at and tells least, more than that."""
_MOST_EFFORT: Final = 20
_AUDIBLE_EFFORT: Final = 4
"""Looks at silence in one message, and how many of these one at sound is as dear as: a message may
hold minutes, and all other callers wait meanwhile."""
_PACE_S: Final = 1.4
_PACE_LOOKS: Final = 20
"""Span of a wrong pace, in seconds, from which the rules about it are asked often, and how often:
who sends a file faster than speech is no reason to look closely for all of its length."""


class FormatWatch:
    """Watches one stream for audio that is not what was declared.

    Feed it each message before decoding: misread floats are often NaN, which the decoder
    refuses at once. Each kind is told once. A fault that is found is taken into account from then
    on, so that a second one behind it is found, too: floats that were declared as integers are
    read as floats when their sample rate is judged.
    """

    def __init__(self, form: AudioFormat, seconds: float = math.inf, *, phase: float = 0.0) -> None:
        """Watch the beginning of a stream that its caller declared as `form`.

        Args:
            form: What was declared.
            seconds: So much audio is looked at.
            phase: When the first look is, 0 to 1 in the first 0.2 s. Streams that began together
                should not all be looked at in the same instant: others wait for the sum.
        """
        self._meter = ArrivalMeter()
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

    def feed(self, payload: bytes, at_ns: int) -> Sequence[Mismatch]:
        """Take a message that came at `at_ns` of a monotonic clock; give what is new about it.

        This runs for every message of every caller, mostly for nothing. So it counts, and leaves
        out what lies between two blocks; all that costs more waits for a mark or for a look.
        """
        if self._left_bytes <= 0:
            return ()
        size = len(payload)
        self._left_bytes -= size
        if self._meter.feed(at_ns, size):
            self._hurry(at_ns)
        found: Sequence[Mismatch] = ()
        if begins(payload) is not None and (header := header_of(payload)) is not None:
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
        off_pace = at_ns >= self._looked_ns + _CLOSE_S * 1e9 and self._is_off_pace()
        if off_pace or at_ns >= self._due_ns:
            self._wait_bytes %= _ALIGNMENT

    def _is_off_pace(self) -> bool:
        """Whether the rules about the pace are to be asked often."""
        if self._pace_looks >= _PACE_LOOKS or is_live(
            self._layout.speed(self._meter.bytes_per_second())
        ):
            return False
        pace = self._meter.pace()
        return pace is not None and pace.span_s >= _PACE_S and pace.is_steady()

    def _begins_with(self, header: Header) -> Sequence[Mismatch]:
        """What the first bytes of a message say."""
        if header.encoded:
            return self._tell(compressed(f"the message begins as a stream of {header.name} does"))
        mismatch = Mismatch(
            ErrorCode.LOOKS_LIKE_FILE,
            f"the message begins with the header of a {header.name} file",
            "read the format from the header, declare it, and send only what follows the header",
        )
        return self._tell(Finding((mismatch,), self._layout))

    def _look(self, at_ns: int) -> list[Mismatch]:
        """Judge the blocks that are complete, and decide when the next one is due."""
        found: list[Mismatch] = []
        pace, effort = self._meter.pace(), 0
        while len(self._pending) >= self._block_bytes:
            if effort >= _MOST_EFFORT:
                self._leave_out(len(self._pending) + -len(self._pending) % _ALIGNMENT)
                break
            block = bytes(self._pending[: self._block_bytes])
            window = Window(self._layout, block, pace)
            if window.is_silent or window.is_silent_otherwise:
                effort += 1
                wait_s = _SILENT_S
            else:
                effort += _AUDIBLE_EFFORT
                found += self._judge(window)
                wait_s = self._wait_s(window)
            self._looked_ns, self._due_ns = at_ns, at_ns + round(wait_s * 1e9)
            self._leave_out(max(len(block), _aligned(wait_s * self._layout.bytes_per_second)))
        return found

    def _leave_out(self, passed: int) -> None:
        """Drop what was looked at, and all that comes before the next block."""
        self._wait_bytes = max(0, passed - len(self._pending))
        del self._pending[:passed]

    def _wait_s(self, window: Window) -> float:
        """Time from the begin of an audible look to that of the next one."""
        off_pace = self._pace_looks < _PACE_LOOKS and window.is_off_pace(_PACE_S)
        self._pace_looks += off_pace
        if off_pace or any(any(votes) for votes in self._votes.values()):
            self._next_s = _CLOSE_S
        wait_s = self._next_s
        self._next_s = min(wait_s * (_NOISE_BACKOFF if window.is_noise else _BACKOFF), _RARE_S)
        return wait_s

    def _judge(self, window: Window) -> Sequence[Mismatch]:
        """Ask the rules about an audible window."""
        explained = False
        for rule, votes in self._votes.items():
            # What one rule explains is no evidence for the rules below it.
            votes.append(None if explained else rule.ask(window))
            explained = explained or votes[-1] is not None
            finding = _agreed(votes, rule.votes)
            if finding is not None:
                self._settle(rule)
                return self._tell(finding)
        return ()

    def _settle(self, settled: Rule) -> None:
        """Ask a rule no more, nor the others about the layout where it was one of these."""
        for rule in list(self._votes):
            if rule is settled or (rule.misread and settled.misread):
                del self._votes[rule]

    def _tell(self, finding: Finding) -> Sequence[Mismatch]:
        """Go on with what was found; give what of it was not told yet."""
        if finding.layout is None:
            self._left_bytes = 0
            self._pending.clear()
        elif finding.layout != self._layout:
            self._suppose(finding.layout)
        new = [mismatch for mismatch in finding.mismatches if mismatch.kind not in self._told]
        self._told.update(mismatch.kind for mismatch in new)
        return new


def _aligned(size: float) -> int:
    return int(size) // _ALIGNMENT * _ALIGNMENT


def _agreed(votes: deque[Finding | None], enough: int) -> Finding | None:
    """The last window's finding, where enough windows found the same kinds."""
    last = votes[-1]
    if last is None:
        return None
    same = sum(1 for finding in votes if finding is not None and finding.kinds == last.kinds)
    return last if same >= enough else None
