"""Percentiles and their intervals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.measure.statistics import difference_of_medians, percentile, percentiles_ms

MS = 1_000_000


def test_a_constant_has_no_spread() -> None:
    found = percentile([7.0] * 20, 95)
    assert (found.value, found.low, found.high, found.sample) == (7.0, 7.0, 7.0, 20)


def test_the_interval_holds_the_value_and_narrows_with_the_sample() -> None:
    rng = np.random.default_rng(1)
    few = percentile(rng.normal(100, 10, 10).tolist(), 50)
    many = percentile(rng.normal(100, 10, 1000).tolist(), 50)
    assert few.low <= few.value <= few.high
    assert many.high - many.low < (few.high - few.low) / 3


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(2)
    covered = 0
    for seed in range(200):
        found = percentile(rng.exponential(1.0, 30).tolist(), 50, seed=seed)
        covered += found.low <= np.log(2) <= found.high
    assert 180 <= covered <= 199


def test_the_difference_of_medians_is_signed() -> None:
    found = difference_of_medians([1.0, 2.0, 3.0], [11.0, 12.0, 13.0])
    assert found.value == 10
    assert 8 <= found.low <= 10 <= found.high <= 12
    assert difference_of_medians([11.0, 12.0, 13.0], [1.0, 2.0, 3.0]).value == -10


def test_no_values() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)


def test_what_pairs_share_does_not_widen_the_interval() -> None:
    rng = np.random.default_rng(3)
    shared = rng.normal(500, 200, 12)
    a, b = (shared + rng.normal(0, 2, 12)).tolist(), (shared + rng.normal(50, 2, 12)).tolist()
    found = difference_of_medians(a, b)
    assert 45 < found.low <= found.value <= found.high < 55


def test_values_without_a_partner_are_an_error() -> None:
    with pytest.raises(ValueError, match="2 values do not pair with 1"):
        difference_of_medians([1.0, 2.0], [1.0])


def test_a_single_value_is_its_own_interval() -> None:
    found = percentile([3.0], 50)
    assert (found.value, found.low, found.high, found.sample) == (3.0, 3.0, 3.0, 1)


def test_percentiles_are_in_milliseconds() -> None:
    found = percentiles_ms([n * MS for n in range(101)])
    assert found is not None
    assert (found.p50, found.p95, found.p99, found.sample) == (50, 95, 99, 101)
    assert percentiles_ms([]) is None


@given(st.lists(st.integers(0, 10**10), min_size=1))
def test_the_interval_holds_values_that_were_seen(durations: list[int]) -> None:
    found = percentiles_ms(durations)
    assert found is not None
    seen = [duration / MS for duration in durations]
    assert found.low in seen
    assert found.high in seen
    assert found.low <= found.high
    assert found.p50 <= found.p95 <= found.p99 <= max(seen)


def test_the_exact_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    truth = -np.log(0.05)
    covered = 0
    for _ in range(400):
        found = percentiles_ms((rng.exponential(size=300) * MS).astype(int).tolist())
        assert found is not None
        covered += found.low <= truth <= found.high
    assert 0.92 < covered / 400 < 0.98
