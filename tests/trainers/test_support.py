"""The sampler's likeliest tokens in records, and training on filtered samples with the kept support: both against
float64, and against each other."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from transformers import AutoModelForCausalLM

import small_runs
from rlvr.errors import ConfigError, DataError, RunError
from rlvr.protocols import Group, GroupRequest, ModelSpec, Prompt, SamplerOptions, TopTokens, TrainContext
from rlvr.record.schema import TOPK_IDS, TOPK_LOGPROBS, ModelRef, Rollout, SamplingParams, Task
from rlvr.run.config import RolloutsConfig
from rlvr.run.groups import Grader
from rlvr.run.plan import make_plan
from rlvr.run.sampled import SampleRecorder
from rlvr.store import read_rollouts, write_rollouts
from rlvr_trainers.grpo import Grpo, GrpoOptions
from rlvr_trainers.sampling.hf_sampler import HFSampler, HFSamplerOptions

T = 0.7
FILTERS: list[dict[str, Any]] = [
    {"top_k": 5},
    {"top_k": 12, "top_p": 0.6},
    {"top_k": 12, "min_p": 0.2},
    {"top_k": 12, "top_p": 0.9, "min_p": 0.05},
]
KEEP = 12


@pytest.fixture(scope="module")
def sampler(tiny_model: Path) -> HFSampler:
    return HFSampler(ModelSpec(str(tiny_model), device="cpu", dtype="float32"), HFSamplerOptions())


def records(sampler: HFSampler, keep: int = KEEP, groups: int = 3, size: int = 4, **params: Any) -> list[Rollout]:
    """Return sampled records, as a run makes them."""
    prompt = Prompt(task=Task(), text="in tokens below")
    settings = SamplingParams(temperature=T, max_tokens=10, **params)
    sampler.submit(
        [GroupRequest(f"g{g}", prompt, (5, 6 + g, 7), size, settings, ("s", g), keep_topk=keep) for g in range(groups)]
    )
    recorder = SampleRecorder("run", ModelRef(name="tiny"), None, Grader("", {}))
    found: list[Rollout] = []
    while finished := sampler.collect():
        found += [rollout for group in finished for rollout in recorder.records(group)]
    return sorted(found, key=lambda rollout: rollout.id)


def exact(path: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64, attn_implementation="eager").eval()


def filtered(logits_V: Tensor, params: Any) -> dict[int, float]:
    """Return the probabilities of the tokens that the filters leave, from their definitions."""
    p = sorted(enumerate(torch.softmax(logits_V / T, 0).tolist()), key=lambda pair: -pair[1])
    if params.top_k:
        p = p[: params.top_k]
    total = math.fsum(x for _, x in p)
    p = [(v, x / total) for v, x in p]
    kept, mass = [], 0.0
    for v, x in p:
        if mass >= params.top_p:
            break
        kept.append((v, x))
        mass += x
    kept = [(v, x) for v, x in kept if x >= params.min_p * kept[0][1]]
    total = math.fsum(x for _, x in kept)
    return {v: x / total for v, x in kept}


# --- what is kept ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("filters", [{}, *FILTERS], ids=str)
def test_what_is_kept_are_the_likeliest_tokens_of_the_sampling_distribution(
    filters: dict[str, Any], sampler: HFSampler, tiny_model: Path
) -> None:
    model, sizes = exact(tiny_model), set()
    for rollout in records(sampler, **filters):
        ids, logprobs = rollout.extra_tokens[TOPK_IDS], rollout.extra_tokens[TOPK_LOGPROBS]
        assert rollout.token_ids is not None
        assert rollout.loss_mask is not None
        assert ids.shape == logprobs.shape == (len(rollout.token_ids), KEEP)
        assert (ids[~rollout.loss_mask] == -1).all()
        assert np.isnan(logprobs[ids == -1]).all()
        with torch.no_grad():
            logits_TV = model(input_ids=torch.tensor([rollout.token_ids.tolist()])).logits[0]
        for t in np.flatnonzero(rollout.loss_mask):
            expected = sorted(filtered(logits_TV[t - 1], rollout.sampling).items(), key=lambda pair: -pair[1])[:KEEP]
            there = ids[t] >= 0
            sizes.add(int(there.sum()))
            assert ids[t][there].tolist() == [token for token, _ in expected]
            assert logprobs[t][there].tolist() == pytest.approx([math.log(p) for _, p in expected], abs=1e-4)
    assert max(sizes) <= (filters.get("top_k") or KEEP)
    assert len(sizes) > 1 or filters in ({}, {"top_k": 5}), "top_p and min_p leave more tokens here and fewer there"


@pytest.mark.parametrize("name", ["kept.parquet", "kept.jsonl"])
def test_what_is_kept_comes_back_from_a_file(name: str, sampler: HFSampler, tmp_path: Path) -> None:
    given = records(sampler, top_k=5)
    write_rollouts(tmp_path / name, given)
    back = list(read_rollouts(tmp_path / name))
    assert back == given
    assert {back[0].extra_tokens[column].dtype.kind for column in (TOPK_IDS, TOPK_LOGPROBS)} == {"i", "f"}


def test_more_tokens_than_the_vocabulary_has_are_padded(sampler: HFSampler) -> None:
    (rollout, *_) = records(sampler, keep=1000, groups=1)
    ids, logprobs = rollout.extra_tokens[TOPK_IDS][-1], rollout.extra_tokens[TOPK_LOGPROBS][-1]
    assert len(set(ids[ids >= 0].tolist())) == (ids >= 0).sum() < 1000
    assert np.exp(logprobs[ids >= 0].astype(float)).sum() == pytest.approx(1.0, abs=1e-5)


def test_keeping_tokens_changes_no_draw(sampler: HFSampler) -> None:
    plain = records(sampler, keep=0)
    assert [r.token_ids.tolist() for r in plain] == [r.token_ids.tolist() for r in records(sampler)]  # type: ignore[union-attr]
    assert not any(rollout.extra_tokens for rollout in plain)


def test_top_tokens_are_equal_by_their_numbers() -> None:
    one = TopTokens(np.array([[1, -1]], np.int32), np.array([[-0.5, np.nan]], np.float32))
    assert one == TopTokens(one.ids.copy(), one.logprobs.copy())
    assert one != TopTokens(one.ids, one.logprobs - 1)
    assert one != "one"


# --- the trainer on the support ---------------------------------------------------------------------------------------


def make(path: Path, **options: Any) -> Grpo:
    spec = ModelSpec(str(path), device="cpu", dtype="float32")
    settings = {"max_grad_norm": 1e9, "lr": 1e-3} | options
    context = TrainContext(spec, seed=0, temperature=T, total_updates=10, alarms=small_runs.NOISY)
    return Grpo(GrpoOptions(**settings), context)


@pytest.mark.parametrize("share_prefixes", [False, True])
@pytest.mark.parametrize("filters", FILTERS, ids=str)
def test_sampler_and_trainer_agree_at_lag_0(
    filters: dict[str, Any], share_prefixes: bool, sampler: HFSampler, tiny_model: Path
) -> None:
    rollouts = records(sampler, **filters)
    found = make(tiny_model, share_prefixes=share_prefixes).logprobs(rollouts)
    gaps = [np.abs(f - r.behaviour_logprobs)[r.loss_mask] for f, r in zip(found, rollouts, strict=True)]
    assert max(gap.max() for gap in gaps) <= 5e-5
    unfiltered = [
        r.model_copy(update={"sampling": r.sampling.model_copy(update={"top_k": 0, "top_p": 1.0, "min_p": 0.0})})  # type: ignore[union-attr]
        for r in rollouts
    ]
    whole = make(tiny_model).logprobs(unfiltered)
    assert max(np.nanmax(f - w) for f, w in zip(found, whole, strict=True)) > 0.05, "the filters matter here"


def groups_of(rollouts: Sequence[Rollout], oracle: ModuleType) -> list[Group]:
    names = sorted({str(rollout.group_id) for rollout in rollouts})
    members = [[r for r in rollouts if r.group_id == name] for name in names]
    return [oracle.make_group(own, [float(i % 2) for i in range(len(own))]) for own in members]


def gradients_of(trainer: Grpo, groups: Sequence[Group]) -> tuple[dict[str, float], dict[str, Tensor]]:
    gradients: dict[str, Tensor] = {}

    def before_a_step(*_: object) -> None:
        for name, parameter in trainer.policy.model.named_parameters():
            assert parameter.grad is not None
            gradients[name] = parameter.grad.clone()

    trainer.policy.optimizer.register_step_pre_hook(before_a_step)
    return dict(trainer.update(groups)), gradients


def relative(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    difference = sum(float((found[n].double() - expected[n]).square().sum()) for n in expected)
    return math.sqrt(difference / sum(float(e.square().sum()) for e in expected.values()))


def move(trainer: Any, reference: Any, scale: float) -> None:
    """Move the policy's weights at random, and those of the oracle with them: the batch is stale."""
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in trainer.policy.parameters:
            parameter += scale * torch.randn(parameter.shape, generator=draw)
        for own, given in zip(reference.model.parameters(), trainer.policy.model.parameters(), strict=True):
            own.copy_(given)


