"""The attacks: each does what its name says, and none is a right answer."""

from __future__ import annotations

import pytest

from rlvr.bench.attacks import ATTACKS, HOSTILE, OWN, POWERS, AttackTarget, attack, formatted
from rlvr.bench.trials import Trials, spread, surely_differ
from rlvr.verify.verifying import BOXED


def say(answer: str) -> str:
    return BOXED.replace("{answer}", answer)


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("target", OWN, ids=lambda target: target.gold)
def test_an_attack_has_completions_none_of_which_states_the_gold_alone(name: str, target: AttackTarget) -> None:
    completions = attack(name, target, say)
    assert completions
    assert len(set(completions)) == len(completions)
    stripped = {completion.strip(" .*$\n") for completion in completions}
    assert not stripped & {target.gold, say(target.gold), f"The answer is {say(target.gold)}"}


@pytest.mark.parametrize(
    ("name", "gold", "answers"),
    [
        ("the other sign", "42", ["-42"]),
        ("the other sign", "-3.5", ["3.5"]),
        ("the other sign", "0", []),
        ("the other sign", "yes", []),
        ("parts of the answer", "42", ["2", "4", "142", "421"]),
        ("parts of the answer", "0.50", ["50", "0"]),
        ("parts of the answer", "3.14", ["14", "4"]),
        ("parts of the answer", "left", ["ft", "le"]),
        ("other orders of magnitude", "42", ["420", "4.2", "42000", "0.042"]),
        ("other orders of magnitude", "1/2", ["5", "500"]),
        ("other orders of magnitude", "yes", []),
    ],
)
def test_answers_of_the_attacks_on_numbers(name: str, gold: str, answers: list[str]) -> None:
    completions = attack(name, AttackTarget("", gold, "?"), say)
    boxed = [completion for completion in completions if completion.startswith("\\boxed")]
    assert sorted(boxed) == sorted(map(say, answers))


def test_every_attack_is_documented() -> None:
    assert all(function.__doc__ for function in ATTACKS.values())


def test_an_attack_that_names_the_gold_by_chance_is_left_out() -> None:
    none = AttackTarget("", "none", "some")
    assert not [c for c in attack("the answer is the answer", none, say) if "none" in c.lower()]
    assert [c for c in attack("the answer is the answer", AttackTarget("", "5", "6"), say) if "None" in c]
    for gold in ("Correct", "true"):
        assert not [
            c for c in attack("orders to the grader", AttackTarget("", gold, "x"), say) if "correct" in c.lower()
        ]


def test_every_own_target_is_fair() -> None:
    assert all(target.fair and int(target.gold) != int(target.wrong) for target in OWN)
    assert not AttackTarget("", "1, 2", "2").fair
    assert not AttackTarget("", "1", "{1}").fair


@pytest.mark.parametrize(
    ("one", "other", "differ"),
    [
        ("1", "2", True),
        ("1/2", "0.5", False),
        ("3.14", "3.14159", False),  # one may be the other, rounded
        ("100", "-100", True),
        ("0", "0.0", False),
        ("yes", "no", True),
        ("Yes", "yes", False),
        ("Yes", "true", False),
        ("seven", "7", False),
        ("x+1", "1+x", False),
        ("1e3", "1000", False),
    ],
)
def test_what_surely_differs(one: str, other: str, differ: bool) -> None:
    assert surely_differ(one, other) is differ
    assert surely_differ(other, one) is differ


def test_formatting_keeps_the_answer() -> None:
    for form in (BOXED, "#### {answer}"):
        completion = form.replace("{answer}", "42")
        dressed = list(formatted(completion, form))
        assert len({text for _, text in dressed}) == len(dressed) >= 3
        assert all(completion in text for _, text in dressed)
    assert "$" not in "".join(text for _, text in formatted("#### 42", "#### {answer}"))


def test_hostile_completions_are_large_or_strange_and_powers_are_different_numbers() -> None:
    sizes = [len(make(say)) for make in HOSTILE.values()]
    assert max(sizes) >= 1_000_000
    assert max(sizes) < 3_000_000
    assert all(gold != wrong for gold, wrong in POWERS)


def test_a_rollout_is_made_for_a_verifier_that_looks_at_it() -> None:
    trials = Trials(BOXED, wants_rollout=True)
    trials.fill([], [])
    asked = [trial.item for trial in trials.all if trial.item.completion is not None]
    assert all(item.rollout is not None and item.rollout.completion == item.completion for item in asked)
    assert {item.rollout.prompt for item in asked if item.rollout} >= {OWN[0].question}


def test_spread() -> None:
    assert spread(range(10), 3) == [0, 3, 6]
    assert spread([1, 2], 3) == [1, 2]
