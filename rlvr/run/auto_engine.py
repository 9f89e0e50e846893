"""`--sampler auto`: the faster sampler on the machine at hand.

The rule comes from measured tokens per second (docs/engines.md): on two CPU cores, vLLM is slower than transformers for
the embedded model (0.8 million parameters) and faster for one of 30 million. On a GPU, vLLM is taken without a
measurement of ours.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from rlvr.protocols import ModelSpec
from rlvr.run.config import RunConfig
from rlvr.run.models import load_configuration

AUTO = "auto"
VLLM_FROM = 10_000_000
"""Parameters of a model from which vLLM is taken on a CPU."""


def with_engine(config: RunConfig) -> tuple[RunConfig, list[str]]:
    """Return the configuration with the sampler that `auto` stands for, and a note that says why.

    A run stores that name, so that it resumes with the same sampler. Another name is left as it is.
    """
    if config.sampling.engine != AUTO:
        return config, []
    installed, device = find_spec("vllm") is not None, _device(config.model.device)
    # Counting parameters builds the model without memory, which a decision made before it does not need.
    parameters = _parameters(config.model.spec) if installed and device == "cpu" else 0
    engine, why = choose(installed=installed, device=device, parameters=parameters)
    sampling = config.sampling.model_copy(update={"engine": engine})
    return config.model_copy(update={"sampling": sampling}), [f"sampler {engine} (auto: {why})"]


def choose(*, installed: bool, device: str, parameters: int) -> tuple[str, str]:
    """Return the name of a sampler, and why it is taken.

    Args:
        installed: vLLM is installed.
        device: A torch device.
        parameters: Number of the model's parameters; read on a CPU only.
    """
    if not installed:
        return "hf", "vLLM is not installed"
    if device in ("cuda", "cuda:0"):
        return "vllm", "vLLM is installed, and the model is on a GPU"
    if device != "cpu":
        return "hf", f"the sampler vllm cannot use device {device}"
    size = f"{parameters / 1e6:,.1f} million parameters on a CPU"
    return ("vllm", size) if parameters >= VLLM_FROM else ("hf", size)


def _device(given: str) -> str:
    """Return the device that `model.device` stands for."""
    import torch

    if given != "auto":
        return given
    return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"


def _parameters(spec: ModelSpec) -> int:
    """Return the number of a model's parameters, from its configuration."""
    import torch
    from transformers import AutoModelForCausalLM

    factory: Any = AutoModelForCausalLM
    with torch.device("meta"):
        model = factory.from_config(load_configuration(spec), trust_remote_code=spec.trust_remote_code)
    return sum(int(parameter.numel()) for parameter in model.parameters())
