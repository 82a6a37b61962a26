"""What is recognised while somebody speaks: kept for the end, or told in partial transcripts."""

import logging
from functools import partial
from typing import Final

from labkit.audio.pcm import SAMPLE_RATE
from labkit.errors import EngineError
from labkit.session.answering import Answers
from labkit.session.common import Common
from labkit.session.events import PartialTranscript
from labkit.session.listening import Listening
from labkit.session.partials import Partials
from labkit.voice.hearing import frames_in

_log = logging.getLogger(__name__)

_PARTIALS_S: Final = 0.4
"""Least time between two partial transcripts: about the length of a word."""


class Overhearing:
    """Hears the utterance that is being said, behind all work that somebody waits for."""

    def __init__(self, common: Common, listening: Listening, answers: Answers) -> None:
        self._common = common
        self._listening = listening
        self._answers = answers

    async def keep(self) -> None:
        """Recognise stretches of speech that are over while their utterance goes on.

        They will not change any more, so nothing of it is in vain, and however long somebody
        speaks, at the end only the last stretch is left to be recognised.
        """
        common, listening = self._common, self._listening
        utterance, heard = listening.utterance, 1

        def has_more() -> bool:
            known = heard if listening.utterance is utterance else 1
            return listening.tracker.stretches > known and not listening.unexamined

        while True:
            await common.changes.until(has_more)
            utterance, heard = listening.utterance, listening.tracker.stretches
            before = self._answers.history.said()
            try:
                for one in common.pipeline.stretches(utterance, finished=True):
                    if listening.utterance is not utterance:  # its turn recognises the rest
                        break
                    await common.pipeline.overhear(common.id, utterance.stretch(one), before=before)
            except EngineError as error:  # its turn will fail, and say so
                _log.warning("session %s: %s", common.id, error)

    async def tell(self) -> None:
        """Tell what is heard of utterances that go on: of each moment the latest, or nothing."""
        common, listening = self._common, self._listening
        partials = self._fresh_partials()
        while True:
            await common.changes.until(partial(self._is_due, partials))
            utterance = listening.utterance
            if partials.utterance is not utterance:
                partials = self._fresh_partials()
            came, begun_ns = utterance.position, common.clock()
            try:
                text, confirmed = await partials.hear()
            except EngineError as error:  # its turn will fail, and say so
                _log.warning("session %s: %s", common.id, error)
                text, confirmed = "", ""
            # For half of the time at most, so that what somebody waits for is not far behind it.
            took_s = (common.clock() - begun_ns) / 1e9
            rest_s = max(_PARTIALS_S - took_s, took_s)
            rest = frames_in(rest_s, utterance.frame_samples or 1)
            partials.due = listening.tracker.frames + rest
            if text and listening.utterance is utterance and not common.outgoing.window.is_overfull:
                behind_s = (utterance.position - came) / SAMPLE_RATE
                common.tell(PartialTranscript(self._answers.next_turn, text, confirmed, behind_s))

    def _fresh_partials(self) -> Partials:
        common, before = self._common, self._answers.history.said()
        return Partials(common.pipeline, common.id, self._listening.utterance, before)

    def _is_due(self, partials: Partials) -> bool:
        """Whether somebody speaks, does not pause for long, and has said something new."""
        listening = self._listening
        fresh = listening.utterance is not partials.utterance
        new = fresh or listening.tracker.frames >= partials.due
        return new and not listening.may_be_over and not listening.unexamined
