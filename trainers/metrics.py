"""Metrics of the distance between the data and the trained policy, over the whole batch and by lag.

`rlvr.offpolicy.staleness` does the arithmetic. Batch-wide names are `ess/token`, `clip/high` and so on. The same metric
over the tokens in one bucket of lag is `lag_4-7/ess_token`, `lag_4-7/clip_high`. An empty bucket has no key.

Shapes: B = rollouts, T = tokens, N = sampled tokens of the batch, flat.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from rlvr.offpolicy.staleness import BUCKETS, Bools, Floats, Ints, bucket_of, distances, means, oldest
from rlvr.protocols import Group

from .batch import UNKNOWN, Batch

if TYPE_CHECKING:
    from torch import Tensor

BATCH_WIDE = {
    "log_w_square": "ratio/log_square",
    "ratio_mean": "ratio/mean",
    "ratio_max": "ratio/max",
    "kl_k1": "kl/k1",
    "kl_k3": "kl/k3",
    "chi2": "chi2/token",
    "ess_token": "ess/token",
    "ess_sequence": "ess/sequence",
    "entropy": "entropy",
    "clip_high": "clip/high",
    "clip_low": "clip/low",
}
"""Name within a bucket → name of the same metric over the whole batch."""


# What `rlvr.alarms` checks after a gradient step, except for alarms that end the batch anyway.
_WORSE: Mapping[str, Callable[[float, float], float]] = {"ratio/max": max, "ess/token": min, "mismatch/mean": max}


class Removed(NamedTuple):
    """Tokens without an effect on a gradient step, although their rollout is part of it."""

    clipped_BT: Tensor
    """bool: the objective is flat in the ratio, so the token has no gradient."""
    masked_BT: Tensor
    """bool: a correction or a mask removed the token."""


def step_metrics(
    batch: Batch, logprobs_BT: Tensor, entropy_BT: Tensor, clipped_BT: Tensor, version: int
) -> dict[str, float]:
    """Return the metrics of one gradient step, over the sampled tokens of the rollouts in `batch`.

    Every rollout in `batch` has a token that no fixed mask removes. `version` is the trainer's before the step. `batch`
    and the tensors are on the CPU.

    - lag/max, lag/mean: optimizer steps, over tokens of known lag; absent if there are none.
    - ratio/*: π/α per token; log_square is the mean of (log π/α)².
    - kl/*: estimates of KL(α‖π), in nats per token.
    - ess/*, chi2/token: see `rlvr.offpolicy.staleness.distances`.
    - clip/*: share of these tokens; high for A > 0, low for A ≤ 0.
    - mismatch/*: |log π - log α| of tokens at lag 0, where sampler and trainer should differ by rounding alone.
    """
    mask_BT = batch.mask_BT.numpy()
    row_N = mask_BT.nonzero()[0]
    log_w_N = logprobs_BT.numpy()[mask_BT].astype(np.float64) - batch.behaviour_logprobs_BT.numpy()[mask_BT]
    version_N = batch.versions_BT.numpy()[mask_BT]
    known_N, lag_N = version_N != UNKNOWN, version - version_N
    high_N = (batch.advantages_B.numpy() > 0)[row_N]
    clipped_N = clipped_BT.numpy()[mask_BT]
    values = {
        "entropy": entropy_BT.numpy()[mask_BT],
        "clip_high": clipped_N & high_N,
        "clip_low": clipped_N & ~high_N,
    }

    whole = _by_part(log_w_N, row_N, np.zeros_like(row_N), 1, values)
    metrics = {wide: float(whole[name][0]) for name, wide in BATCH_WIDE.items()}
    metrics["clip/fraction"] = metrics["clip/high"] + metrics["clip/low"]
    if known_N.any():
        metrics |= {"lag/max": float(lag_N[known_N].max()), "lag/mean": float(lag_N[known_N].mean())}
    fresh_N = known_N & (lag_N == 0)
    if fresh_N.any():
        gap_N = np.abs(log_w_N[fresh_N])
        metrics |= {"mismatch/mean": float(gap_N.mean()), "mismatch/max": float(gap_N.max())}

    bucket_N = bucket_of(lag_N, known_N)
    parts = _by_part(log_w_N, row_N, bucket_N, len(BUCKETS), values)
    share_P = np.bincount(bucket_N, minlength=len(BUCKETS)) / len(bucket_N)
    return metrics | by_bucket({**parts, "share": share_P}, share_P > 0)


def worst(before: Mapping[str, float], found: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics that alarms check, the worse of `before` and `found` (the last gradient step's)."""
    return {name: worse(before[name], found[name]) for name, worse in _WORSE.items() if name in before.keys() & found}


def mask_metrics(batch: Batch, signal_BT: Tensor, masked_BT: Tensor, version: int) -> dict[str, float]:
    """Return the shares of tokens that masks and corrections remove in one gradient step.

    `signal_BT` marks the sampled tokens that could be learned from: all except those of groups that
    `mask_zero_variance` leaves out. mask/* is the share of them in `masked_BT`; high for A > 0, low for A ≤ 0; the same
    by bucket of lag. The result is empty if there is no such token. `version` is the trainer's before the step.
    """
    if not signal_BT.any():
        return {}
    masked_N, version_N = masked_BT[signal_BT].numpy(), batch.versions_BT[signal_BT].numpy()
    high_N = (batch.advantages_B[:, None] > 0).expand_as(signal_BT)[signal_BT].numpy()
    removed = {"mask_high": masked_N & high_N, "mask_low": masked_N & ~high_N}
    bucket_N = bucket_of(version - version_N, version_N != UNKNOWN)
    parts = {name: means(removed_N, bucket_N, len(BUCKETS)) for name, removed_N in removed.items()}
    return {
        "mask/high": float(removed["mask_high"].mean()),
        "mask/low": float(removed["mask_low"].mean()),
        "mask/fraction": float(masked_N.mean()),
        **by_bucket(parts, np.bincount(bucket_N, minlength=len(BUCKETS)) > 0),
    }


def group_metrics(groups: Sequence[Group], version: int) -> dict[str, float]:
    """Return the metrics of a batch before its first gradient step, including groups without reward variance.

    - signal/groups: share of groups whose rewards differ; by bucket of lag, `signal`. A group is in the bucket of its
      oldest token.
    - by bucket of lag: `length`, mean sampled tokens per rollout, and `truncated`, the share of rollouts that ended at
      their length limit among those with a finish reason.
    """
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    group_of_B = np.repeat(np.arange(len(groups)), [len(group.rollouts) for group in groups])
    oldest_B = np.array([min((run.version for run in r.policy_versions or ()), default=UNKNOWN) for r in rollouts])
    bucket_B = bucket_of(version - oldest_B, oldest_B != UNKNOWN)
    bucket_G = oldest(bucket_B, group_of_B, len(groups))
    signal_G = [group.stats.has_signal for group in groups]
    values = {
        "signal": means(signal_G, bucket_G, len(BUCKETS)),
        "length": means([r.sampled_tokens for r in rollouts], bucket_B, len(BUCKETS)),
        "truncated": means(
            [r.finish_reason == "length" for r in rollouts if r.finish_reason is not None],
            bucket_B[[r.finish_reason is not None for r in rollouts]],
            len(BUCKETS),
        ),
    }
    there_P = np.bincount(bucket_B, minlength=len(BUCKETS)) > 0
    known = {name: value for name, value in by_bucket(values, there_P).items() if not math.isnan(value)}
    return {"signal/groups": sum(signal_G) / len(signal_G), **known}


def by_bucket(values: Mapping[str, Floats], there_P: Bools) -> dict[str, float]:
    """Return `lag_BUCKET/NAME` → number for the buckets in `there_P`. TensorBoard accepts these names unchanged."""
    return {
        f"lag_{BUCKETS[p]}/{name}": float(values_P[p])
        for p in np.flatnonzero(there_P)
        for name, values_P in values.items()
    }


def _by_part(
    log_w_N: Floats, row_N: Ints, part_N: Ints, parts: int, values: Mapping[str, np.ndarray[tuple[int], np.dtype]]
) -> dict[str, Floats]:
    return {
        **distances(log_w_N, row_N, part_N, parts),
        **{name: means(values_N, part_N, parts) for name, values_N in values.items()},
    }
