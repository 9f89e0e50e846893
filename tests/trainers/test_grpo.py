"""Whole updates of `grpo` against the float64 oracle, and the limit cases of an update."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

import small_runs
from rlvr.alarms import Alarms
from rlvr.errors import RunError
from rlvr.protocols import Group, ModelSpec, TrainContext
from rlvr.record.schema import GroupStats, Rollout, Sampling, VersionRun
from rlvr_trainers.batch import mini_batches
from rlvr_trainers.grpo import Grpo, GrpoOptions

TEMPERATURE = 0.7
SHAPES = [[0.0, 1.0, 1.0, 0.0], [0.5, 0.5, 0.5], [1.0, 0.0, 0.25], [0.1] * 4]
"""Rewards of groups: two of them without a signal, one in the middle."""


def make(path: Path, *, temperature: float = TEMPERATURE, dtype: Any = "float32", **options: Any) -> Grpo:
    spec = ModelSpec(str(path), device="cpu", dtype=dtype)
    return Grpo(
        GrpoOptions(**options),
        TrainContext(spec, seed=0, temperature=temperature, total_updates=10, alarms=small_runs.NOISY),
    )


def snapshot(trainer: Grpo) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in trainer.policy.weights().items()}


def gradients(trainer: Grpo, groups: list[Group]) -> dict[str, torch.Tensor]:
    """Return the gradients of the update's last step."""
    seen: dict[str, torch.Tensor] = {}

    def look(*_: Any) -> None:
        seen.update({n: p.grad.clone() for n, p in trainer.policy.model.named_parameters() if p.grad is not None})

    handle = trainer.policy.optimizer.register_step_pre_hook(look)
    trainer.update(groups)
    handle.remove()
    return seen


