"""Start runs, kill each with SIGKILL at a different moment, resume it, and print the runs' names, MODE/NAME.

    python kill_and_resume.py MODEL DIRECTORY

One process imports all that a run needs once and forks a child for each run, so a run costs a fraction of a second. All
work with tensors and files is the children's: a fork of a process whose libraries have threads may wait for one of them
forever. The benchmark `benchmarks/kills.py` kills the same modes at many random moments.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas
import peft
import torch
from transformers.conversion_mapping import get_checkpoint_conversion_mapping
from transformers.models.auto import tokenization_auto
from transformers.models.qwen2 import modeling_qwen2

import small_runs
from rlvr import files
from rlvr.protocols import SourceRequest
from rlvr.record.store import read_rollouts, write_rollouts
from rlvr.run.config import RunConfig
from rlvr.run.rundir import RunDirectory
from rlvr_plugins.embedded import task
from rlvr_trainers import grpo_off
from rlvr_trainers.model import lora, policy
from rlvr_trainers.policy_gradient import PolicyGradient
from rlvr_trainers.sampling import hf_sampler

torch.set_num_threads(1)  # no thread pool exists when children are forked
# pyarrow imports pandas for its first array.
IMPORTED_ONCE = (task, grpo_off, hf_sampler, lora, policy, modeling_qwen2, tokenization_auto, pandas, peft)

SHORT: dict[str, Any] = {
    "steps": 12, "checkpoint__every": 4, "eval__every": 10, "eval__questions": 2, "sampling__max_tokens": 4,
}  # fmt: skip
OFF: dict[str, Any] = {"trainer": "grpo-off", "trainer__push_every": 10}
MODES: dict[str, dict[str, Any]] = {
    "on-policy": {"trainer": "grpo"},
    "off-policy": OFF,
    "saved": OFF | {"rollouts__files": ["SAVED"], "rollouts__behaviour_model": "MODEL"},
    "mixed": OFF | {"rollouts__files": ["SAVED"], "rollouts__share": 0.34, "rollouts__behaviour_model": "MODEL"},
    "replay": OFF | {"trainer__push_every": 2, "replay__share": 0.34, "replay__capacity": 8, "replay__half_life": 3},
    "async": OFF | {"trainer__push_every": 2, "mode": "async"},
    "refill": OFF | {"sampling__refill": True, "verifier": f"{small_runs.REWARDS}:begins"},
    "curriculum": OFF | {
        "trainer__push_every": 2, "verifier": f"{small_runs.REWARDS}:begins", "dataset__limit": 6,
        "dataset__curriculum": {"low": 0.4, "high": 0.6, "rare": 0.3},
    },
    "several-steps": OFF | {
        "trainer__push_every": 2, "trainer__updates_per_batch": 2, "trainer__mini_batches": 2, "trainer__beta": 0.1,
        "trainer__ref_reset_every": 5, "verifier__workers": 1,
        "trainer__lr_schedule": "cosine", "trainer__lr_floor": 0.1, "trainer__warmup_updates": 3,
        "trainer__weight_decay": 0.1,
    },
    "adapter": OFF | {"trainer__push_every": 3, "trainer__beta": 0.1, "trainer__lora": {"rank": 2, "alpha": 4}},
}  # fmt: skip


def config_of(mode: str, model: Path, saved: Path) -> RunConfig:
    """Return the small run of a mode, with MODEL and SAVED replaced."""
    places = {"SAVED": str(saved), "MODEL": str(model)}

    def placed(value: Any) -> Any:
        if isinstance(value, list):
            return [placed(each) for each in value]
        return places.get(value, value) if isinstance(value, str) else value

    changes = {key: placed(value) for key, value in MODES[mode].items()}
    return small_runs.small_config(model, **(SHORT | changes))


def child(work: Callable[[], object]) -> int:
    """Fork a child that does `work` and exits; return its process id."""
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
    """Send SIGKILL as soon as the condition holds; raise an error if the child ends before."""
    while not reached():
        if os.waitpid(pid, os.WNOHANG)[0]:
            raise SystemExit("the run ended before it could be killed")
        time.sleep(0.0002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def lines(run: Path) -> int:
    """Return the number of metrics lines."""
    file = run / "metrics.jsonl"
    return file.read_text().count("\n") if file.exists() else 0


def finish(work: Callable[[], object]) -> None:
    """Do `work` in a child, to its end."""
    if os.waitpid(child(work), 0)[1] != 0:
        raise SystemExit("a run failed")


def make_saved(model: Path, directory: Path) -> Path:
    """Write the records of a run of four steps, without the log-probabilities of its second step."""
    saved = directory / "saved.parquet"

    def make() -> None:
        small_runs.start(small_runs.small_config(model, steps=4, eval__questions=0), directory / "sampled")
        rollouts = list(read_rollouts(directory / "sampled" / "rollouts"))
        changed = {"behaviour_logprobs": None, "policy_versions": None}
        second = {f"-{position}" for position in range(3, 6)}
        write_rollouts(
            saved, [r.model_copy(update=changed) if r.group_id.endswith(tuple(second)) else r for r in rollouts]
        )

    finish(make)
    return saved


def dies_in(owner: Any, name: str, when: Callable[..., bool], *, after: bool = False) -> None:
    """Make this process end at the first call of `owner.name` for which `when` holds: before the call or, with `after`,
    after it."""
    original = getattr(owner, name)

    def dying(*args: Any) -> Any:
        if when(*args) and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*args)
        if when(*args):
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, dying)


Seen = Callable[[Path], bool]
"""Conditions on a run's directory under which the parent kills the child."""
Installed = Callable[[], None]
"""Function that makes the child kill itself at a certain place."""

