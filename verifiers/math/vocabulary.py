"""Sets of words, written as text."""

from __future__ import annotations


def vocabulary(text: str) -> frozenset[str]:
    """Return the words of the text."""
    return frozenset(text.split())
