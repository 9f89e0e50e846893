"""All parts of composed losses against the float64 oracle, values and gradients; limit cases; recipes.

The first half needs no model: log-probabilities are random, and gradients are taken in them.
"""

from __future__ import annotations

import itertools
import math
import random
from types import ModuleType
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from rlvr.errors import RunError
from rlvr_trainers.batch import UNKNOWN, Batch
from rlvr_trainers.grpo import AXES as AXES_OF_OPTIONS
from rlvr_trainers.grpo import GrpoOptions
from rlvr_trainers.loss.aggregation import AGGREGATIONS, token_weights
from rlvr_trainers.loss.axes import bind, readers
from rlvr_trainers.loss.bands import BANDS
from rlvr_trainers.loss.centers import CENTERS
from rlvr_trainers.loss.composition import compose
from rlvr_trainers.loss.corrections import CORRECTIONS
from rlvr_trainers.loss.kl import KL_TERMS
from rlvr_trainers.loss.masks import FIXED_MASKS, LIVE_MASKS
from rlvr_trainers.loss.ratios import LEVELS
from rlvr_trainers.loss.surrogates import SURROGATES

F64 = torch.float64
VERSION = 12
"""The trainer's, before the batch's first gradient step."""
LENGTHS, WIDTH = [3, 1, 6, 2, 4, 5], 9
PROMPTS = [1, 2, 1, 3, 2, 1]
MAX_TOKENS = 7
PLAIN: dict[str, Any] = {
    "ratio": "token", "denominator": "behavior", "center": "one", "band": "additive", "epsilon": 0.2,
    "surrogate": "clip", "correction": "none", "kl": "k3", "m2_budget": 0.04, "opsm_delta": 0.05, "tv_delta": 0.05,
    "ipo_epsilon": 0.05, "cppo_delta": 0.1, "cppo_budget": 0.02, "cppo_floor": 0.5,
    "aggregation": "sequence_mean", "divide_by": "all",
}  # fmt: skip


def make_rows(oracle: ModuleType, seed: int, drift: float = 0.4, lags: tuple[int, ...] = (0, 1, 3, 9)) -> list[Any]:
    """Return random rollouts whose policies are `drift` apart; a completion has tokens of one lag, the last completion
    of several."""
    draw = random.Random(seed)
    rows = []
    for b, length in enumerate(LENGTHS):
        mu = [-draw.uniform(0.05, 2.5) for _ in range(length)]
        iterate = [min(-1e-3, m + draw.gauss(0, drift)) for m in mu]
        pi = [min(-1e-3, k + draw.gauss(0, drift / 2)) for k in iterate]
        rows.append(
            oracle.Row(
                pi=[torch.tensor(p, dtype=F64, requires_grad=True) for p in pi],
                mu=mu,
                iterate=iterate,
                reference=[min(-1e-3, m + draw.gauss(0, 0.5)) for m in mu],
                lags=[lags[(b if b < len(LENGTHS) - 1 else b + t) % len(lags)] for t in range(length)],
                a=draw.choice([-1.3, -0.4, 0.7, 1.9]) if b else -1.1,
                truncated=b == 2,
            )
        )
    return rows


def as_batch(rows: list[Any]) -> tuple[Batch, torch.Tensor]:
    """Return the same rollouts as padded tensors, and log π as a leaf; values outside the mask are nonsense on
    purpose."""
    mask_BT = torch.zeros(len(rows), WIDTH, dtype=torch.bool)
    for b, (prompt, length) in enumerate(zip(PROMPTS, LENGTHS, strict=True)):
        mask_BT[b, prompt : prompt + length] = True

    def column(name: str, outside: float) -> torch.Tensor:
        values_BT = torch.full(mask_BT.shape, outside, dtype=F64)
        flat = [value for row in rows for value in getattr(row, name)]
        numbers = [value.item() if isinstance(value, torch.Tensor) else value for value in flat]
        values_BT[mask_BT] = torch.tensor(numbers, dtype=F64)
        return values_BT

    lags_BT = column("lags", 0).long()
    batch = Batch(
        token_ids_BT=torch.zeros(mask_BT.shape, dtype=torch.long),
        mask_BT=mask_BT,
        behaviour_logprobs_BT=column("mu", 0.0),
        versions_BT=torch.where(mask_BT, VERSION - lags_BT, UNKNOWN),
        lengths_B=torch.tensor([p + n for p, n in zip(PROMPTS, LENGTHS, strict=True)]),
        advantages_B=torch.tensor([row.a for row in rows], dtype=F64),
        signal_B=torch.ones(len(rows), dtype=torch.bool),
        truncated_B=torch.tensor([row.truncated for row in rows]),
        keep_BT=mask_BT.clone(),
        rollout_B=torch.arange(len(rows)),
        iterate_logprobs_BT=column("iterate", -3.0),
        reference_logprobs_BT=column("reference", -5.0),
    )
    return batch, column("pi", -800.0).requires_grad_()


