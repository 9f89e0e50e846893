"""The verifier `countdown`: an expression of the row's numbers that has the gold answer as its value."""

from __future__ import annotations

import json
from collections import Counter
from fractions import Fraction
from typing import Any

from rlvr import Task, Verdict, verifier

from .arithmetic import compute, read_value
from .stated import Place, graded, invalid, stated_answer, unparsed

MOST_NUMBERS = 100
"""Numbers of a row."""


@verifier(name="countdown", version="1", answer_form=None, columns=["nums"], cases="countdown.jsonl")
def check(completion: str, task: Task, *, answer_in: Place = "boxed", use_all: bool = True) -> Verdict:
    """Return 1.0 when the answer of `completion` computes `task.answer` from the numbers in the column `nums`.

    Args:
        completion: Text whose answer is an expression, as in `(3 + 5) * 4` or `(3 + 5) * 4 = 32`.
        task: Its `answer` is the target; its column `nums` holds the numbers, each to be used once.
        answer_in: Where the answer stands: boxed, tag (`<answer>`), line (`Answer:`), hashes (`####`), or whole.
        use_all: Every number must be used; otherwise, some may be left out.
    """
    numbers = row_numbers(task.extra.get("nums"))
    target = read_value(task.answer or "")
    if numbers is None or target is None:
        return invalid("the row needs a number as its answer, and a list of numbers in its column 'nums'")
    return judged(completion, answer_in, target, numbers, use_all)


def row_numbers(value: Any) -> list[int] | None:
    """Return the numbers of a row: a list of natural numbers, or its JSON text; None for anything else."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    if not isinstance(value, list) or not 0 < len(value) <= MOST_NUMBERS:
        return None
    whole = all(isinstance(each, int) and not isinstance(each, bool) and each >= 0 for each in value)
    return value if whole else None


def judged(completion: str, place: Place, target: Fraction, numbers: list[int], use_all: bool) -> Verdict:
    """Return the verdict on an expression that must have this value and use these numbers, each once."""
    answer = stated_answer(completion, place)
    if isinstance(answer, Verdict):
        return answer
    expression, equals, right = answer.partition("=")
    found = compute(expression)
    if isinstance(found, str):
        return graded(0, answer, found) if "zero" in found else unparsed(f"{answer[:80]!r}: {found}")
    claimed = read_value(right) if equals else found.value
    if claimed is None:
        return unparsed(f"{answer[:80]!r}: a number must follow the '='")
    used, given = Counter(found.numbers), Counter(numbers)
    if used - given:
        return graded(0, answer, f"it uses {min((used - given).elements())} more often than the row has it")
    if use_all and given - used:
        return graded(0, answer, f"it does not use {min((given - used).elements())}")
    if claimed != found.value:
        return graded(0, answer, f"it is {found.value}, not {right.strip()[:40]}")
    return graded(found.value == target, answer, f"it is {found.value}"[:200])