def relative(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    """Return the norm of the difference divided by the norm of the expected tensors, all together."""
    difference = sum(float((found[n].double() - expected[n].double()).square().sum()) for n in expected)
    return math.sqrt(difference / sum(float(e.double().square().sum()) for e in expected.values()))


def in_segments(group: Group) -> Group:
    """Return the same rollouts, each of several sampled tokens split into two segments: the second has the first as its
    prompt."""
    rollouts, rewards = [], []
    for rollout, reward in zip(group.rollouts, group.rewards, strict=True):
        sampled = np.flatnonzero(rollout.loss_mask)
        cuts = [0, len(sampled) // 2, len(sampled)] if len(sampled) > 1 else [0, len(sampled)]
        for segment, (first, last) in enumerate(itertools.pairwise(cuts)):
            end = sampled[last - 1] + 1
            mask = np.isin(np.arange(end), sampled[first:last])
            changed = {
                "segment": segment,
                "token_ids": rollout.token_ids[:end],
                "loss_mask": mask,
                "behaviour_logprobs": np.where(mask, rollout.behaviour_logprobs[:end], np.nan),
                "policy_versions": (VersionRun(version=0, count=last - first),),
            }
            rollouts.append(Rollout.model_validate({**vars(rollout), **changed}))
            rewards.append(reward)
    return Group(tuple(rollouts), tuple(rewards), group.stats)


# --- against the oracle ---------------------------------------------------------------------------------------------

VARIANTS: list[dict[str, Any]] = [
    {},
    {"aggregation": "token_mean"},
    {"aggregation": "constant", "max_tokens": 12},
    {"divide_by": "kept"},
    {"aggregation": "token_mean", "divide_by": "kept"},
    {"mask_zero_variance": False},
    {"epsilon": 0.05, "epsilon_high": 0.6},
    {"advantage_epsilon": 0.25},
]


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: "-".join(map(str, v.values())) or "default")
def test_loss_and_gradient_equal_the_oracle_s(variant: dict[str, Any], tiny_model: Path, oracle: ModuleType) -> None:
    reference = oracle.Oracle(tiny_model)
    groups = reference.groups(1, SHAPES, noise=0.4)
    variant = {"epsilon": 0.2} | variant
    options = dict(variant)
    trainer = make(tiny_model, max_grad_norm=1e9, lr=1e-3, **variant)
    found = gradients(trainer, groups)

    low = variant.pop("epsilon")
    loss = reference.loss(groups, epsilon_low=low, epsilon_high=variant.pop("epsilon_high", low), **variant)
    expected = reference.gradients(loss)
    assert relative(found, expected) < 1e-5
    whole = make(tiny_model, max_grad_norm=1e9, **options)
    split = [in_segments(group) for group in groups]
    assert len(split[0].rollouts) > len(groups[0].rollouts)
    assert relative(gradients(whole, split), expected) < 1e-5
    losses = [make(tiny_model, **options).update(each)["train/loss"] for each in (groups, split)]
    assert losses[1] == pytest.approx(losses[0], abs=1e-6)
    metrics = make(tiny_model, max_grad_norm=1e9, **({"epsilon": low, "epsilon_high": low} | variant)).update(groups)
    assert metrics["clip/fraction"] > 0.1  # the batch exercises the surrogate


@pytest.mark.parametrize("mask_zero_variance", [True, False])
def test_kl_term_is_masked_with_the_surrogate(mask_zero_variance: bool, tiny_model: Path, oracle: ModuleType) -> None:
    """Eq. 8 multiplies both terms by 1[σ ≠ 0]. π_ref differs from π by two updates."""
    reference = oracle.Oracle(tiny_model)
    trainer = make(tiny_model, beta=0.3, lr=5e-3, max_grad_norm=1e9, mask_zero_variance=mask_zero_variance)
    reference.max_grad_norm = 1e9
    reference.reset_reference()
    options = {"beta": 0.3, "mask_zero_variance": mask_zero_variance}
    for seed in (1, 2):
        groups = reference.groups(seed, SHAPES, noise=0.3)
        trainer.update(groups)
        reference.update(groups, lr=5e-3, **options)
    groups = reference.groups(3, SHAPES, noise=0.3)
    loss = reference.loss(groups, reference=reference.reference_logprobs(groups), **options)
    assert relative(gradients(trainer, groups), reference.gradients(loss)) < 3e-4  # of the weights' own difference


@pytest.mark.parametrize("updates", [1, 3])
def test_updates_equal_the_oracle_s(updates: int, tiny_model: Path, oracle: ModuleType) -> None:
    """Three batches, i steps on each: the weights move as AdamW in float64 moves them."""
    lr, wd = 2e-3, 0.1
    reference = oracle.Oracle(tiny_model, betas=(0.8, 0.95), weight_decay=wd, max_grad_norm=0.5)
    trainer = make(
        tiny_model, lr=lr, betas=(0.8, 0.95), weight_decay=wd, max_grad_norm=0.5, updates_per_batch=updates, epsilon=0.2
    )
    before = snapshot(trainer)
    for seed in range(3):
        groups = reference.groups(seed, SHAPES, noise=0.3)
        found = trainer.update(groups)
        expected_loss, expected_norm = reference.update(groups, lr=lr, updates=updates)[-1]
        assert found["train/loss"] == pytest.approx(expected_loss, rel=1e-3, abs=1e-5)
        assert found["train/grad_norm"] == pytest.approx(expected_norm, rel=1e-3)
    assert trainer.version == 3 * updates
    after = trainer.policy.weights()
    moved = {name: after[name] - before[name] for name in before}
    expected = {name: p.detach() - before[name] for name, p in reference.model.named_parameters()}
    assert relative(moved, expected) < 2e-3


def test_without_the_true_denominator_the_loss_would_be_another(tiny_model: Path, oracle: ModuleType) -> None:
    """The trap: with the detached current log-probabilities as "old", the ratio is 1 and the loss the mean advantage,
    which is 0."""
    reference = oracle.Oracle(tiny_model)
    off = make(tiny_model).update(reference.groups(5, [[0.0, 1.0]], noise=1.0))
    on = make(tiny_model).update(reference.groups(5, [[0.0, 1.0]], noise=0.0))  # the same tokens
    assert on["train/loss"] == pytest.approx(0.0, abs=1e-6)
    assert on["ratio/max"] == pytest.approx(1.0, abs=1e-4)
    assert off["ratio/max"] > 1.5
    assert abs(off["train/loss"]) > 1e-2


@pytest.mark.parametrize("tokens", [1, 30, 64])
def test_micro_batches_add_up_to_the_batch(tokens: int, tiny_model: Path, oracle: ModuleType) -> None:
    groups = oracle.Oracle(tiny_model).groups(4, SHAPES, noise=0.3)
    whole = gradients(make(tiny_model, beta=0.1, max_grad_norm=1e9), groups)
    parts = gradients(make(tiny_model, beta=0.1, max_grad_norm=1e9, micro_batch_tokens=tokens), groups)
    assert relative(parts, whole) < 1e-5


# --- limit cases ----------------------------------------------------------------------------------------------------


def test_batches_without_signal_leave_the_weights_untouched(tiny_model: Path, oracle: ModuleType) -> None:
    """Also if AdamW has momentum that would move them, and with a KL term that eq. 8 masks."""
    reference = oracle.Oracle(tiny_model)
    trainer = make(tiny_model, lr=1e-2, beta=0.5)
    trainer.update(reference.groups(0, SHAPES, noise=0.1))
    before, moments = (
        snapshot(trainer),
        torch.cat([s["exp_avg"].flatten() for s in trainer.policy.optimizer.state.values()]),
    )
    metrics = trainer.update(reference.groups(1, [[0.1] * 16, [1.0] * 3], noise=0.1))
    assert metrics["signal/groups"] == metrics["train/optimizer_steps"] == 0
    assert trainer.version == 1
    assert all(torch.equal(tensor, before[name]) for name, tensor in trainer.policy.weights().items())
    assert moments.abs().max() > 0
    assert torch.equal(moments, torch.cat([s["exp_avg"].flatten() for s in trainer.policy.optimizer.state.values()]))


MASKS: list[dict[str, Any]] = [{"masks": ["truncated"]}, {"masks": ["max_lag"], "max_lag": 0}]


def cut(rollout: Rollout, options: dict[str, Any]) -> Rollout:
    """Return the rollout changed so that the mask of the options removes it in a trainer at version 1."""
    if "max_lag" in options:
        return rollout.model_copy(update={"policy_versions": (VersionRun(version=0, count=rollout.sampled_tokens),)})
    return rollout.model_copy(update={"finish_reason": "length"})


def lagless(group: Group) -> list[Rollout]:
    """Return the group with rollouts sampled by version 1."""
    return [
        r.model_copy(update={"policy_versions": (VersionRun(version=1, count=r.sampled_tokens),)})
        for r in group.rollouts
    ]


@pytest.mark.parametrize("options", MASKS)
def test_what_a_mask_takes_out_is_counted(options: dict[str, Any], tiny_model: Path, oracle: ModuleType) -> None:
    """Counted although its rollouts are not computed: over groups with a signal, by sign of the advantage and by
    lag."""
    first, second, mute = oracle.Oracle(tiny_model).groups(21, [[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], noise=0.1)
    trainer = make(tiny_model, **options)
    assert trainer.update([first])["mask/fraction"] == 0
    (bad, good), (right, wrong) = lagless(first), lagless(second)
    groups = [
        oracle.make_group([bad, cut(good, options)], [0.0, 1.0]),
        oracle.make_group([cut(right, options), cut(wrong, options)], [1.0, 0.0]),
        oracle.make_group([cut(r, options) for r in mute.rollouts], [1.0, 1.0]),
    ]
    metrics = trainer.update(groups)
    high, low = (sum(r.sampled_tokens for r in rollouts) for rollouts in ([good, right], [wrong]))
    total = high + low + bad.sampled_tokens
    found = [metrics[f"mask/{name}"] for name in ("high", "low", "fraction")]
    assert found == pytest.approx([high / total, low / total, (high + low) / total])
    if "max_lag" in options:
        assert metrics["lag_1-3/mask_high"] == pytest.approx(high / (high + low))
        assert metrics["lag_0/mask_high"] == metrics["lag_0/mask_low"] == 0
        assert "lag_1-3/ess_token" not in metrics, "nothing of that age was computed"
    else:
        assert metrics["lag_0/mask_high"] == pytest.approx(high / total)
    assert metrics["train/optimizer_steps"] == 1


@pytest.mark.parametrize("options", MASKS)
def test_a_batch_that_is_masked_as_a_whole_says_so(
    options: dict[str, Any], tiny_model: Path, oracle: ModuleType
) -> None:
    groups = oracle.Oracle(tiny_model).groups(22, [[0.0, 1.0], [1.0, 1.0]], noise=0.1)
    trainer = make(tiny_model, **options)
    trainer.update(groups)
    metrics = trainer.update([oracle.make_group([cut(r, options) for r in g.rollouts], g.rewards) for g in groups])
    assert (metrics["train/optimizer_steps"], metrics["signal/groups"], metrics["mask/fraction"]) == (0, 0.5, 1)
    assert metrics["mask/high"] + metrics["mask/low"] == pytest.approx(1)
    assert metrics["lag_1-3/mask_high"] == metrics["mask/high"]
    assert "ess/token" not in metrics


@pytest.mark.parametrize("beta", [0.0, 0.5])
def test_a_batch_that_the_correction_rejects_as_a_whole_leaves_the_weights_untouched(
    beta: float, tiny_model: Path, oracle: ModuleType
) -> None:
    """Also with a KL term, which covers only kept tokens. Without it, only momentum would move the weights."""
    groups = oracle.Oracle(tiny_model).groups(23, [[0.0, 1.0]], noise=0.0)
    trainer = make(tiny_model, lr=1e-2, beta=beta, correction="mis")
    assert trainer.update(groups)["train/optimizer_steps"] == 1
    before = snapshot(trainer)
    far = [
        r.model_copy(update={"behaviour_logprobs": np.where(r.loss_mask, -50.0, np.nan)}) for r in groups[0].rollouts
    ]
    metrics = trainer.update([oracle.make_group(far, groups[0].rewards)])
    assert (metrics["train/optimizer_steps"], metrics["mask/fraction"]) == (0, 1)
    assert all(torch.equal(tensor, before[name]) for name, tensor in trainer.policy.weights().items())


def test_no_groups_are_no_step(tiny_model: Path) -> None:
    trainer = make(tiny_model)
    before = snapshot(trainer)
    assert trainer.update([])["train/optimizer_steps"] == 0
    assert trainer.version == 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in trainer.policy.weights().items())


def test_groups_without_signal_add_nothing_but_their_place_in_the_mean(tiny_model: Path, oracle: ModuleType) -> None:
    groups = oracle.Oracle(tiny_model).groups(6, [[0.0, 1.0], [1.0, 1.0]], noise=0.1)
    options = {"max_grad_norm": 1e9, "micro_batch_tokens": 1}
    alone = gradients(make(tiny_model, **options), groups[:1])
    among_all = gradients(make(tiny_model, **options), groups)
    among_kept = gradients(make(tiny_model, divide_by="kept", **options), groups)
    assert relative({name: 2 * g for name, g in among_all.items()}, alone) < 1e-6
    assert relative(among_kept, alone) < 1e-6


def test_a_group_that_lost_members_is_whitened_as_it_was_sampled(tiny_model: Path, oracle: ModuleType) -> None:
    """The remaining members have equal rewards, but are trained on, since the behavior policy's mean was lower."""
    (group,) = oracle.Oracle(tiny_model).groups(7, [[1.0, 1.0, 0.0, 0.0]], noise=0.0)
    left = Group(group.rollouts[:2], group.rewards[:2], group.stats)
    metrics = make(tiny_model).update([left])
    assert metrics["train/optimizer_steps"] == 1
    assert metrics["train/loss"] == pytest.approx(-1.0, abs=1e-4)  # both advantages are 1, both ratios 1
    again = Group(left.rollouts, left.rewards, GroupStats.of(left.rewards))
    assert make(tiny_model).update([again])["train/optimizer_steps"] == 0


def test_temperature_is_applied_everywhere(tiny_model: Path, oracle: ModuleType) -> None:
    """At the sampling temperature the data is on-policy, and the distance to the reference is 0."""
    groups = oracle.Oracle(tiny_model).groups(8, [[0.0, 1.0, 0.0]], noise=0.0)
    metrics = make(tiny_model, beta=0.1).update(groups)
    assert metrics["mismatch/max"] < 1e-4
    assert metrics["kl/reference"] == 0.0
    hot = [
        oracle.make_group(
            [
                r.model_copy(update={"sampling": Sampling(temperature=1.3, logprob_mode="processed")})
                for r in g.rollouts
            ],
            g.rewards,
        )
        for g in groups
    ]
    assert make(tiny_model, temperature=1.3).update(hot)["mismatch/max"] > 0.1
    with pytest.raises(RunError, match=r"rollout 8-0-0 was sampled at temperature 0.7, training is at 1.3"):
        make(tiny_model, temperature=1.3).update(groups)


@pytest.mark.parametrize("passes", [1, 2])
@pytest.mark.parametrize("options", [{}, {"aggregation": "token_mean", "masks": ["truncated"]}])
def test_mini_batches_are_updates_on_their_groups_one_after_the_other(
    passes: int, options: dict[str, Any], tiny_model: Path, oracle: ModuleType
) -> None:
    """Each part has its own mean: groups without a signal and masked tokens count in their part."""
    groups = oracle.Oracle(tiny_model).groups(5, [SHAPES[0], SHAPES[2], *SHAPES], noise=0.2)
    options = options | {"lr": 1e-3}
    whole, apart = make(tiny_model, mini_batches=2, updates_per_batch=passes, **options), make(tiny_model, **options)
    found = whole.update(groups)
    for _ in range(passes):
        apart.update(groups[::2])
        last = apart.update(groups[1::2])
    assert found["train/optimizer_steps"] == 2 * passes == apart.version
    assert found["train/loss"] == last["train/loss"]
    expected = snapshot(apart)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in snapshot(whole).items())


