"""Statistics of a difference between two policies on the same questions: sign test, detectable effect, Holm."""

from __future__ import annotations

from collections.abc import Sequence

Z_TWO_SIDED, Z_POWER = 1.959963984540054, 0.8416212335729143
"""Quantiles of the normal distribution: 97.5 % for two-sided tests at 5 %, 80 % for the power."""


def sign_test(better: int, worse: int) -> float:
    """Return the two-sided p-value of the exact sign test: the probability of a split at least as uneven by chance.

    `better` and `worse` are the questions that changed in each direction; questions without a change do not count
    (Dixon and Mood 1946, JASA 41:557). Under the null hypothesis, their number is binomial with probability 1/2.
    """
    total, fewer = better + worse, min(better, worse)
    ways: int = 1
    term: int = 1
    for i in range(fewer):
        term = term * (total - i) // (i + 1)
        ways += term
    return min(1.0, 2 * ways / (1 << total))


def detectable_effect(standard_error: float) -> float:
    """Return the smallest true difference that a two-sided test at 5 % detects with a probability of 80 %.

    `standard_error` is that of the estimated difference: (z₀.₉₇₅ + z₀.₈) · SE, the usual approximation, which leaves
    out the chance of a significant difference in the wrong direction.
    """
    return (Z_TWO_SIDED + Z_POWER) * standard_error


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values corrected for their number (Holm 1979, Scandinavian Journal of Statistics 6:65)."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = largest
    return corrected
