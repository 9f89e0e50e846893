"""Measure how the embedded model learns: both trainers, three seeds, each by `rlvr train`; a table and a plot.

    python benchmarks/learning.py            # about 15 minutes on two quiet cores
    python benchmarks/learning.py --seeds 0

Writes `results/learning.md` and `results/learning.png` beside itself.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

RESULTS = Path(__file__).parent / "results"
TRAINERS = ("grpo", "grpo-off")
COLORS = {"grpo": "tab:blue", "grpo-off": "tab:orange"}
HELD_OUT = 1000


@dataclass
class Learned:
    """One run: its metrics and its duration."""

    trainer: str
    seed: int
    lines: list[dict[str, Any]]
    wall: float

    @property
    def evaluations(self) -> list[dict[str, Any]]:
        """Lines with held-out accuracies, from the base model to the end."""
        return [line for line in self.lines if "eval/accuracy" in line]

    @property
    def training(self) -> float:
        """Seconds of sampling, scoring and training: no start-up, no evaluation."""
        parts = ("time/sample", "time/score", "time/store", "time/train")
        return sum(line.get(part, 0.0) for line in self.lines for part in parts)


def learn(trainer: str, seed: int) -> Learned:
    """Run `rlvr train` on the embedded model by its command line."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = [sys.executable, "-m", "rlvr", "train", "--verifier", "math", "--trainer", trainer]
        command += ["--seed", str(seed), "--out", str(out), "--set", f"eval.questions={HELD_OUT}"]
        began = time.perf_counter()
        subprocess.run(command, check=True)
        wall = time.perf_counter() - began
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return Learned(trainer, seed, lines, wall)


def table(runs: list[Learned]) -> str:
    """Return a Markdown table with one row per run."""
    rows = [
        "| trainer | seed | held-out accuracy, sampled | greedy | steps | training | whole command |",
        "|---|---|---|---|---|---|---|",
    ]
    for run in runs:
        first, last = run.evaluations[0], run.evaluations[-1]
        gained = 100 * (last["eval/accuracy"] - first["eval/accuracy"])
        rows.append(
            f"| `{run.trainer}` | {run.seed} | {first['eval/accuracy']:.1%} → {last['eval/accuracy']:.1%} "
            f"({gained:+.1f} points) | {first['eval/greedy_accuracy']:.1%} → {last['eval/greedy_accuracy']:.1%} "
            f"| {len(run.lines)} | {run.training:.0f} s | {run.wall:.0f} s |"
        )
    return "\n".join(rows)


def plot(runs: list[Learned], path: Path) -> None:
    """Plot held-out accuracy against steps, with one line per run."""
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for run in runs:
        steps = [line["step"] for line in run.evaluations[:-1]] + [len(run.lines)]
        for key, style in (("eval/accuracy", "-"), ("eval/greedy_accuracy", ":")):
            kind = "sampled" if style == "-" else "greedy"
            label = f"{run.trainer}, {kind}" if run.seed == runs[0].seed else None
            axes.plot(
                steps,
                [line[key] for line in run.evaluations],
                style,
                color=COLORS[run.trainer],
                label=label,
                alpha=0.8,
            )
    axes.set(xlabel="step (256 rollouts each)", ylabel=f"accuracy on {HELD_OUT:,} held-out questions", ylim=(0, 1))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    seeds = parser.parse_args().seeds
    runs = [learn(trainer, seed) for trainer in TRAINERS for seed in seeds]
    RESULTS.mkdir(exist_ok=True)
    plot(runs, RESULTS / "learning.png")
    text = (
        f"{table(runs)}\n\n`python benchmarks/learning.py`, {HELD_OUT:,} held-out questions, sampled at temperature 1; "
        f"{platform.machine()}, torch {metadata.version('torch')} on {torch_threads()} threads, Python "
        f"{platform.python_version()}.\n"
    )
    (RESULTS / "learning.md").write_text(text, encoding="utf-8")
    print(text)


def torch_threads() -> int:
    """Return the number of torch's threads."""
    import torch

    return torch.get_num_threads()


if __name__ == "__main__":
    main()
