"""Graders of other frameworks as verifiers, each as its documentation or its trainer calls it.

For `benchmarks/graders.py`, which compares them, and for `--verifier benchmarks/peers/graders.py:NAME`.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.machinery
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import rlvr


def module_of(name: str) -> ModuleType:
    """Import a module of a large package without the package's `__init__`, which may import Ray or more."""
    parts = name.split(".")
    for length in range(1, len(parts)):
        package = ".".join(parts[:length])
        if package not in sys.modules:
            above = sys.modules[".".join(parts[: length - 1])].__path__ if length > 1 else None
            spec = importlib.machinery.PathFinder.find_spec(package, above)
            if spec is None or spec.submodule_search_locations is None:
                raise ModuleNotFoundError(f"there is no package {package}")
            hollow = ModuleType(package)
            hollow.__path__ = list(spec.submodule_search_locations)
            sys.modules[package] = hollow
    return importlib.import_module(name)


def marked(gold: str) -> str:
    """Return a gold answer as a formula: as it is if it is marked as one, else in a box."""
    return gold if any(mark in gold for mark in ("\\boxed", "$", "\\(", "\\[")) else f"\\boxed{{{gold}}}"


def bare(gold: str) -> str:
    """Return a gold answer without dollars or a box around it."""
    gold = gold.strip().strip("$").strip()
    return gold.removeprefix("\\boxed{").removesuffix("}") if gold.startswith("\\boxed{") else gold


@rlvr.verifier(name="trl", version="1")
def trl(completion: str, task: rlvr.Task) -> float | None:
    """TRL's `accuracy_reward`; None, where it skips an unreadable gold answer, abstains."""
    from trl.rewards import accuracy_reward

    return accuracy_reward([[{"role": "assistant", "content": completion}]], [marked(task.answer or "")])[0]


@rlvr.verifier(name="verl-math", version="1")
def verl_math(completion: str, task: rlvr.Task) -> float:
    """verl's `math_reward`, after the graders of MATH."""
    return float(module_of("verl.utils.reward_score.math_reward").compute_score(completion, bare(task.answer or "")))


@rlvr.verifier(name="verl-dapo", version="1")
def verl_dapo(completion: str, task: rlvr.Task) -> bool:
    """verl's `math_dapo`."""
    return bool(
        module_of("verl.utils.reward_score.math_dapo").compute_score(completion, bare(task.answer or ""))["acc"]
    )


@rlvr.verifier(name="verl-prime", version="1")
def verl_prime(completion: str, task: rlvr.Task) -> bool:
    """verl's `prime_math`."""
    return bool(module_of("verl.utils.reward_score.prime_math").compute_score(completion, bare(task.answer or ""))[0])


@rlvr.verifier(name="lm-eval-minerva", version="1")
def lm_eval_minerva(completion: str, task: rlvr.Task) -> bool:
    """lm-eval's task `minerva_math`, on the last box of the completion."""
    utils = module_of("lm_eval.tasks.minerva_math.utils")
    found = utils.last_boxed_only_string(completion)
    if found is None:
        return False
    answer = utils.normalize_final_answer(utils.remove_boxed(found))
    return bool(utils.is_equiv(answer, utils.normalize_final_answer(bare(task.answer or ""))))


@rlvr.verifier(name="lighteval", version="1")
def lighteval(completion: str, task: rlvr.Task) -> bool:
    """lighteval's extractive match, with the extraction and the precision of its task MATH.

    It needs a version of latex2sympy2 that math-verify cannot use, from a folder of its own; see the Makefile.
    """
    own = str(Path(sys.prefix) / "lighteval")
    if own not in sys.path:
        sys.path.insert(0, own)  # each grader has worker processes of its own
    match = module_of("lighteval.metrics.utils.extractive_match_utils")
    compare = module_of("lighteval.metrics.utils.math_comparison").compare_gold_target
    language = module_of("lighteval.utils.language").Language.ENGLISH
    latex, expression = match.LatexExtractionConfig(boxed_match_priority=0), match.ExprExtractionConfig()

    def read(text: str, *targets: object) -> list[object]:
        patterns = match.get_extraction_regexes(None, targets, language)
        return list(match.extract_target_from_pred(text, patterns, "first_match", "any_match", 5))

    gold = read(marked(task.answer or ""), latex) or [task.answer]
    return bool(compare(gold, read(completion, expression, latex), 6, timeout_seconds=5))


@rlvr.verifier(name="verifiers", version="1")
def prime_verifiers(completion: str, task: rlvr.Task) -> float:
    """`MathRubric` of the library verifiers."""
    rubric = math_rubric()
    messages = [{"role": "assistant", "content": completion}]
    return float(asyncio.run(rubric.correct_answer(rubric.parser, messages, bare(task.answer or ""))))


@cache
def math_rubric() -> Any:
    """Return the rubric; it keeps a process of its own."""
    from verifiers.legacy.rubrics.math_rubric import MathRubric

    return MathRubric()
