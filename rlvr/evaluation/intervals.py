"""Confidence intervals of shares and means, also over clusters, and quantiles.

A cluster is a question with several completions, which are not independent of each other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

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


def clustered_interval(
    sums: Sequence[float], sizes: Sequence[float], trials: float | None = None
) -> tuple[float, float]:
    """Return the 95 % interval of a share, Σ sums / Σ sizes, from the clusters' sums and sizes.

    If all clusters have one size and each is right as a whole or wrong as a whole, the clusters are independent trials,
    and this is Wilson's interval over them. Otherwise it is Wilson's at the number of independent trials that have the
    variance between clusters, reduced for the uncertainty of that variance (Korn and Graubard 1998, Survey Methodology
    24:193, equations 1 and 2). A share that is the same in every cluster counts as one trial per cluster.

    Args:
        sums: Sum of the values of each cluster, between 0 and its size.
        sizes: Size of each cluster, more than 0.
        trials: Upper limit on the number of independent trials; None is Σ sizes.
    """
    count, total = len(sizes), math.fsum(sizes)
    if len(set(sizes)) == 1 and all(own in (0, sizes[0]) for own in sums):
        return wilson(sum(own > 0 for own in sums), count)
    share = min(1.0, math.fsum(sums) / total)
    variance = _ratio_variance(sums, sizes, share)
    if not variance:
        return wilson(share * count, count)
    certainty = (Z95 / student_t95(count - 1)) ** 2
    effective = min(share * (1 - share) / variance * certainty, total if trials is None else trials)
    return wilson(share * effective, effective)


def mean_interval(sums: Sequence[float], sizes: Sequence[float]) -> tuple[float, float] | None:
    """Return Student's 95 % interval of a mean, Σ sums / Σ sizes, clustered; None for fewer than two clusters.

    The variance is that of a ratio between clusters (Cochran, Sampling Techniques, 1977, equation 6.13).
    """
    if len(sizes) < 2:
        return None
    mean = math.fsum(sums) / math.fsum(sizes)
    half = student_t95(len(sizes) - 1) * math.sqrt(_ratio_variance(sums, sizes, mean))
    return mean - half, mean + half


def _ratio_variance(sums: Sequence[float], sizes: Sequence[float], ratio: float) -> float:
    """Return the variance of Σ sums / Σ sizes between clusters; 0 for one cluster. Differences by rounding count as
    none."""
    count, rounding = len(sizes), 1e-12 * max(map(abs, sums))
    away = [own - ratio * size for own, size in zip(sums, sizes, strict=True)]
    squares = math.fsum(each * each for each in away if abs(each) > rounding)
    return squares / math.fsum(sizes) ** 2 * count / (count - 1) if count > 1 else 0.0


@lru_cache(maxsize=4096)
def student_t95(degrees: int) -> float:
    """Return the 97.5 % quantile of Student's t distribution, for two-sided 95 % intervals.

    Up to 100 degrees of freedom it is the root of the distribution function (Abramowitz and Stegun 26.7.3 and 26.7.4),
    beyond that its expansion around the normal quantile (26.7.5), which is exact to 1e-9 there. Raises ValueError
    unless there is at least one degree.
    """
    if degrees < 1:
        raise ValueError(f"{degrees} degrees of freedom")
    if degrees > 100:
        z, n = Z95, degrees
        terms: tuple[float, ...] = (
            (z**3 + z) / 4,
            (5 * z**5 + 16 * z**3 + 3 * z) / 96,
            (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
            (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
        )
        return z + math.fsum(term / n**power for power, term in enumerate(terms, 1))
    low, high = 0.0, math.pi / 2  # θ = arctan(t / √n), in which the distribution function is a finite sum
    while (middle := (low + high) / 2) not in (low, high):
        low, high = (middle, high) if _between(middle, degrees) < 0.95 else (low, middle)
    return math.tan(low) * math.sqrt(degrees)


def _between(angle: float, degrees: int) -> float:
    """Return the probability that |t| is at most √degrees · tan(angle)."""
    sine, cosine = math.sin(angle), math.cos(angle)
    first = degrees % 2
    term = total = cosine if first else 1.0
    for k in range(2 + first, degrees, 2):
        term *= (k - 1) / k * cosine**2
        total += term
    if first:
        return 2 / math.pi * (angle + (sine * total if degrees > 1 else 0.0))
    return sine * total


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
