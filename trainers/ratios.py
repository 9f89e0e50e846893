"""Importance ratios between policies, and how far apart they say the policies are.

Shapes: B = rollouts, T = tokens. Everything is natural-log based and elementwise unless said otherwise; entries where
the mask is False are 0 in log space (ratio 1) and are left out of every mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor


def log_ratio(logprobs_BT: Tensor, behaviour_logprobs_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """log(π/α) a token, 0 where the mask is False. The denominator is what the record says was sampled."""
    return torch.where(mask_BT, logprobs_BT - behaviour_logprobs_BT, 0.0)


def k1(log_ratio_BT: Tensor) -> Tensor:
    """-log r: unbiased estimate of KL(α‖π) from tokens sampled by α; may be negative. (Schulman, approximating KL.)"""
    return -log_ratio_BT


def k3(log_ratio_BT: Tensor) -> Tensor:
    """(r - 1) - log r: unbiased estimate of KL(α‖π) from tokens sampled by α; never negative."""
    return torch.expm1(log_ratio_BT) - log_ratio_BT


def effective_sample_size(log_ratio_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """(Σw)² / (n Σw²) over the masked tokens, in (0, 1]: the share of n tokens that on-policy data would be worth."""
    log_w = log_ratio_BT[mask_BT].double()
    return torch.exp(2 * torch.logsumexp(log_w, 0) - torch.logsumexp(2 * log_w, 0)) / max(1, log_w.numel())


def chi_squared(log_ratio_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """mean(w²) - 1 over the masked tokens: an estimate of χ²(π‖α)."""
    log_w = log_ratio_BT[mask_BT].double()
    return torch.exp(2 * log_w).mean() - 1


# --- levels: what one ratio is of, by the name of `trainer.ratio` -----------------------------------------------------

HIGHEST = 80.0
"""Largest logarithm of a product of ratios: e^89 is infinite in float32, and infinity times a slope of 0 is NaN."""


def token(log_ratio_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """log r_t: each token has its own."""
    return log_ratio_BT


def sequence(log_ratio_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Σ_t log r_t at each token: the ratio of whole completions. Over the masked tokens, and at most `HIGHEST`."""
    return log_ratio_BT.sum(1, keepdim=True).clamp(max=HIGHEST).expand_as(log_ratio_BT)


def geometric(log_ratio_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """mean_t log r_t at each token: GSPO's length-normalised ratio (arXiv 2507.18071). Over the masked tokens."""
    mean_B1 = log_ratio_BT.sum(1, keepdim=True) / mask_BT.sum(1, keepdim=True).clamp(min=1)
    return mean_B1.expand_as(log_ratio_BT)


LEVELS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "token": token,
    "sequence": sequence,
    "geometric": geometric,
}
