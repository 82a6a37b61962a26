"""What one caller says over the replies to them, and how far they have heard those.

As soon as somebody speaks over a reply, it is paused. Then it is *contended*: it goes on where it
was, or ends, by what was said over it.
"""

from collections.abc import Callable
from typing import Final

import numpy as np

from labkit.audio.echo import WINDOW, EchoDetector
from labkit.audio.pcm import SAMPLE_RATE, Float32
from labkit.session.events import Event, ReplyPaused, ReplyResumed
from labkit.session.playout import Playout
from labkit.session.turn import Turn
from labkit.voice.hearing import Endpointing, Utterance, frames_in
from labkit.voice.scheduling import Playback
from labkit.voice.turn_taking import Verdict, judge

_LOOK_S: Final = 0.5
"""So often speech over a reply is recognised while it goes on: once a word or two."""
_OFTEN: Final = 8
"""After so many looks, each comes when the speech is twice as long as at the one before."""
_LEARNS: Final = 0.3
_LATE_S: Final = WINDOW / SAMPLE_RATE
_ECHO_LASTS_S: Final = 3.0
"""So long after the last of a reply its echo may come."""


class BargeIn:
    """Follows what is said over the reply that plays.

    Attributes:
        turn: Whose reply plays, or is to be; it may be over, while its client still plays.
        playout: How far that reply is played.
        contended: Whether somebody speaks over it, and it is paused.
    """

    def __init__(
        self,
        frame_samples: int,
        rules: Endpointing,
        lead_s: float,
        clock: Callable[[], int],
        tell: Callable[[Event], None],
    ) -> None:
        """A reply is sent `lead_s` seconds ahead of its playing; `clock` gives monotonic ns."""
        self.turn: Turn | None = None
        self.playout = Playout(lead_s)
        self.contended = False
        self._playback = Playback()
        self._tell = tell
        self._lead_s = lead_s
        self._frame = frame_samples
        self._look = frames_in(_LOOK_S, frame_samples)
        self._rules = rules
        self._clock = clock
        self._echo = EchoDetector()
        self._echo_ns = 0
        """Until then, what was sent may come back."""
        self._echo_end = 0
        self._began = 0
        self._left_s = 0.0
        self._usual_db: float | None = None

    @property
    def held_bytes(self) -> int:
        """Bytes of the replies that are remembered for their echo."""
        return self._echo.nbytes

    def begin(self, turn: Turn, playback: Playback) -> None:
        """The reply of `turn` is the next to be played; `playback` says when more of it is due."""
        self.turn, self.contended, self._playback = turn, False, playback
        # The last of the reply before may still be played.
        self.playout = Playout(self._lead_s, self.playout)
        # Before its first sound its client plays nothing, and its echo is found with that.
        self._echo.sent(np.zeros(WINDOW, np.float32))

    def sent(self, samples: Float32) -> None:
        """More of it is on its way: 16 kHz."""
        self.playout.sent(len(samples) / SAMPLE_RATE, self._clock())
        self._echo.sent(samples)
        self._expect_echo()

    def lacks(self, seconds: float) -> None:
        """Its client, which was away, gets so much of what was sent only now."""
        self.playout.lacks(seconds, self._clock())
        self._expect_echo()

    def expects_echo(self, utterance: Utterance, frame: int) -> bool:
        """Whether a frame was judged to be speech while a reply may come back by microphone.

        Args:
            utterance: What comes in.
            frame: The number of the frame, of those that it holds.
        """
        speech = utterance.probabilities[frame] >= self._rules.release
        return speech and self._clock() <= self._echo_ns

    def is_echo(self, utterance: Utterance, frame: int) -> bool:
        """Whether that frame is the reply."""
        end = (frame + 1) * self._frame
        heard = utterance.audio(max(0, end - WINDOW), end)
        position = utterance.dropped_samples + end
        found = self._echo.is_echo(heard, position)
        if found and not self.contended:
            self._echo_end = position
        return found

    def echo_before(self, utterance: Utterance, frame: int) -> int:
        """Frames at the front of an utterance that hold the reply and not yet the caller.

        Args:
            utterance: What comes in.
            frame: The first in which the caller was found, from its beginning. That was a little
                late: in the frames before, the reply was still the louder of the two.
        """
        echo = min(self._echo_end // self._frame, frame) - frames_in(_LATE_S, self._frame)
        return max(0, echo - utterance.dropped_samples // self._frame)

    def contend(self, frame: int) -> None:
        """Somebody began to speak in `frame`: a reply that plays is paused, whatever is said.

        Where the last of it is played in this moment, speech is an answer, not an interruption.
        """
        now_ns = self._clock()
        self._left_s = self.playout.left_s(now_ns)
        going_on = self.turn is not None and not self.turn.over
        if not going_on and self._left_s < self._rules.min_s:
            return
        if going_on:
            self._left_s = float("inf")
        self.playout.pause(now_ns)
        self._playback.pause(now_ns)
        self.contended, self._began = True, frame
        if self.turn is not None:
            self._tell(ReplyPaused(self.turn.number))

    def is_due(self, frames: int, pause: int, ahead: int) -> bool:
        """Whether what was said should be looked at now: in a pause, and now and then before.

        The longer it has gone on without a decision, the more rarely: it is noise, most likely.
        """
        looks, rest = divmod(frames - self._began, self._look)
        often = looks <= _OFTEN or looks.bit_count() == 1
        return pause == ahead or (not pause and looks > 0 and rest == 0 and often)

    def judge(self, utterance: Utterance, said: str, frames: int, *, over: bool) -> Verdict:
        """What is to become of the reply.

        Args:
            utterance: What comes in.
            said: What was understood of it so far.
            frames: Frames that it has, from its beginning.
            over: The speech has come to a pause.
        """
        spoken_s = (frames - self._began) * self._frame / SAMPLE_RATE
        outlasts = spoken_s >= self._left_s
        return judge(said, over=over, outlasts=outlasts, quieter_db=self._quieter_db(utterance))

    def go_on(self, said: str) -> None:
        """What was said over the reply was no interruption: it goes on where it was."""
        self.contended = False
        now_ns = self._clock()
        self.playout.go_on(now_ns)
        self._playback.go_on(now_ns)
        self._expect_echo()
        if self.turn is not None:
            self._tell(ReplyResumed(self.turn.number, said))

    def end(self) -> float:
        """The reply is over; gives how much of it was heard, in seconds."""
        heard_s = self.playout.heard_s(self._clock())
        self.turn, self.playout, self.contended = None, Playout(self._lead_s), False
        return heard_s

    def next_utterance(self) -> None:
        """Frames are counted anew from here."""
        self._echo_end = 0

    def learn(self, utterance: Utterance) -> None:
        """Note how loud this caller speaks, from an utterance that is answered."""
        level_db = self._level_db(utterance)
        if level_db is not None:
            before = level_db if self._usual_db is None else self._usual_db
            self._usual_db = before + _LEARNS * (level_db - before)

    def _expect_echo(self) -> None:
        now_ns = self._clock()
        self._echo_ns = now_ns + round((self.playout.left_s(now_ns) + _ECHO_LASTS_S) * 1e9)

    def _quieter_db(self, utterance: Utterance) -> float:
        level_db = self._level_db(utterance)
        if level_db is None or self._usual_db is None:
            return 0.0
        return self._usual_db - level_db

    def _level_db(self, utterance: Utterance) -> float | None:
        """The level of the speech in an utterance, in dB; None where there is none."""
        voiced = np.array(utterance.probabilities) >= self._rules.threshold
        audio = utterance.audio(0, len(voiced) * self._frame)
        if not voiced.any() or len(audio) < len(voiced) * self._frame:
            return None
        frames = audio.reshape(-1, self._frame)[voiced]
        return 10 * float(np.log10(np.mean(np.square(frames)) + 1e-12))