def test_mini_batches_share_the_policy_before_the_first_and_are_whole_groups(
    tiny_model: Path, oracle: ModuleType
) -> None:
    groups = oracle.Oracle(tiny_model).groups(5, [*SHAPES, SHAPES[2]], noise=0.2)
    options: dict[str, Any] = {"denominator": "iterate", "epsilon": 1e-6, "lr": 1e-2}
    assert make(tiny_model, **options).update(groups)["clip/fraction"] == 0
    parts = make(tiny_model, mini_batches=99, **options)
    found = parts.update(groups)
    assert found["clip/fraction"] > 0.1
    assert parts.version == found["train/optimizer_steps"] == 3, "groups with a signal"
    rows, sizes = iter(range(99)), [len(group.rollouts) for group in groups]
    of_group = [list(itertools.islice(rows, size)) for size in sizes]
    assert [part.tolist() for part in mini_batches(groups, 2)] == [
        of_group[0] + of_group[2] + of_group[4],
        of_group[1] + of_group[3],
    ]


def test_what_alarms_look_at_is_the_worst_of_a_batch_s_steps(tiny_model: Path, oracle: ModuleType) -> None:
    """The first of two mini-batches is far from the policy, the second is not."""
    reference = oracle.Oracle(tiny_model)
    (far,), (near,) = reference.groups(5, [SHAPES[0]], noise=2.0), reference.groups(6, [SHAPES[0]], noise=0.0)
    first = make(tiny_model, lr=1e-6).update([far])
    found = make(tiny_model, lr=1e-6, mini_batches=2).update([far, near])
    assert found["ratio/max"] == first["ratio/max"] > 10
    assert found["ess/token"] == first["ess/token"] < 0.5
    assert found["mismatch/mean"] == first["mismatch/mean"] > 0.5
    assert found["ess/sequence"] > 0.9, "of the last step, as everything else"


