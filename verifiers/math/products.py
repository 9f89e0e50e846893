"""Products whose order counts: cross products of vectors, and products of matrices in bold."""

from __future__ import annotations

import re
from collections import Counter

_VECTOR = (
    r"\\(?:mathbf|bm|boldsymbol|vec|overrightarrow|hat)\s*"
    r"(?:\{\s*(?:\\mathbf\s*\{\s*)?\\?[A-Za-z]{1,5}\s*\}?\s*\}|[A-Za-z](?![A-Za-z]))"
)
_CROSS = re.compile(
    r"(?P<before>[-+*/^]|\\times|\\cdot"
    r"|[\w})])?\s*(?P<a>" + _VECTOR + r")\s*\\times\s*(?P<b>" + _VECTOR + r")(?!\s*\\times)"
)
_BOLD = r"\\(?:mathbf|bm|boldsymbol|pmb)\s*(?:\{\s*[A-Z]{1,4}\s*\}|[A-Z](?![A-Za-z]))"
_MATRICES = re.compile(rf"{_BOLD}(?:\s*(?:\\cdot\s*)?{_BOLD})*")
_NAME = re.compile(r"[A-Z]")


def with_crosses_ordered(text: str) -> str:
    """Return the text with the factors of each cross product in alphabetical order: `b x a` as `-(a x b)`."""
    if "\\times" not in text:
        return text
    return _CROSS.sub(_ordered, text)


def _ordered(match: re.Match[str]) -> str:
    before, a, b = match["before"] or "", match["a"], match["b"]
    if _letters(a) <= _letters(b) or before in ("\\times", "/", "^"):
        return match[0]
    product = f"{b} \\times {a}"
    if before == "-":
        return f" + {product}"
    if before == "+":
        return f" - {product}"
    return f"{before} (-{product})" if before else f"-{product}"


def _letters(vector: str) -> str:
    return re.sub(r"\\(?:mathbf|bm|boldsymbol|vec|overrightarrow|hat)|[{}\s\\]", "", vector)


def reordered(gold: str, answer: str) -> bool:
    """Return True if both texts multiply the same matrices, in bold, in another order."""
    if not all("\\mathbf" in side or "\\bm" in side or "\\boldsymbol" in side for side in (gold, answer)):
        return False
    first, second = _matrix_products(gold), _matrix_products(answer)
    if not any(len(names) > 1 for names in first) or not any(len(names) > 1 for names in second):
        return False
    here, there = (Counter(map(tuple, side)) for side in (first, second))
    sorted_here, sorted_there = (Counter(tuple(sorted(names)) for names in side) for side in (first, second))
    return here != there and sorted_here == sorted_there


def _matrix_products(text: str) -> list[list[str]]:
    """Return the factors of each product of matrices in bold."""
    return [_NAME.findall(re.sub(r"\\[a-z]+", "", product[0])) for product in _MATRICES.finditer(text)]
