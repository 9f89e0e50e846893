"""Files that a request names: their order."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rlvr.files import expanded


@pytest.fixture
def rollouts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The batches of a long run, in their order, with a name that holds a number of 250 digits."""
    monkeypatch.chdir(tmp_path)
    folder = Path("run1/rollouts")
    folder.mkdir(parents=True)
    names = ["step-000002", "step-000010", "step-999999", "step-1000000", "step-1000001", f"step-{'9' * 240}"]
    paths = [folder / f"{name}.jsonl" for name in names]
    for path in reversed(paths):
        path.touch()
    return paths


@pytest.mark.parametrize("given", ["run1/rollouts", "run1/rollouts/*.jsonl", "run*/**/step-*"])
def test_files_of_a_folder_or_pattern_are_in_the_order_of_their_numbers(rollouts: list[Path], given: str) -> None:
    assert expanded([given]) == rollouts


def test_names_that_only_differ_in_zeros_have_an_order(tmp_path: Path) -> None:
    for name in (
        "1.jsonl",
        "01.jsonl",
        "b1.jsonl",
        "a10.jsonl",
        "a2.jsonl",
        "\u00b2.jsonl",
        os.fsdecode(b"\xff.jsonl"),
    ):
        (tmp_path / name).touch()
    names = [path.name for path in expanded([tmp_path])]
    assert names[:5] == ["01.jsonl", "1.jsonl", "a2.jsonl", "a10.jsonl", "b1.jsonl"]


def test_a_run_directory_stands_for_its_rollouts(tmp_path: Path) -> None:
    """Its metrics and manifest are JSON as well, and no rows."""
    (tmp_path / "run" / "rollouts").mkdir(parents=True)
    for name in ("config.yaml", "metrics.jsonl", "manifest.json", "rollouts/step-000000.parquet"):
        (tmp_path / "run" / name).touch()
    assert expanded([tmp_path / "run"]) == [tmp_path / "run" / "rollouts" / "step-000000.parquet"]
