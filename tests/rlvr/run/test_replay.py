"""Replay of past groups, and refilling of groups without a signal."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import small_runs
from rlvr.protocols import Group, SampledGroup
from rlvr.record.schema import GroupStats, Rollout, Status, VersionRun
from rlvr.record.store import read_rollouts
from rlvr.run.config import ReplayConfig
from rlvr.run.groups import Drawn, Grader
from rlvr.run.plan import make_plan
from rlvr.run.replay import Held, Replay
from rlvr.run.rundir import RunDirectory
from rlvr.testing import FakeSampler, FakeSamplerOptions


class Nothing:
    """An empty source."""

    def draw(self, step: int, size: int, version: int) -> Drawn:
        return Drawn((), ())

    def state(self) -> dict[str, Any]:
        return {}

    def seek(self, state: Mapping[str, Any]) -> None:
        pass


def replay(held: list[Held], number: int = 1, seed: int = 0, **settings: Any) -> Replay:
    grader = Grader("digits", dict.fromkeys(Status))
    source = Replay(Nothing(), number, ReplayConfig(**settings), grader, None, seed)  # type: ignore[arg-type]
    source.seek({"held": [list(each) for each in held], "sampled": {}})
    return source


def test_a_group_is_drawn_half_as_often_for_every_half_life() -> None:
    """Two groups, one of them a half-life older, are drawn 2 to 1."""
    held = [Held(90, 0, 90), Held(80, 0, 80)]
    drawn = Counter(replay(held, seed=seed, half_life=10)._choose(100, 100)[0].step for seed in range(3000))
    assert drawn[90] / 3000 == pytest.approx(2 / 3, abs=0.03)


def test_none_is_drawn_twice_in_a_batch_and_the_draw_is_a_function_of_seed_and_step() -> None:
    held = [Held(step, place, step) for step in range(10) for place in range(3)]
    chosen = replay(held, number=12)._choose(10, 10)
    assert len(set(chosen)) == 12
    assert replay(list(reversed(held)), number=12)._choose(10, 10) == chosen
    assert replay(held, number=12)._choose(11, 10) != chosen
    assert replay(held, number=12, seed=1)._choose(10, 10) != chosen


def test_what_is_older_than_the_maximum_lag_is_not_drawn() -> None:
    held = [Held(step, 0, step) for step in range(10)]
    assert {each.version for each in replay(held, number=9, max_lag=3)._choose(10, 10)} == {7, 8, 9}


def test_a_very_old_group_can_still_be_drawn() -> None:
    assert replay([Held(0, 0, 0)], half_life=0.5)._choose(10**6, 10**6) == [Held(0, 0, 0)]


def test_the_newest_groups_with_a_signal_are_held() -> None:
    source = replay([], capacity=3)
    for step in range(4):
        groups = []
        for place, rewards in enumerate([(0.0, 1.0), (1.0, 1.0), (1.0, 0.0)]):
            members = tuple(
                Rollout(
                    id=f"{step}-{place}-{i}",
                    group_id=f"{step}-{place}",
                    prompt="1+1=",
                    token_ids=(5, 6),
                    loss_mask=(False, True),
                    policy_versions=(VersionRun(version=10 * step + i, count=1),),
                )
                for i in range(2)
            )
            groups.append(Group(members, rewards, GroupStats.of(rewards)))
        rollouts = tuple(rollout for group in groups for rollout in group.rollouts)
        source._remember(step, Drawn(tuple(groups), rollouts))
    assert source._held == [Held(2, 2, 20), Held(3, 0, 30), Held(3, 2, 30)]


def test_past_groups_with_a_signal_come_back_and_the_memory_is_bounded(tiny_model: Path, tmp_path: Path) -> None:
    changes = {"verifier": f"{small_runs.REWARDS}:begins", "replay__share": 0.34, "replay__capacity": 4, "steps": 8}
    small_runs.start(small_runs.small_config(tiny_model, eval__questions=0, **changes), tmp_path / "run")
    lines = small_runs.metrics_of(tmp_path / "run")
    assert lines[0]["replay/groups"] == 0
    assert max(line["replay/held"] for line in lines) == 4
    for line in lines:
        sampled = list(read_rollouts(tmp_path / "run" / "rollouts" / f"step-{line['step']:06d}.parquet"))
        assert len(sampled) == 4 * (3 - line["replay/groups"]), "what is not replayed is sampled"
        assert line["replay/groups"] == 0 or line["lag/max"] >= 1
        assert ("replay/age" in line) == (line["replay/groups"] > 0)


def test_refilling_trains_on_full_batches_with_a_signal_and_stores_all(tiny_model: Path, tmp_path: Path) -> None:
    changes = {"verifier": f"{small_runs.REWARDS}:begins", "sampling__refill": True, "sampling__refill_rounds": 20}
    small_runs.start(small_runs.small_config(tiny_model, eval__questions=0, **changes), tmp_path / "run")
    lines = small_runs.metrics_of(tmp_path / "run")
    assert {line["signal/groups"] for line in lines} == {1.0}
    assert max(line["refill/rounds"] for line in lines) >= 1
    asked: set[str] = set()
    for line in lines:
        sampled = list(read_rollouts(tmp_path / "run" / "rollouts" / f"step-{line['step']:06d}.parquet"))
        groups = {rollout.group_id: rollout.group_stats for rollout in sampled}
        assert len(groups) == 3 + line["refill/groups"]
        assert sum(stats is not None and stats.std > 0 for stats in groups.values()) == 3, "the batch is full"
        rewards = [rollout.scores[0].reward or 0.0 for rollout in sampled]
        assert line["reward/mean"] == pytest.approx(sum(rewards) / len(rewards)), "of all, not of the kept"
        asked |= {rollout.task.row_id or "" for rollout in sampled}
    assert len(asked) > 18, "further prompts take their place, not the same again"


class Aborting(FakeSampler):
    """Loses every completion of some prompts, as an engine that is restarted may: of all that the second step asks."""

    def collect(self, timeout: float | None = None) -> list[SampledGroup]:
        return [replace(group, samples=()) if self._loses(group) else group for group in super().collect(timeout)]

    def _loses(self, group: SampledGroup) -> bool:
        if "-eval-" in group.request.group_id:
            return False
        position = int(group.request.group_id.rpartition("-")[2])
        return position % 3 == 1 or 3 <= position < 24


def test_requests_of_which_nothing_comes_back_cost_themselves_and_are_remembered(
    tiny_model: Path, tmp_path: Path
) -> None:
    """With refilling, where a batch that is read back must fill the same rounds."""
    config = small_runs.small_config(
        tiny_model,
        verifier=f"{small_runs.REWARDS}:begins",
        sampling__refill=True,
        steps=4,
        checkpoint__every=2,
        **small_runs.FAKE,
    )
    path = tmp_path / "run"

    def run(directory: RunDirectory) -> None:
        with make_plan(config) as plan, directory:
            plan.sampler, plan.sampler_options = Aborting, FakeSamplerOptions()
            assert small_runs.Run(plan, directory, small_runs.Silent()).train().finished

    with make_plan(config) as plan:
        directory = RunDirectory.create(path, plan.config)
    run(directory)
    lines, end = small_runs.timeless(path), small_runs.final_state(path)
    assert [line["policy_version"] for line in lines] == [1, 1, 2, 3]
    assert lines[1]["reward/mean"] is None
    assert not list(read_rollouts(path / "rollouts" / "step-000001.parquet"))
    shutil.rmtree(path / "checkpoints" / "step-000004")
    run(RunDirectory.resume(path))
    assert (small_runs.timeless(path), small_runs.final_state(path)) == (lines, end)


def test_refilling_stops_at_its_bound_and_a_short_batch_trains(tiny_model: Path, tmp_path: Path) -> None:
    changes = {
        "verifier": f"{small_runs.REWARDS}:mute",
        "sampling__refill": True,
        "sampling__refill_rounds": 2,
        "steps": 1,
    }
    small_runs.start(small_runs.small_config(tiny_model, eval__questions=0, **changes), tmp_path / "run")
    (line,) = small_runs.metrics_of(tmp_path / "run")
    assert (line["refill/rounds"], line["refill/groups"], line["policy_version"]) == (2, 6, 0)
