"""Importance ratios between policies. How far apart they say the policies are is `rlvr.staleness`'s.

Shapes: B = rollouts, T = tokens. Everything is natural-log based and elementwise unless said otherwise; entries where
the mask is False are 0 in log space (ratio 1) and are left out of every mean.
"""

from __future__ import annotations

import torch
from torch import Tensor


def log_ratio(logprobs_BT: Tensor, behaviour_logprobs_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """log(π/α) a token, 0 where the mask is False. The denominator is what the record says was sampled."""
    return torch.where(mask_BT, logprobs_BT - behaviour_logprobs_BT, 0.0)
