"""Rules for the learning rate of a gradient step. Each gives a factor in (0, 1].

Shapes: B = rollouts, T = tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    from . import late_torch as torch


def rates(
    kind: Literal["constant", "linear", "cosine"], updates: int, *, warmup: int = 0, floor: float = 0.0
) -> Callable[[int], float]:
    """Return the share of the learning rate at each of the planned optimizer steps, counted from 0.

    These are the schedules of transformers. With a warmup, theirs gives the first step a rate of 0; that step is left
    out, so that the rate rises from 1/warmup of itself. Steps beyond the plan have the rate of the last planned one.

    Args:
        kind: Course of the rate after the warmup.
        updates: Planned optimizer steps.
        warmup: Steps over which the rate rises linearly.
        floor: Lowest share after the warmup, for `linear` and `cosine`.
    """
    from transformers.optimization import (  # with torch, which reading options does not need
        get_constant_schedule_with_warmup,
        get_cosine_with_min_lr_schedule_with_warmup,
        get_polynomial_decay_schedule_with_warmup,
    )

    skipped = int(warmup > 0)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)  # a schedule belongs to one, and this one never steps
    if kind == "constant":
        schedule = get_constant_schedule_with_warmup(optimizer, warmup)
    elif kind == "linear":  # a polynomial of degree 1: transformers' linear schedule has no floor
        untyped: Any = get_polynomial_decay_schedule_with_warmup
        schedule = untyped(optimizer, warmup, updates + skipped, lr_end=floor)
    else:
        schedule = get_cosine_with_min_lr_schedule_with_warmup(optimizer, warmup, updates + skipped, min_lr_rate=floor)
    (share,) = schedule.lr_lambdas
    return lambda update: float(share(min(update, updates - 1) + skipped))


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
