"""The verifier `puzzle24`: an expression of the row's numbers, each used once, that is 24."""

from __future__ import annotations

from fractions import Fraction

from rlvr import Task, Verdict, verifier

from .countdown import judged, row_numbers
from .stated import Place, invalid


@verifier(
    name="puzzle24",
    version="1",
    needs_answer=False,
    answer_form=None,
    columns=["numbers"],
    cases="puzzle24.jsonl",
)
def check(completion: str, task: Task, *, answer_in: Place = "boxed", target: int = 24) -> Verdict:
    """Return 1.0 when the answer of `completion` computes the target from the numbers in the column `numbers`.

    Args:
        completion: Text whose answer is an expression, as in `(8 - 4) * 6 * 1`.
        task: Its column `numbers` holds the numbers, each to be used exactly once. Its `answer` is not read.
        answer_in: Where the answer stands: boxed, tag (`<answer>`), line (`Answer:`), hashes (`####`), or whole.
        target: Value that the expression must have.
    """
    numbers = row_numbers(task.extra.get("numbers"))
    if numbers is None:
        return invalid("the row needs a list of numbers in its column 'numbers'")
    return judged(completion, answer_in, Fraction(target), numbers, use_all=True)
