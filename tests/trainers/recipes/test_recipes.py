"""Recipes: an independent formula, token by token in float64, against a whole update; changes of each setting, which
must change the gradient; micro-batches; and two steps of the embedded model with `rlvr train --recipe`."""

from __future__ import annotations

import json
import math
import random
import re
import statistics
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

import small_runs
from rlvr.protocols import Group, ModelSpec, TrainContext
from rlvr.record.schema import TOPK_IDS, TOPK_LOGPROBS, GroupStats
from rlvr.registry import registry
from rlvr.run.config import read_recipe, resolve
from rlvr.run.loop import Run
from rlvr.run.plan import make_plan
from rlvr.run.reporting import TrainReporter
from rlvr.run.rundir import RunDirectory
from rlvr.settings import command_line_settings
from rlvr_trainers.grpo import AXES
from rlvr_trainers.grpo_off import GrpoOff, GrpoOffOptions
from rlvr_trainers.loss.axes import readers

RECIPES = [entry.name for entry in registry().entries("recipe")]
SHAPES = [[0.0, 1.0, 1.0, 0.0], [0.5, 0.5, 0.5], [1.0, 0.0, 0.25], [0.0, 1.0, 0.0, 0.0, 1.0, 0.5, 0.0, 1.0]]
"""Rewards of groups, one of them without a signal."""
LIMIT = 8
"""Length limit that the records name."""
SHORT = 6
"""Longest completion of a group without a signal, so that no length penalty gives it one."""
MAX_TOKENS = 12
"""Divisor of the constant aggregation."""


class Formula(NamedTuple):
    """Formula of a recipe's paper. `tokens(row, rows, oracle)` returns the objective of each token."""

    advantage: Callable[[Sequence[float]], list[float]]
    tokens: Callable[[Any, Sequence[Any], ModuleType], list[Tensor]]
    mean: Callable[[Sequence[Sequence[Tensor]], Sequence[bool]], Tensor]
    reward: Callable[[float, int], float] = lambda reward, length: reward
    value: bool = True
    """Whether the loss has a value, and not only a gradient."""


# --- advantages and means -------------------------------------------------------------------------------------------


def whitened(rewards: Sequence[float]) -> list[float]:
    mean, variance = statistics.fmean(rewards), statistics.pvariance(rewards)
    return [(r - mean) / math.sqrt(variance + 1e-6) for r in rewards]


def centered(rewards: Sequence[float]) -> list[float]:
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


def ipo(row: Any, rows: Sequence[Any], oracle: ModuleType) -> list[Tensor]:
    moved = [abs(math.exp(p.item()) - math.exp(m)) for p, m in zip(row.pi, row.mu, strict=True)]
    return [r * row.a * (d <= 0.3) for r, d in zip(ratios(row), moved, strict=True)]


def cppo(row: Any, rows: Sequence[Any], oracle: ModuleType) -> list[Tensor]:
    kept = oracle.prefix_budget([p.item() for p in row.pi], row.mu, row.a, 0.15, 0.015, 0.8)
    return [r * row.a * keep for r, keep in zip(ratios(row), kept, strict=True)]


def up(row: Any, rows: Sequence[Any], oracle: ModuleType) -> list[Tensor]:
    if row.a > 0:
        return [row.a * p / p.item() for p in map(torch.exp, row.pi)]
    return [torch.clamp(r, min=0.8) * row.a for r in ratios(row)]


def score_centering(row: Any, rows: Sequence[Any], oracle: ModuleType) -> list[Tensor]:
    means = [oracle.mean_score(p, q, lambda *_: 1.0) for p, q in zip(row.distributions, row.top, strict=True)]
    return [row.a * (p - mean) for p, mean in zip(row.pi, means, strict=True)]


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
    "dr-grpo": Formula(centered, grpo(0.8, 1.2), by_a_constant),
    "gspo": Formula(whitened, gspo, of_sequences),
    "cispo": Formula(whitened, cispo, of_tokens),
    "m2po": Formula(whitened, m2po, of_tokens),
    "dppo-tv": Formula(whitened, dppo_tv, of_tokens),
    "decoupled-ppo": Formula(whitened, decoupled, of_sequences),
    "score-centering": Formula(whitened, score_centering, of_tokens, value=False),
    "ipo": Formula(centered, ipo, of_tokens),
    "cppo": Formula(whitened, cppo, of_tokens),
    "up-grpo": Formula(whitened, up, of_sequences),
    "topr": Formula(centered, topr, of_sequences),
    "opmd": Formula(mirror_descent, rec, of_sequences),
}


