"""Measure the cost of kills: every mode of training, killed with SIGKILL at random moments and resumed.

    python benchmarks/kills.py               # 20 kills a mode, some fifteen minutes on two quiet cores
    python benchmarks/kills.py --kills 2

A small random model takes twelve steps, once undisturbed and then, for each moment, killed and resumed until it ends;
the moment is uniform over the undisturbed run's duration, and a resumed run may be killed again. Counted are files of
rollouts that were there at a kill and are not there, or not the same, at the end; rollouts that were stored twice; and
runs whose last checkpoint or metrics differ in a single bit from the undisturbed run's. Writes `results/kills.md`
beside itself.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path[:0] = [str(TESTS / "rlvr"), str(TESTS / "fixtures")]

import tiny_model  # noqa: E402

import kill_and_resume as harness  # noqa: E402
import small_runs  # noqa: E402
from rlvr.record.store import read_rollouts  # noqa: E402

RESULTS = Path(__file__).parent / "results"
AGAIN = 0.3  # of the resumed runs that are killed as well


@dataclass
class Tally:
    """Counts over the killed runs of one mode."""

    runs: int = 0
    kills: int = 0
    batches: int = 0
    """Kills that left a half-written file of rollouts behind."""
    checkpoints: int = 0
    """Kills that left a half-written checkpoint behind."""
    lost: int = 0
    twice: int = 0
    differ: int = 0
    seconds: float = 0.0


def kill_after(seconds: float, work: Callable[[], object]) -> bool:
    """Kill the work after some time; return whether it was still running."""
    pid = harness.child(work)
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            if status:
                raise SystemExit("a run failed")
            return False
        time.sleep(0.0005)
    os.kill(pid, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


def stored(run: Path) -> dict[str, bytes]:
    """Return file → content of the stored batches and recomputed records."""
    return {str(file): file.read_bytes() for file in sorted(run.glob("r*/[!.]*.parquet"))}


def disturbed(
    config: small_runs.RunConfig, run: Path, whole: Path, seconds: float, chance: random.Random, tally: Tally
) -> None:
    """Do one run that is killed at least once and then finished."""

    def go_on() -> None:
        # After a kill before the configuration was written there is nothing to resume: the run is started again.
        if (run / "config.yaml").exists():
            small_runs.resume(run)
        else:
            small_runs.start(config, run)

    killed = True
    while killed:
        killed = kill_after(chance.uniform(0, seconds), go_on)
        tally.kills += killed
        tally.batches += any(run.glob("r*/.*.tmp"))
        tally.checkpoints += any(run.glob("checkpoints/.*.tmp"))
        before = stored(run)
        if chance.random() > AGAIN:
            break
    harness.finish(go_on)
    after = stored(run)
    tally.lost += sum(after.get(name) != content for name, content in before.items())

    def judge() -> None:
        ids = [rollout.id for file in sorted(run.glob("rollouts/*.parquet")) for rollout in read_rollouts(file)]
        same = small_runs.final_state(run) == small_runs.final_state(whole) and small_runs.timeless(
            run
        ) == small_runs.timeless(whole)
        verdict.write_text(json.dumps({"twice": len(ids) - len(set(ids)), "differ": int(not same)}))

    verdict = run.with_suffix(".json")
    harness.finish(judge)
    judged = json.loads(verdict.read_text())
    tally.twice += judged["twice"]
    tally.differ += judged["differ"]


def main() -> None:
    """Run all modes and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="at least so many in each mode")
    parser.add_argument("--modes", nargs="+", default=list(harness.MODES), choices=list(harness.MODES))
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    tallies: dict[str, Tally] = {}
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        model = directory / "model"
        harness.finish(lambda: tiny_model.build(model))
        saved = harness.make_saved(model, directory)
        for mode in arguments.modes:
            config = harness.config_of(mode, model, saved)
            (directory / mode).mkdir()
            whole, tally = directory / mode / "whole", Tally()
            began = time.monotonic()
            harness.finish(lambda config=config, whole=whole: small_runs.start(config, whole))  # type: ignore[misc]
            tally.seconds = time.monotonic() - began
            while tally.kills < arguments.kills:  # some end before their moment comes
                disturbed(config, directory / mode / f"run-{tally.runs}", whole, tally.seconds, chance, tally)
                tally.runs += 1
            tallies[mode] = tally
            print(f"{mode}: {tally}", flush=True)
    lines = [
        "| mode | runs | kills | while rollouts were being written | while a checkpoint was "
        "| stored files lost or changed | rollouts stored twice | ends that differ in a bit |",
        "|---|---|---|---|---|---|---|---|",
        *(
            f"| {mode} | {t.runs} | {t.kills} | {t.batches} | {t.checkpoints} | {t.lost} | {t.twice} | {t.differ} |"
            for mode, t in tallies.items()
        ),
        "",
        f"`python benchmarks/kills.py`: twelve steps of a small random model; {platform.machine()}, torch "
        f"{metadata.version('torch')}, Python {platform.python_version()}.",
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    if arguments.kills >= 20 and arguments.modes == list(harness.MODES):
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "kills.md").write_text(text, encoding="utf-8")
    if any(t.lost or t.twice or t.differ for t in tallies.values()):
        raise SystemExit("a kill cost something")


if __name__ == "__main__":
    main()
