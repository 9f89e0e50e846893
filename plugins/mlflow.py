"""Metrics and samples for MLflow. Extra: `mlflow`.

They go to the server or store that `MLFLOW_TRACKING_URI` names, and without one into `mlflow.db` in the run's
directory: `mlflow ui --backend-store-uri sqlite:///RUN/mlflow.db` shows them. (MLflow has retired its store of files.)
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlvr.errors import ConfigError
from rlvr.protocols import TrackedSample

from .tracking import COLUMNS, cells, numbers, run_id

EXPERIMENT = "rlvr"
OWN_ID = "rlvr.run_id"
"""Tag by which a resumed run finds its page."""


class MLflow:
    """A `SampleTracker` whose page is found again by the run's id."""

    def __init__(self, directory: Path, config: Mapping[str, Any]) -> None:
        """Raises ConfigError if the package is missing. The page is made when the first step is logged."""
        try:
            import mlflow
        except ImportError as error:
            raise ConfigError(f"--tracker mlflow needs mlflow: pip install 'rlvr[mlflow]' ({error})") from error
        self._mlflow: Any = mlflow
        self._directory, self._config = directory, dict(config)
        self._client: Any = None
        self._page = ""

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Log one step's numbers."""
        self._open()
        now = int(time.time() * 1000)
        found = [self._mlflow.entities.Metric(name, value, now, step) for name, value in numbers(metrics).items()]
        self._client.log_batch(self._page, metrics=found)

    def log_samples(self, step: int, samples: Sequence[TrackedSample]) -> None:
        """Add rows to the table `samples.json`."""
        self._open()
        columns = zip(*(cells(sample) for sample in samples), strict=True)
        table = dict(zip(COLUMNS, map(list, columns), strict=True))
        self._client.log_table(self._page, table, "samples.json")

    def close(self) -> None:
        """Mark the run as finished."""
        if self._client is not None:
            self._client.set_terminated(self._page)

    def _open(self) -> None:
        if self._client is not None:
            return
        own = f"sqlite:///{self._directory.absolute() / 'mlflow.db'}"
        self._client = self._mlflow.MlflowClient(tracking_uri=os.environ.get("MLFLOW_TRACKING_URI", own))
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        experiment = self._client.get_experiment_by_name(name)
        place = None if "MLFLOW_TRACKING_URI" in os.environ else (self._directory.absolute() / "mlflow").as_uri()
        where = self._client.create_experiment(name, place) if experiment is None else experiment.experiment_id
        own_id = run_id(self._directory)
        found = self._client.search_runs([where], f"tags.`{OWN_ID}` = '{own_id}'")
        if found:
            self._page = found[0].info.run_id
            return
        self._page = self._client.create_run(where, run_name=self._directory.name, tags={OWN_ID: own_id}).info.run_id
        self._client.log_dict(self._page, self._config, "config.json")
