"""What is maximised at a token, given the ratio and the band. `SURROGATES` has them by the name of `trainer.surrogate`.

Shapes: B = rollouts, T = tokens. Further parameters of a function are trainer options of the same name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    from .. import late_torch as torch


class Surrogate(NamedTuple):
    """A surrogate, and where its band acts; both are functions of (ratio_BT, low_BT, high_BT, advantages_BT, …)."""

    objective: Callable[..., Tensor]
    """`objective(logprobs_BT, ratio_BT, low_BT, high_BT, advantages_BT, **options)`."""
    bounded: Callable[..., Tensor]
    """bool: the band takes the token's gradient away or limits its weight."""
    weighted: bool = True
    """Whether the objective carries an importance weight, which a correction may truncate."""
    linear: bool = False
    """Whether it is linear in the ratio, so that a factor c(w)/w puts c(w) in the place of w. Where it is not, a
    correction of that ratio can only reject."""
    level: str | None = None
    """The one `trainer.ratio` that it is defined for."""


def clip(
    logprobs_BT: Tensor,
    ratio_BT: Tensor,
    low_BT: Tensor,
    high_BT: Tensor,
    advantages_BT: Tensor,
    delta: float | None = None,
) -> Tensor:
    """f(r, r', A) = min(r·A, clip(r, low, high)·A)    (arXiv 2505.22257, eq. 6; PPO, GRPO and DAPO around r' = 1).

    With `delta`, it is at least δ·A where A < 0: the second clip of dual-clip PPO (arXiv 1912.09729), as TRL has it.
    """
    clipped_BT = torch.minimum(torch.maximum(ratio_BT, low_BT), high_BT)
    surrogate_BT = torch.minimum(ratio_BT * advantages_BT, clipped_BT * advantages_BT)
    if delta is None:
        return surrogate_BT
    return torch.where(advantages_BT < 0, torch.maximum(surrogate_BT, delta * advantages_BT), surrogate_BT)


def clip_bounded(
    ratio_BT: Tensor, low_BT: Tensor, high_BT: Tensor, advantages_BT: Tensor, delta: float | None = None
) -> Tensor:
    """Where `clip` is flat in r, so that the token gives no gradient."""
    below_BT = ratio_BT < low_BT if delta is None else (ratio_BT < low_BT) | (ratio_BT > delta)
    return ((ratio_BT > high_BT) & (advantages_BT > 0)) | (below_BT & (advantages_BT < 0))


def cispo(logprobs_BT: Tensor, ratio_BT: Tensor, low_BT: Tensor, high_BT: Tensor, advantages_BT: Tensor) -> Tensor:
    """sg(clip(r, low, high)) · A · log π (CISPO, arXiv 2506.13585, eq. 4). The weight is bounded, and no
    token is without a gradient."""
    weight_BT = torch.minimum(torch.maximum(ratio_BT, low_BT), high_BT).detach()
    return weight_BT * advantages_BT * logprobs_BT


def outside(ratio_BT: Tensor, low_BT: Tensor, high_BT: Tensor, advantages_BT: Tensor) -> Tensor:
    """Where the ratio is outside the band, whatever the advantage's sign."""
    return ((ratio_BT > high_BT) | (ratio_BT < low_BT)) & (advantages_BT != 0)


def rec(logprobs_BT: Tensor, ratio_BT: Tensor, low_BT: Tensor, high_BT: Tensor, advantages_BT: Tensor) -> Tensor:
    """A · log π where PPO's clip would leave a gradient, else 0 (REC-OneSide-NoIS, arXiv 2509.24203). There is no
    importance weight."""
    free_BT = ~clip_bounded(ratio_BT, low_BT, high_BT, advantages_BT)
    return torch.where(free_BT, advantages_BT * logprobs_BT, 0.0)


def topr(logprobs_BT: Tensor, ratio_BT: Tensor, low_BT: Tensor, high_BT: Tensor, advantages_BT: Tensor) -> Tensor:
    """A · log π for A >= 0, sg(clip(r, low, high)) · A · log π for A < 0, r the sequence's (TOPR, arXiv 2503.14286).

    The band of the paper is [0, 1]: a completion that π has given up already is not punished further.
    """
    weight_BT = torch.minimum(torch.maximum(ratio_BT, low_BT), high_BT).detach()
    return torch.where(advantages_BT < 0, weight_BT, 1.0) * advantages_BT * logprobs_BT


def topr_bounded(ratio_BT: Tensor, low_BT: Tensor, high_BT: Tensor, advantages_BT: Tensor) -> Tensor:
    """Where the weight of a negative is cut."""
    return outside(ratio_BT, low_BT, high_BT, advantages_BT) & (advantages_BT < 0)


SURROGATES: Mapping[str, Surrogate] = {
    "clip": Surrogate(clip, clip_bounded, linear=True),
    "cispo": Surrogate(cispo, outside),
    "rec": Surrogate(rec, clip_bounded, weighted=False),
    "topr": Surrogate(topr, topr_bounded, weighted=False, level="sequence"),
}
