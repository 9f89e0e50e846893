"""Decides whether two expressions are equal by evaluating them, without rewriting either.

Rational functions are evaluated at random points of a finite field: exact arithmetic in bounded memory, so that
`3^{2025}` differs from `2^{2025}` and a cancellation is a cancellation; two polynomials of degree d that differ agree
at a random point with probability d / 2^255. What is no rational function is evaluated to 60 digits at real points,
and differs when the difference is larger than what rounding can explain. Nothing that could grow is evaluated: powers,
factorials and arguments are bounded first.
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

from .options import Assume
from .tree import Expr, children, num, rebuild, symbols, walk

PRIME = 2**255 - 19
"""A prime with a square root of -1."""
_IMAGINARY_UNIT = pow(2, (PRIME - 1) // 4, PRIME)
DIGITS = 60
MAX_BITS = 16_384
"""Bits of an exact integer or rational, at most."""
MAX_FACTORIAL = 4_000
MAX_TERMS = 2_000
"""Terms of a sum or product, multiplied with those of the sums around it, at most."""
MAX_EXPONENT = 10**9
MAX_ARGUMENT = 10**30
"""Argument of a periodic function, at most: it would be reduced to that many digits."""
MAX_NODES = 60_000


class Unsupported(Exception):  # noqa: N818 (a finding, not a fault)
    """This kind of evaluation cannot handle the expression, or it would cost too much."""


class Undefined(Exception):  # noqa: N818
    """The expression has no value at this point."""


# --- exact ----------------------------------------------------------------------------------------------------------


def rational(node: Expr) -> Fraction | None:
    """Return the exact value of a constant rational expression; None when it is none or too large."""
    try:
        return _rational(node)
    except (Unsupported, Undefined, RecursionError):
        return None


def _bounded(value: Fraction) -> Fraction:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_BITS:
        raise Unsupported("too many digits")
    return value


def _rational(node: Expr) -> Fraction:
    op, args = node
    if op == "num":
        return Fraction(args[0])
    if op == "neg":
        return -_rational(args[0])
    if op == "add":
        return _bounded(sum((_rational(a) for a in args), Fraction(0)))
    if op == "mul":
        product = Fraction(1)
        for factor in args:
            product = _bounded(product * _rational(factor))
        return product
    if op == "div":
        below = _rational(args[1])
        if below == 0:
            raise Undefined
        return _bounded(_rational(args[0]) / below)
    if op == "pct":
        return _rational(args[0]) / 100
    if op == "pow":
        base, exponent = _rational(args[0]), _rational(args[1])
        if exponent.denominator != 1:
            raise Unsupported
        if base == 0 and exponent < 0:
            raise Undefined
        size = max(base.numerator.bit_length(), base.denominator.bit_length())
        if base not in (0, 1, -1) and size * abs(exponent) > MAX_BITS:
            raise Unsupported
        return base ** int(exponent) if base not in (1, -1) else (base if exponent % 2 else Fraction(1))
    if op == "fact":
        n = _rational(args[0])
        if n.denominator != 1 or not 0 <= n <= 1000:
            raise Unsupported
        return Fraction(math.factorial(int(n)))
    if op == "base":
        return Fraction(based(args[0], args[1]))
    if op == "fun":
        return _rational_function(args[0], [_rational(a) for a in args[1:]])
    raise Unsupported


def _rational_function(name: str, values: list[Fraction]) -> Fraction:
    integers = [int(v) for v in values if v.denominator == 1]
    if len(integers) == len(values):
        if name in ("gcd", "lcm"):
            return Fraction(math.gcd(*integers) if name == "gcd" else math.lcm(*integers))
        if name == "fact2" and 0 <= integers[0] <= 1000:
            return Fraction(math.prod(range(integers[0], 0, -2)))
        if name == "mod" and len(integers) == 2 and integers[1]:
            return Fraction(integers[0] % integers[1])
        if name == "binom" and len(integers) == 2 and 0 <= integers[1] <= integers[0] <= MAX_FACTORIAL:
            return Fraction(math.comb(*integers))
    if len(values) == 1:
        value = values[0]
        if name == "abs":
            return abs(value)
        if name == "floor":
            return Fraction(math.floor(value))
        if name == "ceil":
            return Fraction(math.ceil(value))
        if name == "round":
            return Fraction(round(value))
        if name == "sgn":
            return Fraction((value > 0) - (value < 0))
        if name == "sqrt" and value >= 0:
            above, below = math.isqrt(value.numerator), math.isqrt(value.denominator)
            if above * above == value.numerator and below * below == value.denominator:
                return Fraction(above, below)
    if values and name in ("max", "min"):
        return max(values) if name == "max" else min(values)
    raise Unsupported


def based(digits: str, base: int) -> int:
    """Return the integer that the decimal-looking digits write in that base."""
    if not 2 <= base <= 36 or any(int(d) >= base for d in digits.lstrip("-")):
        raise Undefined
    return int(digits, base)


# --- in a finite field ----------------------------------------------------------------------------------------------


def _residue(*key: object) -> int:
    return int.from_bytes(hashlib.sha512(repr(key).encode("utf-8", "surrogatepass")).digest(), "big") % PRIME


def _modular(node: Expr, env: dict[str, int], k: int) -> int:
    """Return the value of an expression modulo `PRIME` at the k-th point. Raises Unsupported and Undefined."""
    op, args = node
    if op == "num":
        return _residue_of(args[0])
    if op == "sym":
        return env[args[0]] if args[0] in env else _residue("sym", args[0], k)
    if op == "const":
        if args[0] == "i":
            return _IMAGINARY_UNIT
        if args[0] == "inf":
            raise Unsupported
        return _residue("const", args[0], k)  # transcendental: treated as a free variable
    if op == "neg":
        return -_modular(args[0], env, k) % PRIME
    if op == "add":
        total = 0
        for term in args:
            total += _modular(term, env, k)
        return total % PRIME
    if op == "mul":
        product = 1
        for factor in args:
            product = product * _modular(factor, env, k) % PRIME
        return product
    if op == "div":
        below = _modular(args[1], env, k)
        if below == 0:
            raise Undefined
        return _modular(args[0], env, k) * pow(below, -1, PRIME) % PRIME
    if op == "pct":
        return _modular(args[0], env, k) * pow(100, -1, PRIME) % PRIME
    if op == "pow":
        return _modular_power(args[0], args[1], env, k)
    if op == "call":
        return _residue("call", args[0], k, *(_modular(a, env, k) for a in args[1:]))
    if op == "big":
        value_in = lambda body, inner: _modular(body, inner, k)  # noqa: E731
        return int(_big(node, env, value_in, lambda a, b: (a + b) % PRIME, lambda a, b: a * b % PRIME))
    if op == "fact" or (op == "fun" and args[0] == "binom"):
        return _modular_count(node, env)
    if op == "fun":
        return _residue_of(_rational(_bound(node, env)))
    if op == "base":
        return based(args[0], args[1]) % PRIME
    raise Unsupported


def _residue_of(value: Fraction) -> int:
    """Return a rational number modulo `PRIME`."""
    if value.denominator == 1:
        return value.numerator % PRIME
    return value.numerator * pow(value.denominator, -1, PRIME) % PRIME


def _modular_power(base: Expr, exponent: Expr, env: dict[str, int], k: int) -> int:
    """Return a power modulo `PRIME`; its exponent must be an integer at this point."""
    power = _rational(_bound(exponent, env))
    if power.denominator != 1:
        raise Unsupported
    value = _modular(base, env, k)
    if value == 0 and power < 0:
        raise Undefined
    return int(pow(value, int(power), PRIME))


def _modular_count(node: Expr, env: dict[str, int]) -> int:
    """Return a factorial or a binomial coefficient modulo `PRIME`; its arguments must be integers at this point."""
    arguments = node.args if node.op == "fact" else node.args[1:]
    n, *below = [_rational(_bound(argument, env)) for argument in arguments]
    if n.denominator != 1 or not 0 <= n <= MAX_FACTORIAL:
        raise Unsupported
    if below:
        if below[0].denominator != 1 or not 0 <= below[0] <= n:
            raise Unsupported
        return math.comb(int(n), int(below[0])) % PRIME
    product = 1
    for factor in range(2, int(n) + 1):
        product = product * factor % PRIME
    return product


def _bound(node: Expr, env: dict[str, Any]) -> Expr:
    """Return the node with the symbols that stand for known small integers replaced."""
    if not env or not symbols(node):
        return node

    def change(n: Expr) -> Expr | None:
        if n.op == "sym" and isinstance(env.get(n.args[0]), int):
            return num(env[n.args[0]])
        return None

    return rebuild(node, change)


def _big(
    node: Expr,
    env: dict[str, Any],
    value: Callable[[Expr, dict[str, Any]], Any],
    plus: Callable[[Any, Any], Any],
    times: Callable[[Any, Any], Any],
) -> Any:
    kind, variable, low_node, high_node, body = node.args
    low, high = _rational(_bound(low_node, env)), _rational(_bound(high_node, env))
    around = env.get("terms around", 1)
    if low.denominator != 1 or high.denominator != 1 or (high - low + 1) * around > MAX_TERMS:
        raise Unsupported
    around = around * max(1, int(high - low) + 1)
    total: Any = 0 if kind == "sum" else 1
    for index in range(int(low), int(high) + 1):
        term = value(body, {**env, variable: index, "terms around": around})
        total = plus(total, term) if kind == "sum" else times(total, term)
    return total


# --- to 60 digits ---------------------------------------------------------------------------------------------------

_LOCAL = threading.local()


def context() -> Any:
    """Return this thread's mpmath context. The shared context may have any precision."""
    found = getattr(_LOCAL, "context", None)
    if found is None:
        from mpmath.ctx_mp import MPContext  # type: ignore[import-untyped]

        found = _LOCAL.context = MPContext()
        found.dps = DIGITS
    return found


