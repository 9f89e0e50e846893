"""The penalty for leaving the reference: estimates of KL(π ‖ π_ref) a token. `KL_TERMS` has them by the name of
`trainer.kl`.

`logprobs_BT` are π's, with gradients; `ratio_BT` is π/α of the token, with gradients. Schulman's names: joschu.net,
"Approximating KL divergence".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    from .. import late_torch as torch


def k1(logprobs_BT: Tensor, reference_logprobs_BT: Tensor, ratio_BT: Tensor) -> Tensor:
    """log π - log π_ref: unbiased on tokens that π sampled. As a loss its gradient is ∇ log π, whatever π_ref is: it
    belongs into the reward, and is here for comparison."""
    return logprobs_BT - reference_logprobs_BT


def k2(logprobs_BT: Tensor, reference_logprobs_BT: Tensor, ratio_BT: Tensor) -> Tensor:
    """½ (log π - log π_ref)²: biased in value; on tokens that π sampled its gradient is that of the divergence."""
    return 0.5 * (logprobs_BT - reference_logprobs_BT).square()


def k3(logprobs_BT: Tensor, reference_logprobs_BT: Tensor, ratio_BT: Tensor) -> Tensor:
    """exp(q - p) - (q - p) - 1, q the reference's and p the policy's log-probability.

    Unbiased for tokens that π sampled, and never negative. The paper does not name its estimator; its code was built on
    TRL, which used this one, without a weight for tokens that an older policy sampled. So do we, by default.
    """
    gap_BT = reference_logprobs_BT - logprobs_BT
    return torch.expm1(gap_BT) - gap_BT


def k3_weighted(logprobs_BT: Tensor, reference_logprobs_BT: Tensor, ratio_BT: Tensor) -> Tensor:
    """(π/α) · k3: unbiased for tokens that α sampled, in value and in gradient (DeepSeek-V3.2). It is TRL's
    `use_bias_correction_kl`."""
    return ratio_BT * k3(logprobs_BT, reference_logprobs_BT, ratio_BT)


KL_TERMS: Mapping[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "k1": k1,
    "k2": k2,
    "k3": k3,
    "k3_weighted": k3_weighted,
}
