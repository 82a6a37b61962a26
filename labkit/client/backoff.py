"""How long to wait before the next try to connect."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["Backoff"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Exponential backoff with full jitter.

    Each wait is drawn evenly between nothing and a bound that doubles up to a limit, so that
    clients which were cut off together do not come back together (M. Brooker, "Exponential
    Backoff And Jitter", AWS Architecture Blog, 2015).

    Attributes:
        first_s: Bound of the first wait, in seconds.
        limit_s: Largest bound.
        give_up_s: After so many seconds without a connection there is no further try.
    """

    first_s: float = 0.1
    limit_s: float = 5.0
    give_up_s: float = 60.0

    def delays(self, random_source: random.Random) -> Iterator[float]:
        """Waits before the first try again, the second, and so on, without end."""
        bound = self.first_s
        while True:
            yield random_source.uniform(0, bound)
            bound = min(self.limit_s, 2 * bound)
