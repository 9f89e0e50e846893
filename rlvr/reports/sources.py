"""Sources of a report: run directories, and files of rollouts."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlvr.errors import RequestError
from rlvr.files import expanded
from rlvr.metrics import read_metrics
from rlvr.record.row_files import row_files
from rlvr.reports.curves import Lines, named_runs
from rlvr.run.rundir import EVALUATIONS
from rlvr.settings import read_settings
from rlvr.verify.scoring import DEFAULT_REWARDS

STEP = re.compile(r"step-\d+\.parquet")
"""Names of the files of a run's held-out answers."""


@dataclass(frozen=True)
class ReportSource:
    """A run, or a file of rollouts. A folder of files, and a pattern, is one source."""

    name: str
    path: Path
    files: tuple[Path, ...]
    """Files of rollouts, in order."""
    metrics: Lines = field(default_factory=list)
    """Metrics of a run, one mapping a step."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Resolved configuration of a run, by dotted key."""
    manifest: Mapping[str, Any] = field(default_factory=dict)
    is_run: bool = False

    @property
    def rewards(self) -> Mapping[str, float | None]:
        """Reward of a verdict by status, for those without one of their own; None drops the rollout."""
        rewards: dict[str, float | None] = {status.value: reward for status, reward in DEFAULT_REWARDS.items()}
        for status in rewards:
            if (key := f"verifier.rewards.{status}") in self.settings:
                rewards[status] = self.settings[key]
        return rewards

    @property
    def steps(self) -> int | None:
        """Number of steps that the run is configured for; None if unknown."""
        steps = self.settings.get("steps")
        return steps if isinstance(steps, int) else None

    def version_before(self) -> dict[int, int]:
        """Return step → the trainer's policy version before the step, for steps whose predecessor is known."""
        after = {line["step"]: line.get("policy_version") for line in self.metrics}
        known = {step + 1: version for step, version in after.items() if isinstance(version, int)}
        return {0: 0} | known


def read_sources(paths: Sequence[str | Path]) -> list[ReportSource]:
    """Return the sources that a request names, with the metrics and configuration of runs.

    Raises RequestError for a path that is neither a run nor holds rollouts, and for one that is given twice; DataError
    for metrics that cannot be read.
    """
    if not paths:
        raise RequestError("no run and no file is given: name at least one")
    return [_source(name, path) for name, path in named_runs([Path(path) for path in paths]).items()]


def is_run(path: Path) -> bool:
    """Return True for a run directory: it has a configuration or metrics."""
    return os.path.isfile(path / "config.yaml") or os.path.isfile(path / "metrics.jsonl")


def _source(name: str, path: Path) -> ReportSource:
    run = path.parent if path.name == "metrics.jsonl" else path
    if not is_run(run):
        return ReportSource(name, path, tuple(row_files([path])))
    metrics = run / "metrics.jsonl"
    config = run / "config.yaml"
    return ReportSource(
        name,
        run,
        tuple(rollout_files(run)),
        list(read_metrics(metrics)) if metrics.is_file() else [],
        {key: setting.value for key, setting in read_settings(config).items()} if config.is_file() else {},
        _manifest(run / "manifest.json"),
        is_run=True,
    )


def rollout_files(run: Path) -> list[Path]:
    """Return the files of a run's batches, oldest first; none before the first batch is stored."""
    folder = run / "rollouts"
    return expanded([folder]) if folder.is_dir() and any(folder.glob("*.parquet")) else []


def evaluation_files(run: Path) -> list[Path]:
    """Return the files of a run's held-out answers, oldest first; other files in their folder are not the run's."""
    folder = run / EVALUATIONS
    if not any(folder.glob("*.parquet")):
        return []
    return [file for file in expanded([folder]) if STEP.fullmatch(file.name)]


def step_of(file: Path) -> int:
    """Return the number of batches that the weights had seen, for a file of held-out answers."""
    return int(file.stem.removeprefix("step-"))


def _manifest(file: Path) -> Mapping[str, Any]:
    if not file.is_file():
        return {}
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RequestError(f"{file} is not JSON: {error}") from error
    return manifest if isinstance(manifest, dict) else {}
