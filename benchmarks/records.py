"""Records end to end: build, write, read back and collate, against pyarrow's own copy of the same file.

    python benchmarks/records.py [--rollouts 256] [--tokens 8192] [--runs 5]

Each run is a process of its own. Times are medians. Peak memory is what the process needs above what it had after its
imports. The records that were built are released before the file is read, as between two steps of training; `build` is
given arrays, as an inference engine returns them, and a second figure shows what Python lists cost.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "records.md"
STAGES = ("build", "write", "read", "collate")
VOCABULARY, GROUP, TEMPERATURE = 150_000, 8, 1.0
GOALS = {"times pyarrow's copy": 4.0, "µs per token": 0.2, "bytes per token": 40.0}
T = TypeVar("T")


# --- what is measured -----------------------------------------------------------------------------------------------


def columns(count: int, tokens: int) -> Iterator[tuple[Any, Any, Any]]:
    """Yield token ids, loss mask and log-probabilities of `count` rollouts. An eighth of each is its prompt."""
    draw = np.random.default_rng(0)
    prompt = tokens // 8
    for _ in range(count):
        ids = draw.zipf(1.2, tokens).clip(max=VOCABULARY - 1).astype(np.int32)
        logprobs = -draw.exponential(0.5, tokens).astype(np.float32)
        logprobs[:prompt] = np.nan
        mask = np.arange(tokens) >= prompt
        for column in (ids, mask, logprobs):
            column.flags.writeable = False
        yield ids, mask, logprobs


def build(given: list[tuple[Any, Any, Any]]) -> list[Any]:
    """Return records of these columns."""
    from rlvr.schema import Rollout, Sampling, VersionRun

    sampling = Sampling(temperature=TEMPERATURE, max_tokens=len(given[0][0]), engine="none", logprob_mode="processed")
    return [
        Rollout(
            id=f"g{i // GROUP}-{i % GROUP}",
            group_id=f"g{i // GROUP}",
            index=i % GROUP,
            group_size=GROUP,
            prompt="1 + 1 = ",
            completion="2",
            token_ids=ids,
            loss_mask=mask,
            behaviour_logprobs=logprobs,
            policy_versions=(VersionRun(version=3, count=len(ids) - len(ids) // 8),),
            sampling=sampling,
            finish_reason="stop",
        )
        for i, (ids, mask, logprobs) in enumerate(given)
    ]


def collated(rollouts: list[Any]) -> Any:
    """Return the batch that a trainer makes of the records."""
    from rlvr.protocols import Group
    from rlvr.schema import GroupStats
    from rlvr_trainers.batch import collate

    groups = [
        Group(tuple(rollouts[i : i + GROUP]), (0.0,) * GROUP, GroupStats(mean=0.0, std=0.0, count=GROUP))
        for i in range(0, len(rollouts), GROUP)
    ]
    return collate(groups, advantage=lambda rewards, stats: list(rewards), temperature=TEMPERATURE)


def status(field: str) -> int:
    """Return bytes of this process, from Linux's `/proc/self/status`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(f"{field}:")))


# --- one run, in a process of its own -------------------------------------------------------------------------------


def timed(times: dict[str, float], name: str, work: Callable[..., T], *arguments: Any) -> T:
    """Return `work(*arguments)`; its seconds go into `times`."""
    began = time.perf_counter()
    result = work(*arguments)
    times[name] = time.perf_counter() - began
    return result


def whole_path(path: Path, count: int, tokens: int) -> dict[str, float]:
    """Return the seconds of each stage and the peak of memory in bytes."""
    from rlvr.store import read_rollouts, write_rollouts

    warm = build(list(columns(GROUP, 16)))  # imports are the interpreter's own
    write_rollouts(path, warm)
    collated(list(read_rollouts(path)))
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM counts from here

    def read() -> list[Any]:
        return list(read_rollouts(path))

    times: dict[str, float] = {}
    given = list(columns(count, tokens))
    rollouts = timed(times, "build", build, given)
    del given
    timed(times, "write", write_rollouts, path, rollouts)
    del rollouts
    back = timed(times, "read", read)
    timed(times, "collate", collated, back)
    times["peak"] = status("VmHWM") - before
    return times


