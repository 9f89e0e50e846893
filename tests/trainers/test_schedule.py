"""Rules for the learning rate, against plain arithmetic, and in a trainer."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr.errors import RunError
from rlvr.protocols import ModelSpec, TrainContext
from rlvr_trainers.grpo import Grpo, GrpoOptions
from rlvr_trainers.schedule import ess_factor, lag_factor, rates


@settings(deadline=None)
@given(st.lists(st.lists(st.floats(-2, 2), min_size=1, max_size=4), min_size=1, max_size=6), st.floats(0.05, 1))
def test_effective_sample_size_of_whole_sequences(log_ratios: list[list[float]], base: float) -> None:
    weights = [math.exp(math.fsum(row)) for row in log_ratios]
    share = sum(weights) ** 2 / sum(w * w for w in weights) / len(weights)
    padded_BT = torch.tensor([row + [0.0] * (4 - len(row)) for row in log_ratios], dtype=torch.float64)
    assert ess_factor(padded_BT, base) == pytest.approx(math.sqrt(min(1.0, share / base)), rel=1e-9)


def test_on_policy_the_rate_is_not_lowered() -> None:
    assert ess_factor(torch.zeros(5, 3), 1.0) == pytest.approx(1.0)
    assert lag_factor(0.0, 2.0) == 1.0


def test_weights_beyond_floating_point() -> None:
    assert ess_factor(torch.tensor([[900.0], [0.0], [0.0], [-900.0]]), 1.0) == pytest.approx(0.5)


def test_beyond_its_base_lag_times_rate_is_constant() -> None:
    assert [lag_factor(lag, 2.0) for lag in (1, 2, 4, 8)] == [1.0, 1.0, 0.5, 0.25]


def test_warmup_is_linear() -> None:
    rate = rates("constant", 9, warmup=4)
    assert [rate(update) for update in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert rates("constant", 9)(0) == 1.0


@pytest.mark.parametrize("warmup", [0, 3])
@pytest.mark.parametrize("floor", [0.0, 0.25])
@pytest.mark.parametrize(
    ("kind", "course"),
    [("linear", lambda done: 1 - done), ("cosine", lambda done: (1 + math.cos(math.pi * done)) / 2)],
)
def test_decay_ends_at_its_floor_over_the_planned_steps(
    kind: Literal["linear", "cosine"], course: Callable[[float], float], floor: float, warmup: int
) -> None:
    updates, skipped = 20, int(warmup > 0)
    rate = rates(kind, updates, warmup=warmup, floor=floor)
    for update in range(updates):
        step = update + skipped
        done = (step - warmup) / (updates + skipped - warmup)
        expected = step / warmup if step < warmup else floor + (1 - floor) * course(done)
        assert rate(update) == pytest.approx(expected)
    assert rate(0) > 0
    assert rate(updates - 1) > floor
    assert rate(updates + 5) == rate(updates - 1)


def test_a_warmup_may_be_as_long_as_the_run_or_longer() -> None:
    for kind in ("constant", "linear", "cosine"):
        assert [rates(kind, 2, warmup=2)(k) for k in range(2)] == [0.5, 1.0]
        assert rates(kind, 2, warmup=8)(1) == 0.25


def test_a_trainer_plans_all_its_optimizer_steps(tiny_model: Path, oracle: ModuleType) -> None:
    """Ten batches with two steps each, a tenth of them warmup. A batch without a signal takes its place in the plan."""
    groups = oracle.Oracle(tiny_model).groups(1, [[0.0, 1.0]], noise=0.0)
    decaying = trainer(tiny_model, lr_schedule="linear", warmup_share=0.1, updates_per_batch=2)
    assert decaying.update(groups)["train/lr"] == pytest.approx(1e-3)
    decaying.update([])
    assert decaying.update(groups)["train/lr"] == pytest.approx(1e-3 * (1 - 4 / 19))


def trainer(path: Path, **options: Any) -> Grpo:
    context = TrainContext(ModelSpec(str(path), device="cpu", dtype="float32"), 0, 0.7, 10)
    return Grpo(GrpoOptions(lr=1e-3, **options), context)


def test_a_trainer_multiplies_what_its_options_name(tiny_model: Path, oracle: ModuleType) -> None:
    reference = oracle.Oracle(tiny_model)
    groups = reference.groups(1, [[0.0, 1.0, 1.0, 0.0], [1.0, 0.0]], noise=0.4)
    own = reference.all_logprobs(groups)
    weights = [math.exp(sum(own[r.id]) - r.behaviour_logprobs[r.loss_mask].sum()) for g in groups for r in g.rollouts]
    ess = sum(weights) ** 2 / sum(w * w for w in weights) / len(weights)
    assert ess < 0.8
    scaled = trainer(tiny_model, ess_base=0.9, lag_base=2.0, warmup_updates=4)
    scaled.policy.version = scaled.batches = 8  # of tokens that version 0 sampled
    assert scaled.update(groups)["train/lr"] == pytest.approx(1e-3 * math.sqrt(ess / 0.9) * 2 / 8, rel=1e-4)
    assert trainer(tiny_model).update(groups)["train/lr"] == 1e-3


def test_a_lag_that_is_unknown_is_not_averaged(tiny_model: Path, oracle: ModuleType) -> None:
    (group,) = oracle.Oracle(tiny_model).groups(1, [[0.0, 1.0]], noise=0.0)
    unknown = replace(group, rollouts=tuple(r.model_copy(update={"policy_versions": ()}) for r in group.rollouts))
    with pytest.raises(RunError, match=r"trainer\.lag_base needs the policy version of every sampled token"):
        trainer(tiny_model, lag_base=2.0).update([unknown])
