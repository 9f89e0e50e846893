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
        if term.op == "qty":
            return Expr("qty", (signed("-", term.args[0]), term.args[1]))
        return Expr("neg", (term,))
    return Expr("pm", (term, 1 if sign == "pm" else -1))


_LEAVES = frozenset({"num", "sym", "const"})


def children(node: Expr) -> list[Expr]:
    """Return the nodes directly below."""
    found: list[Expr] = []
    for arg in node.args:
        if isinstance(arg, Expr):
            found.append(arg)
        elif isinstance(arg, tuple):
            for inner in arg:
                if isinstance(inner, Expr):
                    found.append(inner)
                elif isinstance(inner, tuple):
                    found += [cell for cell in inner if isinstance(cell, Expr)]
    return found


def walk(node: Expr) -> Iterator[Expr]:
    """Return the node and all below it."""
    stack = [node]
    while stack:
        here = stack.pop()
        yield here
        if here.op not in _LEAVES:
            stack += children(here)


def has(node: Expr, *ops: str) -> bool:
    """Return whether a node of one of these kinds is in the tree."""
    stack = [node]
    while stack:
        here = stack.pop()
        if here.op in ops:
            return True
        if here.op not in _LEAVES:
            stack += children(here)
    return False


def symbols(node: Expr) -> frozenset[str]:
    """Return the names of the free symbols (a sum's index is bound)."""
    names: set[str] = set()
    stack = [node]
    while stack:
        here = stack.pop()
        if here.op == "sym":
            names.update(here.args)
        elif here.op == "big":
            _, var, low, high, body = here.args
            names |= symbols(low) | symbols(high) | (symbols(body) - {var})
        elif here.op not in _LEAVES:
            stack += children(here)
    return frozenset(names)


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
