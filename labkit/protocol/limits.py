"""Every limit that a client is told, with its default: written here and nowhere else.

A server's settings extend them, `session.started` carries them, and the protocol's page is made
from them. What is above the limit of a message is refused in the same words by every dialect.
"""

import codecs
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from labkit.errors import ErrorCode, ProtocolError
from labkit.protocol.replay import Count, ReplayWindow

Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
"""A finite number that is not negative."""


class Limits(BaseModel):
    """Every limit that applies to a session. Lengths in seconds, sizes in bytes."""

    # A client of today has to understand a server that has learnt a new limit.
    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        strict=True,
        use_attribute_docstrings=True,
    )

    max_message_bytes: Count = 256 * 1024
    """Longest binary message that is accepted; a longer one is refused, and the session goes on."""
    max_text_bytes: Count = 16 * 1024
    """Longest text message that is accepted, likewise."""
    max_read_bytes: Count = 1024 * 1024
    """Longest message that is read at all; a longer one closes the connection."""
    max_utterance_s: Amount = 60.0
    """Most audio of one utterance."""
    max_waiting_turns: Count = 4
    """Utterances that may wait for their answer."""
    max_messages_per_s: Amount = 50.0
    """Text messages a second, over a longer time."""
    message_burst: Count = 200
    """Text messages that may come at once, whatever their rate."""
    max_frames_per_s: Amount = 500.0
    """WebSocket frames of any kind a second, over a longer time; more are read later."""
    frame_burst: Count = 2000
    """Frames that may come at once, whatever their rate."""
    max_audio_speed: Amount = 8.0
    """Times real time at which audio is read once the burst is used up."""
    burst_s: Amount = 60.0
    """Audio that may come at once, whatever its speed."""
    max_held_bytes: Count = 3 * 1024 * 1024
    """Most bytes that wait for the server's work; more are read when some of it is done."""
    history: Count = 8
    """Exchanges that the conversation remembers at most; one more, and the older half goes."""
    idle_s: Amount = 120.0
    """The connection is closed when nothing that is accepted comes for so long."""
    idle_audio_s: Amount = 900.0
    """The same when no audio comes, whatever else does."""
    max_session_s: Amount = 4 * 3600.0
    """Longest that a session may last."""
    resume_s: Amount = 120.0
    """How long a session waits for its client to come back."""
    replay_bytes: Count = 256 * 1024
    """Most bytes that are kept for a client that has not acknowledged them."""
    replay_s: Amount = 15.0
    """Most audio that is kept for it."""
    send_lead_s: Amount = 1.0
    """Most audio of a reply that is sent ahead of its playing, where it may be interrupted: more
    than a network holds up a message, less than anybody says over it."""
    muted_s: Amount = 3.0
    """A reply that somebody spoke over goes on when no audio came from its client for so long: the
    microphone was switched off."""
    send_timeout_s: Amount = 20.0
    """The connection is closed when the client neither reads nor acknowledges for so long."""
    detached_turn_s: Amount = 30.0
    """How long a turn goes on while its client is away."""

    def replay_window(self, sample_rate: int, until_acknowledged: bool) -> ReplayWindow:
        """What is said, and may have to be said again, within these limits.

        Args:
            sample_rate: Samples per second of its audio, per channel.
            until_acknowledged: Keep what was sent until the other side says that it has it.
        """
        return ReplayWindow(
            max_bytes=self.replay_bytes,
            max_samples=round(self.replay_s * sample_rate),
            until_acknowledged=until_acknowledged,
        )


def require_short(text: str, max_bytes: int) -> None:
    """Make sure that a text message has no more than `max_bytes` of UTF-8.

    Raises:
        ProtocolError: It has.
    """
    # A character takes four bytes at most, so most messages need no encoding to be found short.
    if len(text) * 4 > max_bytes and (size := len(text.encode(errors="surrogatepass"))) > max_bytes:
        raise too_large(size, max_bytes, "control is short; audio goes in binary messages")


BEGINS_TEXT: Final = frozenset(
    [
        *(bytes((first, second)) for first in b"{ \t\r\n" for second in range(256)),
        *(bytes((0, second)) for second in b"{ \t\r\n"),
        *(codecs.BOM_UTF8[:2], codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE),
    ]
)
"""The first two bytes of JSON in UTF-8 and UTF-16, with white space before it: one look at them is
all that most chunks of audio cost."""
_AROUND: Final = b"\0 \t\r\n"
"""What may stand around it; half of a character of UTF-16 is among it."""


def require_no_control(payload: bytes) -> None:
    """Make sure that a binary message is no JSON that should have come as text.

    Only one whose first two bytes are in `BEGINS_TEXT` can be.

    Raises:
        ProtocolError: It is an object with a field `type`.
    """
    if payload.rstrip(_AROUND)[-1:] != b"}":
        return
    text = text_in(payload)
    if text[:1] == "{" and '"type"' in text:
        raise ProtocolError(
            ErrorCode.WRONG_FRAME,
            f"a binary message of {len(payload)} bytes holds JSON",
            "send control as WebSocket text messages; binary messages are audio",
        )


def text_in(payload: bytes) -> str:
    """What a binary message says if it is text, in UTF-8 or UTF-16, without space around it."""
    encoding = "utf-8-sig"
    if payload.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    elif b"\0" in payload[:2]:  # the zero byte of a character that ASCII has
        encoding = "utf-16-be" if payload[0] == 0 else "utf-16-le"
    return payload.decode(encoding, errors="replace").strip(_AROUND.decode())


def too_large(size: int, max_bytes: int, hint: str) -> ProtocolError:
    """What a message that is too long is refused with."""
    return ProtocolError(
        ErrorCode.MESSAGE_TOO_LARGE,
        f"a message of {size} bytes is above the limit of {max_bytes} bytes; it was dropped",
        hint,
    )
