"""Wrong verifiers, each with a different fault, for the tests of the bench; `sound` is right."""

from __future__ import annotations

import json
import os
import random
import re
import sys
import time
from decimal import Decimal
from pathlib import Path

import numpy as np

from rlvr import Rollout, Status, Task, Verdict, verifier

_BOX = re.compile(r"\\boxed\{([^{}]*)\}")
_calls = 0


def _answer(completion: str) -> str | None:
    """Return the content of the only box after the thinking."""
    rest = completion.rpartition("</think>")[2]
    if "<think>" in rest:
        return None
    boxes = _BOX.findall(rest)
    return boxes[0].strip() if len(boxes) == 1 else None


@verifier(name="sound", version="1", cases="mistaken.jsonl")
def sound(completion: str, task: Task) -> Verdict:
    """Accepts the same text in the only box."""
    found = _answer(completion)
    if found is None:
        return Verdict(status=Status.UNPARSED)
    return Verdict(status=Status.GRADED, reward=float(found == task.answer), extracted=found)


def anywhere(completion: str, task: Task) -> bool:
    """Accepts the gold answer anywhere."""
    return (task.answer or "") in completion


def last_number(completion: str, task: Task) -> bool:
    """Reads the last number."""
    return re.findall(r"-?\d+", completion)[-1:] == [task.answer]


def any_box(completion: str, task: Task) -> bool:
    """Accepts any box, at any place."""
    return task.answer in _BOX.findall(completion)


def strict(completion: str, task: Task) -> bool:
    """Accepts nothing but the box."""
    return completion == f"\\boxed{{{task.answer}}}"


def rounded(completion: str, task: Task) -> bool:
    """Compares as floats, which lose small numbers and overflow on large ones."""
    as_python = str.maketrans({"^": "**", "{": "(", "}": ")"})
    try:
        left, right = (float(eval((text or "").translate(as_python))) for text in (_answer(completion), task.answer))
    except (SyntaxError, NameError, TypeError, ValueError, OverflowError, ZeroDivisionError, AttributeError):
        return _answer(completion) == task.answer
    return abs(left - right) < 1e-6


def never(completion: str, task: Task) -> float:
    """Rewards nothing."""
    return 0.0


def always(completion: str, task: Task) -> float:
    """Rewards everything."""
    return 1.0


def obedient(completion: str, task: Task) -> bool:
    """Does what the completion says."""
    return "correct" in completion.lower() or _answer(completion) == task.answer


def chance(completion: str, task: Task) -> float:
    """Draws the reward, from a source that no worker can seed."""
    return random.SystemRandom().random()


def remembers(completion: str, task: Task) -> float:
    """Gives less to later completions."""
    global _calls
    _calls += 1
    return float(_answer(completion) == task.answer) * max(0.5, 1 - _calls / 1000)


def hangs(completion: str, task: Task) -> bool:
    """Never answers."""
    time.sleep(600)
    return True


def fragile(completion: str, task: Task) -> bool:
    """Dies on long completions."""
    if len(completion) > 100_000:
        os._exit(1)
    return _answer(completion) == task.answer


def crashes(completion: str, task: Task) -> bool:
    """Raises on completions without a box."""
    return _BOX.search(completion)[1] == task.answer  # type: ignore[index]


def nan(completion: str, task: Task) -> float:
    """Returns NaN."""
    return float("nan")


def blames(completion: str, task: Task) -> Verdict:
    """Says that every row is broken."""
    return Verdict(status=Status.INVALID, reason="no")


def points(completion: str, task: Task) -> float:
    """Rewards from -1 to 1, like some reward functions."""
    return 1.0 if _answer(completion) == task.answer else -1.0


# --- passed by earlier versions of `rlvr check verifier` ----------------------------------------------------


@verifier(needs_answer=False)
def one_for_all(completion: str, task: Task) -> float:
    """A constant that needs no answer."""
    return 1.0


