"""Asks sympy whether two expressions are equal: the last stage, reached only where evaluation cannot tell.

Expressions are built node by node from this package's own tree; no text is ever evaluated. What could grow is refused
before sympy is imported: large numbers, exponents, factorials, and trees of many nodes. Time is bounded by the worker
process that scores, which is killed when a verdict takes too long.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from . import numeric
from .options import Assume
from .tree import Expr, children, symbols, walk

MAX_NODES = 80
"""Nodes of both expressions together."""
MAX_NUMBER = 10**9
MAX_DEGREE = 60
MAX_FACTORIAL = 30

_FUNCTIONS = {
    "sin": "sin", "cos": "cos", "tan": "tan", "cot": "cot", "sec": "sec", "csc": "csc", "sinh": "sinh", "cosh": "cosh",
    "tanh": "tanh", "asin": "asin", "acos": "acos", "atan": "atan", "acot": "acot", "asinh": "asinh", "acosh": "acosh",
    "atanh": "atanh", "exp": "exp", "ln": "log", "sqrt": "sqrt", "abs": "Abs", "floor": "floor", "ceil": "ceiling",
    "re": "re", "im": "im", "arg": "arg", "conj": "conjugate", "sgn": "sign", "gcd": "gcd", "lcm": "lcm", "mod": "Mod",
    "max": "Max", "min": "Min", "binom": "binomial", "erf": "erf", "gamma_function": "gamma", "lambertw": "LambertW",
}  # fmt: skip
_KNOWN = frozenset({"num", "sym", "const", "add", "mul", "div", "pow", "neg", "fun", "fact", "big", "pct"})


class _Refused(Exception):  # noqa: N818 (a finding, not a fault)
    """The expression is not handed to sympy."""


def equal(a: Expr, b: Expr, assume: Assume) -> bool | None:
    """Return whether sympy simplifies the difference to zero; None when it cannot tell or is not asked.

    `assume` says what a symbol stands for: a positive number, a real number, or a complex one.
    """
    if not _is_small(a, b):
        return None
    import sympy

    names = {name: _symbol(sympy, name, assume) for name in symbols(a) | symbols(b)}
    try:
        difference = _built(sympy, a, names) - _built(sympy, b, names)
        for step in (sympy.expand, sympy.radsimp, sympy.simplify):
            difference = step(difference)
            if difference == 0:
                return True
        return False if difference.is_nonzero else None
    except (_Refused, ArithmeticError, TypeError, ValueError, AttributeError, NotImplementedError, RecursionError):
        return None  # sympy has no answer for it, and says so in as many ways


def _is_small(*trees: Expr) -> bool:
    """Return True if nothing in the trees can grow when sympy evaluates it."""
    nodes = [node for tree in trees for node in walk(tree)]
    if len(nodes) > MAX_NODES or not all(node.op in _KNOWN for node in nodes):
        return False
    for node in nodes:
        if node.op == "num" and max(abs(node.args[0].numerator), node.args[0].denominator) > MAX_NUMBER:
            return False
        if node.op == "fact" and not (symbols(node) or _is_literal(node.args[0], MAX_FACTORIAL)):
            return False
        if node.op != "fun":
            continue
        name, *arguments = node.args
        if name not in _FUNCTIONS and name not in ("log", "root", "cbrt"):
            return False
        if name in _ON_INTEGERS and not symbols(node) and not all(_is_literal(a, MAX_FACTORIAL) for a in arguments):
            return False
    return all(_degree(tree) <= MAX_DEGREE for tree in trees)


_ON_INTEGERS = frozenset({"binom", "gamma_function", "gcd", "lcm", "mod"})


def _is_literal(node: Expr, limit: int) -> bool:
    return node.op == "num" and abs(node.args[0]) <= limit


def _degree(node: Expr) -> float:
    """Return a bound of the degree, where each number counts like a symbol: `(10^{30})^{30}` has degree 900."""
    if node.op in ("num", "sym", "const"):
        return 1
    parts = [_degree(child) for child in children(node)]
    if node.op == "pow":
        exponent = node.args[1]
        exact = numeric.rational(exponent)
        if exact is not None:
            return parts[0] * max(float(abs(exact)), 1)
        return parts[0] + parts[1] if symbols(exponent) else MAX_DEGREE + 1
    return sum(parts) if node.op in ("mul", "div") else max(parts, default=1)


def _symbol(sympy: Any, name: str, assume: Assume) -> Any:
    if assume == "complex":
        return sympy.Symbol(name)
    return sympy.Symbol(name, positive=True) if assume == "positive" else sympy.Symbol(name, real=True)


def _built(sympy: Any, node: Expr, names: dict[str, Any]) -> Any:
    """Return the sympy expression of a tree."""
    op, args = node
    if op == "num":
        value: Fraction = args[0]
        return sympy.Rational(value.numerator, value.denominator)
    if op == "sym":
        return names[args[0]]
    if op == "const":
        if args[0] == "inf":
            raise _Refused
        return {"pi": sympy.pi, "e": sympy.E, "i": sympy.I}[args[0]]
    if op == "big":
        return _big(sympy, node, names)
    if op == "fun":
        return _function(sympy, args[0], [_built(sympy, a, names) for a in args[1:]])
    parts = [_built(sympy, a, names) for a in args if isinstance(a, Expr)]
    if op == "div" and parts[1] == 0:
        raise _Refused
    return {
        "add": lambda: sympy.Add(*parts), "mul": lambda: sympy.Mul(*parts), "neg": lambda: -parts[0],
        "div": lambda: parts[0] / parts[1], "pow": lambda: sympy.Pow(*parts), "pct": lambda: parts[0] / 100,
        "fact": lambda: sympy.factorial(parts[0]),
    }[op]()  # fmt: skip


def _function(sympy: Any, name: str, values: list[Any]) -> Any:
    if name == "log":
        return sympy.log(*values)
    if name in ("root", "cbrt"):
        return sympy.root(values[0], values[1] if name == "root" else 3)
    return getattr(sympy, _FUNCTIONS[name])(*values)


def _big(sympy: Any, node: Expr, names: dict[str, Any]) -> Any:
    """Return the value of a sum or product over integers, to infinity too."""
    kind, variable, low, high, body = node.args
    index = sympy.Symbol(variable, integer=True)
    ends = [sympy.oo if end == Expr("const", ("inf",)) else _built(sympy, end, names) for end in (low, high)]
    if not ends[1].is_infinite and ends[1].is_number:
        raise _Refused  # a finite one is evaluated term by term
    inner = _built(sympy, body, {**names, variable: index})
    total = (sympy.summation if kind == "sum" else sympy.product)(inner, (index, *ends))
    if total.has(sympy.Sum, sympy.Product):
        raise _Refused
    return total