def test_lag_is_counted_a_token_and_a_gradient_step(tiny_model: Path, oracle: ModuleType) -> None:
    """v1-i4 reaches lag 3; a completion whose sampler got new weights half-way has tokens of two lags."""
    reference = oracle.Oracle(tiny_model)
    trainer = make(tiny_model, updates_per_batch=4)
    assert trainer.update(reference.groups(9, [[0.0, 1.0]], noise=0.0))["lag/max"] == 3
    assert trainer.version == 4
    (group,) = reference.groups(10, [[0.0, 1.0]], noise=0.0, longest=6)
    rollouts = []
    for rollout in group.rollouts:
        sampled = rollout.sampled_tokens
        runs = (VersionRun(version=1, count=1), VersionRun(version=4, count=sampled - 1))[: 1 + (sampled > 1)]
        rollouts.append(rollout.model_copy(update={"policy_versions": runs}))
    single = make(tiny_model)
    single.policy.version = 4
    metrics = single.update([oracle.make_group(rollouts, group.rewards)])
    tokens = sum(r.sampled_tokens for r in rollouts)
    assert metrics["lag/max"] == 3
    assert metrics["lag/mean"] == pytest.approx(3 * len(rollouts) / tokens)


def test_learning_rate_warms_up_linearly(tiny_model: Path, oracle: ModuleType) -> None:
    groups = oracle.Oracle(tiny_model).groups(11, [[0.0, 1.0]], noise=0.0)
    trainer = make(tiny_model, lr=4e-4, warmup_updates=4)
    assert [trainer.update(groups)["train/lr"] for _ in range(5)] == pytest.approx([1e-4, 2e-4, 3e-4, 4e-4, 4e-4])


