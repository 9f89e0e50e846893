"""A loss, composed of small pure functions: ratio × center × band × surrogate × correction × masks × KL term.

    objective_t = k_t · (m_t · c_t · f(r_t; band around r'_t, A) - centering_t - β · KL_t)

k is 1 for tokens that the correction and the masks over records keep, m for those that the masks over π keep.

`composition.compose` looks up the functions that a trainer's options name, and binds their parameters once. Advantages
(`advantage`) and the average over tokens (`aggregation`) are computed elsewhere, because they need the whole batch.

The ratio's denominator is the policy that sampled, as recorded: r = π/α. It contains the factor w = π_k/α, with π_k the
policy before the batch's first gradient step, so a correction that replaces w by c(w) multiplies by c(w)/w. A surrogate
that is not linear in r keeps its own weight; there, a correction can only reject. With `denominator: iterate`, the
ratio is π/π_k and c(w) is a separate factor. Without a correction, that trains as if π_k had sampled the data.

Shapes: B = rollouts, T = tokens. The objective is maximized; the loss is its negative.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

from rlvr.errors import RunError

from ..batch import UNKNOWN, Batch
from .bands import Edges
from .centers import interpolated, iterate, proximal_share
from .corrections import Bounds, Correction, correct
from .ratios import HIGHEST, log_ratio

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    from .. import late_torch as torch


class Terms(NamedTuple):
    """Arguments of a surrogate. Ratio and center are 1 at tokens that are not kept."""

    ratio_BT: Tensor
    low_BT: Tensor
    high_BT: Tensor
    advantages_BT: Tensor


@dataclass(frozen=True)
class Loss:
    """A composed loss. Its methods are pure: whatever changes between gradient steps is a column of the batch."""

    level: Callable[[Tensor, Tensor], Tensor]
    center: Callable[[Batch, Tensor], Tensor]
    edges: Callable[..., Edges]
    width: Callable[..., float] | None
    surrogate: Callable[..., Tensor]
    linear: bool
    bounded_by: Callable[..., Tensor]
    masks: tuple[Callable[..., Tensor], ...]
    centering: Callable[..., Tensor] | None
    weight: Callable[[Tensor, Tensor, Tensor], Tensor] | None
    near: Callable[[Tensor, Tensor], Tensor] | None
    """The mask ipo, for probabilities of any token."""
    kl: Callable[[Tensor, Tensor, Tensor], Tensor]
    beta: float
    denominator: Literal["behavior", "iterate"]
    correction: Correction | None
    stale: Bounds
    mismatch: Bounds

    @property
    def needs_iterate(self) -> bool:
        """Whether the loss needs log π_k, which costs one forward pass per batch."""
        return self.center is iterate or self.denominator == "iterate" or self.correction is not None

    # --- once per batch, and once per gradient step ------------------------------------------------------------------

    def correct(self, batch: Batch, version: int) -> Batch:
        """Return the batch with the correction's factor, and without the tokens that it rejects."""
        if self.correction is None:
            return batch
        assert batch.iterate_logprobs_BT is not None
        mask_BT = batch.mask_BT
        log_w_BT = log_ratio(batch.iterate_logprobs_BT, batch.behaviour_logprobs_BT, mask_BT)
        fresh_BT = batch.versions_BT == version
        log_c_BT, keep_BT = correct(self.correction, log_w_BT, mask_BT, fresh_BT, self.stale, self.mismatch)
        if self.denominator == "behavior":
            log_c_BT = log_c_BT - self.level(log_w_BT, mask_BT) if self.linear else torch.zeros_like(log_c_BT)
        keep_BT = keep_BT & batch.keep_BT
        return replace(batch, keep_BT=keep_BT, correction_BT=torch.where(keep_BT, torch.exp(log_c_BT), 0.0))

    def begin_step(self, batch: Batch, version: int, steps: int, logprobs: Callable[[], Tensor]) -> Batch:
        """Return the batch with the columns that this gradient step derives from the whole batch.

        `steps` gradient steps have been taken on the batch; `version` is the trainer's before the next one.
        `logprobs()` returns log π of all tokens, and is called only if needed. Raises RunError if `center` is
        interpolated and the version of some token is unknown.
        """
        if self.center is interpolated:
            lag_BT = version - steps - batch.versions_BT
            if bool((batch.versions_BT[batch.mask_BT] == UNKNOWN).any()):
                raise RunError(
                    "center: interpolated needs the policy version of every sampled token; use center: iterate"
                )
            batch = replace(
                batch, proximal_share_BT=proximal_share(lag_BT, steps).to(batch.behaviour_logprobs_BT.dtype)
            )
        if self.width is not None:
            log_ratio_BT = log_ratio(logprobs(), batch.behaviour_logprobs_BT, batch.mask_BT)
            width = self.width(log_ratio_BT, batch.advantages_B, batch.keep_BT)
            batch = replace(batch, width_B=torch.full_like(batch.advantages_B, width))
        return batch

    # --- a gradient step --------------------------------------------------------------------------------------------

    def objective(self, batch: Batch, logprobs_BT: Tensor) -> Tensor:
        """Return the (B, T) objective to maximize; 0 outside `batch.keep_BT`."""
        terms = self._terms(batch, logprobs_BT)
        objective_BT = self.surrogate(logprobs_BT, *terms)
        if batch.correction_BT is not None:
            objective_BT = objective_BT * batch.correction_BT
        for mask in self.masks:
            objective_BT = torch.where(mask(batch, logprobs_BT.detach()), objective_BT, 0.0)
        if self.centering is not None:
            # Also for tokens that a mask has removed: the mean is over what could have been drawn.
            objective_BT = objective_BT - self.centering(batch, self._weight_within(terms))
        if batch.reference_logprobs_BT is not None:
            kept_BT = torch.where(batch.keep_BT, logprobs_BT, batch.reference_logprobs_BT)
            ratio_BT = torch.exp(log_ratio(logprobs_BT, batch.behaviour_logprobs_BT, batch.keep_BT))
            objective_BT = objective_BT - self.beta * self.kl(kept_BT, batch.reference_logprobs_BT, ratio_BT)
        return torch.where(batch.keep_BT, objective_BT, 0.0)

    def _weight_within(self, terms: Terms) -> Callable[[Tensor, Tensor], Tensor]:
        """Return f(p/q) of any token, from log p and log q: the surrogate's weight, 0 where the mask ipo removes it."""
        assert self.weight is not None
        bounded = self.weight

        def weight(log_p_BTL: Tensor, log_q_BTL: Tensor) -> Tensor:
            ratio_BTL = torch.exp((log_p_BTL - log_q_BTL).clamp(max=HIGHEST))
            weight_BTL = bounded(ratio_BTL, terms.low_BT[..., None], terms.high_BT[..., None])
            return weight_BTL if self.near is None else weight_BTL * self.near(log_p_BTL, log_q_BTL)

        return weight

    def bounded(self, batch: Batch, logprobs_BT: Tensor) -> Tensor:
        """Return (B, T) bool: the band removes the token's gradient or, if the surrogate has a weight, limits it."""
        return self.bounded_by(*self._terms(batch, logprobs_BT)) & batch.keep_BT

    def masked(self, batch: Batch, logprobs_BT: Tensor) -> Tensor:
        """Return (B, T) bool: sampled tokens that a mask or the correction has removed from the surrogate."""
        kept_BT = batch.keep_BT
        for mask in self.masks:
            kept_BT = kept_BT & mask(batch, logprobs_BT)
        return batch.mask_BT & ~kept_BT

    def _terms(self, batch: Batch, logprobs_BT: Tensor) -> Terms:
        below_BT = batch.behaviour_logprobs_BT if self.denominator == "behavior" else batch.iterate_logprobs_BT
        assert below_BT is not None
        log_ratio_BT = log_ratio(logprobs_BT, below_BT, batch.mask_BT)
        center_BT = self._at_level(batch, self.center(batch, log_ratio_BT.detach()))
        low_BT, high_BT = self.edges(center_BT, batch.width_B)
        return Terms(self._at_level(batch, log_ratio_BT), low_BT, high_BT, batch.advantages_B[:, None])

    def _at_level(self, batch: Batch, log_BT: Tensor) -> Tensor:
        # Masked before the exponential: infinity times a gradient of 0 is NaN.
        return torch.exp(torch.where(batch.keep_BT, self.level(log_BT, batch.mask_BT), 0.0))
