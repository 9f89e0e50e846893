"""`sampling.max_lag`: groups are learned from as they finish, and old ones are dropped and counted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import small_runs
from rlvr.errors import ConfigError
from rlvr.protocols import GroupRequest, Prompt, SampledGroup
from rlvr.record.schema import SamplingParams, Task
from rlvr.record.store import read_rollouts
from rlvr.run.fresh import lengths
from rlvr.run.loop import Run
from rlvr.run.plan import Plan, make_plan
from rlvr.run.rundir import RunDirectory
from rlvr.testing import FakeSampler, FakeSamplerOptions


class Slow(FakeSampler):
    """Finishes some groups only after a number of others; samples with the weights of the time of the request."""

    waits = {"1": 11, "4": 5}  # noqa: RUF012
    """Position -> groups that finish between the request and its answer."""

    def __init__(self, *arguments: Any) -> None:
        """Begin with nothing asked for."""
        super().__init__(*arguments)
        self._left: dict[str, int] = {}
        self._asked_at: dict[str, int] = {}

    def submit(self, requests: Sequence[GroupRequest]) -> None:
        """Queue the requests and note the version."""
        super().submit(requests)
        self._left |= {name: self.waits.get(name.rpartition("-")[2], 0) for name in (r.group_id for r in requests)}
        self._asked_at |= {request.group_id: self.version for request in requests}

    def collect(self, timeout: float | None = None) -> list[SampledGroup]:
        """Return one group."""
        self._requests.sort(key=lambda request: self._left[request.group_id])
        groups = super().collect(timeout)
        self._left = {name: left - len(groups) for name, left in self._left.items()}
        return groups

    def _answer(self, request: GroupRequest) -> SampledGroup:
        now, self.version = self.version, self._asked_at[request.group_id]
        try:
            return super()._answer(request)
        finally:
            self.version = now


def config(model: Path, **changes: Any) -> small_runs.RunConfig:
    given = {"mode": "async", "trainer": "grpo-off", "trainer__push_every": 1, "eval__questions": 0, **small_runs.FAKE}
    return small_runs.small_config(model, **{**given, "sampling__max_lag": 2, "steps": 5, **changes})


def faked(plan: Plan) -> Plan:
    return replace(plan, sampler=Slow, sampler_options=FakeSamplerOptions(per_collect=1))


def learned(path: Path) -> list[list[int]]:
    """Positions of the prompts that each step learned from."""
    files = sorted((path / "rollouts").glob("*.parquet"))
    names = [dict.fromkeys(rollout.group_id or "" for rollout in read_rollouts(file)) for file in files]
    return [[int(name.rpartition("-")[2]) for name in each] for each in names]


def test_a_slow_group_is_learned_from_later_and_a_slower_one_is_dropped(tiny_model: Path, tmp_path: Path) -> None:
    settings = config(tiny_model)
    with make_plan(settings) as plan, RunDirectory.create(tmp_path / "run", plan.config) as directory:
        Run(faked(plan), directory, small_runs.Silent()).train()
    batches = learned(tmp_path / "run")
    assert [len(batch) for batch in batches] == [3] * 5
    positions = [position for batch in batches for position in batch]
    assert len(set(positions)) == 15
    assert 1 not in positions
    assert positions.index(4) > positions.index(6)
    lines = [line for line in small_runs.metrics_of(tmp_path / "run") if "lag/max" in line]
    assert max(line["lag/max"] for line in lines) <= 2
    assert sum(line["groups/late"] for line in lines) == 1
    assert all(line["length/finished"] > 0 for line in lines)


def test_a_resumed_run_learns_from_no_prompt_twice(tiny_model: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    settings = config(tiny_model, steps=3, checkpoint__every=2)
    with make_plan(settings) as plan, RunDirectory.create(run, plan.config) as directory:
        Run(faked(plan), directory, small_runs.Silent()).train()
    before = learned(run)
    for newest in (run / "checkpoints").glob("step-000003*"):  # as if the run had been killed in its third step
        newest.rename(run / "gone")
    with RunDirectory.resume(run) as directory:
        longer = directory.config.model_copy(update={"steps": 6})
        directory.extend(longer)
        with make_plan(longer) as plan:
            Run(faked(plan), directory, small_runs.Silent()).train()
    after = learned(run)
    assert after[:3] == before
    positions = [position for batch in after for position in batch]
    assert len(positions) == len(set(positions)) == 18


def test_the_length_of_dropped_groups_counts_as_finished() -> None:
    sampler = FakeSampler(options=FakeSamplerOptions())
    sampler.submit([GroupRequest("g", Prompt(Task(), text="?"), (1,), 3, SamplingParams(max_tokens=9), ("key",))])
    (group,) = sampler.collect()
    metrics = lengths([], [], [group])
    assert metrics["groups/late"] == 1
    assert metrics["length/finished"] == sum(len(sample.token_ids) for sample in group.samples) / 3
    assert math.isnan(metrics["length/learned"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mode": "sync"}, "sampling.max_lag .* does nothing while mode is sync"),
        ({"trainer__push_every": 4}, "sampling.max_lag 2: groups that finish in time have a lag of up to 5"),
    ],
)
def test_a_lag_that_drops_everything_is_refused(changes: dict[str, Any], message: str, tiny_model: Path) -> None:
    with pytest.raises(ConfigError, match=message), make_plan(config(tiny_model, **changes)):
        pass
