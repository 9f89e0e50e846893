"""Trackers without their packages, and trackers from a file. tests/trackers tries the real packages."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import small_runs
from rlvr.errors import ConfigError, PluginError
from rlvr.registry import registry
from rlvr.run.factories import tracker_factory

MINE = """
import json

class Mine:
    def __init__(self, directory, config):
        self.file = (directory / "mine.jsonl").open("a")

    def log(self, step, metrics):
        self._write({"step": step, "reward": metrics["reward/mean"]})

    def log_samples(self, step, samples):
        for sample in samples:
            self._write(vars(sample))

    def _write(self, row):
        self.file.write(json.dumps(row) + "\\n")

    def close(self):
        self.file.close()
"""


@pytest.mark.parametrize("name", ["wandb", "trackio", "mlflow"])
def test_a_missing_package_is_named_with_its_extra(name: str, tmp_path: Path) -> None:
    if importlib.util.find_spec(name) is not None:
        pytest.fail(f"{name} is installed: this test needs an environment without it")
    with pytest.raises(ConfigError, match=rf"--tracker {name} needs {name}: pip install 'rlvr\[{name}\]'"):
        registry().load("tracker", name)(tmp_path, {})


def test_a_tracker_may_be_a_class_of_a_file(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    config = small_runs.small_config(
        tiny_model, steps=3, eval__questions=0, sampling__max_tokens=3, trackers=[f"{tmp_path / 'mine.py'}:Mine"],
        tracking__samples=2, tracking__every=2,
    )  # fmt: skip
    small_runs.start(config, tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "mine.jsonl").read_text().splitlines()]
    numbers = [row for row in rows if len(row) == 2]
    assert [row["reward"] for row in numbers] == [
        line["reward/mean"] for line in small_runs.metrics_of(tmp_path / "run")
    ]
    samples = [row for row in rows if len(row) > 2]
    assert [row["batch"] for row in samples] == [0, 0, 2, 2]
    assert len({row["prompt"] for row in samples[:2]}) == 2, "one of each group"
    assert {row["verdict"] for row in samples} == {"graded"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere.py:Mine", "there is no file nowhere.py"),
        ("mine.py:Other", "mine.py defines no 'Other'"),
        ("broken.py:Mine", r"broken.py failed: ZeroDivisionError"),
        ("wandbb", "did you mean 'wandb'"),
    ],
)
def test_a_tracker_that_is_not_there_is_refused(
    name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "broken.py").write_text("1 / 0")
    with pytest.raises(PluginError, match=message):
        tracker_factory(name)


def test_a_run_names_its_tracker_by_an_absolute_path(tmp_path: Path, cli: Callable[..., Any]) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    done = cli("train", "--steps", "1", "--tracker", "mine.py:Mine", "--set", "eval.questions=0", "--out", "run",
               "--prompts-per-step", "2", "--group-size", "2", "--set", "verifier.workers=0")  # fmt: skip
    assert done.code == 0, done.err
    assert f"{tmp_path / 'mine.py'}:Mine" in (tmp_path / "run" / "config.yaml").read_text()
