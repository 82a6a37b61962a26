"""What a chunk size costs, computed: the wait, the detector's frame, headers and segments.

A measurement is drawn beside these figures, so that a reader sees what arithmetic explains of it,
and what it does not.
"""

from collections.abc import Sequence
from math import gcd
from typing import Final

from labkit.audio.pcm import SAMPLE_RATE

CHUNK_SIZES_MS: Final = (10, 20, 32, 40, 50, 80, 100, 250, 500)
"""Lengths of one message: from telephony's 10 and 20 ms over the detector's own frame (32) and the
80 and 100 of recognisers to what nobody recommends. 40 ms is the longest round length whose message
fits one TCP segment, 50 the first that does not."""

BYTES_PER_MS: Final = 2 * SAMPLE_RATE // 1000

DETECTOR_FRAME_MS: Final = 32
"""Silero VAD judges 512 samples at 16 kHz at a time."""

_SEGMENT_BYTES: Final = 1448
"""Payload of one TCP segment on an Ethernet of 1,500 bytes, with time stamps."""
_SEGMENT_HEADERS: Final = 20 + 32
"""IPv4 header, and TCP header with time stamps."""


def are_chunk_sizes(sizes: Sequence[float]) -> bool:
    """Whether these are lengths of a message that can be measured: 5 to 1,000 whole ms each."""
    return bool(sizes) and all(isinstance(one, int) and 5 <= one <= 1000 for one in sizes)


def packetisation_wait_ms(chunk_ms: float) -> float:
    """Expected wait for the last chunk to fill.

    The end of speech falls anywhere in a chunk with equal chance, so on average half a chunk is
    still to come before the chunk can be sent.
    """
    return chunk_ms / 2


def detector_wait_ms(chunk_ms: int) -> float:
    """Expected wait until a server has the whole detector frame that holds the end of speech.

    A frame is whole once the chunk with its last sample is there. On average half a frame is still
    to come, and then the rest of that chunk. Both grids begin at the first sample, so that rest
    takes every multiple of their greatest common divisor below a chunk equally often; it is 0 for
    chunks of a frame.
    """
    return DETECTOR_FRAME_MS / 2 + (chunk_ms - gcd(chunk_ms, DETECTOR_FRAME_MS)) / 2


def _frame_bytes(payload: int) -> int:
    """Header and mask of a client's message (RFC 6455, section 5.2)."""
    return 6 if payload < 126 else 8 if payload < 65_536 else 14


def segments(payload: int) -> int:
    """TCP segments that carry one message of `payload` bytes."""
    return -(-(payload + _frame_bytes(payload)) // _SEGMENT_BYTES)


def overhead_bytes(payload: int, messages: int) -> int:
    """Bytes around `payload` bytes of audio in `messages` equal messages, client to server.

    Counted are the WebSocket frame header with its mask and the IPv4 and TCP headers of each
    segment; not the acknowledgements that come back.
    """
    if not messages:
        return 0
    size = -(-payload // messages)
    return messages * (_frame_bytes(size) + segments(size) * _SEGMENT_HEADERS)


def last_chunk_ms(chunk_ms: float, bytes_per_s: float | None) -> float:
    """How long the last chunk is on its way out over a link of that rate; None is no limit."""
    if bytes_per_s is None:
        return 0.0
    payload = round(chunk_ms * BYTES_PER_MS)
    return 1000 * (payload + overhead_bytes(payload, 1)) / bytes_per_s
