"""Numbers that tell how far the data is from the policy that learns from it. Tested functions, not inline expressions.

Shapes: B = rollouts, T = tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .batch import Batch
from .ratios import chi_squared, effective_sample_size, k1, k3, log_ratio


def off_policy_metrics(batch: Batch, logprobs_BT: Tensor, entropy_BT: Tensor, version: int) -> dict[str, float]:
    """Of one gradient step, over the tokens it looked at; `version` is the trainer's before the step.

    lag/*: in optimizer steps, of the tokens whose version is known; absent where none is. ratio/*: of π/α a token;
    log_square is the mean of (log π/α)². kl/*: nats a token, estimates of KL(α‖π). mismatch/*: |log π - log α| of
    tokens at lag 0, where it should be rounding alone: it is what sampler and trainer disagree by.
    """
    mask_BT = batch.mask_BT
    log_ratio_BT = log_ratio(logprobs_BT, batch.behaviour_logprobs_BT, mask_BT)
    lag_BT, known_BT = version - batch.versions_BT, mask_BT & (batch.versions_BT >= 0)
    metrics = {
        "ratio/max": torch.exp(log_ratio_BT[mask_BT].max()).item(),
        "ratio/mean": torch.exp(log_ratio_BT[mask_BT]).mean().item(),
        "ratio/log_square": log_ratio_BT[mask_BT].square().mean().item(),
        "ess/token": effective_sample_size(log_ratio_BT, mask_BT).item(),
        "chi2/token": chi_squared(log_ratio_BT, mask_BT).item(),
        "kl/k1": k1(log_ratio_BT)[mask_BT].mean().item(),
        "kl/k3": k3(log_ratio_BT)[mask_BT].mean().item(),
        "entropy": entropy_BT[mask_BT].mean().item(),
    }
    if bool(known_BT.any()):
        metrics |= {
            "lag/max": float(lag_BT[known_BT].max()),
            "lag/mean": lag_BT[known_BT].float().mean().item(),
        }
    fresh_BT = known_BT & (lag_BT == 0)
    if bool(fresh_BT.any()):
        gap = log_ratio_BT[fresh_BT].abs()
        metrics |= {"mismatch/mean": gap.mean().item(), "mismatch/max": gap.max().item()}
    return metrics
