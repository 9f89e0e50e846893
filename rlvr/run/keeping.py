"""Weights that a run keeps besides its newest checkpoints: at intervals, and of the best evaluation."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from rlvr.protocols import ModelSpec, Snapshot
from rlvr.run.config import CheckpointConfig
from rlvr.run.model_folder import write_model
from rlvr.run.rundir import BEST, RunDirectory


class Keeper:
    """Decides when weights are saved, and saves those that no run continues from."""

    def __init__(
        self,
        config: CheckpointConfig,
        directory: RunDirectory,
        spec: ModelSpec,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config, self._directory, self._spec, self._clock = config, directory, spec, clock
        self._saved_at = clock()

    def checkpoint_is_due(self, step: int) -> bool:
        """Return True after `every` batches, or after `minutes` since the last checkpoint."""
        minutes = self._config.minutes
        late = minutes is not None and self._clock() - self._saved_at >= 60 * minutes
        return late or step % self._config.every == 0

    def saved(self) -> None:
        """Count the minutes to the next checkpoint from now on."""
        self._saved_at = self._clock()

    def weights(self, step: int, snapshot: Callable[[], Snapshot]) -> None:
        """Save the weights after `step` batches, if they are due; all of them are kept."""
        every = self._config.weights_every
        if every is not None and step % every == 0:
            with self._directory.weights(f"step-{step:06d}") as folder:
                write_model(snapshot(), self._spec, folder, self._config.weights_dtype)

    def best(self, step: int, metrics: Mapping[str, Any], snapshot: Callable[[], Snapshot]) -> None:
        """Save the weights after `step` batches in place of the best ones, if their evaluation is better."""
        name = self._config.best
        value = None if name is None else metrics.get(name)
        before = self._directory.best()
        if value is None or (before is not None and before["value"] >= value):
            return
        with self._directory.weights(BEST) as folder:
            write_model(snapshot(), self._spec, folder, self._config.weights_dtype)
            text = json.dumps({"step": step, "metric": name, "value": value})
            (folder / "best.json").write_text(text + "\n", encoding="utf-8")