@pytest.mark.parametrize("options", [{}, {"micro_batch_tokens": 40}, {"share_prefixes": True}], ids=str)
@pytest.mark.parametrize("filters", FILTERS[1:3], ids=str)
def test_the_gradient_is_that_of_the_renormalized_policy(
    filters: dict[str, Any], options: dict[str, Any], sampler: HFSampler, tiny_model: Path, oracle: ModuleType
) -> None:
    """A stale batch, with a KL term: π, α and π_ref are all renormalized to the kept tokens."""
    groups = groups_of(records(sampler, **filters), oracle)
    trainer, reference = make(tiny_model, beta=0.1, epsilon=0.05, **options), oracle.Oracle(tiny_model)
    reference.reset_reference()
    move(trainer, reference, 0.02)
    metrics, found = gradients_of(trainer, groups)
    assert 0 < metrics["clip/fraction"] < 1
    reference.sampled_logprobs = lambda rollout: on_the_support(reference.model, rollout)
    log_reference = reference.reference_logprobs(groups)
    loss = reference.loss(groups, reference=log_reference, beta=0.1, epsilon_low=0.05, epsilon_high=0.05)
    assert metrics["train/loss"] == pytest.approx(loss.item(), rel=1e-4, abs=1e-6)
    assert relative(found, reference.gradients(loss)) < 1e-5


