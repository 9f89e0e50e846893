"""Several samplers behind one: the protocol, who gets which group, and samplers that are lost."""

from __future__ import annotations

import os
import signal
from collections.abc import Collection, Sequence
from pathlib import Path

import pytest

import small_runs
from rlvr.errors import ConfigError, RunError, SamplerLostError
from rlvr.protocols import GroupRequest, ModelSpec, Prompt, SampledGroup, Sampler, Snapshot
from rlvr.record.schema import SamplingParams, Task
from rlvr.run.copies import CopiesFactory
from rlvr.run.factories import configured_sampler
from rlvr.run.several import Several
from rlvr.testing import FakeSampler, FakeSamplerOptions, check_sampler
from rlvr_trainers.model.models import load_model
from rlvr_trainers.model.snapshots import snapshot_of
from rlvr_trainers.sampling.hf_sampler import HFSampler, HFSamplerOptions

NOTHING = Snapshot(0, {}, {}, lambda: iter(()))


class Mortal(FakeSampler):
    """A sampler that is lost after it has been asked `answers` times for its answers."""

    def __init__(self, answers: int = 1000) -> None:
        super().__init__()
        self.answers = answers
        self.asked: list[str] = []

    def submit(self, requests: Sequence[GroupRequest]) -> None:
        self.asked += [request.group_id for request in requests]
        super().submit(requests)

    def collect(self, timeout: float | None = None) -> list[SampledGroup]:
        if self.answers <= 0:
            raise SamplerLostError("it fell over")
        self.answers -= 1
        return super().collect(timeout)

    def save(self, directory: Path) -> None:
        if self.answers <= 0:
            raise SamplerLostError("it fell over")
        super().save(directory)

    def cancel(self, ids: Collection[str]) -> None:
        if self.answers <= 0:
            raise SamplerLostError("it fell over")
        super().cancel(ids)


def ask(name: str, size: int = 2, max_tokens: int = 8) -> GroupRequest:
    params = SamplingParams(max_tokens=max_tokens)
    return GroupRequest(name, Prompt(Task(), text="?"), (2, 3, 4), size, params, ("key", name))


def all_of(sampler: Sampler, count: int) -> list[str]:
    found: list[str] = []
    while len(found) < count:
        groups = sampler.collect()
        assert groups, f"{count - len(found)} groups are missing"
        found += [group.request.group_id for group in groups]
    assert sampler.collect(timeout=0.0) == []
    return sorted(found)


def test_it_keeps_the_protocol(tiny_model: Path, tmp_path: Path) -> None:
    spec = ModelSpec(str(tiny_model), device="cpu", dtype="float32")

    def make() -> Several:
        return Several([HFSampler(spec, HFSamplerOptions()) for _ in range(2)])

    check_sampler(make, snapshot_of(load_model(spec, master=True), 0), tmp_path)


def test_over_difficult_samplers_it_keeps_the_protocol_all_the_same(tmp_path: Path) -> None:
    difficult = FakeSamplerOptions(reversed_order=True, late=0.5, duplicated=0.5, ignores_cancel=True, per_collect=1)
    check_sampler(lambda: Several([FakeSampler(options=difficult) for _ in range(3)], room=1), NOTHING, tmp_path)


def test_a_group_goes_to_the_sampler_with_the_least_work() -> None:
    first, second = Mortal(), Mortal()
    several = Several([first, second])
    several.submit([ask("long", max_tokens=100), *(ask(f"short{i}", max_tokens=30) for i in range(5))])
    assert first.asked == ["long", "short4"]
    assert second.asked == ["short0", "short1", "short2", "short3"]
    assert all_of(several, 6) == ["long", "short0", "short1", "short2", "short3", "short4"]


def test_a_sampler_gets_no_more_than_it_has_room_for() -> None:
    first, second = Mortal(), Mortal()
    several = Several([first, second], room=2)
    several.submit([ask(str(i)) for i in range(7)])
    assert (len(first.asked), len(second.asked)) == (2, 2)
    several.cancel(["6", "0"])
    assert all_of(several, 5) == ["1", "2", "3", "4", "5"]
    assert first.cancelled == ["0"]


def test_the_groups_of_a_lost_sampler_are_asked_of_the_others(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    first, second = Mortal(answers=1), Mortal()
    several = Several([first, second])
    several.sync(NOTHING)
    several.submit([ask(str(i)) for i in range(20)])
    assert all_of(several, 20) == sorted(str(i) for i in range(20))
    assert first.closed
    assert several.lost == ["it fell over"]
    assert "it fell over; 1 of 2 samplers are left" in caplog.text
    several.sync(NOTHING)
    assert (len(first.synced), len(second.synced)) == (1, 2)
    several.save(tmp_path / "state")
    assert (tmp_path / "state").is_dir()


def test_without_a_sampler_the_run_stops_and_says_why() -> None:
    several = Several([Mortal(answers=0), Mortal(answers=0)])
    several.submit([ask("g")])
    with pytest.raises(RunError, match=r"no sampler is left: it fell over; it fell over\. Continue .* with --resume"):
        several.collect()


def test_a_sampler_that_comes_back_gets_the_current_weights() -> None:
    made: list[FakeSampler] = []

    def again(i: int) -> FakeSampler:
        made.append(FakeSampler())
        return made[-1]

    several = Several([Mortal(answers=0)], again=again, patience=60)
    several.sync(Snapshot(7, {}, {}, lambda: iter(())))
    several.submit([ask("g")])
    assert all_of(several, 1) == ["g"]
    assert [sampler.synced for sampler in made] == [[7]]
    assert several.lost == []
    several.close()


def test_copies_are_processes_and_one_may_die(tiny_model: Path) -> None:
    config = small_runs.small_config(tiny_model, sampling__copies=2)
    factory, options = configured_sampler(config)
    assert isinstance(factory, CopiesFactory)
    several = factory(config.model.spec, options)
    try:
        several.submit([ask(str(i), max_tokens=400) for i in range(8)])
        os.kill(several._members[0].sampler._process.pid, signal.SIGKILL)  # type: ignore[attr-defined]
        assert all_of(several, 8) == sorted(str(i) for i in range(8))
        (lost,) = several.lost
        assert "was killed by signal 9" in lost
    finally:
        several.close()


def test_copies_of_a_sampler_that_is_elsewhere_are_refused(tiny_model: Path) -> None:
    config = small_runs.small_config(
        tiny_model,
        sampling__copies=2,
        sampling__engine="vllm-server",
        sampling__options={"servers": "http://127.0.0.1:1"},
    )
    with pytest.raises(ConfigError, match=r"sampling\.copies: .* name several servers with --server"):
        configured_sampler(config)
