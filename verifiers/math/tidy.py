"""Reduction of a parsed answer to its statement: chains of equalities, plus-minus, conditions; and its label."""

from __future__ import annotations

from . import numeric
from .tree import Expr, has, rebuild, symbols, walk

MAX_PM = 4
"""Plus-minus signs in an answer that are written out."""

_FLIPPED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}


def tidy(node: Expr) -> Expr:
    """Return the node with chains reduced to what they state, plus-minus written out, `k in Z` dropped."""
    if node.op == "list":
        items: list[Expr] = []
        for item in _with_relation(node.args):
            if _is_condition(item, node) or (_is_signature(item) and len(node.args) > 1):
                continue
            found = tidy(item)
            if found.op == "list" and item.op != "list" and not _is_label_list(found):
                items.extend(found.args)
            else:
                items.append(found)
        return items[0] if len(items) == 1 else Expr("list", tuple(items))
    if node.op == "rel":
        return _tidy_relation(node)
    if node.op == "builder" and node.args[0].op not in ("sym", "rel", "tuple"):
        names = all(c.op == "rel" and c.args[0] == ("in",) and c.args[1][1].op == "domain" for c in node.args[1])
        return tidy(node.args[0]) if names else node  # {2k | k in Z}, as 2k
    if has(node, "pm"):
        if node.op in ("set", "list"):
            return Expr(node.op, tuple(x for item in node.args for x in both_signs(item)))
        variants = both_signs(node)
        return variants[0] if len(variants) == 1 else Expr("list", tuple(variants))
    if node.op == "tuple" and len(node.args) == 3:
        return tidy(node.args[2])
    return node


def multiplied(first: Expr, second: Expr) -> tuple[Expr, Expr]:
    """Return the two with `p(1-p)` as a product, where p is a variable of theirs and they define no function p."""
    names = {n.args[0] for side in (first, second) for n in walk(side) if n.op == "sym"}
    called = {n.args[0] for side in (first, second) for n in walk(side) if n.op == "call" and len(n.args) == 2}
    defined = {
        n.args[1][0].args[0]
        for side in (first, second)
        for n in walk(side)
        if n.op == "rel" and n.args[1][0].op == "call"
    }
    products = {name for name in (names & called) - defined if len(name) == 1}
    if not products:
        return first, second

    def change(node: Expr) -> Expr | None:
        if node.op == "call" and node.args[0] in products and len(node.args) == 2:
            return Expr("mul", (Expr("sym", (node.args[0],)), rebuild(node.args[1], change)))
        return None

    return rebuild(first, change), rebuild(second, change)


def _holds(first: Expr, last: Expr) -> bool:
    """Return True if a computation is correct up to rounding, or cannot be evaluated."""
    left, right = numeric.constant(first), numeric.constant(last)
    if left is None or right is None:
        return True
    return bool(abs(left - right) * 100 <= abs(left))


def _is_label_list(node: Expr) -> bool:
    return all(item.op == "rel" for item in node.args)


def _is_condition(item: Expr, among: Expr) -> bool:
    """Return True for `k \\in \\mathbb{Z}` beside other items."""
    if item.op != "rel" or item.args[1][0].op != "sym" or len(among.args) < 2:
        return False
    operators, operands = item.args
    return bool(operators == ("in",) and operands[1].op == "domain")


def _is_signature(item: Expr) -> bool:
    """Return True for `f: R \\to R`, which says between which sets a function maps."""
    return item.op == "rel" and item.args[0] == ("to",) and item.args[1][0].op == "ratio"


def _with_relation(items: tuple[Expr, ...]) -> tuple[Expr, ...]:
    """Return `x != -2, 3` as `x != -2, x != 3`."""
    first = items[0]
    if first.op != "rel" or first.args[0] != ("!=",) or first.args[1][0].op != "sym" or len(items) < 2:
        return items
    if any(has(item, "rel") or symbols(item) for item in items[1:]):
        return items
    return (first, *(Expr("rel", (("!=",), (first.args[1][0], item))) for item in items[1:]))


def both_signs(node: Expr) -> list[Expr]:
    """Return an answer with plus-minus signs as the two that it stands for, the upper signs first."""
    count = sum(1 for n in walk(node) if n.op == "pm")
    if not count:
        return [node]
    if count > MAX_PM:
        return [node]
    return [_with_sign(node, sign) for sign in (1, -1)]


def _with_sign(node: Expr, sign: int) -> Expr:
    """Return the node with each plus-minus read as that sign, each minus-plus as the other."""

    def change(n: Expr) -> Expr | None:
        if n.op != "pm":
            return None
        inner = _with_sign(n.args[0], sign)
        return inner if sign * n.args[1] > 0 else Expr("neg", (inner,))

    return rebuild(node, change)