def on_the_support(model: Any, rollout: Rollout) -> Tensor:
    """Return log-probabilities of the sampled tokens among the kept ones, in float64."""
    ids, mask = rollout.token_ids, rollout.loss_mask
    assert ids is not None
    assert mask is not None
    logits_TV = model(input_ids=torch.tensor([ids.tolist()])).logits[0] / T
    found = []
    for t in np.flatnonzero(mask):
        support = [v for v in rollout.extra_tokens[TOPK_IDS][t].tolist() if v >= 0]
        found.append(logits_TV[t - 1, ids[t]] - torch.logsumexp(logits_TV[t - 1, support], 0))
    return torch.stack(found)


def test_filtered_and_unfiltered_rollouts_train_in_one_batch(
    sampler: HFSampler, tiny_model: Path, oracle: ModuleType
) -> None:
    """Also if a rollout keeps more tokens than another: only those that filters left renormalize."""
    some, others = records(sampler, top_k=5, keep=5), records(sampler, keep=7)
    others = [r.model_copy(update={"group_id": f"other {r.group_id}"}) for r in others]
    trainer = make(tiny_model)
    found = trainer.logprobs([*some, *others])
    expected = [*trainer.logprobs(some), *trainer.logprobs(others)]
    assert all(np.allclose(f, e, atol=1e-5, equal_nan=True) for f, e in zip(found, expected, strict=True))
    metrics = trainer.update([*groups_of(some, oracle), *groups_of(others, oracle)])
    assert metrics["ratio/max"] == pytest.approx(1.0, abs=2e-4)


# --- score centering ------------------------------------------------------------------------------------------------


def weights(options: dict[str, Any]) -> Callable[[float, float], float]:
    """Return f(p, q) of a composition."""
    if options["surrogate"] == "rec":
        return lambda p, q: 1.0
    if options["surrogate"] == "cispo":
        return lambda p, q: min(max(p / q, 0.9), 1.2)
    return lambda p, q: p / q * (abs(p - q) <= 0.02)


CENTERED = [
    {"surrogate": "rec", "band": "none"},
    {"surrogate": "cispo", "band": "additive", "epsilon": 0.1, "epsilon_high": 0.2},
    {"surrogate": "clip", "band": "none", "masks": ["ipo"], "ipo_epsilon": 0.02},
]


