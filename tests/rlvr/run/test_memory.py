"""Memory by part: against the tensors that a trainer and a sampler really hold."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import small_runs
from rlvr.errors import RequestError
from rlvr.protocols import ModelSpec, TrainContext
from rlvr.run.memory import MemoryPlan, memory_plan, model_size, refuse_too_large
from rlvr.run.plan import make_plan
from rlvr_trainers.grpo import Grpo


def held(tensors: Any) -> int:
    """Return the bytes of tensors, each counted once."""
    return sum({tensor.data_ptr(): tensor.numel() * tensor.element_size() for tensor in tensors}.values())


@pytest.mark.parametrize("lora", [None, {"rank": 3, "alpha": 4}])
def test_parts_are_what_a_trainer_holds(tiny_model: Path, lora: dict[str, int] | None) -> None:
    config = small_runs.small_config(tiny_model, trainer__beta=0.1, trainer__lora=lora)
    with make_plan(config) as plan:
        parts = plan.memory.parts
        trainer = Grpo(plan.options, TrainContext(plan.model, 0, 1.0, 1, alarms=small_runs.NOISY))  # type: ignore[arg-type]
    policy = trainer.policy
    assert parts["weights"] == held(policy.model.parameters())
    for parameter in policy.parameters:
        parameter.grad = torch.zeros_like(parameter)
    assert parts["gradients"] == held(p.grad for p in policy.parameters)
    policy.step(0.0)
    moments = [v for slots in policy.optimizer.state.values() for k, v in slots.items() if k != "step"]
    assert parts["optimizer"] == held(moments)
    assert parts.get("reference", 0) == (0 if policy.reference is None else held(policy.reference.parameters()))
    assert parts["sampler"] == 4 * model_size(plan.model, "cpu").parameters
    assert parts["activations"] > 0
    assert parts["cache"] > 0


def test_checkpointing_takes_less(tiny_model: Path) -> None:
    plain, saving = (
        small_runs.small_config(tiny_model, trainer__gradient_checkpointing=flag) for flag in (False, True)
    )
    with make_plan(plain) as first, make_plan(saving) as second:
        assert second.memory.parts["activations"] < first.memory.parts["activations"]
        assert second.memory.peak < first.memory.peak


def test_bfloat16_halves_the_sampler(tiny_model: Path) -> None:
    spec = ModelSpec(str(tiny_model), device="cpu")
    assert model_size(spec, "cpu").compute_bytes == 4
    assert model_size(replace(spec, dtype="bfloat16"), "cpu").compute_bytes == 2
    assert model_size(spec, "cuda").compute_bytes == 2


def test_what_cannot_fit_is_refused(tiny_model: Path) -> None:
    parts = {"weights": 40 * 2**30, "gradients": 40 * 2**30, "activations": 2**40}
    with pytest.raises(RequestError, match=r"big cannot be trained on cuda, which has 79\.0 GiB: .* 80\.0 GiB"):
        refuse_too_large(MemoryPlan(parts, 80 * 2**30, "cuda", 79 * 2**30), "big")
    refuse_too_large(MemoryPlan(parts, 80 * 2**30, "cuda", 81 * 2**30), "it may fit in smaller batches")
    refuse_too_large(MemoryPlan(parts, 80 * 2**30, "mps", None), "unknown")
    with make_plan(small_runs.small_config(tiny_model)) as plan:
        nothing = memory_plan(plan.config, plan.model, plan.options, None)
    assert "sampler" not in nothing.parts
