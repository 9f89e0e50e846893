"""Shares with confidence intervals, and quantiles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Z95 = 1.959963984540054
"""97.5 % quantile of the normal distribution, for two-sided 95 % intervals."""


def wilson(hits: float, trials: float, z: float = Z95) -> tuple[float, float]:
    """Return Wilson's score interval for a binomial share (Wilson 1927, JASA 22:209, equation 5), clipped to [0, 1].

    Unlike p ± z·√(p(1-p)/n), it is valid at 0 hits, where its upper end is z² / (n + z²). Without trials it is (0, 1).
    Raises ValueError unless 0 <= hits <= trials.
    """
    if not 0 <= hits <= trials:
        raise ValueError(f"{hits} of {trials}")
    if trials == 0:
        return 0.0, 1.0
    share, weight = hits / trials, z * z / trials
    middle = (share + weight / 2) / (1 + weight)
    half = z / (1 + weight) * math.sqrt(share * (1 - share) / trials + weight / (4 * trials))
    # At the ends, the formula gives exactly 0 and 1, and rounding would not.
    return max(0.0, middle - half) if hits else 0.0, min(1.0, middle + half) if hits < trials else 1.0


@dataclass(frozen=True)
class Share:
    """Share of `hits` in `trials`."""

    hits: int
    trials: int

    @property
    def value(self) -> float:
        """The share; 0 without trials."""
        return self.hits / self.trials if self.trials else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval."""
        return wilson(self.hits, self.trials)


def quantile(values: Sequence[float], q: float) -> float:
    """Return the smallest of the values that at least a share `q` of them does not exceed.

    Raises ValueError without values, or if q is outside of (0, 1].
    """
    if not values or not 0 < q <= 1:
        raise ValueError(f"quantile {q} of {len(values)} values")
    # 0.07 * 100 is 7.000000000000001
    return sorted(values)[math.ceil(q * len(values) - 1e-9) - 1]
