"""The sampler that `auto` stands for; a run stores its name."""

from __future__ import annotations

from pathlib import Path

import pytest

import small_runs
from rlvr.run.auto_engine import VLLM_FROM, choose, with_engine
from rlvr.run.plan import make_plan


@pytest.mark.parametrize(
    ("installed", "device", "parameters", "expected"),
    [
        (False, "cuda", 0, ("hf", "vLLM is not installed")),
        (True, "cuda", 0, ("vllm", "vLLM is installed, and the model is on a GPU")),
        (True, "cuda:1", 0, ("hf", "the sampler vllm cannot use device cuda:1")),
        (True, "mps", 0, ("hf", "the sampler vllm cannot use device mps")),
        (True, "cpu", 800_000, ("hf", "0.8 million parameters on a CPU")),
        (True, "cpu", VLLM_FROM, ("vllm", "10.0 million parameters on a CPU")),
    ],
)
def test_the_faster_sampler_is_taken(installed: bool, device: str, parameters: int, expected: tuple[str, str]) -> None:
    assert choose(installed=installed, device=device, parameters=parameters) == expected


def test_a_run_stores_the_sampler_that_was_taken_and_says_why(tiny_model: Path) -> None:
    config = small_runs.small_config(tiny_model, sampling__engine="auto", eval__questions=0)
    with make_plan(config) as plan:
        engine = plan.config.sampling.engine
        assert engine in ("hf", "vllm")
        assert plan.notes[0].startswith(f"sampler {engine} (auto: ")
    assert with_engine(plan.config) == (plan.config, [])
