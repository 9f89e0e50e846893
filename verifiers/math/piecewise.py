"""Functions given by cases, compared at points of every piece: the order and the names of the pieces do not matter."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from . import numeric
from .region import Region, region
from .tree import Expr, symbols

MAX_PIECES = 40

Pieces = list[tuple[Expr, Region | None]]


def same_function(gold: Expr, answer: Expr) -> bool:
    """Return whether two functions, at least one of them given by cases, are equal at and between all ends."""
    first, second = _pieces(gold), _pieces(answer)
    if first is None or second is None:
        return False
    regions = [where for _, where in (*first, *second) if where is not None]
    names = {where.variable for where in regions}
    if len(names) != 1:
        return False
    (variable,) = names
    mp = numeric.context()
    borders = sorted({mp.nstr(x, 40): x for where in regions for x in where.borders}.values())
    points = list(borders)
    for low, high in pairwise([*(borders[:1] or [mp.mpf(0)]), *borders, *(borders[-1:] or [mp.mpf(0)])]):
        low, high = (low - 9, high) if low == high == borders[0] else (low, high)
        points += [low + (high - low) * mp.mpf(part) for part in ("0.1237", "0.4871", "0.8713")]
    if borders:
        points += [borders[-1] + mp.mpf(step) for step in ("0.317", "2.713", "8.371")]
    parameters = {
        name: mp.mpf(value.numerator) / value.denominator
        for name in frozenset().union(*(symbols(expr) for expr, _ in (*first, *second))) - {variable}
        for value in [numeric._point(name, 0)]
    }
    found = [(_value(first, x, variable, parameters), _value(second, x, variable, parameters)) for x in points]
    agreed = [a is not None and b is not None and _close(a, b) for a, b in found]
    return any(agreed) and all(same or (a is None and b is None) for same, (a, b) in zip(agreed, found, strict=True))


def _pieces(node: Expr) -> Pieces | None:
    if node.op != "cases":
        return [(node, None)]
    rows = node.args[0]
    if len(rows) > MAX_PIECES:
        return None
    pieces: Pieces = []
    for row in rows:
        where = region(row[1]) if len(row) == 2 else None
        if len(row) > 2 or (len(row) == 2 and where is None):
            return None
        pieces.append((row[0], where))
    return pieces


def _value(pieces: Pieces, x: Any, variable: str | None, parameters: dict[str, Any]) -> Any:
    """Return the value at x: that of the pieces that hold there, else of the one without a condition.

    None if there is no value, or two pieces contradict each other.
    """
    holding = [expr for expr, where in pieces if where is not None and where.contains(x)]
    values = []
    for expr in holding or [expr for expr, where in pieces if where is None]:
        try:
            values.append(numeric.Evaluator({**parameters, variable or "": x})(expr))
        except (numeric.Undefined, numeric.Unsupported, RecursionError):
            return None
    return values[0] if values and all(_close(values[0], other) for other in values) else None


def _close(a: Any, b: Any) -> bool:
    mp = numeric.context()
    return bool(mp.fabs(a - b) <= mp.mpf(10) ** -30 * (1 + mp.fabs(a)))