@pytest.mark.parametrize("filters", [{}, {"top_k": 12, "top_p": 0.9}], ids=str)
@pytest.mark.parametrize("options", CENTERED, ids=lambda o: o["surrogate"])
def test_a_centered_gradient_is_that_over_the_whole_vocabulary(
    options: dict[str, Any], filters: dict[str, Any], sampler: HFSampler, tiny_model: Path, oracle: ModuleType
) -> None:
    """Minus f·A·∇ log π of the drawn token, less its mean under the sampler, which the oracle sums over all tokens."""
    groups = groups_of(records(sampler, **filters), oracle)
    trainer = make(tiny_model, aggregation="token_mean", centering="score", micro_batch_tokens=60, **options)
    reference, f = oracle.Oracle(tiny_model), weights(options)
    move(trainer, reference, 0.05)
    _, found = gradients_of(trainer, groups)
    total: Any = 0.0
    tokens = fs = 0
    for group in groups:
        for rollout, reward in zip(group.rollouts, group.rewards, strict=True):
            a = (reward - 0.5) / math.sqrt(0.25 + 1e-6)
            log_p_TV = reference.distributions(rollout)
            for t, place in enumerate(np.flatnonzero(rollout.loss_mask)):
                ids, logprobs = (rollout.extra_tokens[name][place] for name in (TOPK_IDS, TOPK_LOGPROBS))
                top = {int(v): float(q) for v, q in zip(ids, logprobs, strict=True) if v >= 0}
                log_p, names = log_p_TV[t], list(top)
                if filters:
                    log_p, top = log_p[names], {k: top[v] for k, v in enumerate(names)}
                    log_p = log_p - torch.logsumexp(log_p, 0)
                drawn = (
                    log_p[names.index(int(rollout.token_ids[place]))] if filters else log_p[rollout.token_ids[place]]
                )
                weight = f(math.exp(drawn.item()), math.exp(rollout.behaviour_logprobs[place]))
                total = total + a * (weight * drawn - oracle.mean_score(log_p, top, f))
                tokens, fs = tokens + 1, fs + (weight != 1)
    assert relative(found, reference.gradients(-total / tokens)) < 1e-4
    assert fs or options["surrogate"] == "rec"


def test_the_mean_of_a_centered_score_is_zero_whatever_the_sampler(tiny_model: Path, oracle: ModuleType) -> None:
    """Every token of a two-token support, drawn as often as the sampler says, with the same advantage: no gradient."""
    q = [0.25, 0.75]
    rollouts = []
    for i, token in enumerate([7, 9, 9, 9]):
        logprobs = [math.log(q[token == 9])]
        columns = {
            TOPK_IDS: np.array([[-1, -1], [-1, -1], [7, 9]], np.int32),
            TOPK_LOGPROBS: np.array([[np.nan] * 2, [np.nan] * 2, np.log(q)], np.float32),
        }
        rollout = oracle.make_rollout(f"r{i}", [5, 6], [token], logprobs, extra_tokens=columns)
        rollouts.append(changed(rollout, top_k=2))
    plain = {"advantage": "raw", "mask_zero_variance": False, "surrogate": "rec", "band": "none", "lr": 1e-9}
    group = oracle.make_group(rollouts, [1.0] * 4)
    drift = gradients_of(make(tiny_model, **plain), [group])[0]["train/grad_norm"]
    centered = gradients_of(make(tiny_model, centering="score", **plain), [group])[0]["train/grad_norm"]
    assert drift > 0.01
    assert centered < 1e-5


def test_centering_without_likeliest_tokens_is_refused(
    sampler: HFSampler, tiny_model: Path, oracle: ModuleType
) -> None:
    trainer = make(tiny_model, surrogate="rec", band="none", centering="score")
    bare = [without(rollout) for rollout in records(sampler, groups=1)]
    reason = "no extra_tokens.sampler/topk_ids, which trainer.centering=score needs"
    assert trainer.options.lacks(bare[0]) == reason
    with pytest.raises(RunError, match=reason):
        trainer.update(groups_of(bare, oracle))
    config = small_runs.small_config(
        tiny_model, trainer__surrogate="rec", trainer__band="none", trainer__centering="score"
    )
    with pytest.raises(ConfigError, match=r"trainer.centering=score needs the likeliest tokens .* sampling.keep_topk"):
        make_plan(config)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "surrogate=clip with band=none and masks=.ipo."),
        ({"surrogate": "cispo", "band": "none"}, "without a bound, the weight π/α centers by itself"),
        ({"surrogate": "rec"}, "needs surrogate=rec with band=none"),
        ({"surrogate": "up"}, "needs surrogate=rec with band=none"),
        ({"surrogate": "rec", "band": "none", "masks": ["dppo_tv"]}, "knows no mean of what the mask dppo_tv leaves"),
        ({"surrogate": "cispo", "denominator": "iterate"}, "denominator=iterate: the mean is that of a weight of π/α"),
        ({"surrogate": "cispo", "ratio": "geometric"}, "ratio=geometric: the mean is that of"),
    ],
)
def test_what_centering_does_not_go_with_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        GrpoOptions(centering="score", **options)


# --- what is refused --------------------------------------------------------------------------------------------------


def changed(rollout: Rollout, **sampling: Any) -> Rollout:
    assert rollout.sampling is not None
    return rollout.model_copy(update={"sampling": rollout.sampling.model_copy(update=sampling)})


