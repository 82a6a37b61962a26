"""Percentiles, and how sure of them one can be; the intervals are SciPy's."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import stats

__all__ = ["Estimate", "Percentiles", "difference_of_medians", "percentile", "percentiles_ms"]

_CONFIDENCE: Final = 0.95
_RESAMPLES: Final = 2000
_NS_PER_MS: Final = 1e6


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
    """The `q`-th percentile with its bootstrap interval (the percentile method of Efron, 1979).

    Args:
        values: At least one.
        q: 0 to 100.
        seed: Draws the resamples.

    Raises:
        ValueError: There are no values.
    """
    data = _array(values)
    value = float(np.percentile(data, q))
    return _bootstrap(value, (data,), lambda x, axis: np.percentile(x, q, axis=axis), seed)


def difference_of_medians(a: Sequence[float], b: Sequence[float], *, seed: int = 0) -> Estimate:
    """Median of `b` minus median of `a`, with its bootstrap interval over pairs.

    Args:
        a: At least one value.
        b: As many; values at the same place belong together, such as turns with the same
            recording, and are drawn together: what they share does not widen the interval.
        seed: Draws the resamples.

    Raises:
        ValueError: There are no values, or not as many of both.
    """
    first, second = _array(a), _array(b)
    if len(first) != len(second):
        raise ValueError(f"{len(first)} values do not pair with {len(second)}")

    def difference(x: NDArray[np.float64], y: NDArray[np.float64], axis: int) -> object:
        return np.median(y, axis=axis) - np.median(x, axis=axis)

    value = float(np.median(second) - np.median(first))
    return _bootstrap(value, (first, second), difference, seed)


def _array(values: Sequence[float]) -> NDArray[np.float64]:
    data = np.asarray(values, dtype=np.float64)
    if not len(data):
        raise ValueError("no values to compute a percentile from")
    return data


def _bootstrap(
    value: float, data: tuple[NDArray[np.float64], ...], statistic: object, seed: int
) -> Estimate:
    sample = len(data[0])
    if sample == 1:  # nothing to draw from
        return Estimate(value, value, value, sample)
    interval = stats.bootstrap(
        data,
        statistic,
        n_resamples=_RESAMPLES,
        paired=len(data) > 1,
        vectorized=True,
        confidence_level=_CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Estimate(value, float(interval.low), float(interval.high), sample)


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Percentiles of a set of durations, in milliseconds.

    Attributes:
        p50: Median.
        p95: 95th percentile.
        p99: 99th percentile.
        low: Lower end of the 95 % interval of `p95`.
        high: Upper end of it.
        sample: How many values they come from.
    """

    p50: float
    p95: float
    p99: float
    low: float
    high: float
    sample: int


def percentiles_ms(durations_ns: Sequence[int]) -> Percentiles | None:
    """Percentiles of durations in nanoseconds; None where there are none.

    A load gives thousands of durations, so the interval is the exact one from the order of the
    values (Conover, Practical Nonparametric Statistics, section 3.2) and not a bootstrap. Where
    there are too few values for an end, the smallest or the largest stands for it, and the true
    end may lie beyond.
    """
    if not durations_ns:
        return None
    ordered = np.sort(durations_ns) / _NS_PER_MS
    p50, p95, p99 = np.percentile(ordered, (50, 95, 99)).tolist()
    interval = stats.quantile_test(ordered, p=0.95).confidence_interval(_CONFIDENCE)
    low = ordered[0] if np.isnan(interval.low) else interval.low
    high = ordered[-1] if np.isnan(interval.high) else interval.high
    return Percentiles(p50, p95, p99, float(low), float(high), len(ordered))
