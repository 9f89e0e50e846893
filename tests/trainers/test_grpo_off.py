"""Whole updates of `grpo-off` against the float64 oracle: lagged behavior, both centers, the reference's resets."""

from __future__ import annotations

import math
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from pydantic import ValidationError

import small_runs
from rlvr.protocols import Group, ModelSpec, TrainContext
from rlvr.record.schema import VersionRun
from rlvr_trainers import loss as default_loss
from rlvr_trainers.batch import token_columns
from rlvr_trainers.grpo_off import GrpoOff, GrpoOffOptions

SHAPES = [[0.0, 1.0, 1.0], [1.0, 1.0], [1.0, 0.0, 0.25]]
LR = 2e-3


def make(path: Path, **options: Any) -> GrpoOff:
    spec = ModelSpec(str(path), device="cpu", dtype="float32")
    return GrpoOff(
        GrpoOffOptions(**options),
        TrainContext(spec, seed=0, temperature=0.7, total_updates=10, alarms=small_runs.NOISY),
    )


def sampled_at(version: int, groups: list[Group]) -> list[Group]:
    """Return the groups, with every token sampled by policy `version`."""
    return [
        Group(
            tuple(
                r.model_copy(update={"policy_versions": (VersionRun(version=version, count=r.sampled_tokens),)})
                for r in group.rollouts
            ),
            group.rewards,
            group.stats,
        )
        for group in groups
    ]


def displacement(trainer: GrpoOff, reference: Any, start: dict[str, torch.Tensor]) -> float:
    """Return the norm of the difference between the two policies, divided by the norm of the oracle's change."""
    weights = trainer.policy.weights()
    moved = difference = 0.0
    for name, expected in reference.model.named_parameters():
        difference += float((weights[name].double() - expected.detach()).square().sum())
        moved += float((expected.detach() - start[name]).square().sum())
    return math.sqrt(difference / moved)


@pytest.mark.parametrize("center", ["one", "iterate"])
@pytest.mark.parametrize("updates", [1, 3])
def test_updates_on_lagged_data_equal_the_oracle_s(
    center: str, updates: int, tiny_model: Path, oracle: ModuleType
) -> None:
    """v = 2: each α serves two batches, and the second is one batch's steps behind."""
    reference = oracle.Oracle(tiny_model)
    start = {name: p.detach().clone() for name, p in reference.model.named_parameters()}
    trainer = make(tiny_model, push_every=2, center=center, updates_per_batch=updates, lr=LR, epsilon=0.1)
    for batch in range(4):
        if batch % trainer.options.batches_per_sync == 0:
            pushed = trainer.version
            batches = [reference.groups(10 * batch + k, SHAPES, noise=0.2, longest=6) for k in range(2)]
        groups = sampled_at(pushed, batches[batch % 2])
        found = trainer.update(groups)
        loss, norm = reference.update(groups, lr=LR, updates=updates, center=center, epsilon_low=0.1, epsilon_high=0.1)[
            -1
        ]
        assert found["train/loss"] == pytest.approx(loss, rel=1e-3, abs=1e-5)
        assert found["train/grad_norm"] == pytest.approx(norm, rel=1e-3)
        assert found["lag/max"] == batch % 2 * updates + updates - 1
        assert found["signal/groups"] == pytest.approx(2 / 3)
    assert displacement(trainer, reference, start) < 2e-3


def test_the_loss_is_the_one_that_the_module_shows(tiny_model: Path, oracle: ModuleType) -> None:
    groups = oracle.Oracle(tiny_model).groups(3, SHAPES, noise=0.4, longest=6)
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    trainer, batch = make(tiny_model), token_columns(rollouts)
    named = {
        "torch": torch,
        "reward_B": torch.tensor([reward for group in groups for reward in group.rewards]),
        "mean_B": torch.tensor([group.stats.mean for group in groups for _ in group.rollouts]),
        "std_B": torch.tensor([group.stats.std for group in groups for _ in group.rollouts]),
        "logprobs_BT": trainer.current_logprobs(batch),
        "behaviour_logprobs_BT": batch.behaviour_logprobs_BT,
        "mask_BT": batch.mask_BT,
    }
    shown = [line.strip() for line in (default_loss.__doc__ or "").splitlines() if line.startswith("    ")]
    exec("\n".join(shown), named)
    found = trainer.update(groups)
    assert found["clip/fraction"] > 0.1
    assert found["train/loss"] == pytest.approx(named["loss"].item(), rel=1e-4)


def test_reference_is_reset_every_so_many_batches(tiny_model: Path, oracle: ModuleType) -> None:
    """π_ref ← π_θ before batches 0, 2 and 4; a batch without a signal counts as one."""
    reference = oracle.Oracle(tiny_model)
    start = {name: p.detach().clone() for name, p in reference.model.named_parameters()}
    trainer = make(tiny_model, beta=0.4, ref_reset_every=2, lr=LR, updates_per_batch=2)
    for batch in range(5):
        if batch % 2 == 0:
            reference.reset_reference()
        if batch == 2:
            trainer.update(reference.groups(batch, [[1.0, 1.0]], noise=0.1))
            continue
        groups = reference.groups(batch, SHAPES, noise=0.2, longest=5)
        trainer.update(groups)
        reference.update(groups, lr=LR, updates=2, beta=0.4)
    assert displacement(trainer, reference, start) < 2e-3


def test_with_the_true_center_a_first_step_never_clips(tiny_model: Path, oracle: ModuleType) -> None:
    groups = oracle.Oracle(tiny_model).groups(1, SHAPES, noise=1.0)
    around_one = make(tiny_model, center="one", epsilon=0.01).update(groups)
    around_iterate = make(tiny_model, center="iterate", epsilon=0.01).update(groups)
    assert around_one["clip/fraction"] > 0.3
    assert around_iterate["clip/fraction"] == 0
    assert around_iterate["ratio/max"] > 2
    later = make(tiny_model, center="iterate", epsilon=0.01, updates_per_batch=3, lr=LR).update(groups)
    assert later["clip/fraction"] > 0.1
    assert later["clip/fraction"] == pytest.approx(later["clip/high"] + later["clip/low"])


def test_options_say_what_they_refuse() -> None:
    assert GrpoOffOptions().push_every == 10
    with pytest.raises(ValidationError, match=r"no reference to reset while trainer\.beta is 0"):
        GrpoOffOptions(ref_reset_every=5)
    with pytest.raises(ValidationError, match="push_evry"):
        GrpoOffOptions(push_evry=5)  # type: ignore[call-arg]
