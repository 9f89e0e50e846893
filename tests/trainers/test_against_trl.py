"""`grpo` against TRL's GRPOTrainer: one batch that TRL sampled and scored, the same weights; loss and gradients.

What differs by definition is converted or switched off: TRL whitens with Bessel's deviation + 1e-4 (the factor that
`loss.advantage` states), weights the KL term by the ratio, and does not mask it in groups without a signal.
"""

from __future__ import annotations

import dataclasses
import math
import re
import statistics
from collections.abc import Callable, Collection
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
from trl import GRPOConfig, GRPOTrainer

import small_runs
from rlvr.protocols import Group, ModelSpec, TrainContext
from rlvr_trainers.grpo import Grpo, GrpoOptions
from rlvr_trainers.loss.advantage import whiten

# TRL reads attributes that transformers has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning")

GROUP, MAX_TOKENS, TEMPERATURE, EPSILON = 4, 8, 0.7, 0.1
PROMPTS = ("12+7=", "3*", "what is 4?")
REWARDS = [0.0, 1.0, 1.0, 0.5, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 1.0, 0.0]
"""The second group has no signal."""

Build = Callable[..., tuple[GRPOTrainer, dict[str, Any]]]


@pytest.fixture
def build(tiny_model: Path, tmp_path: Path) -> Build:
    """Return TRL's trainer, and a batch that it sampled, scored and whitened."""

    def build(
        beta: float, loss_type: str, *, truncated: Collection[int] | None = None, **options: Any
    ) -> tuple[GRPOTrainer, dict[str, Any]]:
        """`truncated`: the rows that do not end with a stop token; None leaves them as they were sampled."""
        dataset = Dataset.from_list([{"prompt": prompt} for prompt in PROMPTS])
        given: dict[str, Any] = {"epsilon": EPSILON, "use_bias_correction_kl": False} | options
        config = GRPOConfig(
            output_dir=str(tmp_path),
            per_device_train_batch_size=len(REWARDS),
            num_generations=GROUP,
            max_completion_length=MAX_TOKENS,
            temperature=TEMPERATURE,
            beta=beta,
            loss_type=loss_type,
            **given,
            bf16=False,
            activation_checkpointing=False,
            use_cpu=True,
            report_to=[],
        )
        trainer = GRPOTrainer(
            AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32),
            lambda completions, **_: REWARDS,
            args=config,
            train_dataset=dataset,
            processing_class=PreTrainedTokenizerFast.from_pretrained(tiny_model, padding_side="left"),
        )
        trainer.model.train()
        trainer.current_gradient_accumulation_steps = 1  # as its training loop sets it
        generate, eos = trainer._generate, trainer.processing_class.eos_token_id

        def ended(*args: Any) -> Any:
            prompts, completions, *rest = generate(*args)
            stopped = [ids if b in truncated else [*ids[:-1], eos] for b, ids in enumerate(completions)]
            return prompts, stopped, *rest

        if truncated is not None:
            trainer._generate = ended
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            batch = trainer._generate_and_score_completions([row for row in dataset for _ in range(GROUP)])
        for b in range(len(REWARDS)):  # the tiny model hardly ever stops by itself
            batch["completion_mask"][b, 1 + 5 * b % MAX_TOKENS :] = 0
        batch["num_items_in_batch"] = batch["completion_mask"].sum()
        return trainer, batch

    return build


def behaviour(trainer: GRPOTrainer, batch: dict[str, Any], noise: float) -> torch.Tensor:
    """Return log-probabilities that both sides use as the sampler's: the current ones plus noise."""
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
    with torch.no_grad():
        current, *_ = trainer._get_per_token_logps_and_entropies(
            trainer.model, ids, mask, batch["completion_ids"].shape[1]
        )
    generator = torch.Generator().manual_seed(1)
    return (current + noise * torch.randn(current.shape, generator=generator)).clamp(max=-1e-6)


