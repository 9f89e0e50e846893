"""TeX commands with their arguments, and environments: fractions, roots, accents, sums, matrices, cases."""

from __future__ import annotations

from .cursor import RELATIONS
from .names import Names
from .tree import Expr, Unreadable, has, num, rebuild, text

_CASE_WORDS = frozenset({"if", "for", "when", "where", "otherwise", "else", "elsewhere", "and"})
_ACCENTS = frozenset(
    {"overline", "bar", "vec", "hat", "tilde", "widehat", "overrightarrow", "underline", "dot", "ddot", "widetilde"}
)
_ALPHABETS = frozenset({"mathbb", "Bbb", "mathcal", "mathscr", "mathfrak"})
_DOMAINS = frozenset("RZNQC")
_ENVIRONMENTS = frozenset(
    {"matrix", "pmatrix", "bmatrix", "vmatrix", "Bmatrix", "Vmatrix", "smallmatrix", "array", "cases"}
)


class Commands(Names):
    """The grammar of commands."""

    def tex_argument(self) -> Expr:
        """Return a group, or one number, letter or command (`normalize` has parted the digits of `\\frac12`)."""
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
                return self.indexed_root()
            return Expr("fun", ("sqrt", self.argument_group()))
        if name == "root":
            index = self.argument_group()
            return Expr("fun", ("root", self.argument_group(), index))
        if name in ("binom", "tbinom"):
            above = self.tex_argument()
            return Expr("fun", ("binom", above, self.tex_argument()))
        if name in ("sum", "prod"):
            return self.big(name)
        if name in ("lim", "int", "iint", "oint"):
            return self.unevaluated(name)
        if name in _ACCENTS:
            return self.accented(name)
        if name in ("angle", "triangle", "measuredangle"):
            points = [self.power()]
            while self.at("sym"):
                points.append(self.power())
            return Expr("call", (name, *points))
        if name in ("emptyset", "varnothing"):
            return Expr("set", ())
        if name in _ALPHABETS:
            return self.lettered(name)
        if name in ("boxed", "hbox"):
            return self.tex_argument()
        raise Unreadable(f"\\{name}")

    def accented(self, name: str) -> Expr:
        inner = self.tex_argument()
        if name in ("vec", "overrightarrow") and inner == num(0):
            return Expr("sym", ("0~vec",))
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

    def lettered(self, alphabet: str) -> Expr:
        """Return a letter of another alphabet: `\\mathbb{R}^+` is a domain, any other the letter itself."""
        inner = self.tex_argument()
        if inner.op == "sym" and inner.args[0] in _DOMAINS and alphabet in ("mathbb", "Bbb"):
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
        """Return a limit or an integral as it stands: it equals only the same text."""
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
        if name not in _ENVIRONMENTS:
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
