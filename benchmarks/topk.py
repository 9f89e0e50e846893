"""Measure what `sampling.keep_topk` costs: sampling, training on the kept tokens, and bytes on disk.

    python benchmarks/topk.py                # embedded, and a random model with a vocabulary of 152,000; two minutes

Both sides do the same work and take turns; the figures are medians. Writes `results/topk.md` beside itself.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import torch
from against_trl import processor, torch_threads
from random_models import PROMPT_TOKENS, write_model

from rlvr.protocols import GroupRequest, ModelSpec, Prompt, SampledGroup
from rlvr.record.schema import ModelRef, Rollout, SamplingParams, Task
from rlvr.run.groups import Grader
from rlvr.run.models import load_tokenizer
from rlvr.run.sampled import SampleRecorder
from rlvr.store import write_rollouts
from rlvr_trainers.batch import token_columns
from rlvr_trainers.model.policy import Policy
from rlvr_trainers.sampling.hf_sampler import HFSampler, HFSamplerOptions

RESULTS = Path(__file__).parent / "results"
EMBEDDED = Path(__file__).parents[1] / "plugins" / "embedded" / "model"
WORK = {"embedded": (16, 16, 24), "152k": (1, 4, 48)}
"""Number of questions, completions per question, and most tokens of a completion."""
KEEP = 20


def ask(sampler: HFSampler, name: str, path: Path, keep: int) -> list[SampledGroup]:
    """Sample once, with the `keep` likeliest tokens."""
    questions, size, max_tokens = WORK[name]
    tokenizer = load_tokenizer(ModelSpec(str(path)))
    texts = [f"{i}+{i + 1}=" if name == "embedded" else f"{i} plus".rjust(PROMPT_TOKENS, "#") for i in range(questions)]
    params, prompt = SamplingParams(temperature=1.0, max_tokens=max_tokens), Prompt(Task(), text="?")
    ids = [tuple(tokenizer(text)["input_ids"]) for text in texts]
    sampler.submit(
        [GroupRequest(str(i), prompt, one, size, params, ("bench", i), keep_topk=keep) for i, one in enumerate(ids)]
    )
    groups: list[SampledGroup] = []
    while finished := sampler.collect():
        groups += finished
    return groups


def records(groups: list[SampledGroup]) -> list[Rollout]:
    """Return the records of the groups."""
    recorder = SampleRecorder("bench", ModelRef(name="bench"), None, Grader("", {}))
    return [rollout for group in groups for rollout in recorder.records(group)]


def learn(policy: Policy, rollouts: list[Rollout], keep: int) -> None:
    """Compute log-probabilities of the sampled tokens, and of the kept ones if there are any, and their gradients."""
    batch = token_columns(rollouts, ("keep_topk",) if keep else ())
    out = policy.logprobs(batch.token_ids_BT, batch.mask_BT, batch.support)
    loss = out.logprobs_BT.sum()
    if out.kept_BTK is not None:
        loss = loss + out.kept_BTK[out.kept_BTK > -torch.inf].sum()
    loss.backward()  # type: ignore[no-untyped-call]
    policy.discard_gradients()


def seconds(work: Callable[[int], object], rounds: int) -> dict[int, float]:
    """Return the median CPU seconds of `work` without and with kept tokens, by their number."""
    found: dict[int, list[float]] = {0: [], KEEP: []}
    for n in range(rounds + 1):  # the first warms up
        for keep, times in found.items():
            began = time.process_time()
            work(keep)
            if n:
                times.append(time.process_time() - began)
    return {keep: statistics.median(times) for keep, times in found.items()}


def measure(name: str, path: Path, rounds: int) -> str:
    """Return a row of the table."""
    spec = ModelSpec(str(path), device="cpu", dtype="float32")
    sampler = HFSampler(spec, HFSamplerOptions())
    sampling = seconds(lambda keep: ask(sampler, name, path, keep), rounds)
    made = {keep: records(ask(sampler, name, path, keep)) for keep in (0, KEEP)}
    policy = Policy(
        spec, temperature=1.0, betas=(0.9, 0.999), adam_epsilon=1e-8, weight_decay=0.0, gradient_checkpointing=False,
        with_reference=False,
    )  # fmt: skip
    training = seconds(lambda keep: learn(policy, made[keep], keep), rounds)
    tokens = sum(rollout.sampled_tokens for rollout in made[0])
    with tempfile.TemporaryDirectory() as folder:
        size = {}
        for keep, rollouts in made.items():
            write_rollouts(Path(folder) / f"{keep}.parquet", rollouts)
            size[keep] = (Path(folder) / f"{keep}.parquet").stat().st_size / tokens
    return (
        f"| {name} | {tokens:,} | {tokens / sampling[0]:,.0f} → {tokens / sampling[KEEP]:,.0f} tok/s "
        f"({sampling[KEEP] / sampling[0] - 1:+.0%} time) | {training[KEEP] / training[0] - 1:+.0%} time "
        f"| {size[0]:.0f} → {size[KEEP]:.0f} |"
    )


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="how often each side works")
    rounds = parser.parse_args().rounds
    lines = [
        "| model | tokens | sampling | log-probabilities and gradients | bytes a token on disk |",
        "|---|---|---|---|---|",
    ]
    for name in WORK:
        with tempfile.TemporaryDirectory() as folder:
            lines.append(measure(name, EMBEDDED if name == "embedded" else write_model(name, Path(folder)), rounds))
    text = "\n".join(lines) + (
        f"\n\n`python benchmarks/topk.py --rounds {rounds}`: without → with `sampling.keep_topk={KEEP}`, medians of "
        f"CPU time over so many turns; {processor()}, {torch_threads()} threads, torch {metadata.version('torch')}, "
        "float32. Training on kept tokens is the forward and backward pass of their log-probabilities, as score "
        "centering and filtered samples need it.\n"
    )
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "topk.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
