"""Centers of the clip band, r' = π_prox/α. `CENTERS` maps the values of `trainer.center`.

Each function returns log r' per token, without a gradient. `log_ratio_BT` is log π/α, detached. Shapes: B = rollouts,
T = tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from .ratios import log_ratio

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ..batch import Batch
else:
    from .. import late_torch as torch


def one(batch: Batch, log_ratio_BT: Tensor) -> Tensor:
    """r' = 1: the band is around the policy in the ratio's denominator. In PPO, GRPO and the experiments of arXiv
    2505.22257, that is the policy that sampled."""
    return torch.zeros_like(log_ratio_BT)


def iterate(batch: Batch, log_ratio_BT: Tensor) -> Tensor:
    """r' = π_k/α, with π_k the policy before the batch's first gradient step. This is eq. 6 of arXiv 2505.22257 as
    derived there; π_k is also the proximal policy of decoupled PPO (2505.24298)."""
    assert batch.iterate_logprobs_BT is not None
    return log_ratio(batch.iterate_logprobs_BT, batch.behaviour_logprobs_BT, batch.mask_BT)


def interpolated(batch: Batch, log_ratio_BT: Tensor) -> Tensor:
    """log r' = a · sg(log π/α), a = (v_prox - v_α)/(v_θ - v_α): approximates π_k/α without computing π_k (A-3PO).

    The approximation assumes that log-probabilities move linearly with the policy version on the way from α to π.
    """
    assert batch.proximal_share_BT is not None
    return batch.proximal_share_BT * log_ratio_BT


def proximal_share(lag_BT: Tensor, steps: int) -> Tensor:
    """Return a of `interpolated` for tokens that were `lag_BT` versions old at the batch's first gradient step, `steps`
    steps later. It is 1 at lag 0, where π_k and α are equal."""
    return torch.where(lag_BT + steps > 0, lag_BT / (lag_BT + steps).clamp(min=1), 1.0)


CENTERS: Mapping[str, Callable[[Batch, Tensor], Tensor]] = {
    "one": one,
    "iterate": iterate,
    "interpolated": interpolated,
}
