"""Starts runs, kills each with SIGKILL at a moment of its own, resumes it, and prints the runs' names, MODE/NAME.

    python kill_and_resume.py MODEL DIRECTORY

One process imports all that a run needs once and forks a child for each run, so a run costs a fraction of a second. All
work with tensors and files is the children's: a fork of a process whose libraries have threads may wait for one of them
for ever. The benchmark
`benchmarks/kills.py` kills the same modes at many random moments.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas
import runs
import torch
from transformers.conversion_mapping import get_checkpoint_conversion_mapping
from transformers.models.qwen2 import modeling_qwen2

from rlvr.config import RunConfig
from rlvr.protocols import SourceRequest
from rlvr.store import read_rollouts, write_rollouts
from rlvr_plugins.embedded import task
from rlvr_trainers import grpo_off, hf_sampler

torch.set_num_threads(1)  # no thread pool exists when children are forked
IMPORTED_ONCE = (task, grpo_off, hf_sampler, modeling_qwen2, pandas)  # pyarrow imports pandas for its first array

Moment = Callable[[Path], bool]

SHORT: dict[str, Any] = {"steps": 12, "checkpoint__every": 4, "eval__every": 10}
OFF: dict[str, Any] = {"trainer": "grpo-off", "trainer__push_every": 10}
MODES: dict[str, dict[str, Any]] = {
    "on-policy": {"trainer": "grpo"},
    "off-policy": OFF,
    "saved": OFF | {"rollouts__files": ["SAVED"], "rollouts__behaviour_model": "MODEL"},
    "mixed": OFF | {"rollouts__files": ["SAVED"], "rollouts__share": 0.34, "rollouts__behaviour_model": "MODEL"},
    "replay": OFF | {"trainer__push_every": 2, "replay__share": 0.34, "replay__capacity": 8, "replay__half_life": 3},
    "refill": OFF | {"sampling__refill": True, "verifier": f"{runs.REWARDS}:begins"},
}


def config_of(mode: str, model: Path, saved: Path) -> RunConfig:
    """The small run of a mode; MODEL and SAVED in it are these."""
    places = {"SAVED": str(saved), "MODEL": str(model)}
    changes = {
        key: [places.get(each, each) for each in value] if isinstance(value, list) else places.get(value, value)
        for key, value in MODES[mode].items()
    }
    return runs.small_config(model, **(SHORT | changes))


def child(work: Callable[[], object]) -> int:
    """The process id of a fork that does `work` and exits."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
    return pid


def kill_when(reached: Callable[[], bool], pid: int) -> None:
    """SIGKILL as soon as the condition holds; an error when the child ends before."""
    while not reached():
        if os.waitpid(pid, os.WNOHANG)[0]:
            raise SystemExit("the run ended before it could be killed")
        time.sleep(0.0002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def lines(run: Path) -> int:
    """Metrics lines that were written."""
    file = run / "metrics.jsonl"
    return file.read_text().count("\n") if file.exists() else 0


def finish(work: Callable[[], object]) -> None:
    """Does `work` in a child, to its end."""
    if os.waitpid(child(work), 0)[1] != 0:
        raise SystemExit("a run failed")


def make_saved(model: Path, directory: Path) -> Path:
    """Records of a run of four steps, those of its second without log-probabilities."""
    saved = directory / "saved.parquet"

    def make() -> None:
        runs.start(runs.small_config(model, steps=4, eval__questions=0), directory / "sampled")
        rollouts = list(read_rollouts(directory / "sampled" / "rollouts"))
        changed = {"behaviour_logprobs": None, "policy_versions": None}
        write_rollouts(saved, [r.model_copy(update=changed) if "-1-" in r.id else r for r in rollouts])

    finish(make)
    return saved


EVERY_MODE: dict[str, Moment] = {
    "batch-being-made": lambda run: lines(run) >= 3,
    "checkpoint-being-written": lambda run: any(run.glob("checkpoints/.step-000008*")) or lines(run) >= 8,
    "last-checkpoint-written": lambda run: (run / "checkpoints" / "step-000012").exists(),
}
# v = 10: most of these lie between two pushes.
OFF_POLICY = EVERY_MODE | {
    "before-any-checkpoint": lambda run: lines(run) >= 1,
    "batch-being-written": lambda run: any(run.glob("rollouts/.step-000005*")) or lines(run) >= 6,
    "batch-stored": lambda run: (run / "rollouts" / "step-000006.parquet").exists(),
    "after-the-second-push": lambda run: lines(run) >= 11,
}


def remember() -> None:
    """Tables that a process makes once, which every child then has: the held-out questions, the names of weights."""
    assert task.Arithmetic(SourceRequest(split="eval", seed=0))[0]
    get_checkpoint_conversion_mapping("qwen2")


def main(model: Path, directory: Path) -> None:
    """Of every mode, runs of twelve steps: one whole, the others killed and resumed."""
    remember()
    saved = make_saved(model, directory)
    for mode in MODES:
        config = config_of(mode, model, saved)
        (directory / mode).mkdir()
        whole = directory / mode / "whole"
        finish(lambda config=config, whole=whole: runs.start(config, whole))  # type: ignore[misc]
        print(f"{mode}/whole", flush=True)
        for name, moment in (OFF_POLICY if mode == "off-policy" else EVERY_MODE).items():
            run = directory / mode / name
            pid = child(lambda config=config, run=run: runs.start(config, run))  # type: ignore[misc]
            kill_when(lambda run=run, moment=moment: moment(run), pid)  # type: ignore[misc]
            time.sleep(random.random() * 0.01)
            finish(lambda run=run: runs.resume(run))  # type: ignore[misc]
            print(f"{mode}/{name}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
