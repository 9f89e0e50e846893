"""Centering of the score ∇ log π: what its mean under the sampler is, and how it is taken out. `CENTERINGS` maps the
values of `trainer.centering`.

If sampler and trainer differ, the weighted score f(π/α) ∇ log π of a token has a mean other than 0 under α. Multiplied
by advantages, it moves the policy in the same direction at every step, whatever the rewards say: drift.

Shapes: B = rollouts, T = tokens, K = kept tokens (`sampling.keep_topk`), L = K and the tail.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from ..batch import Batch

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    from .. import late_torch as torch

LEAST_TAIL = 1e-6
"""Probability of the tail that is assumed at least. A smaller one is rounding, and no ratio is taken of it."""

Weight = Callable[["Tensor", "Tensor"], "Tensor"]
"""`weight(log_p_BTL, log_q_BTL)`: f(p/q) of a token with probabilities p under π and q under α."""


def score(batch: Batch, weight: Weight) -> Tensor:
    """A · Σ_v sg(q_v f(p_v/q_v)) · log p_v, the mean of the weighted score under α (arXiv 2609.20807, eqs. 9, 11 and
    12).

    Return (B, T) what is to be subtracted from the objective; its value has no meaning. α is known for the kept tokens.
    Of the tail, only the sum is: q_v = ρ · p_v, with ρ = (1 - Σ_kept q) / (1 - Σ_kept p), which counts as one token for
    the weight. Since Σ_v p_v ∇ log p_v = 0 over the vocabulary, kept tokens suffice: the coefficient of log p_v is
    q_v f(p_v/q_v) - ρ f(1/ρ) p_v. For filtered samples, the kept support has no tail, and the mean is exact.

    The equations were read in the implementations of prime-rl and NeMo-RL, not in the paper itself.
    """
    assert batch.kept_logprobs_BTK is not None
    assert batch.kept_behaviour_BTK is not None
    there_BTK = batch.kept_behaviour_BTK > -torch.inf
    log_p_BTK = torch.where(there_BTK, batch.kept_logprobs_BTK, 0.0)
    with torch.no_grad():
        log_q_BTK = torch.where(there_BTK, batch.kept_behaviour_BTK, 0.0)
        p_BTK, q_BTK = (torch.where(there_BTK, log.exp(), 0.0) for log in (log_p_BTK, log_q_BTK))
        tail_p_BT1, tail_q_BT1 = ((1 - x.sum(-1, keepdim=True)).clamp(min=LEAST_TAIL) for x in (p_BTK, q_BTK))
        log_p_BTL, log_q_BTL = (
            torch.cat([log, tail.log()], -1) for log, tail in ((log_p_BTK, tail_p_BT1), (log_q_BTK, tail_q_BT1))
        )
        mass_BTL = torch.cat([q_BTK, tail_q_BT1], -1) * weight(log_p_BTL, log_q_BTL)
        alpha_BT1 = mass_BTL[..., -1:] / tail_p_BT1
        coefficient_BTK = torch.where(there_BTK, mass_BTL[..., :-1] - alpha_BT1 * p_BTK, 0.0)
    return batch.advantages_B[:, None] * (coefficient_BTK * log_p_BTK).sum(-1)


CENTERINGS: Mapping[str, Callable[[Batch, Weight], Tensor] | None] = {"none": None, "score": score}
