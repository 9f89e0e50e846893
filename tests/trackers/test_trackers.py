"""Trackers on their real packages: what a run logs is read back from what they wrote."""

from __future__ import annotations

import json
import os
import sqlite3
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
import wandb
from wandb.proto import wandb_internal_pb2

import small_runs
from rlvr.protocols import SampleTracker
from rlvr.registry import registry

pytestmark = [pytest.mark.filterwarnings("default"), pytest.mark.timeout(300)]
NAMES = ("wandb", "trackio", "mlflow")
COLUMNS = ["batch", "dataset", "prompt", "completion", "gold", "verdict", "reward"]


@pytest.fixture(scope="module")
def run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run of two steps with all trackers, continued to a third."""
    folder = tmp_path_factory.mktemp("runs")
    given = {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "TRACKIO_DIR": str(folder / "trackio")}
    before = dict(os.environ)
    os.environ.update(given)
    config = small_runs.small_config(
        tiny_model, steps=2, eval__questions=2, sampling__max_tokens=3, trackers=list(NAMES), tracking__samples=2,
        tracking__every=2,
    )  # fmt: skip
    small_runs.start(config, folder / "run")
    small_runs.resume(folder / "run", steps=3)
    yield folder / "run"
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="module")
def expected(run: Path) -> list[dict[str, Any]]:
    """The metrics of the run."""
    return small_runs.metrics_of(run)


@pytest.mark.parametrize("name", NAMES)
def test_each_shows_samples(name: str, tmp_path: Path) -> None:
    assert isinstance(registry().load("tracker", name)(tmp_path, {}), SampleTracker)


def wandb_records(file: Path) -> Iterator[Any]:
    """Yield the records of a W&B file: a log of LevelDB behind a header of seven bytes."""
    data, record = file.read_bytes(), b""
    place = 7
    while place + 7 <= len(data):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + 7])
        record += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            found = wandb_internal_pb2.Record()
            found.ParseFromString(record)
            yield found
            record = b""


def test_wandb_has_numbers_configuration_and_tables(run: Path, expected: list[dict[str, Any]]) -> None:
    files = sorted((run / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(files) == 2, "the resumed run adds a file"
    run_id = json.loads((run / "manifest.json").read_text())["run_id"]
    assert {file.stem for file in files} == {f"run-{run_id}"}
    logged: dict[int, dict[str, Any]] = {}
    for file in files:
        for record in wandb_records(file):
            if record.WhichOneof("record_type") == "history":
                items = {
                    item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item
                }
                logged.setdefault(items.get("_step", record.history.step.num), {}).update(items)
    assert [logged[line["step"]]["reward/mean"] for line in expected] == [line["reward/mean"] for line in expected]
    place = logged[0]["samples/path"]
    rows = json.loads(next(run.rglob(place.rpartition("/")[2])).read_text())
    assert rows["columns"] == COLUMNS
    assert len(rows["data"]) == 2
    assert wandb.__version__


def test_trackio_has_numbers_and_tables(run: Path, expected: list[dict[str, Any]]) -> None:
    with sqlite3.connect(run.parent / "trackio" / "rlvr.db") as database:
        found = [json.loads(text) for (text,) in database.execute("SELECT metrics FROM metrics ORDER BY step, id")]
    rewards = [each["reward/mean"] for each in found if "reward/mean" in each]
    assert rewards == pytest.approx([line["reward/mean"] for line in expected])
    tables = [each["samples"] for each in found if "samples" in each]
    assert len(tables) == 2
    assert list(tables[0]["_value"][0]) == COLUMNS


def test_mlflow_has_numbers_configuration_and_tables(run: Path, expected: list[dict[str, Any]]) -> None:
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{run / 'mlflow.db'}")
    (page,) = client.search_runs([client.get_experiment_by_name("rlvr").experiment_id])
    history = client.get_metric_history(page.info.run_id, "reward/mean")
    found = {metric.step: metric.value for metric in history}
    assert found == pytest.approx({line["step"]: line["reward/mean"] for line in expected})
    files = {file.path for file in client.list_artifacts(page.info.run_id)}
    assert files == {"config.json", "samples.json"}
    table = json.loads((next((run / "mlflow").rglob("samples.json"))).read_text())
    assert table["columns"] == COLUMNS
    assert [row[0] for row in table["data"]] == [0, 0, 2, 2]
