"""The metrics of a gradient step and of a batch, against plain arithmetic over sampled tokens."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from types import ModuleType

import pytest
import torch

from rlvr.offpolicy.staleness import BUCKETS
from rlvr.protocols import Group
from rlvr.record.schema import Rollout, VersionRun
from rlvr_trainers.batch import Batch, token_columns
from rlvr_trainers.metrics import BATCH_WIDE, group_metrics, mask_metrics, step_metrics

ALPHA = [-1.0, -2.0, -0.5]
LAGS = [5, 5, 0]  # the trainer is at version 9


@pytest.fixture
def batch(oracle: ModuleType) -> Batch:
    runs = (VersionRun(version=4, count=2), VersionRun(version=9, count=1))
    batch = token_columns([oracle.make_rollout("a", [2, 3], [4, 5, 6], ALPHA, policy_versions=runs)])
    return replace(batch, advantages_B=torch.tensor([1.0]))


def nothing_clipped(batch: Batch) -> torch.Tensor:
    return torch.zeros_like(batch.mask_BT)


@pytest.mark.parametrize("shift", [(0.3, -0.4, 0.01), (-0.3, -0.4, -0.01)])
def test_metrics(shift: tuple[float, ...], batch: Batch) -> None:
    """Also if all ratios are below 1: prompt and padding have ratio 1 and must not be counted."""
    # Values at tokens that were not sampled must not matter.
    logprobs_BT = torch.tensor([[-7.0, -7.0, *(a + s for a, s in zip(ALPHA, shift, strict=True))]])
    entropy_BT = torch.tensor([[50.0, 50.0, 1.0, 2.0, 6.0]])
    clipped_BT = torch.tensor([[True, True, True, False, False]])
    w = [math.exp(s) for s in shift]
    expected = {
        "lag/max": 5.0,
        "lag/mean": sum(LAGS) / 3,
        "ratio/max": max(w),
        "ratio/mean": sum(w) / 3,
        "ratio/log_square": sum(s * s for s in shift) / 3,
        "ess/token": sum(w) ** 2 / sum(x * x for x in w) / 3,
        "ess/sequence": 1.0,
        "chi2/token": sum(x * x for x in w) / 3 - 1,
        "kl/k1": -sum(shift) / 3,
        "kl/k3": sum(x - 1 - s for x, s in zip(w, shift, strict=True)) / 3,
        "entropy": 3.0,
        "clip/fraction": 1 / 3,
        "clip/high": 1 / 3,
        "clip/low": 0.0,
        "mismatch/mean": 0.01,
        "mismatch/max": 0.01,
    }
    found = step_metrics(batch, logprobs_BT, entropy_BT, clipped_BT, 9)
    batch_wide = {name: value for name, value in found.items() if not name.startswith("lag_")}
    assert batch_wide == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert {name.split("/")[0] for name in found if name.startswith("lag_")} == {"lag_0", "lag_4-7"}
    by_age = {name.removeprefix("lag_4-7/"): value for name, value in found.items() if name.startswith("lag_4-7/")}
    assert by_age == pytest.approx(
        {
            "log_w_mean": sum(shift[:2]) / 2,
            "log_w_square": sum(s * s for s in shift[:2]) / 2,
            "ratio_mean": sum(w[:2]) / 2,
            "ratio_max": max(w[:2]),
            "kl_k1": -sum(shift[:2]) / 2,
            "kl_k3": sum(x - 1 - s for x, s in zip(w[:2], shift[:2], strict=True)) / 2,
            "chi2": sum(x * x for x in w[:2]) / 2 - 1,
            "ess_token": sum(w[:2]) ** 2 / sum(x * x for x in w[:2]) / 2,
            "ess_sequence": 1.0,  # the rollout counts where its oldest token does
            "entropy": 1.5,
            "clip_high": 0.5,
            "clip_low": 0.0,
            "share": 2 / 3,
        },
        rel=1e-4,
        abs=1e-6,
    )
    assert math.isnan(found["lag_0/ess_sequence"])
    assert found["lag_0/kl_k1"] == pytest.approx(-shift[2], rel=1e-4)


def test_removed_tokens_go_by_the_advantage_s_sign(oracle: ModuleType) -> None:
    rows = [oracle.make_rollout(str(i), [2], [3, 4], [-1.0, -1.0]) for i in range(3)]
    batch = replace(token_columns(rows), advantages_B=torch.tensor([0.5, -0.5, 0.0]))
    clipped_BT = torch.tensor([[False, True, False], [False, True, True], [False, False, False]])
    masked_BT = torch.tensor([[False, False, False], [False, False, False], [False, True, False]])
    found = step_metrics(batch, torch.zeros(3, 3), torch.zeros(3, 3), clipped_BT, 0)
    found |= mask_metrics(batch, batch.mask_BT, masked_BT, 0)
    names = ("clip/high", "clip/low", "clip/fraction", "mask/high", "mask/low", "mask/fraction")
    counts = (1, 2, 3, 0, 1, 1)
    assert [found[name] for name in names] == pytest.approx([count / 6 for count in counts])


def test_masks_are_counted_by_lag_over_the_groups_with_a_signal(oracle: ModuleType) -> None:
    """The second rollout's group has none, and the version of the third is unknown."""
    versions = [(VersionRun(version=4, count=2),), (VersionRun(version=4, count=2),), None]
    rows = [oracle.make_rollout(str(i), [2], [3, 4], [-1.0] * 2, policy_versions=v) for i, v in enumerate(versions)]
    batch = replace(token_columns(rows), advantages_B=torch.tensor([0.5, 0.0, -0.5]))
    signal_BT = batch.mask_BT & torch.tensor([True, False, True])[:, None]
    masked_BT = torch.tensor([[False, True, False], [False, True, True], [False, True, True]]) & signal_BT
    assert mask_metrics(batch, signal_BT, masked_BT, 9) == pytest.approx(
        {
            "mask/high": 1 / 4,
            "mask/low": 2 / 4,
            "mask/fraction": 3 / 4,
            "lag_4-7/mask_high": 1 / 2,
            "lag_4-7/mask_low": 0.0,
            "lag_unknown/mask_high": 0.0,
            "lag_unknown/mask_low": 1.0,
        }
    )
    assert mask_metrics(batch, torch.zeros_like(signal_BT), masked_BT, 9) == {}


