"""The length penalty, against DAPO's equation in plain arithmetic, and what it does to a group."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trl.rewards import get_soft_overlong_punishment

import small_runs
from rlvr.errors import RunError
from rlvr.protocols import Group, ModelSpec, TrainContext
from rlvr.record.schema import GroupStats, Sampling
from rlvr_trainers.grpo import Grpo, GrpoOptions
from rlvr_trainers.loss.shaping import overlong_penalty, shape_overlong


@pytest.mark.parametrize(
    ("length", "expected"),
    [(0, 0.0), (16384, 0.0), (18432, -0.5), (20480, -1.0), (30000, -1.0), (16385, -1 / 4096)],
)
def test_penalty_with_the_paper_s_numbers(length: int, expected: float) -> None:
    assert overlong_penalty(length, 20480, 0.2) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@settings(deadline=None)
@given(st.integers(0, 200), st.integers(1, 200), st.floats(0.01, 1))
def test_penalty_is_the_paper_s_three_cases(length: int, limit: int, buffer: float) -> None:
    cache = buffer * limit
    expected = 0.0 if length <= limit - cache else -1.0 if length > limit else (limit - cache - length) / cache
    assert overlong_penalty(length, limit, buffer) == pytest.approx(expected, abs=1e-9)


def test_penalty_is_trl_s() -> None:
    theirs = get_soft_overlong_punishment(max_completion_len=100, soft_punish_cache=20)
    lengths = range(120)
    assert [overlong_penalty(n, 100, 0.2) for n in lengths] == pytest.approx(theirs([[1] * n for n in lengths]))


def with_limit(oracle: ModuleType, lengths: list[int], rewards: list[float], limit: int = 10) -> Group:
    sampling = Sampling(temperature=0.7, logprob_mode="processed", max_tokens=limit)
    rollouts = [
        oracle.make_rollout(str(n), [2, 3], list(range(4, 4 + n)), [-1.0] * n, sampling=sampling) for n in lengths
    ]
    return Group(tuple(rollouts), tuple(rewards), GroupStats.of(rewards))


def test_statistics_are_of_the_shaped_rewards_and_the_record_keeps_its_own(oracle: ModuleType) -> None:
    group = with_limit(oracle, [4, 8, 9, 10], [1.0, 1.0, 1.0, 1.0])
    shaped = shape_overlong(group, 0.4)
    assert shaped.rewards == pytest.approx((1.0, 0.5, 0.25, 0.0))
    assert shaped.stats == GroupStats.of(shaped.rewards)
    assert shaped.rollouts == group.rollouts
    assert group.rewards == (1.0, 1.0, 1.0, 1.0)


def test_a_record_without_its_limit_is_refused(oracle: ModuleType) -> None:
    rollout = oracle.make_rollout("bare", [2], [3], [-1.0], sampling=None)
    with pytest.raises(RunError, match=r"rollout bare: no sampling.max_tokens, which trainer.overlong_buffer needs"):
        shape_overlong(Group((rollout,), (1.0,), GroupStats.of([1.0])), 0.2)


def test_a_trainer_shapes_before_it_asks_for_a_signal(oracle: ModuleType, tiny_model: Path) -> None:
    """All completions are right, but of different lengths: without the penalty there is no signal."""
    group = with_limit(oracle, [4, 10], [1.0, 1.0])
    context = TrainContext(ModelSpec(str(tiny_model), device="cpu", dtype="float32"), 0, 0.7, 10, small_runs.NOISY)
    assert Grpo(GrpoOptions(), context).update([group])["train/optimizer_steps"] == 0
    shaped = Grpo(GrpoOptions(overlong_buffer=0.4), context).update([group])
    assert shaped["train/optimizer_steps"] == 1
    assert shaped["signal/groups"] == 1
