"""Gold answers, taken out of the column that holds them: pure functions of text."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias

Gold: TypeAlias = Literal["whole", "hashes", "boxed"]

_GROUPED = re.compile(r"([-+]?\$?)(\d{1,3}(?:,\d{3})+)(?!,?\d)")
_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s*")
_UNBRACED = re.compile(r"(.*?)(?:\$|\\\)|\\\]|\n|$)")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)


def after_hashes(text: str) -> str | None:
    """GSM8K's gold: what follows the last `####`, a number without the commas of its thousands. None without `####`.

    Only commas between groups of three digits go: `(1,2)` stays two numbers.
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
    r"""MATH's gold: what the last `\boxed{}` or `\fbox{}` holds, braces counted, escaped ones not. None without a box,
    and where the last one is never closed.

    TeX needs no braces: of `$\boxed 5$` it is `5`, all that follows up to the end of the formula.
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


TAKE_OUT: Mapping[Gold, Callable[[str], str | None]] = {
    "whole": str.strip,
    "hashes": after_hashes,
    "boxed": last_boxed,
}
"""How a card's `gold` finds the answer in its column; None, or empty text: there is none."""
EXPECTED: Mapping[Gold, str] = {
    "whole": "text or a number",
    "hashes": "an answer after '####'",
    "boxed": "a closed \\boxed{} with an answer",
}
"""What a message says was expected."""