_DIRECT = {
    "sin": "sin", "cos": "cos", "tan": "tan", "cot": "cot", "sec": "sec", "csc": "csc", "sinh": "sinh", "cosh": "cosh",
    "tanh": "tanh", "coth": "coth", "sech": "sech", "csch": "csch", "asin": "asin", "acos": "acos", "atan": "atan",
    "acot": "acot", "asec": "asec", "acsc": "acsc", "asinh": "asinh", "acosh": "acosh", "atanh": "atanh",
    "acoth": "acoth", "asech": "asech", "acsch": "acsch", "sqrt": "sqrt", "ln": "ln", "floor": "floor", "ceil": "ceil",
    "re": "re", "im": "im", "arg": "arg", "conj": "conj", "abs": "fabs", "sgn": "sign", "erf": "erf", "erfc": "erfc",
    "gamma_function": "gamma", "lambertw": "lambertw",
}  # fmt: skip
_PERIODIC = frozenset({"sin", "cos", "tan", "cot", "sec", "csc"})
_ARGUMENT_LIMIT = {"sinh": 10**6, "cosh": 10**6, "exp": 10**6, "gamma_function": 10**6}


class Evaluator:
    """Evaluates trees to 60 digits at a point; `scale` is the largest magnitude that a sum has met on the way."""

    def __init__(self, env: dict[str, Any], real_roots: bool = False, degrees: bool = False) -> None:
        self.mp = context()
        self.env = env
        self.scale: Any = self.mp.mpf(0)
        self.real_roots = real_roots
        self.left_the_reals = False
        self.degrees = degrees

    def __call__(self, node: Expr) -> Any:
        try:
            value = self.value(node)
        except (ZeroDivisionError, ValueError, OverflowError, TypeError, IndexError, self.mp.NoConvergence) as error:
            raise Undefined from error
        if not self.mp.isfinite(value):
            raise Undefined
        return value

    def note(self, value: Any) -> None:
        size = self.mp.fabs(value)
        if size > self.scale:
            self.scale = size

    def value(self, node: Expr) -> Any:
        mp = self.mp
        op, args = node
        if op == "num":
            value: Fraction = args[0]
            return mp.mpf(value.numerator) / value.denominator
        if op == "sym":
            found = self.env.get(args[0])
            if found is None:
                raise Unsupported
            return mp.convert(found)
        if op == "const":
            if args[0] == "inf":
                raise Unsupported
            return {"pi": +mp.pi, "e": +mp.e, "i": mp.mpc(0, 1)}[args[0]]
        if op == "neg":
            return -self.value(args[0])
        if op == "add":
            total = mp.mpf(0)
            for term in args:
                part = self.value(term)
                self.note(part)
                total += part
            return total
        if op == "mul":
            product = mp.mpf(1)
            for factor in args:
                product *= self.value(factor)
            return product
        if op == "div":
            return self.value(args[0]) / self.nonzero(self.value(args[1]))
        if op == "pct":
            return self.value(args[0]) / 100
        if op == "deg":
            return self.value(args[0]) * (mp.mpf(1) if self.degrees else mp.pi / 180)
        if op == "pow":
            return self.power(args[0], args[1])
        if op == "fact":
            n = self.value(args[0])
            if mp.fabs(n) > 10**6:
                raise Unsupported
            return mp.factorial(n)
        if op == "base":
            return mp.mpf(based(args[0], args[1]))
        if op == "call":
            key = tuple(mp.nstr(self.chop(self.value(a)), 25) for a in args[1:])
            return mp.mpf(_residue("call", args[0], *key) % 10**30) / 10**30 + mp.mpf(1) / 3
        if op == "big":
            return _big(node, self.env, self.inner, lambda a, b: a + b, lambda a, b: a * b)
        if op == "fun":
            return self.function(args[0], args[1:])
        raise Unsupported

    def inner(self, body: Expr, env: dict[str, Any]) -> Any:
        outer, self.env = self.env, env
        try:
            return self.value(body)
        finally:
            self.env = outer

    def chop(self, value: Any) -> Any:
        """Return the value without an imaginary part, or a real one, that is rounding alone."""
        mp = self.mp
        if isinstance(value, mp.mpc):
            if abs(value.imag) <= abs(value.real) * mp.mpf(10) ** -40:
                return value.real
            if abs(value.real) <= abs(value.imag) * mp.mpf(10) ** -40:
                return mp.mpc(0, value.imag)
        return value

    def nonzero(self, value: Any) -> Any:
        if self.mp.fabs(value) <= self.scale * self.mp.mpf(10) ** -50:
            raise Undefined
        return value

    def power(self, base_node: Expr, exponent_node: Expr) -> Any:
        mp = self.mp
        exact = rational(exponent_node)
        exponent = mp.mpf(exact.numerator) / exact.denominator if exact is not None else self.value(exponent_node)
        if mp.fabs(exponent) > MAX_EXPONENT:
            raise Unsupported
        if base_node == Expr("const", ("e",)):
            return self.exp(exponent)
        base = self.chop(self.value(base_node))
        if base == 0:
            if mp.re(exponent) <= 0:
                raise Undefined
            return mp.mpf(0)
        if mp.fabs(exponent) * mp.fabs(mp.log(mp.fabs(base))) > 10**7:
            raise Unsupported
        if exact is not None and exact.denominator == 1:
            return base ** int(exact)
        if self.real_roots and exact is not None and exact.denominator % 2 and isinstance(base, mp.mpf) and base < 0:
            size = (-base) ** exponent
            return -size if exact.numerator % 2 else size
        return self.watch(base**exponent, base, exponent)

    def watch(self, value: Any, *inputs: Any) -> Any:
        """Return the value; note when a real function has left the real numbers."""
        if isinstance(value, self.mp.mpc) and value.imag and not any(isinstance(v, self.mp.mpc) for v in inputs):
            self.left_the_reals = True
        return value

    def exp(self, argument: Any) -> Any:
        if self.mp.fabs(argument) > 10**6:
            raise Unsupported
        self.note(argument)
        return self.mp.exp(argument)

    def function(self, name: str, nodes: tuple[Expr, ...]) -> Any:
        mp = self.mp
        if name == "det":
            return self.determinant(nodes[0])
        values = [self.chop(self.value(node)) for node in nodes]
        if name == "exp":
            return self.exp(values[0])
        if name in ("log", "log10", "log2", "lg"):
            below: Any = values[1] if len(values) == 2 else {"log2": 2, "log10": 10, "lg": 10}.get(name)
            top = self.watch(mp.log(self.nonzero(values[0])), values[0])
            if below is None:
                below = self.env.get("log base")
            return top if below is None else top / self.nonzero(mp.log(below))
        if name in ("cbrt", "root"):
            index = mp.mpf(3) if name == "cbrt" else values[1]
            radicand = values[0]
            if isinstance(radicand, mp.mpf) and radicand < 0 and index == int(index) and int(index) % 2:
                return -mp.power(-radicand, 1 / index)
            if mp.fabs(index) > 10**6:
                raise Unsupported
            return self.watch(mp.power(radicand, 1 / self.nonzero(index)), radicand)
        if name == "binom" and len(values) == 2 and all(mp.fabs(v) < 10**5 for v in values):
            return mp.binomial(*values)
        if name == "atan2" and len(values) == 2:
            return mp.atan2(*values)
        if name == "cis":
            return mp.expj(values[0])
        if name in ("max", "min") and all(isinstance(v, mp.mpf) for v in values):
            return max(values) if name == "max" else min(values)
        if name in ("gcd", "lcm", "mod", "round", "nPr") or len(values) != 1 or name not in _DIRECT:
            raise Unsupported
        argument = values[0]
        if name in _PERIODIC:
            if mp.fabs(argument) > MAX_ARGUMENT:
                raise Unsupported
            self.note(argument)
        elif mp.fabs(argument) > _ARGUMENT_LIMIT.get(name, 10**400):
            raise Unsupported
        if name in ("floor", "ceil"):
            near = mp.nint(mp.re(argument))
            if mp.fabs(argument - near) < mp.mpf(10) ** -40:
                return near
        return self.watch(getattr(mp, _DIRECT[name])(argument), argument)

    def determinant(self, node: Expr) -> Any:
        if node.op != "matrix" or len(node.args[0]) != len(node.args[0][0]) or len(node.args[0]) > 12:
            raise Unsupported
        return self.mp.det(self.mp.matrix([[self.value(cell) for cell in row] for row in node.args[0]]))


