"""The latency exercise in a notebook."""

import sys
from collections.abc import Sequence
from pathlib import Path

from labkit.errors import InstrumentError
from labkit.measure.chunking import CHUNK_SIZES_MS, are_chunk_sizes
from labkit.measure.exercise import Exercise
from labkit.measure.exercise_summary import ExerciseSummary
from labkit.measure.networks import read_profile
from labkit.measure.results import Results, conduct
from labkit.measure.targets import Access, Target, distinct
from labkit.notebook.server import kept_server
from labkit.notebook.show import progress_bar


async def run_exercise(
    *,
    quick: bool = False,
    blocks: int | None = None,
    mine: bool = False,
    labkit: bool = True,
    baseline: bool = False,
    servers: Sequence[Path | str] | Path | str = (),
    models: str = "embedded",
    chunk_sizes_ms: Sequence[int] = CHUNK_SIZES_MS,
    network: str = "loopback",
    seed: int = 1,
    out: Path | str = "results",
) -> ExerciseSummary:
    """Run the latency exercise, with a progress bar in the cell that runs.

    Args:
        quick: Fewer and shorter recordings: three minutes instead of nine.
        blocks: How many recordings are said, each in every chunk size to every server; by default
            as many as fit those minutes.
        mine: Measure the server that your kept cells make, and compare the others with it.
        labkit: Measure labkit's server.
        baseline: Measure the naive server beside it.
        servers: Servers of one's own to measure beside it: files of Python, which are told their
            port by the environment variable `PORT`, or addresses of servers that run already.
            One of them need not be in a list.
        models: The set of models of labkit's server and of the naive one.
        chunk_sizes_ms: Lengths of one message, from 5 to 1,000 each.
        network: The network to all servers: `loopback`, which is none, or what `labkit exercise
            --network` takes, such as `wifi`.
        seed: Draws order, recordings and phases.
        out: Raw data, summary and figures go into a folder in here, named by the time.

    Raises:
        LabkitError: The folder cannot be written, a recording is not usable, a server did not
            start, there is none, there is nothing to run, or no turn was answered.
        NotImplementedError: Nothing is kept of your server, or a section is still a stub.
    """
    if not are_chunk_sizes(chunk_sizes_ms):
        raise InstrumentError(
            f"chunk_sizes_ms: {chunk_sizes_ms!r} is no list of whole milliseconds from 5 to 1000; "
            "write them as [20, 100, 500]"
        )
    if blocks is not None and blocks < 1:
        raise InstrumentError(f"blocks is {blocks}, and has to be at least 1")
    servers = [servers] if isinstance(servers, Path | str) else servers
    targets = [Target("mine", kept_server())] if mine else []
    targets += [Target.labkit("--models", models)] if labkit else []
    targets += [Target.naive("--models", models)] if baseline else []
    targets += [Target.named(str(server)) for server in servers]
    exercise = Exercise.of_length(
        quick=quick,
        targets=distinct(targets),
        chunk_sizes_ms=chunk_sizes_ms,
        access=Access(network=read_profile(network), seed=seed),
        seed=seed,
    )
    exercise.blocks = blocks or exercise.blocks
    results = Results.within(Path(out))
    try:
        return await conduct(exercise, results, progress_bar("turns"))
    finally:  # also where the cell is interrupted: what was measured until then is kept
        if results.measured:
            sys.stdout.write(f"{results.measured} turns; raw data and figures: {results.folder}\n")
