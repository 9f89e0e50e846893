"""The verifier `numeric`: one number, within a tolerance, with units.

Numbers are compared as exact fractions: no rounding error decides. Formulas are not evaluated; use `math` for them.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Annotated, Literal, NamedTuple, TypeAlias

from pydantic import Field

from rlvr import Task, Verdict, verifier

from .math.exact import read_number
from .math.units import Unit, read_unit
from .stated import Place, graded, invalid, stated_answer, unparsed, unstyled

NumberUnits: TypeAlias = Literal["convert", "ignore", "require"]

LONGEST_NUMBER = 200
"""Characters of an answer that are read as a number."""

_TEXT = re.compile(r"\\operatorname\s?\{([^{}]*)\}")
_QUANTITY = re.compile(
    r"(?P<sign>[-+]?)\s?(?P<currency>\\?\$|[€£¥₹])?\s?"
    r"(?P<number>\\[dt]?frac\s?\{-?\d+\}\s?\{\d+\}|\d+\s?/\s?\d+|(?:\d[\d,]*(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d{1,4})?)"
    r"(?:\s?(?:×|\\times|\\cdot|·|\*)\s?10\s?(?:\^|\*\*)\s?\{?\s?(?P<power>[-+]?\d{1,4})\s?\}?)?"
    r"\s?(?P<rest>.*)"
)
_LABEL = re.compile(r"(?!.*\b(?:or|and|not|to|but|nor)\b)[^\W\d_][^\d,;=<>±~]*")
_PERCENT = re.compile(r"\\?%|percent|per cent")
MOST_DIGITS = 400
"""Largest exponent of ten."""


class Quantity(NamedTuple):
    """A number and what stands behind it."""

    value: Fraction
    step: Fraction
    """One unit of the last digit written; 0 for fractions."""
    unit: Unit | None
    label: str
    """The text behind the number: a unit, other words, or nothing."""


@verifier(name="numeric", version="1", sees="answer", cases="numeric.jsonl")
def check(
    completion: str,
    task: Task,
    *,
    rtol: Annotated[float, Field(ge=0)] = 0.0,
    atol: Annotated[float, Field(ge=0)] = 0.0,
    digits: Annotated[int, Field(ge=0, le=50)] = 0,
    rounded: bool = False,
    units: NumberUnits = "convert",
    answer_in: Place = "boxed",
) -> Verdict:
    """Return 1.0 when the answer of `completion` is the number `task.answer` within the tolerance, and 0.0 otherwise.

    The widest of the tolerances counts. By default, numbers must be equal: 0.50 is 1/2, and 50 % is both.

    Args:
        completion: Text whose answer is compared.
        task: Its `answer` is the gold answer.
        rtol: Largest difference, relative to the gold answer.
        atol: Largest difference, in the gold answer's unit.
        digits: Significant digits of the gold answer that must agree: half a unit of the last may differ. 0 is off.
        rounded: The gold answer is a rounded decimal: values that round to it are right.
        units: convert: 5 km equals 5000 m, and the unit may be left out. require: it may not. ignore: any is right.
        answer_in: Where the answer stands: boxed, tag (`<answer>`), line (`Answer:`), hashes (`####`), or whole.
    """
    gold = read_quantity(task.answer or "")
    if gold is None:
        return invalid(f"the gold answer {(task.answer or '')[:80]!r} is no number")
    answer = stated_answer(completion, answer_in)
    if isinstance(answer, Verdict):
        return answer
    said = read_quantity(answer)
    if said is None:
        return unparsed(f"{answer[:80]!r} is no number")
    value = _in_unit_of(gold, said, units)
    if value is None:
        return graded(0, answer, f"another unit: {said.label or 'none'} for {gold.label or 'none'}")
    allowed = max(Fraction(str(atol)), Fraction(str(rtol)) * abs(gold.value))
    if digits:
        allowed = max(allowed, _half_a_digit(gold.value, digits))
    if rounded:
        allowed = max(allowed, gold.step / 2)
    equal = abs(value - gold.value) <= allowed
    return graded(equal, answer, "equal" if equal else "another number")


def read_quantity(text: str) -> Quantity | None:
    """Return the number that a text states, with its unit; None if it is anything else than one number."""
    if len(text) > LONGEST_NUMBER:
        return None
    text = _TEXT.sub(r" \1", unstyled(text)).replace("−", "-").replace("\\,", " ").replace("\\!", "")
    match = _QUANTITY.fullmatch(" ".join(text.replace("~", " ").replace("{,}", ",").split()))
    if match is None:
        return None
    number = read_number(f"{match['sign']}{match['number'].replace('dfrac', 'frac').replace('tfrac', 'frac')}")
    if number is None:
        return None
    power, written = int(match["power"] or 0), match["number"]
    if abs(power) > MOST_DIGITS:
        return None
    scale = Fraction(10) ** power
    exponent = re.search(r"[eE]([-+]?\d+)", written)
    after = len(written.partition(".")[2].partition("e")[0].partition("E")[0])
    step = Fraction(0)
    if "/" not in written and "frac" not in written:
        step = scale * Fraction(10) ** (int(exponent[1] if exponent else 0) - after)
    rest = match["rest"].strip().removesuffix(".").strip()
    if _PERCENT.fullmatch(rest):
        return Quantity(number.value * scale / 100, step / 100, None, "")
    label = " ".join(filter(None, [(match["currency"] or "").lstrip("\\"), rest]))
    unit = read_unit(label) if label else None
    if label and unit is None and not (_LABEL.fullmatch(rest) and not match["currency"]):
        return None
    return Quantity(number.value * scale, step, unit, label)


def _in_unit_of(gold: Quantity, said: Quantity, units: NumberUnits) -> Fraction | None:
    """Return the value of an answer in the gold answer's unit; None if its unit does not fit."""
    if units == "ignore" or gold.label.casefold() == said.label.casefold():
        return said.value
    if not said.label:
        return None if units == "require" else said.value
    if not gold.label:
        return said.value if said.unit is not None else None
    if gold.unit is None or said.unit is None or gold.unit.dimension != said.unit.dimension:
        return None
    return said.value * said.unit.size / gold.unit.size


def _half_a_digit(value: Fraction, digits: int) -> Fraction:
    """Return half a unit of the last of so many significant digits."""
    if not value:
        return Fraction(0)
    exponent = len(str(abs(value.numerator))) - len(str(value.denominator))  # floor(log10), or one more
    if abs(value) < Fraction(10) ** exponent:
        exponent -= 1
    return Fraction(10) ** (exponent - digits + 1) / 2
