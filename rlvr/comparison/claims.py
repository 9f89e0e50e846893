"""The sentence that a comparison of two policies supports."""

from __future__ import annotations

from rlvr.comparison.policies import PolicyDifference, titled

LEVEL = 0.05
"""Largest p-value of the sign test with which a difference is claimed."""


def claim(found: PolicyDifference) -> str:
    """Return what may be claimed about policy b, compared with a, on the questions of a data set.

    A difference is claimed if its interval excludes 0 and the sign test rejects at 5 %, both corrected for the number
    of comparisons. The interval can exclude 0 by chance if few questions change, and the sign test ignores by how much
    they change, so neither is enough.
    """
    a, b, dataset, difference = found.a, found.b, titled(found.dataset), found.main.difference
    number = f"{found.main.questions:,} question{'' if found.main.questions == 1 else 's'}"
    if difference is None:
        return f"Nothing may be claimed about {a} and {b} on {dataset}: no question has a verdict from both."
    if found.simultaneous is None:
        return f"Nothing may be claimed about {a} and {b} on {dataset}: {number} gives no interval."
    low, high = found.simultaneous
    corrected = f", corrected for {found.comparisons} comparisons" if found.comparisons > 1 else ""
    shown = f"95 % interval {points(low)} to {points(high)} points, sign test p {p_text(found.corrected_p)}{corrected}"
    excludes = low > 0 or high < 0
    if excludes and found.corrected_p <= LEVEL:
        kind = "better" if difference > 0 else "worse"
        return f"{b} is {kind} than {a} on {dataset}, by {points(abs(difference))[1:]} points ({shown})."
    why = "the interval includes 0"
    if excludes:
        why = "the interval excludes 0, but the sign test does not exclude chance"
    if 2 ** (1 - found.main.questions) * found.comparisons > LEVEL:
        power = f"{number} {'is' if found.main.questions == 1 else 'are'} too few for the sign test to exclude chance"
    elif found.detectable is None:
        power = "no question differs" if not found.better + found.worse else "all questions differ by the same"
    else:
        power = f"with {number} you cannot see less than {100 * found.detectable:.1f} points"
    return f"No difference between {a} and {b} may be claimed on {dataset}: {why} ({shown}); {power}."


def points(share: float) -> str:
    """Return a difference of shares in percentage points, with its sign."""
    return f"{100 * share:+.1f}"


def p_text(p: float) -> str:
    """Return `= P` with two significant digits, or a bound for a tiny p-value."""
    return "< 0.0001" if p < 1e-4 else f"= {p:.2g}"