def constant(node: Expr, degrees: bool = False) -> Any:
    """Return the 60-digit value of a constant expression; None when it has none or cannot be evaluated."""
    try:
        evaluator = Evaluator({}, degrees=degrees)
        value = evaluator.chop(evaluator(node))
        return value if evaluator.mp.fabs(value) > evaluator.scale * evaluator.mp.mpf(10) ** -50 else value * 0
    except (Unsupported, Undefined, RecursionError):
        return None


def real_constant(node: Expr) -> Any:
    """Return `constant`, or the real odd root if the principal value is complex: (-8)^(1/3) is -2."""
    value = constant(node)
    if value is None or not context().im(value) or not any(n.op == "pow" for n in walk(node)):
        return value
    try:
        evaluator = Evaluator({}, real_roots=True)
        return evaluator.chop(evaluator(node))
    except (Unsupported, Undefined, RecursionError):
        return value


# --- equality -------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1024)
def _point(name: str, k: int) -> Fraction:
    """Return the k-th value of a symbol: positive, negative, then of either sign, then larger."""
    unit = Fraction(_residue("point", name, k) % 10**12, 10**12)
    if k in _FAR:
        return (900 + unit * 9000) * (1 if (_residue("far", name) + k) % 2 else -1)
    if k in (0, 2):
        return Fraction(3, 10) + unit * 2
    if k == 1:
        return -Fraction(3, 10) - unit * 2
    if k < 7:
        return unit * 5 - Fraction(5, 2)
    return 1 + unit * 11 if k % 2 else -1 - unit * 11


