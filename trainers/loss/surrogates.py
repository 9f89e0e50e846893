"""Surrogate objectives per token, given the ratio and the band. `SURROGATES` maps the values of `trainer.surrogate`.

Shapes: B = rollouts, T = tokens. A function's other parameters are trainer options of the same name.
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
    """An objective, and where the band acts on it."""

    objective: Callable[..., Tensor]
    """`objective(logprobs_BT, ratio_BT, low_BT, high_BT, advantages_BT, **options)`."""
    bounded: Callable[..., Tensor]
    """`bounded(ratio_BT, low_BT, high_BT, advantages_BT, **options)`: where the band cuts gradient or weight."""
    weighted: bool = True
    """Whether the objective has an importance weight, which a correction may truncate."""
    linear: bool = False
    """Whether it is linear in the ratio, so that the factor c(w)/w replaces w by c(w). If not, a correction can only
    reject."""
    level: str | None = None
    """The only `trainer.ratio` that it is defined for, if there is just one."""
    weight: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None
    """`weight(r, low, high)`: the factor of A · ∇ log π in its gradient, if that is the same for both signs of A;
    for `clip` and `rec` without a band."""


def clip(
    logprobs_BT: Tensor,
    ratio_BT: Tensor,
    low_BT: Tensor,
    high_BT: Tensor,
    advantages_BT: Tensor,
    delta: float | None = None,
) -> Tensor:
    """f(r, r', A) = min(r·A, clip(r, low, high)·A)    (arXiv 2505.22257, eq. 6; PPO, GRPO and DAPO around r' = 1).

    With `delta`, it is at least δ·A where A < 0: the second clip of dual-clip PPO (arXiv 1912.09729), as in TRL.
    """
    clipped_BT = torch.minimum(torch.maximum(ratio_BT, low_BT), high_BT)
    surrogate_BT = torch.minimum(ratio_BT * advantages_BT, clipped_BT * advantages_BT)
    if delta is None:
        return surrogate_BT
    return torch.where(advantages_BT < 0, torch.maximum(surrogate_BT, delta * advantages_BT), surrogate_BT)


def clip_bounded(
    ratio_BT: Tensor, low_BT: Tensor, high_BT: Tensor, advantages_BT: Tensor, delta: float | None = None
) -> Tensor:
    """Return where `clip` is flat in r, so that the token has no gradient."""
    below_BT = ratio_BT < low_BT if delta is None else (ratio_BT < low_BT) | (ratio_BT > delta)
    return ((ratio_BT > high_BT) & (advantages_BT > 0)) | (below_BT & (advantages_BT < 0))


def cispo(logprobs_BT: Tensor, ratio_BT: Tensor, low_BT: Tensor, high_BT: Tensor, advantages_BT: Tensor) -> Tensor:
    """sg(clip(r, low, high)) · A · log π (CISPO, arXiv 2506.13585, eqs. 4 and 5). The weight is bounded, and each token
    keeps a gradient."""
    weight_BT = torch.minimum(torch.maximum(ratio_BT, low_BT), high_BT).detach()
    return weight_BT * advantages_BT * logprobs_BT


def outside(ratio_BT: Tensor, low_BT: Tensor, high_BT: Tensor, advantages_BT: Tensor) -> Tensor:
    """Return where the ratio is outside the band, whatever the sign of the advantage."""
    return ((ratio_BT > high_BT) | (ratio_BT < low_BT)) & (advantages_BT != 0)


def rec(logprobs_BT: Tensor, ratio_BT: Tensor, low_BT: Tensor, high_BT: Tensor, advantages_BT: Tensor) -> Tensor:
    """A · log π where PPO's clip would leave a gradient, else 0 (REC-OneSide-NoIS, arXiv 2509.24203). It has no
    importance weight."""
    free_BT = ~clip_bounded(ratio_BT, low_BT, high_BT, advantages_BT)
    return torch.where(free_BT, advantages_BT * logprobs_BT, 0.0)


def topr(logprobs_BT: Tensor, ratio_BT: Tensor, low_BT: Tensor, high_BT: Tensor, advantages_BT: Tensor) -> Tensor:
    """A · log π for A >= 0, sg(clip(r, low, high)) · A · log π for A < 0, r of the sequence (TOPR, arXiv 2503.14286).

    The paper's band is [0, 1]: a completion that π no longer produces is not punished further.
    """
    weight_BT = torch.minimum(torch.maximum(ratio_BT, low_BT), high_BT).detach()
    return torch.where(advantages_BT < 0, weight_BT, 1.0) * advantages_BT * logprobs_BT


def topr_bounded(ratio_BT: Tensor, low_BT: Tensor, high_BT: Tensor, advantages_BT: Tensor) -> Tensor:
    """Return where the weight of a completion with A < 0 is limited."""
    return outside(ratio_BT, low_BT, high_BT, advantages_BT) & (advantages_BT < 0)


def up(logprobs_BT: Tensor, ratio_BT: Tensor, low_BT: Tensor, high_BT: Tensor, advantages_BT: Tensor) -> Tensor:
    """(π/sg(π))·A for A > 0, f(r, r', A) for A <= 0: no clip and no importance weight for successes (UP, arXiv
    2607.06987, eq. 15, as its implementations in TRL and verl state it).

    Where A > 0, the value is A and the gradient is A · ∇ log π, whatever policy sampled the token.
    """
    anchored_BT = torch.exp(logprobs_BT - logprobs_BT.detach())
    return torch.where(
        advantages_BT > 0, anchored_BT * advantages_BT, clip(logprobs_BT, ratio_BT, low_BT, high_BT, advantages_BT)
    )


def up_bounded(ratio_BT: Tensor, low_BT: Tensor, high_BT: Tensor, advantages_BT: Tensor) -> Tensor:
    """Return where the clip removes the gradient of a token with A < 0."""
    return (ratio_BT < low_BT) & (advantages_BT < 0)


def limited(r: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Return clip(r, low, high)."""
    return torch.minimum(torch.maximum(r, low), high)


def unweighted(r: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Return 1."""
    return torch.ones_like(r)


SURROGATES: Mapping[str, Surrogate] = {
    "clip": Surrogate(clip, clip_bounded, linear=True, weight=limited),
    "cispo": Surrogate(cispo, outside, weight=limited),
    "rec": Surrogate(rec, clip_bounded, weighted=False, weight=unweighted),
    "topr": Surrogate(topr, topr_bounded, weighted=False, level="sequence"),
    "up": Surrogate(up, up_bounded),
}
