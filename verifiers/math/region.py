"""Sets of real numbers: intervals, unions, inequalities and set-builders, compared by which points they contain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any

from .numeric import Evaluator, Undefined, Unsupported, constant, context
from .tree import Expr, num, rebuild, symbols

MAX_PARTS = 600
MAX_TESTS = 60_000
"""Points times parts that are looked at in one comparison."""
MAX_ROOTS = 16

_ALL_REALS = frozenset({"R"})
_POSITIVE = frozenset({"R+", "R>"})


@dataclass(frozen=True)
class Region:
    """A set of reals: a membership test, its borders, and the name of its variable when it has one."""

    contains: Callable[[Any], bool]
    borders: tuple[Any, ...]
    variable: str | None = None


def region(node: Expr) -> Region | None:
    """Return the set of reals that the node describes; None when it describes none, or depends on parameters."""
    try:
        return _region(node)
    except (Unsupported, Undefined, RecursionError):
        return None


def same_region(a: Region, b: Region) -> bool:
    """Return whether two regions contain the same of the points at, next to and between all borders, and of a grid."""
    if a.variable and b.variable and a.variable != b.variable:
        return False
    mp = context()
    borders = sorted({mp.nstr(x, 40): x for x in (*a.borders, *b.borders)}.values())
    if len(borders) * 5 * (len(a.borders) + len(b.borders)) > MAX_TESTS:
        return False
    points = list(borders)
    for low, high in pairwise(borders):
        points += [low + (high - low) / 3, low + (high - low) * mp.mpf("0.61803")]
    for border in borders:
        near = mp.mpf(10) ** -9 * max(1, abs(border))
        points += [border - near, border + near]
    low, high = (borders[0], borders[-1]) if borders else (mp.mpf(0), mp.mpf(0))
    points += [low - mp.mpf("0.37"), high + mp.mpf("0.37"), low - 11, high + 11, low * 3 - 1001, high * 3 + 1001]
    points += [mp.mpf(Fraction(n * n * n, 17).numerator) / 17 + n * mp.mpf("0.1234567") for n in range(-9, 10)]
    return all(a.contains(x) == b.contains(x) for x in points)


def _close(x: Any, y: Any) -> bool:
    mp = context()
    return bool(abs(x - y) <= mp.mpf(10) ** -35 * (1 + abs(y)))


def _infinite(node: Expr) -> int:
    if node == Expr("const", ("inf",)):
        return 1
    if node == Expr("neg", (Expr("const", ("inf",)),)):
        return -1
    return 0


def _value(node: Expr) -> Any:
    value = constant(node)
    if value is None or context().im(value):
        raise Unsupported
    return context().re(value)


def interval(low: Expr, high: Expr, low_closed: bool, high_closed: bool, variable: str | None = None) -> Region:
    """Return the reals between two constants, which may be infinite. Raises Unsupported for any other end."""
    lower = None if _infinite(low) == -1 else _value(low)
    upper = None if _infinite(high) == 1 else _value(high)
    if lower is not None and upper is not None and (lower > upper or _infinite(low) or _infinite(high)):
        raise Undefined

    def contains(x: Any) -> bool:
        if lower is not None and ((_close(x, lower) and not low_closed) or (x < lower and not _close(x, lower))):
            return False
        return not (
            upper is not None and ((_close(x, upper) and not high_closed) or (x > upper and not _close(x, upper)))
        )

    return Region(contains, tuple(end for end in (lower, upper) if end is not None), variable)


def _region(node: Expr) -> Region:
    op, args = node
    if op in ("tuple", "interval") and len(args) == 4:
        opened, closed, low, high = args
        return interval(low, high, opened == "[", closed == "[")
    if op == "set":
        points = tuple(_value(item) for item in args)
        return Region(lambda x: any(_close(x, p) for p in points), points)
    if op == "domain":
        if args[0] in _ALL_REALS:
            return Region(lambda x: True, ())
        if args[0] in _POSITIVE:
            return Region(lambda x: bool(x > 0), (context().mpf(0),))
        raise Unsupported
    if op in ("cup", "cap", "minus"):
        if len(args) > MAX_PARTS:
            raise Unsupported
        return _combine(op, [_region(part) for part in args])
    if op == "rel":
        return _relation(node)
    if op == "builder":
        return _builder(node)
    if op == "list":
        return _alternatives([_region(part) for part in args])
    if op == "neg" or op == "qty":
        raise Unsupported
    raise Unsupported


def _combine(op: str, parts: list[Region]) -> Region:
    names = {p.variable for p in parts if p.variable}
    if len(names) > 1:
        raise Unsupported
    borders = tuple(x for part in parts for x in part.borders)
    variable = names.pop() if names else None
    if op == "cup":
        return Region(lambda x: any(p.contains(x) for p in parts), borders, variable)
    if op == "cap":
        return Region(lambda x: all(p.contains(x) for p in parts), borders, variable)
    return Region(lambda x: parts[0].contains(x) and not any(p.contains(x) for p in parts[1:]), borders, variable)


def _alternatives(parts: list[Region]) -> Region:
    """Return the union of `x < 1, x > 3`, but the intersection of `x > 1, x < 3`, whose union would be everything."""
    union = _combine("cup", parts)
    mp = context()
    spread = [mp.mpf(n) * 10**6 for n in (-1, 1)]
    points = [*union.borders, *spread]
    for low, high in pairwise(sorted(union.borders)):
        points.append((low + high) / 2)
    everything = all(union.contains(x) for x in points if x not in union.borders)
    return _combine("cap", parts) if everything else union


def _variable(node: Expr) -> tuple[Expr, str]:
    """Return the relation with its unknown as the symbol `?`, and the unknown's name."""
    _, operands = node.args
    for operand in operands:
        if operand.op == "call" and len(operand.args) == 2 and operand.args[1].op in ("sym", "num"):
            name = operand.args[0] + "()"
            return rebuild(node, lambda n, o=operand: Expr("sym", ("?",)) if n == o else None), name  # type: ignore[misc]
    names = symbols(node)
    if len(names) != 1:
        raise Unsupported
    (name,) = names
    return rebuild(node, lambda n: Expr("sym", ("?",)) if n == Expr("sym", (name,)) else None), name