POINTS = 10
_FAR = (100, 101, 102, 103)
"""Points of both signs that lie far out, where `max(15, y)` is no longer 15."""
_BENT = frozenset({"abs", "max", "min", "floor", "ceil", "round", "sgn", "sqrt", "root", "cbrt"})
_STEEP = frozenset({"exp", "sinh", "cosh", "tanh", "coth", "sech", "csch", "gamma_function", "erf", "erfc"})
ENOUGH = 6
"""Points at which two expressions must agree, where they have values in the real numbers."""


def equal(a: Expr, b: Expr, degrees: bool = False, assume: Assume = "real") -> bool | None:
    """Return whether two expressions have the same value wherever both have one; None when that is undecided.

    `assume` is what a symbol stands for: see `Options.assume`.
    """
    if a == b:
        return True
    exact = rational(a)
    other = rational(b) if exact is not None else None
    if exact is not None and other is not None:
        return exact == other
    if sum(1 for _ in walk(a)) + sum(1 for _ in walk(b)) > MAX_NODES:
        return None
    if any(n.op in _NO_VALUE for side in (a, b) for n in walk(side)):
        return None
    try:
        integers = _integer_symbols(a) | _integer_symbols(b)
        answer = _equal_in_field(a, b, integers)
        if answer is not None:
            return answer
        return _equal_by_digits(a, b, integers, degrees, assume)
    except RecursionError:
        return None


