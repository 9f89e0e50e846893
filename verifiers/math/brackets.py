"""Brackets: groups, tuples, sets and set-builders, absolute values."""

from __future__ import annotations

from .cursor import WORDS, Cursor
from .tree import Expr, Unreadable, text


class Brackets(Cursor):
    """The grammar of brackets."""

    def items(self, close: str) -> tuple[list[Expr], str]:
        """Return the comma-separated relations up to a closing bracket, and which bracket closed."""
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
            if self.peek() is not None and self.peek().kind in WORDS:  # type: ignore[union-attr]
                words = []
                while self.here < self.end and self.tokens[self.here].kind in WORDS:
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
        if opened == "{" and self.here < self.end and self.tokens[self.here].kind in WORDS:
            words = []
            while self.here < self.end and self.tokens[self.here].kind in WORDS:
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
        """Read `{n \\choose k}` and `{a \\over b}`; None for any other group."""
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
