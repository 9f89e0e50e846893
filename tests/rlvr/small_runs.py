"""Small runs for tests: a random model that learns to write digits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from rlvr.alarms import Alarms
from rlvr.run.config import RunConfig, resolve
from rlvr.run.loop import Outcome, Run
from rlvr.run.plan import make_plan
from rlvr.run.reporting import TrainReporter
from rlvr.run.rundir import RunDirectory
from rlvr.settings import command_line_settings

REWARDS = Path(__file__).parent / "rewards.py"
SMALL = {
    "dataset": "arithmetic",
    "verifier": f"{REWARDS}:digits",
    "verifier.workers": 0,
    "trainer.lr": 1e-3,
    "sampling.prompts_per_step": 3,
    "sampling.group_size": 4,
    "sampling.max_tokens": 8,
    "eval.questions": 5,
    "eval.every": 2,
    "checkpoint.every": 2,
    "steps": 6,
    "model.device": "cpu",
}


FAKE = {"alarms__weights__consequence": "none", "alarms__mismatch__consequence": "none"}
"""Changes for runs with a `FakeSampler`, whose log-probabilities are those of no weights."""


NOISY = Alarms.model_validate({"mismatch": {"consequence": "none"}})
"""Alarms for trainers whose rollouts of lag 0 have made-up log-probabilities."""


class Silent(TrainReporter):
    """Reporter that stores its events."""

    def __init__(self) -> None:
        self.lines: list[Mapping[str, Any]] = []

    def step(self, metrics: Mapping[str, Any], total: int) -> None:
        self.lines.append(metrics)

    def stopping(self) -> None:
        self.lines.append({"stopping": True})


def small_config(model: Path, **changes: Any) -> RunConfig:
    """`SMALL` with `changes`, whose keys have `__` for the dot; None takes a key out."""
    given = {**SMALL, "model": str(model), **{key.replace("__", "."): value for key, value in changes.items()}}
    given = {key: value for key, value in given.items() if value is not None}
    named = {f"{k}.name" if k in ("model", "dataset", "verifier", "trainer") else k: v for k, v in given.items()}
    return resolve(command_line_settings([], {key: (key, value) for key, value in named.items()}))


def start(config: RunConfig, path: Path) -> Outcome:
    """Start a new run and finish it."""
    with make_plan(config) as plan, RunDirectory.create(path, plan.config) as directory:
        return Run(plan, directory, Silent()).train()


def resume(path: Path, steps: int | None = None) -> Outcome:
    """Resume a run and finish it, or to another number of steps."""
    with RunDirectory.resume(path) as directory:
        config = directory.config
        if steps is not None:
            config = config.model_copy(update={"steps": steps})
            directory.extend(config)
        with make_plan(config) as plan:
            return Run(plan, directory, Silent()).train()


# Fields of time and place; two runs with the same seed agree in all others.
CLOCKS = ("time/", "tokens_per_second", "seconds/")


def metrics_of(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's metrics."""
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def timeless(path: Path) -> list[dict[str, Any]]:
    """Return the metrics without times."""
    return [{k: v for k, v in line.items() if not k.startswith(CLOCKS)} for line in metrics_of(path)]


def final_state(path: Path) -> dict[str, bytes]:
    """Every weight (the policy's, the sampler's, the reference's, an adapter's) and moment of the newest checkpoint, as
    bytes."""
    with RunDirectory.resume(path) as directory:
        newest = directory.newest_checkpoint()
    assert newest is not None
    folder = newest[1]
    files = sorted(folder.rglob("*.safetensors"))
    state = {f"{file.relative_to(folder)}.{k}": v for file in files for k, v in load_file(file).items()}
    moments = torch.load(folder / "optimizer.pt", weights_only=True)["state"]
    state |= {f"{i}.{k}": v for i, slots in moments.items() for k, v in slots.items()}
    return {name: tensor.numpy().tobytes() for name, tensor in state.items()}