# --- against whole updates ------------------------------------------------------------------------------------------


class Stale(NamedTuple):
    """Distance between a batch and the trained policy, so that a recipe's thresholds split its tokens."""

    noise: float = 0.4
    """Standard deviation of log α around the model that sampled, in nats per token."""
    outliers: float = 1.0
    """Factor on the noise of one token in six."""
    drift: float = 0.02
    """Standard deviation of the difference between the trainer's weights and that model."""
    own: bool = False
    """Whether the model sampled the tokens, so that many are likely; otherwise they are random."""
    repeat: int = 2
    """Number of times that the batch has the groups of `SHAPES`."""
    top: int = 0
    """Likeliest tokens that the sampler has reported."""


STALE = {
    "dapo": Stale(noise=0.2, drift=0.005, repeat=6),  # both sides of 1.28, close to it
    "gspo": Stale(noise=1e-3, drift=0.0, repeat=6),  # the band is 4e-4 wide
    "cispo": Stale(noise=1.5),  # the weight is cut at 5
    "m2po": Stale(noise=0.05, outliers=20.0, drift=0.0, repeat=3),  # few are far out: t is wider than [0.7, 1.5]
    "dppo-tv": Stale(noise=1.0, own=True),  # probabilities that can move by 0.2
    "up-grpo": Stale(noise=0.2, drift=0.005, repeat=6),  # failures close to 0.8
    "score-centering": Stale(noise=0.3, top=7, repeat=1),
    "ipo": Stale(noise=1.5, own=True, repeat=4),
    "cppo": Stale(noise=1.0, own=True, repeat=8),
    "decoupled-ppo": Stale(drift=0.0),  # π leaves π_k by a step, here a large one
}
LR = 2e-3


def changed(name: str, **changes: Any) -> GrpoOffOptions:
    """Return a recipe's options; a change to None removes the setting."""
    settings = {
        key.removeprefix("trainer."): s.value for key, s in read_recipe(name)[1].items() if key[:8] == "trainer."
    }
    assert settings.pop("name") == "grpo-off"
    return GrpoOffOptions(**{key: value for key, value in (settings | changes).items() if value is not None})


def make(path: Path, name: str, **changes: Any) -> GrpoOff:
    """Return the trainer of a recipe, with weights that differ from its reference."""
    spec = ModelSpec(str(path), device="cpu", dtype="float32")
    trainer = GrpoOff(
        changed(name, **{"max_grad_norm": 1e9, "lr": LR} | changes).with_run(max_tokens=MAX_TOKENS)[0],
        TrainContext(spec, seed=0, temperature=0.7, total_updates=10, alarms=small_runs.NOISY),
    )
    draw = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in trainer.policy.parameters:
            parameter += STALE.get(name, Stale()).drift * torch.randn(parameter.shape, generator=draw)
    return trainer


def stale_groups(reference: Any, stale: Stale, seed: int = 1) -> list[Group]:
    """Return ragged groups whose behavior policy differs by noise, sampled with a limit of `LIMIT` tokens."""
    draw = random.Random(seed)

    def noisy(p: float | None) -> float | None:
        noise = stale.noise * (stale.outliers if draw.random() < 1 / 6 else 1.0)
        return None if p is None else min(-1e-6, p + draw.gauss(0, noise))

    groups = []
    for number, shape in enumerate(SHAPES * stale.repeat):
        longest = LIMIT + 1 if max(shape) > min(shape) else SHORT
        (group,) = reference.groups(100 * seed + number, [shape], noise=0.0, longest=longest, own_tokens=stale.own)
        rollouts = tuple(
            r.model_copy(
                update={
                    "sampling": r.sampling.model_copy(update={"max_tokens": LIMIT}),
                    "behaviour_logprobs": [noisy(None if math.isnan(p) else p) for p in r.behaviour_logprobs.tolist()],
                    "extra_tokens": likeliest(reference, r, stale, draw) if stale.top else {},
                }
            )
            for r in group.rollouts
        )
        groups.append(Group(rollouts, group.rewards, group.stats))
    return groups


def likeliest(reference: Any, rollout: Any, stale: Stale, draw: random.Random) -> dict[str, list[Any]]:
    """Return the columns of the likeliest tokens of a policy that differs from the reference by noise."""
    shape = (len(rollout.token_ids), stale.top)
    ids, logprobs = np.full(shape, -1, np.int32), np.full(shape, np.nan, np.float32)
    with torch.no_grad():
        log_p = reference.distributions(rollout)
    noise = torch.tensor([[draw.gauss(0, stale.noise) for _ in row] for row in log_p])
    found = torch.log_softmax(log_p + noise, -1).topk(stale.top)
    ids[rollout.loss_mask], logprobs[rollout.loss_mask] = found.indices.numpy(), found.values.numpy()
    return {TOPK_IDS: ids, TOPK_LOGPROBS: logprobs}


