"""Measure `mode: async` with sampling and training on a core each, and simulate it with more samplers.

    python benchmarks/async.py                               # embedded and 30M; some ten minutes on two quiet cores
    python benchmarks/async.py --size embedded --steps 5 --rounds 1

The trainer is on the first core and the sampler's process on the second. Three times of each step are known: the whole
step, the sampler's work on a batch (from its records), and the trainer's work, which is all that is neither waiting for
samples nor a weight sync. If the two overlap fully, a step costs the larger of them. One batch is asked for ahead, and
nothing is evaluated. Figures are means over steps, weight syncs included.

The simulation takes these means and applies the rules of `rlvr.run.ahead` to more samplers and fewer
weight syncs; its figures were not measured. Writes `results/async.md` beside itself.
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from against_trl import SIZES, processor, write_settings

from rlvr.record.store import read_rollouts

RESULTS = Path(__file__).parent / "results"
WARM_UP = 2
"""First steps of each run that are not counted."""
STEPS = {"embedded": 40, "30M": 4}
SYNC_BATCHES = {"embedded": 10, "30M": 2}
"""v: batches between two weight syncs."""
TRAINER_CORE, SAMPLER_CORE = 0, 1
"""Places among the cores that this process may use."""
SAMPLERS = (1, 2, 4, 8, 16, 32, 64)
SYNC_EVERY = (1, 2, 5, 10, 20, 50)


@dataclass(frozen=True)
class Costs:
    """Seconds that one batch costs on one core."""

    sample: float
    train: float
    """All but sampling and weight syncs: training, scoring, storing, counting."""
    sync: float
    """A weight sync and its proof."""


# --- measuring: one run in a process of its own ---------------------------------------------------------------------


def one_run(settings: Path, cores: Sequence[int], out: Path) -> None:
    """Train in this process on the first of the cores; the sampler's process, if there is one, is on the last."""
    os.sched_setaffinity(0, {cores[0]})  # before torch counts cores
    import rlvr

    class Pinning(rlvr.TrainReporter):
        """Pins the sampler's process when the first step is done."""

        pinned = False

        def step(self, metrics: Mapping[str, Any], total: int) -> None:
            if not self.pinned and len(cores) > 1:
                pin_sampler(cores[-1])
            self.pinned = True

    rlvr.train(json.loads(settings.read_text()), out=out, reporter=Pinning())