def as_groups(batch: dict[str, Any], logprobs: torch.Tensor, oracle: ModuleType) -> list[Group]:
    """Return TRL's batch as records."""
    rollouts = []
    for b in range(len(REWARDS)):
        prompt = batch["prompt_ids"][b][batch["prompt_mask"][b].bool()].tolist()
        sampled = batch["completion_mask"][b].bool()
        completion = batch["completion_ids"][b][sampled].tolist()
        rollouts.append(oracle.make_rollout(str(b), prompt, completion, logprobs[b][sampled].tolist()))
    return [
        oracle.make_group(rollouts[start : start + GROUP], REWARDS[start : start + GROUP])
        for start in range(0, len(rollouts), GROUP)
    ]


def convert_advantages(batch: dict[str, Any], epsilon: float) -> torch.Tensor:
    """Return TRL's advantages, times the factor between the two whitenings."""
    factors = []
    for start in range(0, len(REWARDS), GROUP):
        rewards = REWARDS[start : start + GROUP]
        deviation = statistics.stdev(rewards) + 1e-4
        factors += [deviation / math.sqrt(statistics.pvariance(rewards) + epsilon)] * GROUP
    return batch["advantages"] * torch.tensor(factors)


def make(path: Path, options: GrpoOptions) -> Grpo:
    """Return our trainer."""
    spec = ModelSpec(str(path), device="cpu", dtype="float32")
    return Grpo(options, TrainContext(spec, seed=0, temperature=TEMPERATURE, total_updates=1, alarms=small_runs.NOISY))


def move(trl: GRPOTrainer, ours: Grpo) -> None:
    """Set both policies to the same weights, different from the reference that both already have."""
    draw = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for theirs_p, ours_p in zip(trl.model.parameters(), ours.policy.model.parameters(), strict=True):
            theirs_p += 0.02 * torch.randn(theirs_p.shape, generator=draw)
            ours_p.copy_(theirs_p)


def compare(trl: GRPOTrainer, batch: dict[str, Any], ours: Grpo, groups: list[Group]) -> dict[str, float]:
    """Compare loss and gradients; return our metrics."""
    loss = trl.compute_loss(trl.model, batch)
    loss.backward()
    grads: dict[str, torch.Tensor] = {}
    ours.policy.optimizer.register_step_pre_hook(
        lambda *_: grads.update({n: p.grad.clone() for n, p in ours.policy.model.named_parameters()})
    )
    metrics = dict(ours.update(groups))
    assert metrics["train/loss"] == pytest.approx(loss.item(), rel=1e-5, abs=1e-5)
    for name, parameter in trl.model.named_parameters():
        difference = (grads[name] - parameter.grad).norm() / parameter.grad.norm()
        assert difference < 2e-5, name
    return metrics


