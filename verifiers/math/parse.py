"""Parses a normalised answer into a tree (`tree.py`). Its own grammar for LaTeX and plain infix; never evaluates.

Depth and size are bounded before parsing starts. What cannot be read as a whole is Unreadable: no part of a formula
that failed to parse is ever taken for the answer.
"""

from __future__ import annotations

import re
from fractions import Fraction

from .lex import Token, tokens
from .tree import Expr, Unreadable, has, num, rebuild, text
from .units import read_unit
from .vocabulary import vocabulary

MAX_DEPTH = 120
"""Brackets within brackets."""

RELATIONS = frozenset({"=", "<", ">", "<=", ">=", "!=", "~", "==", "in", "notin", "subset", "to"})
_LIST_MARKS = frozenset({",", ";", "and", "or", "land", "lor"})
_FILLER = vocabulary(
    "the answer is are answers final about approximately approx exactly equal to of a an x either both maybe "
    "respectively therefore thus so hence total only option choice where value all real each"
)
_CONDITIONS = frozenset({"where", "for", "when", "if", "with", "for all", "for any", "such that", "whenever"})
_CASE_WORDS = frozenset({"if", "for", "when", "where", "otherwise", "else", "elsewhere", "and"})
_QUALIFIERS = vocabulary(
    "at least most less more than not over under below above between no minus negative up nor fewer greater "
    "never what which find how compute evaluate calculate solve simplify determine if unless"
)
"""Words before a number that make it another answer, or none."""
_DENIALS = frozenset({"wrong", "incorrect", "false", "not", "isn", "impossible", "invalid", "never"})
"""Words after a number that take it back."""
_UNITISH = frozenset({"text", "unit", "word"})
_CALLED = frozenset("fghFGHPQp")
_BLACKBOARD = {"R": "R", "Z": "Z", "N": "N", "Q": "Q", "C": "C"}


def parse(source: str) -> Expr:
    """The tree of a normalised answer. Raises Unreadable."""
    _check_depth(source)
    found = tokens(source)
    if not found:
        raise Unreadable("empty")
    return _Parser(found).answer()


_BRACKETS = re.compile(r"[()\[\]{}]")


def _check_depth(source: str) -> None:
    depth = 0
    for bracket in _BRACKETS.finditer(source):
        depth += 1 if bracket[0] in "([{" else -1
        if depth > MAX_DEPTH:
            raise Unreadable("nested too deeply")


def _is_ray(node: Expr) -> bool:
    """`x < 3`, of which several joined by "or" are a union."""
    return node.op == "rel" and len(node.args[0]) == 1 and node.args[0][0] in ("<", "<=", ">", ">=")


def _named(item: Expr, name: str) -> Expr:
    """One of several parts with the words before it, `length 8`, as those behind it would be kept."""
    scalar = item.op in ("num", "neg", "add", "mul", "div", "pow", "fun", "sym", "const")
    return Expr("qty", (item, name)) if scalar and read_unit(name) is None else item


