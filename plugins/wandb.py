"""Metrics and samples for Weights & Biases. Extra: `wandb`.

`WANDB_MODE=offline` keeps everything in the run's directory; `wandb sync` uploads it later. `WANDB_PROJECT` and
`WANDB_ENTITY` say where it goes; the project is `rlvr` by default.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlvr.errors import ConfigError
from rlvr.protocols import TrackedSample

from .tracking import COLUMNS, cells, numbers, run_id


class WandB:
    """A `SampleTracker` with the run's id, so that a resumed run continues its page."""

    def __init__(self, directory: Path, config: Mapping[str, Any]) -> None:
        """Raises ConfigError if the package is missing. The page is made when the first step is logged."""
        try:
            import wandb
        except ImportError as error:
            raise ConfigError(f"--tracker wandb needs wandb: pip install 'rlvr[wandb]' ({error})") from error
        self._wandb: Any = wandb
        self._directory, self._config = directory, dict(config)
        self._run: Any = None

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Log one step's numbers."""
        self._opened().log(numbers(metrics), step=step)

    def log_samples(self, step: int, samples: Sequence[TrackedSample]) -> None:
        """Log a table `samples`."""
        table = self._wandb.Table(columns=list(COLUMNS), data=[list(cells(sample)) for sample in samples])
        self._opened().log({"samples": table}, step=step)

    def close(self) -> None:
        """Upload the rest."""
        if self._run is not None:
            self._run.finish()

    def _opened(self) -> Any:
        if self._run is None:
            self._run = self._wandb.init(
                dir=self._directory,
                project=os.environ.get("WANDB_PROJECT", "rlvr"),
                name=self._directory.name,
                id=run_id(self._directory),
                resume="allow",
                config=self._config,
            )
        return self._run
