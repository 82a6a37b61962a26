"""Threads: never more, for all engines together, than there are cores."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import threadpool_info, threadpool_limits

from labkit.voice.loading import default_threads, limit_spinning, most_threads, usable_cores


@given(cores=st.integers(3, 256))
def test_three_engines_never_have_more_threads_than_cores(cores: int) -> None:
    assert 1 <= default_threads(cores) <= 4
    assert 3 * default_threads(cores) <= cores


@pytest.mark.parametrize(("cores", "threads"), [(1, 1), (2, 1), (5, 1), (6, 2), (12, 4), (64, 4)])
def test_small_machines_have_one_thread_each(cores: int, threads: int) -> None:
    assert default_threads(cores) == threads


@pytest.mark.parametrize(
    ("cores", "threads"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 4), (12, 4), (64, 4)]
)
def test_a_language_model_alone_leaves_a_core_where_there_are_more_than_two(
    cores: int, threads: int
) -> None:
    assert most_threads(cores) == threads
    assert most_threads(cores) >= default_threads(cores)


def test_openmp_looks_shortly_unless_somebody_has_said_for_how_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    limit_spinning()
    assert os.environ["GOMP_SPINCOUNT"] == "1000"
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    limit_spinning()
    assert os.environ["GOMP_SPINCOUNT"] == "7"


def test_numpy_has_no_threads_that_look_for_work_on_the_engines_cores() -> None:
    with threadpool_limits(2, user_api="blas"):  # which puts back what was
        limit_spinning()
        blas = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
        assert all(pool["num_threads"] == 1 for pool in blas)


@pytest.fixture
def sixteen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with 16 cores, all of them for this process."""
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)


@pytest.mark.usefixtures("sixteen")
@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 16),
        ({"cpu.max": "max 100000\n"}, 16),
        ({"cpu.max": "200000 100000\n"}, 2),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "6400000 100000\n"}, 16),
        ({"cpu.max": ""}, 16),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 16),
        ({"cpu/cpu.cfs_quota_us": "350000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
    ],
)
def test_a_container_has_its_share(tmp_path: Path, files: dict[str, str], cores: int) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert usable_cores(tmp_path) == cores


@pytest.mark.usefixtures("sixteen")
def test_a_process_that_is_bound_to_some_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5})
    assert usable_cores(tmp_path) == 2
