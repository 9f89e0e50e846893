"""Training groups of scored rollouts, and batches from two sources."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from rlvr.protocols import Group, RewardPart
from rlvr.record.schema import GroupStats, ModelRef, Rollout, Score, Status, Verdict, VersionRun
from rlvr.run.groups import Drawn, Grader, Mixed, of_one_version
from rlvr.verify.scoring import DEFAULT_REWARDS

GRADER = Grader("math", DEFAULT_REWARDS)


def rollout(name: str, *scores: Score, **changes: Any) -> Rollout:
    return Rollout(**{"id": name, "group_id": name[0], "prompt": "1+1=", "scores": scores, **changes})


def score(reward: float | None, verifier: str = "math") -> Score:
    status = Status.UNPARSED if reward is None else Status.GRADED
    return Score(status=status, reward=reward, verifier=verifier, version="1")


def test_frozen_statistics_count_only_where_every_score_is_the_one_that_was_sampled_with() -> None:
    frozen = GroupStats(mean=0.25, std=0.4, count=8)
    first = rollout("a0", score(1.0), group_stats=frozen)
    assert GRADER.stats([first, rollout("a1", score(0.0), group_stats=frozen)]) == frozen
    later = rollout("a1", score(0.0), score(1.0), group_stats=frozen)
    assert GRADER.stats([first, later]) == GroupStats(mean=1.0, std=0.0, count=2)
    other = rollout("a1", score(0.0, "strict"), score(0.0), group_stats=frozen)
    assert GRADER.stats([first, other]) == GroupStats(mean=0.5, std=0.5, count=2)


def test_a_group_that_is_whole_is_measured_by_the_rewards_that_it_has_now() -> None:
    """Statistics in the record may be those of other rewards, if another policy for verdicts without a reward was
    used."""
    frozen = GroupStats(mean=0.0, std=0.0, count=2)
    members = [rollout(f"a{i}", score(r), group_stats=frozen, group_size=2) for i, r in enumerate((0.0, None))]
    assert GRADER.stats(members) == frozen
    harsh = Grader("math", {**DEFAULT_REWARDS, Status.UNPARSED: -1.0})
    assert harsh.group(members) == Group(tuple(members), (0.0, -1.0), GroupStats(mean=-0.5, std=0.5, count=2))
    assert harsh.stats(members[:1]) == frozen
    lone = [member.model_copy(update={"group_size": None}) for member in members]
    assert harsh.stats(lone) == GroupStats(mean=-0.5, std=0.5, count=2)
    assert harsh.stats(lone[:1]) == frozen


def test_several_sequences_of_one_rollout_count_once() -> None:
    members = [rollout("a0", score(1.0)), rollout("a0", score(1.0), segment=1), rollout("a1", score(0.0))]
    group = GRADER.group(members)
    assert group is not None
    assert group.stats == GroupStats(mean=0.5, std=0.5, count=2)
    assert group.rewards == (1.0, 1.0, 0.0)


def test_a_weighted_sum_has_parts_in_its_group() -> None:
    def composed(answer: float, form: float | None, clip: bool = False) -> Score:
        form_status = Status.UNPARSED if form is None else Status.GRADED
        config = {"composition": {"sum": {"answer": {"weight": 1.0}, "form": {"weight": 0.5}}}}
        config["composition"] |= {"clip": [0, 1]} if clip else {}
        parts = {
            "answer": Verdict(status=Status.GRADED, reward=answer),
            "form": Verdict(status=form_status, reward=form),
            "form.box": Verdict(status=form_status, reward=form),
        }
        return score(answer + 0.5 * (form or 0.0)).model_copy(update={"config": config, "parts": parts})

    group = GRADER.group([rollout("a0", composed(1.0, 0.0)), rollout("a1", composed(0.0, None))])
    assert group is not None
    assert group.parts == (RewardPart("answer", 1.0, (1.0, 0.0)), RewardPart("form", 0.5, (0.0, 0.0)))
    for other in (composed(1.0, 1.0, clip=True), score(1.0)):
        group = GRADER.group([rollout("a0", composed(1.0, 0.0)), rollout("a1", other)])
        assert group is not None
        assert group.parts == ()


def test_a_status_counts_as_the_policy_says() -> None:
    members = [rollout("a0", score(1.0)), rollout("a1", score(None))]
    group = GRADER.group(members)
    assert group is not None
    assert group.rewards == (1.0, 0.0)
    dropping = Grader("math", {**DEFAULT_REWARDS, Status.UNPARSED: None})
    assert dropping.group(members) == Group((members[0],), (1.0,), GroupStats.of([1.0]))
    assert dropping.group(members[1:]) is None


@pytest.mark.parametrize("reward", [1e7, -1e300, 1.7e308])
def test_a_reward_beyond_the_limit_counts_as_an_error_whoever_gave_it(reward: float) -> None:
    members = [rollout("a0", score(reward)), rollout("a1", score(1.0)), rollout("a2", score(0.0))]
    group = GRADER.group(members)
    assert group is not None
    assert group.rewards == (1.0, 0.0)
    assert GRADER.score(members[0]).status is Status.ERROR
    harsh = Grader("math", {**DEFAULT_REWARDS, Status.ERROR: -1.0})
    assert harsh.reward(members[0]) == -1.0
    assert Grader("math", DEFAULT_REWARDS, max_reward=1e100).reward(members[0]) == (reward if reward == 1e7 else None)


def test_frozen_statistics_beyond_the_limit_are_computed_anew() -> None:
    frozen = GroupStats(mean=1e300, std=1e300, count=8)
    assert GRADER.stats([rollout("a0", score(1.0), group_stats=frozen)]) == GroupStats(mean=1.0, std=0.0, count=1)


TOKENS = {"token_ids": (1, 2, 3), "loss_mask": (False, True, True)}
OLD = TOKENS | {"policy_versions": (VersionRun(version=1, count=2),)}
SWAPPED = TOKENS | {"policy_versions": (VersionRun(version=1, count=1), VersionRun(version=2, count=1))}
THEIRS = OLD | {"recomputed_by": ModelRef(name="theirs")}


@pytest.mark.parametrize(
    ("members", "one"),
    [
        ([OLD, OLD], True),
        ([OLD, SWAPPED], False),
        ([OLD, OLD | {"policy_versions": (VersionRun(version=2, count=2),)}], False),
        ([OLD, TOKENS], False),
        ([TOKENS, TOKENS], False),
        ([THEIRS, THEIRS], True),
        ([THEIRS, OLD], False),
    ],
)
def test_one_version_is_known_to_be_one(members: list[dict[str, Any]], one: bool) -> None:
    rollouts = [rollout(f"a{i}", score(float(i)), **changes) for i, changes in enumerate(members)]
    assert of_one_version(rollouts) == one
    strict = Grader("math", DEFAULT_REWARDS, single_version=True)
    assert (strict.group(rollouts) is not None) == one
    assert strict.mixed([rollouts]) == {"groups/mixed_versions": float(not one)}
    assert GRADER.group(rollouts) is not None
    assert GRADER.mixed([rollouts]) == {}


class Numbered:
    """A source with a given number of groups."""

    def __init__(self, name: str, left: int) -> None:
        self.name, self.left = name, left

    def draw(self, step: int, size: int, version: int) -> Drawn:
        size = min(size, self.left)
        self.left -= size
        members = [rollout(self.name, score(1.0)) for _ in range(size)]
        groups = tuple(Group((each,), (1.0,), GroupStats.of([1.0])) for each in members)
        return Drawn(groups, tuple(members), {self.name: float(size)})

    def state(self) -> dict[str, Any]:
        return {"left": self.left}

    def seek(self, state: Mapping[str, Any]) -> None:
        self.left = state["left"]


def test_what_one_source_lacks_the_other_gives() -> None:
    mixed = Mixed(Numbered("saved", 3), 2, Numbered("fresh", 100))
    state = mixed.state()
    for _ in range(2):
        drawn = [mixed.draw(step, 5, 0) for step in range(3)]
        assert [each.metrics for each in drawn] == [
            {"saved": 2, "fresh": 3},
            {"saved": 1, "fresh": 4},
            {"saved": 0, "fresh": 5},
        ]
        assert all(len(each.groups) == 5 for each in drawn)
        assert {r.id for each in drawn for r in each.rollouts} == {"fresh"}, "the metrics are of what was sampled"
        mixed.seek(state)