def read(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options without numbers that no chosen part reads, which would be refused; the oracle needs all of
    them."""
    chosen = {("masks", name) for name in options.get("masks", ())} | {
        (axis, name) for axis, name in options.items() if isinstance(name, str)
    }
    parts = readers(AXES_OF_OPTIONS, GrpoOptions)
    return {key: value for key, value in options.items() if key not in parts or parts[key] & chosen}


def composed(
    batch: Batch, logprobs_BT: torch.Tensor, options: dict[str, Any], *, steps: int = 0, beta: float = 0.0
) -> torch.Tensor:
    """Return our loss, composed as in `PolicyGradient.update`."""
    given = GrpoOptions(**read(options), beta=beta).with_run(max_tokens=MAX_TOKENS)[0]
    loss = compose(given, beta)
    keep_BT = batch.keep_BT
    for name in given.masks:
        if name in FIXED_MASKS:
            keep_BT = keep_BT & bind(FIXED_MASKS[name], given)(batch, VERSION)
    batch = Batch(**{**vars(batch), "keep_BT": keep_BT})
    if beta == 0:
        batch = Batch(**{**vars(batch), "reference_logprobs_BT": None})
    batch = loss.begin_step(loss.correct(batch, VERSION), VERSION + steps, steps, logprobs_BT.detach)
    divisor = bind(AGGREGATIONS[given.aggregation], given)
    weights_BT = token_weights(batch.mask_BT, batch.keep_BT, divisor, divide_by=given.divide_by)
    return -(weights_BT * loss.objective(batch, logprobs_BT)).sum()


def check(oracle: ModuleType, options: dict[str, Any], *, seeds: int = 3, steps: int = 0, beta: float = 0.0) -> None:
    """Compare value and gradient with respect to log π on a few random batches."""
    options = PLAIN | options
    moved = 0.0
    for seed in range(seeds):
        rows = make_rows(oracle, seed)
        expected = oracle.composed_loss(rows, options, steps=steps, beta=beta, max_tokens=MAX_TOKENS)
        slopes = torch.autograd.grad(expected, [p for row in rows for p in row.pi], materialize_grads=True)
        batch, logprobs_BT = as_batch(rows)
        found = composed(batch, logprobs_BT, options, steps=steps, beta=beta)
        found.backward()
        assert logprobs_BT.grad is not None
        assert found.item() == pytest.approx(expected.item(), rel=1e-6, abs=1e-7)  # weights are float32
        assert logprobs_BT.grad[batch.mask_BT].tolist() == pytest.approx([s.item() for s in slopes], rel=1e-6, abs=1e-9)
        assert not logprobs_BT.grad[~batch.mask_BT].any()
        moved += logprobs_BT.grad.abs().sum().item()
    assert moved > 0


def possible(options: dict[str, Any]) -> bool:
    try:
        GrpoOptions(**options)
    except ValidationError:
        return False
    return True


AXES = [
    {"ratio": ratio, "center": center, "band": band, "surrogate": surrogate}
    for ratio, center, band, surrogate in itertools.product(LEVELS, CENTERS, BANDS, SURROGATES)
]


@pytest.mark.parametrize("options", [o for o in AXES if possible(o)], ids=lambda o: "-".join(o.values()))
def test_ratio_center_band_and_surrogate(options: dict[str, Any], oracle: ModuleType) -> None:
    check(oracle, options, steps=2)
    low = {} if options["band"] == "upper" else {"epsilon": 0.1}
    check(oracle, options | low | {"epsilon_high": 0.7}, seeds=1)


def test_what_is_impossible_is_what_the_reasons_say() -> None:
    impossible = [o for o in AXES if not possible(o)]
    assert impossible
    for options in impossible:
        second_moment = options["band"] == "second_moment" and (options["ratio"], options["center"]) != ("token", "one")
        around_nothing = options["band"] == "none" and options["center"] != "one"
        assert second_moment or around_nothing or (options["surrogate"] == "topr" and options["ratio"] != "sequence")


BOUNDS: list[dict[str, float]] = [
    {},
    {"correction_low": 0.7, "correction_high": 1.3},
    {"correction_high": 1.2, "mismatch_low": 0.95, "mismatch_high": 1.05},
]


@pytest.mark.parametrize("ratio", ["token", "geometric"])
@pytest.mark.parametrize("denominator", ["behavior", "iterate"])
@pytest.mark.parametrize("correction", CORRECTIONS)
def test_corrections(correction: str, denominator: str, ratio: str, oracle: ModuleType) -> None:
    for bounds, divide_by in itertools.product(BOUNDS if correction != "none" else [{}], ["all", "kept"]):
        options = {
            "correction": correction,
            "denominator": denominator,
            "ratio": ratio,
            "divide_by": divide_by,
        } | bounds
        if correction == "geo_rs" and not bounds:
            options |= {"correction_low": 0.8, "correction_high": 1.3}  # its own bounds reject all of this batch
        check(oracle, options)


def test_the_defaults_of_geo_rs_reject_stale_data(oracle: ModuleType) -> None:
    batch, _ = as_batch(make_rows(oracle, 0))
    assert not compose(GrpoOptions(correction="geo_rs"), 0.0).correct(batch, VERSION).keep_BT.any()


@pytest.mark.parametrize("surrogate", ["cispo", "rec", "topr"])
def test_corrections_that_reject_go_with_every_surrogate(surrogate: str, oracle: ModuleType) -> None:
    ratio = "sequence" if surrogate == "topr" else "token"
    for correction, bounds in (("mis", {}), ("icepop", {}), ("sequence_mis", {}), ("geo_rs", BOUNDS[1])):
        check(oracle, {"surrogate": surrogate, "ratio": ratio, "correction": correction, "divide_by": "kept"} | bounds)


@pytest.mark.parametrize("correction", CORRECTIONS)
def test_every_correction_goes_with_cispo_s_weight_around_the_iterate(correction: str, oracle: ModuleType) -> None:
    bounds = BOUNDS[1] if correction == "geo_rs" else {}
    check(oracle, {"surrogate": "cispo", "denominator": "iterate", "correction": correction} | bounds)


def test_a_correction_that_rejects_leaves_topr_its_own_weight(oracle: ModuleType) -> None:
    """A kept token of a success has the weight 1, however far the sampling policy is."""
    rows = make_rows(oracle, 0, drift=3.0)
    batch, _ = as_batch(rows)
    options = GrpoOptions(
        surrogate="topr", ratio="sequence", correction="mis", correction_low=1e-3, correction_high=1e3
    )
    found = compose(options, 0.0).correct(batch, VERSION)
    assert found.correction_BT is not None
    assert found.correction_BT[found.keep_BT].tolist() == [1.0] * int(found.keep_BT.sum())


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("divide_by", ["all", "kept"])
@pytest.mark.parametrize(
    "masks",
    [
        {},
        {"masks": ["truncated"]},
        {"masks": ["max_lag"], "max_lag": 2},
        {"masks": ["opsm"]},
        {"masks": ["dppo_tv"]},
        {"masks": ["ipo"]},
        {"masks": ["cppo"]},
        {"masks": [*FIXED_MASKS, *LIVE_MASKS], "max_lag": 4, "correction": "mis"},
    ],
    ids=lambda m: "-".join(m.get("masks", ["none"])),
)
def test_masks_and_aggregations(aggregation: str, divide_by: str, masks: dict[str, Any], oracle: ModuleType) -> None:
    check(oracle, {"aggregation": aggregation, "divide_by": divide_by} | masks)


@pytest.mark.parametrize("kl", KL_TERMS)
@pytest.mark.parametrize("masks", [[], ["opsm", "truncated"]])
def test_kl_terms(kl: str, masks: list[str], oracle: ModuleType) -> None:
    check(oracle, {"kl": kl, "masks": masks}, beta=0.3)


@pytest.mark.parametrize("ratio", ["token", "geometric"])
def test_the_second_clip_of_dual_clip_ppo(ratio: str, oracle: ModuleType) -> None:
    check(oracle, {"delta": 1.3, "ratio": ratio}, seeds=8)
    check(oracle, {"delta": 1.3, "ratio": ratio, "band": "none"}, seeds=8)
    check(oracle, {"delta": 1.3, "ratio": ratio, "center": "iterate"}, seeds=8)


def test_the_second_clip_holds_where_m2po_s_band_is_wider(oracle: ModuleType) -> None:
    check(oracle, {"delta": 1.3, "band": "second_moment", "m2_budget": 0.3}, seeds=8)


# --- M2PO -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [0.01, 0.04, 0.3, 5.0])
def test_the_second_moment_s_width_meets_its_budget(budget: float, oracle: ModuleType) -> None:
    for seed in range(5):
        rows = make_rows(oracle, seed, drift=0.8)
        batch, logprobs_BT = as_batch(rows)
        loss = compose(GrpoOptions(band="second_moment", m2_budget=budget), 0.0)
        width_B = loss.begin_step(batch, VERSION, 0, logprobs_BT.detach).width_B
        assert width_B is not None
        assert width_B.tolist() == pytest.approx([oracle.second_moment_width(rows, budget)] * len(rows), rel=1e-9)


def test_the_second_moment_s_band_is_never_tighter_than_it_says() -> None:
    center_BT = torch.ones(1, 2)
    for width, edges in ((0.0, (0.7, 1.5)), (1.0, (math.exp(-1), math.e)), (math.inf, (0.0, math.inf))):
        low_BT, high_BT = BANDS["second_moment"].edges(center_BT, torch.tensor([width]))
        assert (low_BT[0, 1].item(), high_BT[0, 1].item()) == pytest.approx(edges)


# --- limit cases ----------------------------------------------------------------------------------------------------


def fresh_rows(oracle: ModuleType) -> list[Any]:
    """Return on-policy rollouts: π = π_k = α, at lag 0."""
    rows = make_rows(oracle, 0, lags=(0,))
    for row in rows:
        row.mu = row.iterate = [p.item() for p in row.pi]
    return rows


FRESH = [o for o in AXES if possible(o) and o["ratio"] in ("token", "geometric")] + [
    {"correction": correction, "denominator": denominator}
    for correction, denominator in itertools.product(CORRECTIONS, ["behavior", "iterate"])
] + [{"masks": [*FIXED_MASKS, *LIVE_MASKS], "max_lag": 0}]  # fmt: skip


@pytest.mark.parametrize("options", FRESH, ids=lambda o: "-".join(str(v) for v in o.values()))
def test_on_policy_every_composition_has_the_policy_gradient(options: dict[str, Any], oracle: ModuleType) -> None:
    """r = 1: surrogates in r have the mean advantage as value, those in log π that of A·log π; the gradient is one."""
    rows = fresh_rows(oracle)
    if options.get("masks"):
        for row in rows:
            row.truncated = False
    batch, logprobs_BT = as_batch(rows)
    loss = composed(batch, logprobs_BT, PLAIN | options)
    loss.backward()
    surrogate = options.get("surrogate", "clip")
    value = [row.a * (1.0 if surrogate in ("clip", "up") else math.fsum(row.mu) / len(row.mu)) for row in rows]
    assert loss.item() == pytest.approx(-math.fsum(value) / len(rows), rel=1e-6)
    slopes_BT = -batch.advantages_B[:, None] / (len(rows) * batch.mask_BT.sum(1, keepdim=True)) * batch.mask_BT
    assert logprobs_BT.grad is not None
    assert torch.allclose(logprobs_BT.grad, slopes_BT, rtol=1e-6)


@pytest.mark.parametrize("ratio", LEVELS)
@pytest.mark.parametrize("band", ["additive", "multiplicative", "upper"])
def test_at_the_true_center_nothing_is_bounded(ratio: str, band: str, oracle: ModuleType) -> None:
    """i = 1: π is π_k where the gradient is taken, however far it is from α."""
    around_one = compose(GrpoOptions(ratio=ratio, band=band, epsilon=0.01), 0.0)
    around_the_iterate = [
        compose(GrpoOptions(ratio=ratio, band=band, epsilon=0.01, center=center), 0.0)
        for center in ("iterate", "interpolated")
    ]
    bounded = 0
    for seed in range(5):
        rows = make_rows(oracle, seed, drift=1.5)
        for row in rows:
            row.iterate = [p.item() for p in row.pi]
        batch, leaf_BT = as_batch(rows)
        logprobs_BT = leaf_BT.detach()
        for loss in around_the_iterate:
            step = loss.begin_step(batch, VERSION, 0, logprobs_BT.clone)
            assert not loss.bounded(step, logprobs_BT).any()
        bounded += int(around_one.bounded(batch, logprobs_BT).sum())
    assert bounded > 0


def test_masked_rows_add_exactly_nothing(oracle: ModuleType) -> None:
    """Also if they contain NaN and infinity."""
    rows = make_rows(oracle, 1)
    options = PLAIN | {"masks": ["truncated"], "aggregation": "token_mean"}
    batch, logprobs_BT = as_batch(rows)
    composed(batch, logprobs_BT, options).backward()
    with torch.no_grad():
        poisoned_BT = logprobs_BT.clone()
        poisoned_BT[2] = -1e30
        batch.behaviour_logprobs_BT[2] = -1e35
    poisoned_BT.requires_grad_()
    loss = composed(batch, poisoned_BT, options)
    loss.backward()
    assert math.isfinite(loss.item())
    assert logprobs_BT.grad is not None
    assert torch.equal(poisoned_BT.grad, logprobs_BT.grad)  # type: ignore[arg-type]
    assert not logprobs_BT.grad[2].any()
    kept = [b for b in range(len(rows)) if b != 2]
    tokens = sum(LENGTHS)
    alone = oracle.composed_loss([rows[b] for b in kept], PLAIN | {"aggregation": "token_mean"})
    assert loss.item() == pytest.approx(alone.item() * (tokens - LENGTHS[2]) / tokens, rel=1e-6)
    left = composed(batch, poisoned_BT, options | {"divide_by": "kept"})
    assert left.item() == pytest.approx(alone.item(), rel=1e-6)


def test_a_version_that_is_unknown_is_never_taken_for_a_lag(oracle: ModuleType) -> None:
    batch, logprobs_BT = as_batch(make_rows(oracle, 0))
    batch.versions_BT[1] = UNKNOWN  # a record of another lineage
    keep_BT = FIXED_MASKS["max_lag"](batch, VERSION, max_lag=100)
    assert torch.equal(keep_BT[1] & batch.mask_BT[1], torch.zeros(WIDTH, dtype=torch.bool))
    assert (keep_BT | ~batch.mask_BT)[[0, 2, 3, 4, 5]].all()
    loss = compose(GrpoOptions(center="interpolated"), 0.0)
    with pytest.raises(RunError, match="needs the policy version of every sampled token; use center: iterate"):
        loss.begin_step(batch, VERSION, 0, logprobs_BT.detach)
    fresh = GrpoOptions(correction="mis", mismatch_low=0.0, mismatch_high=1e9, correction_low=2.0, correction_high=2.0)
    corrected = compose(fresh, 0.0).correct(batch, VERSION)
    assert torch.equal(corrected.keep_BT, batch.mask_BT & (batch.versions_BT == VERSION))
    assert corrected.keep_BT.any()


@pytest.mark.parametrize("surrogate", SURROGATES)
@pytest.mark.parametrize("a", [1.0, -1.0])
def test_products_beyond_floating_point_leave_a_finite_gradient(surrogate: str, a: float, oracle: ModuleType) -> None:
    """The ratio of a completion of thousands of tokens is easily e^200: infinite in float32."""
    rows = make_rows(oracle, 0)
    batch, logprobs_BT = as_batch(rows)
    batch = Batch(**{**vars(batch), "behaviour_logprobs_BT": logprobs_BT.detach().float() - 200.0})
    batch.advantages_B.fill_(a)
    leaf_BT = logprobs_BT.detach().float().requires_grad_()
    composed(batch, leaf_BT, PLAIN | {"ratio": "sequence", "surrogate": surrogate, "band": "upper"}).backward()
    assert leaf_BT.grad is not None
    assert leaf_BT.grad.isfinite().all()


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"denominator": "iterate", "center": "iterate"}, "π/π_k is 1 where π is π_k, so its band is around 1"),
        ({"band": "second_moment", "center": "iterate"}, "its width is solved for log π/α of tokens"),
        ({"band": "second_moment", "ratio": "geometric"}, "its width is solved for log π/α of tokens"),
        ({"surrogate": "topr"}, "trainer.surrogate=topr needs ratio=sequence"),
        ({"surrogate": "rec", "correction": "tis"}, "surrogate=rec has none: choose a correction that rejects"),
        (
            {"surrogate": "cispo", "correction": "tis"},
            "which surrogate=cispo already bounds: set denominator=iterate",
        ),
        ({"surrogate": "rec", "denominator": "iterate"}, "needs a surrogate with an importance weight: rec has none"),
        ({"correction_high": 3.0}, "trainer.correction is none: bounds of w"),
        ({"correction": "mis", "correction_low": 3.0}, "correction=mis would bound w from 3 to 2, an empty interval"),
        ({"correction": "tis", "correction_low": 3.0, "correction_high": 1.0}, "would bound w from 3 to 1"),
        ({"correction": "mis", "correction_high": 0.9, "mismatch_low": 1.0}, "would bound w from 1 to 0.9"),
        ({"delta": 1.1}, "trainer.delta belongs to surrogate=clip and must exceed 1 \\+ epsilon_high"),
        ({"delta": 5.0, "surrogate": "cispo"}, "trainer.delta belongs to surrogate=clip"),
        ({"masks": ["max_lag"]}, "set both masks: \\[max_lag\\] and max_lag: N, or neither"),
        ({"max_lag": 3}, "set both masks"),
        ({"tau": 0.5}, "trainer.tau does nothing here: it belongs to advantage=opmd. Leave it out"),
        ({"advantage": "raw", "advantage_epsilon": 0.1}, "it belongs to advantage=whitened"),
        ({"tv_delta": 0.1}, "trainer.tv_delta does nothing here: it belongs to masks=dppo_tv. Leave it out"),
        ({"opsm_delta": 0.1, "masks": ["dppo_tv"]}, "it belongs to masks=opsm"),
        ({"m2_budget": 0.1}, "it belongs to band=second_moment"),
        ({"band": "none", "epsilon_high": 0.3}, "belongs to band=additive or band=multiplicative or band=upper"),
        ({"band": "second_moment", "epsilon": 0.3}, "trainer.epsilon does nothing here"),
        ({"band": "upper", "epsilon": 0.3, "epsilon_high": 4.0}, "band=upper has only an upper edge"),
        ({"band": "none", "center": "iterate"}, "trainer.center=iterate does nothing with band=none"),
        ({"kl": "k1"}, "trainer.kl=k1 does nothing while trainer.beta is 0, leave it out"),
        ({"surrogate": "clop"}, "there is no surrogate 'clop'; did you mean 'clip'"),
        ({"ratio": "tokens"}, "there is no ratio 'tokens'; did you mean 'token'"),
    ],
)
def test_what_does_not_go_together_is_refused_with_the_reason(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        GrpoOptions(**options)


def test_a_number_that_is_read_or_left_at_its_default_is_not_refused() -> None:
    """A recipe contains all its numbers, and must still work if one of its parts is replaced."""
    GrpoOptions(tau=1.0, tv_delta=0.2, opsm_delta=0.5, m2_budget=0.04, epsilon=0.2, band="none", kl="k3")
    GrpoOptions(advantage="opmd", tau=0.5, masks=("dppo_tv", "opsm"), tv_delta=0.1, opsm_delta=0.1)
    GrpoOptions(band="second_moment", m2_budget=0.1, beta=0.1, kl="k1")


def test_a_constant_divisor_is_the_run_s_length_limit_unless_it_is_set() -> None:
    options, taken = GrpoOptions(aggregation="constant").with_run(max_tokens=24)
    assert options.max_tokens == 24
    assert taken == [
        "trainer.aggregation=constant divides by 24 tokens a rollout, the run's sampling.max_tokens "
        "(trainer.max_tokens is not set)"
    ]
    options, taken = GrpoOptions(aggregation="constant", max_tokens=7).with_run(max_tokens=24)
    assert (options.max_tokens, taken) == (7, [])
    assert GrpoOptions().with_run(max_tokens=24) == (GrpoOptions(), [])


def test_a_composition_says_what_is_computed() -> None:
    """The description has the parts that differ from the defaults, with their numbers."""
    options = GrpoOptions(
        denominator="iterate", correction="icepop", correction_low=0.9, correction_high=1.1, mismatch_high=1.01,
        divide_by="kept", mask_zero_variance=False, aggregation="constant",
    )  # fmt: skip
    found = {axis: (name, what) for axis, name, what in options.composition()}
    assert found["denominator"][1].startswith("r = π/π_k")
    assert "sampled" not in found["center"][1]
    assert "[lo, hi] = [0.9, 1.1], at lag 0 [0.9, 1.01]" in found["correction"][1]
    assert found["divide_by"][0] == "kept"
    assert found["mask_zero_variance"][0] == "false"
    assert found["aggregation"][1].endswith("max_tokens = sampling.max_tokens")
    plain = {axis: (name, what) for axis, name, what in GrpoOptions(correction="icepop").composition()}
    assert plain["denominator"][0] == "behavior"
    assert "[lo, hi] = [0.5, 5] (IcePop" in plain["correction"][1]