_HOLDS: dict[str, Callable[[int], bool]] = {
    "<": lambda s: s < 0,
    "<=": lambda s: s <= 0,
    ">": lambda s: s > 0,
    ">=": lambda s: s >= 0,
    "=": lambda s: s == 0,
    "!=": lambda s: s != 0,
}


def _relation(node: Expr) -> Region:
    operators, operands = node.args
    if operators == ("in",) and operands[0].op in ("sym", "call"):
        inner = _region(operands[1])
        name = operands[0].args[0] + ("()" if operands[0].op == "call" else "")
        return Region(inner.contains, inner.borders, inner.variable or name)
    if operators == ("notin",):
        inner = _region(operands[1])
        return Region(lambda x: not inner.contains(x), inner.borders, operands[0].args[0])
    if not all(op in _HOLDS for op in operators):
        raise Unsupported
    anonymous, name = _variable(node)
    _, operands = anonymous.args
    if symbols(anonymous) != {"?"}:
        raise Unsupported
    borders: list[Any] = []
    tests: list[Callable[[Any], bool]] = []
    for operator, left, right in zip(operators, operands, operands[1:], strict=False):
        unknown = Expr("sym", ("?",))
        for side, other, flip in ((left, right, 1), (right, left, -1)):
            if side == unknown and not symbols(other):
                infinite = _infinite(other)
                if infinite:
                    tests.append(lambda x, o=operator, s=-infinite * flip: _HOLDS[o](s))  # type: ignore[misc]
                else:
                    end = _value(other)
                    borders.append(end)
                    tests.append(
                        lambda x, o=operator, e=end, f=flip: _HOLDS[o](0 if _close(x, e) else f * (1 if x > e else -1))  # type: ignore[misc]
                    )
                break
        else:
            sign = _sign_of(Expr("add", (left, Expr("neg", (right,)))))
            borders += _roots(sign)
            tests.append(lambda x, o=operator, s=sign: (found := s(x)) is not None and _HOLDS[o](found))  # type: ignore[misc]
    return Region(lambda x: all(test(x) for test in tests), tuple(borders), name)


