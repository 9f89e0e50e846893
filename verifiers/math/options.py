"""Options of the verifier: conventions on which graders disagree. Each is a keyword of `check`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Units: TypeAlias = Literal["convert", "ignore", "require"]
Assume: TypeAlias = Literal["positive", "real", "complex"]


@dataclass(frozen=True, slots=True)
class Options:
    """Tolerances and conventions of the comparison. The defaults follow a careful human grader."""

    float_rtol: float = 1e-4
    """Largest relative error of a decimal with four or more digits, if the gold is exact and no integer: 0.3333 for
    1/3. The decimal must also be the gold rounded or truncated to its digits. 0 requires exact answers."""
    gold_precision: bool = True
    """A gold with a decimal point and three or more significant digits is a rounded number, so values that round to it
    are right: pi for the gold 3.14, but not 3.14 for the gold pi."""
    percent_is_ratio: bool = True
    """50% equals 1/2."""
    percent_is_number: bool = True
    """50% equals 50: the percent sign may be left out."""
    ordered: bool = False
    """Lists (`1, 2`) must have the order of the gold. Tuples always must."""
    units: Units = "convert"
    """`convert`: 5 km equals 5000 m, differs from 5 m and may be written 5; `ignore`: units do not matter; `require`:
    the gold's unit must be given."""
    unreduced: bool = True
    """2/4 is right for 1/2."""
    intervals: bool = True
    """(1, 2) equals 1 < x < 2."""
    assignment: bool = True
    """5 equals x = 5."""
    degrees: bool = True
    """The degree sign may be left out: 45 for 45 degrees."""
    assume: Assume = "real"
    """The values that a symbol may have when formulas are compared. `real`: any real number; in a formula that is one
    product of quantities with roots, such as sqrt(V/c), positive numbers. `positive`: positive numbers, so that
    sqrt(x^2) is x. `complex`: complex numbers; powers and roots have their principal values."""
    unevaluated: bool = False
    """Accept an answer that is not calculated, if its value is the gold: gcd(6432, 132) + 11 for 23, a sum for its
    value, sin(18°)^3 + sin(18°)^2 for 1/8. A single function value, log_2(8) for 3, is always accepted."""
