"""Questions that are solved or hopeless come up rarely, the others at their turn, and a resume goes on bitwise."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import small_runs
from rlvr.data.curriculum import Curriculum
from rlvr.data.prompts import PromptStream
from rlvr.protocols import Prompt, PromptSource
from rlvr.record.schema import Task
from rlvr.record.store import read_rollouts
from rlvr.run.groups import by_group
from rlvr.run.plan import make_plan

SIZE = 10
BAND: dict[str, Any] = {"low": 0.2, "high": 0.8, "rare": 0.3}


class Numbers(PromptSource):
    """A source of `SIZE` prompts."""

    size = SIZE

    def __getitem__(self, index: int, /) -> Prompt:
        return Prompt(Task(row_id=str(index)), text="x" * (index + 1))


def stream(curriculum: Curriculum | None, longest: int = 99) -> PromptStream:
    return PromptStream(
        Numbers(),
        lambda prompt: tuple(range(len(prompt.text or ""))),
        seed=3,
        max_prompt_tokens=longest,
        curriculum=curriculum,
    )


def curriculum(rates: dict[int, float], **changes: float) -> Curriculum:
    found = Curriculum(seed=3, **{**BAND, **changes})
    found.measure(rates)
    return found


def test_without_rates_the_order_is_the_plain_one() -> None:
    assert stream(curriculum({})).take(35) == stream(None).take(35)


def test_a_position_has_the_question_that_it_has_without_a_curriculum() -> None:
    plain = {prompt.position: prompt.index for prompt in stream(None).take(400)}
    chosen = stream(curriculum({0: 0.0, 1: 1.0, 2: 0.5})).take(200)
    assert all(plain[prompt.position] == prompt.index for prompt in chosen)
    assert [prompt.position for prompt in chosen] == sorted({prompt.position for prompt in chosen})


def test_solved_and_hopeless_questions_come_rarely_and_the_others_at_every_turn() -> None:
    rates = {0: 0.0, 1: 1.0, 2: 0.19, 3: 0.2, 4: 0.5, 5: 0.8, 6: 0.81}
    prompts = stream(curriculum(rates))
    while prompts.position < 2000 * SIZE:
        prompts.take(1)
    prompts.seek(0)
    taken: Counter[int] = Counter()
    while prompts.position < 2000 * SIZE - SIZE:
        taken[prompts.take(1)[0].index] += 1
    for index in range(SIZE):
        share = taken[index] / 2000
        assert share == pytest.approx(0.3 if index in (0, 1, 2, 6) else 1.0, abs=0.05), index  # five standard errors


def test_a_new_rate_replaces_the_old_one() -> None:
    found = curriculum(dict.fromkeys(range(SIZE), 1.0), rare=1e-9)
    found.measure({4: 0.5})
    assert {prompt.index for prompt in stream(found).take(5)} == {4}
    assert found.metrics() == {"curriculum/measured": 10.0, "curriculum/in_band": 0.1}
    assert curriculum({}).metrics() == {"curriculum/measured": 0.0}


def test_questions_that_are_all_solved_are_still_asked() -> None:
    prompts = stream(curriculum(dict.fromkeys(range(SIZE), 1.0)))
    assert len(prompts.take(20)) == 20
    assert prompts.position > 40


def test_a_passed_over_question_is_not_counted_as_too_long() -> None:
    prompts = stream(curriculum({9: 1.0, 8: 1.0}, rare=1e-9), longest=9)  # question 9 has ten tokens
    prompts.take(8)
    assert prompts.dropped == 0
    prompts = stream(curriculum({0: 1.0}, rare=1e-9), longest=9)
    prompts.take(8 * 3)
    assert prompts.dropped in (2, 3)


def test_state_is_kept_exactly() -> None:
    found = curriculum({3: 1 / 3, 1: 0.1, 0: 1.0})
    again = Curriculum(seed=3, **BAND)
    again.seek(found.state())
    assert again.state() == found.state() == {"rates": [[0, 1.0], [1, 0.1], [3, 1 / 3]]}
    one, other = stream(found), stream(again)
    one.seek(17)
    other.seek(17)
    assert one.take(30) == other.take(30)


FAST: dict[str, Any] = {
    "eval__questions": 0, "sampling__max_tokens": 4, "dataset__limit": 6, "verifier": f"{small_runs.REWARDS}:begins",
    "dataset__curriculum": BAND | {"low": 0.4, "high": 0.6}, "steps": 10,
}  # fmt: skip


def test_a_run_measures_what_it_learned_from_and_a_resume_is_bitwise_equal(tiny_model: Path, tmp_path: Path) -> None:
    small_runs.start(small_runs.small_config(tiny_model, **FAST), tmp_path / "whole")
    small_runs.start(small_runs.small_config(tiny_model, **FAST | {"steps": 6}), tmp_path / "short")
    small_runs.resume(tmp_path / "short", steps=10)
    assert small_runs.final_state(tmp_path / "short") == small_runs.final_state(tmp_path / "whole")
    assert small_runs.timeless(tmp_path / "short") == small_runs.timeless(tmp_path / "whole")
    lines = small_runs.metrics_of(tmp_path / "whole")
    assert [line["curriculum/skipped"] for line in lines[:2]] == [0, 0], "the first pass has every question"
    assert sum(line["curriculum/skipped"] for line in lines) > 6
    rates: dict[str | None, float] = {}
    for line in lines:
        rows = read_rollouts(tmp_path / "whole" / "rollouts" / f"step-{line['step']:06d}.parquet")
        for members in by_group(rows):
            rates[members[0].task.row_id] = sum(row.scores[0].reward or 0 for row in members) / len(members)
        assert line["curriculum/measured"] == len(rates)
        within = sum(0.4 <= rate <= 0.6 for rate in rates.values())
        assert line["curriculum/in_band"] == pytest.approx(within / len(rates))
    assert len(rates) == 6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mode": "async", "trainer": "grpo-off"}, "dataset.curriculum: which questions come next is known only when"),
        ({"dataset__limit": None}, "dataset.curriculum: arithmetic has no end"),
        ({"dataset": None, "dataset__mix": ["arithmetic:1"]}, "passes over questions, and dataset.mix counts them"),
        ({"dataset__epochs": 2, "steps": None}, "passes over questions, and dataset.epochs counts them"),
        ({"dataset__curriculum": {"low": 0.9, "high": 0.1}}, "low is 0.9, above high, 0.1"),
        ({"dataset__curriculum": {"rare": 0}}, "dataset.curriculum.rare .* must be above 0"),
        ({"rollouts__files": ["a.jsonl"], "trainer": "grpo-off"}, "every rollout is a saved one, and no question is"),
    ],
)
def test_what_cannot_work_is_refused(tiny_model: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(Exception, match=message), make_plan(small_runs.small_config(tiny_model, **FAST | changes)):
        pass
