"""Corrections for the gap between the policy that sampled and the policy that the update starts from: w = π_k/α.

α is the behavior policy as recorded, π_k the policy before the batch's first gradient step. w mixes staleness with the
mismatch between sampler and trainer (different kernels or precision). At lag 0, w is that mismatch alone, so tokens at
lag 0 may have separate bounds. `CORRECTIONS` maps the values of `trainer.correction`.

A correction replaces w by a weight c(w), and says which tokens are rejected. Nothing here has a gradient, and
everything is fixed for the batch's gradient steps. Shapes: B = rollouts, T = tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from .axes import summary
from .ratios import geometric, sequence, token

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    from .. import late_torch as torch


WRITTEN: Mapping[Callable[[Tensor, Tensor], Tensor], str] = {
    token: "π_k/α of the token",
    sequence: "∏_t π_k/α",
    geometric: "exp(mean_t log π_k/α)",
}
"""Formula of w at each level."""


class Bounds(NamedTuple):
    """Bounds of w; None means the correction's own."""

    low: float | None = None
    high: float | None = None


class Correction(NamedTuple):
    """A function that bounds w at some level, with its default bounds and its source."""

    apply: Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
    """`(log_w_BT, log_level_BT, low_BT, high_BT) -> (log c(w), keep_BT)`; the bounds are logarithms."""
    level: Callable[[Tensor, Tensor], Tensor]
    low: float
    high: float
    source: str

    @property
    def about(self) -> str:
        """One-line description with its own bounds."""
        return self.within(Bounds(), Bounds())

    def within(self, stale: Bounds, mismatch: Bounds) -> str:
        """Return a one-line description with these bounds; None stands for its own."""
        low, high = self.limits(stale)
        fresh = self.limits(mismatch, stale)
        at_lag_0 = "" if mismatch == Bounds() else f", at lag 0 [{fresh[0]:g}, {fresh[1]:g}]"
        bounds = f"[lo, hi] = [{low:g}, {high:g}]{at_lag_0}"
        return f"{summary(self.apply)}; w = {WRITTEN[self.level]}, {bounds} ({self.source})"

    def limits(self, *given: Bounds) -> tuple[float, float]:
        """Return the low and the high bound: the first given one that is not None, or else its own."""
        lows = (bounds.low for bounds in given if bounds.low is not None)
        highs = (bounds.high for bounds in given if bounds.high is not None)
        return next(lows, self.low), next(highs, self.high)

    @property
    def truncates(self) -> bool:
        """Whether it changes weights, rather than only rejecting tokens."""
        return self.apply is truncate


def truncate(log_w_BT: Tensor, log_level_BT: Tensor, low_BT: Tensor, high_BT: Tensor) -> tuple[Tensor, Tensor]:
    """c = clip(w, lo, hi). No token is rejected."""
    clipped_BT = torch.minimum(torch.maximum(log_level_BT, low_BT), high_BT)
    return clipped_BT, torch.ones_like(log_w_BT, dtype=torch.bool)


def reject(log_w_BT: Tensor, log_level_BT: Tensor, low_BT: Tensor, high_BT: Tensor) -> tuple[Tensor, Tensor]:
    """c = w · 1[lo <= w <= hi]."""
    return log_level_BT, (log_level_BT >= low_BT) & (log_level_BT <= high_BT)


def select(log_w_BT: Tensor, log_level_BT: Tensor, low_BT: Tensor, high_BT: Tensor) -> tuple[Tensor, Tensor]:
    """c = w_t · 1[lo <= w <= hi]. Kept tokens keep their own weights."""
    return log_w_BT, (log_level_BT >= low_BT) & (log_level_BT <= high_BT)


CORRECTIONS: Mapping[str, Correction | None] = {
    "none": None,
    "tis": Correction(truncate, token, 0.0, 2.0, "TIS, truncated importance sampling, as in verl"),
    "mis": Correction(reject, token, 0.5, 2.0, "MIS, masked importance sampling, as in verl"),
    "icepop": Correction(reject, token, 0.5, 5.0, "IcePop, as in NeMo-RL"),
    "sequence_tis": Correction(truncate, sequence, 0.0, 3.0, "sequence TIS, as in verl and TRL"),
    "sequence_mis": Correction(reject, sequence, 0.0, 3.0, "sequence MIS, as in verl; TRL's sequence_mask"),
    "geo_rs": Correction(
        select,
        geometric,
        0.999,
        1.001,
        "Geo-RS, as in verl: narrow enough to test the engine; at v = 50 it rejects nearly everything",
    ),
}


def correct(
    correction: Correction, log_w_BT: Tensor, mask_BT: Tensor, fresh_BT: Tensor, stale: Bounds, mismatch: Bounds
) -> tuple[Tensor, Tensor]:
    """Return (B, T) log c(w), and the tokens that are kept.

    `mismatch` bounds apply to tokens that `fresh_BT` marks as being at lag 0, and `stale` bounds to the others. At a
    sequence level, a rollout is at lag 0 if all its tokens are.
    """
    if correction.level is not token:
        fresh_BT = (fresh_BT | ~mask_BT).all(1, keepdim=True).expand_as(mask_BT)
    low_BT, high_BT = (
        torch.where(fresh_BT, _log(fresh, log_w_BT), _log(old, log_w_BT))
        for fresh, old in zip(correction.limits(mismatch, stale), correction.limits(stale), strict=True)
    )
    return correction.apply(log_w_BT, correction.level(log_w_BT, mask_BT), low_BT, high_BT)


def _log(bound: float, like: Tensor) -> Tensor:
    return like.new_tensor(math.log(bound) if bound > 0 else -math.inf)
