"""Charts of the report: panels of the catalog's metrics as plain data, for one or several runs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from rlvr.metrics import Metric, find
from rlvr.reports.curves import (
    Lines,
    bucket_keys,
    buckets_of,
    has_numbers,
    is_number,
    mean_of,
    points_of,
    smoothed,
    window_of,
)
from rlvr.reports.panels import APART, BY_LAG, PANELS, Panel

Numbers: TypeAlias = tuple[float | None, ...]
"""Values of a curve; None leaves a gap."""
MOST_POINTS = 1200
"""Points of a curve, at most. Of more, the smallest and the largest of each stretch are kept."""
DIGITS = 6
"""Significant digits of a value in the page."""
OVER_TIME = ("ess_token", "kl_k3")
"""Metrics by lag that are also drawn over the steps, a curve for each bucket, if there is one run."""


@dataclass(frozen=True)
class Curve:
    """One line of a chart."""

    source: int
    """Place of its run among those of the page."""
    label: str
    """Name of the metric or the bucket of lag; empty if the chart has only one."""
    style: int
    """0 solid, 1 dashed, 2 dotted."""
    x: tuple[float, ...]
    y: Numbers
    smooth: Numbers | None = None
    """Running mean of `y`; None if it is not smoothed."""
    low: Numbers | None = None
    high: Numbers | None = None
    """Ends of the 95 % interval of `y`; None if there is none."""


@dataclass(frozen=True)
class Chart:
    """One diagram, with what its caption says."""

    title: str
    topic: str
    unit: str
    about: str
    """Meaning of each metric, as the catalog says it."""
    axis: Literal["linear", "percent", "0-1", "log", "symlog"]
    curves: tuple[Curve, ...]
    kind: Literal["lines", "stack", "buckets"] = "lines"
    """lines: over the steps. stack: the same, one on top of the other. buckets: over buckets of lag."""
    ticks: tuple[str, ...] = ()
    """Names of the places on the x axis, if they are no numbers."""
    low: float | None = None
    high: float | None = None
    """Ends of the healthy range of the first metric; None if there is none."""
    healthy: str = ""


def charts(runs: Mapping[str, Lines]) -> list[Chart]:
    """Return the charts of some runs in reading order; those without a number are left out."""
    panels = [panel for panel in (*PANELS, *_further(runs)) if panel.title != "time"]
    shown = [_over_steps(panel, runs) for panel in panels if has_numbers(panel, panel.series, runs)]
    return [*shown, *_phases(runs), *_by_lag(runs)]


def _further(runs: Mapping[str, Lines]) -> Iterator[Panel]:
    """Yield panels of metrics whose names depend on the run: named held-out sets, parts of rewards, data sets."""
    names = dict.fromkeys(name for lines in runs.values() for line in lines for name in line)
    for name in names:
        head, _, rest = name.partition("/")
        if head.startswith("eval_") and rest == "accuracy":
            series = {name: "sampled", f"{head}/greedy_accuracy": "greedy"}
            yield Panel(f"held-out accuracy: {head.removeprefix('eval_')}", series, "percent", smooth=False)
        if head == "part" and rest.endswith("/reward"):
            yield Panel(f"part of the reward: {rest.removesuffix('/reward')}", {name: ""})
        if head.startswith("dataset_") and rest == "reward":
            yield Panel(f"reward: {head.removeprefix('dataset_')}", {name: ""})


def _over_steps(panel: Panel, runs: Mapping[str, Lines]) -> Chart:
    curves = [
        _curve(lines, name, source, label, style, panel.smooth)
        for source, lines in enumerate(runs.values())
        for style, (name, label) in enumerate(panel.series.items())
    ]
    return _chart(panel, tuple(curve for curve in curves if any(value is not None for value in curve.y)))


def _curve(lines: Lines, name: str, source: int, label: str, style: int, smooth: bool) -> Curve:
    x, y = points_of(lines, name)
    window = window_of(len(lines)) if smooth else 1
    low, high = _interval(lines, name)
    return thinned(
        Curve(
            source,
            label,
            style,
            tuple(x),
            numbers(y),
            numbers(smoothed(y, window)) if window > 1 else None,
            low,
            high,
        )
    )


def _interval(lines: Lines, name: str) -> tuple[Numbers | None, Numbers | None]:
    """Return the ends of the interval at each point of a metric of held-out questions; None if it has none."""
    there = [line for line in lines if is_number(line.get(name))]
    if not any(is_number(line.get(f"{name}_low")) for line in there):
        return None, None
    low, high = (
        numbers([line[key] if is_number(line.get(key)) else math.nan for line in there])
        for key in (f"{name}_low", f"{name}_high")
    )
    return low, high


def _chart(panel: Panel, curves: tuple[Curve, ...], *, bucket: bool = False) -> Chart:
    metrics = [found for name in panel.series if (found := find(f"lag_0/{name}" if bucket else name))]
    first: Metric | None = metrics[0] if metrics else None
    about = [
        f"{label or metric.name}: {metric.doc}" if len(metrics) > 1 else metric.doc
        for label, metric in zip(panel.series.values(), metrics, strict=False)
    ]
    return Chart(
        panel.title,
        panel.topic,
        panel.unit,
        " ".join(about),
        panel.axis,
        curves,
        low=first.low if first else None,
        high=first.high if first else None,
        healthy=first.healthy if first else "",
    )


def _phases(runs: Mapping[str, Lines]) -> Iterator[Chart]:
    """Yield the time of a step by phase: stacked for one run, the whole step's for several."""
    names = sorted({name for lines in runs.values() for line in lines for name in line if name.startswith("time/")})
    if len(runs) > 1:
        panel = Panel("time of a step", {"time/step": ""}, topic="time")
        if has_numbers(panel, panel.series, runs):
            yield _over_steps(panel, runs)
        return
    series = {name: name.removeprefix("time/") for name in names if name != "time/step"}
    panel = Panel("time by phase", series, smooth=False, topic="time")
    if series and has_numbers(panel, panel.series, runs):
        (lines,) = runs.values()
        curves = [
            thinned(
                Curve(
                    0,
                    label,
                    0,
                    tuple(line["step"] + 1 for line in lines),
                    numbers([line[name] if is_number(line.get(name)) else 0.0 for line in lines]),
                )
            )
            for name, label in series.items()
        ]
        chart = _chart(panel, tuple(curve for curve in curves if any(curve.y)))
        yield replace(chart, kind="stack", about="Seconds of each phase of a step, stacked.")


