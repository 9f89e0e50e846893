"""Rows of a data set that become prompts: filters of a card, equal questions, and options of multiple choice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from string import ascii_uppercase
from typing import Any

from rlvr.draws import permuted


def question_mark(question: str) -> bytes:
    """Return 8 bytes that identify a question, whatever white space separates its words."""
    return hashlib.blake2b(" ".join(question.split()).encode("utf-8", "surrogatepass"), digest_size=8).digest()


def is_kept(keep: Mapping[str, Sequence[str]], cells: Sequence[Any]) -> bool:
    """Return whether the cells of the columns of `keep` hold texts that are kept; other values count as JSON."""
    texts = (cell if isinstance(cell, str) else json.dumps(cell) for cell in cells)
    return all(text in kept for text, kept in zip(texts, keep.values(), strict=True))


def options_of(question: str, cells: Sequence[Any]) -> list[str] | None:
    """Return the options of a row in the order of the prompt; None if it has none.

    One cell is a list in its own order. Several cells are one option each, the first of them right; their order is
    drawn from the question, so that it is the same in every run and its letters say nothing.
    """
    if len(cells) == 1:
        texts = cells[0] if isinstance(cells[0], list | tuple) else []
    else:
        texts = [cell for cell in cells if cell is not None]
    if not 1 < len(texts) <= len(ascii_uppercase) or not all(isinstance(each, str | int | float) for each in texts):
        return None
    options = [""] * len(texts)
    for place, text in enumerate(texts):
        options[place if len(cells) == 1 else _landing(question, len(texts), place)] = str(text).strip()
    return options


def right_letter(question: str, cells: Sequence[Any]) -> str:
    """Return the letter of the right option, that of the first of several cells."""
    return ascii_uppercase[_landing(question, sum(cell is not None for cell in cells), 0)]


def _landing(question: str, size: int, place: int) -> int:
    return permuted(size, place, "choices", question_mark(question).hex())


def lettered(options: Sequence[str]) -> str:
    """Return the options as lines `A. text`."""
    return "\n".join(f"{letter}. {text}" for letter, text in zip(ascii_uppercase, options, strict=False))
