"""The options of the verifier: conventions on which graders disagree. Each is a keyword of `check`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Units: TypeAlias = Literal["convert", "ignore", "require"]
Assume: TypeAlias = Literal["positive", "real", "complex"]


@dataclass(frozen=True, slots=True)
class Options:
    """The comparison's tolerances and conventions. The defaults are what a careful human grader does."""

    float_rtol: float = 1e-4
    """How far a decimal of four digits or more may be from an exact gold that is no integer: 0.3333 for 1/3. It must
    also be that gold's rounding, or its truncation, to the digits given. 0 asks for exact answers."""
    gold_precision: bool = True
    """A gold with a decimal point and three significant digits or more is a rounded number: what rounds to it is
    right (3.14 for pi is; pi for 3.14 is not)."""
    percent_is_ratio: bool = True
    """50% equals 1/2."""
    percent_is_number: bool = True
    """50% equals 50: the percent sign may be left out."""
    ordered: bool = False
    """`1, 2` must come in the gold's order. Tuples always must."""
    units: Units = "convert"
    """`convert`: 5 km equals 5000 m, differs from 5 m and may be written 5; `ignore`: units say nothing; `require`: a
    unit that the gold has must be there."""
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
    """An answer may leave to be carried out what the gold has carried out: gcd(6432, 132) + 11 for 23, a sum
    for its value, sin(18°)^3 + sin(18°)^2 for 1/8. A single function value, log_2(8) for 3, is right in any case."""
