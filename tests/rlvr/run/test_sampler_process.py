"""A sampler in a process of its own: the protocol, the same samples, and what happens when one of the two dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import small_runs
from rlvr.errors import RequestError, RunError
from rlvr.protocols import GroupRequest, ModelSpec, Prompt, SampledGroup, Sampler, Snapshot, TensorLayout
from rlvr.record.schema import SamplingParams, Task
from rlvr.run.sampler_process import ProcessSampler
from rlvr.testing import FakeSampler, FakeSamplerOptions, check_sampler
from rlvr_trainers.model.snapshots import snapshot_of
from rlvr_trainers.sampling.hf_sampler import HFSampler, HFSamplerOptions


def requests(count: int = 4, max_tokens: int = 8) -> list[GroupRequest]:
    params = SamplingParams(max_tokens=max_tokens)
    return [GroupRequest(f"g{i}", Prompt(Task(), text="?"), (2, 3, 4), 3, params, ("key", i)) for i in range(count)]


def collected(sampler: Sampler, asked: list[GroupRequest]) -> dict[str, SampledGroup]:
    sampler.submit(asked)
    found: dict[str, SampledGroup] = {}
    while len(found) < len(asked):
        found |= {group.request.group_id: group for group in sampler.collect()}
    return found


@pytest.fixture(scope="module")
def spec(tiny_model: Path) -> ModelSpec:
    return ModelSpec(str(tiny_model), device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def sampler(spec: ModelSpec) -> Iterator[ProcessSampler]:
    """One process for the tests that leave it alive: starting one takes longer than any of them."""
    made = ProcessSampler(HFSampler, spec, HFSamplerOptions())
    yield made
    made.close()


def test_it_keeps_the_protocol(spec: ModelSpec, tmp_path: Path) -> None:
    nothing = Snapshot(0, {}, {}, lambda: iter(()))
    check_sampler(lambda: ProcessSampler(FakeSampler, spec, FakeSamplerOptions()), nothing, tmp_path)


def test_weights_that_do_not_fit_are_refused_there(sampler: ProcessSampler, spec: ModelSpec) -> None:
    fits = snapshot_of(HFSampler(spec, HFSamplerOptions()).model, 0)
    with pytest.raises(RunError, match=r"hold no\.such\.weight, which the sampler's model lacks"):
        sampler.sync(replace(fits, layout={**fits.layout, "no.such.weight": TensorLayout("float32", (1,))}))
    sampler.sync(replace(fits, version=3))
    found = collected(sampler, requests(1))["g0"]
    assert {run.version for sample in found.samples for run in sample.versions} == {3}


def test_a_difficult_sampler_is_as_difficult_there(spec: ModelSpec) -> None:
    options = FakeSamplerOptions(reversed_order=True, late=0.5, aborted=0.3)
    there, here = ProcessSampler(FakeSampler, spec, options), FakeSampler(spec, options)
    try:
        found, expected = collected(there, requests(9)), collected(here, requests(9))
        assert {name: group.samples for name, group in found.items()} == {
            name: group.samples for name, group in expected.items()
        }
    finally:
        there.close()


def test_a_run_ends_in_the_same_weights(tiny_model: Path, tmp_path: Path) -> None:
    here = small_runs.small_config(tiny_model, steps=3)
    there = small_runs.small_config(tiny_model, steps=3, sampling__process=True)
    small_runs.start(here, tmp_path / "here")
    small_runs.start(there, tmp_path / "there")
    assert small_runs.final_state(tmp_path / "there") == small_runs.final_state(tmp_path / "here")


def test_a_request_that_is_refused_is_the_error_of_the_next_call(sampler: ProcessSampler) -> None:
    sampler.submit([GroupRequest("g", Prompt(Task(), text="?"), (), 1, SamplingParams(), ("key",))])
    with pytest.raises(RequestError, match="group g: the prompt has no tokens"):
        sampler.collect()
    assert sampler.collect() == []  # nothing is left to wait for


def test_a_refused_request_leaves_no_answer_for_a_later_call(
    sampler: ProcessSampler, spec: ModelSpec, tmp_path: Path
) -> None:
    weights = snapshot_of(HFSampler(spec, HFSamplerOptions()).model, 0)
    for version in (1, 2):
        sampler.submit([GroupRequest("g", Prompt(Task(), text="?"), (), 1, SamplingParams(), ("key",))])
        with pytest.raises(RequestError, match="group g: the prompt has no tokens"):
            sampler.sync(replace(weights, version=version))  # is done all the same
    sampler.save(tmp_path / "saved")
    assert any((tmp_path / "saved").iterdir())  # written before the call returns
    found = collected(sampler, requests(1))["g0"]
    assert {run.version for sample in found.samples for run in sample.versions} == {2}


def test_a_process_that_dies_ends_the_run_with_its_cause(spec: ModelSpec) -> None:
    sampler = ProcessSampler(HFSampler, spec, HFSamplerOptions())
    try:
        sampler.submit(requests(max_tokens=500))
        os.kill(sampler._process.pid, signal.SIGKILL)
        with pytest.raises(RunError, match=r"the sampler's process was killed by signal 9.*--resume"):
            sampler.collect()
    finally:
        sampler.close()


def test_the_process_ends_with_its_run(spec: ModelSpec) -> None:
    code = f"""
import os, signal
from rlvr.protocols import ModelSpec
from rlvr.run.sampler_process import ProcessSampler
from rlvr.testing import FakeSampler, FakeSamplerOptions
sampler = ProcessSampler(FakeSampler, ModelSpec({spec.path!r}), FakeSamplerOptions())
print(sampler._process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    child = Path(f"/proc/{int(killed.stdout)}")
    deadline = time.monotonic() + 60
    while child.exists() and "State:\tZ" not in (child / "status").read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not child.exists() or "State:\tZ" in (child / "status").read_text()
