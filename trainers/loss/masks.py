"""What is left out of the objective, by the names of `trainer.masks`; True is kept.

`FIXED_MASKS` depend on the records alone: they are known before the batch's first gradient step, and `divide_by` says
whether what they take out counts in the mean. `LIVE_MASKS` look at π itself, at each gradient step; what they take out
stays in the mean, as in the papers. Further parameters are trainer options of the same name.

Shapes: B = rollouts, T = tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from ..batch import UNKNOWN, Batch

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    from .. import late_torch as torch


def truncated(batch: Batch, version: int) -> Tensor:
    """No completion that ended at its length limit. Its reward says nothing about what it would have become."""
    return ~batch.truncated_B[:, None].expand_as(batch.mask_BT)


def maximum_lag(batch: Batch, version: int, max_lag: int) -> Tensor:
    """No token that was sampled more than `max_lag` policy versions before the batch's first gradient step, and none
    whose version is unknown."""
    return (batch.versions_BT != UNKNOWN) & (version - batch.versions_BT <= max_lag)


def opsm(batch: Batch, logprobs_BT: Tensor, opsm_delta: float) -> Tensor:
    """No completion with A < 0 and mean_t log α/π > δ: off-policy sequence masking (DeepSeek-V3.2).

    The paper compares with its old policy; here it is α, the policy that sampled.
    """
    gap_BT = torch.where(batch.mask_BT, batch.behaviour_logprobs_BT - logprobs_BT, 0.0)
    drift_B = gap_BT.sum(1) / batch.mask_BT.sum(1).clamp(min=1)
    return ((batch.advantages_B >= 0) | (drift_B <= opsm_delta))[:, None].expand_as(logprobs_BT)


def dppo_tv(batch: Batch, logprobs_BT: Tensor, tv_delta: float) -> Tensor:
    """No token with A > 0 and π - α > δ, or A < 0 and α - π > δ: DPPO's total variation (arXiv 2602.04879). It has
    moved by δ in probability the way its advantage pushes it."""
    moved_BT = torch.exp(logprobs_BT) - torch.exp(batch.behaviour_logprobs_BT)
    return moved_BT * torch.sign(batch.advantages_B)[:, None] <= tv_delta


FIXED_MASKS: Mapping[str, Callable[..., Tensor]] = {"truncated": truncated, "max_lag": maximum_lag}
LIVE_MASKS: Mapping[str, Callable[..., Tensor]] = {"opsm": opsm, "dppo_tv": dppo_tv}
