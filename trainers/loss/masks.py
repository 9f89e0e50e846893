"""Masks that leave tokens out of the objective, by the names in `trainer.masks`; True means kept.

`FIXED_MASKS` depend on the records alone. They are known before the batch's first gradient step, and `divide_by` says
whether the tokens they remove count in the mean. `LIVE_MASKS` depend on π at each gradient step; the tokens they remove
still count in the mean, as in the papers. Other parameters are trainer options of the same name.

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
    """Leave out completions that ended at their length limit. Their reward does not judge a finished answer."""
    return ~batch.truncated_B[:, None].expand_as(batch.mask_BT)


def maximum_lag(batch: Batch, version: int, max_lag: int) -> Tensor:
    """Leave out tokens sampled more than `max_lag` policy versions before the batch's first gradient step, and tokens
    of unknown version."""
    return (batch.versions_BT != UNKNOWN) & (version - batch.versions_BT <= max_lag)


def opsm(batch: Batch, logprobs_BT: Tensor, opsm_delta: float) -> Tensor:
    """Leave out completions with A < 0 and mean_t log α/π > δ: off-policy sequence masking (DeepSeek-V3.2).

    Deviation: the paper compares π with its old policy; here it is compared with α, the policy that sampled.
    """
    gap_BT = torch.where(batch.mask_BT, batch.behaviour_logprobs_BT - logprobs_BT, 0.0)
    drift_B = gap_BT.sum(1) / batch.mask_BT.sum(1).clamp(min=1)
    return ((batch.advantages_B >= 0) | (drift_B <= opsm_delta))[:, None].expand_as(logprobs_BT)


def dppo_tv(batch: Batch, logprobs_BT: Tensor, tv_delta: float) -> Tensor:
    """Leave out tokens with A > 0 and π - α > δ, or A < 0 and α - π > δ: DPPO's total variation (arXiv 2602.04879).

    Such a token's probability has already moved by δ in the direction that its advantage pushes it.
    """
    moved_BT = torch.exp(logprobs_BT) - torch.exp(batch.behaviour_logprobs_BT)
    return moved_BT * torch.sign(batch.advantages_B)[:, None] <= tv_delta


FIXED_MASKS: Mapping[str, Callable[..., Tensor]] = {"truncated": truncated, "max_lag": maximum_lag}
LIVE_MASKS: Mapping[str, Callable[..., Tensor]] = {"opsm": opsm, "dppo_tv": dppo_tv}