def from_lists(path: Path, count: int, tokens: int) -> dict[str, float]:
    """Return the seconds of building from Python lists."""
    build(list(columns(GROUP, 16)))
    given = [
        (ids.tolist(), mask.tolist(), [None if p != p else p for p in logprobs.tolist()])
        for ids, mask, logprobs in columns(count, tokens)
    ]
    times: dict[str, float] = {}
    timed(times, "lists", build, given)
    return times


def arrow_copy(path: Path, count: int, tokens: int) -> dict[str, float]:
    """Return the seconds that pyarrow takes to read and write the same file."""
    import pyarrow.parquet as pq

    times: dict[str, float] = {}

    def copy() -> None:
        pq.write_table(pq.read_table(path), path.with_suffix(".copy"))

    timed(times, "copy", copy)
    return times


RUNS = {"whole": whole_path, "lists": from_lists, "copy": arrow_copy}


def run(name: str, path: Path, count: int, tokens: int) -> dict[str, float]:
    """Measure in a new process."""
    command = [sys.executable, __file__, "--run", name, str(path), str(count), str(tokens)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


# --- the table ------------------------------------------------------------------------------------------------------


def check(path: Path, count: int, tokens: int) -> None:
    """Raise AssertionError unless the file gives back the records that were written."""
    from rlvr.store import read_rollouts

    assert list(read_rollouts(path)) == build(list(columns(count, tokens))), "the records that came back differ"


def main(count: int, tokens: int, runs: int) -> None:
    """Measure, and write the results."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rollouts.parquet"
        measured = [
            {**run("whole", path, count, tokens), **run("copy", path, count, tokens)}  # in this order: it is the file
            for _ in range(runs)
        ]
        lists = run("lists", path, count, tokens)["lists"]
        check(path, count, tokens)
        size = path.stat().st_size
    total = count * tokens
    medians = {name: statistics.median(each[name] for each in measured) for name in measured[0]}
    seconds = statistics.median(sum(each[stage] for stage in STAGES) for each in measured)
    ratio = statistics.median(sum(each[stage] for stage in STAGES) / each["copy"] for each in measured)
    reached = {
        "times pyarrow's copy": ratio,
        "µs per token": seconds / total * 1e6,
        "bytes per token": medians["peak"] / total,
    }
    lines = [
        "# Records",
        "",
        f"`python benchmarks/records.py --rollouts {count} --tokens {tokens} --runs {runs}` on {os.cpu_count()} cores "
        f"({platform.machine()}), Python {platform.python_version()}. Medians; the file has {size / 2**20:.1f} MiB.",
        "",
        "| stage | seconds | µs per token |",
        "|---|---:|---:|",
        *(f"| {stage} | {medians[stage]:.3f} | {medians[stage] / total * 1e6:.3f} |" for stage in STAGES),
        f"| **all four** | **{seconds:.3f}** | **{seconds / total * 1e6:.3f}** |",
        f"| pyarrow: `read_table` and `write_table` | {medians['copy']:.3f} | {medians['copy'] / total * 1e6:.3f} |",
        f"| build from Python lists instead | {lists:.3f} | {lists / total * 1e6:.3f} |",
        "",
        "| | measured | goal |",
        "|---|---:|---:|",
        *(f"| {name} | {reached[name]:.2f} | {goal:g} |" for name, goal in GOALS.items()),
        "",
    ]
    RESULTS.write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:
        _, _, name, path, count, tokens = sys.argv
        print(json.dumps(RUNS[name](Path(path), int(count), int(tokens))))
    else:
        parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
        parser.add_argument("--rollouts", type=int, default=256)
        parser.add_argument("--tokens", type=int, default=8192)
        parser.add_argument("--runs", type=int, default=5)
        asked = parser.parse_args()
        main(asked.rollouts, asked.tokens, asked.runs)
