"""Compares two values: exactly, after renaming arbitrary constants, or to the precision that a decimal states."""

from __future__ import annotations

from fractions import Fraction
from math import gcd
from typing import Any

from . import algebra, numeric
from .families import ALSO_ARBITRARY, ARBITRARY, INTEGER_NAMES, same_up_to_constants
from .options import Options
from .tree import Expr, children, has, num, rebuild, rename, symbols, walk


def same_values(gold: Expr, answer: Expr, options: Options) -> bool:
    """Return whether two expressions are equal, exactly or to the precision that a decimal in them was written with."""
    if gold == answer:
        return True
    if not options.unreduced and _reducible(answer) and not _reducible(gold):
        return False
    if not options.unevaluated and _restates(answer, gold):
        return False
    infinite = (_is_infinite(gold), _is_infinite(answer))
    if any(infinite):
        return infinite[0] == infinite[1]
    equal = numeric.equal(gold, answer, assume=options.assume)
    if equal is None:
        equal = algebra.equal(gold, answer, options.assume)
    if equal:
        return True
    if _imaginary_written(gold, answer):
        return True
    if symbols(gold) or symbols(answer):
        if equal is False and (_same_renamed(gold, answer) or same_up_to_constants(gold, answer)):
            return True
        return _same_with_rounded(gold, answer, options)
    if _same_rounded(gold, answer, options):
        return True
    if any(n.op == "fun" and n.args[0] == "log" and len(n.args) == 2 for side in (gold, answer) for n in walk(side)):
        return False
    return False


def _imaginary_written(gold: Expr, answer: Expr) -> bool:
    """Return True if equal when j, or I, is the imaginary unit that the other side writes i."""
    for letter in ("j", "I"):
        for first, second in ((gold, answer), (answer, gold)):
            if letter in symbols(first) and letter not in symbols(second) and Expr("const", ("i",)) in walk(second):
                changed = rebuild(first, lambda n, s=letter: Expr("const", ("i",)) if n == Expr("sym", (s,)) else None)  # type: ignore[misc]
                if numeric.equal(changed, second):
                    return True
    return False


def _is_infinite(node: Expr) -> int:
    if node == Expr("const", ("inf",)):
        return 1
    if node == Expr("neg", (Expr("const", ("inf",)),)):
        return -1
    return 0


def _is_reduced(node: Expr) -> bool:
    """Return True for a residue beside its modulus, `7 mod 10`, where nothing is left to be carried out."""
    return node.args[0] == "mod" and len(node.args) == 3 and numeric.rational(node) == numeric.rational(node.args[1])


_ON_INTEGERS = frozenset({"gcd", "lcm", "mod", "max", "min", "floor", "ceil", "round", "det"})
_OF_REALS = frozenset(
    {"sin", "cos", "tan", "cot", "sec", "csc", "asin", "acos", "atan", "log", "ln", "log2", "log10", "lg", "exp"}
)
MAX_FUNCTION_VALUES = 1
"""Values of functions that an answer may hold where the gold is a plain number: `\\log_2 8` for 3."""


def _restates(node: Expr, gold: Expr) -> bool:
    """Return True if the answer only restates the calculation whose value is the gold."""
    functions = [n.args[0] for n in walk(node) if n.op in ("fun", "big") and not _is_reduced(n)]
    if not functions:
        return False
    if has(node, "big"):
        return not has(gold, "big")
    if symbols(node) or any(n.op in ("fun", "modulo") for n in walk(gold)):
        return False
    plain = gold.op == "num" or (gold.op in ("neg", "div") and numeric.rational(gold) is not None)
    values = sum(name in _OF_REALS for name in functions)
    return any(name in _ON_INTEGERS for name in functions) or (plain and values > MAX_FUNCTION_VALUES)


def _reducible(node: Expr) -> bool:
    for here in walk(node):
        if here.op == "div" and all(a.op == "num" and a.args[0].denominator == 1 for a in here.args):
            above, below = (int(a.args[0]) for a in here.args)
            if gcd(above, below) != 1 or below in (1, -1):
                return True
    return False


def _same_renamed(gold: Expr, answer: Expr) -> bool:
    """Return True if equal when arbitrary constants (C for c) or a family's integer (k for n) change names."""
    gold_only = sorted(symbols(gold) - symbols(answer))
    answer_only = sorted(symbols(answer) - symbols(gold))
    if not gold_only or len(gold_only) != len(answer_only) or len(gold_only) > 2:
        return False
    if gold.op == "call" and gold.args[0] in ("angle", "triangle"):
        return False  # the angle ABC is not the angle ABD
    letters = gold.op == "mul" and all(factor.op == "sym" for factor in gold.args)  # ABC is no ABD
    constants = (
        not letters
        and bool(symbols(gold) & symbols(answer))
        and any(
            set(one) <= ARBITRARY and set(other) <= ARBITRARY | ALSO_ARBITRARY
            for one, other in ((gold_only, answer_only), (answer_only, gold_only))
        )
    )
    family = len(gold_only) == 1 and all(n in INTEGER_NAMES for n in (*gold_only, *answer_only)) and has(gold, "const")
    if not constants and not family:
        return False
    orders = [answer_only, answer_only[::-1]] if len(answer_only) == 2 else [answer_only]
    return any(numeric.equal(gold, rename(answer, dict(zip(order, gold_only, strict=True)))) for order in orders)


