"""How many cores this process may use, and how many threads an engine should have.

The three engines work at once: a reply is written while its first sentence is spoken, and another
caller is heard meanwhile. More threads than cores are costly, and for llama.cpp they are ruin. Its
threads meet after every operation, some thousand times a token, and wait for each other in a loop
that looks again and again; where one of them has no core, the others burn theirs until it has.
So the threads of all three engines together are never more than the cores.

llama-cpp-python offers no way out but the number: its build has no OpenMP, whose threads could be
told to sleep, and it hands no pool of threads of our own (`llama_attach_threadpool`) to llama.cpp.
"""

import os
from pathlib import Path
from typing import Final

__all__ = ["default_threads", "usable_cores"]

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
