"""What a server may be told, with safe defaults."""

from dataclasses import dataclass
from typing import Final

__all__ = ["DEFAULT_MAX_SESSIONS", "DEFAULT_PORT", "ServerSettings"]

DEFAULT_PORT: Final = 8765
DEFAULT_MAX_SESSIONS: Final = 64


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
        max_sessions: Most callers at a time; further ones are refused with code 1013.
        max_waiting_turns: Utterances that may wait for their answer, per session.
        history: Exchanges that the conversation remembers.
        send_timeout_s: A client that takes longer to read one message is closed.
        outbox_bytes: Most bytes that wait for a client; then its turn waits.
        ping_interval_s: Seconds between WebSocket keepalive pings.
        grace_s: Seconds that turns get to finish at shutdown.
    """

    host: str = "localhost"
    port: int = DEFAULT_PORT
    max_utterance_s: float = 60.0
    max_message_bytes: int = 256 * 1024
    max_read_bytes: int = 16 * 1024 * 1024
    max_sessions: int = DEFAULT_MAX_SESSIONS
    max_waiting_turns: int = 4
    history: int = 8
    send_timeout_s: float = 20.0
    outbox_bytes: int = 256 * 1024
    ping_interval_s: float = 20.0
    grace_s: float = 2.0