_NO_VALUE = frozenset(
    {"text", "rel", "tuple", "set", "list", "builder", "cup", "cap", "minus", "opaque", "domain", "qty"}
    | {"cases", "pm", "ratio", "modulo"}
)


def _integer_symbols(node: Expr) -> frozenset[str]:
    """Return the symbols that must stand for integers: those in bounds of sums, in factorials and binomials."""
    names: frozenset[str] = frozenset()
    for here in walk(node):
        if here.op == "big":
            names |= symbols(here.args[2]) | symbols(here.args[3])
        elif here.op == "fact" or (here.op == "fun" and here.args[0] in ("binom", "gcd", "lcm", "mod")):
            for child in children(here):
                names |= symbols(child)
    return names


def _equal_in_field(a: Expr, b: Expr, integers: frozenset[str]) -> bool | None:
    agreed = 0
    for k in range(4):
        env = {name: 5 + _residue("integer", name, k) % 7 for name in integers}
        try:
            left, right = _modular(a, env, k), _modular(b, env, k)
        except Unsupported:
            return None
        except Undefined:
            continue
        if left != right:
            return False
        agreed += 1
        if agreed == 2:
            return True
    return None


@dataclass(frozen=True)
class _Sampling:
    """How two expressions are evaluated, and at which points."""

    names: tuple[str, ...]
    integers: frozenset[str]
    degrees: bool
    complex_valued: bool
    real_roots: bool
    log_base: int | None
    assume: Assume
    domain_counts: bool
    """Whether expressions differ when one is real, and the other is not, where their values differ."""

    def point(self, k: int) -> dict[str, Any]:
        """Return the k-th point."""
        mp = context()
        env: dict[str, Any] = {"log base": self.log_base}
        for name in self.names:
            value = _point(name, k)
            if name in self.integers:
                env[name] = 5 + _residue("integer", name, k) % 7
                continue
            real = mp.mpf(abs(value).numerator if self.assume == "positive" else value.numerator) / value.denominator
            if self.assume == "complex":
                other = _point(name + " imaginary", k)
                env[name] = mp.mpc(real, mp.mpf(other.numerator) / other.denominator)
            else:
                env[name] = real
        return env


