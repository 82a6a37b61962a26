"""What a session refuses, in words, and each cause once."""

from collections.abc import Sequence
from typing import Final

from labkit.audio.formats import AudioFormat
from labkit.errors import AudioError, Close, EngineError, ErrorCode, ProtocolError
from labkit.protocol.limits import Limits
from labkit.session.events import Refused
from labkit.tasks import forget_frames


class RefusalRows:
    """Binary messages that are refused again and again, each row of them for one reason.

    Audio comes fifty times a second, so one cause would be told fifty times a second. The first
    of a row is told at once; how many more there were is told when the row is over: as much audio
    was accepted as `OVER_S`, or text comes. A few good chunks in between end no row: of audio that
    is not what it was declared to be, some can be read by chance. A full utterance and a session
    that was not started are causes that outlast text; they are over when the utterance or the
    waiting is.
    """

    OVER_S: Final = 1.0
    _OUTLASTS_TEXT: Final = frozenset({ErrorCode.BUFFER_FULL, ErrorCode.NOT_STARTED})

    __slots__ = ("_accepted_s", "_rows")

    def __init__(self) -> None:
        self._rows: dict[ErrorCode, tuple[ProtocolError, int]] = {}
        """The latest error of each row, and how many of it were not told."""
        self._accepted_s = 0.0

    @property
    def go_on(self) -> bool:
        """Whether there is a row that is not over."""
        return bool(self._rows)

    def refuse(self, error: ProtocolError, cause: object, *, binary: bool) -> list[Refused]:
        """A message was refused; gives what is to be told of it now: of text, always all."""
        if not binary:
            return [*self.text_came(), Refused(error, cause=cause)]
        forget_frames(error)  # it is kept, and its frames know the session that keeps it
        self._accepted_s = 0.0
        if (row := self._rows.get(error.code)) is not None:
            self._rows[error.code] = error, row[1] + 1
            return []
        self._rows[error.code] = error, 0
        return [Refused(error, cause=cause)]

    def accepted(self, seconds: float) -> list[Refused]:
        """So much audio was accepted; gives what is still to be told, once it is enough."""
        self._accepted_s += seconds
        return self.end() if self._accepted_s >= self.OVER_S else []

    def text_came(self) -> list[Refused]:
        """A text message came; gives what is to be told before it is answered."""
        return self._end([code for code in self._rows if code not in self._OUTLASTS_TEXT])

    def end(self) -> list[Refused]:
        """All rows are over; gives what is still to be told of them."""
        return self._end(list(self._rows))

    def _end(self, codes: Sequence[ErrorCode]) -> list[Refused]:
        ended = [self._rows.pop(code) for code in codes]
        return [Refused(error, untold) for error, untold in ended if untold]


def odd_length(size: int, form: AudioFormat) -> ProtocolError:
    """Audio that is no whole number of samples."""
    return ProtocolError(
        ErrorCode.ODD_LENGTH,
        f"a binary message of {size} bytes is no whole number of samples",
        f"send {form.encoding.value} in {form.channels} channel(s): a multiple of "
        f"{form.frame_bytes} bytes",
    )


def buffer_full(limits: Limits, dropped_s: float) -> ProtocolError:
    """Audio that did not fit into the utterance: so much until now, of a row of messages."""
    return ProtocolError(
        ErrorCode.BUFFER_FULL,
        f"one utterance holds {limits.max_utterance_s:g} s of audio; {dropped_s:.2f} s dropped "
        "so far",
        "end the utterance to get an answer to what was said so far",
    )


def invalid_audio(error: AudioError) -> ProtocolError:
    """Audio with samples that are no numbers."""
    return ProtocolError(ErrorCode.INVALID_AUDIO, str(error), "send finite numbers from -1 to 1")


def unknown_turn(turn: int, known: int) -> ProtocolError:
    """A cancel of a turn that never was, or is long over."""
    return ProtocolError(
        ErrorCode.UNKNOWN_RESPONSE,
        f"turn {turn} is none of the last {known} that were answered"
        if known
        else f"turn {turn} has no answer to cancel: no turn was answered yet",
        "send the number of the latest 'response.started'",
    )


def too_fast(limits: Limits) -> ProtocolError:
    """Audio comes faster than it is read."""
    return ProtocolError(
        ErrorCode.AUDIO_TOO_FAST,
        f"audio comes faster than {limits.max_audio_speed:g} times real time, and "
        f"{limits.burst_s:g} s of burst are used up",
        "nothing is lost, but reading pauses; send at the pace of speech",
    )


def too_many_turns(limit: int) -> ProtocolError:
    """An end of an utterance that would have to wait behind too many."""
    return ProtocolError(
        ErrorCode.TOO_MANY_TURNS,
        f"{limit} turns wait for their answer already",
        "wait for the answers before you end another utterance",
    )


def not_understood(start_s: float, end_s: float) -> ProtocolError:
    """Speech in which no words were found."""
    return ProtocolError(
        ErrorCode.NOT_UNDERSTOOD,
        f"from {start_s:.1f} to {end_s:.1f} s of the utterance somebody spoke, and no words of it "
        "were understood",
        "say that part again",
    )


def not_answered(error: EngineError) -> ProtocolError:
    """A turn whose engine failed."""
    return ProtocolError(
        ErrorCode.ENGINE_FAILED,
        f"this turn could not be answered: {error}",
        "say it again; the server's log has the details",
    )


def not_listened(error: EngineError) -> ProtocolError:
    """Audio that the detector failed on; it is asked again."""
    return ProtocolError(
        ErrorCode.ENGINE_FAILED,
        f"nobody listens for speech: {error}",
        "nothing of what you said is lost, and it is tried again; the server's log has the details",
    )


def untaken_refusals() -> Close:
    """A client that is told more than it takes in."""
    return Close(
        ErrorCode.SLOW_READER,
        "many messages were refused, and the refusals were not taken",
        "read, and acknowledge what came; resume to get the rest",
    )


def server_failed() -> Close:
    """A session in which the server has failed."""
    return Close(
        ErrorCode.INTERNAL,
        "the server has failed in this session",
        "begin a new one; the server's log has the details",
    )
