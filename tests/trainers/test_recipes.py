"""Every recipe: its formula once more, a token at a time in float64, against a whole update; micro-batches; two real
steps of the embedded model through the configuration that `rlvr train --recipe` makes."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from rlvr.config import command_line_settings, read_recipe, resolve
from rlvr.loop import Run
from rlvr.plan import make_plan
from rlvr.protocols import Group, ModelSpec, TrainContext
from rlvr.registry import registry
from rlvr.rundir import RunDirectory
from rlvr.schema import GroupStats
from rlvr_trainers.grpo_off import GrpoOff, GrpoOffOptions

RECIPES = [entry.name for entry in registry().entries("recipe")]
SHAPES = [[0.0, 1.0, 1.0, 0.0], [0.5, 0.5, 0.5], [1.0, 0.0, 0.25]]
"""Rewards of groups, one of them without a signal."""
LIMIT = 8
"""Length limit that the records name."""
MAX_TOKENS = 12
"""Divisor of the constant aggregation."""


class Formula(NamedTuple):
    """A recipe as its paper has it. `tokens(row, rows, oracle)` gives what is maximised at each token."""

    advantage: Callable[[Sequence[float]], list[float]]
    tokens: Callable[[Any, Sequence[Any], ModuleType], list[Tensor]]
    mean: Callable[[Sequence[Sequence[Tensor]], Sequence[bool]], Tensor]
    reward: Callable[[float, int], float] = lambda reward, length: reward


# --- advantages and means -------------------------------------------------------------------------------------------


def whitened(rewards: Sequence[float]) -> list[float]:
    mean, variance = statistics.fmean(rewards), statistics.pvariance(rewards)
    return [(r - mean) / math.sqrt(variance + 1e-6) for r in rewards]


def centred(rewards: Sequence[float]) -> list[float]:
    return [r - statistics.fmean(rewards) for r in rewards]


def mirror_descent(rewards: Sequence[float]) -> list[float]:
    return [r - math.log(statistics.fmean(map(math.exp, rewards))) for r in rewards]


def of_sequences(values: Sequence[Sequence[Tensor]], signal: Sequence[bool]) -> Tensor:
    return sum(sum(v) / len(v) for v, s in zip(values, signal, strict=True) if s) / len(values)  # type: ignore[return-value]


def of_tokens(values: Sequence[Sequence[Tensor]], signal: Sequence[bool]) -> Tensor:
    return sum(sum(v) for v, s in zip(values, signal, strict=True) if s) / sum(map(len, values))  # type: ignore[return-value]


def of_kept_tokens(values: Sequence[Sequence[Tensor]], signal: Sequence[bool]) -> Tensor:
    return of_tokens([v for v, s in zip(values, signal, strict=True) if s], [True] * sum(signal))


def by_a_constant(values: Sequence[Sequence[Tensor]], signal: Sequence[bool]) -> Tensor:
    return sum(sum(v) for v, s in zip(values, signal, strict=True) if s) / (len(values) * MAX_TOKENS)  # type: ignore[return-value]


# --- objectives of a token ------------------------------------------------------------------------------------------


def surrogate(r: Tensor, a: float, low: float, high: float) -> Tensor:
    return torch.minimum(r * a, torch.clamp(r, low, high) * a)


def ratios(row: Any) -> list[Tensor]:
    return [torch.exp(p - m) for p, m in zip(row.pi, row.mu, strict=True)]


def grpo(low: float, high: float) -> Callable[..., list[Tensor]]:
    return lambda row, rows, oracle: [surrogate(r, row.a, low, high) for r in ratios(row)]


def paper(row: Any, rows: Sequence[Any], oracle: ModuleType) -> list[Tensor]:
    gaps = [q - p for p, q in zip(row.pi, row.reference, strict=True)]
    return [
        surrogate(r, row.a, 0.8, 1.2) - 0.1 * (torch.exp(g) - g - 1) for r, g in zip(ratios(row), gaps, strict=True)
    ]


def gspo(row: Any, rows: Sequence[Any], oracle: ModuleType) -> list[Tensor]:
    s = torch.exp(sum(p - m for p, m in zip(row.pi, row.mu, strict=True)) / len(row.mu))
    return [surrogate(s, row.a, 1 - 3e-4, 1 + 4e-4) for _ in row.tokens]


def cispo(row: Any, rows: Sequence[Any], oracle: ModuleType) -> list[Tensor]:
    return [min(r.item(), 5.0) * row.a * p for r, p in zip(ratios(row), row.pi, strict=True)]


def m2po(row: Any, rows: Sequence[Any], oracle: ModuleType) -> list[Tensor]:
    t = oracle.second_moment_width([row for row in rows if row.a], 0.04)
    return [surrogate(r, row.a, min(math.exp(-t), 0.7), max(math.exp(t), 1.5)) for r in ratios(row)]


def dppo_tv(row: Any, rows: Sequence[Any], oracle: ModuleType) -> list[Tensor]:
    moved = [math.exp(p.item()) - math.exp(m) for p, m in zip(row.pi, row.mu, strict=True)]
    out = [(row.a > 0 and d > 0.2) or (row.a < 0 and -d > 0.2) for d in moved]
    return [r * row.a * (not o) for r, o in zip(ratios(row), out, strict=True)]


def decoupled(row: Any, rows: Sequence[Any], oracle: ModuleType) -> list[Tensor]:
    w = [math.exp(k - m) for k, m in zip(row.iterate, row.mu, strict=True)]
    rho = [torch.exp(p - k) for p, k in zip(row.pi, row.iterate, strict=True)]
    return [w_t * surrogate(rho_t, row.a, 0.8, 1.2) for w_t, rho_t in zip(w, rho, strict=True)]


def topr(row: Any, rows: Sequence[Any], oracle: ModuleType) -> list[Tensor]:
    product = math.exp(math.fsum(p.item() - m for p, m in zip(row.pi, row.mu, strict=True)))
    weight = 1.0 if row.a >= 0 else min(product, 1.0)
    return [weight * row.a * p for p in row.pi]


def rec(row: Any, rows: Sequence[Any], oracle: ModuleType) -> list[Tensor]:
    inside = [r.item() <= 1.2 if row.a >= 0 else r.item() >= 0.8 for r in ratios(row)]
    return [row.a * p * keep for p, keep in zip(row.pi, inside, strict=True)]


def with_length_penalty(reward: float, length: int) -> float:
    """DAPO's eq. 13, L_max = 8 and L_cache = 1.6."""
    if length <= 6.4:
        return reward
    return reward + (6.4 - length) / 1.6 if length <= 8 else reward - 1