@pytest.mark.parametrize(
    ("loss_type", "aggregation", "beta", "noise"),
    [
        ("grpo", "sequence_mean", 0.0, 0.0),
        ("grpo", "sequence_mean", 0.0, 0.4),
        ("grpo", "sequence_mean", 0.2, 0.0),
        ("grpo", "sequence_mean", 0.2, 0.4),
        ("bnpo", "token_mean", 0.0, 0.4),
        ("dr_grpo", "constant", 0.2, 0.4),
    ],
)
def test_loss_and_gradients_are_trl_s(
    loss_type: str, aggregation: Any, beta: float, noise: float, build: Build, tiny_model: Path, oracle: ModuleType
) -> None:
    trl, batch = build(beta, loss_type)
    options = GrpoOptions(
        epsilon=EPSILON,
        beta=beta,
        aggregation=aggregation,
        mask_zero_variance=beta == 0,
        max_grad_norm=1e9,
    ).with_run(max_tokens=MAX_TOKENS)[0]
    ours = make(tiny_model, options)
    move(trl, ours)

    old = behaviour(trl, batch, noise)
    groups = as_groups(batch, old, oracle)
    batch["advantages"] = convert_advantages(batch, options.advantage_epsilon)
    expected = [a for group in groups for a in whiten(group.rewards, group.stats, options.advantage_epsilon)]
    assert batch["advantages"].tolist() == pytest.approx(expected, abs=1e-5)
    if noise:
        batch["old_per_token_logps"] = old  # without, TRL takes the current ones
    metrics = compare(trl, batch, ours, groups)
    assert (metrics["clip/fraction"] > 0.1) == (noise > 0)
    clip = trl._metrics["train"]["clip_ratio/region_mean"][-1]
    share = (
        1.0
        if beta
        else sum(r.sampled_tokens for g in groups if g.stats.std for r in g.rollouts)
        / sum(r.sampled_tokens for g in groups for r in g.rollouts)
    )
    assert metrics["clip/fraction"] * share == pytest.approx(clip, abs=1e-6)
    if beta:
        assert metrics["kl/reference"] == pytest.approx(trl._metrics["train"]["kl"][-1], rel=1e-4)
        assert metrics["kl/reference"] > 1e-3


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (
            {"loss_type": "dapo", "epsilon": 0.2, "epsilon_high": 0.28},
            {"aggregation": "token_mean", "epsilon": 0.2, "epsilon_high": 0.28},
        ),
        (
            {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon": 0.05, "epsilon_high": 0.08},
            {"ratio": "geometric", "epsilon": 0.05, "epsilon_high": 0.08},
        ),
        (
            {"loss_type": "cispo", "epsilon_high": 1.2},  # TRL's is the bound itself, not its distance from 1
            {"surrogate": "cispo", "band": "upper", "epsilon_high": 0.2, "aggregation": "token_mean"},
        ),
        ({"loss_type": "grpo", "delta": 1.3}, {"delta": 1.3}),
        (
            {"loss_type": "bnpo", "delta": 1.2, "importance_sampling_level": "sequence"},
            {"delta": 1.2, "ratio": "geometric", "aggregation": "token_mean"},
        ),
        ({"loss_type": "grpo", "off_policy_mask_threshold": 0.01}, {"masks": ["opsm"], "opsm_delta": 0.01}),
        (
            {"loss_type": "dr_grpo", "beta": 0.2, "use_bias_correction_kl": True},
            {"aggregation": "constant", "beta": 0.2, "kl": "k3_weighted", "mask_zero_variance": False},
        ),
        ({"loss_type": "dr_grpo", "scale_rewards": "none"}, {"aggregation": "constant", "advantage": "centered"}),
    ],
    ids=["dapo", "gspo", "cispo", "delta", "delta of sequences", "opsm", "weighted k3", "dr-grpo"],
)
def test_variants_are_trl_s(
    theirs: dict[str, Any], ours: dict[str, Any], build: Build, tiny_model: Path, oracle: ModuleType
) -> None:
    trl, batch = build(theirs.pop("beta", 0.0), **theirs)
    low = {} if ours.get("band") == "upper" else {"epsilon": EPSILON}
    options = GrpoOptions(**{**low, "max_grad_norm": 1e9} | ours).with_run(max_tokens=MAX_TOKENS)[0]
    trainer = make(tiny_model, options)
    move(trl, trainer)
    batch["old_per_token_logps"] = old = behaviour(trl, batch, 0.4)
    if options.advantage == "whitened":
        batch["advantages"] = convert_advantages(batch, options.advantage_epsilon)
    metrics = compare(trl, batch, trainer, as_groups(batch, old, oracle))
    assert 0.02 < max(metrics["clip/fraction"], metrics.get("mask/fraction", 0.0)) < 1


