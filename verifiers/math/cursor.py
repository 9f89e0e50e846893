"""A place in the tokens, and the rules by which the parts of the grammar call each other.

The grammar is a tower of classes, a module each: `Cursor`, `Brackets`, `Names`, `Commands`, `Formula`. A part calls the
parts below it directly; of what stands above it, it knows only the abstract rules here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from .lex import Token
from .tree import Expr, Unreadable

MAX_DEPTH = 120
"""Brackets within brackets."""
RELATIONS = frozenset({"=", "<", ">", "<=", ">=", "!=", "~", "==", "in", "notin", "subset", "to"})
WORDS = frozenset({"text", "unit", "word"})
"""Kinds of tokens that are no mathematics."""


class Cursor(ABC):
    """Reads the tokens from `start` up to `end`."""

    def __init__(self, found: list[Token], start: int, end: int) -> None:
        self.tokens = found
        self.here = start
        self.end = end
        self.depth = 0
        self.bars = 0
        """Open bars: inside of them the next bar closes."""
        self.builders = 0
        """Open set-builders: inside of them a bar or a colon parts the element from its conditions."""

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

    def starts_factor(self, token: Token) -> bool:
        """Return whether a factor may begin with the token, so that a product goes on without a sign."""
        kind = token.kind
        if kind in ("num", "sym", "const", "fun", "open", "call"):
            return True
        if kind == "bar":
            return not self.bars and not self.builders
        if kind == "cmd":
            return token.value not in ("over", "choose", "parallel", "perp")
        return kind == "env" and token.value.startswith("begin")

    @abstractmethod
    def relation(self) -> Expr:
        """Read `a < b = c`, or one side of it."""

    @abstractmethod
    def sum(self) -> Expr:
        """Read `a + b - c`."""

    @abstractmethod
    def product(self) -> Expr:
        """Read `a b / c`."""

    @abstractmethod
    def power(self) -> Expr:
        """Read `a^b`."""

    @abstractmethod
    def exponent(self) -> Expr:
        """Read what stands behind `^`."""

    @abstractmethod
    def atom(self) -> Expr:
        """Read a number, a name, a command with its arguments, or brackets."""
