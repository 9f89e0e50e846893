"""Trust regions: how far the ratio may move from its center r'. `BANDS` maps the values of `trainer.band`.

Each function returns the lower and the upper edge around r'. Its other parameters are trainer options of the same
name. If a band's width depends on the whole batch, `Band.width` computes it before the batch is split.

Shapes: B = rollouts, T = tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    from .. import late_torch as torch


Edges: TypeAlias = "tuple[Tensor, Tensor]"


class Band(NamedTuple):
    """`edges(center_BT, width_B, **options)`, optionally `width(log_ratio_BT, advantages_B, keep_BT, **options)`."""

    edges: Callable[..., Edges]
    width: Callable[..., float] | None = None


def additive(center_BT: Tensor, width_B: Tensor | None, epsilon: float, epsilon_high: float | None) -> Edges:
    """[max(r' - ε_low, 0), r' + ε_high] (arXiv 2505.22257, eq. 6). DAPO has separate ε (2503.14476, eq. 10)."""
    return (center_BT - epsilon).clamp(min=0.0), center_BT + _high(epsilon, epsilon_high)


def multiplicative(center_BT: Tensor, width_B: Tensor | None, epsilon: float, epsilon_high: float | None) -> Edges:
    """[r'·max(1 - ε_low, 0), r'·(1 + ε_high)]; with r' = π_k/α, decoupled PPO (AReaL, arXiv 2505.24298).

    The two forms agree because w·clip(ρ, 1 ± ε) = clip(w·ρ, w·(1 ± ε)).
    """
    return center_BT * max(1 - epsilon, 0.0), center_BT * (1 + _high(epsilon, epsilon_high))


def upper(center_BT: Tensor, width_B: Tensor | None, epsilon: float, epsilon_high: float | None) -> Edges:
    """[0, r' + ε_high]: one-sided, as in CISPO (arXiv 2506.13585, eq. 5) and TOPR (2503.14286, with ε_high = 0)."""
    return torch.zeros_like(center_BT), center_BT + _high(epsilon, epsilon_high)


def unbounded(center_BT: Tensor, width_B: Tensor | None) -> Edges:
    """[0, ∞): no trust region."""
    return torch.zeros_like(center_BT), torch.full_like(center_BT, math.inf)


def second_moment(center_BT: Tensor, width_B: Tensor | None) -> Edges:
    """[min(e^-t, 0.7), max(e^t, 1.5)], with t solved for the batch (M2PO, arXiv 2510.01161 and its code)."""
    assert width_B is not None
    width_B1 = width_B[:, None].to(center_BT.dtype)
    return (
        torch.exp(-width_B1).clamp(max=0.7).expand_as(center_BT),
        torch.exp(width_B1).clamp(min=1.5).expand_as(center_BT),
    )


def second_moment_width(log_ratio_BT: Tensor, advantages_B: Tensor, keep_BT: Tensor, m2_budget: float) -> float:
    """Return t such that the mean of min(|log r|, t)² over the batch's harmful tokens equals `m2_budget`.

    Return infinity if their mean (log r)² is already within the budget. A token is harmful if the update would push it
    further from the behavior policy: r > 1 with A > 0, or r < 1 with A < 0.
    """
    harmful_BT = keep_BT & (log_ratio_BT * advantages_B[:, None] > 0)
    squares_N = torch.sort(log_ratio_BT[harmful_BT].double().square()).values
    count = len(squares_N)
    if count == 0 or squares_N.mean() <= m2_budget:
        return math.inf
    # Σ min(x_j, t²) is linear in t² between two neighboring squares: find the first one that exceeds t².
    below_N = torch.cumsum(squares_N, 0) - squares_N
    above_N = count - torch.arange(count, dtype=torch.float64)
    first = int(torch.nonzero(below_N + above_N * squares_N >= count * m2_budget)[0])
    return math.sqrt((count * m2_budget - below_N[first].item()) / above_N[first].item())


def _high(epsilon: float, epsilon_high: float | None) -> float:
    return epsilon if epsilon_high is None else epsilon_high


BANDS: Mapping[str, Band] = {
    "additive": Band(additive),
    "multiplicative": Band(multiplicative),
    "upper": Band(upper),
    "none": Band(unbounded),
    "second_moment": Band(second_moment, second_moment_width),
}