class _Parser:
    def __init__(self, found: list[Token], start: int = 0, end: int | None = None) -> None:
        self.tokens = found
        self.here = start
        self.end = len(found) if end is None else end
        self.bars = 0
        self.depth = 0
        self.builders = 0
        self.label = ""

    # --- tokens

    def peek(self, ahead: int = 0) -> Token | None:
        at = self.here + ahead
        return self.tokens[at] if at < self.end else None

    def at(self, kind: str, *values: str) -> bool:
        token = self.tokens[self.here] if self.here < self.end else None
        return token is not None and token.kind == kind and (not values or token.value in values)

    def take(self) -> Token:
        if self.here >= self.end:
            raise Unreadable("ends too early")
        token = self.tokens[self.here]
        self.here += 1
        return token

    def expect(self, kind: str, *values: str) -> Token:
        token = self.take()
        if token.kind != kind or (values and token.value not in values):
            raise Unreadable(f"unexpected {token.value!r}")
        return token

    # --- lists of answers

    def answer(self) -> Expr:
        """The whole token list: groups apart by semicolons, in them items apart by commas, "and", "or"."""
        groups: list[list[Expr]] = [[]]
        kinds: set[str] = set()
        start = 0
        depth = 0
        marks: list[tuple[int, str]] = []
        names: list[str] = []
        for i, token in enumerate(self.tokens):
            if token.kind == "open" or (token.kind == "env" and token.value.startswith("begin")):
                depth += 1
            elif token.kind == "close" or (token.kind == "env" and token.value.startswith("end")):
                depth -= 1
            elif depth == 0 and token.kind == "op" and token.value in _LIST_MARKS:
                marks.append((i, token.value))
        if depth != 0 and any(t.kind == "env" for t in self.tokens):
            raise Unreadable("unbalanced environment")
        for i, mark in [*marks, (len(self.tokens), "")]:
            if i > start:
                self.label = ""
                item = self.item(start, i)
                if item is not None:
                    groups[-1].append(item)
                    names.append(self.label)
            kinds.add(mark)
            if mark == ";" and groups[-1]:
                groups.append([])
            start = i + 1
        groups = [group for group in groups if group]
        if not groups:
            raise Unreadable("nothing but separators")
        if len(groups) > 1 and any(len(group) > 1 for group in groups):
            items = tuple(group[0] if len(group) == 1 else Expr("list", tuple(group)) for group in groups)
        else:
            items = tuple(item for group in groups for item in group)
        if 1 < len(items) == len(names) and all(names):
            items = tuple(_named(item, name) for item, name in zip(items, names, strict=True))
        logic = kinds & {"land", "lor"}
        if len(items) > 1 and len(logic) == 1 and not any(item.op == "rel" for item in items):
            return Expr("cap" if "land" in logic else "cup", items)
        if len(items) > 1 and kinds & {"or", "lor"} and kinds <= {"or", "lor", ",", ""} and all(map(_is_ray, items)):
            return Expr("cup", items)
        return items[0] if len(items) == 1 else Expr("list", items)

    def item(self, start: int, end: int) -> Expr | None:
        """One answer: words before it, the expression, its unit or words after it. None for a mere condition."""
        tokens_here = self.tokens
        while start < end and self._is_filler(tokens_here[start]) and end - start > 1:
            start += 1
            if tokens_here[start].kind == "op" and tokens_here[start].value == ":" and end - start > 1:
                start += 1
        while end - start > 1 and tokens_here[end - 1].kind == "word" and tokens_here[end - 1].value.lower() in _FILLER:
            end -= 1
        if start >= end:
            return None
        end = self._without_remark(start, end)
        lead = start
        while lead < end and tokens_here[lead].kind in ("word", "text"):
            lead += 1
        if any(w in _QUALIFIERS for t in tokens_here[start:lead] for w in t.value.lower().split()) and lead < end:
            raise Unreadable("qualified by words")
        first = tokens_here[start]
        if first.kind in ("text", "word") and first.value.lower().strip(" ,:") in _CONDITIONS:
            return None
        if all(t.kind in _UNITISH or (t.kind == "op" and t.value in ("'", "-")) for t in tokens_here[start:end]):
            return text(" ".join(t.value for t in tokens_here[start:end]))
        if start < lead < end and first.value.lower() not in _CONDITIONS:
            self.label = " ".join(t.value for t in tokens_here[start:lead])
            start = lead
            if tokens_here[start] == Token("op", ":", tokens_here[start].spaced) and end - start > 1:
                start += 1
            first = tokens_here[start]
        if start == lead and lead > 0 and end - start > 1 and first == Token("op", "=", first.spaced):
            start += 1  # a label in words: Area = 12
            first = tokens_here[start]
        money = None
        if first.kind == "unit" and end - start > 1:
            money = first.value
            start += 1
        elif (
            end - start > 2
            and first.kind == "op"
            and first.value == "-"
            and tokens_here[start + 1].kind == "unit"
            and tokens_here[start + 1].value == "$"
        ):
            bare = _Parser([*tokens_here[: start + 1], *tokens_here[start + 2 : end]])
            return bare._measured(start, end - 1, "$")
        return self._measured(start, end, money)

    def _without_remark(self, start: int, end: int) -> int:
        """Where the item ends without a remark in brackets: `10 (ten)`, `2k (k \\in Z)`."""
        if self.tokens[end - 1].kind != "close":
            return end
        for i in range(end - 2, start, -1):
            kind = self.tokens[i].kind
            if kind == "close" and self.tokens[i].value != "{":
                return end
            if kind == "open" and self.tokens[i].value == "(":
                inside = self.tokens[i + 1 : end - 1]
                words = all(t.kind in ("word", "text") for t in inside) and self.tokens[i].spaced
                condition = len(inside) > 2 and inside[1].kind == "op" and inside[1].value == "in" and i > start
                return i if inside and (words or condition) else end
        return end

    def _is_filler(self, token: Token) -> bool:
        if token.kind == "op" and token.value == "~":
            return True
        if token.kind == "op" and token.value in ("and", "or"):
            return True
        return token.kind in ("text", "word") and all(
            word in _FILLER for word in token.value.lower().strip(" :,").split()
        )

    def _measured(self, start: int, end: int, money: str | None) -> Expr | None:
        """The expression in tokens [start, end) and the unit or the words that follow it."""
        split = end
        depth = 0
        for i in range(start, end):
            token = self.tokens[i]
            if token.kind == "open" or (token.kind == "env" and token.value.startswith("begin")):
                depth += 1
            elif token.kind == "close" or token.kind == "env":
                depth -= 1
            elif depth == 0 and i > start and token.kind in _UNITISH:
                split = i
                break
        words = ""
        if split < end:
            words = " ".join(t.value for t in self.tokens[split:end])
            if not _DENIALS.isdisjoint(words.lower().split()):
                raise Unreadable("denied by words")
            if self.tokens[split].kind == "text" and words.lower().split(" ")[0] in _CONDITIONS:
                words = ""
            elif any(t.kind in ("cmd", "fun", "env", "bar") for t in self.tokens[split:end]) or any(
                t.kind == "op" and t.value in RELATIONS for t in self.tokens[split:end]
            ):
                raise Unreadable("words amid a formula")
            elif sum(t.kind == "num" for t in self.tokens[split:end]) > sum(
                t.kind == "op" and t.value == "^" for t in self.tokens[split:end]
            ):
                raise Unreadable("words amid numbers")
        while split > start and self.tokens[split - 1] == Token("op", "/", self.tokens[split - 1].spaced):
            split -= 1  # 5 / second
            words = "/ " + words
        sub = _Parser(self.tokens, start, split)
        expr = sub.relation()
        if sub.here != split:
            raise Unreadable("something is left over")
        if expr.op == "sym" and len(words.split()) > 2:
            raise Unreadable("a sentence that begins with a letter")
        if money is not None:
            words = money + " " + words if words.strip() not in ("dollars", "dollar", "USD") else words
        return Expr("qty", (expr, words.strip())) if words.strip() else expr

    # --- relations and sets

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

    # --- arithmetic

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
        terms.append(self.signed(sign, self.product()))
        while self.at("op", "+", "-", "pm", "mp"):
            sign = self.take().value
            while self.at("op", "-", "+"):
                if self.take().value == "-":
                    sign = {"-": "+", "+": "-"}.get(sign, sign)
            terms.append(self.signed(sign, self.product()))
        if len(terms) == 2 and terms[1].op == "neg" and terms[1].args[0].op == "set":
            return Expr("minus", (terms[0], terms[1].args[0]))  # R - {2}
        return terms[0] if len(terms) == 1 else Expr("add", tuple(terms))

    def signed(self, sign: str | None, term: Expr) -> Expr:
        if sign in (None, "+"):
            return term
        if sign == "-":
            if term.op == "num":
                return num(-term.args[0], term.args[1])
            return Expr("neg", (term,))
        return Expr("pm", (term, 1 if sign == "pm" else -1))

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
                right = self.signed(sign, self.power())
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

    def starts_factor(self, token: Token) -> bool:
        kind = token.kind
        if kind in ("num", "sym", "const", "fun", "open", "call"):
            return True
        if kind == "bar":
            return not self.bars and not self.builders
        if kind == "cmd":
            return token.value not in ("over", "choose", "parallel", "perp")
        return kind == "env" and token.value.startswith("begin")

    def mixed(self, whole: Expr, token: Token) -> Expr | None:
        """`2 1/2` and `2\\frac{1}{2}`: an integer and a proper fraction of literals, without a sign between."""
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
            return self.signed(sign, self.exponent())
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

    def script(self) -> Expr:
        """What stands behind `_`: a group or one token."""
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
        """`{max}` or `{\\text{in}}`: a subscript that is a word."""
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

    # --- atoms

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
            return self.signed(value, self.power())
        if kind == "op" and value == "ldots":
            raise Unreadable("dots stand for what is left out")
        raise Unreadable(f"unexpected {value!r}")

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
        if name in _CALLED and [t.value for t in self.tokens[self.here : self.here + 6]] == [
            "^",
            "{",
            "-",
            "1",
            "{",
            "(",
        ]:
            self.here += 5
            return self.called(name + "^-1")
        if name in _CALLED or "_" in name or self.defines():
            return self.called(name)
        return Expr("sym", (name,))

    def defines(self) -> bool:
        """Whether `(x) =` follows: the left side of a function's definition."""
        opened, inner, closed, equals = (self.peek(i) for i in range(4))
        return (
            opened is not None
            and opened.kind == "open"
            and opened.value == "("
            and inner is not None
            and inner.kind in ("sym", "num")
            and closed is not None
            and closed.kind == "close"
            and equals is not None
            and equals.kind == "op"
            and equals.value == "="
        )

    def primes(self, node: Expr) -> Expr:
        name, *rest = node.args
        while self.at("op", "'"):
            self.take()
            name += "'"
        if rest:
            return Expr("call", (name, *rest))
        return self.called(name) if "'" in name else Expr("sym", (name,))

    def called(self, name: str) -> Expr:
        """`f(x)`: an unknown function of its arguments."""
        if self.at("open", "(") and not self.tokens[self.here].spaced:
            self.take()
            inner = self.bracketed("(")
            if inner.op == "tuple":
                return Expr("call", (name, *inner.args[2:]))
            return Expr("call", (name, inner))
        return Expr("sym", (name,))

    def items(self, close: str) -> tuple[list[Expr], str]:
        """Comma-separated relations up to a closing bracket; which one closed."""
        bars, self.bars = self.bars, 0
        builders, self.builders = self.builders, 0
        found: list[Expr] = []
        while True:
            if self.at("close"):
                closed = self.take().value
                break
            found.append(self.relation())
            if self.at("op", ",", ";", "and", "or"):
                while self.at("op", ",", ";", "and", "or"):
                    self.take()
                continue
            if self.at("close"):
                continue
            if self.peek() is not None and self.peek().kind in _UNITISH:  # type: ignore[union-attr]
                words = []
                while self.here < self.end and self.tokens[self.here].kind in _UNITISH:
                    words.append(self.take().value)
                found[-1] = Expr("qty", (found[-1], " ".join(words)))
                while self.at("op", ",", ";", "and", "or"):
                    self.take()
                continue
            raise Unreadable("an open bracket")
        self.bars, self.builders = bars, builders
        return found, closed

    def bracketed(self, opened: str) -> Expr:
        if opened == "set":
            return self.set_braces()
        if opened in ("floor", "ceil"):
            inner = self.relation()
            self.expect("close", opened)
            return Expr("fun", (opened, inner))
        if opened == "{" and self.here < self.end and self.tokens[self.here].kind in _UNITISH:
            words = []
            while self.here < self.end and self.tokens[self.here].kind in _UNITISH:
                words.append(self.take().value)
            self.expect("close", "{")
            return text(" ".join(words))
        if opened == "{":
            choose = self.choose()
            if choose is not None:
                return choose
        found, closed = self.items(opened)
        if not found:
            if opened == "{" or closed != opened:
                raise Unreadable("empty brackets")
            return Expr("tuple", (opened, closed))
        if len(found) == 1:
            if opened == closed:
                return found[0]
            raise Unreadable("brackets that do not match")
        if opened == "{":
            return Expr("list", tuple(found))
        if {opened, closed} == {"{", "["} or "{" in (opened, closed):
            raise Unreadable("brackets that do not match")
        return Expr("tuple", (opened, closed, *found))

    def choose(self) -> Expr | None:
        """`{n \\choose k}` and `{a \\over b}`."""
        depth = 0
        for i in range(self.here, min(self.end, self.here + 60)):
            token = self.tokens[i]
            if token.kind == "open":
                depth += 1
            elif token.kind == "close":
                if depth == 0:
                    return None
                depth -= 1
            elif depth == 0 and token.kind == "cmd" and token.value in ("choose", "over"):
                above = self.sum()
                op = self.take().value
                below = self.sum()
                self.expect("close", "{")
                return Expr("fun", ("binom", above, below)) if op == "choose" else Expr("div", (above, below))
        return None

    def set_braces(self) -> Expr:
        depth = 0
        for i in range(self.here, self.end):
            token = self.tokens[i]
            if token.kind == "open":
                depth += 1
            elif token.kind == "close":
                if depth == 0:
                    break
                depth -= 1
            elif depth == 0 and (
                (token.kind == "op" and token.value in ("mid", ":"))
                or (token.kind == "bar" and i > self.here and self._is_builder_bar(i))
                or (token.kind == "text" and token.value == "such that")
            ):
                return self.builder(i)
        found, closed = self.items("set")
        if closed != "set":
            raise Unreadable("a set that does not end")
        return Expr("set", tuple(found))

    def _is_builder_bar(self, at: int) -> bool:
        before = self.tokens[at - 1]
        if before.kind == "op" and before.value not in ("'",):
            return False
        inside = self.tokens[self.here : at]
        return all(t.kind in ("sym", "op", "cmd", "open", "close", "const", "num") for t in inside) and not any(
            t.kind == "bar" for t in inside
        )

    def builder(self, bar: int) -> Expr:
        self.builders += 1
        element = self.relation()
        while self.at("op", ","):
            self.take()
            element = Expr("tuple", ("(", "(", element, self.relation()))
        if self.here != bar:
            raise Unreadable("a set-builder")
        self.take()
        self.builders -= 1
        either = any(t.kind == "op" and t.value == "or" for t in self.tokens[self.here : self.end])
        conditions, closed = self.items("set")
        if either and len(conditions) > 1:
            conditions = [Expr("list", tuple(conditions))]
        if closed != "set" or not conditions:
            raise Unreadable("a set-builder")
        return Expr("builder", (element, tuple(conditions)))

    def absolute(self) -> Expr:
        if self.at("bar"):  # norm: a second bar
            self.take()
            self.bars += 1
            inner = self.relation()
            self.bars -= 1
            self.expect("bar")
            self.expect("bar")
            return Expr("fun", ("abs", inner))
        self.bars += 1
        inner = self.sum()
        self.bars -= 1
        self.expect("bar")
        return Expr("fun", ("det" if inner.op == "matrix" else "abs", inner))

    def named(self, name: str) -> Expr:
        """`name(...)` in plain infix: a constructor of computer algebra systems, or an unknown function."""
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
            self.take()
            index, closed = self.items("[")
            if len(index) != 1 or closed != "[":
                raise Unreadable("a root")
            return Expr("fun", ("root", self.argument_group(), index[0]))
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
        elif name in ("nCr",):
            node = Expr("fun", ("binom", *arguments))
        else:
            node = Expr("fun", (name, *arguments))
        if power is None:
            return node
        if power == num(-1) and ("a" + name) in (
            "asin",
            "acos",
            "atan",
            "acot",
            "asec",
            "acsc",
            "asinh",
            "acosh",
            "atanh",
        ):
            return Expr("fun", ("a" + name, *arguments))
        return Expr("pow", (node, power))

    def exponent_of_function(self) -> Expr:
        if self.at("op", "-"):
            self.take()
            return self.signed("-", self.atom())
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
            return self.signed("-", self.power())
        return self.power()

    def tex_argument(self) -> Expr:
        """A group, or one number, letter or command (`normalise` has already parted the digits of `\\frac12`)."""
        if self.at("num"):
            return self.number(self.take())
        if self.at("open", "{"):
            self.take()
            return self.bracketed("{")
        if self.at("sym") or self.at("const"):
            token = self.take()
            return Expr(token.kind, (token.value,))
        return self.atom()

    def command(self, name: str) -> Expr:
        if name == "frac":
            above = self.tex_argument()
            return Expr("div", (above, self.tex_argument()))
        if name == "sqrt":
            if self.at("open", "["):
                self.take()
                index, closed = self.items("[")
                if len(index) != 1 or closed != "[":
                    raise Unreadable("a root")
                return Expr("fun", ("root", self.argument_group(), index[0]))
            return Expr("fun", ("sqrt", self.argument_group()))
        if name == "root":
            index = [self.argument_group()]
            return Expr("fun", ("root", self.argument_group(), index[0]))
        if name in ("binom", "tbinom"):
            above = self.tex_argument()
            return Expr("fun", ("binom", above, self.tex_argument()))
        if name in ("sum", "prod"):
            return self.big(name)
        if name in ("lim", "int", "iint", "oint"):
            return self.unevaluated(name)
        if name in ("overline", "bar", "vec", "hat", "tilde", "widehat", "overrightarrow", "underline", "dot", "ddot",
                    "widetilde"):  # fmt: skip
            inner = self.tex_argument()
            if inner.op == "num":
                raise Unreadable("a repeating decimal without its point")
            if name in ("overline", "bar") and has(inner, "const") and not has(inner, "sym"):
                return Expr("fun", ("conj", inner))
            if inner == Expr("const", ("i",)):
                inner = Expr("sym", ("i",))  # a unit vector
            if name == "overrightarrow":
                name = "vec"
            if inner.op == "mul" and all(f.op == "sym" and f.args[0].isupper() for f in inner.args):
                points = [f.args[0] for f in inner.args]  # a vector has a direction, a segment has none
                return Expr("sym", ("".join(points if name == "vec" else sorted(points)) + "~" + name,))
            return Expr("call", (name, inner)) if inner.op != "sym" else Expr("sym", (inner.args[0] + "~" + name,))
        if name in ("angle", "triangle", "measuredangle"):
            points = [self.power()]
            while self.at("sym"):
                points.append(self.power())
            return Expr("call", (name, *points))
        if name in ("emptyset", "varnothing"):
            return Expr("set", ())
        if name in ("mathbb", "Bbb", "mathcal", "mathscr", "mathfrak"):
            inner = self.tex_argument()
            if inner.op == "sym" and inner.args[0] in _BLACKBOARD and name in ("mathbb", "Bbb"):
                suffix = ""
                if self.at("op", "^") or self.at("op", "_"):
                    self.take()
                    if self.at("op", "+", "-"):
                        suffix = self.take().value
                    elif self.at("open", "{") and (t := self.peek(1)) is not None and t.kind == "op":
                        self.take()
                        suffix = self.take().value
                        self.expect("close", "{")
                    else:
                        suffix = repr(self.exponent())
                return Expr("domain", (inner.args[0] + suffix,))
            return inner
        if name in ("boxed", "hbox"):
            return self.tex_argument()
        raise Unreadable(f"\\{name}")

    def big(self, kind: str) -> Expr:
        low = high = None
        for _ in range(2):
            if self.at("op", "_"):
                self.take()
                self.expect("open", "{")
                low = self.relation()
                self.expect("close", "{")
            elif self.at("op", "^"):
                self.take()
                high = self.exponent()
        if (
            low is None
            or high is None
            or low.op != "rel"
            or low.args[0] != ("=",)
            or low.args[1][0].op not in ("sym", "const")
        ):
            raise Unreadable("a sum without its bounds")
        index = low.args[1][0]
        variable = index.args[0]
        body = self.product()
        if index.op == "const":  # i counts here, and is no imaginary unit
            body = rebuild(body, lambda n: Expr("sym", (variable,)) if n == index else None)
        return Expr("big", (kind, variable, low.args[1][1], high, body))

    def unevaluated(self, kind: str) -> Expr:
        """A limit or an integral is kept as it stands: it equals only the same text."""
        start = self.here
        while self.here < self.end and not (
            self.tokens[self.here].kind == "op" and self.tokens[self.here].value in RELATIONS and self._outside(start)
        ):
            self.here += 1
        return Expr("opaque", (kind, tuple((t.kind, t.value) for t in self.tokens[start : self.here])))

    def _outside(self, start: int) -> bool:
        depth = 0
        for token in self.tokens[start : self.here]:
            depth += (token.kind == "open") - (token.kind == "close")
        return depth == 0

    def environment(self, value: str) -> Expr:
        if not value.startswith("begin "):
            raise Unreadable("an environment that was not opened")
        name = value[6:].rstrip("*")
        if name not in (
            "matrix",
            "pmatrix",
            "bmatrix",
            "vmatrix",
            "Bmatrix",
            "Vmatrix",
            "smallmatrix",
            "array",
            "cases",
        ):
            raise Unreadable(f"environment {name}")
        if name == "array" and self.at("open", "{"):
            while not self.at("close", "{"):
                self.take()
            self.take()
        rows: list[tuple[Expr, ...]] = []
        row: list[Expr] = []
        while True:
            if self.at("env"):
                if row:
                    rows.append(tuple(row))
                self.take()
                break
            if self.at("op", ";"):
                self.take()
                if row:
                    rows.append(tuple(row))
                row = []
                continue
            if self.at("op", "and") or (name == "cases" and self.at("op", ",")):
                self.take()
                continue
            if name == "cases" and (self.at("text") or self.at("word")):
                words = self.take().value
                if words.lower().strip(" ,.:") not in _CASE_WORDS:
                    row.append(text(words))
                continue
            row.append(self.relation())
        if name == "cases" and all(len(r) == 1 and r[0].op == "rel" for r in rows):
            return Expr("list", tuple(r[0] for r in rows))
        if name == "cases":
            return Expr("cases", (tuple(rows),))
        if name == "array" and len(rows) == len(rows[0]) == 1:
            return rows[0][0]
        if not rows or len({len(r) for r in rows}) != 1:
            raise Unreadable("a matrix with rows of different length")
        matrix = Expr("matrix", (tuple(rows),))
        return Expr("fun", ("det", matrix)) if name == "vmatrix" else matrix
