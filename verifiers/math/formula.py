"""A formula: relations, sets, sums, products, powers, from what binds least to what binds most."""

from __future__ import annotations

from fractions import Fraction

from .commands import Commands
from .cursor import MAX_DEPTH, RELATIONS
from .lex import Token
from .tree import Expr, Unreadable, num, signed


class Formula(Commands):
    """The whole grammar of one formula, without the words around it."""

    def relation(self) -> Expr:
        self.depth += 1
        if self.depth > 3 * MAX_DEPTH:
            raise Unreadable("nested too deeply")
        operands, operators = [self.setwise()], []
        if self.at("op", "pmod"):
            self.take()
            operands[0] = Expr("modulo", (operands[0], self.atom()))
        while True:
            token = self.peek()
            if token is None or token.kind != "op":
                break
            value = token.value
            if value == "not":
                self.take()
                following = self.expect("op")
                value = {"=": "!=", "in": "notin"}.get(following.value, "")
                if not value:
                    raise Unreadable("a negated relation")
            elif value in RELATIONS:
                self.take()
            elif value in ("implies", "iff"):
                raise Unreadable("an implication")
            else:
                break
            operators.append(value)
            operands.append(self.setwise())
            if self.at("op", "pmod"):
                self.take()
                operands[-1] = Expr("modulo", (operands[-1], self.atom()))
        self.depth -= 1
        if not operators:
            return operands[0]
        return Expr("rel", (tuple(operators), tuple(operands)))

    def setwise(self) -> Expr:
        left = self.ratio()
        while self.at("op", "cup", "cap", "setminus"):
            op = {"cup": "cup", "cap": "cap", "setminus": "minus"}[self.take().value]
            right = self.ratio()
            left = Expr(op, (*left.args, right)) if left.op == op and op != "minus" else Expr(op, (left, right))
        return left

    def ratio(self) -> Expr:
        parts = [self.sum()]
        while self.at("op", ":") and not self.builders:
            self.take()
            parts.append(self.sum())
        return parts[0] if len(parts) == 1 else Expr("ratio", tuple(parts))

    def sum(self) -> Expr:
        terms: list[Expr] = []
        sign = None
        if self.at("op", "+", "-", "pm", "mp"):
            sign = self.take().value
            if sign == "+" and self.at("op", "-"):
                self.take()
                sign = "pm"
            while self.at("op", "-", "+"):
                if self.take().value == "-":
                    sign = {"-": "+", "+": "-"}.get(sign, sign)
        terms.append(signed(sign, self.product()))
        while self.at("op", "+", "-", "pm", "mp"):
            sign = self.take().value
            while self.at("op", "-", "+"):
                if self.take().value == "-":
                    sign = {"-": "+", "+": "-"}.get(sign, sign)
            terms.append(signed(sign, self.product()))
        if len(terms) == 2 and terms[1].op == "neg" and terms[1].args[0].op == "set":
            return Expr("minus", (terms[0], terms[1].args[0]))  # R - {2}
        return terms[0] if len(terms) == 1 else Expr("add", tuple(terms))

    def product(self) -> Expr:
        factors: list[Expr] = [self.power()]
        last_number = self.here - 1
        while True:
            token = self.peek()
            if token is None:
                break
            if token.kind == "op" and token.value in ("*", "/"):
                self.take()
                sign = None
                if self.at("op", "-", "+"):
                    sign = self.take().value
                right = signed(sign, self.power())
                if token.value == "*":
                    factors.append(right)
                else:
                    product = factors[0] if len(factors) == 1 else Expr("mul", tuple(factors))
                    factors = [Expr("div", (product, right))]
            elif token.kind == "op" and token.value == "mod":
                self.take()
                product = factors[0] if len(factors) == 1 else Expr("mul", tuple(factors))
                factors = [Expr("fun", ("mod", product, self.power()))]
            elif self.starts_factor(token):
                before = self.tokens[self.here - 1]
                number_before = before.kind == "num" and last_number == self.here - 1
                mixed = self.mixed(factors[-1], token) if number_before or factors[-1].op == "num" else None
                if mixed is not None:
                    factors[-1] = self.postfixed(mixed)
                elif token.kind == "num" and (before.kind == "num" or factors[-1].op == "num"):
                    raise Unreadable("two numbers side by side")
                else:
                    factors.append(self.power())
            else:
                break
        return factors[0] if len(factors) == 1 else Expr("mul", tuple(factors))

    def mixed(self, whole: Expr, token: Token) -> Expr | None:
        """Read `2 1/2` and `2\\frac{1}{2}`: an integer and a proper fraction of literals, without a sign between."""
        if whole.op != "num" or whole.args[1] is not None or whole.args[0].denominator != 1:
            return None
        start = self.here
        if token == Token("cmd", "frac", token.spaced):
            fraction = self.atom()
            if (
                fraction.op == "div"
                and all(p.op == "num" and p.args[1] is None and p.args[0] >= 0 for p in fraction.args)
                and fraction.args[1].args[0] > 0
            ):
                part = fraction.args[0].args[0] / fraction.args[1].args[0]
                value = whole.args[0]
                return num(value - part if value < 0 else value + part)
            self.here = start
            return None
        slash, below = self.peek(1), self.peek(2)
        if (
            token.kind == "num"
            and token.spaced
            and slash is not None
            and slash.kind == "op"
            and slash.value == "/"
            and below is not None
            and below.kind == "num"
            and token.value.isdigit()
            and below.value.isdigit()
            and int(below.value) > int(token.value)
        ):
            self.here += 3
            part = Fraction(int(token.value), int(below.value))
            value = whole.args[0]
            return num(value - part if value < 0 else value + part)
        return None

    def power(self) -> Expr:
        base = self.postfix()
        if self.at("op", "^"):
            self.take()
            if self.at("op", "circ", "deg") or (
                self.at("open", "{")
                and (t := self.peek(1)) is not None
                and t.kind == "op"
                and t.value in ("circ", "deg")
                and (u := self.peek(2)) is not None
                and u.kind == "close"
            ):
                self.here += 3 if self.at("open") else 1
                return self.after_degrees(base)
            if self.at("op", "'") or self.at("op", "*"):
                raise Unreadable("a starred symbol")
            exponent = self.exponent()
            if exponent == Expr("sym", ("T",)) and base.op == "matrix":
                return Expr("matrix", (tuple(zip(*base.args[0], strict=True)),))
            if exponent == Expr("sym", ("T",)) and base.op == "tuple":
                return base
            if base.op == "fun" and len(base.args) == 1:
                raise Unreadable("a function without its argument")
            result = Expr("pow", (base, exponent))
            while self.at("op", "!"):
                self.take()
                result = Expr("fact", (result,))
            return result
        return base

    def after_degrees(self, base: Expr) -> Expr:
        if any(self.at(kind, "C", "F") for kind in ("sym", "text", "unit")):
            return Expr("qty", (base, "deg" + self.take().value))
        result = Expr("deg", (base,))
        token = self.peek()
        if token is not None and token.kind == "num" and (q := self.peek(1)) is not None and q.value == "'":
            minutes = self.take()  # 30°15'
            self.take()
            whole = Expr("add", (base, Expr("div", (num(int(minutes.value)), num(60)))))
            return Expr("deg", (whole,))
        return result

    def exponent(self) -> Expr:
        if self.at("op", "-", "+"):
            sign = self.take().value
            return signed(sign, self.exponent())
        base = self.postfix()
        if self.at("op", "^"):
            self.take()
            return Expr("pow", (base, self.exponent()))
        return base

    def postfix(self) -> Expr:
        return self.postfixed(self.atom())

    def postfixed(self, node: Expr) -> Expr:
        while True:
            token = self.peek()
            if token is None or token.kind != "op":
                return node
            if token.value == "!":
                self.take()
                if self.at("op", "!") and not self.tokens[self.here].spaced:
                    self.take()  # every second factor: 7!! is 7 * 5 * 3
                    node = Expr("fun", ("fact2", node))
                    if self.at("op", "!") and not self.tokens[self.here].spaced:
                        raise Unreadable("too many factorial signs")
                else:
                    node = Expr("fact", (node,))
            elif token.value == "pct":
                self.take()
                node = Expr("pct", (node,))
            elif token.value == "deg":
                self.take()
                node = self.after_degrees(node)
            elif token.value == "_" and node.op == "num" and node.args[0].denominator == 1:
                self.take()
                base = self.script()
                if base.op != "num":
                    raise Unreadable("a base that is no number")
                node = Expr("base", (str(node.args[0]), int(base.args[0])))
            elif token.value == "_" and node.op in ("tuple", "set", "call", "matrix"):
                self.take()
                self.script()
            else:
                return node

    def atom(self) -> Expr:
        token = self.take()
        kind, value = token.kind, token.value
        if kind == "num":
            return self.number(token)
        if kind == "sym":
            return self.symbol(value)
        if kind == "const":
            if value in ("e", "i") and self.at("op", "_"):
                return self.symbol(value)
            return Expr("const", (value,))
        if kind == "open":
            return self.bracketed(value)
        if kind == "bar":
            return self.absolute()
        if kind == "fun":
            return self.function(value)
        if kind == "cmd":
            return self.command(value)
        if kind == "env":
            return self.environment(value)
        if kind == "call":
            return self.named(value)
        if kind == "op" and value in ("+", "-"):
            return signed(value, self.power())
        if kind == "op" and value == "ldots":
            raise Unreadable("dots stand for what is left out")
        raise Unreadable(f"unexpected {value!r}")