def pin_sampler(core: int) -> None:
    """Pin all threads of the sampler's process, a child of this one, to a core."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    (sampler,) = (each for each in children if "sampler_process" in Path(f"/proc/{each}/cmdline").read_text())
    for thread in os.listdir(f"/proc/{sampler}/task"):
        os.sched_setaffinity(int(thread), {core})


def measured(settings: Path, cores: Sequence[int], folder: Path) -> list[dict[str, float]]:
    """Return the metrics of the counted steps of one run, with `sampling`: the sampler's seconds for the batch."""
    out = folder / "run"
    command = [sys.executable, __file__, "--run", str(settings), str(out), "--cores", *map(str, cores)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    lines = [line for line in lines if "time/step" in line][WARM_UP:]
    for line in lines:
        rollouts = read_rollouts(out / "rollouts" / f"step-{line['step']:06d}.parquet")
        line["sampling"] = sum(rollout.timings.sample or 0.0 for rollout in rollouts if rollout.timings)
    return lines


# --- the simulation -------------------------------------------------------------------------------------------------


def simulate(costs: Costs, samplers: int, sync_every: int, batches: int = 2000) -> tuple[float, float]:
    """Return batches per second, and the largest lag in batches, of a run with so many equal samplers.

    Each sampler works on one batch at a time, and as many batches are asked for ahead as there are samplers. Before a
    weight sync all that was asked for is waited for, as `Ahead.before_sync` does.
    """
    free = [0.0] * samplers
    ready: list[float] = []
    synced_at: list[int] = []
    now, synced, lag = 0.0, 0, 0

    def ask_up_to(batch: int) -> None:
        while len(ready) <= batch:
            begin = max(now, heapq.heappop(free))
            heapq.heappush(free, begin + costs.sample)
            ready.append(begin + costs.sample)
            synced_at.append(synced)

    for batch in range(batches):
        if batch % sync_every == 0:
            if batch:
                ask_up_to(batch + samplers - 1)
                now = max(now, *ready[batch:])
            now += costs.sync
            synced = batch
        ask_up_to(batch + samplers)
        now = max(now, ready[batch])
        lag = max(lag, batch - synced_at[batch])
        now += costs.train
    return batches / now, lag


def simulation_table(costs: Costs) -> list[str]:
    """Return a Markdown table: share of the trainer's own rate, and the largest lag."""
    lines = [
        "| samplers | " + " | ".join(f"v = {v}" for v in SYNC_EVERY) + " |",
        "|---|" + "---|" * len(SYNC_EVERY),
    ]
    for samplers in SAMPLERS:
        cells = []
        for sync_every in SYNC_EVERY:
            rate, lag = simulate(costs, samplers, sync_every)
            cells.append(f"{rate * costs.train:.0%}, {lag}")
        lines.append(f"| {samplers} | " + " | ".join(cells) + " |")
    return lines


def simulations(size: str, costs: Costs) -> list[str]:
    """Return the paragraphs and tables of one size's simulation."""
    slow = Costs(16 * costs.sample, costs.train, costs.sync)
    about = "share of the trainer's own rate, and the largest lag in batches"
    return [
        "",
        f"**Simulated** from these costs, not measured: {size}, each sampler on a core of its own; {about}, with "
        "weight syncs every v batches and as many batches asked for ahead as there are samplers:",
        "",
        *simulation_table(costs),
        "",
        f"**Simulated**: the same if sampling a batch took 16 times as long ({slow.sample:.1f} s):",
        "",
        *simulation_table(slow),
    ]


# --- the table ------------------------------------------------------------------------------------------------------


def compare(size: str, steps: int, rounds: int) -> tuple[str, Costs]:
    """Return the size's row of the table, and its costs."""
    cores = sorted(os.sched_getaffinity(0))
    lines: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as shared:
        settings = json.loads(write_settings(size, Path(shared)).read_text())
        settings |= {"trainer.name": "grpo-off", "trainer.push_every": SYNC_BATCHES[size], "steps": WARM_UP + steps}
        settings |= {"mode": "async", "verifier.workers": 0}  # scoring is the trainer's work, on its core
        file = Path(shared) / "settings.json"
        file.write_text(json.dumps(settings))
        for n in range(rounds):
            print(f"{size}, round {n + 1} of {rounds}", flush=True)
            with tempfile.TemporaryDirectory() as folder:
                lines += measured(file, (cores[TRAINER_CORE], cores[SAMPLER_CORE]), Path(folder))
    step, waiting, sampling = (
        statistics.fmean(line[name] for line in lines) for name in ("time/step", "time/sample", "sampling")
    )
    sync = sum(line.get("time/sync", 0.0) + line.get("time/proof", 0.0) for line in lines) / len(lines)
    training = step - waiting - sync
    lag, bound = max(line["lag/max"] for line in lines), SYNC_BATCHES[size]
    assert lag <= bound, f"lag {lag} is above its bound {bound}"
    row = (
        f"| {size} | {sampling:.3f} s | {training:.3f} s | {sync:.3f} s | {sampling + training + sync:.3f} s | "
        f"{step:.3f} s | {step / max(sampling, training):.2f} | {lag:.0f} (at most {bound}) |"
    )
    return row, Costs(sampling, training, sync * SYNC_BATCHES[size])


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, simulate and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=STEPS, action="append", help="repeatable; both by default")
    parser.add_argument("--steps", type=int, help=f"counted steps of each run, after {WARM_UP} that are not")
    parser.add_argument("--rounds", type=int, default=2, help="runs")
    parser.add_argument("--run", type=Path, nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--cores", type=int, nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.run:
        one_run(options.run[0], options.cores, options.run[1])
        return
    if len(os.sched_getaffinity(0)) < 2:
        parser.error("needs two cores, one for each side")
    lines = [
        "| model | sampling | training | weight sync and proof | their sum | a step "
        "| step / the larger of sampling and training | largest lag |",
        "|---|---|---|---|---|---|---|---|",
    ]
    simulated: list[str] = []
    sizes = options.size or list(STEPS)
    for size in sizes:
        row, costs = compare(size, options.steps or STEPS[size], options.rounds)
        lines.append(row)
        simulated += simulations(size, costs)
    work = (
        f"{size} {SIZES[size].settings['sampling.prompts_per_step']} × {SIZES[size].settings['sampling.group_size']}, "
        f"weights synced every {SYNC_BATCHES[size]} batches"
        for size in sizes
    )
    lines += [
        "",
        f"`{' '.join(['python benchmarks/async.py', *sys.argv[1:]])}`, niceness {os.nice(0)}: means over the steps "
        "of so many runs, each side on "
        f"one core; completions a step: {'; '.join(work)}; {processor()}, torch {metadata.version('torch')}, load "
        f"average {os.getloadavg()[2]:.1f} (all processes). Training includes scoring, storing and counting.",
        *simulated,
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    (RESULTS / "async.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
