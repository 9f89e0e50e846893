"""Importance ratios between policies. `rlvr.offpolicy.staleness` measures policy distance from them.

Shapes: B = rollouts, T = tokens. Logarithms are natural, and operations elementwise unless noted otherwise. Entries
where the mask is False are 0 in log space (ratio 1), and are left out of every mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    from .. import late_torch as torch


def log_ratio(logprobs_BT: Tensor, behaviour_logprobs_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Return log(π/α) per token, 0 where the mask is False. The denominator is the recorded log-probability."""
    return torch.where(mask_BT, logprobs_BT - behaviour_logprobs_BT, 0.0)


# --- levels of the ratio, by the values of `trainer.ratio`; logarithms in, logarithms out -----------------------------

HIGHEST = 80.0
"""Largest logarithm of a product of ratios: e^89 is infinite in float32, and infinity times a slope of 0 is NaN."""


def token(log_ratio_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Ratio of each token, r_t = π/α."""
    return log_ratio_BT


def sequence(log_ratio_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Ratio of the whole completion, ∏_t r_t, for all its tokens. The product is over the masked tokens, and capped at
    e^`HIGHEST`."""
    return log_ratio_BT.sum(1, keepdim=True).clamp(max=HIGHEST).expand_as(log_ratio_BT)


def geometric(log_ratio_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Geometric mean over the completion, exp(mean_t log r_t), for all its tokens (GSPO, arXiv 2507.18071, eq. 7). The
    mean is over the masked tokens."""
    mean_B1 = log_ratio_BT.sum(1, keepdim=True) / mask_BT.sum(1, keepdim=True).clamp(min=1)
    return mean_B1.expand_as(log_ratio_BT)


LEVELS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "token": token,
    "sequence": sequence,
    "geometric": geometric,
}