def _sign_of(difference: Expr) -> Callable[[Any], int | None]:
    mp = context()

    def sign(x: Any) -> int | None:
        evaluator = Evaluator({"?": x})
        try:
            value = evaluator(difference)
        except Undefined:
            return None
        if mp.im(value):
            return None
        if mp.fabs(value) <= mp.mpf(10) ** -30 * max(evaluator.scale, mp.mpf(10) ** -20):
            return 0
        return 1 if value > 0 else -1

    return sign


def _roots(sign: Callable[[Any], int | None]) -> list[Any]:
    """Return where the sign changes on a grid, by bisection, and the zeros and poles that lie on the grid."""
    mp = context()
    halves = {Fraction(n, 2) for n in range(-40, 41)}
    grid = sorted(halves | {Fraction(s * 3**k, 2) for k in range(3, 9) for s in (-1, 1)})
    points = [mp.mpf(x.numerator) / x.denominator for x in grid]
    signs = [sign(x) for x in points]
    found: list[Any] = [x for x, here in zip(points, signs, strict=True) if here == 0]
    poles = {
        i for i in range(1, len(grid) - 1) if signs[i] is None and signs[i - 1] is not None and signs[i + 1] is not None
    }
    found += [points[i] for i in poles]
    for i, (before, after) in enumerate(pairwise(signs)):
        if before != after and 0 not in (before, after) and not {i, i + 1} & poles:
            found.append(_bisect(sign, points[i], before, points[i + 1]))
        if len(found) > MAX_ROOTS:
            raise Unsupported
    return found


def _bisect(sign: Callable[[Any], int | None], low: Any, low_sign: int | None, high: Any) -> Any:
    for _ in range(170):
        middle = (low + high) / 2
        here = sign(middle)
        if here == 0:
            return middle
        if here == low_sign:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _builder(node: Expr) -> Region:
    element, conditions = node.args
    parts: list[Region] = []
    if element.op == "rel" and element.args[0] == ("in",) and element.args[1][0].op == "sym":
        parts.append(_region(element.args[1][1]))
        element = element.args[1][0]
    if element.op != "sym":
        raise Unsupported
    for condition in conditions:
        if condition.op not in ("rel", "list"):
            raise Unsupported
        parts.append(_region(condition))
        if parts[-1].variable != element.args[0]:
            raise Unsupported
    combined = _combine("cap", parts)
    return Region(combined.contains, combined.borders, None)


MAX_INTEGERS = 1_000


def integers(node: Expr) -> Expr | None:
    """Return `{x in Z : 1 <= x <= 3}` as the set {1, 2, 3}; None for no bounded set of integers."""
    if node.op != "builder":
        return None
    element, conditions = node.args
    parts = [element, *conditions] if element.op == "rel" else list(conditions)
    domains = [p for p in parts if p.op == "rel" and p.args[0] == ("in",) and p.args[1][1].op == "domain"]
    lowest = {"Z": None, "Z+": 1, "N": 0}
    if len(domains) != 1 or domains[0].args[1][1].args[0] not in lowest:
        return None
    name = domains[0].args[1][0]
    try:
        where = _combine("cap", [_region(p) for p in parts if p is not domains[0]])
    except (Unsupported, Undefined, RecursionError):
        return None
    mp = context()
    ends = [int(mp.floor(x)) for x in where.borders if abs(x) < 10**9]
    least = lowest[domains[0].args[1][1].args[0]]
    if not ends or len(ends) != len(where.borders) or where.variable != (name.args[0] if name.op == "sym" else None):
        return None
    low, high = min(ends) - 1, max(ends) + 2
    if high - low > MAX_INTEGERS or where.contains(mp.mpf(high)) or (least is None and where.contains(mp.mpf(low))):
        return None
    first = low if least is None else max(least, 0)
    return Expr("set", tuple(num(n) for n in range(first, high) if where.contains(mp.mpf(n))))
