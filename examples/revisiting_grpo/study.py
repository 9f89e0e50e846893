"""The comparison of arXiv 2505.22257 (Mroueh et al.), and further ones, in one command.

    python examples/revisiting_grpo/study.py                            # everything in study.yaml
    python examples/revisiting_grpo/study.py --part paper --seeds 0 1   # a part of it
    python examples/revisiting_grpo/study.py --base FILE.yaml --results DIR   # another model

Every run is a real `rlvr train` in a directory of its own below `--runs`. The command may be killed and started again:
what has ended is not run again, what has begun is resumed. Then it writes into `--results`, for each part, its tables
(`NAME.md`), the drift of its samples by their age (`NAME_drift.md`) and a plot (`NAME.png`).
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from rlvr.run.config import resolve

HERE = Path(__file__).resolve().parent

# Student's t, two-sided 95 %, by degrees of freedom; beyond the table the next smaller entry, which is wider.
T_95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262, 19: 2.093, 29: 2.045}


# --- what is run ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Regime:
    """Settings of a run on top of the base configuration."""

    name: str
    recipe: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    lr: float = 1.0
    """Factor on the base's learning rate."""

    def arguments(self, base: Path) -> list[str]:
        """Arguments of `rlvr train`, besides the base configuration."""
        settings = dict(self.settings)
        if self.lr != 1:
            settings["trainer.lr"] = self.lr * resolve({}, base).trainer.options["lr"]
        pairs = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
        return ["--recipe", self.recipe, *itertools.chain.from_iterable(("--set", pair) for pair in pairs)]


@dataclass(frozen=True)
class Part:
    """A question, and the regimes that answer it; the first is what the others are compared with."""

    name: str
    title: str
    regimes: tuple[str, ...]


def read_study(path: Path) -> tuple[dict[str, Regime], list[Part]]:
    """Return the regimes and the parts of a study."""
    given = yaml.safe_load(path.read_text(encoding="utf-8"))
    regimes = {name: Regime(name, **spec) for name, spec in given["regimes"].items()}
    parts = [Part(name, spec["title"], tuple(spec["regimes"])) for name, spec in given["parts"].items()]
    for part in parts:
        if unknown := set(part.regimes) - regimes.keys():
            raise SystemExit(f"{path}: part {part.name} names {', '.join(sorted(unknown))}, which is no regime")
    return regimes, parts


@dataclass(frozen=True)
class Job:
    """One run."""

    regime: Regime
    seed: int
    base: Path
    directory: Path

    def command(self) -> list[str] | None:
        """Return the command that finishes the run; None if it has finished."""
        train = [sys.executable, "-m", "rlvr", "train"]
        if (self.directory / "done").exists():
            return None
        if (self.directory / "config.yaml").exists():
            return [*train, "--resume", str(self.directory)]
        return [
            *train, "--config", str(self.base), "--seed", str(self.seed), "--out", str(self.directory),
            *self.regime.arguments(self.base),
        ]  # fmt: skip

    def run(self) -> str:
        """Run it unless it is finished; return a line with its outcome."""
        command = self.command()
        if command is None:
            return f"{self.regime.name} seed {self.seed}: was there"
        self.directory.parent.mkdir(parents=True, exist_ok=True)
        log = self.directory.with_suffix(".log")
        with log.open("w") as file:
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            code = subprocess.run(command, stdout=file, stderr=file, env=environment, check=False).returncode
        last = log.read_text().strip().rpartition("\n")[2]
        if code:
            return f"{self.regime.name} seed {self.seed}: FAILED with exit code {code}: {last}"
        (self.directory / "done").touch()
        return f"{self.regime.name} seed {self.seed}: done"


# --- what came of it ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Point:
    """Held-out accuracy of one policy version."""

    gradient_steps: int
    rollouts: int
    sampled: float
    greedy: float


def curve(directory: Path) -> list[Point]:
    """Return the evaluations of a run, from the base model to the end."""
    lines = metrics(directory)
    sampling = yaml.safe_load((directory / "config.yaml").read_text())["sampling"]
    points, sampled = [], 0
    for line in lines:
        before = sampled  # an evaluation is of the policy before the step, but for the last
        sampled += round(sampling["prompts_per_step"] + line.get("refill/groups", 0)) * sampling["group_size"]
        if "eval/accuracy" in line:
            at_end = line is lines[-1] and line["eval/policy_version"] == line["policy_version"]
            points.append(
                Point(
                    line["eval/policy_version"],
                    sampled if at_end else before,
                    line["eval/accuracy"],
                    line["eval/greedy_accuracy"],
                )
            )
    return points