def _equal_by_digits(a: Expr, b: Expr, integers: frozenset[str], degrees: bool, assume: Assume) -> bool | None:
    nodes = [n for side in (a, b) for n in walk(side)]
    names = tuple(sorted(symbols(a) | symbols(b)))
    if assume == "real" and _of_quantities(nodes, names):
        assume = "positive"
    complex_valued = assume == "complex" or any(n == Expr("const", ("i",)) for n in nodes)
    powers = any(n.op == "pow" for n in nodes)
    symbolic = any(n.op == "pow" and symbols(n.args[0]) and symbols(n.args[1]) for n in nodes)
    logarithms = {len(n.args) for n in nodes if n.op == "fun" and n.args[0] in _LOGARITHMS}
    verdict: bool | None = None
    for base in (None, 10) if 2 in logarithms else (None,):
        for real_roots in (False, True) if powers and assume != "complex" else (False,):
            sampling = _Sampling(
                names,
                integers,
                degrees,
                complex_valued,
                real_roots,
                base,
                assume,
                domain_counts=not logarithms and not symbolic,
            )
            verdict = _agree(a, b, sampling)
            if verdict:
                return True
    return verdict


_LOGARITHMS = frozenset({"log", "ln", "lg", "log2", "log10"})


def _of_quantities(nodes: list[Expr], names: tuple[str, ...]) -> bool:
    """Return True for monomials such as `sqrt(V/c)`: formulas of quantities.

    A root of even powers is one only when it holds, or stands in, a quotient: `sqrt(a^2 b)` is `|a| sqrt(b)`.
    """
    if len(names) < 2 or not all(n.op in ("num", "sym", "const", "mul", "div", "neg", "pow", "fun") for n in nodes):
        return False
    roots = [n for n in nodes if n.op == "fun" or (n.op == "pow" and _is_root(n.args[1]))]
    if any(n.op == "fun" and n.args[0] not in ("sqrt", "cbrt", "root") for n in nodes):
        return False
    if any(n.op == "pow" and symbols(n.args[1]) for n in nodes):
        return False
    quotients = [n for n in nodes if n.op == "div"]
    inside = any(n.op == "div" and symbols(n.args[1]) for root in roots for n in walk(root))
    even = any(n.op == "pow" and _is_even(n.args[1]) for root in roots for n in walk(root))
    return inside or not even or any(root in walk(quotient) for root in roots for quotient in quotients)


