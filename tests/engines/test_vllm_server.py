"""vLLM servers, for real: the protocol, the trainer's log-probabilities, syncs under way, servers that die."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from asked import PROMPTS, ROUNDING, ask, collected, differences, other_weights
from rlvr.errors import ConfigError, RunError
from rlvr.protocols import ModelSpec
from rlvr.record.store import read_rollouts
from rlvr.testing import check_sampler
from rlvr_trainers.sampling.vllm_server import VLLMServerOptions, VLLMServerSampler
from served import Served


@pytest.fixture(scope="module")
def spec(model: Path) -> ModelSpec:
    return ModelSpec(str(model), device="cpu", dtype="float32")


@pytest.fixture
def sampler(spec: ModelSpec, server: Served) -> Iterator[VLLMServerSampler]:
    made = VLLMServerSampler(spec, VLLMServerOptions(servers=(server.url,), patience=120))
    yield made
    made.close()


def rlvr(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rlvr", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=500)


def test_log_probabilities_are_the_trainer_s_after_each_sync(spec: ModelSpec, sampler: VLLMServerSampler) -> None:
    for version, seed in ((3, 1), (4, 2)):
        weights = other_weights(spec, version, seed)
        sampler.sync(weights)
        for group in collected(sampler, [ask(f"s{version}-{i}", ids) for i, ids in enumerate(PROMPTS)]):
            assert max(differences(spec, {version: weights}, group)) < ROUNDING


def test_sequences_under_way_go_on_with_new_weights_and_say_so(spec: ModelSpec, sampler: VLLMServerSampler) -> None:
    """A sync races with the sequences, and on a busy machine all may finish first: it is repeated until one is hit."""
    weights = {5: other_weights(spec, 5, seed=5)}
    sampler.sync(weights[5])
    for new in range(6, 26):
        old = new - 1
        weights[new] = other_weights(spec, new, seed=new)
        sampler.submit([ask(f"long{new}-{i}", ids, size=8, max_tokens=300) for i, ids in enumerate(PROMPTS)])
        sampler.submit([ask(f"short{new}", PROMPTS[0], size=1, max_tokens=1)])
        found = sampler.collect()  # the short one is done, the others are under way
        sampler.sync(weights[new])
        while len(found) < 1 + len(PROMPTS):
            found += sampler.collect()
        runs = {tuple(run.version for run in sample.versions) for group in found for sample in group.samples}
        assert runs <= {(old,), (old, new), (new,)}
        for group in found:
            assert max(differences(spec, {old: weights[old], new: weights[new]}, group)) < ROUNDING
        if (old, new) in runs:
            return
    pytest.fail("none of 20 syncs came while a sequence was under way")


def test_it_keeps_the_protocol(spec: ModelSpec, server: Served, tmp_path: Path) -> None:
    start = other_weights(spec, 0, seed=5)

    def make() -> VLLMServerSampler:
        made = VLLMServerSampler(spec, VLLMServerOptions(servers=(server.url,)))
        made.sync(start)
        return made

    check_sampler(make, start, tmp_path, prompt_ids=(2, 3, 4))


def test_a_server_that_dies_costs_no_group_and_comes_back_with_current_weights(
    model: Path, spec: ModelSpec, server: Served, tmp_path: Path
) -> None:
    second = Served(model, tmp_path / "log").wait()
    sampler = VLLMServerSampler(spec, VLLMServerOptions(servers=(server.url, second.url)))
    try:
        weights = other_weights(spec, 8, seed=6)
        sampler.sync(weights)
        requests = [ask(f"many{i}", ids, size=2, max_tokens=120) for i, ids in enumerate(PROMPTS * 8)]
        sampler.submit(requests)
        found = sampler.collect()
        second.kill()
        while len(found) < len(requests):
            found += sampler.collect()
        assert sorted(g.request.group_id for g in found) == sorted(r.group_id for r in requests)
        for group in found[-3:]:
            assert max(differences(spec, {8: weights}, group)) < ROUNDING
        second.start()
        second.wait()
        deadline = time.monotonic() + 200
        while (held := httpx2.get(f"{second.url}/weight_info").json()["weight_version"]) != "8":
            assert time.monotonic() < deadline, f"the server that came back still has weights {held!r}"
            collected(sampler, [ask(f"again{i}", ids, max_tokens=40) for i, ids in enumerate(PROMPTS)])
    finally:
        sampler.close()
        second.kill()


def test_without_a_server_the_run_stops_and_says_how_to_go_on(model: Path, spec: ModelSpec, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"does not answer.*start it with: rlvr serve"):
        VLLMServerSampler(spec, VLLMServerOptions(servers=("http://127.0.0.1:1",)))
    only = Served(model, tmp_path / "log").wait()
    sampler = VLLMServerSampler(spec, VLLMServerOptions(servers=(only.url,), patience=1))
    sampler.sync(other_weights(spec, 1, seed=7))
    only.kill()
    sampler.submit([ask("one", PROMPTS[1])])
    with pytest.raises(RunError, match=r"no sampler has been left for 1 s: .*rlvr serve .*with --resume"):
        sampler.collect()
    sampler.close()


def test_the_command_line_trains_generates_and_resumes(
    model: Path, server: Served, sampler: VLLMServerSampler, spec: ModelSpec, tmp_path: Path
) -> None:
    sampler.sync(other_weights(spec, 9, seed=8))
    sampling = ["--sampler", "vllm-server", "--server", server.url]
    small = ["--group-size", "4", "--prompts-per-step", "2", "--max-tokens", "8", "--set", "eval.questions=2"]
    made = rlvr(tmp_path, "generate", str(model), "--dataset", "arithmetic", "-n", "2", "--limit", "2",
                "--max-tokens", "8", "--out", "g.parquet", *sampling)  # fmt: skip
    # The server holds weights that a test gave it: records of them would be of no known model.
    assert made.returncode == 2
    assert "restart the server" in made.stderr
    run = rlvr(tmp_path, "train", "--model", str(model), "--dataset", "arithmetic", "--steps", "2", "--out", "run",
               *sampling, *small)  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert {
        rollout.sampling.engine for rollout in read_rollouts(tmp_path / "run" / "rollouts") if rollout.sampling
    } == {"vllm"}
    more = rlvr(tmp_path, "train", "--resume", "run", "--steps", "3")
    assert more.returncode == 0, more.stderr
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 1, 2]
    assert all(line["weights/excess"] < 20 for line in lines if "weights/excess" in line)
