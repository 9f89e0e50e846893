"""Metrics for TensorBoard: `tensorboard --logdir runs` shows every run below that folder. Extra: `tensorboard`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from numbers import Real
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter


class TensorBoard:
    """A `Tracker` that writes each number as a scalar under its own name, and the configuration as text."""

    def __init__(self, directory: Path, config: Mapping[str, Any]) -> None:
        """Write events to `directory/tensorboard`; a resumed run adds a file there."""
        self._directory = directory / "tensorboard"
        self._config = config
        self._writer: SummaryWriter | None = None

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Write one step's numbers at once, because a run may be killed. Other values are left out."""
        if self._writer is None:
            # A resumed run goes back to its checkpoint: events from this step on are void.
            self._writer = SummaryWriter(str(self._directory), purge_step=step)
            text = json.dumps(self._config, indent=2, default=str)
            self._writer.add_text("config", f"```json\n{text}\n```", step)
        for name, value in metrics.items():
            if isinstance(value, Real):
                self._writer.add_scalar(name, float(value), step)
        self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        if self._writer is not None:
            self._writer.close()