# --- rounded numbers ------------------------------------------------------------------------------------------------


def _literal(node: Expr) -> tuple[Fraction, Fraction, int] | None:
    """Return value, unit in the last place and count of significant digits of a decimal literal; None for any other."""
    if node.op == "num" and node.args[1] is not None:
        value, decimals = node.args
        ulp = Fraction(10) ** -decimals
        return value, ulp, len(str(abs(int(value / ulp)))) if value else 0
    if node.op == "neg":
        inner = _literal(node.args[0])
        return inner and (-inner[0], inner[1], inner[2])
    if node.op == "mul" and len(node.args) == 2 and node.args[1].op == "pow":
        power = numeric.rational(node.args[1])
        inner = _literal(node.args[0])
        if inner and power and node.args[1].args[0] == num(10):
            return inner[0] * power, inner[1] * power, inner[2]
    return None


def _same_rounded(gold: Expr, answer: Expr, options: Options) -> bool:
    gold_literal, literal = _literal(gold), _literal(answer)
    if gold_literal is None and literal is None:
        return _same_with_rounded(gold, answer, options)
    gold_value = gold_literal[0] if gold_literal else numeric.rational(gold)
    value = literal[0] if literal else numeric.rational(answer)
    mp = numeric.context()
    if gold_value is None or value is None:
        first, second = numeric.real_constant(gold), numeric.real_constant(answer)
        if first is None or second is None or mp.im(first) or mp.im(second):
            return False
        if max(mp.fabs(first), mp.fabs(second)) > mp.mpf(10) ** 300:
            return False
        gold_value = gold_value if gold_value is not None else _fraction(first)
        value = value if value is not None else _fraction(second)
    difference = abs(gold_value - value)
    size = abs(gold_value)
    if gold_value == 0 or value == 0 or (gold_value < 0) != (value < 0):
        return False
    if gold_literal is not None and options.gold_precision:
        _, ulp, digits = gold_literal
        finer = literal is None or literal[1] < ulp
        if finer and difference * 2 <= ulp:
            if digits >= 3 and not (literal and _looks_exact(gold_literal) and difference * 10**6 > size):
                return True
            irrational = literal is None and numeric.rational(answer) is None
            computed = literal is not None and literal[2] >= digits + 4
            exact = irrational or ((_repeats(value) or computed) and ulp <= Fraction(1, 100))
            if digits == 2 and exact and int(abs(gold_value) / ulp) % 5:
                return True
        if literal is not None and literal[1] > ulp and literal[2] >= 4 and difference * 2 <= literal[1]:
            return difference <= Fraction(options.float_rtol) * size
    if gold_literal is None and literal is not None:
        _, ulp, digits = literal
        if gold_value.denominator == 1 and numeric.rational(gold) is not None:
            artifact = value.denominator != 1 and difference <= Fraction(
                1, 10**6
            )  # 42.0000001 of a float's computation
            return artifact and difference <= size * Fraction(1, 10**8)
        if digits >= 4 and difference < ulp:
            return difference <= Fraction(options.float_rtol) * size
    return False


def _looks_exact(literal: tuple[Fraction, Fraction, int]) -> bool:
    """Return True for 12.5 and 0.375, which are rather 25/2 and 3/8 than rounded."""
    value, ulp, _ = literal
    return abs(int(value / ulp)) % 5 == 0 and value.denominator <= 8


def _fraction(value: Any) -> Fraction:
    sign, mantissa, exponent, _ = numeric.context().re(value)._mpf_
    magnitude = Fraction(int(mantissa)) * Fraction(2) ** int(exponent)
    return -magnitude if sign else magnitude


def _repeats(value: Fraction) -> bool:
    """Return whether a rational has no finite decimal."""
    below = value.denominator
    for prime in (2, 5):
        while below % prime == 0:
            below //= prime
    return below != 1


def _same_with_rounded(gold: Expr, answer: Expr, options: Options) -> bool:
    """Return True if formulas that hold decimals are equal to six digits at every point."""
    if not any(
        n.op == "num" and n.args[1] is not None and n.args[1] >= 3 for side in (gold, answer) for n in walk(side)
    ):
        return False
    mp = numeric.context()
    names = sorted(symbols(gold) | symbols(answer))
    agreed = 0
    for k in range(4):
        points = {name: numeric._point(name, k) for name in names}
        env = {name: mp.mpf(p.numerator) / p.denominator for name, p in points.items()}
        try:
            first, second = numeric.Evaluator(env)(gold), numeric.Evaluator(env)(answer)
        except numeric.Unsupported:
            return False
        except numeric.Undefined:
            continue
        if mp.fabs(first - second) > mp.mpf(10) ** -6 * max(mp.fabs(first), mp.fabs(second)):
            return False
        agreed += 1
    return agreed >= 2 and bool(children(gold))
