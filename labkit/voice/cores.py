"""How many cores this process may use, and how many threads an engine should have.

The three engines work at once: a reply is written while its first sentence is spoken, and another
caller is heard meanwhile. More threads than cores are costly, and for llama.cpp they are ruin. Its
threads meet after every operation, some thousand times a token, and wait for each other in a loop
that looks again and again; where one of them has no core, the others burn theirs until it has.
So the threads of all three engines together are never more than the cores.

How that was found: with the embedded models, in turns in one run, on two cores that other programs
used as well (load 9 to 12).

======================================  ========  =========  ==========================
call                                    1 thread  2 threads  processor time, 1 → 2
======================================  ========  =========  ==========================
16 tokens of llama.cpp, median of 9        35 ms   4,024 ms  1.2 → 144 ms a token
an utterance recognised, median of 58     178 ms     169 ms  62 → 77 ms
a sentence spoken, median of 58           107 ms     156 ms  32 → 56 ms
first sound, one caller, median of 2      886 ms  17,840 ms
first sound, two callers, median of 4     891 ms  16,820 ms
======================================  ========  =========  ==========================

A token of SmolLM2-135M took 0.18 s on one thread and 7.0 s on two there (medians of 12). On cores
that nobody else uses, two threads answer one caller with public models 0.2 s sooner, and four
callers in twice the time. One thread each is what always holds; with more cores, more threads are
worth it as long as the cores are labkit's own.

llama-cpp-python offers no way out but the number: its build has no OpenMP, whose threads could be
told to sleep, and it hands no pool of threads of our own (`llama_attach_threadpool`) to llama.cpp.
"""

import os
from pathlib import Path
from typing import Final

_ENGINES: Final = 3
_MOST: Final = 4
"""Further threads gain little with models of these sizes."""
_CGROUP: Final = Path("/sys/fs/cgroup")


def default_threads(cores: int | None = None) -> int:
    """Threads of each engine: a third of the cores, at least one, four at most.

    Args:
        cores: Cores that there are; by default those that this process may use.
    """
    cores = usable_cores() if cores is None else cores
    return max(1, min(_MOST, cores // _ENGINES))


def usable_cores(cgroup: Path = _CGROUP) -> int:
    """Cores that this process may use, at least one.

    That is fewer than the machine has where the process is bound to some of them, or where a
    container's share of the time is limited.

    Args:
        cgroup: Where Linux tells of the container's limits.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    share = _share(cgroup)
    return max(1, min(bound or 1, bound or 1 if share is None else int(share)))


def _share(cgroup: Path) -> float | None:
    """Cores' worth of time that a container is given; None where nothing limits it."""
    for name in ("cpu.max", "cpu/cpu.cfs_quota_us"):
        try:
            quota, *period = (cgroup / name).read_text(encoding="ascii").split()
            if not period:
                period = [(cgroup / "cpu/cpu.cfs_period_us").read_text(encoding="ascii")]
            if int(quota) > 0:
                return int(quota) / int(period[0])
        except (OSError, ValueError):
            continue
    return None