def _is_even(exponent: Expr) -> bool:
    exact = rational(exponent)
    return exact is not None and exact.denominator == 1 and exact.numerator % 2 == 0


def _is_root(exponent: Expr) -> bool:
    exact = rational(exponent)
    return exact is not None and exact.denominator > 1


def _bends(*sides: Expr) -> bool:
    """Return True if a function may look like another one nearby, and none grows too fast for points far out."""
    nodes = [n for side in sides for n in walk(side)]
    if any((n.op == "fun" and n.args[0] in _STEEP) or (n.op == "pow" and symbols(n.args[1])) for n in nodes):
        return False
    return any(
        (n.op == "fun" and n.args[0] in _BENT)
        or (n.op == "pow" and (rational(n.args[1]) or Fraction(1)).denominator > 1)
        for n in nodes
    )


def _points(a: Expr, b: Expr, sampling: _Sampling) -> Iterator[tuple[dict[str, Any], bool]]:
    """Yield the points at which two expressions are compared, each with whether it may be skipped if it is too far."""
    if not sampling.names:
        yield {"log base": sampling.log_base}, False
        return
    yield from ((sampling.point(k), True) for k in (_FAR if _bends(a, b) else ()))
    if sampling.assume == "real":
        yield from ((env, True) for env in _nested_powers(a, b, sampling))
    yield from ((sampling.point(k), False) for k in range(POINTS))


def _nested_powers(a: Expr, b: Expr, sampling: _Sampling) -> Iterator[dict[str, Any]]:
    """Yield points with a negative base and exponents 2 and 1/2, where `(a^b)^c` and `a^{bc}` are real and differ."""
    mp = context()
    for node in (n for side in (a, b) for n in walk(side)):
        if node.op != "pow" or node.args[0].op != "pow" or node.args[0].args[0].op != "sym":
            continue
        inner, outer = symbols(node.args[0].args[1]), symbols(node.args[1])
        if not outer or outer <= _COUNTS:
            continue
        env = sampling.point(1)
        env[node.args[0].args[0].args[0]] = mp.mpf("-1.73")
        env.update(dict.fromkeys(inner, mp.mpf(2)))
        env.update(dict.fromkeys(outer, mp.mpf("0.5")))
        yield env