def test_engines_are_compared_at_lag_zero_only(batch: Batch) -> None:
    stale = replace(batch, versions_BT=torch.where(batch.mask_BT, 3, -1))
    metrics = step_metrics(stale, torch.zeros(1, 5), torch.zeros(1, 5), nothing_clipped(batch), 9)
    assert metrics["lag/max"] == metrics["lag/mean"] == 6
    assert "mismatch/max" not in metrics


def test_an_unknown_lag_is_a_bucket_of_its_own_and_never_zero(oracle: ModuleType) -> None:
    foreign = oracle.make_rollout("a", [2], [3, 4], [-1.0, -1.0], policy_versions=None)
    batch = token_columns([foreign])
    metrics = step_metrics(batch, torch.zeros(1, 3), torch.zeros(1, 3), nothing_clipped(batch), 0)
    assert {name.split("/")[0] for name in metrics if name.startswith("lag_")} == {"lag_unknown"}
    assert not {"lag/max", "lag/mean", "mismatch/mean"} & metrics.keys()
    assert metrics["lag_unknown/share"] == 1


def test_every_bucket_has_every_name_and_the_batch_has_them_all(batch: Batch) -> None:
    metrics = step_metrics(batch, torch.zeros(1, 5), torch.zeros(1, 5), nothing_clipped(batch), 9)
    names = {name.removeprefix("lag_4-7/") for name in metrics if name.startswith("lag_4-7/")}
    assert names - {"share", "log_w_mean"} == BATCH_WIDE.keys()
    assert metrics.keys() >= set(BATCH_WIDE.values())


def test_one_bucket_s_numbers_are_the_batch_s(batch: Batch) -> None:
    same = replace(batch, versions_BT=torch.where(batch.mask_BT, 0, -1))
    logprobs_BT = torch.tensor([[0.0, 0.0, -1.1, -1.7, -0.6]])
    metrics = step_metrics(same, logprobs_BT, torch.rand(1, 5), nothing_clipped(batch), 70)
    assert {wide: metrics[f"lag_64-up/{name}"] for name, wide in BATCH_WIDE.items()} == pytest.approx(
        {wide: metrics[wide] for wide in BATCH_WIDE.values()}
    )


# --- of a batch before its gradient steps -----------------------------------------------------------------------------


def rollouts(oracle: ModuleType, versions: Sequence[int | None], lengths: Sequence[int]) -> list[Rollout]:
    return [
        oracle.make_rollout(
            f"{i}",
            [2],
            [3] * length,
            [-1.0] * length,
            policy_versions=None if version is None else (VersionRun(version=version, count=length),),
            finish_reason="length" if length > 3 else "stop",
        )
        for i, (version, length) in enumerate(zip(versions, lengths, strict=True))
    ]


def test_groups_by_the_age_of_their_oldest_rollout(oracle: ModuleType) -> None:
    make: list[Group] = [
        oracle.make_group(rollouts(oracle, [10, 10], [2, 4]), [0.0, 1.0]),
        oracle.make_group(rollouts(oracle, [10, 4], [4, 4]), [1.0, 1.0]),
        oracle.make_group(rollouts(oracle, [4, 4], [1, 1]), [1.0, 0.0]),
        oracle.make_group(rollouts(oracle, [None], [3]), [1.0]),
    ]
    assert group_metrics(make, 10) == pytest.approx(
        {
            "signal/groups": 0.5,
            "lag_0/signal": 1.0,
            "lag_0/length": 10 / 3,
            "lag_0/truncated": 2 / 3,
            "lag_4-7/signal": 0.5,
            "lag_4-7/length": 2.0,
            "lag_4-7/truncated": 1 / 3,
            "lag_unknown/signal": 0.0,
            "lag_unknown/length": 3.0,
            "lag_unknown/truncated": 0.0,
        }
    )
    first, second = rollouts(oracle, [10, 10], [4, 4])
    untold = oracle.make_group([first.model_copy(update={"finish_reason": None}), second], [1.0, 0.0])
    assert group_metrics([untold], 10)["lag_0/truncated"] == float(second.finish_reason == "length")
    nobody = oracle.make_group([r.model_copy(update={"finish_reason": None}) for r in (first, second)], [1.0, 0.0])
    assert "lag_0/truncated" not in group_metrics([nobody], 10)


def test_names_by_bucket_are_names_everywhere() -> None:
    """TensorBoard, a shell and a spreadsheet accept the names without quotes."""
    assert all(re.fullmatch(r"[-\w]+", f"lag_{bucket}") for bucket in BUCKETS)
