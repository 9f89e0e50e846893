"""Importance ratios between policies. How far apart they say the policies are is `rlvr.offpolicy.staleness`'s.

Shapes: B = rollouts, T = tokens. Everything is natural-log based and elementwise unless said otherwise; entries where
the mask is False are 0 in log space (ratio 1) and are left out of every mean.
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
    """log(π/α) a token, 0 where the mask is False. The denominator is what the record says was sampled."""
    return torch.where(mask_BT, logprobs_BT - behaviour_logprobs_BT, 0.0)


# --- levels: what one ratio is of, by the name of `trainer.ratio`; logarithms in, logarithms out ----------------------

HIGHEST = 80.0
"""Largest logarithm of a product of ratios: e^89 is infinite in float32, and infinity times a slope of 0 is NaN."""


def token(log_ratio_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Each token has its own ratio, r_t = π/α of the token."""
    return log_ratio_BT


def sequence(log_ratio_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """All tokens have the ratio of the whole completion, ∏_t r_t. Over the masked tokens, and at most e^`HIGHEST`."""
    return log_ratio_BT.sum(1, keepdim=True).clamp(max=HIGHEST).expand_as(log_ratio_BT)


def geometric(log_ratio_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """All tokens have the completion's geometric mean, exp(mean_t log r_t) (GSPO, arXiv 2507.18071). Over the masked
    tokens."""
    mean_B1 = log_ratio_BT.sum(1, keepdim=True) / mask_BT.sum(1, keepdim=True).clamp(min=1)
    return mean_B1.expand_as(log_ratio_BT)


LEVELS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "token": token,
    "sequence": sequence,
    "geometric": geometric,
}
