"""Every figure of docs/speed.md and docs/engines.md that needs a GPU: one command for whoever has one.

    pip install '.[vllm,lora]' trl && python benchmarks/gpu.py     # some 20 minutes; writes results/gpu.md
    python benchmarks/gpu.py --device cpu --quick                  # does it work? the pieces that need no GPU

Measured are tokens per second of the samplers, weight syncs by files, NCCL and CUDA IPC, an adapter synced by itself,
sleep and wake, the difference of log-probabilities by dtype, the proof of weights, memory, and a training step against
TRL's. Each measurement is a process of its own (`engines.py`, `against_trl.py`). The model is 30M (`random_models.py`).

No machine of this project has a GPU: rows with NCCL, IPC and sleep have never been run.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
from engines import EMBEDDED, RESULTS, Setup, in_a_process
from random_models import write_model

from rlvr.protocols import ModelSpec
from rlvr.run.weights_files import memory_folder

NEEDS_GPU: Mapping[str, Setup] = {
    "`hf`, bfloat16": Setup("hf", "cuda", "bfloat16"),
    "`vllm`, bfloat16": Setup("vllm", "cuda", "bfloat16"),
    "`vllm`, bfloat16, adapter": Setup("vllm", "cuda", "bfloat16", {"lora_rank": 16}),
    "`vllm-server`, bfloat16, NCCL": Setup(
        "vllm-server", "cuda", "bfloat16", {"transfer": "nccl"}, ("--transfer", "nccl", "--memory-share", "0.4")
    ),
    "`vllm-server`, bfloat16, IPC": Setup(
        "vllm-server", "cuda", "bfloat16", {"transfer": "ipc"}, ("--transfer", "ipc", "--memory-share", "0.4")
    ),
}
HEADER = (
    "| sampler | tokens/s | a weight sync | a proof of weights | log π - log α, mean | largest | GiB in use |\n"
    "|---|---|---|---|---|---|---|"
)


def setups(device: str, quick: bool) -> dict[str, Setup]:
    """Return what is measured on a device, by its name in the table."""
    repeats = 1 if quick else 5
    found = {"`hf`, float32": Setup("hf", device, repeats=repeats)}
    if find_spec("vllm") is not None:
        found |= {
            "`vllm`, float32": Setup("vllm", device, repeats=repeats),
            "`vllm-server`, float32, files": Setup("vllm-server", device, repeats=repeats),
        }
    if device == "cuda":
        found |= NEEDS_GPU
    return found


def row(name: str, measured: Mapping[str, float]) -> str:
    """Return a line of the table."""
    return (
        f"| {name} | {measured['tokens']:,.0f} | {1000 * measured['sync']:,.0f} ms | {1000 * measured['proof']:,.0f} "
        f"ms | {measured['mean']:.1e} | {measured['max']:.1e} | {measured['memory']:.1f} |"
    )


def sleeping(path: Path) -> str:
    """Return what vLLM's sleep takes and frees, in this process."""
    from rlvr_trainers.sampling.vllm_sampler import VLLMOptions, VLLMSampler

    sampler = VLLMSampler(ModelSpec(str(path), device="cuda", dtype="bfloat16"), VLLMOptions(sleep=True))
    awake, _ = torch.cuda.mem_get_info()
    began = time.perf_counter()
    sampler.sleep()
    slept = time.perf_counter() - began
    asleep, _ = torch.cuda.mem_get_info()
    began = time.perf_counter()
    sampler.wake()
    woke = time.perf_counter() - began
    sampler.close()
    return f"sleep {1000 * slept:,.0f} ms, wake {1000 * woke:,.0f} ms, {(asleep - awake) / 2**30:.1f} GiB freed"


def against_trl(folder: Path) -> str:
    """Return the table of a training step of rlvr and TRL."""
    command = [sys.executable, Path(__file__).with_name("against_trl.py"), "--size", "30M", "--rounds", "1"]
    done = subprocess.run([*command, "--results", folder], capture_output=True, text=True, check=False)
    if done.returncode:
        return f"against TRL: failed\n\n{done.stderr[-1000:]}"
    return (folder / "against_trl_30M.md").read_text()


def report(device: str, quick: bool) -> str:
    """Measure everything and return the page."""
    name = "embedded" if quick else "30M"
    with memory_folder() as folder:
        path = EMBEDDED if quick else write_model(name, folder / "model")
        lines = [HEADER]
        for title, setup in setups(device, quick).items():
            print(f"{title} …", file=sys.stderr, flush=True)
            lines.append(row(title, in_a_process(setup, name, path)))
        lines.append("")
        if device == "cuda":
            lines.append(_in_another(["--sleep", str(path)]))
        else:
            lines.append("Sleep, NCCL, IPC, an adapter in vLLM and bfloat16 need a GPU.")
        if not quick:
            lines += ["", against_trl(folder)]
    where = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    lines += ["", f"`python benchmarks/gpu.py`: {where}, torch {torch.__version__}, model {name}."]
    return "\n".join(lines) + "\n"


def _in_another(arguments: Sequence[str]) -> str:
    """Run this file in a process of its own: one process holds one engine."""
    done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else f"failed: {' '.join(arguments)}\n{done.stderr[-1000:]}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write. Exits with code 2 without a GPU."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu: the pieces that need no GPU")
    parser.add_argument("--quick", action="store_true", help="the embedded model, once, and no comparison with TRL")
    parser.add_argument("--sleep", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.exit(2, "gpu.py: torch finds no GPU here; --device cpu --quick tries what needs none\n")
    if options.sleep:
        print(sleeping(options.sleep))
        return
    page = report(options.device, options.quick)
    print(page)
    if options.device == "cuda" and not options.quick:
        (RESULTS / "gpu.md").write_text(page)


if __name__ == "__main__":
    main()
