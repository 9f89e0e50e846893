"""The surrogate, the KL term and the weights against the paper's formulas in plain Python floats, with gradients."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr_trainers.loss.aggregation import AGGREGATIONS, token_weights
from rlvr_trainers.loss.bands import additive
from rlvr_trainers.loss.kl import k3
from rlvr_trainers.loss.surrogates import clip, clip_bounded

F64 = torch.float64


def clipped_surrogate(
    ratio_BT: torch.Tensor, center: torch.Tensor | float, advantages_BT: torch.Tensor, low: float, high: float
) -> torch.Tensor:
    """The surrogate `clip` with the additive band."""
    return clip(
        torch.zeros_like(ratio_BT),
        ratio_BT,
        *additive(torch.as_tensor(center, dtype=ratio_BT.dtype), None, low, high),
        advantages_BT,
    )


def clipped(
    ratio_BT: torch.Tensor, center: torch.Tensor | float, advantages_BT: torch.Tensor, low: float, high: float
) -> torch.Tensor:
    """Return where the surrogate is flat."""
    return clip_bounded(
        ratio_BT, *additive(torch.as_tensor(center, dtype=ratio_BT.dtype), None, low, high), advantages_BT
    )


def kl_to_reference(logprobs: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """The default KL term."""
    return k3(logprobs, reference, torch.ones_like(logprobs))


def surrogate(r: float, center: float, a: float, low: float, high: float) -> float:
    """Return f_ε in the paper's simplified forms: a·min(r, r'+ε) for a >= 0, a·max(r, max(r'-ε, 0)) for a < 0."""
    return a * min(r, center + high) if a >= 0 else a * max(r, max(center - low, 0.0))


def surrogate_slope(r: float, center: float, a: float, low: float, high: float) -> float:
    """Return the derivative of `surrogate` in r."""
    flat = r > center + high if a >= 0 else r < max(center - low, 0.0)
    return 0.0 if flat else a


RATIO = st.floats(0.0, 4.0)
BAND = st.floats(0.01, 2.0)  # also wider than the center, so that the floor at 0 acts


@settings(deadline=None)
@given(r=RATIO, center=RATIO, a=st.floats(-3, 3), low=BAND, high=BAND)
def test_surrogate_and_its_slope(r: float, center: float, a: float, low: float, high: float) -> None:
    edges = (center + high, max(center - low, 0.0))
    ratio_BT = torch.tensor([[r]], dtype=F64, requires_grad=True)
    center_BT, advantages_BT = torch.tensor([[center]], dtype=F64), torch.tensor([[a]], dtype=F64)
    value = clipped_surrogate(ratio_BT, center_BT, advantages_BT, low, high)
    assert value.item() == pytest.approx(surrogate(r, center, a, low, high), rel=1e-12, abs=1e-12)
    if min(abs(r - edge) for edge in edges) > 1e-9:  # there is no derivative at a kink
        value.sum().backward()
        assert ratio_BT.grad is not None
        slope = surrogate_slope(r, center, a, low, high)
        assert ratio_BT.grad.item() == pytest.approx(slope, rel=1e-12, abs=1e-12)
        flat = clipped(ratio_BT, center_BT, advantages_BT, low, high).item()
        assert flat == (a != 0 and slope == 0)


@pytest.mark.parametrize(
    ("r", "center", "a", "expected"),
    [
        (1.5, 1.0, 2.0, 2 * 1.3),  # rewarded and already likelier: the upper edge, which is the wider one
        (0.5, 1.0, 2.0, 2 * 0.5),  # rewarded and less likely: free
        (0.5, 1.0, -2.0, -2 * 0.8),  # punished and already less likely: the lower edge
        (1.5, 1.0, -2.0, -2 * 1.5),  # punished and likelier: free
        (2.5, 2.0, 1.0, 2.3),  # the band is around r', and additive: 2 + 0.3, not 2·1.3
        (0.05, 0.1, -1.0, -0.05),  # r' - ε is below 0: nothing is clipped from below
    ],
)
def test_surrogate_by_hand(r: float, center: float, a: float, expected: float) -> None:
    value = clipped_surrogate(torch.tensor([[r]]), torch.tensor([[center]]), torch.tensor([[a]]), 0.2, 0.3)
    assert value.item() == pytest.approx(expected)


def test_a_center_of_one_is_ppo_s_clip() -> None:
    ratio_BT = torch.linspace(0.1, 3, 50, dtype=F64)[None]
    for a in (1.7, -1.7):
        advantages_BT = torch.full_like(ratio_BT, a)
        expected = [min(r * a, min(max(r, 0.8), 1.2) * a) for r in ratio_BT[0].tolist()]
        value_BT = clipped_surrogate(ratio_BT, 1.0, advantages_BT, 0.2, 0.2)
        assert value_BT[0].tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("a", [1.0, -1.0])
def test_at_its_center_the_surrogate_has_the_full_slope(a: float) -> None:
    """With i = 1 and the true r', r = r' at every gradient: nothing is clipped, however far r is from 1."""
    ratio_BT = torch.tensor([[1e-4, 0.3, 1.0, 7.0]], requires_grad=True)
    advantages_BT = torch.full((1, 4), a)
    clipped_surrogate(ratio_BT, ratio_BT.detach(), advantages_BT, 0.01, 0.01).sum().backward()
    assert ratio_BT.grad is not None
    assert ratio_BT.grad.tolist() == [[a] * 4]
    assert not clipped(ratio_BT, ratio_BT.detach(), advantages_BT, 0.01, 0.01).any()


@settings(deadline=None)
@given(p=st.floats(-20, 0), q=st.floats(-20, 0))
def test_kl_term_and_its_slope(p: float, q: float) -> None:
    logprobs = torch.tensor([p], dtype=F64, requires_grad=True)
    value = kl_to_reference(logprobs, torch.tensor([q], dtype=F64))
    assert value.item() == pytest.approx(math.exp(q - p) - (q - p) - 1, rel=1e-9, abs=1e-12)
    value.sum().backward()
    assert logprobs.grad is not None
    assert logprobs.grad.item() == pytest.approx(1 - math.exp(q - p), rel=1e-9, abs=1e-12)


def test_kl_term_averages_to_the_divergence_from_the_reference() -> None:
    pi = torch.tensor([0.2, 0.2, 0.6], dtype=F64)
    ref = torch.tensor([0.5, 0.3, 0.2], dtype=F64)
    kl = sum(p * math.log(p / q) for p, q in zip(pi.tolist(), ref.tolist(), strict=True))
    assert (pi * kl_to_reference(pi.log(), ref.log())).sum().item() == pytest.approx(kl)


# --- weights --------------------------------------------------------------------------------------------------------

LENGTHS = [3, 1, 5, 2]
SIGNAL = [True, True, False, False]
MAX_TOKENS = 8


def divisor(how: str) -> Callable[[torch.Tensor], torch.Tensor]:
    return partial(AGGREGATIONS[how], **({"max_tokens": MAX_TOKENS} if how == "constant" else {}))


def mask() -> torch.Tensor:
    mask_BT = torch.zeros(len(LENGTHS), 7, dtype=torch.bool)
    for b, length in enumerate(LENGTHS):
        mask_BT[b, 1 : 1 + length] = True
    return mask_BT


def keep(signal: list[bool]) -> torch.Tensor:
    return mask() & torch.tensor(signal)[:, None]


@pytest.mark.parametrize(("how", "divide_by"), list(itertools.product(AGGREGATIONS, ["all", "kept"])))
def test_weights_make_the_stated_mean(how: str, divide_by: str) -> None:
    draw = random.Random(0)
    values = [[draw.uniform(-1, 1) for _ in range(length)] for length in LENGTHS]
    mask_BT = mask()
    objective_BT = torch.zeros(mask_BT.shape, dtype=F64)
    objective_BT[mask_BT] = torch.tensor([v for row in values for v in row], dtype=F64)

    kept = [row for row, signal in zip(values, SIGNAL, strict=True) if signal]
    divisor_rows = len(values) if divide_by == "all" else len(kept)
    divisor_tokens = sum(map(len, values)) if divide_by == "all" else sum(map(len, kept))
    expected = {
        "sequence_mean": sum(sum(row) / len(row) for row in kept) / divisor_rows,
        "token_mean": sum(map(sum, kept)) / divisor_tokens,
        "constant": sum(map(sum, kept)) / (divisor_rows * MAX_TOKENS),
    }[how]
    weights_BT = token_weights(
        mask_BT,
        keep(SIGNAL),
        divisor(how),
        divide_by=divide_by,  # type: ignore[arg-type]
    )
    assert (weights_BT.double() * objective_BT).sum().item() == pytest.approx(expected, rel=1e-6)
    assert not weights_BT[~mask_BT].any()


@pytest.mark.parametrize("how", AGGREGATIONS)
def test_masked_groups_stay_in_the_denominator_or_leave_it(how: str) -> None:
    signal_B = torch.tensor(SIGNAL)
    everything = token_weights(mask(), keep(SIGNAL), divisor(how), divide_by="all")
    kept = token_weights(mask(), keep(SIGNAL), divisor(how), divide_by="kept")
    alone = token_weights(mask()[signal_B], keep(SIGNAL)[signal_B], divisor(how), divide_by="all")
    assert torch.equal(kept[signal_B], alone)
    share = 4 / 11 if how == "token_mean" else 2 / 4
    assert torch.allclose(everything, kept * share)


def test_rejected_tokens_stay_in_the_denominator_or_leave_it() -> None:
    """Rows of 3, 1, 5 and 2 tokens, of which 2, 0, 5 and 1 are kept."""
    keep_BT = mask()
    keep_BT[0, 1] = keep_BT[1, 1] = keep_BT[3, 2] = False
    expected = {
        ("sequence_mean", "all"): [1 / 12, 0, 1 / 20, 1 / 8],
        ("sequence_mean", "kept"): [1 / 6, 0, 1 / 15, 1 / 3],
        ("token_mean", "all"): [1 / 11, 0, 1 / 11, 1 / 11],
        ("token_mean", "kept"): [1 / 8, 0, 1 / 8, 1 / 8],
        ("constant", "all"): [1 / 32, 0, 1 / 32, 1 / 32],
        ("constant", "kept"): [1 / 24, 0, 1 / 24, 1 / 24],
    }
    for (how, divide_by), weights in expected.items():
        found_BT = token_weights(mask(), keep_BT, divisor(how), divide_by=divide_by)  # type: ignore[arg-type]
        expected_BT = torch.tensor(weights)[:, None] * keep_BT
        assert torch.allclose(found_BT, expected_BT), (how, divide_by)


@pytest.mark.parametrize(("how", "divide_by"), list(itertools.product(AGGREGATIONS, ["all", "kept"])))
def test_without_any_signal_all_weights_are_zero(how: str, divide_by: str) -> None:
    nothing_BT = torch.zeros_like(mask())
    weights_BT = token_weights(mask(), nothing_BT, divisor(how), divide_by=divide_by)  # type: ignore[arg-type]
    assert torch.equal(weights_BT, torch.zeros_like(weights_BT))


@settings(deadline=None)
@given(
    how=st.sampled_from(sorted(AGGREGATIONS)),
    divide_by=st.sampled_from(["all", "kept"]),
    rows=st.lists(
        st.lists(st.tuples(st.booleans(), st.integers(0, 2)), min_size=1, max_size=6), min_size=1, max_size=5
    ),
)
def test_segments_weigh_as_the_rollout_that_they_are_of(
    how: str, divide_by: Any, rows: list[list[tuple[bool, int]]]
) -> None:
    """A token has the same weight in one of three segments as in the whole rollout."""
    width = max(map(len, rows))
    mask_BT, keep_BT = torch.zeros(2, len(rows), width, dtype=torch.bool)
    mask_ST, keep_ST = torch.zeros(2, 3 * len(rows), width, dtype=torch.bool)
    for b, row in enumerate(rows):
        for t, (kept, segment) in enumerate(row):
            mask_BT[b, t] = mask_ST[3 * b + segment, t] = True
            keep_BT[b, t] = keep_ST[3 * b + segment, t] = kept
    whole_BT = token_weights(mask_BT, keep_BT, divisor(how), divide_by=divide_by)
    rollout_S = torch.arange(len(rows)).repeat_interleave(3)
    parts_ST = token_weights(mask_ST, keep_ST, divisor(how), divide_by=divide_by, rollout_B=rollout_S)
    assert torch.equal(parts_ST.view(len(rows), 3, width).sum(1), whole_BT)
