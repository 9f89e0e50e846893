"""Rules that lower the learning rate of a gradient step. Each returns a factor in (0, 1].

Shapes: B = rollouts, T = tokens.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    from . import late_torch as torch


def warmup(version: int, updates: int) -> float:
    """Return the warmup factor, which rises linearly over the first `updates` optimizer steps."""
    return min(1.0, (version + 1) / max(1, updates))


def ess_factor(log_ratio_BT: Tensor, base: float) -> float:
    """Return sqrt(min(1, (ESS/B) / base)) (VCPO, arXiv 2602.17616 and its code).

    ESS = (Σw)²/Σw² over the sequences' unclipped weights w = ∏_t π/α. If few sequences carry all the weight, the
    gradient has the variance of a batch of that few. `log_ratio_BT` is 0 outside the mask. `base` is the ESS/B at and
    above which the rate is not lowered.
    """
    log_w_B = log_ratio_BT.double().sum(1)
    log_ess = 2 * torch.logsumexp(log_w_B, 0) - torch.logsumexp(2 * log_w_B, 0)
    return math.sqrt(min(1.0, math.exp(log_ess.item()) / len(log_w_B) / base))


def lag_factor(mean_lag: float, base: float) -> float:
    """Return min(1, base / lag). Beyond a mean lag of `base` versions, lag × learning rate stays constant, and so does
    the bias of stale data, which grows with that product (arXiv 2607.01083)."""
    return min(1.0, base / mean_lag) if mean_lag > 0 else 1.0
