"""The verifier `reasoning-gym`: the answer to a question of the prompt source `reasoning-gym`.

The library's own scorers judge, except where they execute the answer as Python or reward what is no answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from rlvr import Task, Verdict, verifier

from .countdown import judged
from .stated import Place, graded, invalid, stated_answer, unparsed


class GeneratedQuestion(NamedTuple):
    """A generated question, and the task's data set that can score an answer."""

    data: Any
    entry: Mapping[str, Any]


@verifier(
    name="reasoning-gym", version="1", answer_form="<answer>{answer}</answer>", needs_answer=False,
    columns=["reasoning_gym"],
)  # fmt: skip
def check(
    completion: str, task: Task, *, answer_in: Place = "tag", credit: Literal["full", "partial"] = "full"
) -> Verdict:
    """Return the score of the answer of `completion` to the question that the column `reasoning_gym` names.

    Args:
        completion: Text with an answer.
        task: Its column `reasoning_gym` holds the task's name, options, seed and index, and the question.
        answer_in: Where the answer stands: tag (`<answer>`), boxed, line (`Answer:`), hashes (`####`), or whole.
        credit: `full` pays 1.0 for a score of 1.0 and nothing for less; `partial` pays the library's score. Many of
            its scorers pay something for junk, and some as much as 0.9.
    """
    found = question_of(task.extra.get("reasoning_gym"))
    if isinstance(found, str):
        return invalid(found)
    answer = stated_answer(completion, answer_in)
    if isinstance(answer, Verdict):
        return answer
    name = str(task.extra["reasoning_gym"]["task"])
    if name in ALGEBRA and "Integral" in str(found.entry["answer"]):
        return invalid("the library could not integrate its own question")
    if name in OWN:
        return OWN[name](answer, found)
    if name in ALGEBRA and (reason := unsafe(answer)):
        return unparsed(f"{answer[:80]!r}: {reason}")
    try:
        score = float(found.data.score_answer(answer, found.entry))
    except Exception as error:  # the scorers of five tasks raise on junk
        return graded(0, answer, f"the scorer of {name} raised {type(error).__name__}: {str(error)[:100]}")
    paid = score if credit == "partial" else float(score >= 1)
    return graded(paid, answer, f"{name} scores it {score:g}")


def question_of(row: Any) -> GeneratedQuestion | str:
    """Return the question that a row names; the reason if the row is at fault."""
    if not isinstance(row, dict) or not {"task", "options", "seed", "size", "index", "question"} <= row.keys():
        return "the column 'reasoning_gym' needs task, options, seed, size, index and question"
    try:
        options = json.dumps(row["options"], sort_keys=True)
        found = _question(str(row["task"]), options, int(row["seed"]), int(row["size"]), int(row["index"]))
    except (KeyError, TypeError, ValueError, AssertionError) as error:
        return f"the question cannot be generated: {error}"
    if found.entry["question"] != row["question"]:
        return "this version of reasoning-gym generates another question for the row"
    return found


@lru_cache(maxsize=256)
def _question(name: str, options: str, seed: int, size: int, index: int) -> GeneratedQuestion:
    """Return a question; the members of a group share it."""
    data = _data(name, options, seed, size)
    return GeneratedQuestion(data, data[index])


@lru_cache(maxsize=16)
def _data(name: str, options: str, seed: int, size: int) -> Any:
    import reasoning_gym

    return reasoning_gym.create_dataset(name, seed=seed, size=size, **json.loads(options))


# --- tasks whose scorers are replaced ---------------------------------------------------------------------------------


def _same_text(answer: str, found: GeneratedQuestion) -> Verdict:
    """Compare with the gold answer. The scorer executes other texts, for a tenth of the reward."""
    gold = str(found.entry["answer"]).strip()
    return graded(answer == gold, answer, "the same text" if answer == gold else "another text")


def _one_of_many(answer: str, found: GeneratedQuestion) -> Verdict:
    """Compare with all solutions, like the scorer, which executes other texts for half of the reward."""
    right = answer in found.entry["metadata"]["valid_answers"]
    return graded(right, answer, "one of the solutions" if right else "none of the solutions")


