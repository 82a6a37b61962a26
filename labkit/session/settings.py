"""What a server may be told, with safe defaults, and what is agreed on with one client."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field, ValidationError, field_validator
from pydantic_core import PydanticCustomError

from labkit.audio.formats import AudioFormat
from labkit.errors import ServerError
from labkit.protocol.limits import Amount, Limits
from labkit.protocol.replay import Count
from labkit.session import (
    DEFAULT_MAX_PER_ADDRESS,
    DEFAULT_MAX_SESSIONS,
    DEFAULT_PORT,
)


class ServerSettings(Limits):
    """Where a server listens, whom it admits and what it allows.

    Raises:
        ServerError: A value is out of range; the setting and the value are named.
    """

    model_config = ConfigDict(extra="forbid")

    host: str = "localhost"
    """Address to bind; only this machine by default."""
    port: int = Field(default=DEFAULT_PORT, ge=0, le=65_535)
    """TCP port; 0 takes a free one."""
    max_sessions: Count = DEFAULT_MAX_SESSIONS
    """Most callers at a time; further ones are refused (HTTP 503)."""
    max_wait_s: Amount = 20.0
    """While somebody has waited for so long for the first sound of an answer, further callers are
    refused (HTTP 503): this machine, with these models, cannot serve them."""
    max_sessions_per_address: Count = DEFAULT_MAX_PER_ADDRESS
    """Most callers at a time from one address; further ones are refused (HTTP 429). An IPv6
    address counts by its first 64 bits."""
    limit_loopback: bool = False
    """Count callers from this machine by their address, too. Off, because a reverse proxy makes
    everybody come from this machine."""
    max_handshakes: Count = 128
    """Most connections that have not finished their handshake; the oldest makes room."""
    tokens: tuple[str, ...] = Field(default=(), repr=False)
    """One of them must be shown; without any, everybody may come in. Each is 16 to 256 letters,
    digits, `-` and `_`."""
    insecure: bool = False
    """Listen beyond this machine although no token is configured."""
    allowed_origins: tuple[str, ...] = ()
    """Origins such as `https://voice.example` whose pages may call, beside the server's own and
    those of this machine."""
    tls_cert: Path | None = None
    """PEM file of a certificate; with it, the server speaks TLS."""
    tls_key: Path | None = None
    """PEM file of its key, where `tls_cert` does not hold it."""
    deflate: bool = False
    """Compress messages for clients that offer it (RFC 7692): some milliseconds of CPU for a second
    of audio and tens of KiB for a connection, to save a fifth of the bytes of speech."""
    log_transcripts: bool = False
    """Write what was heard and answered into the log."""
    silence_s: float = Field(default=0.5, ge=0.2, le=3.0)
    """So much silence ends an utterance where the server decides and the client did not say."""
    work_ahead: bool = True
    """Recognise what lies before a pause while somebody speaks on, and begin to answer in a pause
    that may be the end, where the server decides."""
    max_held_bytes_per_address: Count = 64 * 1024 * 1024
    """Most bytes held for all sessions from one address; those from this machine are not counted
    by it, as with `max_sessions_per_address`."""
    max_held_bytes_in_all: Count = 256 * 1024 * 1024
    """Most bytes held for all sessions and their connections; then detached sessions go, those of
    whoever has most of them first, and the others are read when there is room again."""
    max_detached: Count = 64
    """Most sessions that wait for their clients; of the caller who has most of them, the one that
    waits longest goes first."""
    ping_interval_s: Amount = 20.0
    """Seconds between WebSocket keepalive pings."""
    ping_timeout_s: Amount = 20.0
    """A client that does not answer one in so many seconds is gone."""
    grace_s: Amount = 2.0
    """Seconds that turns get to finish at shutdown."""
    start_s: Amount = 5.0
    """Longest that a handshake may take, and after it a client of labkit.v1 until it starts a
    session."""
    reap_interval_s: Amount = 1.0
    """Seconds between two looks for what is overdue."""
    watch_s: Amount = 30.0
    """How much of a session's audio is examined for another format than the declared."""
    acknowledge_s: Amount = 1.0
    """Audio between two acknowledgements to the client."""

    @field_validator(
        "max_audio_speed",
        "max_messages_per_s",
        "max_frames_per_s",
        "max_waiting_turns",
        "max_held_bytes",
        "replay_bytes",
        "replay_s",
    )
    @classmethod
    def _more_than_nothing(cls, value: float) -> float:
        if value <= 0:
            raise PydanticCustomError("too_little", "it should be more than 0: nobody could speak")
        return value

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            wrong = error.errors(include_url=False)[0]
            name = ".".join(map(str, wrong["loc"]))
            raise ServerError(f"setting {name} is {wrong['input']!r}: {wrong['msg']}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOptions:
    """What was agreed on with one client.

    Attributes:
        input: The audio that it sends.
        output: The audio that it hears.
        server_ends: The server decides where an utterance ends.
        silence_s: Silence behind speech that ends one then, in seconds.
        adaptive: How much silence that is follows the speaker, what was said and how it sounds;
            `silence_s` is for those of whom nothing is known.
        partials: The client is told what is heard of an utterance while it goes on.
        barge_in: Speech over a reply stops it, and replies are sent at the pace at which they are
            played; for servers that end utterances.
        acknowledges: The client says what it has, so nothing that it lacks is forgotten.
        resumable: What was written may have to be written again.
    """

    input: AudioFormat
    output: AudioFormat
    server_ends: bool = False
    silence_s: float = 0.5
    adaptive: bool = False
    partials: bool = False
    barge_in: bool = False
    acknowledges: bool = False
    resumable: bool = False
