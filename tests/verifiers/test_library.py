"""Every built-in verifier, in process: its labeled cases, attacks, hostile completions, and its page."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr import Status, Task
from rlvr.bench.attacks import ATTACKS, HOSTILE, OWN, AttackTarget, attack
from rlvr.bench.cases import Case, read_cases
from rlvr.verify.verifying import FunctionVerifier, load_verifier
from rlvr_verifiers.plugin import NAMES

DOCS = Path(__file__).parents[2] / "docs" / "verifiers"
LIBRARY = [
    name for name in NAMES if name not in ("math", "math-verify", "http", "judge", "code-python", "reasoning-gym")
]  # they have their own tests
LETTERS = [AttackTarget("Which is heavier?", "B", "C"), AttackTarget("Which is heavier?", "D", "A")]
TARGETS = {
    "exact": [*OWN, *LETTERS, AttackTarget("Which city?", "Paris", "Rome")],
    "choice": LETTERS,
    "numeric": [*OWN, AttackTarget("Below zero?", "-7", "7"), AttackTarget("A quarter?", "0.25", "0.5")],
    "qa": [*OWN, AttackTarget("Which city?", "Paris", "Rome"), AttackTarget("Is it so?", "yes", "no")],
}
"""Rows to attack, for verifiers that compare answers."""


@cache
def loaded(name: str) -> FunctionVerifier:
    return load_verifier(name)


def say(name: str, answer: str) -> str:
    return loaded(name).claims.answer_form.replace("{answer}", answer)


def cases(name: str) -> list[Case]:
    return list(read_cases(Path(loaded(name).claims.cases or ""), lambda answer: say(name, answer)))


def reward(name: str, completion: str, task: Task) -> float:
    return loaded(name).verify(completion, task).reward or 0.0


@pytest.mark.parametrize("name", LIBRARY)
def test_labeled_cases_of_both_kinds_get_their_verdict(name: str) -> None:
    labeled = cases(name)
    for expected in (True, False):
        assert sum(case.expected is expected for case in labeled) >= 3
    wrong = [
        case
        for case in labeled
        if (reward(name, case.completion, Task(answer=case.gold, extra=case.extra)) >= 0.5) is not case.expected
    ]
    assert wrong == []


@pytest.mark.parametrize("name", LIBRARY)
def test_hostile_completions_get_a_verdict_and_no_reward(name: str) -> None:
    """Tries every fourth, beginning elsewhere for each verifier; `rlvr check verifier` tries all."""
    verifier = loaded(name)
    first = next(case for case in cases(name) if case.expected)
    for what, make in [*HOSTILE.items()][LIBRARY.index(name) % 4 :: 4]:
        verdict = verifier.verify(make(lambda answer: say(name, answer)), Task(answer=first.gold, extra=first.extra))
        assert verdict.status in (Status.GRADED, Status.UNPARSED), (what, verdict.reason)
        if verifier.claims.compares_answers:
            assert not verdict.reward, what


@pytest.mark.parametrize("name", TARGETS)
def test_no_attack_is_rewarded(name: str) -> None:
    won = []
    for target in TARGETS[name]:
        task = Task(answer=target.gold)
        assert reward(name, say(name, target.gold), task) == 1
        assert reward(name, say(name, target.wrong), task) == 0
        for kind in ATTACKS:
            completions = attack(kind, target, lambda answer: say(name, answer))
            won += [(kind, target.gold, text) for text in completions if reward(name, text, task)]
    assert won == []


@pytest.mark.parametrize("name", LIBRARY)
def test_a_row_without_a_gold_answer_is_invalid_if_one_is_needed(name: str) -> None:
    verifier = loaded(name)
    if verifier.needs_answer:
        assert verifier.verify(say(name, "1"), Task()).status is Status.INVALID
        assert verifier.verify(" ", Task(answer="1")).status is Status.UNPARSED


@pytest.mark.parametrize("name", [*LIBRARY, "http", "judge"])
def test_the_page_says_what_it_rewards_and_refuses(name: str) -> None:
    page = (DOCS / f"{name}.md").read_text(encoding="utf-8")
    assert page.startswith(f"# The verifier `{name}`\n")
    assert "\n## Rewards\n" in page
    assert "\n## Refuses\n" in page
    assert f"[{name}]({name}.md)" in (DOCS / "README.md").read_text(encoding="utf-8")


TEXTS = st.text(st.characters(codec=None), max_size=60) | st.from_regex(
    r"(\\boxed\{[^{}]{0,9}\} ?){1,3}", fullmatch=True
)


@settings(max_examples=25)
@given(completion=TEXTS, answer=TEXTS)
def test_any_text_gets_a_verdict(completion: str, answer: str) -> None:
    for name in TARGETS:
        verdict = loaded(name).verify(completion, Task(answer=answer))
        assert verdict.status in (Status.GRADED, Status.UNPARSED, Status.INVALID), verdict.reason