FORMULAS = {
    "paper-v10-i1": Formula(whitened, paper, of_sequences),
    "paper-v1-i10": Formula(whitened, paper, of_sequences),
    "paper-v1-i1": Formula(whitened, paper, of_sequences),
    "dapo": Formula(whitened, grpo(0.8, 1.28), of_kept_tokens, with_length_penalty),
    "dr-grpo": Formula(centred, grpo(0.8, 1.2), by_a_constant),
    "gspo": Formula(whitened, gspo, of_sequences),
    "cispo": Formula(whitened, cispo, of_tokens),
    "m2po": Formula(whitened, m2po, of_tokens),
    "dppo-tv": Formula(whitened, dppo_tv, of_tokens),
    "decoupled-ppo": Formula(whitened, decoupled, of_sequences),
    "topr": Formula(centred, topr, of_sequences),
    "opmd": Formula(mirror_descent, rec, of_sequences),
}


# --- against whole updates ------------------------------------------------------------------------------------------


def make(path: Path, name: str, **options: Any) -> GrpoOff:
    """The trainer of a recipe, away from its reference."""
    settings = {
        key.removeprefix("trainer."): s.value for key, s in read_recipe(name)[1].items() if key[:8] == "trainer."
    }
    assert settings.pop("name") == "grpo-off"
    spec = ModelSpec(str(path), device="cpu", dtype="float32")
    trainer = GrpoOff(
        GrpoOffOptions(**settings | {"max_grad_norm": 1e9, "max_tokens": MAX_TOKENS, "updates_per_batch": 1} | options),
        TrainContext(spec, seed=0, temperature=0.7, total_updates=10),
    )
    draw = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in trainer.policy.parameters:
            parameter += 0.02 * torch.randn(parameter.shape, generator=draw)
    return trainer


