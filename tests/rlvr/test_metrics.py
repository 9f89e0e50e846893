"""The catalog of metrics against what real runs log, what plots and alarms read, and what the documents say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import small_runs
from rlvr.alarms import RULES
from rlvr.metrics import BY_NAME, CATALOG, Metric, bucket_names, find, table
from rlvr.offpolicy.staleness import BUCKETS
from rlvr.record.schema import Status
from rlvr.reports.panels import BY_LAG, PANELS
from rlvr.run.loop import Run
from rlvr.run.plan import make_plan
from rlvr.run.rundir import RunDirectory
from rlvr.testing import FakeSampler, FakeSamplerOptions

DOCUMENT = Path(__file__).parents[2] / "docs" / "instruments.md"


@pytest.fixture(scope="module")
def logged(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Every name in the metrics of runs that use every source of groups and every option that logs something."""
    folder = tmp_path_factory.mktemp("runs")
    config = small_runs.small_config(
        tiny_model,
        recipe="m2po",
        verifier=f"{small_runs.REWARDS}:digits:1.0",
        trainer__beta=0.01,
        trainer__normalize_parts=True,
        verifier__shadow=["math"],
        verifier__shadow_share=1.0,
        trainer__push_every=2,
        rollouts__single_version=True,
        sampling__refill=True,
        sampling__refill_rounds=1,
        dataset__limit=6,
        dataset__curriculum={},
        replay__share=0.34,
        steps=4,
        eval__questions=1,
        eval__samples=2,
        eval__sets={"more": {"dataset": "arithmetic", "questions": 1}},
    )
    small_runs.start(config, folder / "sampled")
    config = small_runs.small_config(
        tiny_model,
        trainer="grpo-off",
        verifier=f"{small_runs.REWARDS}:digits:1.0",
        rollouts__files=[str(folder / "sampled")],
        rollouts__share=0.5,
        dataset=None,
        dataset__mix=["arithmetic:1"],
        steps=1,
        eval__questions=0,
    )
    small_runs.start(config, folder / "mixed")
    config = small_runs.small_config(
        tiny_model, mode="async", trainer="grpo-off", steps=1, eval__questions=0, **small_runs.FAKE
    )
    with make_plan(config) as plan, RunDirectory.create(folder / "async", plan.config) as directory:
        fake = replace(plan, sampler=FakeSampler, sampler_options=FakeSamplerOptions())
        Run(fake, directory, small_runs.Silent()).train()
    lines = [line for name in ("sampled", "mixed", "async") for line in small_runs.metrics_of(folder / name)]
    return {name for line in lines for name in line}


def test_a_run_logs_nothing_that_the_catalog_lacks(logged: set[str]) -> None:
    assert sorted(name for name in logged if find(name) is None) == []


def test_every_entry_of_the_catalog_is_logged(logged: set[str]) -> None:
    assert [metric.name for metric in CATALOG if not any(map(metric.matches, logged))] == []


def test_every_metric_by_lag_is_logged_by_lag_and_no_other(logged: set[str]) -> None:
    only_by_lag = {metric.name.partition("/")[2] for metric in CATALOG if metric.name.startswith("lag_{bucket}")}
    found = {name.partition("/")[2] for name in logged if name.startswith("lag_")}
    assert found == {*bucket_names().values(), *only_by_lag}


def test_names_are_unique_and_texts_are_short() -> None:
    assert len(BY_NAME) == len(CATALOG)
    for metric in CATALOG:
        assert metric.doc.endswith("."), metric.name
        assert "\n" not in metric.doc
        assert len(metric.doc) <= 70, f"{metric.name}: a table cell is short"
        assert metric.unit


def test_every_status_of_a_verdict_is_in_the_catalog() -> None:
    assert {f"verdict/{status.value}" for status in Status} <= BY_NAME.keys()


def test_plots_and_alarms_read_metrics_of_the_catalog() -> None:
    assert [name for panel in PANELS for name in panel.series if name not in BY_NAME] == []
    assert [name for rule in RULES.values() for name in rule.metrics if name not in BY_NAME] == []
    assert [name for panel in BY_LAG for name in panel.series if find(f"lag_0/{name}") is None] == []
    assert all(panel.unit for panel in (*PANELS, *BY_LAG))


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("ess/token", "ess/token"),
        *((f"lag_{bucket}/ess_token", "ess/token") for bucket in BUCKETS),
        ("lag_4-7/share", "lag_{bucket}/share"),
        ("lag_4-7/nothing", None),
        ("ess/tokens", None),
        ("lag_/share", None),
    ],
)
def test_a_name_is_found_in_any_bucket(name: str, entry: str | None) -> None:
    found = find(name)
    assert (found.name if found else None) == entry


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [(None, None, ""), (0.9, None, "≥ 0.9"), (None, 10, "≤ 10"), (None, 0, "0"), (0.99, 1.01, "0.99 to 1.01")],
)
def test_a_healthy_range_is_said_in_words(low: float | None, high: float | None, words: str) -> None:
    metric: Any = Metric("a", "b", "C.", low=low, high=high)
    assert metric.healthy == words


def test_the_document_has_the_catalog() -> None:
    assert "\n".join(table()) in DOCUMENT.read_text(encoding="utf-8"), "python docs/refresh.py docs/instruments.md"
