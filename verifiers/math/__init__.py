"""The verifier `math`: is the completion's final answer the gold answer?

Stages, each cheaper than the next: extraction (`extract`), one spelling (`normalize`), exact numbers (`exact`), words
(`parts`, `words`), a tree (`lex`, `parse`, `tree`), collections, relations and units (`compare`, `region`, `units`),
values (`numeric`), algebra (`algebra`). The first four import no library. mpmath is imported when values are compared,
sympy only when their comparison cannot tell.
"""

from __future__ import annotations

from functools import lru_cache

from rlvr import Status, Task, Verdict, verifier

from .answers import Judgment, judge, readable
from .claims import Found
from .extract import final_answer, gold_answer, kind_of
from .options import Assume, Options, Units

__all__ = ["Options", "check", "preload"]


def preload() -> None:
    """Import what the later stages need, so that worker processes forked from here find it loaded."""
    from .numeric import context

    context()


_options = lru_cache(maxsize=64)(Options)  # the same for every row


@verifier(name="math", version="5", preload=preload, sees="answer", cases="corpus.jsonl")
def check(
    completion: str,
    task: Task,
    *,
    float_rtol: float = 1e-4,
    gold_precision: bool = True,
    percent_is_ratio: bool = True,
    percent_is_number: bool = True,
    ordered: bool = False,
    units: Units = "convert",
    unreduced: bool = True,
    intervals: bool = True,
    assignment: bool = True,
    degrees: bool = True,
    assume: Assume = "real",
    unevaluated: bool = False,
    thinking: str = "",
) -> Verdict:
    """Return 1.0 when the final answer of `completion` equals `task.answer`, and 0.0 when it does not.

    `unparsed`: no final answer can be read. `invalid`: the row has no gold answer, or one that cannot be read.

    Args:
        completion: Text whose final answer is judged.
        task: Its `answer` is the gold answer.
        float_rtol: Largest relative error of a decimal answer for an exact gold; 0 requires exact answers.
        gold_precision: A gold with three or more significant digits is rounded: 3.14 accepts values that round to it.
        percent_is_ratio: 50% equals 1/2.
        percent_is_number: 50% equals 50.
        ordered: Lists (`1, 2`) must have the order of the gold; tuples always must.
        units: `convert`: 5 km equals 5000 m; `ignore`: units do not matter; `require`: the gold's unit must be given.
        unreduced: 2/4 is right for 1/2.
        intervals: (1, 2) equals 1 < x < 2.
        assignment: 5 equals x = 5.
        degrees: 45 equals 45 degrees.
        assume: Values that a symbol may have when formulas are compared.
        unevaluated: Accept an answer that is not calculated, if its value is the gold: gcd(6432, 132) + 11 for 23.
        thinking: Further tags whose content is ignored, separated by commas: `plan,draft` skips `<plan>…</plan>`.

    `Options` describes the conventions in full.
    """
    gold = gold_answer(task.answer) if task.answer else None
    if gold is None:
        return Verdict(status=Status.INVALID, reason="the row has no gold answer")
    tags = tuple(filter(None, thinking.replace(" ", "").split(","))) if thinking else ()
    found = final_answer(completion, kind_of(gold), tags)
    if found is None:
        if not readable(gold):
            return Verdict(status=Status.INVALID, reason=f"the gold answer {gold[:80]!r} cannot be read")
        return Verdict(status=Status.UNPARSED, reason="no final answer in the completion")
    options = _options(
        float_rtol, gold_precision, percent_is_ratio, percent_is_number, ordered, units, unreduced, intervals,
        assignment, degrees, assume, unevaluated,
    )  # fmt: skip
    try:
        judgment = judge(gold, found.text, options)
    except RecursionError:
        return Verdict(status=Status.UNPARSED, reason="nested too deeply")
    return _verdict(found, judgment)


def _verdict(found: Found, judgment: Judgment) -> Verdict:
    """Return the verdict on an answer that was found and judged."""
    extracted = found.text if len(found.text) <= 1000 else found.text[:1000] + "…"
    if judgment.status == "invalid":
        return Verdict(status=Status.INVALID, extracted=extracted, reason=judgment.reason)
    if judgment.status == "unparsed":
        return Verdict(status=Status.UNPARSED, extracted=extracted, reason=judgment.reason)
    return Verdict(
        status=Status.GRADED, reward=1.0 if judgment.status == "equal" else 0.0, extracted=extracted,
        reason=f"{found.by}: {judgment.reason}",
    )  # fmt: skip
