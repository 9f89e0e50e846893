"""Batches of groups, and their sources.

A `GroupSource` returns the groups of one batch after the other. `run.fresh` samples them, `run.saved` reads them from
files; `Mixed` and `run.replay` wrap a source and add groups of their own. Groups depend only on the source's state, the
step and the files on disk, so a resumed run draws the same ones.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Protocol

from rlvr.protocols import Group, RewardPart
from rlvr.record.schema import GroupStats, Rollout, Score, Status
from rlvr.verify.composition import weights_of
from rlvr.verify.reward_limit import MAX_REWARD, limited
from rlvr.verify.scoring import training_reward

MOST_PARTS = 16
"""Parts of a verdict that get metrics of their own, at most."""


@dataclass(frozen=True)
class Drawn:
    """One batch."""

    groups: tuple[Group, ...]
    """Groups that the trainer learns from."""
    rollouts: tuple[Rollout, ...]
    """Rollouts that the metrics describe: all that were sampled for the batch, or else all that are trained on."""
    metrics: Mapping[str, float] = field(default_factory=dict)


class GroupSource(Protocol):
    """A source of batches."""

    def draw(self, step: int, size: int, version: int) -> Drawn:
        """Return the batch of a step, at most `size` groups for a trainer at `version`, and move on."""

    def state(self) -> dict[str, Any]:
        """Return the state that a checkpoint keeps, as JSON values."""

    def seek(self, state: Mapping[str, Any]) -> None:
        """Continue from a state that `state` returned."""


class Mixed:
    """Mixes two sources: `number` groups of every batch come from the first, the rest from the second.

    If the first has fewer, the second gives more.
    """

    def __init__(self, some: GroupSource, number: int, others: GroupSource) -> None:
        self._some, self._number, self._others = some, number, others

    def draw(self, step: int, size: int, version: int) -> Drawn:
        """Return the second source's groups, then the first's. Metrics describe the second source's rollouts."""
        some = self._some.draw(step, self._number, version)
        others = self._others.draw(step, size - len(some.groups), version)
        return Drawn(others.groups + some.groups, others.rollouts, {**some.metrics, **others.metrics})

    def state(self) -> dict[str, Any]:
        """Return the states of both."""
        return {"some": self._some.state(), "others": self._others.state()}

    def seek(self, state: Mapping[str, Any]) -> None:
        """Continue both."""
        self._some.seek(state["some"])
        self._others.seek(state["others"])


def by_group(rollouts: Iterable[Rollout]) -> Iterator[list[Rollout]]:
    """Yield lists of consecutive rollouts of one group."""
    return (list(members) for _, members in groupby(rollouts, key=lambda rollout: rollout.group_id))


