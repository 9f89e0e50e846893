"""Families of answers: `k pi` for all integers k, compared as sets; `x^2 + C`, up to the constant."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any, NamedTuple

from . import numeric
from .tidy import both_signs
from .tree import Expr, has, num, rebuild, symbols, walk

INTEGER_NAMES = frozenset({"n", "k", "m", "l", "t", "N", "K", "j", "p", "q", "s"})
ARBITRARY = frozenset({"C", "c", "K", "k", "C_1", "c_1", "C_2", "c_2", "C_3", "c_3", "K_1", "K_2", "C_0", "c_0"})
ALSO_ARBITRARY = frozenset({"A", "B", "D", "A_1", "A_2"})
MAX_RESIDUES = 240
MAX_NODES = 400
"""Largest number of nodes in a family's expressions."""


class Family(NamedTuple):
    """Arithmetic progressions (offset, step), and whether an integer was named as such (`k in Z`)."""

    progressions: tuple[tuple[Any, Any], ...]
    explicit: bool


def same_family(gold: Expr, answer: Expr) -> bool:
    """Return whether two unions of progressions over all integers are equal. One side must say that it is one."""
    first = family(gold)
    second = family(answer) if first is not None else None
    if first is None or second is None or not (first.explicit or second.explicit):
        return False
    unit = first.progressions[0][1]
    steps = [_ratio(step, unit) for _, step in (*first.progressions, *second.progressions)]
    if any(step is None for step in steps):
        return False
    ratios = [step for step in steps if step is not None]
    common = Fraction(math.lcm(*(r.numerator for r in ratios)), math.gcd(*(r.denominator for r in ratios)))
    if sum(common / r for r in ratios) > MAX_RESIDUES:
        return False
    period = unit * common.numerator / common.denominator
    here, there = (_residues(f, period) for f in (first, second))
    return len(here) == len(there) and all(any(_near(a - b, period) for b in there) for a in here)


def _residues(progressions: Family, period: Any) -> list[Any]:
    mp = numeric.context()
    found: list[Any] = []
    for offset, step in progressions.progressions:
        for k in range(int(mp.nint(period / step))):
            value = offset + k * step
            if not any(_near(value - other, period) for other in found):
                found.append(value)
    return found


def _near(difference: Any, period: Any) -> bool:
    mp = numeric.context()
    turns = difference / period
    return bool(mp.fabs(turns - mp.nint(turns)) < mp.mpf(10) ** -30)


def _ratio(step: Any, unit: Any) -> Fraction | None:
    mp = numeric.context()
    quotient = step / unit
    if not mp.mpf(10) ** -4 < quotient < 10**4:
        return None
    near = Fraction(int(mp.nint(quotient * 5040)), 5040)
    return near if mp.fabs(quotient - mp.mpf(near.numerator) / near.denominator) < mp.mpf(10) ** -30 else None


def family(node: Expr) -> Family | None:
    """Return the progressions that an answer lists; None when an item is no progression."""
    named: set[str] = set()
    items = _flat(node, named)
    if sum(1 for item in items for _ in walk(item)) > MAX_NODES:
        return None
    progressions = []
    for item in items:
        names = symbols(item)
        if len(names) != 1 or not names <= (named or INTEGER_NAMES) or len(items) > 16:
            return None
        (name,) = names
        at = [numeric.constant(_at(item, name, value)) for value in (0, 1, 2, 3)]
        if any(value is None or numeric.context().im(value) for value in at):
            return None
        step = at[1] - at[0]
        if not step or any(abs(b - a - step) > abs(step) * 1e-30 for a, b in ((at[1], at[2]), (at[2], at[3]))):
            return None
        progressions.append((at[0], abs(step)))
    return Family(tuple(progressions), bool(named)) if progressions else None