def test_log_probabilities_of_records(tiny_model: Path, oracle: ModuleType) -> None:
    reference = oracle.Oracle(tiny_model)
    rollouts = [r for g in reference.groups(12, SHAPES, noise=0.5) for r in g.rollouts]
    unsampled = oracle.make_rollout("prompt alone", [3, 4, 5], [], [])
    found = make(tiny_model, micro_batch_tokens=40).logprobs([*rollouts, unsampled])
    for rollout, row in zip(rollouts, found, strict=False):
        assert [not math.isnan(p) for p in row] == list(rollout.loss_mask)
        assert [p for p in row if not math.isnan(p)] == pytest.approx(
            reference.sampled_logprobs(rollout).tolist(), abs=1e-5
        )
    assert np.isnan(found[-1]).tolist() == [True, True, True]
    assert make(tiny_model).logprobs([]) == []
    with pytest.raises(RunError, match="rollout bare: no token_ids or no loss_mask"):
        make(tiny_model).logprobs(
            [
                oracle.make_rollout(
                    "bare", [2], [3], [-1.0], loss_mask=None, behaviour_logprobs=None, policy_versions=None
                )
            ]
        )


def test_a_step_that_is_not_finite_is_not_taken(tiny_model: Path, oracle: ModuleType) -> None:
    (group,) = oracle.Oracle(tiny_model).groups(13, [[0.0, 1.0]], noise=0.0)
    punished = group.rollouts[0].model_copy(
        update={"behaviour_logprobs": np.where(group.rollouts[0].loss_mask, -500.0, np.nan)}
    )
    trainer = make(tiny_model)
    before = snapshot(trainer)
    metrics = trainer.update([oracle.make_group([punished, group.rollouts[1]], group.rewards)])
    assert not math.isfinite(metrics["train/grad_norm"])
    assert metrics["train/skipped"] == 1
    assert metrics["train/optimizer_steps"] == trainer.version == 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in trainer.policy.weights().items())
    # Nothing of it is left in the gradients either.
    fresh = make(tiny_model)
    for each in (trainer, fresh):
        assert each.update([group])["train/skipped"] == 0
    assert all(torch.equal(tensor, fresh.policy.weights()[name]) for name, tensor in trainer.policy.weights().items())


