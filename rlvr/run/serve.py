"""The command that starts a vLLM server which `rlvr` can sample from and give weights to."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from rlvr.errors import RequestError
from rlvr.run.config import ModelConfig

Transfer: TypeAlias = Literal["files", "nccl", "ipc"]

ENTRY = "vllm.entrypoints.launchers.api_server.entry"
"""`vllm serve` asks for the distribution `vllm`, which a build for CPUs is not."""


@dataclass(frozen=True)
class ServerCommand:
    """How to start a server."""

    command: tuple[str, ...]
    environment: Mapping[str, str]
    """Variables to set, besides those that are there."""
    url: str
    """Address at which it will answer."""

    def to_dict(self) -> dict[str, Any]:
        """Return the command, the environment and the URL, for JSON."""
        return {"command": list(self.command), "environment": dict(self.environment), "url": self.url}


def server_command(
    model: ModelConfig,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    max_model_len: int | None = None,
    tensor_parallel_size: int = 1,
    memory_share: float | None = None,
    transfer: Transfer = "files",
    arguments: Sequence[str] = (),
) -> ServerCommand:
    """Return the command that serves a model for `rlvr train --sampler vllm-server`.

    Args:
        model: The model, with its dtype.
        host: Address to listen on. Whoever reaches it can replace the weights: there is no password.
        port: Port to listen on.
        max_model_len: Longest prompt and completion in tokens; None is the model's.
        tensor_parallel_size: GPUs that hold the model together.
        memory_share: Share of each GPU's memory for weights and cache; None is vLLM's.
        transfer: How new weights arrive; nccl and ipc need a GPU.
        arguments: Further arguments of vLLM.

    Raises RequestError for a transfer from GPU to GPU without a GPU.
    """
    from torch import cuda

    on_cpu = not cuda.is_available()
    if transfer != "files" and on_cpu:
        raise RequestError(f"--transfer {transfer} sends weights from GPU to GPU, and there is none here: leave it out")
    dtype = ("float32" if on_cpu else "bfloat16") if model.dtype == "auto" else model.dtype
    options = ["--model", model.location, "--host", host, "--port", str(port), "--dtype", dtype]
    if model.revision is not None:
        options += ["--revision", model.revision]
    if model.trust_remote_code:
        options.append("--trust-remote-code")
    if max_model_len is not None:
        options += ["--max-model-len", str(max_model_len)]
    if tensor_parallel_size > 1:
        options += ["--tensor-parallel-size", str(tensor_parallel_size)]
    if memory_share is not None and not on_cpu:
        options += ["--gpu-memory-utilization", f"{memory_share:g}"]
    # Token ids in and out, and log-probabilities of the distribution drawn from, without the checkpoint's defaults.
    options += ["--enable-scale-out", "--logprobs-mode", "processed_logprobs", "--generation-config", "vllm"]
    environment = {"VLLM_SERVER_DEV_MODE": "1"}  # opens the endpoints for weights
    if transfer != "files":
        options += ["--weight-transfer-config", json.dumps({"backend": transfer})]
    if transfer == "ipc":  # handles of GPU memory come pickled
        environment["VLLM_ALLOW_INSECURE_SERIALIZATION"] = "1"
    if on_cpu:
        # A seeded request whose prompt is computed in chunks ends the engine on a CPU (vLLM 0.32).
        tokens = str(max(8192, max_model_len or 0))
        options += ["--enforce-eager", "--no-enable-chunked-prefill", "--max-num-batched-tokens", tokens]
        environment |= {"VLLM_CPU_KVCACHE_SPACE": "1", "OMP_WAIT_POLICY": "passive"}
    return ServerCommand((sys.executable, "-m", ENTRY, *options, *arguments), environment, f"http://{host}:{port}")