@dataclass(frozen=True)
class Grader:
    """Selects the score that is the reward, and makes training groups of scored rollouts."""

    verifier: str
    """Name of the verifier; its last score counts."""
    rewards: Mapping[Status, float | None]
    """Reward for each status without one; None drops the rollout."""
    max_reward: float = MAX_REWARD
    """Size of a reward beyond which a score counts as an `error`, whoever gave it."""
    single_version: bool = False
    """Leave out groups that more than one policy version sampled (arXiv 2505.22257 has one α per group)."""

    def score(self, rollout: Rollout) -> Score:
        """Return the score that counts; the rollout must have one."""
        score = rollout.last_score(self.verifier)
        assert score is not None
        return limited(score, self.max_reward)

    def reward(self, rollout: Rollout) -> float | None:
        """Return the training reward; None if the rollout is dropped."""
        return training_reward(self.score(rollout), self.rewards)

    def stats(self, members: Sequence[Rollout]) -> GroupStats | None:
        """Return the statistics of the whole group's rewards; None if no member has a reward.

        They are computed from the members that are present. If some are missing, and the score is the one that the
        group was sampled with, the statistics stored in the record are returned instead, unless they exceed the limit.
        """
        # Several sequences of one rollout share its reward.
        rewards = {rollout.id: self.reward(rollout) for rollout in members}
        frozen, sampled = members[0].group_stats, members[0].group_size or 0
        if (
            frozen is not None
            and max(abs(frozen.mean), frozen.std) <= self.max_reward
            and len(rewards) < max(sampled, frozen.count)
            and all(rollout.scores[0] is self.score(rollout) for rollout in members)
        ):
            return frozen
        return stats_of(rewards.values())

    def group(self, members: Sequence[Rollout]) -> Group | None:
        """Return the members with a reward; None if there are none, or if `single_version` excludes the group.

        Raises ValueError if there are no members.
        """
        stats = self.stats(members)
        if stats is None or (self.single_version and not of_one_version(members)):
            return None
        rewarded = [(rollout, reward) for rollout in members if (reward := self.reward(rollout)) is not None]
        if not rewarded:
            return None
        kept, rewards = zip(*rewarded, strict=True)
        return Group(kept, rewards, stats, reward_parts([self.score(rollout) for rollout in kept]))

    def groups(self, rollouts: Iterable[Rollout]) -> list[Group]:
        """Return the training groups of consecutive rollouts."""
        return [group for members in by_group(rollouts) if (group := self.group(members)) is not None]

    def mixed(self, groups: Iterable[Sequence[Rollout]]) -> dict[str, float]:
        """Return the number of groups that `single_version` leaves out, as a metric; empty if it is off."""
        if not self.single_version:
            return {}
        return {"groups/mixed_versions": float(sum(not of_one_version(members) for members in groups))}


def reward_parts(scores: Sequence[Score]) -> tuple[RewardPart, ...]:
    """Return the parts of rewards that are weighted sums; empty if any is not. `unparsed` is 0."""
    weights = [weights_of(score.config) for score in scores]
    if not weights or not weights[0] or any(each != weights[0] for each in weights):
        return ()
    rows = [score.parts or {} for score in scores]
    if any(name not in row for row in rows for name in weights[0]):
        return ()
    return tuple(
        RewardPart(name, weight, tuple(row[name].reward or 0.0 for row in rows)) for name, weight in weights[0].items()
    )


def stats_of(rewards: Iterable[float | None]) -> GroupStats | None:
    """Return the statistics of the rewards that are not None; None if all are."""
    kept = [reward for reward in rewards if reward is not None]
    return GroupStats.of(kept) if kept else None


def of_one_version(members: Iterable[Rollout]) -> bool:
    """Return True if one policy is known to have sampled every token.

    That is one version, or the one model that log-probabilities were recomputed with.
    """
    policies: set[Any] = set()
    for rollout in members:
        if rollout.recomputed_by is not None:
            policies.add(rollout.recomputed_by)
        else:
            policies |= {run.version for run in rollout.policy_versions or ()} or {None}
    return len(policies) == 1 and None not in policies


def part_metrics(scores: Sequence[Score]) -> dict[str, float]:
    """Return `part/NAME/reward` and `part/NAME/share` of the verdicts' parts; empty if they have none.

    A verifier with more than `MOST_PARTS` parts, such as one a test case, gets no metrics of them.
    """
    found: dict[str, list[float]] = {}
    for score in scores:
        for name, part in (score.parts or {}).items():
            if part.status in (Status.GRADED, Status.UNPARSED):
                found.setdefault(re.sub(r"[^\w.-]", "-", name), []).append(part.reward or 0.0)
    if len(found) > MOST_PARTS:
        return {}
    means = {f"part/{name}/reward": math.fsum(rewards) / len(rewards) for name, rewards in sorted(found.items())}
    return means | {f"part/{name}/share": len(rewards) / len(scores) for name, rewards in sorted(found.items())}


def verdict_shares(scores: Sequence[Score]) -> dict[str, float]:
    """Return `verdict/STATUS` -> share of scores with that status; empty if there are no scores."""
    found = [score.status for score in scores]
    return {f"verdict/{status.value}": found.count(status) / len(found) for status in Status if found}
