"""`rlvr report`: what is gathered, and messages for wrong requests."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rlvr
from report_runs import make_run, metrics
from rlvr.errors import RequestError
from rlvr.reports.headlines import Headline, duration, headlines
from rlvr.reports.settings_table import settings_table
from rlvr.reports.sources import read_sources


@pytest.fixture
def run(tmp_path: Path) -> Path:
    alarm = {"alarm": "ess", "value": 0.05, "threshold": 0.1, "consequence": "warn"}
    lines = [metrics(i, **{"ess/token": 1 - i / 10, "total/samples": 8 * (i + 1)}) for i in range(5)]
    lines[3]["alarms"] = [alarm]
    return make_run(tmp_path / "first", lines, trainer__lr=1e-3, seed=1)


def test_headlines_name_the_worst_and_what_is_healthy(run: Path) -> None:
    (source,) = read_sources([run])
    found = {each.label: each for each in headlines(source)}
    assert found["lowest ESS"] == Headline("lowest ESS", "0.6", "of all steps; healthy: ≥\u00a00.9", "bad")
    assert found["alarms"].value == "1"
    assert (found["steps"].value, found["reward"].value) == ("5", "0.4")


def test_settings_of_runs_beside_each_other(run: Path, tmp_path: Path) -> None:
    other = make_run(tmp_path / "second", [metrics(0)], trainer__lr=1e-3, trainer__beta=0.1, seed=2)
    rows = {row.key: row for row in settings_table(read_sources([run, other]))}
    assert (rows["trainer.lr"].values, rows["trainer.lr"].differs) == (("0.001", "0.001"), False)
    assert (rows["seed"].values, rows["seed"].differs) == (("1", "2"), True)
    assert (rows["trainer.beta"].values, rows["trainer.beta"].differs) == ((None, "0.1"), True)


def test_the_command_and_the_function_write_the_same(run: Path, cli: Callable[..., Any], tmp_path: Path) -> None:
    done = cli("report", run, "--out", "page.html", "--json")
    assert (done.code, done.err) == (0, "")
    told = json.loads(done.out)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert told["file"] == "page.html"
    assert told["bytes"] == len(page.encode())
    assert told["sources"] == ["first"]
    found = rlvr.report(run)
    assert found.file is None
    assert [chart.title for chart in found.charts] == told["charts"]
    assert cli("report", run).out.startswith("report.html: 1 run, ")


def test_a_run_that_has_only_begun_has_a_page(tmp_path: Path) -> None:
    begun = make_run(tmp_path / "begun", [])
    (begun / "metrics.jsonl").unlink()
    found = rlvr.report(begun)
    assert (found.charts, found.headlines) == ((), ((),))
    assert found.html()


def test_a_torn_last_line_is_left_out(run: Path) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "rew')
    (source,) = read_sources([run])
    assert [line["step"] for line in source.metrics] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ([], "no run and no file is given"),
        (["missing"], "missing does not exist"),
        (["first", "first"], "first is given twice"),
    ],
)
def test_wrong_requests(run: Path, paths: list[str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run.parent)
    with pytest.raises(RequestError, match=message):
        rlvr.report(paths)


def test_the_page_ends_in_html(run: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"page\.pdf does not end in \.html"):
        rlvr.report(run, out=tmp_path / "page.pdf")


def test_durations() -> None:
    assert [duration(seconds) for seconds in (44.2, 3600, 7390)] == ["0:44", "1:00:00", "2:03:10"]
