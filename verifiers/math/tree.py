"""The small expression tree that both sides of a comparison are parsed into.

num (value: Fraction, decimals: int | None)     sym (name)             const ("pi" | "e" | "i" | "inf")
add (terms...)   mul (factors...)               div (a, b)             pow (base, exponent)     neg (a)
fun (name, arguments...)                        call (name, arguments...), an unknown function
pm (a, sign)     fact (a)   deg (a)   pct (a)   base (digits, base)    big (kind, var, low, high, body)
rel (operators, operands)                       ratio (terms...)       qty (a, unit text)
tuple (open, close, items...)   set (items...)  list (items...)        builder (element, condition)
cup, cap, minus (sets...)       matrix (rows)   text (words)           lim, int: kept, not evaluated
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any, NamedTuple


class Unreadable(ValueError):  # noqa: N818 (a finding, not a fault)
    """The text is no answer that can be read."""


class Expr(NamedTuple):
    """One node."""

    op: str
    args: tuple[Any, ...]


def num(value: int | Fraction, decimals: int | None = None) -> Expr:
    """Return a number; `decimals` counts the digits after the point when it was written with one."""
    return Expr("num", (Fraction(value), decimals))


def text(words: str) -> Expr:
    """Return a node of words that are not mathematics."""
    return Expr("text", (words,))


def signed(sign: str | None, term: Expr) -> Expr:
    """Return the term behind `+`, `-`, `pm`, `mp` or no sign."""
    if sign in (None, "+"):
        return term
    if sign == "-":
        if term.op == "num":
            return num(-term.args[0], term.args[1])
        return Expr("neg", (term,))
    return Expr("pm", (term, 1 if sign == "pm" else -1))


def children(node: Expr) -> Iterator[Expr]:
    """Return the nodes directly below."""
    for arg in node.args:
        if isinstance(arg, Expr):
            yield arg
        elif isinstance(arg, tuple):
            for inner in arg:
                if isinstance(inner, Expr):
                    yield inner
                elif isinstance(inner, tuple):
                    yield from (cell for cell in inner if isinstance(cell, Expr))


def walk(node: Expr) -> Iterator[Expr]:
    """Return the node and all below it."""
    stack = [node]
    while stack:
        here = stack.pop()
        yield here
        if here.op not in ("num", "sym", "const"):
            stack.extend(children(here))


def has(node: Expr, *ops: str) -> bool:
    """Return whether a node of one of these kinds is in the tree."""
    return any(here.op in ops for here in walk(node))


def symbols(node: Expr) -> frozenset[str]:
    """Return the names of the free symbols (a sum's index is bound)."""
    if node.op == "sym":
        return frozenset(node.args)
    if node.op == "big":
        _, var, low, high, body = node.args
        return symbols(low) | symbols(high) | (symbols(body) - {var})
    names: frozenset[str] = frozenset()
    for child in children(node):
        names |= symbols(child)
    return names


def rebuild(node: Expr, change: Callable[[Expr], Expr | None]) -> Expr:
    """Return the tree with each node replaced by what `change` gives for it, where it gives something."""
    replaced = change(node)
    if replaced is not None:
        return replaced

    def inner(arg: Any) -> Any:
        if isinstance(arg, Expr):
            return rebuild(arg, change)
        if isinstance(arg, tuple):
            return tuple(inner(part) for part in arg)
        return arg

    return Expr(node.op, tuple(inner(arg) for arg in node.args))


def rename(node: Expr, names: dict[str, str]) -> Expr:
    """Return the tree with symbols renamed."""
    return rebuild(node, lambda n: Expr("sym", (names.get(n.args[0], n.args[0]),)) if n.op == "sym" else None)
