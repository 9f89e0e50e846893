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


def ipo(batch: Batch, logprobs_BT: Tensor, ipo_epsilon: float) -> Tensor:
    """Leave out tokens with |π - α| > ε, whatever the advantage's sign: IPO's trust region in probability (INTELLECT
    Policy Optimization, the default loss of prime-rl, docs.primeintellect.ai/prime-rl/ipo).

    The difference is computed as max(π, α) · (1 - e^-|log π - log α|), which does not cancel for close probabilities.
    """
    return near(logprobs_BT, batch.behaviour_logprobs_BT, ipo_epsilon)


def near(log_p: Tensor, log_q: Tensor, ipo_epsilon: float) -> Tensor:
    """Return whether |p - q| <= ε, given logarithms."""
    larger = torch.exp(torch.maximum(log_p, log_q))
    return larger * -torch.expm1(-(log_p - log_q).abs()) <= ipo_epsilon


def cppo(batch: Batch, logprobs_BT: Tensor, cppo_delta: float, cppo_budget: float, cppo_floor: float) -> Tensor:
    """Leave out tokens that move r away from 1 where w_t·D_t > min(δ, δ + δ_b·W_{t-1} - S_{t-1}): CPPO's prefix budget
    (arXiv 2606.10968, eqs. 8 to 10 and Algorithm 1).

    D_t = |π - α| of the sampled token. S and W are running sums of w·D and w over the completion, and w falls from 1 at
    its first token to `cppo_floor` at its last (eq. 9). So early tokens have the tighter threshold, and a prefix that
    has drifted lowers the threshold of what follows. Deviation: the paper's main runs take the total variation over the
    20 likeliest tokens for D; its ablation finds the sampled token's as good.
    """
    mask_BT, behaviour_BT = batch.mask_BT, batch.behaviour_logprobs_BT
    place_BT = (mask_BT.cumsum(1) - 1).clamp(min=0)
    last_B1 = (mask_BT.sum(1, keepdim=True) - 1).clamp(min=1)
    w_BT = torch.where(mask_BT, 1 - (1 - cppo_floor) * place_BT / last_B1, 0.0).to(behaviour_BT.dtype)
    moved_BT = torch.where(mask_BT, torch.exp(logprobs_BT) - torch.exp(behaviour_BT), 0.0)
    z_BT = w_BT * moved_BT.abs()
    slack_BT = cppo_budget * (w_BT.cumsum(1) - w_BT) - (z_BT.cumsum(1) - z_BT)
    returns_BT = batch.advantages_B[:, None] * moved_BT <= 0
    return returns_BT | (z_BT <= cppo_delta + slack_BT.clamp(max=0.0))


FIXED_MASKS: Mapping[str, Callable[..., Tensor]] = {"truncated": truncated, "max_lag": maximum_lag}
LIVE_MASKS: Mapping[str, Callable[..., Tensor]] = {"opsm": opsm, "dppo_tv": dppo_tv, "ipo": ipo, "cppo": cppo}
