"""Percentiles, and how sure of them one can be; the intervals are SciPy's."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray
from scipy import stats

FEW: Final = 20
"""With fewer values than this, a 95th percentile is hardly more than the largest of them."""
FEW_99: Final = 5 * FEW
"""The same of a 99th percentile."""

_CONFIDENCE: Final = 0.95
_RESAMPLES: Final = 2000
_NS_PER_MS: Final = 1e6


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95 % interval, and how many values it was computed from."""

    value: float
    low: float
    high: float
    sample: int

    @classmethod
    def exact(cls, value: float, sample: int) -> Self:
        """A value that nothing was drawn for, such as a count."""
        return cls(value, value, value, sample)

    @property
    def clear(self) -> bool:
        """Whether a difference is more than noise: its interval does not hold 0."""
        return self.sample > 1 and not self.low <= 0 <= self.high

    def interval(self, form: str = ".0f") -> str:
        """The interval in words, its ends in that form."""
        return f"95 % interval {self.low:{form}} to {self.high:{form}}"


Statistic = Callable[..., Any]
"""Computes something along the `axis` that it is told, from one array or several, as NumPy does."""


def median(values: Sequence[float], *, seed: int = 0) -> Estimate:
    """The median of at least one value, each of a block of its own, with its bootstrap interval.

    A median and not a mean: one turn that the machine held up says nothing of the others, and on
    a machine that does something else as well there always is one.

    Raises:
        ValueError: There are no values.
    """
    return resampled(np.median, values, seed=seed)


def percentile_95(values: Sequence[float]) -> Estimate | None:
    """The 95th percentile with its interval; None where fewer than `FEW` values cannot tell it.

    The interval is the exact one from the order of the values (Conover, Practical Nonparametric
    Statistics, section 3.2): drawing again from a few values finds none above the largest. Where
    there are too few for an end (72 for the upper one), the smallest or the largest stands for it,
    and the true end may lie beyond. It takes the values for independent. Waits of one busy moment
    are not, so a server that is held up for long has a wider interval than this.
    """
    return None if len(values) < FEW else _exact_95(np.sort(values))


def _exact_95(ordered: NDArray[np.float64]) -> Estimate:
    interval = stats.quantile_test(ordered, p=0.95).confidence_interval(_CONFIDENCE)
    low = ordered[0] if np.isnan(interval.low) else interval.low
    high = ordered[-1] if np.isnan(interval.high) else interval.high
    value = float(np.percentile(ordered, 95))
    return Estimate(value, float(low), float(high), len(ordered))


def percentile_99(values: Sequence[float]) -> float | None:
    """The 99th percentile; None where fewer than `FEW_99` values cannot tell it."""
    return float(np.percentile(values, 99)) if len(values) >= FEW_99 else None


def percentile(q: float) -> Statistic:
    """The percentile `q` as a statistic."""
    return partial(np.percentile, q=q)


def ratio(of: Statistic) -> Statistic:
    """One sample's statistic over another's."""
    return lambda over, base, axis: of(over, axis=axis) / of(base, axis=axis)


def resampled(
    statistic: Statistic, *samples: Sequence[float], paired: bool = False, seed: int = 0
) -> Estimate:
    """What is computed from samples, with its bootstrap interval (Efron's percentile method, 1979).

    Samples that are `paired` belong together, value by value, and are drawn so.

    Raises:
        ValueError: A sample is empty.
    """
    if not all(map(len, samples)):
        raise ValueError("no values to compute anything from")
    arrays = [np.asarray(sample, dtype=np.float64) for sample in samples]
    value = float(statistic(*arrays, axis=-1))
    if min(map(len, arrays)) == 1:  # nothing to draw from
        return Estimate.exact(value, 1)
    interval = stats.bootstrap(
        arrays,
        statistic,
        n_resamples=_RESAMPLES,
        vectorized=True,
        paired=paired,
        confidence_level=_CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(abs(seed)),  # which takes no negative ones
    ).confidence_interval
    return Estimate(value, float(interval.low), float(interval.high), len(arrays[0]))


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Percentiles of `sample` durations, in milliseconds; `low` to `high` is the interval of `p95`.

    `p99` is None where fewer than `FEW_99` values cannot tell it.
    """

    p50: float
    p95: float
    p99: float | None
    low: float
    high: float
    sample: int

    @property
    def tail(self) -> Estimate:
        """The 95th percentile with its interval."""
        return Estimate(self.p95, self.low, self.high, self.sample)


def percentiles_ms(durations_ns: Sequence[int]) -> Percentiles | None:
    """Percentiles of durations in nanoseconds, as `percentile_95` has them; None where none are."""
    if not durations_ns:
        return None
    ordered = np.sort(durations_ns) / _NS_PER_MS
    tail = _exact_95(ordered)
    return Percentiles(
        p50=float(np.median(ordered)),
        p95=tail.value,
        p99=percentile_99(ordered.tolist()),
        low=tail.low,
        high=tail.high,
        sample=tail.sample,
    )