WATCHED: dict[str, Seen] = {
    "batch-being-made": lambda run: lines(run) >= 3,
    "last-checkpoint-written": lambda run: (run / "checkpoints" / "step-000012").exists(),
    "before-any-checkpoint": lambda run: lines(run) >= 1,
    "batch-stored": lambda run: (run / "rollouts" / "step-000006.parquet").exists(),
    "after-the-second-push": lambda run: lines(run) >= 11,
}
EXACT: dict[str, Installed] = {
    "checkpoint-half-written": lambda: dies_in(
        PolicyGradient, "save", lambda _, folder: folder.name == ".step-000008.tmp", after=True
    ),
    "sampled-not-stored": lambda: dies_in(RunDirectory, "store", lambda _, step, __: step == 5),
    "batch-half-written": lambda: dies_in(files, "sync", lambda path: path.name.startswith(".step-000005.parquet")),
}
# Every moment off-policy, where most lie between two weight syncs; some of them in the other modes, so that each is
# there. `benchmarks/kills.py` kills all modes at random moments.
MOMENTS: dict[str, tuple[str, ...]] = {
    "on-policy": ("batch-being-made", "checkpoint-half-written"),
    "off-policy": (*WATCHED, *EXACT),
    "saved": ("batch-being-made", "checkpoint-half-written"),
    "mixed": ("last-checkpoint-written", "sampled-not-stored"),
    "replay": ("batch-being-made", "checkpoint-half-written"),
    "async": ("checkpoint-half-written", "sampled-not-stored"),
    "refill": ("batch-being-made", "sampled-not-stored"),
    "curriculum": ("last-checkpoint-written", "sampled-not-stored"),
    "several-steps": ("batch-being-made", "checkpoint-half-written"),
    "adapter": ("last-checkpoint-written", "checkpoint-half-written"),
}


def killed(run: Path, work: Callable[[], object], moment: Seen | Installed, *, exact: bool) -> None:
    """Do `work` in a child that is killed."""
    if not exact:
        kill_when(lambda: moment(run), child(work))  # type: ignore[call-arg]
        return

    def dying() -> None:
        moment()  # type: ignore[call-arg]
        work()

    if not os.WIFSIGNALED(os.waitpid(child(dying), 0)[1]):
        raise SystemExit(f"{run} was not killed")


def remember() -> None:
    """Compute tables once, for all children: the held-out questions, the names of weights."""
    assert task.Arithmetic(SourceRequest(split="eval", seed=0))[0]
    get_checkpoint_conversion_mapping("qwen2")


def main(model: Path, directory: Path) -> None:
    """Run twelve steps in every mode: one run uninterrupted, the others killed and resumed."""
    remember()
    saved = make_saved(model, directory)
    for mode in MODES:
        config = config_of(mode, model, saved)
        (directory / mode).mkdir()
        whole = directory / mode / "whole"
        finish(partial(small_runs.start, config, whole))
        print(f"{mode}/whole", flush=True)
        for name in MOMENTS[mode]:
            run = directory / mode / name
            work = partial(small_runs.start, config, run)
            killed(run, work, (WATCHED | EXACT)[name], exact=name in EXACT)
            finish(partial(small_runs.resume, run))
            print(f"{mode}/{name}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
