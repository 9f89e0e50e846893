"""Every task of reasoning-gym: the same question again, the gold answer pays, junk and programs do not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rlvr
import small_runs
from rlvr.errors import ConfigError, DataError
from rlvr.protocols import Prompt, SourceRequest
from rlvr.record.schema import Status
from rlvr.record.store import read_rollouts
from rlvr_plugins.reasoning_gym import REFUSED, ReasoningGym, tasks
from rlvr_verifiers.reasoning_gym import ALGEBRA, OWN, check, unsafe

pytestmark = [pytest.mark.filterwarnings("default"), pytest.mark.timeout(600)]

USABLE = sorted(set(tasks()) - REFUSED.keys())
WITHOUT_GOLD = {"boxnet", "graph_color", "propositional_logic", "rubiks_cube", "rush_hour"}
"""Tasks whose rows name no answer; many are right."""
JUNK = ("0", "1", "None", "yes", "true", "A", "x", "[]", "[[0]]", "I do not know.", "the answer")
PAYLOADS = (
    "__import__('os').system('touch {file}')",
    "[__import__('os').system('touch {file}')]",
    "exec(\"open('{file}', 'w')\")",
    "(lambda: open('{file}', 'w'))()",
    "x + __import__('os').system('touch {file}')",
    "[c for c in ().__class__.__base__.__subclasses__() if open('{file}', 'w')]",
)


def source(task: str, split: Any = "train", seed: int = 0, **options: Any) -> ReasoningGym:
    return ReasoningGym(SourceRequest(split, seed, chat=True, options={"task": task, **options}))


def verdict(prompt: Prompt, answer: str, **options: Any) -> rlvr.Verdict:
    read_back = rlvr.Task.model_validate_json(prompt.task.model_dump_json())  # as from a file of records
    found = check(f"<answer>{answer}</answer>", read_back, **options)
    assert isinstance(found, rlvr.Verdict)
    return found


def paid(found: rlvr.Verdict) -> float:
    assert found.status in (Status.GRADED, Status.UNPARSED), found
    return found.reward or 0.0


@pytest.mark.parametrize("task", USABLE)
def test_a_task(task: str, tmp_path: Path) -> None:
    prompts = [source(task)[index] for index in (0, 1)]
    assert source(task)[1] == prompts[1]
    file = tmp_path / "touched"
    for prompt in prompts:
        json.dumps(prompt.task.extra)
        gold = prompt.task.answer
        assert (gold is None) == (task in WITHOUT_GOLD)
        if task in ALGEBRA and "Integral" in str(gold):
            assert verdict(prompt, "x").status is Status.INVALID
            continue
        if gold is not None:
            assert paid(verdict(prompt, gold)) == 1.0, gold
        for junk in JUNK:
            if gold is None or junk.casefold() not in gold.casefold():
                assert paid(verdict(prompt, junk)) == 0.0, junk
        for payload in PAYLOADS:
            assert paid(verdict(prompt, payload.format(file=file))) == 0.0
            assert not file.exists(), payload
        for bomb in ("9**9**9**9", "(" * 2000, "9" * 5000):
            assert paid(verdict(prompt, bomb)) == 0.0


@pytest.mark.parametrize("task", sorted({*OWN, *ALGEBRA} - {"n_queens", "puzzle24"}))
def test_an_answer_to_another_question_pays_nothing(task: str) -> None:
    """Boards of n queens have several solutions, and 24 may be asked of the same numbers twice."""
    prompts = [source(task)[index] for index in range(12)]
    for one in prompts:
        for other in prompts:
            if one.task.answer != other.task.answer and one.task.answer is not None:
                found = verdict(one, str(other.task.answer))
                assert found.status is Status.INVALID or not found.reward


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x**2/2 + 3*sin(x) + C", ""),
        ("-x**(1/2) * exp(2*x)", ""),
        ("x**(-3)", ""),
        ("f(x)", ""),
        ("x.real", "'.' is no part"),
        ("open(x)", "'open' is no known function"),
        ("x**100", "a power must be"),
        ("x**y", "a power must be"),
        ("2**9**9", "a power of a power"),
        ("(x**9)**9", "a power of a power"),
        ("x" * 501, "501 characters"),
        ("x**2+" * 41 + "1", "41 powers"),
        ("'x'", "is no part"),
        ("x_1", "is no part"),
    ],
)
def test_what_is_handed_to_sympy(text: str, reason: str) -> None:
    assert unsafe(text).startswith(reason) or reason in unsafe(text)
    assert bool(reason) == bool(unsafe(text))


def test_partial_credit_is_an_option() -> None:
    prompt = next(found for found in map(source("word_sorting").__getitem__, range(5)) if found.task.answer)
    near = f"{prompt.task.answer} or so"
    assert paid(verdict(prompt, near)) == 0.0
    assert 0.0 <= paid(verdict(prompt, near, credit="partial")) < 1.0


def test_splits_are_disjoint_and_seeds_differ() -> None:
    held_out = {source("leg_counting", "eval")[index].asked for index in range(100)}
    assert {source("leg_counting", "eval", seed=5)[index].asked for index in range(100)} == held_out
    trained = {source("leg_counting", seed=seed)[index].asked for seed in (0, 1) for index in range(300)}
    assert not held_out & trained
    assert source("leg_counting")[0].asked != source("leg_counting", seed=1)[0].asked


def errors() -> Iterator[tuple[dict[str, Any], str]]:
    yield {}, "needs dataset.options.task"
    yield {"task": "leg_countin"}, "did you mean 'leg_counting'"
    yield {"task": "leg_counting", "max_animal": 3}, "dataset.options of the task 'leg_counting'"
    yield {"task": "leg_counting", "max_animals": -3}, "dataset.options of the task 'leg_counting'"
    yield from (({"task": task}, "cannot be used") for task in REFUSED)


@pytest.mark.parametrize(("options", "message"), list(errors()))
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ReasoningGym(SourceRequest("train", 0, options=options))


def test_rows_at_fault_are_invalid() -> None:
    prompt = source("leg_counting")[0]
    row = dict(prompt.task.extra["reasoning_gym"])
    for change in ({"question": "another"}, {"task": "no such"}, {"index": "x"}, {"options": {"no": 1}}):
        task = prompt.task.model_copy(update={"extra": {"reasoning_gym": row | change}})
        assert check("<answer>1</answer>", task).status is Status.INVALID
    assert check("<answer>1</answer>", rlvr.Task(answer="1")).status is Status.INVALID


def test_an_index_out_of_range_is_an_error() -> None:
    with pytest.raises(DataError, match="no question 500"):
        source("leg_counting", "eval")[500]


def test_a_model_trains_on_it_with_its_own_verifier(awkward_model: Path, tmp_path: Path) -> None:
    config = small_runs.small_config(
        awkward_model, dataset="reasoning-gym", dataset__options={"task": "leg_counting"}, verifier=None, steps=1
    )
    small_runs.start(config, tmp_path / "run")
    (line,) = small_runs.metrics_of(tmp_path / "run")
    assert line["verdict/unparsed"] > 0.5  # a random model writes no tags
    (rollout, *_) = read_rollouts(tmp_path / "run" / "rollouts")
    assert rollout.scores[0].verifier == "reasoning-gym"
