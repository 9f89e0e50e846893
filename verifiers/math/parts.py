"""Answers to several questions in one text: `(a) 3, (b) 5`, `a) 3 b) 5`, `a = 3, b = 5`."""

from __future__ import annotations

import re

from .words import unwrapped

MAX_LENGTH = 1_000
"""Characters of a text that is still looked through for parts."""

_ORDERS = (
    tuple("abcdefgh"),
    tuple("ABCDEFGH"),
    tuple("123456789"),
    ("i", "ii", "iii", "iv", "v", "vi", "vii", "viii"),
)
"""In one text they are of one kind: in `(a) (C), (b) (B)`, C and B are choices."""
_WRAPPED_LABEL = re.compile(r"\\(?:text\w*|mathrm|mathbf|mbox)\s?\{([^{}\\]*\(?\b[0-9A-Za-z]{1,4}\)[^{}\\]*)\}")
_FIRST = re.compile(r"\s*(?:\\\w+\s?\{\s?)?(?:[Pp]art )?(\(?)\s?([a-h]|[A-H]|[1-9]|[iv]{1,4})\s?\)")
_BEFORE = r"(?:^|(?<=[\s,;]))(?:[Pp]art )?"
_SIGN = r"(?:\s?(?<!\d)(?<!\d\s)[:=]|[:.](?=\s))"
"""Sign behind a label without a bracket. `1:3` is a ratio, `1.3` a number."""
_UNFINISHED = re.compile(r"(?:[-+*/=<>^_(\[]|\\(?:times|cdot|div|pm|mp|cup|cap|setminus|in|leq?|geq?|neq?|to))$")
"""The end of a text that goes on behind a bracket, which then is no label: `(1)x + (2)y`."""
_BRACKET_OR_MARK = re.compile(r"[()\[\]{}]|[,;]|\band\b|\n|\\\\")


def parts(text: str) -> dict[str, str] | None:
    """Return the answers by their labels, when the whole text is such; None for anything else.

    The labels are the first letters, numbers or Roman numerals, in any order, each behind a bracket and each once.
    """
    first = _FIRST.match(text) if len(text) <= MAX_LENGTH else None
    if first is None:
        return None
    text = _WRAPPED_LABEL.sub(lambda m: m[1], text)
    opening = r"\(" if first[1] else ""
    order = next((order for order in _ORDERS if first[2] in order), None)
    return _divided(text, rf"{opening}\s?({'|'.join(order)})\s?\)\s?[:=]?", order) if order else None


def parts_as(other: dict[str, str] | None, text: str) -> dict[str, str] | None:
    """Return the answers of a text that has the labels of the other without brackets: `a = 3, b = 5`, `a: 3; b: 5`."""
    if other is None or len(text) > MAX_LENGTH:
        return None
    return _divided(text, f"({'|'.join(other)}){_SIGN}", tuple(other))


def without_labels(text: str) -> list[str]:
    """Return the answers of a text that has no labels, in their order; what is in brackets is not divided."""
    text = unwrapped(text)
    pieces, start, depth = [], 0, 0
    for mark in _BRACKET_OR_MARK.finditer(text):
        if mark[0] in "([{":
            depth += 1
        elif mark[0] in ")]}":
            depth -= 1
        elif depth == 0:
            pieces.append(text[start : mark.start()])
            start = mark.end()
    return [piece.strip() for piece in (*pieces, text[start:]) if piece.strip()]


def _divided(text: str, label: str, order: tuple[str, ...]) -> dict[str, str] | None:
    marks = list(re.finditer(rf"{_BEFORE}{label}\s*", text))
    if len(marks) < 2 or text[: marks[0].start()].strip():
        return None
    found: dict[str, str] = {}
    for mark, following in zip(marks, [*marks[1:], None], strict=True):
        content = text[mark.end() : following.start() if following else len(text)].rstrip(" \n,;")
        content = content.removesuffix("\\\\").removesuffix(" and").rstrip(" \n,;")
        if content in ("", "and") or _UNFINISHED.search(content):
            return None
        found[mark[1]] = content
    if len(found) < len(marks) or not found.keys() <= set(order[: len(marks)]):
        return None
    return {name.lower(): found[name] for name in order[: len(marks)]}
