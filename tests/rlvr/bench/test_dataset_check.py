"""`rlvr datasets`: what is listed, and what the check of a data set finds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlvr import check_dataset, list_datasets
from rlvr.errors import RequestError

ROWS = [
    {"question": "What is 2+2?", "answer": "4"},
    {"question": "What is  2+2?", "answer": "4"},
    {"question": "Is it 12.75 or 13?", "answer": "12.75"},
    {"question": "What is 3+4?", "answer": "7"},
    {"question": "What is it?", "answer": "\\frac{"},
]


def written(path: Path, rows: list[dict[str, str]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_data_sets_are_listed_with_size_verifier_and_license() -> None:
    listed = {entry.name: entry for entry in list_datasets()}
    gsm8k = listed["gsm8k"]
    assert (dict(gsm8k.rows), gsm8k.verifier, gsm8k.license) == ({"train": 7473, "eval": 1319}, "math", "MIT")
    assert listed["arithmetic"].verifier is None
    assert json.loads(json.dumps(gsm8k.to_dict()))["hub"] == "openai/gsm8k"


def test_the_check_finds_what_is_wrong_with_a_data_set(tmp_path: Path) -> None:
    other = written(tmp_path / "held-out.jsonl", [ROWS[3], {"question": "New?", "answer": "1"}])
    report = check_dataset(written(tmp_path / "rows.jsonl", ROWS), against=[other], workers=0)
    assert (report.rows, report.duplicates, report.leaks, dict(report.shared)) == (5, 1, ("2",), {other: 1})
    assert [fault.gold for fault in (*report.rejected, *report.invalid)] == ["\\frac{"]
    assert report.lengths == {"p50": 12, "p99": 18, "p100": 18}
    assert not report.passed
    assert json.loads(json.dumps(report.to_dict()))["passed"] is False


def test_a_clean_data_set_passes_and_the_verifier_may_be_another(tmp_path: Path) -> None:
    file = written(tmp_path / "rows.jsonl", ROWS[:4])
    assert check_dataset(file, workers=0).passed
    assert check_dataset(file, workers=0, limit=1).rows == 1
    report = check_dataset(file, workers=0, verifier="exact", verifier_options={"answer_in": "line"})
    assert len(report.rejected) == 4  # gold answers are stated in a box
    assert not check_dataset(file, workers=0, verifier="length").self_checked


def test_an_endless_data_set_is_checked_in_part_and_compared_with_nothing(tmp_path: Path) -> None:
    assert check_dataset("arithmetic", workers=0, limit=20).rows == 20
    with pytest.raises(RequestError, match="arithmetic is endless"):
        check_dataset(written(tmp_path / "rows.jsonl", ROWS[:1]), against=["arithmetic"], workers=0)


def test_the_command_prints_the_report_and_exits_with_its_outcome(cli: Callable[..., Any], tmp_path: Path) -> None:
    listed = cli("datasets")
    assert "gpqa" in listed.out
    assert listed.code == 0
    assert {entry["name"] for entry in json.loads(cli("datasets", "--json").out)} >= {"gsm8k", "ifeval"}
    good = cli("datasets", "check", written(tmp_path / "good.jsonl", ROWS[:1]), "--workers", "0")
    assert (good.code, good.out.splitlines()[-1]) == (0, "passed")
    bad = cli("datasets", "check", written(tmp_path / "bad.jsonl", ROWS), "--workers", "0")
    assert (bad.code, bad.out.splitlines()[-1]) == (1, "FAILED")
    assert "row 4: gold '\\\\frac{' -> " in bad.out
    assert cli("datasets", "check", "nowhere.jsonl").code == 2
    assert cli("datasets", "gsm8k").code == 2
    assert json.loads(cli("datasets", "check", "good.jsonl", "--workers", "0", "--json").out)["rows"] == 1
