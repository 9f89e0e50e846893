"""Conditions for bitwise equal results, besides versions and inputs: threads, devices, modes of computation."""

from __future__ import annotations

import os
import platform

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""Environment variables that set numbers of threads: sums are split by them, and so rounded differently."""


def computation() -> dict[str, str]:
    """Return name -> value, as text, of the properties of this process and machine that affect floating-point
    results."""
    import torch

    backends = torch.backends
    found = {name: os.environ.get(name, "not set") for name in (*THREAD_VARIABLES, "CUBLAS_WORKSPACE_CONFIG")}
    found |= {
        "machine": platform.machine(),
        "CPU instructions of torch": backends.cpu.get_cpu_capability(),
        "threads of torch": str(torch.get_num_threads()),
        "interop threads of torch": str(torch.get_num_interop_threads()),
        "devices": ", ".join(accelerators()) or "none but the CPU",
        "deterministic algorithms": str(torch.are_deterministic_algorithms_enabled()),
        "float32 matrix products": torch.get_float32_matmul_precision(),
    }
    if torch.version.cuda is not None:
        cudnn = backends.cudnn.version()  # type: ignore[no-untyped-call]
        found |= {"CUDA": torch.version.cuda, "cuDNN": str(cudnn)}
        found |= {"TF32": f"{backends.cuda.matmul.allow_tf32} in products, {backends.cudnn.allow_tf32} in cuDNN"}
    return found


def accelerators() -> list[str]:
    """Return the names of the devices besides the CPU."""
    import torch

    if torch.cuda.is_available():
        return [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return ["mps"] if torch.backends.mps.is_available() else []
