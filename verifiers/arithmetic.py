"""Values of expressions of numbers, + - * / and parentheses, as exact fractions. Nothing is evaluated as code."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple

LONGEST = 500
"""Characters of an expression."""
MOST_DIGITS = 12
"""Digits of a number."""

_SPELLINGS = {"\\times": "*", "\\cdot": "*", "\\div": "/", "\\left": "", "\\right": "", "×": "*", "·": "*", "÷": "/"}
_SPELLINGS |= {"−": "-", "–": "-", "[": "(", "]": ")", "\\,": "", "\\!": "", "$": ""}
_SPELLED = re.compile("|".join(map(re.escape, _SPELLINGS)))
_TOKEN = re.compile(r"\s*(?:(\d+)|([-+*/()]))", re.ASCII)
_VALUE = re.compile(rf"(-?\d{{1,{MOST_DIGITS}}})(?:/0*([1-9]\d{{0,{MOST_DIGITS}}}))?", re.ASCII)
_RANK = {"+": 1, "-": 1, "*": 2, "/": 2}


class Computed(NamedTuple):
    """The value of an expression, and the numbers in it from left to right."""

    value: Fraction
    numbers: list[int]


def compute(text: str) -> Computed | str:
    """Return the value of an expression; the reason if it is none, or divides by zero.

    There are no signs before numbers and no omitted operators: `-3` and `2(3)` are refused.
    """
    tokens = _tokens(text)
    if isinstance(tokens, str):
        return tokens
    values: list[Fraction] = []
    waiting: list[str] = []
    numbers: list[int] = []
    wants_value = True
    for token in tokens:
        if token == ")" and not wants_value:
            while waiting and waiting[-1] != "(":
                if not _apply(waiting.pop(), values):
                    return "it divides by zero"
            if not waiting:
                return "a parenthesis closes that was never opened"
            waiting.pop()
        elif token == "(" and wants_value:
            waiting.append(token)
        elif token.isdigit() and wants_value:
            numbers.append(int(token))
            values.append(Fraction(int(token)))
            wants_value = False
        elif token in _RANK and not wants_value:
            while waiting and _RANK.get(waiting[-1], 0) >= _RANK[token]:
                if not _apply(waiting.pop(), values):
                    return "it divides by zero"
            waiting.append(token)
            wants_value = True
        else:
            return f"{token!r} stands where it cannot"
    if wants_value or "(" in waiting:
        return "it is incomplete"
    while waiting:
        if not _apply(waiting.pop(), values):
            return "it divides by zero"
    return Computed(values[0], numbers)


def read_value(text: str) -> Fraction | None:
    """Return the number that a text is, an integer or a fraction of two; None for anything else."""
    match = _VALUE.fullmatch(text.strip().replace("−", "-"))
    return Fraction(int(match[1]), int(match[2] or 1)) if match else None


def _tokens(text: str) -> list[str] | str:
    """Return the tokens of an expression, or why it has none."""
    if len(text) > LONGEST:
        return f"it has {len(text):,} characters: at most {LONGEST} are read"
    text = _SPELLED.sub(lambda match: _SPELLINGS[match[0]], text).strip()
    tokens, here = [], 0
    while here < len(text):
        match = _TOKEN.match(text, here)
        if match is None or len(match[1] or "") > MOST_DIGITS:
            return f"{text[here : here + 20]!r} is no number, operator or parenthesis"
        tokens.append(match[1] or match[2])
        here = match.end()
    return tokens or "it is empty"


def _apply(operator: str, values: list[Fraction]) -> bool:
    """Replace the last two values by their result. Return False for a division by zero."""
    right, left = values.pop(), values.pop()
    if operator == "/" and not right:
        return False
    match operator:
        case "+":
            values.append(left + right)
        case "-":
            values.append(left - right)
        case "*":
            values.append(left * right)
        case _:
            values.append(left / right)
    return True
