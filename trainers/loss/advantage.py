"""Advantages: how much better a completion did than its group. `ADVANTAGES` maps the values of `trainer.advantage`.

Each function takes a group's rewards and the group's statistics when it was sampled. Its other parameters are trainer
options of the same name. Shapes: G = rollouts of one group.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from rlvr.protocols import RewardPart
from rlvr.record.schema import GroupStats


def whiten(rewards_G: Sequence[float], stats: GroupStats, advantage_epsilon: float) -> list[float]:
    """A_α = (r - μ_α) / sqrt(σ_α² + ε), with the behavior policy's own statistics (arXiv 2505.22257, §3.1).

    μ_α and σ_α are the statistics at sampling time, so a group that has lost members is still whitened with those of
    the behavior policy. σ is the population standard deviation. Deviation from TRL, which divides by Bessel's σ + 1e-4:
    multiply its advantages by (σ·sqrt(G/(G-1)) + 1e-4) / sqrt(σ² + ε) to get these.
    """
    return stats.whiten(rewards_G, advantage_epsilon)


def whiten_parts(parts: Sequence[RewardPart], advantage_epsilon: float) -> list[float]:
    """A = Σ_k w_k · (r_k - μ_k) / sqrt(σ_k² + ε): every part is whitened by itself (GDPO, arXiv 2601.05242).

    Rewards whose sums are equal keep different advantages. μ_k and σ_k are those of the rollouts that remain in the
    group, because only the statistics of the sums are recorded at sampling time. Deviation from the paper: no further
    normalization over the batch.
    """
    weighted = [
        [part.weight * advantage for advantage in GroupStats.of(part.rewards).whiten(part.rewards, advantage_epsilon)]
        for part in parts
    ]
    return [math.fsum(column) for column in zip(*weighted, strict=True)]


def centered(rewards_G: Sequence[float], stats: GroupStats) -> list[float]:
    """A = r - μ_α: no division by σ, which would weight questions by difficulty (Dr. GRPO, arXiv 2503.20783, §3.2)."""
    return [reward - stats.mean for reward in rewards_G]


def opmd(rewards_G: Sequence[float], stats: GroupStats, tau: float) -> list[float]:
    """A = r - τ log mean exp(r/τ): the baseline of online policy mirror descent, τ log Z (arXiv 2501.12599, §2.3.2).

    The baseline lies between the mean (τ → ∞) and the maximum (τ → 0), so advantages sum to at most 0. Z is estimated
    on the rollouts that remain in the group, because the mean and deviation at sampling time do not determine it.
    """
    peak = max(rewards_G)
    partition = math.fsum(math.exp((reward - peak) / tau) for reward in rewards_G) / len(rewards_G)
    return [reward - peak - tau * math.log(partition) for reward in rewards_G]


def raw(rewards_G: Sequence[float], stats: GroupStats) -> list[float]:
    """A = r: REINFORCE without a baseline."""
    return list(rewards_G)


ADVANTAGES: Mapping[str, Callable[..., list[float]]] = {
    "whitened": whiten,
    "centered": centered,
    "opmd": opmd,
    "raw": raw,
}
