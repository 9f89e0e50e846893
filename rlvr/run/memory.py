"""Memory of a run by part, estimated from the model's configuration, against that of its device."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlvr.errors import RequestError
from rlvr.protocols import ModelSize, ModelSpec, RunSize, SamplerOptions, TrainerOptions
from rlvr.run.models import empty_model

if TYPE_CHECKING:
    from rlvr.run.config import RunConfig

GIB = 2**30
TRAINING_ONLY, SAMPLING_ONLY = ("gradients", "activations"), ("cache",)
"""Parts that exist while the run trains, and while it samples; the others exist all the time."""
ESTIMATED = ("activations", "cache")
"""Parts that do not follow from the number of parameters alone."""


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes by part, and what the device has."""

    parts: Mapping[str, int]
    """Part -> bytes: weights, gradients, optimizer, reference, activations, sampler, cache. Empty if unknown."""
    certain: int
    """Bytes of the parts that follow from the number of parameters alone."""
    device: str
    total: int | None
    """Memory of the device in bytes; None if it cannot be asked."""

    @property
    def peak(self) -> int:
        """Largest number of bytes at a time."""
        always = sum(size for part, size in self.parts.items() if part not in TRAINING_ONLY + SAMPLING_ONLY)
        training, sampling = (
            sum(self.parts.get(part, 0) for part in parts) for parts in (TRAINING_ONLY, SAMPLING_ONLY)
        )
        return always + max(training, sampling)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-safe values."""
        return {**self.parts, "peak": self.peak, "device": self.device, "device_total": self.total}


def memory_plan(
    config: RunConfig, model: ModelSpec, trainer: TrainerOptions, sampler: SamplerOptions | None
) -> MemoryPlan:
    """Return the memory that a run takes. `sampler`: None if nothing is sampled.

    Activations and the cache are estimates; the other parts follow from the number of parameters.
    """
    device, total = _device(model)
    size = model_size(model, device)
    longest = config.dataset.max_prompt_tokens + config.sampling.max_tokens
    run = RunSize(config.sampling.prompts_per_step * config.sampling.group_size, longest, device, total)
    parts = dict(trainer.memory(size, run))
    if parts and sampler is not None:
        parts |= {part: config.sampling.copies * n for part, n in sampler.memory(size, run).items()}
    certain = sum(size for part, size in parts.items() if part not in ESTIMATED)
    return MemoryPlan(parts, certain, device, total)


def refuse_too_large(plan: MemoryPlan, location: str) -> None:
    """Raise RequestError if the weights and what belongs to them are more than the device has."""
    if plan.total is None or plan.certain <= plan.total:
        return
    listed = ", ".join(f"{part} {size / GIB:.1f}" for part, size in plan.parts.items() if part not in ESTIMATED)
    raise RequestError(
        f"{location} cannot be trained on {plan.device}, which has {plan.total / GIB:.1f} GiB: without activations and "
        f"cache {plan.certain / GIB:.1f} GiB are needed ({listed}). Train an adapter (--set "
        "'trainer.lora={rank: 32}'), leave out the reference (--set trainer.beta=0), or sample on servers (--sampler "
        "vllm-server)"
    )


def model_size(spec: ModelSpec, device: str) -> ModelSize:
    """Return the size of a model, from its configuration alone. Raises RequestError if there is no such model."""
    from torch import nn

    model = empty_model(spec)
    text: Any = model.config.get_text_config()
    output = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    linear = [
        (layer.in_features, layer.out_features)
        for layer in model.modules()
        if isinstance(layer, nn.Linear) and layer is not output
    ]
    heads = int(text.num_attention_heads)
    width = int(getattr(text, "head_dim", None) or text.hidden_size // heads)
    half = spec.dtype in ("bfloat16", "float16") or (spec.dtype == "auto" and device.startswith("cuda"))
    return ModelSize(
        parameters=sum(weight.numel() for weight in model.parameters()),
        linear=tuple(linear),
        layers=int(text.num_hidden_layers),
        hidden=int(text.hidden_size),
        intermediate=int(getattr(text, "intermediate_size", None) or 4 * text.hidden_size),
        key_value=width * int(getattr(text, "num_key_value_heads", None) or heads),
        compute_bytes=2 if half else 4,
    )


def _device(spec: ModelSpec) -> tuple[str, int | None]:
    """Return the device in words, and its memory in bytes; None if it cannot be asked."""
    import torch

    name = spec.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if name.startswith("cuda") and torch.cuda.is_available():
        return name, int(torch.cuda.get_device_properties(torch.device(name)).total_memory)
    if name == "cpu":
        return name, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return name, None
