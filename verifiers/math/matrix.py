"""Arithmetic of small matrices, cell by cell, as far as answers need it."""

from __future__ import annotations

from . import numeric
from .tree import Expr, has, num, rebuild, walk

Rows = tuple[tuple[Expr, ...], ...]


def rows_of(node: Expr, column: bool = False) -> Rows | None:
    """Return the matrix that an expression of small matrices is; None when it is none. `column`: a tuple may be one."""
    if node.op == "matrix":
        rows: Rows = node.args[0]
        return rows
    if node.op == "tuple" and column and not any(a.op == "tuple" for a in node.args[2:]):
        return tuple((cell,) for cell in node.args[2:]) or None
    if node.op == "tuple" and len(node.args) > 2 and node.args[0] == "[":
        lines = [a.args[2:] for a in node.args[2:] if a.op == "tuple" and a.args[0] == "["]
        if len(lines) == len(node.args) - 2 and len({len(line) for line in lines}) == 1:
            return tuple(lines)
        return None
    if column and node.op == "fun" and node.args[0] == "binom":
        return tuple((cell,) for cell in node.args[1:])
    if node.op == "neg":
        inner = rows_of(node.args[0], True)
        return inner and tuple(tuple(Expr("neg", (c,)) for c in row) for row in inner)
    if node.op == "add":
        parts = [rows_of(a, True) for a in node.args]
        if any(p is None or len(p) != len(parts[0] or ()) or len(p[0]) != len((parts[0] or ((),))[0]) for p in parts):
            return None
        return tuple(
            tuple(Expr("add", tuple(p[i][j] for p in parts if p)) for j in range(len((parts[0] or ((),))[0])))
            for i in range(len(parts[0] or ()))
        )
    if node.op in ("mul", "div"):
        factors = node.args if node.op == "mul" else (node.args[0],)
        result: Rows | None = None
        scalars: list[Expr] = [] if node.op == "mul" else [Expr("div", (num(1), node.args[1]))]
        for factor in factors:
            rows_here = rows_of(factor, True)
            if rows_here is None:
                scalars.append(factor)
            elif result is None:
                result = rows_here
            else:
                if len(result[0]) != len(rows_here) or len(result) * len(rows_here) * len(rows_here[0]) > 1000:
                    return None
                right = rows_here
                result = tuple(
                    tuple(
                        Expr("add", tuple(Expr("mul", (row[k], right[k][j])) for k in range(len(right))))
                        for j in range(len(right[0]))
                    )
                    for row in result
                )
        if result is None or any(has(s, "matrix", "tuple") for s in scalars):
            return None
        return tuple(tuple(Expr("mul", (*scalars, c)) for c in row) for row in result) if scalars else result
    return None


_UNIT_VECTORS = ("i", "j", "k")
_ACCENTS = ("", "~hat", "~vec", "~bar", "~overrightarrow", "~widehat")


def components(node: Expr, dimension: int) -> tuple[Expr, ...] | None:
    """Return the components of `2i - 3j`, with or without hats; None for no sum of multiples of unit vectors."""
    if dimension not in (2, 3):
        return None
    names = {name + accent: name for name in _UNIT_VECTORS[:dimension] for accent in _ACCENTS}

    def with_units(values: tuple[int, ...]) -> Expr:
        sizes = dict(zip(_UNIT_VECTORS, values, strict=False))

        def change(n: Expr) -> Expr | None:
            if n.op == "sym" and n.args[0] in names:
                return num(sizes[names[n.args[0]]])
            return num(sizes["i"]) if n == Expr("const", ("i",)) else None

        return rebuild(node, change)

    if not any((n.op == "sym" and n.args[0] in names) or n == Expr("const", ("i",)) for n in walk(node)):
        return None
    units = [tuple(int(i == j) for j in range(dimension)) for i in range(dimension)]
    found = tuple(with_units(unit) for unit in units)
    straight = Expr("add", tuple(Expr("mul", (num(2 + 3 * i), part)) for i, part in enumerate(found)))
    if numeric.equal(with_units((0,) * dimension), num(0)) is not True:
        return None
    return found if numeric.equal(with_units(tuple(2 + 3 * i for i in range(dimension))), straight) else None