_COUNTS = frozenset({"n", "k", "m"})
"""Names that stand for integers."""


def _agree(a: Expr, b: Expr, sampling: _Sampling) -> bool | None:
    """Return whether two expressions agree at points of each side's own domain; None when too few decide it."""
    mp = context()
    tolerance = mp.mpf(10) ** -45
    agreed = 0
    in_complex: list[bool] = []
    for env, skippable in _points(a, b, sampling):
        left_at, right_at = (Evaluator(env, sampling.real_roots, sampling.degrees) for _ in range(2))
        try:
            left, right = left_at(a), right_at(b)
        except Unsupported:
            if skippable:
                continue
            return None
        except Undefined:
            continue
        size = max(mp.fabs(left), mp.fabs(right), left_at.scale, right_at.scale)
        same = mp.fabs(left - right) <= tolerance * size
        real = [
            abs(mp.im(value)) <= tolerance * size and not at.left_the_reals
            for value, at in ((left, left_at), (right, right_at))
        ]
        if sampling.complex_valued or not sampling.names or all(real):
            if not same:
                return False
            agreed += 1
            if agreed == ENOUGH:
                return True
        elif any(real) and not same and sampling.domain_counts:
            return False  # one is defined here, and the other is not
        else:
            in_complex.append(bool(same))  # outside of the real domain: counts only if there is no real domain
    needed = 2 if sampling.names else 1
    if agreed >= needed:
        return True
    return all(in_complex) if len(in_complex) >= needed else None


def proportional(a: Expr, b: Expr) -> bool | None:
    """Return whether a = c * b with a constant c that is neither 0 nor a function of the symbols. None: undecided."""
    if not symbols(a) or not symbols(b):
        return None
    integers = _integer_symbols(a) | _integer_symbols(b)
    try:
        pairs = []
        for k in range(4):
            env = {name: 5 + _residue("integer", name, k) % 7 for name in integers}
            try:
                pairs.append((_modular_fixed(a, env, k), _modular_fixed(b, env, k)))
            except Undefined:
                continue
        if len(pairs) >= 2:
            (a0, b0), *rest = pairs
            return bool(a0 and b0) and all(a0 * bk % PRIME == ak * b0 % PRIME for ak, bk in rest)
        return None
    except Unsupported:
        pass
    except RecursionError:
        return None
    return _proportional_by_digits(a, b, integers)


def _modular_fixed(node: Expr, env: dict[str, int], k: int) -> int:
    """Return `_modular` with pi and e the same at every point: a constant factor may hold them."""

    fixed = rebuild(
        node, lambda n: Expr("sym", (f"const {n.args[0]}",)) if n.op == "const" and n.args[0] in ("pi", "e") else None
    )
    return _modular(fixed, {**env, "const pi": _residue("pi"), "const e": _residue("e")}, k)


def _proportional_by_digits(a: Expr, b: Expr, integers: frozenset[str]) -> bool | None:
    mp = context()
    names = sorted(symbols(a) | symbols(b))
    ratios = []
    for k in range(POINTS):
        env: dict[str, Any] = {}
        for name in names:
            value = _point(name, k)
            env[name] = (
                5 + _residue("integer", name, k) % 7
                if name in integers
                else mp.mpf(value.numerator) / value.denominator
            )
        try:
            left, right = Evaluator(env)(a), Evaluator(env)(b)
        except Unsupported:
            return None
        except Undefined:
            continue
        if mp.im(left) or mp.im(right):
            continue
        if right == 0 or left == 0:
            return None
        ratios.append(left / right)
    if len(ratios) < 3:
        return None
    return all(mp.fabs(r - ratios[0]) <= mp.fabs(ratios[0]) * mp.mpf(10) ** -40 for r in ratios)