def test_an_alarm_ends_the_batch_before_the_step_that_sets_it_off(tiny_model: Path, oracle: ModuleType) -> None:
    """Large steps on one batch: the ratio passes the threshold after the first, and the rest is skipped."""
    groups = oracle.Oracle(tiny_model).groups(15, [[0.0, 1.0, 0.5]], noise=0.0)
    options = {"lr": 3e-2, "updates_per_batch": 8, "epsilon": 5.0}
    free, watched = make(tiny_model, **options), make(tiny_model, **options)
    watched.alarms = Alarms.model_validate({"ratio": {"threshold": 2.0, "consequence": "skip"}})
    assert free.update(groups)["ratio/max"] > 2
    metrics = watched.update(groups)
    assert metrics["ratio/max"] > 2
    assert metrics["train/skipped"] == 1
    assert 1 <= metrics["train/optimizer_steps"] == watched.version < 8
    alone = make(tiny_model, **(options | {"updates_per_batch": watched.version}))
    alone.update(groups)
    assert all(torch.equal(tensor, alone.policy.weights()[name]) for name, tensor in watched.policy.weights().items())


def test_trains_a_checkpoint_with_all_that_real_ones_have(awkward_model: Path, oracle: ModuleType) -> None:
    """bfloat16 on disk, dropout in the configuration, more ids than the tokenizer has, an output layer of its own."""
    reference = oracle.Oracle(awkward_model)
    groups = reference.groups(14, SHAPES, noise=0.3)
    trainer = make(awkward_model, max_grad_norm=1e9, gradient_checkpointing=True)
    assert trainer.policy.model.is_activation_checkpointing
    assert relative(gradients(trainer, groups), reference.gradients(reference.loss(groups))) < 1e-5
