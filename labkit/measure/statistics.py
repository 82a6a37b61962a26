"""Percentiles, and how sure of them one can be."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Estimate", "difference_of_medians", "percentile"]

_RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95 % interval.

    Attributes:
        value: Computed from the data as they are.
        low: Lower end of the interval.
        high: Upper end of the interval.
        sample: How many values it was computed from.
    """

    value: float
    low: float
    high: float
    sample: int


def percentile(values: Sequence[float], q: float, *, seed: int = 0) -> Estimate:
    """The `q`-th percentile with its bootstrap interval.

    The interval is the percentile bootstrap of Efron (1979) with 2,000 resamples.

    Args:
        values: At least one.
        q: 0 to 100.
        seed: Draws the resamples.

    Raises:
        ValueError: There are no values.
    """
    data = _array(values)
    drawn = _resampled(data, lambda rows: np.percentile(rows, q, axis=1), seed)
    return _estimate(float(np.percentile(data, q)), drawn, len(data))


def difference_of_medians(a: Sequence[float], b: Sequence[float], *, seed: int = 0) -> Estimate:
    """Median of `b` minus median of `a`, with its bootstrap interval; both drawn separately.

    Raises:
        ValueError: Either has no values.
    """
    first, second = _array(a), _array(b)
    drawn = _resampled(second, _medians, seed) - _resampled(first, _medians, seed + 1)
    value = float(np.median(second) - np.median(first))
    return _estimate(value, drawn, min(len(first), len(second)))


def _array(values: Sequence[float]) -> NDArray[np.float64]:
    data = np.asarray(values, dtype=np.float64)
    if not len(data):
        raise ValueError("no values to compute a percentile from")
    return data


def _medians(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.median(rows, axis=1))


def _resampled(
    data: NDArray[np.float64],
    statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    seed: int,
) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    return statistic(rng.choice(data, size=(_RESAMPLES, len(data))))


def _estimate(value: float, drawn: NDArray[np.float64], sample: int) -> Estimate:
    low, high = np.percentile(drawn, (2.5, 97.5))
    return Estimate(value, float(low), float(high), sample)