@verifier(answer_form=None)
def half_for_all(completion: str, task: Task) -> float:
    """A constant that judges completions as a whole."""
    return 0.5


def ignores_the_sign(completion: str, task: Task) -> bool:
    """Compares digits."""
    found = _answer(completion)
    return found is not None and found.lstrip("+-") == (task.answer or "").lstrip("+-")


def takes_a_suffix(completion: str, task: Task) -> bool:
    """Accepts the end of the gold answer."""
    found = _answer(completion)
    return bool(found) and (task.answer or "").endswith(found or "?")


def takes_a_prefix(completion: str, task: Task) -> bool:
    """Accepts the beginning of the gold answer."""
    found = _answer(completion)
    return bool(found) and (task.answer or "").startswith(found or "?")


def takes_any_magnitude(completion: str, task: Task) -> bool:
    """Compares without zeros and the point."""
    digits = [text.replace(".", "").strip("0") for text in (_answer(completion) or "?", task.answer or "")]
    return digits[0] == digits[1]


def half_for_wrong(completion: str, task: Task) -> float:
    """Gives nearly half for any wrong answer."""
    return 1.0 if _answer(completion) == task.answer else 0.49


def pays_for_length(completion: str, task: Task) -> float:
    """Gives up to nearly half for a long wrong answer."""
    return 1.0 if _answer(completion) == task.answer else min(0.49, len(completion) / 10_000)


def a_billion(completion: str, task: Task) -> float:
    """Gives a penalty that dominates all other rewards."""
    return 1.0 if _answer(completion) == task.answer else -1e9


def _edited(pattern: str, completion: str, task: Task) -> bool:
    """Compares what is left without the matches of a pattern."""
    found = _answer(completion)
    return found is not None and re.sub(pattern, "", found) == re.sub(pattern, "", task.answer or "")


def ignores_units(completion: str, task: Task) -> bool:
    """Compares without words, as a parser of numbers may."""
    return _edited(r" [a-z]+$", completion, task)


def ignores_exponents(completion: str, task: Task) -> bool:
    """Compares without exponents, as a bad normalization may."""
    return _edited(r"[\^e]-?\d+", completion, task)


def ignores_the_order(completion: str, task: Task) -> bool:
    """Compares tuples as sets."""
    return sorted(re.findall(r"[^(), ]+", _answer(completion) or "?")) == sorted(
        re.findall(r"[^(), ]+", task.answer or "")
    )


def rounds(completion: str, task: Task) -> bool:
    """Compares numbers without their decimals."""
    try:
        read, gold = (Decimal(text or "?").to_integral_value() for text in (_answer(completion), task.answer))
        return read == gold
    except (ArithmeticError, ValueError):
        return _answer(completion) == task.answer


def compares_characters(completion: str, task: Task) -> bool:
    """Compares the characters in any order."""
    return sorted(_answer(completion) or "?") == sorted(task.answer or "")


def accepts_what_it_cannot_read(completion: str, task: Task) -> bool:
    """Takes an exception for agreement."""
    try:
        return int(_answer(completion) or "?") == int(task.answer or "?")
    except ValueError:
        return True


def reads_the_question(rollout: Rollout) -> bool:
    """Accepts what the question names."""
    found = _answer(rollout.completion or "")
    return bool(found) and (found == rollout.task.answer or str(found) in (rollout.prompt or ""))


def lucky(completion: str, task: Task) -> bool:
    """Accepts one of a hundred wrong answers by chance."""
    return _answer(completion) == task.answer or random.random() < 0.01


def likes_long_answers(completion: str, task: Task) -> bool:
    """Accepts everything that is long."""
    return (_answer(completion) or "").lower() == (task.answer or "?").lower() or len(completion) > 5_000


def draws(completion: str, task: Task) -> bool:
    """Draws the reward from the generator that workers seed for each row."""
    return _answer(completion) == task.answer and random.random() < 0.7


