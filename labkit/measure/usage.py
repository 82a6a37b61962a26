"""Memory and CPU time of another process, as Linux tells them."""

import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["Usage", "read_usage", "resident_bytes"]

_RSS: Final = re.compile(r"^VmRSS:\s+(\d+) kB$", re.MULTILINE)
_CPU_OF_ALL_THREADS: Final = 2


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process takes up at one instant.

    Attributes:
        rss_bytes: Resident memory.
        cpu_s: CPU seconds since it started, in user mode and in the kernel.
    """

    rss_bytes: int
    cpu_s: float


def read_usage(pid: int | None) -> Usage | None:
    """What process `pid` takes up now; None where the system does not tell or it is gone."""
    if pid is None or sys.platform != "linux":
        return None
    try:
        status = (Path("/proc") / str(pid) / "status").read_text(errors="replace")
        cpu_s = time.clock_gettime(_cpu_clock(pid))
    except OSError:
        return None
    resident = resident_bytes(status)
    return None if resident is None else Usage(resident, cpu_s)


def resident_bytes(status: str) -> int | None:
    """Resident memory that `/proc/<pid>/status` tells; a process that just ended has none."""
    found = _RSS.search(status)
    return int(found[1]) * 1024 if found else None


def _cpu_clock(pid: int) -> int:
    """The clock of a process, as `clock_getcpuclockid` of the C library makes it.

    `/proc/<pid>/stat` counts in ticks of usually 10 ms, more than a server with one caller uses
    in a second; this clock counts nanoseconds.
    """
    return ~pid << 3 | _CPU_OF_ALL_THREADS