def _expression(target: Callable[[Mapping[str, Any]], Any]) -> Callable[[str, GeneratedQuestion], Verdict]:
    """Return a judge of expressions of the row's numbers; the scorers execute them, and one takes other numbers."""

    def judge(answer: str, found: GeneratedQuestion) -> Verdict:
        metadata = found.entry["metadata"]
        numbers = [int(number) for number in metadata["numbers"]]
        return judged(answer, "whole", Fraction(target(metadata)), numbers, use_all=True)

    return judge


def _number(difference: Fraction) -> Callable[[str, GeneratedQuestion], Verdict]:
    """Return a judge of numbers that may differ from the gold answer by this share of it.

    The scorers take the first number of any text, or an absolute tolerance that 0 is within.
    """

    def judge(answer: str, found: GeneratedQuestion) -> Verdict:
        gold = Fraction(str(found.entry["answer"]).replace(",", ""))
        try:
            said = Fraction(answer.replace(",", "")) if len(answer) < 100 and "e" not in answer.lower() else None
        except (ValueError, ZeroDivisionError):
            said = None
        if said is None:
            return unparsed(f"{answer[:80]!r} is no number")
        right = abs(said - gold) <= difference * abs(gold)
        return graded(right, answer, f"{'equal' if right else 'not equal'} to {gold}"[:200])

    return judge


OWN: Mapping[str, Callable[[str, GeneratedQuestion], Verdict]] = {
    "binary_matrix": _same_text,
    "spiral_matrix": _same_text,
    "string_insertion": _same_text,
    "n_queens": _one_of_many,
    "countdown": _expression(lambda metadata: metadata["target"]),
    "puzzle24": _expression(lambda metadata: 24),
    "coin_flip": _number(Fraction(1, 1000)),
    "gsm_symbolic": _number(Fraction(0)),
}
"""Judges of tasks whose scorers cannot be used."""

# --- tasks whose scorers parse with sympy, which executes -------------------------------------------------------------

ALGEBRA = ("polynomial_multiplication", "simple_integration", "intermediate_integration")
FUNCTIONS = ("sin", "cos", "tan", "exp", "log", "sqrt", "asin", "acos", "atan", "sinh", "cosh", "tanh", "pi", "E", "C")
_TOKEN = re.compile(r"\s*(?:\d{1,12}(?:\.\d{1,12})?|(?P<name>[A-Za-z]+)|[-+*/()])", re.ASCII)
_SMALL = r"(?P<small>\d{1,2}(?!\d)|\(\s*-?\d{1,2}\s*(?:/\s*\d{1,2}\s*)?\))"
_POWER = re.compile(rf"\*\*\s*{_SMALL}?(?P<again>\s*\*\*)?", re.ASCII)
LONGEST = 500
MOST_POWERS = 40


def unsafe(text: str) -> str:
    """Return why a text is not handed to sympy; empty if it is a formula that is safe and quick to evaluate.

    Names are single letters or known functions, so nothing else can be called or looked up. A power is a number of two
    digits, or a fraction of such numbers in parentheses, and what it raises holds no power.
    """
    text = text.strip()
    if len(text) > LONGEST:
        return f"{len(text)} characters: at most {LONGEST} are read"
    at = 0
    while at < len(text):
        token = _TOKEN.match(text, at)
        if token is None:
            return f"{text[at]!r} is no part of a formula"
        if token["name"] and len(token["name"]) > 1 and token["name"] not in FUNCTIONS:
            return f"{token['name']!r} is no known function"
        at = token.end()
    powers = list(_POWER.finditer(text))
    if len(powers) > MOST_POWERS:
        return f"{len(powers)} powers: at most {MOST_POWERS} are read"
    if any(not power["small"] for power in powers):
        return "a power must be a number of at most two digits, or a fraction of such numbers in parentheses"
    if any(power["again"] or _raises_power(text[: power.start()].rstrip()) for power in powers):
        return "a power of a power"
    return ""


def _raises_power(text: str) -> bool:
    """Return True if the text ends in a parenthesis that holds a power."""
    depth = 0
    for place in range(len(text) - 1, -1, -1):
        depth += (text[place] == ")") - (text[place] == "(")
        if depth == 0:
            return "**" in text[place:]
    return False
