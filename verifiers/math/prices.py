"""Tells the dollar signs of prices from those around formulas, and removes a calculator's marks.

`$129 + $92 = $221` holds three prices; `$x + 92$` is a formula. Every price's sign becomes `\\$`, so that the later
stages see dollars around formulas only.
"""

from __future__ import annotations

import re

MAX_FORMULA = 1_000
"""Characters between two dollar signs that may still be a formula."""

_CALCULATOR = re.compile(r"<<[^<>\n]{0,200}>>")
_SIGNS = re.compile(r"\\.|\$\$|\$|\n[ \t]*\n", re.DOTALL)
_OPEN_END = re.compile(r"[-+*/=×÷·<>,;:(–−]\s*$|(?:(?<![A-Za-z\\])x|\b(?:and|or|to|by|of|is|for|at|a))\s+$")
_COEFFICIENT = re.compile(r"-?\d[\d.,]*[a-jln-zA-JLN-Z](?![A-Za-z])")
"""A number before a letter that is neither k nor m (thousands, millions): `2x`."""
_COMMAND = re.compile(r"\\(?:text\w*|mathrm|mbox|operatorname)\s*\{[^{}]*\}|\\[A-Za-z]+")
_WORD = re.compile(r"(?<![A-Za-z])[A-Za-z]{2,}(?![A-Za-z])")
_NAMES = frozenset({"sin", "cos", "tan", "cot", "log", "ln", "exp", "max", "min", "gcd", "lcm", "mod", "det", "pi"})
_MARKUP = frozenset("\\^_{}")


def without_calculator_marks(text: str) -> str:
    """Return the text without GSM8K's `<<48/2=24>>`."""
    return _CALCULATOR.sub("", text) if "<<" in text else text


def with_prices_marked(text: str) -> str:
    """Return the text with the dollar sign of every price escaped."""
    if "$" not in text:
        return text
    signs = [(sign.start(), sign[0]) for sign in _SIGNS.finditer(text) if sign[0][0] in "$\n"]
    prices: list[int] = []
    i = 0
    while i < len(signs):
        at, sign = signs[i]
        if sign == "$":
            following = signs[i + 1] if i + 1 < len(signs) else (len(text), "")
            if following[1] == "$" and _is_formula(text, at, following[0]):
                i += 1
            elif _beside_number(text, at):
                prices.append(at)
        i += 1
    if not prices:
        return text
    pieces = [text[start:end] for start, end in zip([0, *prices], [*prices, len(text)], strict=True)]
    return "\\".join(pieces)


def _beside_number(text: str, at: int) -> bool:
    if _COEFFICIENT.match(text, at + 1):
        return False
    after = text[at + 1 : at + 3].lstrip("-−. ")[:1]
    return after.isdigit() or text[max(at - 2, 0) : at].rstrip()[-1:].isdigit()


def _is_formula(text: str, start: int, end: int) -> bool:
    """Return True if what stands between two dollar signs reads as a formula rather than as text between prices."""
    inside = text[start + 1 : end]
    if not inside.strip() or len(inside) > MAX_FORMULA or inside[0] in "?!.,;:)" or _OPEN_END.search(inside):
        return False
    if inside[-1:].isspace() and text[end + 1 : end + 2].isdigit() and inside[:1].isdigit():
        return False
    marked = not _MARKUP.isdisjoint(inside)
    words = [word for word in _WORD.findall(_COMMAND.sub(" ", inside) if marked else inside) if word not in _NAMES]
    if inside[0].isdigit() or text[start - 1 : start].isdigit():
        return not words or (marked and len(words) < 2)
    if "\n" in inside and not marked:
        return False
    return len(words) < 2 or (marked and not inside[0].isspace()) or (not inside[0].isspace() and len(words) < 4)
