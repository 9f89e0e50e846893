"""The verifier `exact`: the answer is the gold answer, character by character."""

from __future__ import annotations

import unicodedata

from rlvr import Task, Verdict, verifier

from .golds import gold_answers
from .stated import Place, graded, invalid, stated_answer


@verifier(name="exact", version="1", sees="answer", cases="exact.jsonl")
def check(
    completion: str,
    task: Task,
    *,
    answer_in: Place = "boxed",
    case: bool = True,
    whitespace: bool = False,
    several: bool = False,
) -> Verdict:
    """Return 1.0 when the answer of `completion` is `task.answer`, and 0.0 when it is not.

    Args:
        completion: Text whose answer is compared.
        task: Its `answer` is the gold answer.
        answer_in: Where the answer stands: boxed, tag (`<answer>`), line (`Answer:`), hashes (`####`), or whole.
        case: Upper and lower case differ.
        whitespace: Every blank and line end counts; by default, several in a row are one blank.
        several: The gold answer is a JSON list of answers, and any of them is right.
    """
    golds = gold_answers(task.answer or "", several)
    if golds is None:
        return invalid(f"the gold answer {(task.answer or '')[:80]!r} is no JSON list of texts")
    answer = stated_answer(completion, answer_in)
    if isinstance(answer, Verdict):
        return answer
    said = {_form(answer, case, whitespace)}
    if answer_in in ("line", "hashes"):
        said.add(_form(answer.removesuffix("."), case, whitespace))
    equal = any(_form(gold.strip(), case, whitespace) in said for gold in golds)
    return graded(equal, answer, "equal" if equal else "another text")


def _form(text: str, case: bool, whitespace: bool) -> str:
    text = unicodedata.normalize("NFC", text)
    text = text if whitespace else " ".join(text.split())
    return text if case else text.casefold()
