"""From tokens to one number: the weight of each token in the batch's objective.

A masked mean over a batch is a sum with weights. They are computed once over the whole batch, so micro-batches that sum
their part of `weights_BT * objective_BT` add up to the large batch's gradient. `AGGREGATIONS` has the divisors by the
name of `trainer.aggregation`.

Shapes: B = rollouts, T = tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    from .. import late_torch as torch


def sequence_mean(counted_BT: Tensor) -> Tensor:
    """The mean over a rollout's tokens, then over rollouts: all rollouts weigh the same (GRPO, the paper's eq. 7)."""
    return _rollouts(counted_BT) * counted_BT.sum(1, keepdim=True).clamp(min=1)


def token_mean(counted_BT: Tensor) -> Tensor:
    """The mean over the batch's tokens: all tokens weigh the same (DAPO, arXiv 2503.14476, eq. 12)."""
    return counted_BT.sum().clamp(min=1)


def constant(counted_BT: Tensor, max_tokens: int) -> Tensor:
    """The sum over all tokens by rollouts · max_tokens: no division by length (Dr. GRPO, arXiv 2503.20783)."""
    return _rollouts(counted_BT) * max_tokens


def _rollouts(counted_BT: Tensor) -> Tensor:
    return counted_BT.any(1).sum().clamp(min=1)


AGGREGATIONS: Mapping[str, Callable[..., Tensor]] = {
    "sequence_mean": sequence_mean,
    "token_mean": token_mean,
    "constant": constant,
}


def token_weights(
    mask_BT: Tensor, keep_BT: Tensor, divisor: Callable[[Tensor], Tensor], *, divide_by: Literal["all", "kept"]
) -> Tensor:
    """The weight of each token in the batch's objective: 1 over the `divisor`, 0 where `keep_BT` is False.

    `mask_BT` marks all sampled tokens, `keep_BT` those that no mask and no correction has taken out. With
    `divide_by="all"` the others stay in the denominators, as in the expectation of eq. 8; with "kept" they leave them,
    which is another estimator: larger steps when little is kept.
    """
    counted_BT = mask_BT if divide_by == "all" else keep_BT
    return keep_BT.to(torch.float32) / divisor(counted_BT)
