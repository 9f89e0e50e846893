"""Metrics for TensorBoard: `tensorboard --logdir runs` shows every run below that folder. Extra: `tensorboard`."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from rlvr.protocols import TrackedSample

from .tracking import COLUMNS, cells, numbers


class TensorBoard:
    """A `SampleTracker` that writes each number as a scalar under its own name, and configuration and samples as
    text."""

    def __init__(self, directory: Path, config: Mapping[str, Any]) -> None:
        """Write events to `directory/tensorboard`; a resumed run adds a file there."""
        self._directory = directory / "tensorboard"
        self._config = config
        self._writer: SummaryWriter | None = None

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Write one step's numbers at once, because a run may be killed. Other values are left out."""
        writer = self._opened(step)
        for name, value in numbers(metrics).items():
            writer.add_scalar(name, value, step)
        writer.flush()

    def log_samples(self, step: int, samples: Sequence[TrackedSample]) -> None:
        """Write a table `samples`."""
        rows = [COLUMNS, ("---",) * len(COLUMNS), *map(cells, samples)]
        lines = ("| " + " | ".join(_cell(value) for value in row) + " |" for row in rows)
        writer = self._opened(step)
        writer.add_text("samples", "\n".join(lines), step)
        writer.flush()

    def _opened(self, step: int) -> SummaryWriter:
        if self._writer is None:
            # A resumed run goes back to its checkpoint: events from this step on are void.
            self._writer = SummaryWriter(str(self._directory), purge_step=step)
            text = json.dumps(self._config, indent=2, default=str)
            self._writer.add_text("config", f"```json\n{text}\n```", step)
        return self._writer

    def close(self) -> None:
        """Close the event file."""
        if self._writer is not None:
            self._writer.close()


def _cell(value: Any) -> str:
    """Return a value as it is shown in a cell of a Markdown table."""
    return html.escape("" if value is None else str(value)).replace("|", "&#124;").replace("\n", "<br>")
