"""KL penalty toward the reference: estimators of KL(π ‖ π_ref) per token. `KL_TERMS` maps the values of `trainer.kl`.

`logprobs_BT` belongs to π and has gradients; `ratio_BT` is π/α per token, with gradients. k1, k2 and k3 are named as
in J. Schulman, "Approximating KL Divergence" (joschu.net/blog/kl-approx.html).
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
    """log π - log π_ref: unbiased on tokens that π sampled. As a loss, its gradient is ∇ log π whatever π_ref is, so it
    belongs in the reward; it is here for comparison."""
    return logprobs_BT - reference_logprobs_BT


def k2(logprobs_BT: Tensor, reference_logprobs_BT: Tensor, ratio_BT: Tensor) -> Tensor:
    """½ (log π - log π_ref)²: biased in value, but its gradient on tokens that π sampled is that of the divergence."""
    return 0.5 * (logprobs_BT - reference_logprobs_BT).square()


def k3(logprobs_BT: Tensor, reference_logprobs_BT: Tensor, ratio_BT: Tensor) -> Tensor:
    """exp(q - p) - (q - p) - 1, with q = log π_ref and p = log π (GRPO, arXiv 2402.03300, eq. 4).

    It is unbiased on tokens that π sampled, and never negative. arXiv 2505.22257 does not name its estimator. Its code
    was built on TRL, which used k3 without a weight for tokens that an older policy sampled; that is the default here.
    """
    gap_BT = reference_logprobs_BT - logprobs_BT
    return torch.expm1(gap_BT) - gap_BT


def k3_weighted(logprobs_BT: Tensor, reference_logprobs_BT: Tensor, ratio_BT: Tensor) -> Tensor:
    """(π/α) · k3: unbiased on tokens that α sampled, in value and in gradient (DeepSeek-V3.2). TRL has it as
    `use_bias_correction_kl`."""
    return ratio_BT * k3(logprobs_BT, reference_logprobs_BT, ratio_BT)


KL_TERMS: Mapping[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "k1": k1,
    "k2": k2,
    "k3": k3,
    "k3_weighted": k3_weighted,
}
