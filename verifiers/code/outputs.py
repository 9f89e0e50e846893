"""Comparison of what a program printed with the expected output: pure functions of text."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Literal, TypeAlias

Comparison: TypeAlias = Literal["lines", "tokens", "exact"]

_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d{1,3})?")
_LONGEST = 400
"""Characters of a number."""


def same_output(printed: str, expected: str, how: Comparison, tolerance: float) -> bool:
    """Return whether an output is the expected one.

    Args:
        printed: Output of the program.
        expected: Expected output.
        how: lines: the same tokens in the same lines. tokens: the same tokens, however they are broken into lines.
            exact: the same text. White space between and around tokens, and empty lines at both ends, count in `exact`
            alone.
        tolerance: Relative or absolute difference that is allowed where the expected token is written with a decimal
            point. Numbers with the same value are always equal there: `0.50` is `0.5`.
    """
    if how == "exact" or printed == expected:
        return printed == expected
    if how == "tokens":
        return _same_tokens(printed.split(), expected.split(), tolerance)
    first, second = printed.strip().splitlines(), expected.strip().splitlines()
    return len(first) == len(second) and all(
        _same_tokens(one.split(), other.split(), tolerance) for one, other in zip(first, second, strict=True)
    )


def _same_tokens(printed: list[str], expected: list[str], tolerance: float) -> bool:
    return len(printed) == len(expected) and all(
        one == other or _same_number(one, other, tolerance) for one, other in zip(printed, expected, strict=True)
    )


def _same_number(printed: str, expected: str, tolerance: float) -> bool:
    """Return whether two tokens are numbers that agree; integers never agree unless they are the same text."""
    if max(len(printed), len(expected)) > _LONGEST or not ("." in expected or "e" in expected.lower()):
        return False
    if not _NUMBER.fullmatch(printed) or not _NUMBER.fullmatch(expected):
        return False
    one, other = Decimal(printed), Decimal(expected)
    return one == other or abs(one - other) <= Decimal(tolerance) * max(Decimal(1), abs(other))