def stale_groups(reference: Any, seed: int = 1) -> list[Group]:
    """Ragged groups whose behaviour policy is noise away, sampled with a limit of `LIMIT` tokens."""
    return [
        Group(
            tuple(
                r.model_copy(update={"sampling": r.sampling.model_copy(update={"max_tokens": LIMIT})})
                for r in group.rollouts
            ),
            group.rewards,
            group.stats,
        )
        for group in reference.groups(seed, SHAPES, noise=0.4)
    ]


def update(trainer: GrpoOff, groups: list[Group]) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Metrics, and the gradients that the optimizer was given."""
    seen: dict[str, Tensor] = {}
    trainer.policy.optimizer.register_step_pre_hook(
        lambda *_: seen.update({n: p.grad.clone() for n, p in trainer.policy.model.named_parameters()})
    )
    return dict(trainer.update(groups)), seen


def relative(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    difference = sum(float((found[n].double() - expected[n].double()).square().sum()) for n in expected)
    return math.sqrt(difference / sum(float(e.double().square().sum()) for e in expected.values()))


def test_every_recipe_has_a_formula_here() -> None:
    assert FORMULAS.keys() == set(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_loss_and_gradient_are_those_of_the_formula(name: str, tiny_model: Path, oracle: ModuleType) -> None:
    formula, reference = FORMULAS[name], oracle.Oracle(tiny_model)
    trainer = make(tiny_model, name)
    groups = stale_groups(reference)
    at_first = reference.all_logprobs(groups)
    with torch.no_grad():
        for own, theirs in zip(reference.model.parameters(), trainer.policy.parameters, strict=True):
            own.copy_(theirs)
    rows, signal = [], []
    for group in groups:
        lengths = [sum(r.loss_mask or ()) for r in group.rollouts]
        rewards = [formula.reward(*pair) for pair in zip(group.rewards, lengths, strict=True)]
        different = max(rewards) > min(rewards)
        for rollout, a in zip(group.rollouts, formula.advantage(rewards), strict=True):
            pi = list(reference.sampled_logprobs(rollout))
            rows.append(
                oracle.Row(
                    pi=pi,
                    mu=[p for p in rollout.behaviour_logprobs or () if p is not None],
                    iterate=[p.item() for p in pi],
                    reference=at_first[rollout.id],
                    lags=[0] * len(pi),
                    a=a if different else 0.0,
                )
            )
            signal.append(different)
    expected = -formula.mean([formula.tokens(row, rows, oracle) for row in rows], signal)
    metrics, gradients = update(trainer, groups)
    assert metrics["train/loss"] == pytest.approx(expected.item(), rel=1e-4, abs=1e-5)
    assert relative(gradients, reference.gradients(expected)) < 1e-5


@pytest.mark.parametrize("name", RECIPES)
def test_micro_batches_add_up_to_the_batch(name: str, tiny_model: Path, oracle: ModuleType) -> None:
    """Also where a threshold or a divisor is the whole batch's."""
    groups = stale_groups(oracle.Oracle(tiny_model), seed=3)
    _, whole = update(make(tiny_model, name), groups)
    for tokens in (1, 40):
        _, parts = update(make(tiny_model, name, micro_batch_tokens=tokens), groups)
        assert relative(parts, whole) < 1e-5


