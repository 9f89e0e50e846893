"""The bench's attacks on `math`, in process and on more kinds of answers than its corpus has."""

from __future__ import annotations

import pytest

from rlvr import Task
from rlvr.bench.attacks import ATTACKS, OWN, POWERS, AttackTarget, attack
from rlvr.verify.verifying import BOXED
from rlvr_verifiers.math import check

TARGETS = [
    *OWN,
    AttackTarget("What is 53 - 34?", "19", "87"),
    AttackTarget("53-34=", "19", "87"),
    AttackTarget("Half of one?", "1/2", "3/4"),
    AttackTarget("A quarter, as a decimal?", "0.25", "0.5"),
    AttackTarget("Below zero?", "-7", "7"),
    AttackTarget("Nothing?", "0", "1"),
    AttackTarget("Which option?", "B", "C"),
    AttackTarget("Is it prime?", "yes", "no"),
    AttackTarget("Is it prime?", "no", "yes"),
    AttackTarget("Does it hold?", "True", "False"),
    AttackTarget("Which letter?", "x", "y"),
    AttackTarget("Which color?", "blue", "red"),
]


def say(answer: str) -> str:
    return BOXED.replace("{answer}", answer)


def accepted(gold: str, completion: str) -> bool:
    return check(completion, Task(answer=gold)).reward == 1.0


@pytest.mark.parametrize("name", ATTACKS)
def test_no_attack_wins(name: str) -> None:
    won = []
    for target in TARGETS:
        assert accepted(target.gold, say(target.gold))
        assert not accepted(target.gold, say(target.wrong))
        won += [(target.gold, text) for text in attack(name, target, say) if accepted(target.gold, text)]
    assert won == []


@pytest.mark.parametrize(("gold", "wrong"), POWERS)
def test_powers_are_told_apart(gold: str, wrong: str) -> None:
    assert accepted(gold, say(gold))
    assert not accepted(gold, say(wrong))


@pytest.mark.parametrize(
    ("completion", "gold"),
    [
        ("Question: 32-21=\nAnswer:", "11"),
        ("So what is 5 = ?", "5"),
        ("yes\nno", "yes"),
        ("It is true or false.", "true"),
    ],
)
def test_a_question_and_both_answers_at_once_are_no_answer(completion: str, gold: str) -> None:
    assert not accepted(gold, completion)


def test_one_of_the_two_words_is_an_answer() -> None:
    assert accepted("yes", "Yes, it is.")
    assert accepted("no", "\\boxed{\\text{No}}")