def top_of(rollout: Any) -> list[dict[int, float]] | None:
    """Return the likeliest tokens that a record names, with their log-probabilities."""
    if TOPK_IDS not in rollout.extra_tokens:
        return None
    pairs = zip(*(rollout.extra_tokens[name][rollout.loss_mask] for name in (TOPK_IDS, TOPK_LOGPROBS)), strict=True)
    return [dict(zip(ids.tolist(), logprobs.tolist(), strict=True)) for ids, logprobs in pairs]


class Step(NamedTuple):
    """The last gradient step of an update: its gradients, and the weights that they were taken at."""

    metrics: dict[str, float]
    gradients: dict[str, Tensor]
    weights: dict[str, Tensor]


def update(trainer: GrpoOff, groups: list[Group]) -> Step:
    gradients: dict[str, Tensor] = {}
    weights: dict[str, Tensor] = {}

    def before_a_step(*_: object) -> None:
        for name, parameter in trainer.policy.model.named_parameters():
            assert parameter.grad is not None
            gradients[name], weights[name] = parameter.grad.clone(), parameter.detach().clone()

    trainer.policy.optimizer.register_step_pre_hook(before_a_step)
    return Step(dict(trainer.update(groups)), gradients, weights)


def relative(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    difference = sum(float((found[n].double() - expected[n].double()).square().sum()) for n in expected)
    return math.sqrt(difference / sum(float(e.double().square().sum()) for e in expected.values()))


def test_every_recipe_has_a_formula_here() -> None:
    assert FORMULAS.keys() == set(RECIPES)


class Worked(NamedTuple):
    """A recipe's batch, with the results of its trainer and of the formula."""

    groups: list[Group]
    step: Step
    loss: float
    gradients: dict[str, Tensor]


@cache
def worked(name: str, path: Path, oracle: ModuleType) -> Worked:
    formula, reference, trainer = FORMULAS[name], oracle.Oracle(path), make(path, name)
    groups = stale_groups(reference, STALE.get(name, Stale()))
    at_first = reference.all_logprobs(groups)
    write(reference, dict(trainer.policy.model.named_parameters()))
    iterate = reference.all_logprobs(groups)
    step = update(trainer, groups)
    write(reference, step.weights)
    rows, signal = [], []
    for group in groups:
        lengths = [r.sampled_tokens for r in group.rollouts]
        rewards = [formula.reward(*pair) for pair in zip(group.rewards, lengths, strict=True)]
        different = max(rewards) > min(rewards)
        for rollout, a in zip(group.rollouts, formula.advantage(rewards), strict=True):
            rows.append(
                oracle.Row(
                    pi=list(reference.sampled_logprobs(rollout)),
                    mu=rollout.behaviour_logprobs[rollout.loss_mask].tolist(),
                    iterate=iterate[rollout.id],
                    reference=at_first[rollout.id],
                    lags=[0] * lengths[0],
                    a=a if different else 0.0,
                    distributions=list(reference.distributions(rollout)) if rollout.extra_tokens else None,
                    top=top_of(rollout),
                )
            )
            signal.append(different)
    assert 0 < sum(signal) < len(signal), "a group without a signal is there"
    expected = -formula.mean([formula.tokens(row, rows, oracle) for row in rows], signal)
    return Worked(groups, step, expected.item(), reference.gradients(expected))


def write(reference: Any, weights: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, parameter in reference.model.named_parameters():
            parameter.copy_(weights[name])


@pytest.mark.parametrize("name", RECIPES)
def test_loss_and_gradient_are_those_of_the_formula(name: str, tiny_model: Path, oracle: ModuleType) -> None:
    found = worked(name, tiny_model, oracle)
    if FORMULAS[name].value:
        assert found.step.metrics["train/loss"] == pytest.approx(found.loss, rel=1e-4, abs=1e-5)
    assert relative(found.step.gradients, found.gradients) < 1e-5


def test_the_document_s_recipe_is_its_formula(
    tiny_model: Path, oracle: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (Path(__file__).parents[3] / "docs" / "recipes.md").read_text().partition("## Add a recipe")[2]
    (recipe,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    (formula,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    file = tmp_path / "mine.yaml"
    file.write_text(recipe)
    scope: dict[str, Any] = {**globals(), "FORMULAS": {}}
    exec(formula, scope)
    monkeypatch.setitem(FORMULAS, str(file), scope["FORMULAS"]["mine"])
    found = worked(str(file), tiny_model, oracle)
    assert found.step.metrics["train/loss"] == pytest.approx(found.loss, rel=1e-4, abs=1e-5)
    assert relative(found.step.gradients, found.gradients) < 1e-5


@pytest.mark.parametrize("name", RECIPES)
def test_the_batch_lies_on_both_sides_of_what_the_recipe_cuts(name: str, tiny_model: Path, oracle: ModuleType) -> None:
    found, options = worked(name, tiny_model, oracle), make(tiny_model, name).options
    clipped, masked = (found.step.metrics[f"{what}/fraction"] for what in ("clip", "mask"))
    assert 0 < clipped < 1 if options.band != "none" else clipped == 0
    assert 0 < masked < 1 if options.masks or options.correction != "none" else masked == 0


WIDTHS = ("epsilon", "epsilon_high", "m2_budget")


def mutants(name: str) -> Iterator[dict[str, Any]]:
    """Yield changes of a recipe that must change its gradient: each number up and down, each part replaced by every
    other valid one of its axis, no band, no mask."""
    options, fields = changed(name), GrpoOffOptions.model_fields
    given = options.model_dump(include=options.model_fields_set - {"push_every"})  # the sampler's: see below
    if options.band in ("additive", "multiplicative"):
        given |= {"epsilon": options.epsilon}
    for key, value in given.items():
        if isinstance(value, int):
            yield {key: value + 1}
        elif isinstance(value, float):
            yield from ({key: number} for number in ((0.8 * value, 1.25 * value) if value else (0.1,)))
    for mask in options.masks:
        numbers = {option for option, parts in readers(AXES, GrpoOffOptions).items() if ("masks", mask) in parts}
        yield {"masks": [other for other in options.masks if other != mask], **dict.fromkeys(sorted(numbers))}
    parts = {key for key in AXES.keys() & given.keys() if isinstance(given[key], str)}
    others = {axis: AXES[axis].keys() - {given[axis]} for axis in sorted(parts) if given[axis] != fields[axis].default}
    others.setdefault("band", AXES["band"].keys() & {"none"} - {options.band})
    for axis, other in ((axis, other) for axis, names in others.items() for other in sorted(names)):
        changes = {axis: other} | dict.fromkeys(WIDTHS if other in ("none", "second_moment") else ())
        if possible(name, changes):
            yield changes


def possible(name: str, changes: dict[str, Any]) -> bool:
    try:
        changed(name, **changes)
    except ValidationError:
        return False
    return True


MUTANTS = [(name, changes) for name in RECIPES for changes in mutants(name)]


@pytest.mark.parametrize(
    ("name", "changes"), MUTANTS, ids=[f"{n}-{'-'.join(f'{k}={v}' for k, v in c.items())}" for n, c in MUTANTS]
)
def test_every_setting_of_a_recipe_shows_in_its_gradient(
    name: str, changes: dict[str, Any], tiny_model: Path, oracle: ModuleType
) -> None:
    """The changed recipe must differ from its formula on the batch of `worked`."""
    found = worked(name, tiny_model, oracle)
    trainer = make(tiny_model, name, **changes)
    assert relative(update(trainer, found.groups).gradients, found.gradients) > 1e-3


@pytest.mark.parametrize("name", RECIPES)
def test_micro_batches_add_up_to_the_batch(name: str, tiny_model: Path, oracle: ModuleType) -> None:
    """Also if a threshold or a divisor depends on the whole batch."""
    groups = stale_groups(oracle.Oracle(tiny_model), STALE.get(name, Stale())._replace(repeat=1), seed=3)
    whole = update(make(tiny_model, name, updates_per_batch=1), groups)
    for tokens in (1, 40):
        parts = update(make(tiny_model, name, micro_batch_tokens=tokens, updates_per_batch=1), groups)
        assert relative(parts.gradients, whole.gradients) < 1e-5


@pytest.mark.parametrize("divide_by", ["all", "kept"])
@pytest.mark.parametrize("aggregation", ["sequence_mean", "token_mean", "constant"])
def test_micro_batches_add_up_with_every_aggregation(
    aggregation: str, divide_by: str, tiny_model: Path, oracle: ModuleType
) -> None:
    """Tested with a rejecting correction, a KL term and masks of both kinds."""
    options: dict[str, Any] = {
        "aggregation": aggregation, "divide_by": divide_by, "correction": "mis", "beta": 0.1, "kl": "k3_weighted",
        "masks": ["max_lag", "opsm"], "max_lag": 3, "opsm_delta": 0.1,
    }  # fmt: skip
    groups = stale_groups(oracle.Oracle(tiny_model), Stale(repeat=1), seed=4)
    whole = update(make(tiny_model, "paper-v1-i1", **options), groups)
    assert 0 < whole.metrics["mask/fraction"] < 1
    parts = update(make(tiny_model, "paper-v1-i1", micro_batch_tokens=30, **options), groups)
    assert relative(parts.gradients, whole.gradients) < 1e-5


# --- nothing to learn from ------------------------------------------------------------------------------------------


def moved_with_their_advantage(reference: Any) -> list[Group]:
    """Return groups in which π has moved every token in the direction of its advantage."""
    (group,) = reference.groups(5, [[0.0, 1.0]], noise=0.0)
    rollouts = [
        r.model_copy(update={"behaviour_logprobs": r.behaviour_logprobs + shift})
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
        {"masks": ["ipo"], "ipo_epsilon": 0.0},
        {"masks": ["cppo"], "cppo_delta": 0.0},
    ],
    ids=lambda o: "-".join(map(str, o.values())),
)
def test_with_everything_masked_the_weights_stay_as_they_are(
    options: dict[str, Any], tiny_model: Path, oracle: ModuleType
) -> None:
    """Also if AdamW has momentum that would move them."""
    reference = oracle.Oracle(tiny_model)
    trainer = GrpoOff(
        GrpoOffOptions(lr=1e-5, **options),
        TrainContext(ModelSpec(str(tiny_model), device="cpu", dtype="float32"), 0, 0.7, 10, small_runs.NOISY),
    )
    fresh = [r for g in reference.groups(6, [[0.0, 1.0, 1.0]], noise=0.0) for r in g.rollouts]
    trainer.update([oracle.make_group(fresh, [0.0, 1.0, 1.0])])
    assert trainer.version == 1
    before = {name: tensor.clone() for name, tensor in trainer.policy.weights().items()}
    (group,) = moved_with_their_advantage(reference)
    cut = [r.model_copy(update={"finish_reason": "length"}) for r in group.rollouts]
    metrics = trainer.update([Group(tuple(cut), group.rewards, group.stats)])
    assert metrics["train/optimizer_steps"] == 0
    assert metrics["signal/groups"] == 1
    assert trainer.version == 1
    assert all(torch.equal(tensor, before[name]) for name, tensor in trainer.policy.weights().items())
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


HOW_IT_SAMPLES: dict[str, tuple[int, bool]] = {
    "cispo": (8, False),
    "cppo": (8, False),
    "dapo": (1, True),
    "decoupled-ppo": (4, False),
    "dppo-tv": (8, False),
    "dr-grpo": (1, False),
    "gspo": (1, False),
    "ipo": (8, False),
    "m2po": (50, False),
    "opmd": (8, False),
    "paper-v1-i1": (1, False),
    "paper-v1-i10": (1, False),
    "paper-v10-i1": (10, False),
    "score-centering": (1, False),
    "topr": (50, False),
    "up-grpo": (1, False),
}
"""Settings without an effect on the gradient: v, and whether groups without a signal are replaced."""


def test_how_recipes_sample() -> None:
    found = {name: resolve(command_line_settings([f"recipe={name}"], {})) for name in RECIPES}
    assert {
        name: (config.trainer.options.get("push_every", 1), config.sampling.refill) for name, config in found.items()
    } == HOW_IT_SAMPLES


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_trains_two_steps(name: str, tmp_path: Path) -> None:
    config = resolve(command_line_settings([f"recipe={name}"], {key: (key, value) for key, value in TINY.items()}))
    assert config.trainer.options["lr"] == 5e-5, "the embedded model's, which no recipe touches"
    with make_plan(config) as plan, RunDirectory.create(tmp_path / "run", plan.config) as directory:
        run = Run(plan, directory, TrainReporter())
        assert run.train().finished
        updates = plan.options.updates_per_batch
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["policy_version"] for line in lines] == [updates, 2 * updates]
    for line in lines:
        assert math.isfinite(line["train/loss"])
        assert line["train/grad_norm"] > 0
    assert lines[1]["lag/max"] == (2 * updates - 1 if plan.options.push_every > 1 else updates - 1)
