"""The verifier `length`: completions of a wanted length, for use as a part of a composed reward."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from rlvr import Status, Task, Verdict, verifier

from .math.thinking import after_thinking
from .stated import invalid, unparsed

LengthUnit: TypeAlias = Literal["characters", "words", "lines"]

_COUNT: Mapping[LengthUnit, Callable[[str], int]] = {
    "characters": len,
    "words": lambda text: len(text.split()),
    "lines": lambda text: sum(1 for line in text.splitlines() if line.strip()),
}


@verifier(name="length", version="1", needs_answer=False, answer_form=None, partial_credit=True, cases="length.jsonl")
def check(
    completion: str,
    task: Task,
    *,
    unit: LengthUnit = "words",
    least: Annotated[int, Field(ge=0)] = 1,
    most: Annotated[int, Field(ge=0)] = 500,
    margin: Annotated[int, Field(ge=0)] = 0,
    of: Literal["answer", "completion"] = "answer",
    column: str = "",
) -> Verdict:
    """Return 1.0 for a length from `least` to `most`, falling to 0.0 over `margin` units beyond them.

    Args:
        completion: Text whose length is counted.
        task: Has the largest length in its column `column`, if one is named.
        unit: characters, words (between blanks), or lines that are not blank.
        least: Smallest length with the full reward.
        most: Largest length with the full reward.
        margin: Units beyond these limits over which the reward falls linearly; 0 is a hard limit.
        of: answer: what follows the thinking. completion: all of it.
        column: Column of the row with this row's `most`.
    """
    if column:
        wanted = task.extra.get(column)
        if isinstance(wanted, bool) or not isinstance(wanted, int) or wanted < 0:
            return invalid(f"column {column!r} holds {wanted!r}: expected a length")
        most = wanted
    if least > most:
        return invalid(f"no length is at least {least} and at most {most}")
    text = completion if of == "completion" else after_thinking(completion)
    if text is None:
        return unparsed("the thinking never ends")
    size = _COUNT[unit](text)
    beyond = max(least - size, size - most, 0)
    reward = max(0.0, 1 - beyond / (margin + 1)) if text.strip() else 0.0
    return Verdict(status=Status.GRADED, reward=reward, extracted=str(size), reason=f"{size:,} {unit}")