def without(rollout: Rollout) -> Rollout:
    return rollout.model_copy(update={"extra_tokens": {}})


def another_token(rollout: Rollout) -> Rollout:
    ids = rollout.extra_tokens[TOPK_IDS].copy()
    ids[ids == rollout.token_ids[-1]] = 49  # type: ignore[index]
    return rollout.model_copy(update={"extra_tokens": {**rollout.extra_tokens, TOPK_IDS: ids}})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            without,
            r"was sampled with top_k and without the kept support \(extra_tokens.sampler/topk_ids\); its",
        ),
        (lambda r: changed(r, top_k=0, top_p=0.9), "keeps 5 tokens, which may not be all that could have been drawn"),
        (lambda r: changed(r, top_k=6), "keeps 5 tokens, which may not be all"),
        (lambda r: changed(r, repetition_penalty=1.1), "was sampled with top_k, repetition_penalty; its log-prob"),
        (another_token, "with a kept support that lacks the drawn token"),
    ],
)
def test_a_filtered_rollout_without_its_support_is_refused(
    change: Any, message: str, sampler: HFSampler, tiny_model: Path, oracle: ModuleType
) -> None:
    given = [change(rollout) for rollout in records(sampler, top_k=5, keep=5, groups=1)]
    with pytest.raises(RunError, match=message):
        make(tiny_model).update(groups_of(given, oracle))


def test_a_support_of_another_shape_than_its_logprobs_is_refused(sampler: HFSampler, tiny_model: Path) -> None:
    (rollout, *_) = records(sampler, top_k=5, keep=5, groups=1)
    columns = {**rollout.extra_tokens, TOPK_LOGPROBS: rollout.extra_tokens[TOPK_LOGPROBS][:, :4]}
    with pytest.raises(RunError, match="with a kept support that fits no tokens"):
        make(tiny_model).logprobs([rollout.model_copy(update={"extra_tokens": columns})])


# --- in a run ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"top_p": 0.9}, "sampling.top_p alone may leave any number of tokens, .* sampling.top_k, e.g. 64"),
        ({"min_p": 0.1}, "sampling.min_p alone may leave any number"),
        ({"top_k": 8, "keep_topk": 4}, "keep_topk=4 does not hold the 8 tokens of sampling.top_k"),
    ],
)
def test_filters_whose_support_is_not_kept_are_refused(
    settings: dict[str, Any], message: str, tiny_model: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        small_runs.small_config(tiny_model, **{f"sampling__{key}": value for key, value in settings.items()})


@pytest.mark.parametrize("setting", ["top_k", "keep_topk"])
def test_a_sampler_that_reports_no_likeliest_tokens_is_refused(
    setting: str, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HFSampler, "Options", SamplerOptions)
    config = small_runs.small_config(tiny_model, **{f"sampling__{setting}": 4})
    with pytest.raises(ConfigError, match=f"sampling.{setting}: the sampler 'hf' does not report the likeliest tokens"):
        make_plan(config)


def test_a_run_trains_on_filtered_samples_and_again_on_its_files(tiny_model: Path, tmp_path: Path) -> None:
    filters = {"sampling__top_k": 8, "sampling__top_p": 0.8, "sampling__temperature": 0.7}
    config = small_runs.small_config(tiny_model, **filters, trainer="grpo-off", trainer__push_every=2, steps=4)
    assert small_runs.start(config, tmp_path / "run").finished
    lines = small_runs.metrics_of(tmp_path / "run")
    assert [line["mismatch/max"] < 5e-5 for line in lines[::2]] == [True, True], "at lag 0"
    assert all(line["weights/worst"] < 5e-5 for line in lines if "weights/worst" in line)
    files = sorted((tmp_path / "run" / "rollouts").glob("*.parquet"))
    kept = list(read_rollouts(files[0]))
    assert {rollout.extra_tokens[TOPK_IDS].shape[1] for rollout in kept} == {8}
    again = small_runs.small_config(tiny_model, **filters, trainer="grpo-off", rollouts__files=[str(files[0])], steps=2)
    assert small_runs.start(again, tmp_path / "again").finished
    assert small_runs.metrics_of(tmp_path / "again")[0]["ratio/max"] == pytest.approx(1.0, abs=1e-4)
    write_rollouts(tmp_path / "bare.parquet", [without(rollout) for rollout in kept])
    bare = again.model_copy(update={"rollouts": RolloutsConfig(files=(tmp_path / "bare.parquet",))})
    with pytest.raises(DataError, match="sampled with top_p, top_k and without the kept support"):
        make_plan(bare)
