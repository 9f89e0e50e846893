"""Panels of metrics over the steps of a run, for `rlvr plot` and `rlvr report`.

Units, meanings and healthy ranges are those of the catalog (`rlvr.metrics`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from rlvr.metrics import bucket_names, find

Axis: TypeAlias = Literal["linear", "percent", "0-1", "log", "symlog"]
"""percent: starts at 0. 0-1: the whole range, so that 0.999 does not look like a collapse. log, symlog: a spike leaves
the rest readable. symlog takes 0 and negative numbers."""


@dataclass(frozen=True)
class Panel:
    """One diagram of up to three metrics, one line style each."""

    title: str
    series: Mapping[str, str]
    """Metric → label of its line; the first is solid, the second dashed, the third dotted."""
    axis: Axis = "linear"
    smooth: bool = True
    rare: bool = False
    """Left out if it is 0 throughout."""
    topic: str = "learning"
    """Heading that the report shows it under."""

    @property
    def unit(self) -> str:
        """Unit of the axis: that of the first metric in the catalog; empty for a metric that is not in it."""
        found = [find(name) or find(f"lag_0/{name}") for name in self.series]
        return found[0].unit if found and found[0] else ""


PANELS = (
    Panel("reward", {"reward/mean": ""}),
    Panel(
        "held-out accuracy",
        {"eval/accuracy": "sampled", "eval/greedy_accuracy": "greedy"},
        "percent",
        smooth=False,
    ),
    Panel("groups with a signal", {"signal/groups": ""}, "percent"),
    Panel("entropy", {"entropy": ""}, topic="completions"),
    Panel("lag", {"lag/max": "largest", "lag/mean": "mean"}, smooth=False, topic="off-policy data"),
    Panel(
        "effective sample size", {"ess/token": "tokens", "ess/sequence": "sequences"}, "0-1", topic="off-policy data"
    ),
    Panel("KL(α‖π)", {"kl/k3": "k3", "kl/k1": "k1"}, "symlog", topic="off-policy data"),
    Panel("mean (log w)²", {"ratio/log_square": ""}, "symlog", topic="off-policy data"),
    Panel("χ²(π‖α)", {"chi2/token": ""}, "symlog", topic="off-policy data"),
    Panel("largest w", {"ratio/max": ""}, "log", topic="off-policy data"),
    Panel("clipped", {"clip/high": "A > 0", "clip/low": "A ≤ 0"}, "percent", topic="update"),
    Panel("masked or rejected", {"mask/high": "A > 0", "mask/low": "A ≤ 0"}, "percent", rare=True, topic="update"),
    Panel("sampler against trainer, lag 0", {"mismatch/mean": ""}, smooth=False, topic="off-policy data"),
    Panel("KL(π‖reference)", {"kl/reference": ""}, "symlog", topic="update"),
    Panel("length of completions", {"length/mean": "mean", "length/max": "longest"}, topic="completions"),
    Panel("truncated", {"length/truncated": ""}, "percent", topic="completions"),
    Panel(
        "verdicts without a reward",
        {"verdict/unparsed": "unparsed", "verdict/timeout": "timeout", "verdict/abstained": "abstained"},
        "percent",
        topic="completions",
    ),
    Panel("broken verdicts", {"verdict/error": "error", "verdict/invalid": "invalid"}, "percent", topic="completions"),
    Panel("learning rate", {"train/lr": ""}, smooth=False, topic="update"),
    Panel("gradient norm", {"train/grad_norm": ""}, "log", topic="update"),
    Panel("throughput", {"tokens_per_second": ""}, topic="time"),
    Panel("time", {"time/sample": "sample or read", "time/train": "train", "time/score": "score"}, topic="time"),
)
"""The page in reading order: metrics of whole batches over the steps. A panel without any number is left out."""

IN_BUCKET = bucket_names()
"""Metric of a batch → its name within a bucket of lag."""

BY_LAG = tuple(
    replace(panel, series={IN_BUCKET[name]: label for name, label in panel.series.items() if name in IN_BUCKET})
    for panel in PANELS
    if panel.series.keys() & IN_BUCKET.keys()
)
"""Second part of the page, if a run has several buckets of lag: metrics by bucket, mean over the steps that have it."""

APART = ("newer", "unknown")  # buckets without an age, so no line leads to them
