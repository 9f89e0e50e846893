"""Names and numbers: symbols with their subscripts and primes, functions with their arguments."""

from __future__ import annotations

from fractions import Fraction

from .brackets import Brackets
from .lex import Token
from .tree import Expr, Unreadable, num, signed, text

_CALLED = frozenset("fghFGHPQp")
"""Letters that name a function when brackets follow."""
MAX_ARGUMENTS = 20
"""Tokens between the brackets behind a function that is being defined."""
_INVERSES = frozenset({"asin", "acos", "atan", "acot", "asec", "acsc", "asinh", "acosh", "atanh"})
"""Functions that the exponent -1 inverts: `\\sin^{-1} x`."""


class Names(Brackets):
    """The grammar of names and numbers."""

    def number(self, token: Token) -> Expr:
        value = token.value
        mantissa, _, exponent = value.lower().partition("e")
        if exponent and abs(int(exponent)) > 1000:
            raise Unreadable("an exponent out of range")
        if "." in mantissa:
            decimals = len(mantissa) - mantissa.index(".") - 1
            return num(Fraction(value), decimals - int(exponent or 0))
        return num(Fraction(value) if exponent else int(value))

    def symbol(self, name: str) -> Expr:
        if self.at("op", "_"):
            self.take()
            script = self.script()
            if script.op == "num":
                name += f"_{script.args[0]}"
            elif script.op == "text":
                name += "_" + script.args[0].replace(" ", "")
            else:
                return self.primes(Expr("call", (name + "_", script)))
        if self.at("op", "'"):
            return self.primes(Expr("sym", (name,)))
        if name in _CALLED and [t.value for t in self.tokens[self.here : self.here + 6]] == list("^{-1{("):
            self.here += 5
            return self.called(name + "^-1")
        if name in _CALLED or "_" in name or self.defines():
            return self.called(name)
        return Expr("sym", (name,))

    def defines(self) -> bool:
        """Return True if `(x, +0, t) =` follows: the left side of a function's definition."""
        if not self.at("open", "("):
            return False
        for i in range(1, MAX_ARGUMENTS):
            token = self.peek(i)
            if token is None:
                return False
            if token.kind == "close":
                equals = self.peek(i + 1)
                return i > 1 and equals is not None and equals.kind == "op" and equals.value == "="
            if token.kind not in ("sym", "num") and not (token.kind == "op" and token.value in (",", ";", "+", "-")):
                return False
        return False

    def primes(self, node: Expr) -> Expr:
        name, *rest = node.args
        while self.at("op", "'"):
            self.take()
            name += "'"
        if rest:
            return Expr("call", (name, *rest))
        return self.called(name) if "'" in name else Expr("sym", (name,))

    def called(self, name: str) -> Expr:
        """Read `f(x)`, an unknown function of its arguments."""
        if self.at("open", "(") and not self.tokens[self.here].spaced:
            self.take()
            inner = self.bracketed("(")
            if inner.op == "tuple":
                return Expr("call", (name, *inner.args[2:]))
            return Expr("call", (name, inner))
        return Expr("sym", (name,))

    def script(self) -> Expr:
        """Read what stands behind `_`: a group or one token."""
        if self.at("open"):
            name = self.name_in_braces()
            return self.atom() if name is None else text(name)
        token = self.take()
        if token.kind == "num":
            return num(Fraction(token.value))
        if token.kind in ("sym", "const"):
            return Expr("sym", (token.value,))
        if token.kind in ("text", "word", "unit", "fun"):
            return text(token.value)
        raise Unreadable("a script that is no name")

    def name_in_braces(self) -> str | None:
        """Read `{max}` or `{\\text{in}}`, a subscript that is a word; None for any other."""
        for i in range(self.here + 1, min(self.end, self.here + 8)):
            token = self.tokens[i]
            if token.kind == "close":
                inside = self.tokens[self.here + 1 : i]
                if not any(t.kind in ("fun", "text", "word", "unit") for t in inside):
                    return None
                self.here = i + 1
                return "".join(t.value for t in inside)
            if token.kind not in ("fun", "text", "word", "unit", "sym", "num", "const"):
                return None
        return None

    def named(self, name: str) -> Expr:
        """Read `name(...)` in plain infix: a constructor of computer algebra systems, or an unknown function."""
        self.expect("open", "(")
        found, _ = self.items("(")
        lower = name.lower()
        if lower == "matrix":
            if len(found) == 1:
                return found[0]
            return Expr("tuple", ("[", "[", *found))
        if lower in ("vector", "tuple", "point", "list"):
            return Expr("tuple", ("(", "(", *found))
        if lower in ("set", "finiteset"):
            return Expr("set", tuple(found))
        if lower in ("eq", "equal") and len(found) == 2:
            return Expr("rel", (("=",), tuple(found)))
        if lower in ("rational", "quotient") and len(found) == 2:
            return Expr("div", tuple(found))
        return Expr("call", (name, *found))

    def function(self, name: str) -> Expr:
        power = base = None
        digits, opened = self.peek(), self.peek(1)
        if (
            name == "log" and digits is not None and digits.kind == "num" and digits.value in ("2", "10")
            and not digits.spaced and opened is not None and opened.kind == "open" and opened.value == "("
        ):  # fmt: skip
            base = self.number(self.take())
        for _ in range(2):
            if self.at("op", "^"):
                self.take()
                power = self.exponent_of_function()
            elif self.at("op", "_"):
                self.take()
                base = self.script()
                if base == Expr("sym", ("e",)):
                    base = Expr("const", ("e",))
        if name == "sqrt" and self.at("open", "["):
            return self.indexed_root()
        arguments = self.arguments(name)
        if name == "root" and len(arguments) == 1 and self.at("open", "("):
            self.take()
            radicand, _ = self.items("(")
            arguments = [*radicand, *arguments]
        if name == "log" and base is not None:
            node = Expr("fun", ("log", *arguments, base))
        elif name == "log" and len(arguments) == 2:
            node = Expr("fun", ("log", *arguments))
        elif name == "pow" and len(arguments) == 2:
            node = Expr("pow", tuple(arguments))
        elif name == "fact":
            node = Expr("fact", tuple(arguments[:1]))
        elif name == "nCr":
            node = Expr("fun", ("binom", *arguments))
        else:
            node = Expr("fun", (name, *arguments))
        if power is None:
            return node
        if power == num(-1) and "a" + name in _INVERSES:
            return Expr("fun", ("a" + name, *arguments))
        return Expr("pow", (node, power))

    def indexed_root(self) -> Expr:
        """Read `[3]{x}`, behind the sign of a root."""
        self.take()
        index, closed = self.items("[")
        if len(index) != 1 or closed != "[":
            raise Unreadable("a root")
        return Expr("fun", ("root", self.argument_group(), index[0]))

    def exponent_of_function(self) -> Expr:
        if self.at("op", "-"):
            self.take()
            return signed("-", self.atom())
        return self.atom()

    def argument_group(self) -> Expr:
        if self.at("num"):
            return self.number(self.take())
        return self.atom()

    def arguments(self, name: str) -> list[Expr]:
        token = self.peek()
        if token is not None and token.kind == "open" and token.value in ("(", "{", "["):
            opened = self.take().value
            found, closed = self.items(opened)
            if closed != opened or not found:
                raise Unreadable("a function's brackets")
            if opened == "{" and len(found) == 1 and found[0].op == "tuple":
                return list(found[0].args[2:])
            return found
        if name == "sqrt":
            return [self.argument_group()]
        factors = [self.factor_of_argument()]
        while (token := self.peek()) is not None and self.starts_factor(token) and token.kind not in ("fun", "env"):
            if token.kind == "open" and token.value in ("(", "["):
                break
            if token.kind == "num":
                break
            factors.append(self.factor_of_argument())
        argument = factors[0] if len(factors) == 1 else Expr("mul", tuple(factors))
        below = self.peek(1)
        if (
            self.at("op", "/")
            and below is not None
            and below.kind == "num"
            and any(f == Expr("const", ("pi",)) for f in factors)
        ):
            self.take()
            argument = Expr("div", (argument, self.number(self.take())))
        return [argument]

    def factor_of_argument(self) -> Expr:
        if self.at("op", "-"):
            self.take()
            return signed("-", self.power())
        return self.power()
