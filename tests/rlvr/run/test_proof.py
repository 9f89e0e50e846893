"""Proof after a weight sync that the sampler computes what the trainer does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import small_runs
from rlvr.data.prompts import Encoded
from rlvr.errors import RunError
from rlvr.protocols import Prompt, SampledGroup, Snapshot
from rlvr.record.schema import Task
from rlvr.run.plan import make_plan
from rlvr.run.proof import PROBE_TOKENS, PROBES, SAMPLED_TOKENS, probe_prompts
from rlvr.run.rundir import RunDirectory
from rlvr_trainers.sampling.hf_sampler import HFSampler


class Deaf(HFSampler):
    """Accepts the version of a sync and keeps its old weights."""

    def sync(self, snapshot: Snapshot) -> None:
        self.version = snapshot.version


class Lagging(HFSampler):
    """Accepts a sync, and continues with the previous version."""

    def sync(self, snapshot: Snapshot) -> None:
        before = self.version
        super().sync(snapshot)
        self.version = before


class Rounded(HFSampler):
    """Reports log-probabilities that differ by `gap`."""

    gap = 0.0

    def collect(self, timeout: float | None = None) -> list[SampledGroup]:
        groups = super().collect(timeout)
        return [replace(group, samples=tuple(map(self._shifted, group.samples))) for group in groups]

    def _shifted(self, sample: Any) -> Any:
        return replace(sample, logprobs=tuple(logprob - self.gap for logprob in sample.logprobs))


def run(model: Path, path: Path, sampler: type[HFSampler] = HFSampler, **changes: Any) -> Sequence[dict[str, Any]]:
    config = small_runs.small_config(model, **{"eval__questions": 0, "steps": 3, "trainer__lr": 1e-2, **changes})
    with make_plan(config) as plan, RunDirectory.create(path, plan.config) as directory:
        plan.sampler = sampler
        small_runs.Run(plan, directory, small_runs.Silent()).train()
    return small_runs.metrics_of(path)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_same_weights_differ_by_rounding(dtype: str, tiny_model: Path, awkward_model: Path, tmp_path: Path) -> None:
    for number, model in enumerate((tiny_model, awkward_model)):
        changes = {"dataset": "arithmetic"} if model == tiny_model else {"dataset": "arithmetic", "model__chat": "off"}
        lines = run(model, tmp_path / f"{number}", model__dtype=dtype, **changes)
        assert len(lines) == 3
        assert all(0 <= line["weights/excess"] < 10 for line in lines)
        assert all(line["weights/difference"] <= line["weights/worst"] for line in lines)
        assert all(line["time/proof"] > 0 for line in lines)


def test_weights_that_do_not_arrive_stop_the_run_before_anything_is_sampled(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"after the weight sync at version 1, .* differ by .* the sync did not arrive"):
        run(tiny_model, tmp_path / "run", Deaf)
    assert len(small_runs.metrics_of(tmp_path / "run")) == 1
    assert [path.name for path in (tmp_path / "run" / "rollouts").glob("*.parquet")] == ["step-000000.parquet"]


def test_an_old_version_stops_the_run(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="at version 1, the sampler still samples with version 0: the sync did not"):
        run(tiny_model, tmp_path / "run", Lagging)


def test_the_alarm_decides(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Rounded, "gap", 0.05)
    with pytest.raises(RunError, match=r"differ by 0\.05 nats on average, 1,000 times the rounding of float32"):
        run(tiny_model, tmp_path / "a", Rounded)
    warned = run(tiny_model, tmp_path / "b", Rounded, alarms__weights__consequence="warn", steps=1)
    assert [alarm["alarm"] for alarm in warned[-1]["alarms"]] == ["weights"]
    off = run(tiny_model, tmp_path / "c", Rounded, alarms__weights__consequence="none", steps=1)
    assert "weights/excess" not in off[-1]


def test_probes_are_longer_than_a_cache_block_where_the_model_allows_it() -> None:
    questions = [Encoded(i, i, Prompt(Task(), text="x"), tuple(range(i, i + 7))) for i in range(3)]
    first, *others = probe_prompts(questions, None)
    assert {len(first), *map(len, others)} == {PROBE_TOKENS}
    assert PROBE_TOKENS > 128
    assert first[:8] == (0, 1, 2, 3, 4, 5, 6, 0)
    assert len(probe_prompts(questions, 64)[0]) == 64 - SAMPLED_TOKENS


@pytest.mark.parametrize(("copies", "probes"), [(1, PROBES), (5, 5)])
def test_every_copy_of_a_sampler_is_probed(copies: int, probes: int, tiny_model: Path) -> None:
    with make_plan(small_runs.small_config(tiny_model, sampling__copies=copies)) as plan:
        assert len(plan.probes) == probes


def test_proofs_change_nothing_that_is_learned(tiny_model: Path, tmp_path: Path) -> None:
    run(tiny_model, tmp_path / "with")
    run(tiny_model, tmp_path / "without", alarms__weights__consequence="none")
    assert small_runs.final_state(tmp_path / "with") == small_runs.final_state(tmp_path / "without")