@pytest.mark.parametrize("divide_by", ["all", "kept"])
@pytest.mark.parametrize("aggregation", ["sequence_mean", "token_mean", "constant"])
def test_micro_batches_add_up_with_every_aggregation(
    aggregation: str, divide_by: str, tiny_model: Path, oracle: ModuleType
) -> None:
    """With a correction that rejects, a KL term and masks of both kinds."""
    options: dict[str, Any] = {
        "aggregation": aggregation, "divide_by": divide_by, "correction": "mis", "beta": 0.1, "kl": "k3_weighted",
        "masks": ["max_lag", "opsm"], "max_lag": 3, "opsm_delta": 0.1,
    }  # fmt: skip
    groups = stale_groups(oracle.Oracle(tiny_model), seed=4)
    found, whole = update(make(tiny_model, "paper-v1-i1", **options), groups)
    assert 0 < found["mask/fraction"] < 1
    _, parts = update(make(tiny_model, "paper-v1-i1", micro_batch_tokens=30, **options), groups)
    assert relative(parts, whole) < 1e-5


# --- nothing to learn from ------------------------------------------------------------------------------------------


def moved_with_their_advantage(reference: Any) -> list[Group]:
    """π has moved every token the way its advantage pushes."""
    (group,) = reference.groups(5, [[0.0, 1.0]], noise=0.0)
    rollouts = [
        r.model_copy(
            update={"behaviour_logprobs": tuple(p if p is None else p + shift for p in r.behaviour_logprobs or ())}
        )
        for r, shift in zip(group.rollouts, (1.0, -1.0), strict=True)
    ]
    return [Group(tuple(rollouts), group.rewards, GroupStats.of(group.rewards))]


@pytest.mark.parametrize(
    "options",
    [
        {"masks": ["max_lag"], "max_lag": 0},
        {"masks": ["truncated"]},
        {"correction": "geo_rs"},
        {"masks": ["dppo_tv"], "tv_delta": 0.0},
    ],
    ids=lambda o: "-".join(map(str, o.values())),
)
def test_with_everything_masked_the_weights_stay_as_they_are(
    options: dict[str, Any], tiny_model: Path, oracle: ModuleType
) -> None:
    """Also when AdamW has momentum that would move them."""
    reference = oracle.Oracle(tiny_model)
    trainer = GrpoOff(
        GrpoOffOptions(lr=1e-5, **options),
        TrainContext(ModelSpec(str(tiny_model), device="cpu", dtype="float32"), 0, 0.7, 10),
    )
    fresh = [r for g in reference.groups(6, [[0.0, 1.0, 1.0]], noise=0.0) for r in g.rollouts]
    trainer.update([oracle.make_group(fresh, [0.0, 1.0, 1.0])])
    assert trainer.version == 1
    before = {name: tensor.clone() for name, tensor in trainer.weights().items()}
    (group,) = moved_with_their_advantage(reference)
    cut = [r.model_copy(update={"finish_reason": "length"}) for r in group.rollouts]
    metrics = trainer.update([Group(tuple(cut), group.rewards, group.stats)])
    assert metrics["train/optimizer_steps"] == 0
    assert metrics["signal/groups"] == 1
    assert trainer.version == 1
    assert all(torch.equal(tensor, before[name]) for name, tensor in trainer.weights().items())
    assert all(parameter.grad is None for parameter in trainer.policy.parameters), "no gradient is left behind"


# --- through the command line's configuration -----------------------------------------------------------------------

TINY = {
    "sampling.prompts_per_step": 4,
    "sampling.group_size": 4,
    "verifier.workers": 0,
    "eval.questions": 0,
    "steps": 2,
    "model.device": "cpu",
}


class Silent:
    def step(self, metrics: object, total: int) -> None:
        """Says nothing."""


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_trains_two_steps(name: str, tmp_path: Path) -> None:
    config = resolve(command_line_settings([f"recipe={name}"], {key: (key, value) for key, value in TINY.items()}))
    assert config.trainer.options["lr"] == 5e-5, "the embedded model's, which no recipe touches"
    with make_plan(config) as plan, RunDirectory.create(tmp_path / "run", config) as directory:
        run = Run(plan, directory, Silent())
        assert run.train().finished
        updates = plan.options.updates_per_batch
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["policy_version"] for line in lines] == [updates, 2 * updates]
    for line in lines:
        assert math.isfinite(line["train/loss"])
        assert line["train/grad_norm"] > 0
    assert lines[1]["lag/max"] == (2 * updates - 1 if plan.options.push_every > 1 else updates - 1)
