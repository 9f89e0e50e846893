"""Metrics of runs as curves: which numbers of `metrics.jsonl` stand where, and what is left out."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from rlvr.errors import RequestError
from rlvr.reports.panels import Panel

Lines: TypeAlias = list[dict[str, Any]]
"""Metrics of a run, one mapping a step."""
SMOOTH_FROM = 40  # steps; shorter runs are not smoothed


def read_metrics(path: Path) -> Lines:
    """Return a run's metrics, one step each, without a last line that is still being written. Raises RequestError."""
    from rlvr.metrics import read_metrics as read_lines

    file = path / "metrics.jsonl" if path.is_dir() else path
    if not file.is_file():
        if not path.exists():
            raise RequestError(f"{path} is no run: it does not exist")
        raise RequestError(f"{path} is no run: there is no {file}")
    lines = list(read_lines(file))
    if not lines:
        raise RequestError(f"{file} holds no step yet")
    return lines


def named_runs(paths: Sequence[Path]) -> dict[str, Path]:
    """Return label → path: the label is the shortest end of each path that is unique."""
    runs = [
        path.parent if path.name == "metrics.jsonl" else path
        for path in (Path(os.path.realpath(path)) for path in paths)
    ]
    for place, run in enumerate(runs):
        if run in runs[:place]:
            raise RequestError(f"{paths[place]} is given twice: name each run once")
    for parts in range(1, max(len(run.parts) for run in runs) + 1):
        names = ["/".join(run.parts[-parts:]) for run in runs]
        if len(set(names)) == len(runs):
            break
    return dict(zip(names, paths, strict=True))


def is_number(value: Any) -> bool:
    """Return True for a number that is no bool."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def has_numbers(panel: Panel, keys: Iterable[str], runs: Mapping[str, Lines]) -> bool:
    """Return True if a run has a number for the panel; of a rare panel, one other than 0."""
    values = [line[key] for key in keys for lines in runs.values() for line in lines if is_number(line.get(key))]
    return any(values) if panel.rare else bool(values)


def points_of(lines: Lines, name: str) -> tuple[list[int], list[float]]:
    """Return steps, counted from 1, and values; NaN where a step has none, which leaves a gap in the line.

    Evaluations happen only at some steps, so their lines connect them. A held-out accuracy is drawn after as many
    batches as its weights have seen.
    """
    there = [line for line in lines if is_number(line.get(name)) or not is_evaluation(name)]
    values = [line[name] if is_number(line.get(name)) else math.nan for line in there]
    return [line["step"] + comes_after(name, line) for line in there], values


def comes_after(name: str, line: Mapping[str, Any]) -> bool:
    """Return True if the value belongs after the step: an evaluation precedes its step, except after the last one."""
    return not is_evaluation(name) or line.get("eval/policy_version") == line.get("policy_version")


def is_evaluation(name: str) -> bool:
    """Return True for a metric of held-out questions."""
    return name.startswith(("eval/", "eval_"))


def buckets_of(runs: Mapping[str, Lines]) -> list[str]:
    """Return the buckets of lag in which the runs have tokens, in order; empty if no run has several."""
    from rlvr.offpolicy.staleness import BUCKETS

    found = [{name.partition("/")[0] for line in lines for name in line} for lines in runs.values()]
    of_runs = [[bucket for bucket in BUCKETS if f"lag_{bucket}" in names] for names in found]
    if max(map(len, of_runs)) < 2:
        return []
    return [bucket for bucket in BUCKETS if any(bucket in of_run for of_run in of_runs)]


def bucket_keys(panel: Panel, buckets: Sequence[str]) -> list[str]:
    """Return the names of a panel's metrics in these buckets of lag."""
    return [f"lag_{bucket}/{name}" for bucket in buckets for name in panel.series]


def mean_of(lines: Lines, key: str) -> float:
    """Return the mean over the steps that have the metric; NaN if none has."""
    values = [line[key] for line in lines if is_number(line.get(key))]
    return math.fsum(values) / len(values) if values else math.nan


def window_of(steps: int) -> int:
    """Return the number of steps to average over: odd, a twentieth of the run."""
    return 1 if steps < SMOOTH_FROM else 2 * (steps // 40) + 1


def smoothed(values: Sequence[float], window: int) -> list[float]:
    """Return the mean over `window` values around each, without those that are NaN; NaN stays NaN."""
    half = window // 2
    smooth = []
    for i, value in enumerate(values):
        around = [v for v in values[max(0, i - half) : i + half + 1] if not math.isnan(v)]
        smooth.append(math.nan if math.isnan(value) else math.fsum(around) / len(around))
    return smooth