def _by_lag(runs: Mapping[str, Lines]) -> Iterator[Chart]:
    buckets = buckets_of(runs)
    if not buckets:
        return
    for panel in BY_LAG:
        if not has_numbers(panel, bucket_keys(panel, buckets), runs):
            continue
        if len(runs) == 1:
            (lines,) = runs.values()
            for name in OVER_TIME:
                if next(iter(panel.series)) == name:
                    yield _lag_over_time(panel, name, buckets, lines)
        curves = [
            Curve(
                source,
                label,
                style,
                tuple(range(len(buckets))),
                numbers([mean_of(lines, f"lag_{bucket}/{name}") for bucket in buckets]),
            )
            for source, lines in enumerate(runs.values())
            for style, (name, label) in enumerate(panel.series.items())
        ]
        chart = _chart(panel, tuple(curves), bucket=True)
        yield replace(chart, title=f"{panel.title} by lag", topic="by lag", kind="buckets", ticks=tuple(buckets))


def _lag_over_time(panel: Panel, name: str, buckets: Sequence[str], lines: Lines) -> Chart:
    curves = []
    for bucket in buckets:
        if bucket not in APART:
            # Batches without tokens of this lag are no gaps: the curve connects those that have some.
            there = [line for line in lines if is_number(line.get(f"lag_{bucket}/{name}"))]
            values = [line[f"lag_{bucket}/{name}"] for line in there]
            x = tuple(line["step"] + 1 for line in there)
            smooth = numbers(smoothed(values, window_of(len(lines)))) if window_of(len(lines)) > 1 else None
            curves.append(thinned(Curve(0, f"lag {bucket}", 0, x, numbers(values), smooth)))
    chart = _chart(replace(panel, series={name: ""}), tuple(curves), bucket=True)
    return replace(chart, title=f"{panel.title}, over the steps", topic="by lag")


# --- numbers for the page ---------------------------------------------------------------------------------------------


def numbers(values: Sequence[float]) -> Numbers:
    """Return the values with `DIGITS` significant digits; None for those that are not finite."""
    return tuple(float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None for value in values)


def thinned(curve: Curve, most: int = MOST_POINTS) -> Curve:
    """Return the curve with at most `most` points: of each stretch, those with the smallest and the largest value."""
    count = len(curve.x)
    if count <= most:
        return curve
    stretches = max(1, most // 2)
    kept: set[int] = {0, count - 1}
    for place in range(stretches):
        stretch = range(place * count // stretches, (place + 1) * count // stretches)
        known = [(value, i) for i in stretch if (value := curve.y[i]) is not None]
        kept |= {min(known)[1], max(known)[1]} if known else {stretch[0]}
    at = sorted(kept)

    def taken(values: Numbers | None) -> Numbers | None:
        return None if values is None else tuple(values[i] for i in at)

    return replace(
        curve,
        x=tuple(curve.x[i] for i in at),
        y=tuple(curve.y[i] for i in at),
        smooth=taken(curve.smooth),
        low=taken(curve.low),
        high=taken(curve.high),
    )
