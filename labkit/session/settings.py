"""What a server may be told, with safe defaults."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

__all__ = [
    "DEFAULT_MAX_PER_ADDRESS",
    "DEFAULT_MAX_SESSIONS",
    "DEFAULT_PORT",
    "ServerSettings",
]

DEFAULT_PORT: Final = 8765
DEFAULT_MAX_SESSIONS: Final = 64
DEFAULT_MAX_PER_ADDRESS: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """Where a server listens and what it allows.

    Attributes:
        host: Address to bind; only this machine by default.
        port: TCP port; 0 takes a free one.
        max_utterance_s: Most audio of one utterance, in seconds.
        max_message_bytes: Longest message that is accepted; a longer one is answered with an
            error and dropped.
        max_read_bytes: Longest message that is read at all; a longer one closes the connection
            with code 1009, because it cannot be skipped without reading it.
        max_sessions: Most callers at a time; further ones are refused (HTTP 503).
        max_sessions_per_address: Most callers at a time from one address; further ones are
            refused (HTTP 429). An IPv6 address counts by its first 64 bits.
        limit_loopback: Count callers from this machine by their address, too. Off, because a
            reverse proxy makes everybody come from this machine.
        tokens: One of them must be shown; without any, everybody may come in. Each is 16 to 256
            letters, digits, `-` and `_`.
        insecure: Listen beyond this machine although no token is configured.
        allowed_origins: Origins such as `https://voice.example` whose pages may call, beside the
            server's own and those of this machine.
        tls_cert: PEM file of a certificate; with it, the server speaks TLS.
        tls_key: PEM file of its key, where `tls_cert` does not hold it.
        log_transcripts: Write what was heard and answered into the log.
        max_waiting_turns: Utterances that may wait for their answer, per session.
        history: Exchanges that the conversation remembers.
        send_timeout_s: A client that takes longer to read one message is closed.
        outbox_bytes: Most bytes that wait for a client; then its turn waits.
        ping_interval_s: Seconds between WebSocket keepalive pings.
        ping_timeout_s: A client that does not answer one in so many seconds is gone.
        grace_s: Seconds that turns get to finish at shutdown.
        start_s: Longest that a client of labkit.v1 may take to start a session, in seconds.
        idle_s: A connection on which nothing comes for so long is closed.
        idle_audio_s: The same where no audio comes, whatever else does.
        max_session_s: Longest that a session may last.
        resume_s: How long a session waits for its client to come back.
        max_detached: Most sessions that wait; the one that waits longest goes first.
        detached_turn_s: How long a turn goes on without its client.
        reap_interval_s: Seconds between two looks for what is overdue.
        max_audio_speed: Times real time at which audio is read once the burst is used up.
        audio_burst_s: Audio that may come at once, in seconds.
        max_messages_per_s: Text messages a second, over a longer time.
        message_burst: Text messages that may come at once.
        watch_s: How much of a session's audio is examined for another format than the declared.
        acknowledge_s: Audio between two acknowledgements to the client.
        replay_bytes: Most bytes that wait for a client of labkit.v1 or were not acknowledged.
        replay_s: Most reply audio that does.
    """

    host: str = "localhost"
    port: int = DEFAULT_PORT
    max_utterance_s: float = 60.0
    max_message_bytes: int = 256 * 1024
    max_read_bytes: int = 16 * 1024 * 1024
    max_sessions: int = DEFAULT_MAX_SESSIONS
    max_sessions_per_address: int = DEFAULT_MAX_PER_ADDRESS
    limit_loopback: bool = False
    tokens: tuple[str, ...] = field(default=(), repr=False)
    insecure: bool = False
    allowed_origins: tuple[str, ...] = ()
    tls_cert: Path | None = None
    tls_key: Path | None = None
    log_transcripts: bool = False
    max_waiting_turns: int = 4
    history: int = 8
    send_timeout_s: float = 20.0
    outbox_bytes: int = 256 * 1024
    ping_interval_s: float = 20.0
    ping_timeout_s: float = 20.0
    grace_s: float = 2.0
    start_s: float = 5.0
    idle_s: float = 120.0
    idle_audio_s: float = 900.0
    max_session_s: float = 4 * 3600.0
    resume_s: float = 120.0
    max_detached: int = 64
    detached_turn_s: float = 30.0
    reap_interval_s: float = 1.0
    max_audio_speed: float = 4.0
    audio_burst_s: float = 60.0
    max_messages_per_s: float = 50.0
    message_burst: int = 200
    watch_s: float = 30.0
    acknowledge_s: float = 0.2
    replay_bytes: int = 256 * 1024
    replay_s: float = 15.0
