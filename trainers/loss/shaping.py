"""Changes of the reward before a group's statistics are taken. The record keeps what the verifier gave."""

from __future__ import annotations

from rlvr.errors import RunError
from rlvr.protocols import Group
from rlvr.record.schema import GroupStats


def overlong_penalty(length: int, limit: int, buffer: float) -> float:
    """Soft overlong punishment (DAPO, arXiv 2503.14476, eq. 13): 0 up to `limit` - L_cache tokens, from there falling
    linearly to -1 at `limit`; L_cache = `buffer` · `limit`.

    The paper's L_cache is 4,096 of 20,480 tokens: a buffer of 0.2.
    """
    cache = buffer * limit
    return max(-1.0, min(0.0, (limit - cache - length) / cache))


def shape_overlong(group: Group, buffer: float) -> Group:
    """The group with `overlong_penalty` added to each reward, and the statistics of the sums.

    The limit is the one that the record says the rollout was sampled with. Statistics are those of the rollouts that
    the group still has: the lengths of others are unknown. Raises RunError for a rollout that does not say its limit.
    """
    rewards = []
    for rollout, reward in zip(group.rollouts, group.rewards, strict=True):
        limit = rollout.sampling.max_tokens if rollout.sampling is not None else None
        if limit is None:
            raise RunError(f"rollout {rollout.id}: no sampling.max_tokens, which trainer.overlong_buffer needs")
        rewards.append(reward + overlong_penalty(sum(rollout.loss_mask or ()), limit, buffer))
    return Group(group.rollouts, tuple(rewards), GroupStats.of(rewards))
