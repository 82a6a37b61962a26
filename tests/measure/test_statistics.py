"""Percentiles and their intervals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.measure.statistics import (
    FEW,
    FEW_99,
    Estimate,
    median,
    percentile_95,
    percentile_99,
    percentiles_ms,
    ratio,
    resampled,
)

MS = 1_000_000


def test_a_constant_has_no_spread() -> None:
    found = median([7.0] * 20)
    assert (found.value, found.low, found.high, found.sample) == (7.0, 7.0, 7.0, 20)


def test_the_interval_holds_the_value_and_narrows_with_the_sample() -> None:
    rng = np.random.default_rng(1)
    few = median(rng.normal(100, 10, 10).tolist())
    many = median(rng.normal(100, 10, 1000).tolist())
    assert few.low <= few.value <= few.high
    assert many.high - many.low < (few.high - few.low) / 3


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(2)
    covered = 0
    for seed in range(200):
        found = median(rng.exponential(1.0, 30).tolist(), seed=seed)
        covered += found.low <= np.log(2) <= found.high
    assert 180 <= covered <= 199


@pytest.mark.parametrize(
    ("low", "high", "sample", "clear"),
    [(1, 3, 5, True), (-3, -1, 5, True), (-1, 3, 5, False), (0, 3, 5, False), (2, 2, 1, False)],
)
def test_a_difference_is_clear_where_its_interval_leaves_out_0(
    low: float, high: float, sample: int, clear: bool
) -> None:
    assert Estimate(2.0, low, high, sample).clear is clear


def test_few_values_have_no_95th_percentile() -> None:
    assert percentile_95([1.0] * (FEW - 1)) is None
    assert percentile_95([1.0] * FEW) == Estimate(1.0, 1.0, 1.0, FEW)


def test_no_values() -> None:
    with pytest.raises(ValueError, match="no values"):
        median([])


def test_a_single_value_is_its_own_interval() -> None:
    found = median([3.0])
    assert (found.value, found.low, found.high, found.sample) == (3.0, 3.0, 3.0, 1)


def test_a_ratio_of_samples_has_an_interval_around_it() -> None:
    ones, twos = [1.0, 1.1, 0.9, 1.0], [2.0, 2.2, 1.8, 2.0]
    found = resampled(ratio(np.sum), ones, twos, paired=True)
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.5, 0.5))
    assert found.sample == 4
    loose = resampled(ratio(np.sum), ones, twos)
    assert loose.low < 0.5 < loose.high


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
    assert found.p50 <= found.p95 <= (found.p99 or found.p95) <= max(seen)


def test_few_values_have_no_99th_percentile() -> None:
    assert percentile_99([1.0] * (FEW_99 - 1)) is None
    assert percentile_99([1.0] * FEW_99) == 1.0
    found = percentiles_ms([MS] * (FEW_99 - 1))
    assert found is not None
    assert found.p99 is None


def test_the_exact_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    truth = -np.log(0.05)
    covered = 0
    for _ in range(400):
        found = percentiles_ms((rng.exponential(size=300) * MS).astype(int).tolist())
        assert found is not None
        covered += found.low <= truth <= found.high
    assert 0.92 < covered / 400 < 0.98


def test_any_whole_number_is_a_seed() -> None:
    values = [1.0, 2.0, 4.0, 8.0]
    assert median(values, seed=-7) == median(values, seed=7)
