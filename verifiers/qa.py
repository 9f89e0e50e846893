"""The verifier `qa`: short answers to questions of knowledge, by exact match or token F1 after normalization.

SQuAD's normalization drops all punctuation, so that -42 is 42 and 4.2 is 42. Here, texts with digits or operators keep
theirs; `normalization="squad"` restores the original.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from typing import Literal, TypeAlias

from rlvr import Task, Verdict, verifier

from .golds import gold_answers
from .stated import Place, graded, invalid, stated_answer

Normalization: TypeAlias = Literal["careful", "squad"]

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_SIGNS = re.compile(r"[\d+=<>^\\/*]")
_QUOTES = "“”‘’«»„…–—"
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_PROSE = str.maketrans("", "", string.punctuation + _QUOTES)
_GROUPED = re.compile(r"(?<![\d.])(\d{1,3}(?:,\d{3})+)(?![\d,])")
_AROUND = " \t\n.,;:!?\"'`“”‘’«»"


@verifier(name="qa", version="1", sees="answer", cases="qa.jsonl", partial_credit=True)
def check(
    completion: str,
    task: Task,
    *,
    score: Literal["exact", "f1"] = "exact",
    answer_in: Place = "boxed",
    several: bool = True,
    normalization: Normalization = "careful",
) -> Verdict:
    """Return 1.0 when the answer of `completion` is one of the gold answers after normalization; else 0.0, or its F1.

    Args:
        completion: Text whose answer is compared.
        task: Its `answer` is the gold answer, or a JSON list of gold answers.
        score: exact: all or nothing. f1: the best F1 of the tokens shared with a gold answer.
        answer_in: Where the answer stands: boxed, tag (`<answer>`), line (`Answer:`), hashes (`####`), or whole.
        several: A gold answer that is a JSON list stands for each of its texts.
        normalization: careful: signs and points of numbers count. squad: all punctuation is dropped, as SQuAD does.
    """
    golds = gold_answers(task.answer or "", several)
    forms = [normalized(gold, normalization) for gold in golds or ()]
    if not all(forms) or not forms:
        return invalid(f"the gold answer {(task.answer or '')[:80]!r} has no words")
    answer = stated_answer(completion, answer_in)
    if isinstance(answer, Verdict):
        return answer
    said = normalized(answer, normalization)
    if score == "f1":
        best = max(f1(said, form) for form in forms)
        return graded(best, answer, f"F1 of {best:.3f}")
    equal = said in forms
    return graded(equal, answer, "equal after normalization" if equal else "another answer")


def normalized(text: str, normalization: Normalization) -> str:
    """Return the text in lower case, without articles, extra blanks and punctuation.

    With `careful`, thousands separators are removed, and a text with digits or operators keeps its other punctuation,
    except around it.
    """
    text = text.casefold() if normalization == "careful" else text.lower()
    if normalization == "squad":
        text = text.translate(_PUNCTUATION)
    elif _SIGNS.search(text):
        text = _GROUPED.sub(lambda grouped: grouped[1].replace(",", ""), text.strip(_AROUND))
    else:
        text = text.translate(_PROSE)
    return " ".join(_ARTICLES.sub(" ", text).split())


def f1(said: str, gold: str) -> float:
    """Return the harmonic mean of precision and recall of the words in `said`, counted as often as they occur."""
    words, wanted = said.split(), gold.split()
    shared = sum((Counter(words) & Counter(wanted)).values())
    return 2 * shared / (len(words) + len(wanted)) if shared else 0.0
