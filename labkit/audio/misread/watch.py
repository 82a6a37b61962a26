"""Audio that is not what its caller declared: found by looking at the bytes and at the clock.

A `FormatWatch` looks at a block of bytes now and then, and at when messages come: every 0.2 s in
the first seconds of sound and wherever something may be wrong, once a second where all is well,
more rarely in noise. `labkit.audio.misread.rules` holds what it looks for. What is found is taken
into account from then on, so that a second fault behind the first is found, too.

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

What it costs, over the first 30 s of messages of 20 ms, on a core that others use too 3 µs a
message of speech as 16-bit integers at 16 kHz, 4 to 5 of noise, 6 to 8 of speech in a law of
G.711, where loudness tells nothing, and 1.5 of silence, which is the counting alone.

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
from labkit.audio.misread.arrival import ArrivalMeter
from labkit.audio.misread.containers import Header, header_of
from labkit.audio.misread.rules import (
    RULES,
    Finding,
    Layout,
    Mismatch,
    Rule,
    Window,
    compressed,
)
from labkit.errors import ErrorCode

__all__ = ["FormatWatch", "Mismatch"]

_MIN_BYTES: Final = 2048
_MAX_BYTES: Final = 4096
"""Sizes of a block: enough for a predictor under any reading, and soon looked at."""
_ALIGNMENT: Final = 8
"""Bytes: whole frames of any encoding and number of channels begin at multiples of it."""
_CLOSE_S: Final = 0.2
_SILENT_S: Final = 0.4
_RARE_S: Final = 1.0
_NOISE_S: Final = 4.0
"""Time from one look to the next: while something may be wrong, in silence, where all is well, and
where all is noise, which costs most to look at and tells least."""
_CLOSE_LOOKS: Final = 10
"""Audible looks before the watch relaxes: who lies about the format does so from the start."""
_NOISE_COUNTS: Final = 3
"""For how many looks one at noise counts."""
_MOST_LOOKS: Final = 20
"""Looks at one message: it may hold half a minute, and all other callers wait meanwhile."""
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
        self._arrival = ArrivalMeter()
        self._left_s = seconds
        self._told: set[ErrorCode] = set()
        self._pending = bytearray()
        self._due_ns: float = math.inf
        self._looks = 0
        self._pace_looks = 0
        self._votes = {rule: deque[Finding | None](maxlen=rule.of) for rule in RULES}
        self._suppose(Layout.of(form))
        self._wait_bytes = _aligned(phase * _CLOSE_S * form.bytes_per_second)

    def _suppose(self, layout: Layout) -> None:
        """Take the stream for `layout`; what was seen under another one is no evidence."""
        self._layout = layout
        self._seconds_per_byte = 1 / layout.bytes_per_second
        block = max(_MIN_BYTES, _CLOSE_S * layout.bytes_per_second)
        self._block_bytes = _aligned(min(block, _MAX_BYTES))
        for votes in self._votes.values():
            votes.clear()
        self._looks = 0

    def feed(self, payload: bytes, at_ns: int) -> Sequence[Mismatch]:
        """Take a message that came at `at_ns` of a monotonic clock; give what is new about it.

        This runs for every message of every caller, mostly for nothing. So it counts, and leaves
        out what lies between two blocks; all that costs more waits for `_look`.
        """
        if self._left_s <= 0:
            return ()
        self._left_s -= len(payload) * self._seconds_per_byte
        self._arrival.feed(at_ns, len(payload))
        header = header_of(payload)
        found = () if header is None else self._begins_with(header)
        if header is not None and header.encoded:
            return found
        if at_ns >= self._due_ns:
            self._wait_bytes %= _ALIGNMENT
        if self._wait_bytes >= len(payload):
            self._wait_bytes -= len(payload)
            return found
        self._pending += payload[self._wait_bytes :] if self._wait_bytes else payload
        self._wait_bytes = 0
        if len(self._pending) < self._block_bytes:
            return found
        return (*found, *self._look(at_ns))

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
        looks = 0
        while len(self._pending) >= self._block_bytes:
            looks += 1
            if looks > _MOST_LOOKS:
                self._wait_bytes = -len(self._pending) % _ALIGNMENT
                self._pending.clear()
                break
            block = bytes(self._pending[: self._block_bytes])
            window = Window(self._layout, block, self._arrival)
            if not (window.is_silent or window.is_silent_otherwise):
                found += self._judge(window)
            wait_s = self._wait_s(window)
            self._leave_out(len(block), wait_s)
            self._due_ns = at_ns + round(wait_s * 1e9)
        return found

    def _leave_out(self, looked_at: int, wait_s: float) -> None:
        """Drop the block that was looked at, and all that comes before the next one."""
        passed = max(looked_at, _aligned(wait_s / self._seconds_per_byte))
        self._wait_bytes = max(0, passed - len(self._pending))
        del self._pending[:passed]

    def _wait_s(self, window: Window) -> float:
        """Count a look; give the time from its begin to that of the next one."""
        if window.is_silent or window.is_silent_otherwise:
            return _SILENT_S
        self._looks += _NOISE_COUNTS if window.is_noise else 1
        if self._looks <= _CLOSE_LOOKS or self._is_voting():
            return _CLOSE_S
        if self._pace_looks < _PACE_LOOKS and window.is_off_pace(_PACE_S):
            self._pace_looks += 1
            return _CLOSE_S
        return _NOISE_S if window.is_noise else _RARE_S

    def _is_voting(self) -> bool:
        return any(any(votes) for votes in self._votes.values())

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
            self._left_s = 0.0
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