@pytest.mark.parametrize(("loss_type", "aggregation"), [("grpo", "sequence_mean"), ("dr_grpo", "constant")])
def test_truncated_completions_are_masked_as_trl_masks_them(
    loss_type: str, aggregation: str, build: Build, tiny_model: Path, oracle: ModuleType
) -> None:
    truncated = {1, 6, 8}
    trl, batch = build(0.0, loss_type, mask_truncated_completions=True, truncated=truncated)
    assert {b for b, mask in enumerate(batch["completion_mask"]) if not mask.any()} == truncated
    options = GrpoOptions(epsilon=EPSILON, max_grad_norm=1e9, aggregation=aggregation, masks=["truncated"])
    trainer = make(tiny_model, options.with_run(max_tokens=MAX_TOKENS)[0])
    move(trl, trainer)
    batch["old_per_token_logps"] = old = behaviour(trl, batch, 0.4)
    batch["advantages"] = convert_advantages(batch, options.advantage_epsilon)
    sampled = batch["completion_mask"].clone()
    sampled[list(truncated)] = 1
    groups = []
    for group in as_groups(batch | {"completion_mask": sampled}, old, oracle):
        reasons = ("length" if int(rollout.id) in truncated else "stop" for rollout in group.rollouts)
        rollouts = [r.model_copy(update={"finish_reason": why}) for r, why in zip(group.rollouts, reasons, strict=True)]
        groups.append(oracle.make_group(rollouts, group.rewards))
    assert compare(trl, batch, trainer, groups)["mask/fraction"] > 0.1


@pytest.mark.parametrize(
    ("mode", "ours"),
    [
        ("token_truncate", {"correction": "tis", "correction_high": 1.2}),
        ("token_mask", {"correction": "mis", "correction_low": 0.8, "correction_high": 1.3}),
        ("sequence_truncate", {"correction": "sequence_tis", "correction_low": 0.9, "correction_high": 1.5}),
        ("sequence_mask", {"correction": "sequence_mis", "correction_high": 1.5}),
    ],
)
def test_corrections_are_trl_s(
    mode: str, ours: dict[str, Any], build: Build, tiny_model: Path, oracle: ModuleType
) -> None:
    """TRL corrects for its engine: the ratio is π/π_old, the weight that of π_old over what the engine says it sampled.

    The weight is made where TRL talks to vLLM; here it is made in the same way and handed to its loss.
    """
    trl, batch = build(0.0, "grpo")
    options = GrpoOptions(epsilon=EPSILON, max_grad_norm=1e9, denominator="iterate", **ours)
    trainer = make(tiny_model, options)
    move(trl, trainer)
    engine, old = behaviour(trl, batch, 0.3), behaviour(trl, batch, 0.0)
    gap = (old - engine) * batch["completion_mask"]
    weight = torch.exp(gap.sum(1, keepdim=True) if mode.startswith("sequence") else gap)
    low, high = ours.get("correction_low", 0.0), ours["correction_high"]
    outside = (weight < low) | (weight > high)
    trl.use_vllm, trl.vllm_importance_sampling_correction = True, True
    batch["importance_sampling_ratio"] = (
        weight.masked_fill(outside, 0.0) if mode.endswith("mask") else weight.clamp(low, high)
    )
    batch["advantages"] = convert_advantages(batch, options.advantage_epsilon)
    metrics = compare(trl, batch, trainer, as_groups(batch, engine, oracle))
    assert 0 < outside.float().mean() < 1
    assert (metrics["mask/fraction"] > 0) == mode.endswith("mask")


def test_settings_of_trl_in_the_table_of_other_frameworks_exist() -> None:
    page = (Path(__file__).parents[2] / "docs" / "coming_from.md").read_text(encoding="utf-8")
    cells = [line.split(" | ")[0] for line in page.splitlines() if line.startswith("| ")][1:]
    named = {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}
    elsewhere = {
        "peft_config",
        "reward_funcs",
        "eval_dataset",
        "min_lr_rate",
    }  # arguments of the trainer, of a schedule
    assert len(named) > 30
    assert named - elsewhere - {field.name for field in dataclasses.fields(GRPOConfig)} == set()