def _flat(node: Expr, named: set[str]) -> list[Expr]:
    if node.op in ("list", "set"):
        return [item for part in node.args for item in _flat(part, named)]
    if node.op == "builder":
        return [item for part in (node.args[0], *node.args[1]) for item in _flat(part, named)]
    if node.op == "rel" and node.args[0] == ("in",) and node.args[1][1] == Expr("domain", ("Z",)):
        named |= symbols(node.args[1][0])
        return []
    if node.op == "rel" and node.args[0] == ("=",) and node.args[1][0].op == "sym":
        return _flat(node.args[1][1], named)
    return both_signs(node) if has(node, "pm") else [node]


def _at(node: Expr, name: str, value: int) -> Expr:
    return rebuild(node, lambda n: num(value) if n == Expr("sym", (name,)) else None)


def same_up_to_constants(gold: Expr, answer: Expr) -> bool:
    """Return True for antiderivatives that differ by a constant, and for solutions that span the same space."""
    constants = symbols(gold) & ARBITRARY, symbols(answer) & (ARBITRARY | ALSO_ARBITRARY)
    others = symbols(gold) - constants[0]
    count = len(constants[0])
    if not others or others != symbols(answer) - constants[1] or not 0 < count == len(constants[1]) <= 3:
        return False
    if count > 1 and not all("_" in name for name in constants[0]):
        return False
    samples = [
        _linear(side, sorted(names), sorted(others)) for side, names in zip((gold, answer), constants, strict=True)
    ]
    if samples[0] is None or samples[1] is None:
        return False
    pairs = [(g, a) for g, a in zip(*samples, strict=True) if g and a]
    if len(pairs) < 2 * count + 2:
        return False
    if count == 1 and not all(_level([pair[side][1] for pair in pairs]) for side in (0, 1)):
        return False
    together = [[*g[1:], *a[1:], g[0] - a[0]] for g, a in pairs]
    return count == _rank(together) == _rank([g[1:] for g, _ in pairs]) == _rank([a[1:] for _, a in pairs])


def _linear(node: Expr, constants: list[str], others: list[str]) -> list[list[Any]] | None:
    """Return, for several points, the value with all constants 0 and each coefficient; None if not linear."""
    mp = numeric.context()
    rows: list[list[Any]] = []
    for k in range(10):
        point = {n: mp.mpf(v.numerator) / v.denominator for n in others for v in [numeric._point(n, k)]}

        def at(*values: int, point: dict[str, Any] = point) -> Any:
            return numeric.Evaluator({**point, **dict(zip(constants, values, strict=True))})(node)

        units = [tuple(int(i == j) for j in range(len(constants))) for i in range(len(constants))]
        try:
            base = at(*(0 for _ in constants))
            slopes = [at(*unit) - base for unit in units]
            far = at(*(7 + 4 * i for i in range(len(constants))))
        except numeric.Undefined:
            rows.append([])
            continue
        except (numeric.Unsupported, RecursionError):
            return None
        straight = base + sum((7 + 4 * i) * slope for i, slope in enumerate(slopes))
        if mp.fabs(far - straight) > mp.mpf(10) ** -35 * (1 + mp.fabs(far)):
            return None
        rows.append([base, *slopes])
    return rows


def _level(values: list[Any]) -> bool:
    return all(abs(value - values[0]) <= abs(values[0]) * 1e-30 for value in values)


def _rank(rows: list[list[Any]]) -> int:
    """Return the rank, by elimination; what rounding leaves counts as zero."""
    mp = numeric.context()
    rows = [list(row) for row in rows]
    rank = 0
    for column in range(len(rows[0]) if rows else 0):
        pivot = max(range(rank, len(rows)), key=lambda i: mp.fabs(rows[i][column]), default=None)
        if pivot is None or mp.fabs(rows[pivot][column]) < mp.mpf(10) ** -30:
            continue
        rows[rank], rows[pivot] = rows[pivot], rows[rank]
        for i in range(rank + 1, len(rows)):
            factor = rows[i][column] / rows[rank][column]
            rows[i] = [a - factor * b for a, b in zip(rows[i], rows[rank], strict=True)]
        rank += 1
    return rank
