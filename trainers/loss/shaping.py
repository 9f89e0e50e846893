"""Reward shaping, applied before a group's statistics are computed. The record keeps the verifier's reward."""

from __future__ import annotations

from rlvr.errors import RunError
from rlvr.protocols import Group
from rlvr.record.schema import GroupStats


def overlong_penalty(length: int, limit: int, buffer: float) -> float:
    """Return the soft overlong punishment (DAPO, arXiv 2503.14476, eq. 13).

    It is 0 up to `limit` - L_cache tokens and falls linearly to -1 at `limit`, with L_cache = `buffer` · `limit`. The
    paper's L_cache is 4,096 of 20,480 tokens: a buffer of 0.2.
    """
    cache = buffer * limit
    return max(-1.0, min(0.0, (limit - cache - length) / cache))


def shape_overlong(group: Group, buffer: float) -> Group:
    """Return the group with `overlong_penalty` added to each reward, and the statistics of the sums.

    The limit is the recorded `sampling.max_tokens`. The statistics cover the rollouts that remain in the group, because
    the lengths of the others are unknown. Raises RunError for a rollout whose record has no limit.
    """
    rewards = []
    for rollout, reward in zip(group.rollouts, group.rewards, strict=True):
        limit = rollout.sampling.max_tokens if rollout.sampling is not None else None
        if limit is None:
            raise RunError(f"rollout {rollout.id}: no sampling.max_tokens, which trainer.overlong_buffer needs")
        rewards.append(reward + overlong_penalty(rollout.sampled_tokens, limit, buffer))
    return Group(group.rollouts, tuple(rewards), GroupStats.of(rewards))
