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
_VECTORS = re.compile(rf"(?:{_VECTOR}|\\nabla)\s*\\(times|cdot)(?=\s*{_VECTOR})")
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


_INVERSES = re.compile(r"[A-Z]\s*\^\s*\{?\s*(?:-\s*1|T|\\top)(?![A-Za-z])")
_FACTOR = r"[A-DMNPQSUXYZ](?:\s*\^\s*(?:\{\s*(?:-\s*1|T|\\top|\d)\s*\}|T|\d))?"
_PLAIN_MATRICES = re.compile(rf"(?<![A-Za-z\\]){_FACTOR}(?:\s*{_FACTOR})+(?![A-Za-z])")


def _plain_products(text: str) -> list[list[str]]:
    """Return the factors of each product of capital letters: `A^{-1}B`."""
    return [
        ["".join(c for c in factor if c not in "{} ") for factor in re.findall(_FACTOR, product[0])]
        for product in _PLAIN_MATRICES.finditer(text)
    ]


def reordered(gold: str, answer: str) -> bool:
    """Return True if both texts multiply the same matrices, in bold or with an inverse, in another order.

    Scalar and cross products of vectors are other products too.
    """
    if all(("\\times" in side or "\\cdot" in side) for side in (gold, answer)):
        kinds, other_kinds = sorted(_VECTORS.findall(gold)), sorted(_VECTORS.findall(answer))
        if kinds and other_kinds and kinds != other_kinds:
            return True
    if all("\\mathbf" in side or "\\bm" in side or "\\boldsymbol" in side for side in (gold, answer)):
        first, second = _matrix_products(gold), _matrix_products(answer)
    elif all("^" in side and _INVERSES.search(side) for side in (gold, answer)):
        first, second = _plain_products(gold), _plain_products(answer)
    else:
        return False
    if not any(len(names) > 1 for names in first) or not any(len(names) > 1 for names in second):
        return False
    here, there = (Counter(map(tuple, side)) for side in (first, second))
    sorted_here, sorted_there = (Counter(tuple(sorted(names)) for names in side) for side in (first, second))
    return here != there and sorted_here == sorted_there


def _matrix_products(text: str) -> list[list[str]]:
    """Return the factors of each product of matrices in bold."""
    return [_NAME.findall(re.sub(r"\\[a-z]+", "", product[0])) for product in _MATRICES.finditer(text)]
