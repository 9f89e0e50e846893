"""Metrics and samples for trackio: `trackio show --project rlvr` shows them. Extra: `trackio`.

trackio keeps its projects in the folder that `TRACKIO_DIR` names; `TRACKIO_PROJECT` is the project, by default `rlvr`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlvr.errors import ConfigError
from rlvr.protocols import TrackedSample

from .tracking import COLUMNS, cells, numbers


class Trackio:
    """A `SampleTracker` whose runs have the names of their directories."""

    def __init__(self, directory: Path, config: Mapping[str, Any]) -> None:
        """Raises ConfigError if the package is missing. The run is begun when the first step is logged."""
        try:
            import pandas
            import trackio
        except ImportError as error:
            raise ConfigError(f"--tracker trackio needs trackio: pip install 'rlvr[trackio]' ({error})") from error
        self._trackio: Any = trackio
        self._pandas: Any = pandas
        self._directory, self._config = directory, dict(config)
        self._run: Any = None

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Log one step's numbers."""
        self._opened().log(numbers(metrics), step=step)

    def log_samples(self, step: int, samples: Sequence[TrackedSample]) -> None:
        """Log a table `samples`."""
        frame = self._pandas.DataFrame([cells(sample) for sample in samples], columns=list(COLUMNS))
        self._opened().log({"samples": self._trackio.Table(dataframe=frame)}, step=step)

    def close(self) -> None:
        """Write the rest."""
        if self._run is not None:
            self._run.finish()

    def _opened(self) -> Any:
        if self._run is None:
            self._run = self._trackio.init(
                project=os.environ.get("TRACKIO_PROJECT", "rlvr"),
                name=self._directory.name,
                config=self._config,
                resume="allow",
                embed=False,
            )
        return self._run
