"""`grpo`: on-policy GRPO (arXiv 2402.03300), v1-i1 by default; v1-i10 with `updates_per_batch: 10`.

Deviations from the paper's text: KL is off by default (`beta: 0`), and groups whose rewards are all equal are masked
(eq. 8 of arXiv 2505.22257; `mask_zero_variance: false` restores the original).
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from rlvr.protocols import TrainContext

from .batch import Batch
from .losses import clipped, clipped_surrogate, kl_to_reference
from .metrics import Removed
from .policy_gradient import PolicyGradient, PolicyGradientOptions
from .ratios import log_ratio


class GrpoOptions(PolicyGradientOptions):
    """Keys of `trainer` for `grpo`."""

    epsilon: float = Field(default=0.2, gt=0, description="half-width of the clip band")
    epsilon_high: float | None = Field(default=None, gt=0, description="its upper half-width, when it differs (DAPO)")


class Grpo(PolicyGradient):
    """f_ε(π/α, r', A) - β·KL(π ‖ π_ref) a token (eqs. 6 and 7 of arXiv 2505.22257), with r' = 1."""

    Options = GrpoOptions
    options: GrpoOptions

    def __init__(self, options: GrpoOptions, context: TrainContext) -> None:
        super().__init__(options, context)
        self.epsilon_low = options.epsilon
        self.epsilon_high = options.epsilon if options.epsilon_high is None else options.epsilon_high

    def centre(self, batch: Batch) -> Tensor | float:
        """r': what the clip band is centred on."""
        return 1.0

    def objective(self, batch: Batch, logprobs_BT: Tensor) -> Tensor:
        """(B, T) the clipped surrogate minus the KL term."""
        ratio_BT = torch.exp(log_ratio(logprobs_BT, batch.behaviour_logprobs_BT, batch.mask_BT))
        objective_BT = clipped_surrogate(
            ratio_BT, self.centre(batch), batch.advantages_B[:, None], self.epsilon_low, self.epsilon_high
        )
        if batch.reference_logprobs_BT is None:
            return objective_BT
        return objective_BT - self.options.beta * kl_to_reference(logprobs_BT, batch.reference_logprobs_BT)

    def removed(self, batch: Batch, logprobs_BT: Tensor) -> Removed:
        """The tokens whose gradient the clip removes."""
        ratio_BT = torch.exp(log_ratio(logprobs_BT, batch.behaviour_logprobs_BT, batch.mask_BT))
        clipped_BT = clipped(
            ratio_BT, self.centre(batch), batch.advantages_B[:, None], self.epsilon_low, self.epsilon_high
        )
        return Removed(clipped_BT, torch.zeros_like(clipped_BT))

    def objective_metrics(self, batch: Batch, logprobs_BT: Tensor) -> dict[str, float]:
        """KL(π ‖ π_ref) a token."""
        if batch.reference_logprobs_BT is None:
            return {}
        kl_BT = kl_to_reference(logprobs_BT, batch.reference_logprobs_BT)
        return {"kl/reference": kl_BT[batch.mask_BT].mean().item()}
