"""Where utterances begin and end: the one reader of what the voice activity detector says.

Audio is appended as it comes. `run` lets the pipeline judge whole frames, tells where speech begins
and ends, decides where the client leaves that to the server, and hands what is over to the answers.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Final

import numpy as np

from labkit.audio.pcm import SAMPLE_RATE
from labkit.errors import EngineError
from labkit.session import refusals
from labkit.session.ahead import WorkAhead
from labkit.session.answering import Answers, Ended
from labkit.session.barge_in import BargeIn
from labkit.session.common import Common
from labkit.session.events import Refused, SpeechStarted, SpeechStopped
from labkit.trace import Mark
from labkit.voice import turn as voice
from labkit.voice.hearing import Endpointing, SpeechTracker, Utterance, frames_in
from labkit.voice.turn_taking import (
    WINDOW_SAMPLES,
    AdaptiveWait,
    FixedWait,
    Pauses,
    Verdict,
    prosody,
)

_log = logging.getLogger(__name__)

_MOST_SILENCE_S: Final = 10.0
"""An open microphone sends silence for ever: so much of it is enough to keep."""
_SPEECH_AT_ONCE: Final = 3
"""Frames of speech that are examined in one go: fewer than lie between the beginning of a pause and
the first decision about it."""
_SILENCE_AT_ONCE: Final = 12
_CONTESTED_S: Final = 4.0
"""What was said over a reply is judged by the last so many seconds of it."""
_AGAIN_S: Final = 1.0
"""A detector that failed is asked again after so long, also where no audio comes."""
_HUSH: Final = 33
"""Samples below -60 dBFS: quieter than a room with a microphone in it."""


class Listening:
    """What comes in of a session, until it is an utterance that is over."""

    def __init__(
        self,
        common: Common,
        answers: Answers,
        rules: Endpointing,
        cpu_clock: Callable[[], int],
    ) -> None:
        self._common = common
        self._answers = answers
        self._rules = rules
        self._cpu_clock = cpu_clock
        self._cpu_at_start = 0
        self._detects = common.pipeline.frame_samples is not None
        self._frame = common.pipeline.frame_samples or 1
        self._ahead_frames = frames_in(rules.ahead_s, self._frame)
        self._longest_frames = int(common.settings.max_utterance_s * SAMPLE_RATE) // self._frame
        self._tracker = self._fresh_tracker()
        self._utterance = self._fresh_utterance()
        self._unexamined: deque[Ended] = deque()
        self._audio = asyncio.Event()
        self._pauses = Pauses(
            (AdaptiveWait if common.options.adaptive else FixedWait)(rules.stop_s),
            frame_s=self._frame / SAMPLE_RATE,
            shortest=self._ahead_frames,
        )
        self._ahead: WorkAhead | None = None
        self._fails = False  # the detector, since it was asked last

    # What is known of it.

    @property
    def utterance(self) -> Utterance:
        """What is being said, or will be next."""
        return self._utterance

    @property
    def tracker(self) -> SpeechTracker:
        """Where somebody speaks in the utterance that is examined."""
        return self._tracker

    @property
    def may_be_over(self) -> bool:
        """Whether nobody speaks, or somebody pauses for as long as at an end."""
        return not self._tracker.speaking or self._tracker.pause >= self._ahead_frames

    @property
    def unexamined(self) -> int:
        """Utterances that the client has ended, and the detector has not looked at."""
        return len(self._unexamined)

    @property
    def held_bytes(self) -> int:
        """Bytes of audio that is not handed over, and of an answer that is begun ahead."""
        held = self._utterance.nbytes + sum(one.held_bytes for one in self._unexamined)
        return held + (0 if self._ahead is None else self._ahead.held_bytes)

    # What the client does.

    def append(self, pcm: bytes) -> int:
        """Take the next audio, s16le at 16 kHz; gives how many samples did not fit any more."""
        utterance = self._utterance
        if not len(utterance):
            self._cpu_at_start = self._cpu_clock()
        before = utterance.nbytes
        dropped = utterance.append_s16le(pcm)
        if utterance.nbytes != before:  # it grows by blocks, so this is once a second
            self._common.recount()
        # Of what decides nothing now, several frames are examined at a time.
        if utterance.unexamined() >= self._worth_a_look(pcm):
            self._audio.set()
        return dropped

    def end(self) -> None:
        """The client says that the utterance is over."""
        ended = self._ended(self._utterance)
        self._utterance = self._fresh_utterance()
        if not self._common.options.server_ends:  # else more turns may be found before it
            self._answers.number(ended)
        if self._detects:
            # Only once all of it was examined: what speech is told must not depend on how fast
            # the audio came.
            self._unexamined.append(ended)
            self._audio.set()
        else:
            self._answers.hand_over(ended)

    def attached(self) -> None:
        """A connection is there: the time in which audio should come begins now."""
        self._audio.set()

    # Examining.

    async def run(self) -> None:
        """Examine audio while it comes in; what piled up meanwhile is taken in one go."""
        try:
            while True:
                await self._more_audio()
                self._audio.clear()
                await self._examine()
        finally:
            await self._drop_ahead()

    async def _more_audio(self) -> None:
        """Wait for audio.

        A client whose microphone was switched off speaks no longer, though its silence never comes:
        the reply that was paused for it goes on. A lost connection may bring the rest, and waits.
        """
        while not self._audio.is_set():
            wait_s = self._common.settings.muted_s if self._contended else None
            if self._fails:  # what waits for it may be as much as is read: no more audio comes
                wait_s = _AGAIN_S
            try:
                async with asyncio.timeout(wait_s):
                    await self._audio.wait()
            except TimeoutError:
                if self._fails:
                    return
                barge_in, came = self._answers.barge_in, self._audio.is_set()  # in this instant
                mute = self._common.outgoing.attached and not came
                if mute and barge_in is not None and barge_in.contended:
                    self._dismiss(barge_in, self._utterance, "")

    @property
    def _contended(self) -> bool:
        """Whether a reply is paused because somebody speaks."""
        return self._answers.barge_in is not None and self._answers.barge_in.contended

    def _worth_a_look(self, pcm: bytes) -> int:
        """So many unexamined frames are examined at once.

        No decision depends on it, and none that somebody waits for comes later: in the midst of
        speech a pause has only begun, and before it near silence is followed by more.
        """
        tracker = self._tracker
        if tracker.pause or self._contended:
            return 1
        if tracker.speaking:
            return _SPEECH_AT_ONCE
        samples = np.frombuffer(pcm, "<i2")
        quiet = tracker.quiet and len(samples) and -_HUSH < samples.min() <= samples.max() < _HUSH
        return _SILENCE_AT_ONCE if quiet else 1

    async def _examine(self) -> None:
        """Examine all that came, in order, and hand on the utterances that are over."""
        while True:
            ended = self._unexamined[0] if self._unexamined else None
            utterance = self._utterance if ended is None else ended.asked.utterance
            left = utterance.unexamined(ended=ended is not None)
            if left and await self._detect(utterance, ended=ended is not None):
                before = self._tracker.stretches
                await self._follow(utterance)
                if self._common.options.partials or self._tracker.stretches > before:
                    self._common.changes.tell()
                continue
            if ended is None:
                return
            # All of it was judged, or cannot be: then its turn fails, and says so.
            await self._drop_ahead()
            self._answers.interrupt()  # its client wants an answer
            await self._room_for_turn()
            self._tracker = self._fresh_tracker()
            self._pauses.begin_anew()  # the next utterance begins where its client likes
            self._answers.hand_over(self._unexamined.popleft())

    async def _detect(self, utterance: Utterance, *, ended: bool) -> bool:
        """Let the pipeline judge what has not been judged of `utterance`; gives whether it did."""
        try:
            await self._common.pipeline.listen(self._common.id, utterance, ended=ended)
        except EngineError as error:
            if not self._fails:
                _log.error("session %s: %s", self._common.id, error)
                if self._common.options.server_ends and not ended:  # else a turn fails, and says so
                    self._common.tell(Refused(refusals.not_listened(error)))
            self._fails = True
            return False
        self._fails = False
        return True

    async def _follow(self, utterance: Utterance) -> None:
        """Tell where speech begins and ends in the frames that were just judged.

        Frame by frame, so that nothing depends on how many were judged at a time. A decision is
        about the frames up to it: what came behind them is examined as what it is, the next
        utterance.
        """
        tracker, barge_in = self._tracker, self._answers.barge_in
        while (index := self._followed(utterance)) < len(utterance.probabilities):
            if barge_in is not None and barge_in.expects_echo(utterance, index):
                if barge_in.is_echo(utterance, index):
                    utterance.probabilities[index] = 0.0
                await asyncio.sleep(0)  # a look takes a millisecond, and a burst has many frames
            stopped = change = None
            for change in tracker.feed([utterance.probabilities[index]]):
                at_s = change.frame * self._frame / SAMPLE_RATE
                self._common.tell(SpeechStarted(at_s) if change.speaking else SpeechStopped(at_s))
                stopped = None if change.speaking else change.frame
            self._pauses.follow(tracker.pause, change)
            if barge_in is not None:
                if change is not None and change.speaking:
                    barge_in.contend(change.frame)
                    utterance.drop_front(barge_in.echo_before(utterance, change.frame))
                if await self._contest(barge_in, utterance, stopped=stopped is not None):
                    return
            if self._common.options.server_ends and await self._decide(utterance, stopped):
                return

    def _followed(self, utterance: Utterance) -> int:
        """Frames that were followed, of those that `utterance` holds."""
        return self._tracker.frames - utterance.dropped_samples // self._frame

    async def _decide(self, utterance: Utterance, stopped: int | None) -> bool:
        """Whether an utterance is over whose speech ended in frame `stopped`; then it is cut."""
        held = self._followed(utterance)
        if stopped is not None:
            # As much silence as was heard ahead, so that it makes no difference.
            silent = self._tracker.frames - stopped
            heard = held - max(0, silent - self._ahead_frames)
            await self._cut(utterance, held, heard)
            return True
        if held >= self._longest_frames:
            self._answers.interrupt()
            await self._drop_ahead()
            self._pauses.begin_anew()
            await self._cut(utterance, held, held)
            return True
        await self._follow_pause(utterance, held)
        self._drop_silence(utterance)
        return False

    def _drop_silence(self, utterance: Utterance) -> None:
        """Forget long silence before the first word, but for what recognition wants of it."""
        silent = self._tracker.leading_silence - utterance.dropped_samples // self._frame
        if silent >= frames_in(_MOST_SILENCE_S, self._frame):
            utterance.drop_front(silent - frames_in(self._rules.pad_s, self._frame))

    # Work ahead of the end.

    async def _follow_pause(self, utterance: Utterance, held: int) -> None:
        """Begin to answer in a pause that may be the end, and drop it where speech goes on."""
        pause = self._tracker.pause
        if pause == self._ahead_frames:
            self._work_ahead(utterance, held)
            if self._common.options.adaptive:
                said = await self._said_so_far(utterance, held)
                end = held * self._frame
                sound = prosody(utterance.audio(max(0, end - WINDOW_SAMPLES), end))
                wait_s = self._pauses.policy.wait_s(said, sound)
                self._tracker.stop_frames = frames_in(wait_s, self._frame)
        elif not pause:
            await self._drop_ahead()

    async def _said_so_far(self, utterance: Utterance, held: int) -> str | None:
        """The words before a pause, for whoever decides by them; None where nothing is done ahead.

        Waited for, also beside another turn, so that what is decided depends on the audio alone.
        The reply could not come before the transcript anyway.
        """
        if self._ahead is not None:
            return await self._ahead.said()
        ahead = self._common.settings.work_ahead
        return await self._said(utterance.beginning(held)) if ahead else None

    @property
    def _has_others(self) -> bool:
        """Whether another utterance is answered before this one."""
        return bool(self._unexamined) or self._answers.busy

    def _work_ahead(self, utterance: Utterance, held: int) -> None:
        common = self._common
        if common.settings.work_ahead and not self._has_others:
            self._ahead = WorkAhead(common.pipeline, self._asked(utterance.beginning(held)))
            common.recount()

    async def _drop_ahead(self) -> None:
        if self._ahead is not None:
            ahead, self._ahead = self._ahead, None
            self._common.observer.worked_ahead(used=False)
            await ahead.drop()
            self._common.recount()

    async def _confirmed(self) -> WorkAhead | None:
        """What was worked on ahead, where it is of use: the past has not changed meanwhile."""
        ahead = self._ahead
        if ahead is None or self._has_others or ahead.context != tuple(self._answers.history):
            await self._drop_ahead()
            return None
        self._ahead = None
        self._common.observer.worked_ahead(used=True)
        ahead.confirm()
        return ahead

    # The end of an utterance.

    async def _cut(self, utterance: Utterance, frames: int, heard: int) -> None:
        """End `utterance` after so many frames; the rest is the next one, and unexamined.

        Of those frames, the last ones may be silence that nobody needs to hear.
        """
        await self._room_for_turn()
        self._split(utterance, frames)
        utterance.split(heard * self._frame)
        if self._answers.barge_in is not None:
            self._answers.barge_in.learn(utterance)
        ended = self._ended(utterance)
        ended.ahead = await self._confirmed()
        if ended.ahead is not None:
            ended.asked = ended.ahead.turn
            utterance.forget()
        self._answers.hand_over(ended)

    def _split(self, utterance: Utterance, frames: int) -> None:
        """Leave so many frames in `utterance`; what comes behind them is the next one."""
        self._tracker = self._fresh_tracker()
        if self._answers.barge_in is not None:
            self._answers.barge_in.next_utterance()
        rest = utterance.split(frames * self._frame)
        # Looked up only now: the client may have ended the utterance meanwhile.
        if self._utterance is utterance:
            self._utterance = rest
        else:
            self._unexamined[0].asked.utterance = rest

    async def _room_for_turn(self) -> None:
        """Wait until one more utterance may wait; meanwhile audio is kept, and read later.

        Refusing it instead would lose speech that came in a burst, as after a resume.
        """
        if self._common.options.server_ends:
            most = self._common.settings.max_waiting_turns
            await self._common.changes.until(lambda: self._answers.waiting < most)

    def _ended(self, utterance: Utterance) -> Ended:
        cpu_ms = (self._cpu_clock() - self._cpu_at_start) / 1e6 if len(utterance) else 0.0
        ended = Ended(self._asked(utterance), utterance.seconds, cpu_ms)
        ended.asked.mark(Mark.END_STREAM_RECEIVED)
        return ended

    def _asked(self, utterance: Utterance) -> voice.Turn:
        common = self._common
        return voice.Turn(common.id, utterance, self._answers.history, clock=common.clock)

    def _fresh_utterance(self) -> Utterance:
        # Where the server decides, one buffer may hold several utterances until the detector has
        # looked at them; then the budget is what bounds it, and what comes once it is full: a
        # message, and the rest of the one before where its connection was lost in its midst.
        settings, options = self._common.settings, self._common.options
        seconds = settings.max_utterance_s
        if options.server_ends:
            seconds += settings.max_held_bytes / (2 * SAMPLE_RATE)
            seconds += 2 * settings.max_message_bytes / options.input.bytes_per_second
        return Utterance(round(seconds * SAMPLE_RATE), self._common.pipeline.frame_samples)

    def _fresh_tracker(self) -> SpeechTracker:
        return SpeechTracker(self._frame, self._rules)

    # Speech over a reply.

    async def _contest(self, barge_in: BargeIn, utterance: Utterance, *, stopped: bool) -> bool:
        """Look whether what is said over a reply ends it; gives whether it was nothing at all.

        Then nobody wants an answer to it.
        """
        tracker = self._tracker
        due = barge_in.is_due(tracker.frames, tracker.pause, self._ahead_frames)
        if not barge_in.contended or not (stopped or due):
            return False
        over = stopped or tracker.pause > 0
        spoken = utterance.beginning(self._followed(utterance))
        turn = barge_in.turn
        first = max(0, len(spoken.probabilities) - frames_in(_CONTESTED_S, self._frame))
        said = await self._said(spoken, first)
        if barge_in.turn is not turn:  # its client has cancelled it meanwhile
            return False
        verdict = barge_in.judge(spoken, said, tracker.frames, over=over)
        if verdict is Verdict.ENDS:
            self._answers.interrupt()
        if verdict is not Verdict.GOES_ON:
            return False
        self._dismiss(barge_in, utterance, said)
        return True

    def _dismiss(self, barge_in: BargeIn, utterance: Utterance, said: str) -> None:
        """Drop what was said over a reply, up to the last frame that was followed."""
        tracker = self._tracker
        if tracker.speaking:
            at = tracker.frames - tracker.pause
            self._common.tell(SpeechStopped(at * self._frame / SAMPLE_RATE))
        barge_in.go_on(said)
        self._common.changes.tell()
        self._pauses.begin_anew()
        self._split(utterance, self._followed(utterance))
        utterance.forget()  # whoever overhears it may keep it until the next is spoken

    async def _said(self, utterance: Utterance, first: int = 0) -> str:
        """The words of an utterance that may go on, from frame `first`; somebody waits for them."""
        now_ns = self._common.clock()
        pipeline = self._common.pipeline
        stretches = pipeline.stretches(utterance, first)
        try:
            words = [
                await pipeline.overhear(
                    self._common.id,
                    utterance.stretch(one),
                    before=self._answers.history.said(),
                    since_ns=now_ns,
                )
                for one in stretches
            ]
        except EngineError as error:  # its turn will fail, and say so
            _log.warning("session %s: %s", self._common.id, error)
            return ""
        return " ".join(words)
