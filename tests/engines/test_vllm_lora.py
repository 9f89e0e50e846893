"""An adapter that vLLM loads by itself, for real: log-probabilities of the merged model, also under way, and a run."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import torch

from asked import PROMPTS, ROUNDING, ask, collected, differences
from rlvr.protocols import ModelSpec, Snapshot, TrainContext
from rlvr.run.rundir import read_metrics
from rlvr.run.sampler_process import ProcessSampler
from rlvr_trainers.grpo import Grpo, GrpoOptions
from rlvr_trainers.model.lora_options import LoraOptions
from rlvr_trainers.sampling.vllm_sampler import VLLMOptions, VLLMSampler


def with_other_adapter(trainer: Grpo, version: int) -> tuple[Snapshot, Snapshot]:
    """Return the trainer's merged weights, in a copy, and its adapter, after a random change."""
    generator = torch.Generator().manual_seed(version)
    with torch.no_grad():
        for parameter in trainer.policy.parameters:
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    trainer.policy.version = version
    snapshot = trainer.snapshot()
    held = {name: tensor.clone() for name, tensor in snapshot.tensors()}
    assert snapshot.adapter is not None
    return replace(snapshot, read=lambda: iter(held.items())), snapshot.adapter


def test_an_adapter_gives_the_log_probabilities_of_the_merged_model(model: Path) -> None:
    spec = ModelSpec(str(model), device="cpu", dtype="float32")
    trainer = Grpo(GrpoOptions(lora=LoraOptions(rank=4, alpha=4)), TrainContext(spec, 0, 1.0, 1))
    # In a process of its own: a process holds one engine only.
    sampler = ProcessSampler(VLLMSampler, spec, VLLMOptions(lora_rank=8))
    try:
        old, adapter = with_other_adapter(trainer, 1)
        sampler.sync(adapter)
        for group in collected(sampler, [ask(f"a{i}", ids) for i, ids in enumerate(PROMPTS)]):
            assert max(differences(spec, {1: old}, group)) < ROUNDING
        long = [ask(f"b{i}", ids, size=8, max_tokens=300) for i, ids in enumerate(PROMPTS)]
        sampler.submit(long)
        new, adapter = with_other_adapter(trainer, 2)
        sampler.sync(adapter)
        found = []
        while len(found) < len(long):
            found += sampler.collect()
        for group in found:
            assert max(differences(spec, {1: old, 2: new}, group)) < ROUNDING
        (after,) = collected(sampler, [ask("c", PROMPTS[2])])
        assert {run.version for sample in after.samples for run in sample.versions} == {2}
    finally:
        sampler.close()


def test_a_run_syncs_its_adapter_and_resumes(model: Path, tmp_path: Path) -> None:
    small = ["--group-size", "4", "--prompts-per-step", "2", "--max-tokens", "8", "--set", "eval.questions=0"]
    adapter = ["--set", "trainer.lora={rank: 8}", "--set", "sampling.options.lora_rank=8", "--set", "trainer.lr=1e-2"]
    for arguments in (
        ["--model", str(model), "--dataset", "arithmetic", "--steps", "2", "--out", "run", *small, *adapter,
         "--sampler", "vllm"],
        ["--resume", "run", "--steps", "3"],
    ):  # fmt: skip
        command = [sys.executable, "-m", "rlvr", "train", *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=500)
        assert done.returncode == 0, done.stderr
    lines = list(read_metrics(tmp_path / "run"))
    assert [line["step"] for line in lines] == [0, 1, 2]
    assert all(line["weights/excess"] < 20 for line in lines)
    names = [path.name for path in (tmp_path / "run" / "checkpoints" / "step-000003" / "sampler").iterdir()]
    assert sorted(names) == ["sampler.json", "weights.safetensors"]
