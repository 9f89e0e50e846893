"""Numbers at the top of a report."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from rlvr.metrics import find
from rlvr.reports.curves import Lines, is_number
from rlvr.reports.sources import ReportSource


@dataclass(frozen=True)
class Headline:
    """One number with its context."""

    label: str
    value: str
    detail: str = ""
    state: Literal["", "good", "bad"] = ""
    """good or bad if the number is inside or outside its healthy range in the catalog."""


def headlines(source: ReportSource) -> list[Headline]:
    """Return the numbers of a run that a reader wants first; none for a file."""
    if not source.metrics:
        return []
    return [*_learning(source.metrics), *_health(source.metrics), *_cost(source)]


def _learning(lines: Lines) -> Iterator[Headline]:
    for name, label in (("eval/accuracy", "held-out accuracy"), ("eval/greedy_accuracy", "greedy accuracy")):
        found = [line for line in lines if is_number(line.get(name))]
        if found:
            first, last = found[0], found[-1]
            ends = [last.get(f"{name}_{end}") for end in ("low", "high")]
            within = f", 95% interval {ends[0]:.1%} to {ends[1]:.1%}" if all(map(is_number, ends)) else ""
            since = f"from {first[name]:.1%}" if first is not last else "at the start"
            yield Headline(label, f"{last[name]:.1%}", f"{since}{within}")
    tail = max(1, len(lines) // 10)
    rewards = [line["reward/mean"] for line in lines if is_number(line.get("reward/mean"))]
    if rewards:
        last_rewards = rewards[-tail:]
        over = f"mean of the last {len(last_rewards)} steps; " if len(last_rewards) > 1 else ""
        value = math.fsum(last_rewards) / len(last_rewards)
        yield Headline("reward", f"{value:.3g}", f"{over}{rewards[0]:.3g} in the first step")


_WORST = (
    ("ess/token", "lowest ESS", ".3g", min),
    ("kl/k3", "largest KL(α‖π)", ".2g", max),
    ("lag/max", "largest lag", ",.0f", max),
    ("signal/groups", "groups with a signal", ".0%", None),
    ("length/truncated", "truncated", ".1%", None),
)
"""Metric, its label, format, and which of its values is shown; None is the last."""


def _health(lines: Lines) -> Iterator[Headline]:
    for name, label, shown, choose in _WORST:
        values = [line[name] for line in lines if is_number(line.get(name))]
        metric = find(name)
        assert metric is not None
        if values:
            value = values[-1] if choose is None else choose(values)
            low, high = metric.low, metric.high
            bad = (low is not None and value < low) or (high is not None and value > high)
            known = low is not None or high is not None
            healthy = f"; healthy: {metric.healthy}".replace("≥ ", "≥\u00a0").replace("≤ ", "≤\u00a0") if known else ""
            when = "in the last step" if choose is None else "of all steps"
            yield Headline(label, f"{value:{shown}}", f"{when}{healthy}", "bad" if bad else "good" if known else "")


def _cost(source: ReportSource) -> Iterator[Headline]:
    last: dict[str, Any] = source.metrics[-1]
    planned = source.steps
    done = last["step"] + 1
    rest = f"of {planned:,}" if planned and planned != done else "all that were planned" if planned else ""
    yield Headline("steps", f"{done:,}", rest)
    samples, tokens = last.get("total/samples"), last.get("total/tokens")
    seconds, left = last.get("seconds/total"), last.get("seconds/expected")
    if is_number(samples) and is_number(tokens):
        yield Headline("completions", f"{samples:,.0f}", f"{tokens:,.0f} sampled tokens")
    if isinstance(seconds, int | float):
        expected = f"of about {duration(left)}" if isinstance(left, int | float) and planned and done < planned else ""
        yield Headline("time", duration(seconds), expected)
    alarms = sum(len(line.get("alarms") or ()) for line in source.metrics)
    yield Headline("alarms", f"{alarms:,}", "", "bad" if alarms else "good")


def duration(seconds: float) -> str:
    """Return seconds as `0:44` or `2:03:10`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
