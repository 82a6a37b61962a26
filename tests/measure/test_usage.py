"""Memory and CPU of a process."""

import os
import subprocess
import sys

import pytest

from labkit.measure.usage import read_usage, resident_bytes

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")


def test_resident_memory_is_read_in_kilobytes() -> None:
    assert resident_bytes("Name:\tx\nVmHWM:\t  99 kB\nVmRSS:\t  12345 kB\n") == 12_345 * 1024


def test_a_process_that_just_ended_has_none() -> None:
    assert resident_bytes("Name:\tx\nState:\tZ (zombie)\n") is None


@linux
def test_what_a_process_takes_up_is_known_and_its_cpu_time_grows() -> None:
    first = read_usage(os.getpid())
    assert first is not None
    sum(range(200_000))
    second = read_usage(os.getpid())
    assert second is not None
    assert second.cpu_s > first.cpu_s > 0
    assert second.rss_bytes > 10_000_000


@linux
def test_another_process_is_not_this_one() -> None:
    program = "input()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE) as process:
        other, own = read_usage(process.pid), read_usage(os.getpid())
        process.communicate(b"\n")
    assert other is not None
    assert own is not None
    assert other.cpu_s < own.cpu_s
    assert read_usage(process.pid) is None


def test_nothing_is_known_of_a_process_elsewhere() -> None:
    assert read_usage(None) is None