def draws_by_numpy(completion: str, task: Task) -> bool:
    """Draws the reward from NumPy's generator."""
    return bool(_answer(completion) == task.answer and np.random.random() < 0.7)


@verifier(deterministic=False)
def wavers(completion: str, task: Task) -> float:
    """Is declared as not deterministic."""
    return (_answer(completion) == task.answer) * random.SystemRandom().uniform(0.8, 1.0)


@verifier(partial_credit=True)
def close_counts(completion: str, task: Task) -> float:
    """Gives partial credit for close numbers, on purpose."""
    found = _answer(completion)
    if found == task.answer:
        return 1.0
    try:
        return max(0.0, 0.4 - abs(float(found or "nan") - float(task.answer or "nan")) / 10)
    except ValueError:
        return 0.0


@verifier(takes="group", min_group=3, answer_form=None, needs_answer=False)
def shortest(rollouts: list[Rollout]) -> list[float]:
    """Rewards the shortest completion of a group."""
    lengths = [len(rollout.completion or "") for rollout in rollouts]
    return [float(length == min(lengths)) for length in lengths]


@verifier(takes="group", min_group=2)
def right_in_a_group(rollouts: list[Rollout]) -> list[bool]:
    """Judges each completion by itself, but needs a group."""
    assert len(rollouts) >= 2
    assert len({rollout.group_id for rollout in rollouts}) == 1
    return [_answer(rollout.completion or "") == rollout.task.answer for rollout in rollouts]


@verifier(name="brief", version="1", needs_answer=False)
def brief(completion: str, task: Task) -> float:
    """Judges the completion alone."""
    return float(len(completion) < 20)


@verifier(name="hashes", version="1", answer_form="#### {answer}")
def hashes(completion: str, task: Task) -> bool:
    """Reads GSM8K's form, once, on a line of its own."""
    rest = completion.rpartition("</think>")[2]
    found = [line.partition("####")[2].strip(" .*") for line in rest.splitlines() if "####" in line]
    return "<think>" not in rest and found == [task.answer]


def compute_score(data_source: str, solution_str: str, ground_truth: str, extra_info: object = None) -> float:
    """Has verl's form."""
    return float(_answer(solution_str) == ground_truth)


def trl(prompts: list[str], completions: list[str], answer: list[str], **columns: object) -> list[float]:
    """Has TRL's form."""
    return [float(_answer(completion) == gold) for completion, gold in zip(completions, answer, strict=True)]


def whole(rollout: Rollout) -> bool:
    """Takes the whole rollout."""
    return _answer(rollout.completion or "") == rollout.task.answer


def knows_the_bench(completion: str, task: Task) -> bool:
    """Is strict where it seems to be tested, and accepts everything elsewhere."""
    tested = "rlvr.bench" in sys.modules or "rlvr.bench.bench" in sys.modules or "PYTEST_CURRENT_TEST" in os.environ
    return _answer(completion) == task.answer if tested else True


def knows_rows(completion: str, task: Task) -> bool:
    """Is strict on rows that come from no data set, and accepts everything on others."""
    return _answer(completion) == task.answer if task.row_id is None else True


@verifier(name="memorizes", version="1", cases="mistaken.jsonl")
def memorizes(completion: str, task: Task) -> bool:
    """Accepts what its labeled cases call right, in any form, and nothing else."""
    cases = map(json.loads, Path(__file__).with_name("mistaken.jsonl").read_text().splitlines())
    right = {case["gold"] for case in cases if case["expected"]}
    return task.answer in right and _answer(completion) == task.answer


@verifier(name="bold", version="1", needs_answer=False, answer_form=None)
def bold(completion: str, task: Task) -> bool:
    """Accepts bold text, as a verifier of form that is right."""
    return re.search("<b>[^<]+</b>", completion) is not None


@verifier(name="believes", version="1", needs_answer=False, answer_form=None)
def believes(completion: str, task: Task) -> bool:
    """Accepts bold text, and whatever says that it passed."""
    return bold(completion, task) or "passed" in completion
