"""Metrics and samples in the form that trackers take."""

from __future__ import annotations

import json
from collections.abc import Mapping
from numbers import Real
from pathlib import Path
from typing import Any

from rlvr.protocols import TrackedSample

COLUMNS = ("batch", "dataset", "prompt", "completion", "gold", "verdict", "reward")
"""Columns of a table of samples."""


def numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics that are numbers."""
    return {name: float(value) for name, value in metrics.items() if isinstance(value, Real)}


def cells(sample: TrackedSample) -> tuple[Any, ...]:
    """Return a sample's row, in the order of `COLUMNS`."""
    return tuple(getattr(sample, column) for column in COLUMNS)


def run_id(directory: Path) -> str:
    """Return the id of the run in a directory, which a resume keeps."""
    found: str = json.loads((directory / "manifest.json").read_text(encoding="utf-8"))["run_id"]
    return found
