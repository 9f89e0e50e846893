"""`rlvr.check`: the test bench as one function."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

import rlvr
from rlvr.bench.trials import ATTACK
from rlvr.errors import PluginError, RequestError

MISTAKEN = Path(__file__).parents[1] / "mistaken.py"


def test_a_sound_verifier_passes_quietly_and_gives_a_table(capfd: pytest.CaptureFixture[str]) -> None:
    counts: list[tuple[int, int]] = []
    report = rlvr.check(f"{MISTAKEN}:sound", workers=1, progress=lambda done, total: counts.append((done, total)))
    assert capfd.readouterr() == ("", "")
    assert report.passed
    assert counts[-1][0] == counts[-1][1]
    table = pd.DataFrame(report.rows).set_index("name")
    assert list(table.index) == [check.name for check in report.checks]
    assert table.loc["rewards", "tried"] == report.check("rewards").tried
    assert table.loc["hostile completions", "seconds_p50"] == report.check("hostile completions").latency.p50
    assert json.loads(json.dumps(report.to_dict())) == report.to_dict()


def test_a_check_that_fails_does_not_raise_and_the_limits_are_arguments() -> None:
    cases = MISTAKEN.with_name("mistaken.jsonl")
    report = rlvr.check(f"{MISTAKEN}:anywhere", workers=1, cases=cases)
    assert not report.passed
    faults = {row["name"]: row["faults"] for row in report.rows}
    assert faults[f"{ATTACK}echo of the prompt"] > 0
    assert report.to_dict()["failed"] == [check.name for check in report.failed]
    assert report.check("false positives") in report.failed
    lenient = rlvr.check(f"{MISTAKEN}:anywhere", workers=1, cases=str(cases), max_false_positive_rate=1.0)
    assert lenient.check("false positives") not in lenient.failed


def test_a_wrong_request_is_refused_before_anything_runs() -> None:
    with pytest.raises(RequestError, match="limit needs a prompt set: give dataset as well"):
        rlvr.check("math", limit=3)
    with pytest.raises(RequestError, match="data_files needs a prompt set"):
        rlvr.check("math", data_files=["a.jsonl"])
    with pytest.raises(PluginError, match="there is no verifier 'maths'; did you mean 'math'"):
        rlvr.check("maths")
