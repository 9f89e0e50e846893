"""Extraction of gold answers from the column that holds them: pure functions of text."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias

Gold: TypeAlias = Literal["whole", "hashes", "boxed", "json"]

_GROUPED = re.compile(r"([-+]?\$?)(\d{1,3}(?:,\d{3})+)(?!,?\d)")
_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s*")
_UNBRACED = re.compile(r"(.*?)(?:\$|\\\)|\\\]|\n|$)")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)


def after_hashes(text: str) -> str | None:
    """Return GSM8K's gold answer: the text after the last `####`, without thousands separators. None without `####`.

    Only commas between groups of three digits are removed: `(1,2)` stays two numbers.
    """
    _, hashes, gold = text.rpartition("####")
    if not hashes:
        return None
    gold = gold.strip()
    grouped = _GROUPED.match(gold)
    if grouped is None:
        return gold
    return grouped[1] + grouped[2].replace(",", "") + gold[grouped.end() :]


def last_boxed(text: str) -> str | None:
    r"""Return MATH's gold answer: the content of the last `\boxed{}` or `\fbox{}`, with balanced braces.

    None if there is no box, or if the last one is never closed. TeX allows a box without braces: for `$\boxed 5$`, the
    answer is `5`, everything up to the end of the formula.
    """
    boxes = list(_BOX.finditer(text))
    if not boxes:
        return None
    start = boxes[-1].end()
    if not text.startswith("{", start):
        unbraced = _UNBRACED.match(text, start)
        return unbraced[1].strip().rstrip(".,") if unbraced else None
    depth = 0
    for brace in _BRACE.finditer(text, start):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if depth == 0:
            return text[start + 1 : brace.start()].strip()
    return None


EXTRACTORS: Mapping[Gold, Callable[[str], str | None]] = {
    "whole": str.strip,
    "hashes": after_hashes,
    "boxed": last_boxed,
    "json": str.strip,
}
"""Functions that find the answer in its column, by the value of a card's `gold`. None or empty text: no answer."""
EXPECTED: Mapping[Gold, str] = {
    "whole": "text or a number",
    "hashes": "an answer after '####'",
    "boxed": "a closed \\boxed{} with an answer",
    "json": "a value",
}
"""The text that each function expects, for messages."""
