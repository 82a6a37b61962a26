"""How many threads an engine has: by the cores that there are, and never more of them in all."""

import os
from pathlib import Path
from typing import Final

from threadpoolctl import threadpool_limits

_ENGINES: Final = 3
_MOST: Final = 4
"""Further threads gain little with models of these sizes."""
_LOOKS: Final = "1000"
_CGROUP: Final = Path("/sys/fs/cgroup")


def default_threads(cores: int | None = None) -> int:
    """Threads of each engine: a third of the cores, at least one, four at most.

    The three engines work at once: a reply is written while its first sentence is spoken, and
    another caller is heard meanwhile. More threads than cores are costly, and for llama.cpp they
    can be ruin: its threads meet after every operation, some thousand times a token, and where one
    of them has no core the others wait. So the threads of all three engines together are never more
    than the cores. Where the language model works alone, it has more of them: `most_threads`.

    With the embedded models, in turns in one run, on two cores that other programs used as well
    (load 9 to 12):

    ======================================  ========  =========  ======================
    call                                    1 thread  2 threads  processor time, 1 → 2
    ======================================  ========  =========  ======================
    an utterance recognised, median of 58     178 ms     169 ms  62 → 77 ms
    a sentence spoken, median of 58           107 ms     156 ms  32 → 56 ms
    ======================================  ========  =========  ======================

    Args:
        cores: Cores that there are; by default those that this process may use.
    """
    cores = usable_cores() if cores is None else cores
    return max(1, min(_MOST, cores // _ENGINES))


def most_threads(cores: int | None = None) -> int:
    """Threads of the language model while no other engine works, four at most.

    Where there are more than two cores, one is left to the rest of the server and to its callers.

    A token of SmolLM2-135M on two cores, median in ms, and its processor time. Llama.cpp's own
    threads wait for each other in a loop that looks again and again, OpenMP's look for a while, and
    then sleep (`limit_spinning`):

    =====================  ========  ==============  =================  ===============
    beside it on the cores  1 thread  2 of its own    2 of OpenMP, 300   2, 1,000 looks
    =====================  ========  ==============  =================  ===============
    nothing                    15.6  8.8             12.1               9.2
    one busy program           16.2  16.0            21.4               28.0
    two busy programs          23.8  96.0            21.5               29.4
    =====================  ========  ==============  =================  ===============

    With embedded models and ten busy programs two threads of its own took 144 ms a token of
    processor time, and one thread 1.2.

    Args:
        cores: Cores that there are; by default those that this process may use.
    """
    cores = usable_cores() if cores is None else cores
    return max(1, min(_MOST, cores, max(2, cores - 1)))


def limit_spinning() -> None:
    """Let no thread of a library keep a core busy while it only waits.

    Before any library brings OpenMP, which reads this once: its threads look only shortly for each
    other before they sleep. By default GCC's look for milliseconds, and where other programs use
    the cores as well, that is how long each operation takes.

    And numpy's OpenBLAS has one thread: its others look for work for 30 ms behind every product of
    matrices, such as a recogniser's spectrogram. On two cores, with the embedded models, that was a
    third of all that the server computed, and it took the core from the voice's first words: 45 ms
    from the end of an utterance to the first audio, and 35 without. The products are small.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", _LOOKS)
    threadpool_limits(1, user_api="blas")


def usable_cores(cgroup: Path = _CGROUP) -> int:
    """Cores that this process may use, at least one.

    That is fewer than the machine has where the process is bound to some of them, or where a
    container's share of the time is limited, of which Linux tells in the folder `cgroup`.
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
