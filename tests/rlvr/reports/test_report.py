"""`rlvr report`: what is gathered, and messages for wrong requests."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rlvr
from report_runs import make_run, metrics, rollout, score
from rlvr.errors import RequestError
from rlvr.reports.browsing import Budget
from rlvr.reports.headlines import Headline, duration, headlines
from rlvr.reports.report import gather
from rlvr.reports.settings_table import settings_table
from rlvr.reports.sources import read_sources


@pytest.fixture
def run(tmp_path: Path) -> Path:
    alarm = {"alarm": "ess", "value": 0.05, "threshold": 0.1, "consequence": "warn"}
    lines = [metrics(i, **{"ess/token": 1 - i / 10, "total/samples": 8 * (i + 1)}) for i in range(5)]
    lines[3]["alarms"] = [alarm]
    return make_run(tmp_path / "first", lines, trainer__lr=1e-3, seed=1)


@pytest.mark.parametrize("text", ["", '{"a": 1}\n'])
def test_a_file_without_rollouts_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "rows.jsonl").write_text(text)
    with pytest.raises(RequestError, match=r"rows\.jsonl holds no rollouts"):
        rlvr.report(tmp_path / "rows.jsonl", out=tmp_path / "page.html")


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


def test_a_page_that_would_be_too_large_holds_fewer_rollouts_and_says_so(tmp_path: Path) -> None:
    batches = [
        [rollout(f"g{step}-{i}", 0, f"{i} {step} text", score("math", 1.0)) for i in range(20)] for step in range(5)
    ]
    run = make_run(tmp_path / "run", [metrics(i) for i in range(5)], batches)
    whole = gather([run])
    part = gather([run], most_bytes=sum(map(len, whole.packed.values())) // 2, budget=Budget(rollouts=100))
    assert (whole.shown.count, part.shown.total) == (100, 100)
    assert 0 < part.shown.count <= 50
    assert set(part.shown.rows["step"]) == {1, 2, 3, 4, 5}  # of every step
    assert list(part.lines())[1].startswith(f"rollouts: {part.shown.count} of 100, whole groups")
