"""The verifier `sudoku`: a filled grid that obeys the rules and keeps the given digits."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from math import isqrt
from typing import Any

from rlvr import Task, Verdict, verifier

from .stated import Place, graded, invalid, stated_answer, unparsed

SIZES = {16: 4, 81: 9}
"""Number of cells → length of a side."""

_LAYOUT = re.compile(r"[\s|+,;&\-=\[\]\"']|\\\\|\\hline|`")


@verifier(
    name="sudoku",
    version="1",
    needs_answer=False,
    answer_form=None,
    columns=["puzzle"],
    cases="sudoku.jsonl",
)
def check(completion: str, task: Task, *, answer_in: Place = "boxed") -> Verdict:
    """Return 1.0 when the answer of `completion` solves the Sudoku in the column `puzzle`, and 0.0 when it does not.

    Any solution is right: `task.answer` is not read.

    Args:
        completion: Text whose answer is a grid: digits in reading order; blanks, commas, bars and brackets are layout.
        task: Its column `puzzle` holds 81 (or 16) cells, as text or as lists; `0`, `.`, `_` or `*` is an empty cell.
        answer_in: Where the answer stands: boxed, tag (`<answer>`), line (`Answer:`), hashes (`####`), or whole.
    """
    puzzle = _cells(task.extra.get("puzzle"))
    if puzzle is None or next(_clashes(puzzle), None):
        return invalid("the column 'puzzle' holds no Sudoku: expected 81 or 16 cells that contradict no rule")
    answer = stated_answer(completion, answer_in)
    if isinstance(answer, Verdict):
        return answer
    digits = _LAYOUT.sub("", answer)
    side = SIZES[len(puzzle)]
    if not re.fullmatch(rf"[1-{side}]{{{len(puzzle)}}}", digits, re.ASCII):
        return unparsed(f"no grid of {len(puzzle)} digits from 1 to {side}")
    grid = [int(digit) for digit in digits]
    for place, given in enumerate(puzzle):
        if given and grid[place] != given:
            where = f"row {place // side + 1}, column {place % side + 1}"
            return graded(0, digits, f"{where} is {grid[place]}, and {given} is given")
    clash = next(_clashes(grid), None)
    return graded(clash is None, digits, clash or "solved")


def _cells(value: Any) -> list[int] | None:
    """Return the cells of a puzzle, 0 for empty ones; None if it is none."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        rows = [[row] if isinstance(row, str | int) else row for row in value]
        if not all(isinstance(row, Sequence) for row in rows):
            return None
        value = "".join(str(cell) for row in rows for cell in row)
    if not isinstance(value, str) or len(value) > 1000:
        return None
    cells = re.sub(r"[._*]", "0", re.sub(r"[\s|,+-]", "", value))
    side = SIZES.get(len(cells))
    if side is None or not re.fullmatch(rf"[0-{side}]+", cells, re.ASCII):
        return None
    return [int(cell) for cell in cells]


def _clashes(cells: Sequence[int]) -> Iterator[str]:
    """Yield each digit that stands twice in a row, a column or a box."""
    side = SIZES[len(cells)]
    box = isqrt(side)
    for number in range(side):
        top, left = number // box * box, number % box * box
        units = {
            "row": [number * side + step for step in range(side)],
            "column": [step * side + number for step in range(side)],
            "box": [(top + step // box) * side + left + step % box for step in range(side)],
        }
        for name, places in units.items():
            digits = [cells[place] for place in places if cells[place]]
            twice = {digit for digit in digits if digits.count(digit) > 1}
            if twice:
                yield f"{name} {number + 1} has {min(twice)} twice"