def _tidy_relation(node: Expr) -> Expr:
    operators, operands = node.args
    if "~" in operators:
        at = operators.index("~")
        if at == 0 and _is_label(operands[0]):
            operators = ("=", *operators[1:])
        else:
            operators, operands = operators[:at], operands[: at + 1]
        if "~" in operators:
            at = operators.index("~")
            operators, operands = operators[:at], operands[: at + 1]
        if not operators:
            return tidy(operands[0])
    if operators == ("==",) and not any(side.op == "modulo" for side in operands):
        operators = ("=",)  # identically equal
    if all(op == "=" for op in operators):
        first: Expr = operands[0]
        last: Expr = operands[-1]
        if len(operands) == 2 and not _is_label(first) and _is_label(last):
            first, last = last, first
        if _is_label(first):
            if last.op == "list":
                return last
            if has(last, "pm"):
                return Expr("list", tuple(Expr("rel", (("=",), (first, v))) for v in both_signs(last)))
            return Expr("rel", (("=",), (first, last)))
        if not symbols(first) and not has(first, "call") and not symbols(last):
            if first == last:
                return node  # 1 = 1 states no value
            return tidy(last) if _holds(first, last) else node  # a computation: 3 + 5 = 8
        if len(operands) > 2:
            return Expr("rel", (("=",), (operands[0], last)))
        return Expr("rel", (operators, operands))
    if operators == ("in",) and (operands[0].op in ("sym", "call", "tuple")):
        inside = operands[1]
        if inside.op == "tuple" and len(inside.args) == 4:
            return Expr("rel", (operators, (operands[0], Expr("interval", inside.args))))
        if inside.op == "set":
            return tidy(inside)
    if all(op in (">", ">=") for op in operators):
        return Expr("rel", (tuple(_FLIPPED[op] for op in reversed(operators)), tuple(reversed(operands))))
    return Expr("rel", (operators, operands))


def _is_label(node: Expr) -> bool:
    """Return True for what names a value left of `=`: x, f(x), AB, |AB|, AB/CD, a:b, (x, y), sin A, a sum."""
    if node.op in ("sym", "call", "big", "opaque"):
        return True
    if node.op == "matrix":
        return all(cell.op == "sym" for row in node.args[0] for cell in row)
    if node.op == "mul":
        return all(f.op == "sym" and (f.args[0][0].isupper() or "_" in f.args[0]) for f in node.args)
    if node.op == "fun":
        return node.args[0] in (
            "abs",
            "sin",
            "cos",
            "tan",
            "cot",
            "det",
            "re",
            "im",
            "arg",
            "max",
            "min",
            "gcd",
        ) and all(_is_label(a) for a in node.args[1:])
    if node.op in ("div", "ratio"):
        return all(_is_label(a) for a in node.args)
    if node.op == "tuple":
        return all(a.op == "sym" for a in node.args[2:]) and len(node.args) > 3
    if node.op == "pow":
        return node.args[0].op == "sym" and node.args[0].args[0] in ("sigma", "R", "chi")
    if node.op == "deg":
        return _is_label(node.args[0])
    return False


def labeled(node: Expr) -> bool:
    return (
        node.op == "rel"
        and node.args[0] == ("=",)
        and _is_label(node.args[1][0])
        and not (symbols(node.args[1][0]) and symbols(node.args[1][0]) <= symbols(node.args[1][1])
                 and node.args[1][0].op == "sym")
    )  # fmt: skip


def label_of(node: Expr) -> Expr:
    """Return what a labeled value is called, with the names of a function's variables left out."""
    label: Expr = node.args[1][0]
    if label.op != "call":
        return label
    name, *arguments = label.args
    if name == "angle":
        return Expr("call", (name, *min(arguments, arguments[::-1], key=repr)))
    if name == "triangle":
        return Expr("call", (name, *sorted(arguments, key=repr)))
    if name.endswith("_") or name in _OF_EVENTS:
        return Expr("call", (name, *(_unordered(argument) for argument in arguments)))
    return Expr("call", (name, *(a if a.op == "num" else Expr("sym", ("·",)) for a in arguments)))


_OF_EVENTS = frozenset({"P", "E", "Var", "Cov", "p"})
"""Functions whose argument is part of the name: the probability of A is not that of B."""


def _unordered(argument: Expr) -> Expr:
    """Return a product of points, as in the area `S_{ABC}`, in alphabetical order, and an index without its name."""
    if argument.op == "sym" and argument.args[0].islower():
        return Expr("sym", ("·",))
    return Expr("mul", tuple(sorted(argument.args, key=repr))) if argument.op == "mul" else argument


def content_of(node: Expr) -> Expr:
    return tidy(node.args[1][1]) if labeled(node) else node
