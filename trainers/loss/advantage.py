"""Advantages: how much better a completion did than its group; `ADVANTAGES` by the names of `trainer.advantage`.

Each is a function of a group's rewards and of the statistics that its behaviour policy had; the rest of its parameters
are trainer options of the same name. Shapes: G = rollouts of one group.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from rlvr.record.schema import GroupStats


def whiten(rewards_G: Sequence[float], behaviour: GroupStats, advantage_epsilon: float) -> list[float]:
    """A_α = (r - μ_α) / sqrt(σ_α² + ε), with the behaviour policy's own statistics (arXiv 2505.22257, §3.1).

    μ_α and σ_α are the group's as it was sampled, so a group that lost members since is still whitened by what the
    behaviour policy did. σ is the population's. TRL divides by Bessel's σ + 1e-4 instead: its advantages become these
    when they are multiplied by (σ·sqrt(G/(G-1)) + 1e-4) / sqrt(σ² + ε).
    """
    scale = 1.0 / math.sqrt(behaviour.std**2 + advantage_epsilon) if behaviour.std > 0 else 0.0
    return [(reward - behaviour.mean) * scale for reward in rewards_G]


def centered(rewards_G: Sequence[float], behaviour: GroupStats) -> list[float]:
    """A = r - μ_α: no division by the deviation, which weighs questions by their difficulty (Dr. GRPO, 2503.20783)."""
    return [reward - behaviour.mean for reward in rewards_G]


def opmd(rewards_G: Sequence[float], behaviour: GroupStats, tau: float) -> list[float]:
    """A = r - τ log mean exp(r/τ): the baseline of online policy mirror descent, τ log Z (arXiv 2501.12599, §2.3.2).

    The baseline lies between the mean (τ → ∞) and the maximum (τ → 0), so advantages sum to at most 0. Z is estimated
    on the rollouts that are left of the group: a mean and a deviation do not determine it.
    """
    peak = max(rewards_G)
    partition = math.fsum(math.exp((reward - peak) / tau) for reward in rewards_G) / len(rewards_G)
    return [reward - peak - tau * math.log(partition) for reward in rewards_G]


def raw(rewards_G: Sequence[float], behaviour: GroupStats) -> list[float]:
    """A = r: REINFORCE without a baseline."""
    return list(rewards_G)


ADVANTAGES: Mapping[str, Callable[..., list[float]]] = {
    "whitened": whiten,
    "centered": centered,
    "opmd": opmd,
    "raw": raw,
}
