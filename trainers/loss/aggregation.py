"""Aggregation of tokens into one number: the weight of each token in the batch's objective.

A masked mean over a batch is a weighted sum. The weights are computed once over the whole batch, so micro-batches that
each sum their part of `weights_BT * objective_BT` add up to the large batch's gradient. `AGGREGATIONS` maps the values
of `trainer.aggregation` to divisors.

Rows are sequences. Several of them may be segments of one rollout; they weigh as that one rollout. `rollout_B` holds a
number for each row, equal for the segments of a rollout.

Shapes: B = rows, T = tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    from .. import late_torch as torch


def sequence_mean(counted_BT: Tensor, rollout_B: Tensor) -> Tensor:
    """Mean over a rollout's tokens, then over rollouts: rollouts weigh the same (GRPO, arXiv 2402.03300, eq. 3)."""
    tokens_B = _tokens_of_rollouts(counted_BT, rollout_B)[rollout_B]
    return _rollouts(counted_BT, rollout_B) * tokens_B[:, None].clamp(min=1)


def token_mean(counted_BT: Tensor, rollout_B: Tensor) -> Tensor:
    """Mean over the batch's tokens: all tokens weigh the same (DAPO, arXiv 2503.14476, eq. 12)."""
    return counted_BT.sum().clamp(min=1)


def constant(counted_BT: Tensor, rollout_B: Tensor, max_tokens: int) -> Tensor:
    """Sum over all tokens, divided by rollouts · max_tokens, not by length (Dr. GRPO, arXiv 2503.20783, §3.2)."""
    return _rollouts(counted_BT, rollout_B) * max_tokens


def _rollouts(counted_BT: Tensor, rollout_B: Tensor) -> Tensor:
    return (_tokens_of_rollouts(counted_BT, rollout_B) > 0).sum().clamp(min=1)


def _tokens_of_rollouts(counted_BT: Tensor, rollout_B: Tensor) -> Tensor:
    return torch.bincount(rollout_B, weights=counted_BT.sum(1)).long()


AGGREGATIONS: Mapping[str, Callable[..., Tensor]] = {
    "sequence_mean": sequence_mean,
    "token_mean": token_mean,
    "constant": constant,
}


def token_weights(
    mask_BT: Tensor,
    keep_BT: Tensor,
    divisor: Callable[[Tensor, Tensor], Tensor],
    *,
    divide_by: Literal["all", "kept"],
    rollout_B: Tensor | None = None,
) -> Tensor:
    """Return (B, T) weights of tokens in the batch's objective: 1 / `divisor`, and 0 where `keep_BT` is False.

    `mask_BT` marks all sampled tokens; `keep_BT` marks those that no mask or correction has removed. With
    `divide_by="all"`, removed tokens still count in the denominators, as in the expectation of arXiv 2505.22257, eq. 8.
    With "kept" they do not, which is a different estimator: it takes larger steps when few tokens are kept. Without
    `rollout_B`, each row is a rollout.
    """
    counted_BT = mask_BT if divide_by == "all" else keep_BT
    if rollout_B is None:
        rollout_B = torch.arange(len(mask_BT))
    return keep_BT.to(torch.float32) / divisor(counted_BT, rollout_B)
