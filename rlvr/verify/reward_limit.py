"""Limit on the size of rewards, so that no sum of them overflows: one rule for verifiers, samplers and files.

A reward beyond the limit is the verdict `error`. What a verifier or a sampler gives is held to `verifier.max_reward`
(`--max-reward`), and so is what a run learns from; scores that are only read are held to the largest such limit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeVar

from rlvr.errors import DataError
from rlvr.record.schema import Status, Verdict

MAX_REWARD, LARGEST_MAX_REWARD = 1e6, 1e100
"""Default of the limit, and the largest limit that may be set."""

V = TypeVar("V", bound=Verdict)

_STATUSES = frozenset(status.value for status in Status)


def limited(verdict: V, limit: float = LARGEST_MAX_REWARD) -> V:
    """Return the verdict, or an `error` if its reward or a part's is larger than the limit."""
    if verdict.parts is None and (verdict.reward is None or abs(verdict.reward) <= limit):  # nearly every verdict
        return verdict
    for reward in [verdict.reward, *(part.reward for part in (verdict.parts or {}).values())]:
        if reward is not None and abs(reward) > limit:
            reason = f"a reward of {reward:g}, beyond the limit of ±{limit:g} (max_reward)"
            return verdict.model_copy(update={"status": Status.ERROR, "reward": None, "reason": reason, "parts": None})
    return verdict


def stored_verdict(score: Mapping[str, Any], where: str) -> tuple[str, Status, float | None]:
    """Return verifier, status and reward of a score as a file holds it.

    Raises DataError if it has no verifier or status, or if not exactly the status `graded` has a finite reward.
    """
    name, status, given = score.get("verifier"), score.get("status"), score.get("reward")
    if not isinstance(name, str) or not isinstance(status, str) or status not in _STATUSES:
        raise DataError(f"{where}: a score with verifier {name!r} and status {status!r}, which is not valid")
    reward = _number(given)
    if (given is not None and reward is None) or (status == Status.GRADED.value) != (given is not None):
        raise DataError(f"{where}: a score by {name!r} is {status} with the reward {given!r:.40}")
    if reward is not None and abs(reward) > LARGEST_MAX_REWARD:
        return name, Status.ERROR, None
    return name, Status(status), reward


def _number(reward: Any) -> float | None:
    """Return a finite number; None for anything else."""
    try:
        number = float(reward) if isinstance(reward, int | float) and not isinstance(reward, bool) else math.nan
    except OverflowError:  # an integer that no float holds
        return None
    return number if math.isfinite(number) else None
