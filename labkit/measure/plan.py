"""Which turns an exercise runs, and in which order. Everything follows from the seed."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["CHUNK_SIZES_MS", "PlannedTurn", "plan"]

CHUNK_SIZES_MS = (10, 20, 40, 60, 80, 100, 200, 500)
"""Lengths of one message, in milliseconds."""


@dataclass(frozen=True, slots=True)
class PlannedTurn:
    """One turn to run.

    Attributes:
        server: Which server answers, by name.
        recording: Index of the recording.
        chunk_ms: Length of one message.
        phase: Where in its chunk the speech ends, from 0 (as the chunk begins) to 1.
        warmup: Whether the turn only warms things up; it is kept in the raw data as such.
    """

    server: str
    recording: int
    chunk_ms: int
    phase: float
    warmup: bool


def plan(
    *,
    seed: int,
    recordings: int,
    repeats: int,
    servers: Sequence[str] = ("labkit",),
    chunk_sizes_ms: Sequence[int] = CHUNK_SIZES_MS,
    warmups: int = 2,
) -> list[PlannedTurn]:
    """Draw up the turns of an exercise.

    Every chunk size is run `repeats` times on every server. Within a repeat the sizes are
    shuffled, so that a slow minute of the machine falls on all of them; the servers answer the
    same recording at the same phase, one right after the other, in random order.

    The speech ends anywhere in a chunk with equal chance. The phases of a chunk size are
    stratified, one from each of `repeats` equal parts, since with few repeats plain random
    phases would add more noise than there is to measure.

    Args:
        seed: Draws order, recordings and phases.
        recordings: How many recordings there are to draw from.
        repeats: Turns per chunk size and server.
        servers: Names of the servers.
        chunk_sizes_ms: Lengths of one message.
        warmups: Turns per server that come first and do not count.

    Raises:
        ValueError: There is nothing to run.
    """
    if recordings < 1 or repeats < 1:
        raise ValueError(f"nothing to run: {recordings} recordings, {repeats} repeats")
    rng = random.Random(seed)
    turns = [
        PlannedTurn(server, rng.randrange(recordings), 40, 0.5, warmup=True)
        for _ in range(warmups)
        for server in servers
    ]
    deck = _deck(rng, recordings, repeats * len(chunk_sizes_ms))
    phases = {size: _stratified(rng, repeats) for size in chunk_sizes_ms}
    for repeat in range(repeats):
        for chunk_ms in rng.sample(chunk_sizes_ms, len(chunk_sizes_ms)):
            recording = deck.pop()
            turns += [
                PlannedTurn(server, recording, chunk_ms, phases[chunk_ms][repeat], warmup=False)
                for server in rng.sample(servers, len(servers))
            ]
    return turns


def _stratified(rng: random.Random, count: int) -> list[float]:
    """`count` numbers from 0 to 1, one from each of `count` equal parts, in random order."""
    return rng.sample([(part + rng.random()) / count for part in range(count)], count)


def _deck(rng: random.Random, recordings: int, size: int) -> list[int]:
    """Shuffled recordings, each as often as every other as far as that goes."""
    deck: list[int] = []
    while len(deck) < size:
        deck += rng.sample(range(recordings), recordings)
    return deck
