"""Several gold answers of one row, as a JSON list in its answer."""

from __future__ import annotations

import json


def gold_answers(text: str, several: bool) -> list[str] | None:
    """Return the gold answers: the text itself or, with `several`, the texts of a JSON list; None for a bad list.

    A text that is no list is one answer.
    """
    if not several or not text.lstrip().startswith("["):
        return [text]
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return [text]
    if not found or not all(isinstance(each, str | int) and not isinstance(each, bool) for each in found):
        return None
    return [str(each) for each in found]
