"""Batches of groups, and where they come from.

A `GroupSource` gives the groups of one batch after the other. `run.fresh` samples them, `run.saved` reads them from
files; `Mixed` and `run.replay` wrap a source and add groups of their own. The groups depend on the source's state, the
step and the files on disk, and on nothing else, so a resumed run draws the same ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Protocol

from rlvr.protocols import Group
from rlvr.record.schema import GroupStats, Rollout, Score, Status
from rlvr.verify.scoring import training_reward


@dataclass(frozen=True)
class Drawn:
    """One batch."""

    groups: tuple[Group, ...]
    """What the trainer learns from."""
    rollouts: tuple[Rollout, ...]
    """What the batch's metrics are of: all that was sampled for it; where nothing was, all that is learnt from."""
    metrics: Mapping[str, float] = field(default_factory=dict)


class GroupSource(Protocol):
    """Where batches come from."""

    def draw(self, step: int, size: int, version: int) -> Drawn:
        """The batch of a step: at most `size` groups for a trainer at `version`, and a step further on."""

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of the source, as JSON has it."""

    def seek(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""


class Mixed:
    """Some groups of every batch from one source, the others from another.

    Where the first has fewer than it should give, the other gives more.
    """

    def __init__(self, some: GroupSource, number: int, others: GroupSource) -> None:
        self._some, self._number, self._others = some, number, others

    def draw(self, step: int, size: int, version: int) -> Drawn:
        """The others first, and their rollouts are what the metrics are of."""
        some = self._some.draw(step, self._number, version)
        others = self._others.draw(step, size - len(some.groups), version)
        return Drawn(others.groups + some.groups, others.rollouts, {**some.metrics, **others.metrics})

    def state(self) -> dict[str, Any]:
        """Of both."""
        return {"some": self._some.state(), "others": self._others.state()}

    def seek(self, state: Mapping[str, Any]) -> None:
        """Both go on."""
        self._some.seek(state["some"])
        self._others.seek(state["others"])


def by_group(rollouts: Iterable[Rollout]) -> Iterator[list[Rollout]]:
    """Consecutive rollouts of one group."""
    return (list(members) for _, members in groupby(rollouts, key=lambda rollout: rollout.group_id))


@dataclass(frozen=True)
class Grader:
    """Which score is the reward, and what a group of scored rollouts is to a trainer."""

    verifier: str
    """The last score of this name counts."""
    rewards: Mapping[Status, float | None]
    """What a verdict without a reward counts as; None drops the rollout."""
    single_version: bool = False
    """No group that more than one policy version sampled (arXiv 2505.22257 has one α a group)."""

    def score(self, rollout: Rollout) -> Score:
        """The score that counts; there is one."""
        score = rollout.last_score(self.verifier)
        assert score is not None
        return score

    def reward(self, rollout: Rollout) -> float | None:
        """None where the rollout is not learnt from."""
        return training_reward(self.score(rollout), self.rewards)

    def stats(self, members: Sequence[Rollout]) -> GroupStats | None:
        """Statistics of the rewards of the whole group; None where no member has a reward.

        They are those of the members that are here. Where some are missing, and the score is the one that the group was
        sampled with, those that were frozen then.
        """
        # Several sequences of one rollout share its reward.
        rewards = {rollout.id: self.reward(rollout) for rollout in members}
        frozen, sampled = members[0].group_stats, members[0].group_size or 0
        if (
            frozen is not None
            and len(rewards) < max(sampled, frozen.count)
            and all(rollout.scores[0] is self.score(rollout) for rollout in members)
        ):
            return frozen
        return stats_of(rewards.values())

    def group(self, members: Sequence[Rollout]) -> Group | None:
        """The members with a reward; None where there are none, or where the group is not of one version but must be.

        Raises ValueError for no members.
        """
        stats = self.stats(members)
        if stats is None or (self.single_version and not of_one_version(members)):
            return None
        rewarded = [(rollout, reward) for rollout in members if (reward := self.reward(rollout)) is not None]
        if not rewarded:
            return None
        kept, rewards = zip(*rewarded, strict=True)
        return Group(kept, rewards, stats)

    def groups(self, rollouts: Iterable[Rollout]) -> list[Group]:
        """Of consecutive rollouts, by the prompt that they answer."""
        return [group for members in by_group(rollouts) if (group := self.group(members)) is not None]

    def mixed(self, groups: Iterable[Sequence[Rollout]]) -> dict[str, float]:
        """The metric that counts what `single_version` left out; empty where it is off."""
        if not self.single_version:
            return {}
        return {"groups/mixed_versions": float(sum(not of_one_version(members) for members in groups))}


def stats_of(rewards: Iterable[float | None]) -> GroupStats | None:
    """Of a group whose members have these rewards; None where no member has one."""
    kept = [reward for reward in rewards if reward is not None]
    return GroupStats.of(kept) if kept else None


def of_one_version(members: Iterable[Rollout]) -> bool:
    """Whether one policy sampled every token: one version, or the one model that log-probabilities were recomputed
    with. What is unknown is not known to be one."""
    policies: set[Any] = set()
    for rollout in members:
        if rollout.recomputed_by is not None:
            policies.add(rollout.recomputed_by)
        else:
            policies |= {run.version for run in rollout.policy_versions or ()} or {None}
    return len(policies) == 1 and None not in policies


def verdict_shares(scores: Sequence[Score]) -> dict[str, float]:
    """verdict/STATUS → the share of verdicts that ended so; empty where there are none."""
    found = [score.status for score in scores]
    return {f"verdict/{status.value}": found.count(status) / len(found) for status in Status if found}
