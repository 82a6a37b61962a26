"""Percentiles and their intervals."""

import numpy as np
import pytest

from labkit.measure.statistics import difference_of_medians, percentile


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
