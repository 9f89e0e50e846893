"""Plain numbers, read and compared exactly without any library: the cheap path that most training answers take."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple

MAX_DIGITS = 400
"""Digits in a row that are still read as a number here."""
MAX_EXPONENT = 400
"""Largest exponent of ten, in scientific notation, that is read here."""


class Number(NamedTuple):
    """A literal: its exact value and how it was written."""

    value: Fraction
    decimals: int | None = None
    """Digits after the point; None for integers and fractions."""
    percent: bool = False


_INTEGER = r"(?:[1-9]\d{0,2}(?:,\d{3})+|[1-9]\d{0,2}(?: \d{3})+|\d+)"
_DECIMAL = re.compile(rf"([-+]?)\s?(?:({_INTEGER})(?:\.(\d*))?|\.(\d+))(?:[eE]([-+]?\d{{1,4}}))?\s?(\\?%)?")
_FRACTION = re.compile(
    r"([-+]?)\s?(?:(\d+)\s?)?(?:\\frac\s?(?:\{(-?\d+)\}|(\d))\s?(?:\{(\d+)\}|(\d))"
    r"|(?<![\d])(?:(?<=\d\s)|(?<!\d))(\d+)\s?/\s?(\d+))"
)


def read_number(text: str) -> Number | None:
    """Return the number that a text is: integer, decimal, fraction, mixed number, percent; None for any other text."""
    if len(text) > MAX_DIGITS:
        return None
    match = _DECIMAL.fullmatch(text)
    if match:
        sign, whole, after, only_after, exponent, percent = match.groups()
        after = only_after if whole is None else after
        digits = (whole or "0").replace(",", "").replace(" ", "") + (after or "")
        power = int(exponent or 0) - len(after or "")
        if abs(power) > MAX_EXPONENT:
            return None
        value = Fraction(int(digits) * 10**power) if power >= 0 else Fraction(int(digits), 10**-power)
        decimals = None if after is None and not exponent else max(-power, 0)
        return Number(-value if sign == "-" else value, decimals, percent is not None)
    match = _FRACTION.fullmatch(text)
    if match:
        sign, mixed, top, top_digit, bottom, bottom_digit, plain_top, plain_bottom = match.groups()
        numerator = int(top or top_digit or plain_top)
        denominator = int(bottom or bottom_digit or plain_bottom)
        if denominator == 0 or (mixed and numerator < 0):
            return None
        value = Fraction(numerator, denominator) + int(mixed or 0)
        return Number(-value if sign == "-" else value)
    return None
