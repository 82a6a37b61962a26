"""One example of each message of labkit.v1, for its reference page and its schema."""

from typing import Final

from labkit.audio.formats import Encoding
from labkit.errors import ErrorCode
from labkit.protocol import v1
from labkit.protocol.replay import Missing, Position

__all__ = ["CLIENT_EXAMPLES", "server_examples"]

_SESSION: Final = "3f9c1a7be0d24586"
_TOKEN: Final = "u1Zr0mJx0yqkQv3nJ5bTgWcHf8LsD2Aa"
_NEXT_TOKEN: Final = "Bq7dYw2PeR9uXoKi4tMzVhA1jGfNs6Lc"
_SPOKEN: Final = Position(messages=2, samples=52_480)
_HEARD: Final = Position(messages=5, samples=31_360)

CLIENT_EXAMPLES: Final[tuple[v1.ClientMessage, ...]] = (
    v1.SessionStart(
        input=v1.AudioSpec(encoding=Encoding.PCM_F32LE, sample_rate=48_000),
        resume=v1.Resume(session=_SESSION, token=_TOKEN, received=_HEARD),
    ),
    v1.AudioEnd(id="question-2"),
    v1.ResponseCancel(turn=2, heard_samples=9600),
    v1.ResponseAck(received=_HEARD),
    v1.Ping(id="a"),
    v1.SessionEnd(),
)
"""What a client may send."""


def server_examples(limits: v1.Limits) -> tuple[v1.ServerMessage, ...]:
    """What a server with such limits may send."""
    return (
        v1.SessionStarted(
            session=_SESSION,
            token=_NEXT_TOKEN,
            resumed=True,
            input=v1.AudioSpec(encoding=Encoding.PCM_F32LE, sample_rate=48_000),
            output=v1.AudioSpec(),
            turn_detection=v1.TurnDetection.CLIENT,
            received=_SPOKEN,
            missing=Missing(after=_HEARD, up_to=_HEARD.plus(1, 16_000)),
            limits=limits,
        ),
        v1.AudioAck(received=_SPOKEN),
        v1.SpeechStarted(seq=1, at_s=0.32),
        v1.SpeechStopped(seq=2, at_s=1.86),
        v1.TranscriptPartial(seq=2, turn=1, text="set a timer"),
        v1.TranscriptFinal(seq=1, turn=1, text="set a timer for five minutes"),
        v1.ResponseStarted(seq=2, turn=1),
        v1.ResponseText(seq=3, turn=1, text="Five minutes, starting now."),
        v1.ResponseDone(
            seq=4,
            turn=1,
            status=v1.ResponseStatus.COMPLETED,
            text="Five minutes, starting now.",
            samples=31_360,
            marks={"end_stream_received": 81_200_000_000, "asr_done": 81_431_000_000},
        ),
        v1.Pong(id="a"),
        v1.Error(
            seq=5,
            code=ErrorCode.ODD_LENGTH,
            message="a binary message of 3 bytes is no whole number of samples",
            hint="send pcm_s16le in 1 channel(s): a multiple of 2 bytes",
            cause=v1.Cause(type="audio", position=_SPOKEN),
        ),
        v1.SessionEnded(reason="the client ended the session"),
    )
