"""Charts of the report as data."""

from __future__ import annotations

import math

from report_runs import metrics
from rlvr.reports.charts import Curve, charts, numbers, thinned


def test_every_run_is_a_curve_of_the_catalogs_metric() -> None:
    (reward,) = charts({"a": [metrics(i) for i in range(3)], "b": [metrics(0)]})
    assert (reward.title, reward.unit, reward.topic) == ("reward", "reward", "learning")
    assert reward.about == "Mean reward of the rollouts that training uses."
    assert [(curve.source, curve.x, curve.y) for curve in reward.curves] == [
        (0, (1, 2, 3), (0.0, 0.1, 0.2)),
        (1, (1,), (0.0,)),
    ]


def test_an_accuracy_has_its_interval_and_stands_where_its_weights_were() -> None:
    eval_ = {"eval/accuracy": 0.5, "eval/accuracy_low": 0.4, "eval/accuracy_high": 0.6, "eval/policy_version": 0}
    last = {**eval_, "eval/accuracy": 0.75, "eval/policy_version": 3}
    lines = [metrics(0, **eval_), metrics(1), metrics(2, **last)]
    accuracy = next(chart for chart in charts({"a": lines}) if chart.title == "held-out accuracy")
    (curve,) = accuracy.curves
    assert (curve.x, curve.y, curve.low, curve.high) == ((0, 3), (0.5, 0.75), (0.4, 0.4), (0.6, 0.6))


def test_metrics_whose_names_depend_on_the_run_have_charts() -> None:
    line = {"eval_gsm8k/accuracy": 0.5, "part/form/reward": 0.2, "dataset_math/reward": 0.3}
    titles = [chart.title for chart in charts({"a": [metrics(0, **line)]})]
    assert titles == ["reward", "held-out accuracy: gsm8k", "part of the reward: form", "reward: math"]


def test_phases_of_one_run_are_stacked_and_steps_of_several_are_lines() -> None:
    lines = [metrics(i, **{"time/train": 2.0, "time/sample": 1.0, "time/sync": 0.0, "time/step": 3.0}) for i in (0, 1)]
    (phases,) = (chart for chart in charts({"a": lines}) if chart.topic == "time")
    assert (phases.kind, [curve.label for curve in phases.curves]) == ("stack", ["sample", "train"])
    (steps,) = (chart for chart in charts({"a": lines, "b": lines}) if chart.topic == "time")
    assert (steps.title, steps.kind, len(steps.curves)) == ("time of a step", "lines", 2)


def test_metrics_by_lag_are_shown_by_bucket_and_over_time() -> None:
    lines = [metrics(0, **{"lag_0/ess_token": 1.0}), metrics(1, **{"lag_1-3/ess_token": 0.5})]
    found = {chart.title: chart for chart in charts({"a": lines})}
    buckets = found["effective sample size by lag"]
    assert (buckets.kind, buckets.ticks) == ("buckets", ("0", "1-3"))
    assert buckets.curves[0].y == (1.0, 0.5)
    over_time = found["effective sample size, over the steps"]
    assert [(curve.label, curve.x, curve.y) for curve in over_time.curves] == [
        ("lag 0", (1,), (1.0,)),
        ("lag 1-3", (2,), (0.5,)),
    ]
    assert over_time.healthy == "≥ 0.9"


def test_a_long_curve_keeps_its_extremes() -> None:
    values = [0.0] * 10_000
    values[4321], values[7654] = 9.0, -9.0
    thin = thinned(Curve(0, "", 0, tuple(range(10_000)), numbers(values)), 100)
    assert len(thin.x) <= 102
    assert (max(v for v in thin.y if v is not None), min(v for v in thin.y if v is not None)) == (9.0, -9.0)
    assert thin.x[thin.y.index(9.0)] == 4321
    assert (thin.x[0], thin.x[-1]) == (0, 9999)


def test_numbers_are_finite_or_gaps() -> None:
    assert numbers([1 / 3, math.nan, math.inf]) == (0.333333, None, None)