def metrics(directory: Path) -> list[dict[str, Any]]:
    """Return the run's metrics, one mapping per step."""
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with the half-width of its 95 % interval (Student's t); infinite for one seed."""

    mean: float
    half: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Estimate:
        """Return the estimate from one value per seed."""
        n = len(values)
        if n < 2:
            return cls(values[0], math.inf)
        t = T_95[max(degrees for degrees in T_95 if degrees <= n - 1)]
        return cls(statistics.fmean(values), t * statistics.stdev(values) / math.sqrt(n))

    def percent(self, signed: bool = False) -> str:
        """In percent, or percentage points."""
        half = "" if math.isinf(self.half) else f" ± {100 * self.half:.1f}"
        return f"{100 * self.mean:{'+' if signed else ''}.1f}{half}"


@dataclass(frozen=True)
class Result:
    """The runs of one regime, by seed."""

    regime: Regime
    curves: Mapping[int, list[Point]]
    steps: Mapping[int, list[dict[str, Any]]]

    def final(self, kind: str) -> dict[int, float]:
        """Accuracy at the end, by seed; `kind` is `sampled` or `greedy`."""
        return {seed: getattr(points[-1], kind) for seed, points in self.curves.items()}

    def last(self, unit: str) -> int:
        """Return the last `gradient_steps` or `rollouts` of the runs."""
        return min(getattr(points[-1], unit) for points in self.curves.values())

    def at_gradient_steps(self, count: int) -> dict[int, Point]:
        """Return the evaluation nearest to this number of gradient steps, by seed."""
        return {seed: min(points, key=lambda p: abs(p.gradient_steps - count)) for seed, points in self.curves.items()}

    def over_the_run(self) -> dict[int, float]:
        """Sampled accuracy averaged over the rollouts of a run (trapezoids), by seed: how fast it learns."""
        return {
            seed: sum((b.rollouts - a.rollouts) * (a.sampled + b.sampled) / 2 for a, b in itertools.pairwise(points))
            / points[-1].rollouts
            for seed, points in self.curves.items()
        }

    def fall(self) -> dict[int, float]:
        """How far sampled accuracy fell below what it had been at most, by seed: what instability costs."""
        return {
            seed: max(
                best - p.sampled
                for best, p in zip(itertools.accumulate((p.sampled for p in points), max), points, strict=True)
            )
            for seed, points in self.curves.items()
        }

    def mean_of(self, key: str) -> float | None:
        """Return a metric's mean over steps and seeds; None if no step has it."""
        found = [line[key] for lines in self.steps.values() for line in lines if line.get(key) is not None]
        return statistics.fmean(found) if found else None


def result(regime: Regime, jobs: Iterable[Job]) -> Result:
    """Return the result of the finished runs of a regime."""
    done = [job for job in jobs if job.regime == regime and (job.directory / "done").exists()]
    return Result(
        regime,
        {job.seed: curve(job.directory) for job in done},
        {job.seed: metrics(job.directory) for job in done},
    )


def tables(part: Part, results: Sequence[Result]) -> str:
    """The part's results, a row a regime: after equally many batches, and gradient steps where these differ."""
    batches = {len(lines) for each in results for lines in each.steps.values()}
    if len(batches) > 1:
        raise SystemExit(f"part {part.name}: its runs learned from {sorted(batches)} batches")
    steps = [each.last("gradient_steps") for each in results]
    text = [f"**After {batches.pop():,} batches**", "", *at_equal_batches(results)]
    if max(steps) > 1.5 * min(steps):  # a batch without a signal makes no step: a few less are no difference
        text += ["", f"**After {min(steps):,} gradient steps**", "", *at_equal_gradient_steps(results, min(steps))]
    return "\n".join(text)


COLUMNS = (("signal/groups", 100), ("ess/sequence", 100), ("kl/k3", 1000), ("clip/fraction", 100))
"""Metrics of a run, averaged over its steps, and their scale in the table."""


def at_equal_batches(results: Sequence[Result]) -> list[str]:
    """The ends of the runs, and how they went there."""
    first = results[0].regime.name
    lines = [
        f"| regime | seeds | rollouts | sampled, % | against `{first}` | over the run, % | against `{first}` "
        "| fall | greedy, % | signal, % | ESS, % | KL, 10⁻³ | clipped, % |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for each in results:
        cells = [
            f"`{each.regime.name}`",
            str(len(each.curves)),
            f"{each.last('rollouts'):,}",
            *_and_gain(each.final("sampled"), results[0].final("sampled"), each is results[0]),
            *_and_gain(each.over_the_run(), results[0].over_the_run(), each is results[0]),
            _percent(each.fall()),
            _percent(each.final("greedy")),
            *("–" if (value := each.mean_of(key)) is None else f"{scale * value:.1f}" for key, scale in COLUMNS),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def at_equal_gradient_steps(results: Sequence[Result], steps: int) -> list[str]:
    """The policies that had made so many optimizer steps, and what they had seen for it."""
    first = {seed: point.sampled for seed, point in results[0].at_gradient_steps(steps).items()}
    lines = [
        f"| regime | gradient steps | rollouts | sampled, % | against `{results[0].regime.name}` |",
        "|---|---|---|---|---|",
    ]
    for each in results:
        points = each.at_gradient_steps(steps)
        made, seen = ({getattr(point, unit) for point in points.values()} for unit in ("gradient_steps", "rollouts"))
        sampled = {seed: point.sampled for seed, point in points.items()}
        cells = [
            f"`{each.regime.name}`",
            *("–".join(f"{n:,}" for n in sorted({min(found), max(found)})) for found in (made, seen)),
            *_and_gain(sampled, first, each is results[0]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def drift(results: Sequence[Result]) -> str:
    """Return a table of metrics by age of samples: one row per regime, one column per bucket of lag."""
    keys = {key for each in results for lines in each.steps.values() for line in lines for key in line}
    buckets = sorted(
        {key.split("/")[0] for key in keys if key.startswith("lag_")}, key=lambda name: int(name[4:].split("-")[0])
    )
    lines = [
        f"| regime | {' | '.join(f'lag {name[4:]}' for name in buckets)} |",
        f"|---|{'---|' * len(buckets)}",
    ]
    for each in results:
        cells = [f"`{each.regime.name}`"]
        for bucket in buckets:
            kl, ess = each.mean_of(f"{bucket}/kl_k3"), each.mean_of(f"{bucket}/ess_sequence")
            cells.append("–" if kl is None or ess is None else f"{1000 * kl:.2f} · {100 * ess:.0f} %")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _percent(values: Mapping[int, float]) -> str:
    return Estimate.of(list(values.values())).percent()


def _and_gain(values: Mapping[int, float], reference: Mapping[int, float], is_reference: bool) -> tuple[str, str]:
    """The values, and the differences seed by seed."""
    shared = sorted(values.keys() & reference.keys())
    gain = "–" if is_reference else Estimate.of([values[s] - reference[s] for s in shared]).percent(signed=True)
    return _percent(values), gain


def plot(part: Part, results: Sequence[Result], path: Path) -> None:
    """Plot accuracy against gradient steps and against rollouts: the mean over seeds, and its 95 % interval."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, both = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained", sharey=True)
    colors = mpl.colormaps["tab20" if len(results) > 10 else "tab10"]
    for number, each in enumerate(results):
        color = colors(number)
        points = list(zip(*each.curves.values(), strict=False))
        estimates = [Estimate.of([p.sampled for p in at]) for at in points]
        low = [e.mean - (0 if math.isinf(e.half) else e.half) for e in estimates]
        high = [e.mean + (0 if math.isinf(e.half) else e.half) for e in estimates]
        for axes, unit in zip(both, ("gradient_steps", "rollouts"), strict=True):
            x = [statistics.fmean(getattr(p, unit) for p in at) for at in points]
            axes.plot(x, [e.mean for e in estimates], marker=".", color=color, label=each.regime.name)
            axes.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)
    both[0].set(xlabel="gradient steps", ylabel="held-out accuracy, sampled", ylim=(0, 1))
    if max(p.gradient_steps for r in results for points in r.curves.values() for p in points) > 500:
        both[0].set_xscale("symlog", linthresh=200)
        both[0].set_xlim(left=0)
    both[1].set(xlabel="rollouts")
    for axes in both:
        axes.grid(alpha=0.3)
    both[1].legend(loc="lower right", fontsize="small")
    figure.suptitle(part.title)
    figure.savefig(path, dpi=110)
    plt.close(figure)


# --- the command ----------------------------------------------------------------------------------------------------


def main() -> None:
    """Run what is missing, then report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", type=Path, default=HERE / "study.yaml", help="regimes and parts")
    parser.add_argument("--base", type=Path, default=HERE / "embedded.yaml", help="model, data set, hyper-parameters")
    parser.add_argument("--part", action="append", help="only this part; repeatable")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, each on one thread")
    parser.add_argument("--runs", type=Path, default=Path("runs/revisiting_grpo"), help="where the runs go")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="where tables and plots go")
    parser.add_argument("--report-only", action="store_true", help="run nothing")
    arguments = parser.parse_args()
    regimes, parts = read_study(arguments.study)
    if arguments.part:
        if unknown := set(arguments.part) - {part.name for part in parts}:
            raise SystemExit(f"there is no part {', '.join(sorted(unknown))}")
        parts = [part for part in parts if part.name in arguments.part]
    wanted = dict.fromkeys(name for part in parts for name in part.regimes)
    # Seed by seed: a study that is stopped early has a balanced part of everything.
    jobs = [
        Job(regimes[name], seed, arguments.base, arguments.runs / name / f"seed-{seed}")
        for seed in arguments.seeds
        for name in wanted
    ]
    failed = 0
    if not arguments.report_only:
        with ThreadPoolExecutor(arguments.jobs) as pool:
            for number, line in enumerate(pool.map(Job.run, jobs), start=1):
                failed += "FAILED" in line
                print(f"{number}/{len(jobs)} {line}", flush=True)
    arguments.results.mkdir(parents=True, exist_ok=True)
    for part in parts:
        results = [each for name in part.regimes if (each := result(regimes[name], jobs)).curves]
        if not results:
            print(f"{part.name}: no run has ended")
            continue
        text = tables(part, results)
        (arguments.results / f"{part.name}.md").write_text(text + "\n", encoding="utf-8")
        (arguments.results / f"{part.name}_drift.md").write_text(drift(results) + "\n", encoding="utf-8")
        plot(part, results, arguments.results / f"{part.name}.png")
        print(f"\n{part.title}\n\n{text}")
    if failed:
        raise SystemExit(f"{failed} runs failed")


if __name__ == "__main__":
    main()
