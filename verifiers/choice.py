"""The verifier `choice`: multiple choice, answered by letter, by the option's text, or by both.

The row's column `choices` holds the options in the order in which the prompt shows them: a list of texts, or an object
with `label` and `text`. Without it, letters are compared.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from string import ascii_uppercase
from typing import Any

from rlvr import Task, Verdict, verifier

from .stated import Place, graded, invalid, stated_answer, unparsed, unstyled

_LETTER = re.compile(r"\(?\[?([A-Za-z])\]?\)?[.:]?")
_LETTER_AND_TEXT = re.compile(r"\(?\[?([A-Za-z])(?:\]?\)[.:]?|[.:])\s+(.+)", re.DOTALL)
_SEPARATORS = re.compile(r"\s*(?:,|;|&|\band\b)\s*|\s+")
_TOGETHER = re.compile(r"[A-Z]{2,26}")


@verifier(name="choice", version="1", cases="choice.jsonl")
def check(
    completion: str,
    task: Task,
    *,
    answer_in: Place = "boxed",
    several: bool = False,
    column: str = "choices",
) -> Verdict:
    """Return 1.0 when the chosen options are those of `task.answer`, and 0.0 when they are not.

    Args:
        completion: Text whose answer is compared.
        task: Its `answer` is the right letter, or the right option's text; with `several`, letters like `A, C`.
        answer_in: Where the answer stands: boxed, tag (`<answer>`), line (`Answer:`), hashes (`####`), or whole.
        several: Several options may be right, and exactly the right ones must be chosen.
        column: Column with the options, in the order of the prompt.
    """
    options = _options(task.extra.get(column))
    if options is None:
        return invalid(f"column {column!r} holds no options: expected a list of texts, or label and text")
    right = _chosen(unstyled(task.answer or ""), options, several)
    if not right or not (right <= options.keys() or not options):
        return invalid(f"the gold answer {(task.answer or '')[:80]!r} is none of the options")
    answer = stated_answer(completion, answer_in)
    if isinstance(answer, Verdict):
        return answer
    chosen = _chosen(answer, options, several)
    if chosen is None:
        return unparsed(f"{answer[:80]!r} is none of the options")
    return graded(chosen == right, ", ".join(sorted(chosen)), "chosen: " + ", ".join(sorted(chosen)))


def _options(value: Any) -> dict[str, str] | None:
    """Return letter → text, empty if the row has no options; None for something else."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    if value is None:
        return {}
    labels: Any = ascii_uppercase
    if isinstance(value, Mapping):
        labels, value = value.get("label"), value.get("text")
        if not _texts(labels) or not _texts(value) or len(labels) != len(value):
            return None
    if not _texts(value) or not 0 < len(value) <= len(labels):
        return None
    return dict(zip((str(label).upper() for label in labels), map(str, value), strict=False))


def _texts(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(e, str | int) for e in value)


def _chosen(answer: str, options: Mapping[str, str], several: bool) -> set[str] | None:
    """Return the letters that an answer chooses; None if it cannot be read as a choice."""
    one = _one(answer, options)
    if one is not None:
        return {one}
    if not several or len(answer) > 200:
        return None
    letters = [*answer] if _TOGETHER.fullmatch(answer) else [each for each in _SEPARATORS.split(answer) if each]
    found = [_one(each, options) for each in letters]
    if not found or None in found or len(set(found)) < len(found):
        return None
    return {each for each in found if each is not None}


def _one(answer: str, options: Mapping[str, str]) -> str | None:
    """Return the letter of the one option that an answer names; None if it names none, or two."""
    answer = answer.strip()
    by_text = [letter for letter, text in options.items() if _form(text) == _form(answer)]
    if len(by_text) > 1:
        return None
    match = _LETTER.fullmatch(answer)
    by_letter: str | None = match[1].upper() if match else answer.upper()
    if by_letter not in options and (options or match is None):
        by_letter = None
    if by_letter is not None and by_text and by_letter not in by_text:
        return None  # the letter of one option is the text of another
    if by_letter is not None or by_text:
        return by_letter or by_text[0]
    both = _LETTER_AND_TEXT.fullmatch(answer)
    if both is None:
        return None
    letter, text = both[1].upper(), both[2]
    return letter if letter in options and _form(options[letter]) == _form(text) else None


def _form(text: str) -> str:
    return " ".join(unstyled(text).casefold().split()).rstrip(".")
