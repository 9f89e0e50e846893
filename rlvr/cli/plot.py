"""`rlvr plot`: metrics of one or several runs on one page."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import typer

from rlvr.cli.json_output import print_json
from rlvr.errors import RequestError, nearest
from rlvr.metrics import bucket_names, find

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = (".png", ".pdf", ".svg")
# Okabe and Ito's palette, which people with any color vision can tell apart, and three darker colors of Paul Tol's.
# Black is for text.
COLORS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F"),
    *("#332288", "#882255", "#999933"),
)
MARKERS = (".", "s", "^", "D")
LOOKS = tuple((color, marker) for marker in MARKERS for color in COLORS)
"""Color and marker of each run, by its position. Markers differ once the colors are used up; the line style says which
metric of the panel it is."""
STYLES = ("-", "--", ":")
COLUMNS = 6
SMOOTH_FROM = 40  # steps; shorter runs are not smoothed
THIN_UP_TO = 6  # runs; the single steps of more runs would hide the means
LINEAR_BELOW = 1e-4  # on a symlog axis; closer to 0 is as good as on-policy

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
    Panel("entropy", {"entropy": ""}),
    Panel("lag", {"lag/max": "largest", "lag/mean": "mean"}, smooth=False),
    Panel("effective sample size", {"ess/token": "tokens", "ess/sequence": "sequences"}, "0-1"),
    Panel("KL(α‖π)", {"kl/k3": "k3", "kl/k1": "k1"}, "symlog"),
    Panel("mean (log w)²", {"ratio/log_square": ""}, "symlog"),
    Panel("χ²(π‖α)", {"chi2/token": ""}, "symlog"),
    Panel("largest w", {"ratio/max": ""}, "log"),
    Panel("clipped", {"clip/high": "A > 0", "clip/low": "A ≤ 0"}, "percent"),
    Panel("masked or rejected", {"mask/high": "A > 0", "mask/low": "A ≤ 0"}, "percent", rare=True),
    Panel("sampler against trainer, lag 0", {"mismatch/mean": ""}, smooth=False),
    Panel("KL(π‖reference)", {"kl/reference": ""}, "symlog"),
    Panel("length of completions", {"length/mean": "mean", "length/max": "longest"}),
    Panel("truncated", {"length/truncated": ""}, "percent"),
    Panel(
        "verdicts without a reward",
        {"verdict/unparsed": "unparsed", "verdict/timeout": "timeout", "verdict/abstained": "abstained"},
        "percent",
    ),
    Panel("broken verdicts", {"verdict/error": "error", "verdict/invalid": "invalid"}, "percent"),
    Panel("learning rate", {"train/lr": ""}, smooth=False),
    Panel("gradient norm", {"train/grad_norm": ""}, "log"),
    Panel("throughput", {"tokens_per_second": ""}),
    Panel("time", {"time/sample": "sample or read", "time/train": "train", "time/score": "score"}),
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
Lines: TypeAlias = list[dict[str, Any]]


def plot(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run directories, or metrics.jsonl files.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write: .png, .pdf or .svg.")] = Path("plot.png"),
    metrics: Annotated[
        str | None, typer.Option(help="Only these metrics, one panel each, e.g. reward/mean,kl/k3.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Plot the metrics of one or more runs on one page."""
    if out.suffix not in FORMATS:
        raise RequestError(f"--out {out} ends in none of {', '.join(FORMATS)}: the suffix decides the format")
    lines = {name: read_metrics(path) for name, path in _names(runs).items()}
    panels = PANELS if metrics is None else chosen([name.strip() for name in metrics.split(",")], lines)
    try:
        import matplotlib as mpl
    except ImportError:
        raise RequestError("rlvr plot needs matplotlib: pip install 'rlvr[plot]'") from None
    from rlvr.files import replacing

    mpl.use("Agg")  # no window and no display
    page = draw(lines, panels, by_lag=metrics is None)
    with replacing(out) as temporary:
        page.savefig(temporary, format=out.suffix[1:], dpi=110)
    if as_json:
        print_json({"file": str(out), "panels": len(page.axes), "runs": list(lines)})
    else:
        print(f"{out}: {len(page.axes)} panels of {len(lines)} run{'s' if len(lines) > 1 else ''}")


def read_metrics(path: Path) -> Lines:
    """Return a run's metrics, one step each, without a last line that is still being written. Raises RequestError."""
    from rlvr.metrics import read_metrics as read_lines

    file = path / "metrics.jsonl" if path.is_dir() else path
    if not file.is_file():
        if not path.exists():
            raise RequestError(f"{path} is no run: it does not exist")
        raise RequestError(f"{path} is no run: there is no {file}")
    lines = list(read_lines(file))
    if not lines:
        raise RequestError(f"{file} holds no step yet")
    return lines


def _names(paths: Sequence[Path]) -> dict[str, Path]:
    """Return label → path: the label is the shortest end of each path that is unique."""
    runs = [
        path.parent if path.name == "metrics.jsonl" else path
        for path in (Path(os.path.realpath(path)) for path in paths)
    ]
    for place, run in enumerate(runs):
        if run in runs[:place]:
            raise RequestError(f"{paths[place]} is given twice: name each run once")
    if len(runs) > len(LOOKS):
        raise RequestError(f"a page has room for {len(LOOKS)} runs, these are {len(runs)}: plot fewer at a time")
    for parts in range(1, max(len(run.parts) for run in runs) + 1):
        names = ["/".join(run.parts[-parts:]) for run in runs]
        if len(set(names)) == len(runs):
            break
    return dict(zip(names, paths, strict=True))


def chosen(names: Sequence[str], runs: Mapping[str, Lines]) -> list[Panel]:
    """Return a panel per name, with its axis on the whole page. Raises RequestError for a name that no run has."""
    known = {name for lines in runs.values() for line in lines for name, value in line.items() if _is_number(value)}
    for name in names:
        if name not in known:
            near = known if name.startswith("lag_") else {each for each in known if not each.startswith("lag_")}
            raise RequestError(f"--metrics: no run has {name!r}{nearest(name, near)}")
    return [replace(_of(name), title=name, series={name: ""}, rare=False) for name in names]


def _of(name: str) -> Panel:
    panels, key = (BY_LAG, name.partition("/")[2]) if name.startswith("lag_") else (PANELS, name)
    return next((panel for panel in panels if key in panel.series), Panel(name, {}))


# --- drawing ----------------------------------------------------------------------------------------------------------


def draw(runs: Mapping[str, Lines], panels: Sequence[Panel], *, by_lag: bool) -> Figure:
    """Return the page: `panels` over the steps with a color per run, then alarms, then the same metrics by lag if a run
    has several buckets."""
    from matplotlib.figure import Figure

    shown = [panel for panel in panels if _worth(panel, panel.series, runs)]
    alarmed = by_lag and any(line.get("alarms") for lines in runs.values() for line in lines)
    buckets = _buckets(runs)
    aged = [panel for panel in BY_LAG if _worth(panel, _keys(panel, buckets), runs)] if by_lag and buckets else []
    if not (shown or alarmed or aged):
        raise RequestError("there is nothing to draw: no run has a number for any panel; name some with --metrics")
    columns = min(COLUMNS, max(len(shown) + alarmed, len(aged)))
    rows, more_rows = math.ceil((len(shown) + alarmed) / columns), math.ceil(len(aged) / columns)
    figure = Figure(figsize=(3.6 * columns, 2.5 * (rows + more_rows) + 0.6), layout="constrained")
    grid = figure.add_gridspec(rows + more_rows, columns)
    for place, panel in enumerate(shown):
        _over_steps(figure.add_subplot(grid[divmod(place, columns)]), panel, runs)
    if alarmed:
        _alarms(figure.add_subplot(grid[divmod(len(shown), columns)]), runs)
    for place, panel in enumerate(aged, start=rows * columns):
        _by_lag(figure.add_subplot(grid[divmod(place, columns)]), panel, runs, buckets)
    _legend(figure, list(runs))
    return figure


def _over_steps(axes: Axes, panel: Panel, runs: Mapping[str, Lines]) -> None:
    for (color, marker), lines in zip(LOOKS, runs.values(), strict=False):
        for style, name in zip(STYLES, panel.series, strict=False):
            x, y = _points(lines, name)
            window = _window(len(lines)) if panel.smooth else 1
            if window > 1 and len(runs) <= THIN_UP_TO:
                axes.plot(x, y, style, color=color, alpha=0.2, linewidth=0.8)
            marked = _marked(y, _every(name, marker, len(y)))
            axes.plot(x, _smooth(y, window), style, color=color, marker=marker, markersize=4, markevery=marked)
    _dress(axes, panel, panel.title, "step")
    _whole_numbers(axes)


def _by_lag(axes: Axes, panel: Panel, runs: Mapping[str, Lines], buckets: Sequence[str]) -> None:
    for (color, marker), lines in zip(LOOKS, runs.values(), strict=False):
        for style, name in zip(STYLES, panel.series, strict=False):
            points: list[tuple[int, float]] = []
            for place, bucket in enumerate(buckets):
                if bucket in APART:
                    points.append((place, math.nan))
                points.append((place, _mean(lines, f"lag_{bucket}/{name}")))
            axes.plot(*zip(*points, strict=True), style, color=color, marker=marker, markersize=4)
    _dress(axes, panel, f"{panel.title} by lag", "lag, optimizer steps; mean over the run")
    axes.set_xlim(-0.4, len(buckets) - 0.6)
    axes.set_xticks(range(len(buckets)), buckets)


def _alarms(axes: Axes, runs: Mapping[str, Lines]) -> None:
    """Draw a mark for each alarm, in the row of its name."""
    from rlvr.alarms import RULES

    fired = [alarm["alarm"] for lines in runs.values() for line in lines for alarm in line.get("alarms", ())]
    names = [name for name in RULES if name in fired]
    for place, ((color, _), lines) in enumerate(zip(LOOKS, runs.values(), strict=False)):
        marks = [(line["step"] + 1, names.index(a["alarm"])) for line in lines for a in line.get("alarms", ())]
        offset = 0.5 * (place + 0.5) / len(runs) - 0.25
        axes.plot([x for x, _ in marks], [y + offset for _, y in marks], "|", color=color, markersize=8)
    _dress(axes, Panel("alarms", {}), "alarms", "step")
    _whole_numbers(axes)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_xlim(0, max(line["step"] + 2 for lines in runs.values() for line in lines))


def _dress(axes: Axes, panel: Panel, title: str, x: str) -> None:
    words = zip(("solid", "dashed", "dotted"), panel.series.values(), strict=False)
    note = ", ".join(f"{word}: {label}" for word, label in words if label)
    axes.set_title(f"{title}\n", fontsize=10, fontweight="bold", loc="left")  # a line for the note: panels align
    axes.text(0, 1.02, note, transform=axes.transAxes, fontsize=8, color="0.35")
    axes.set_xlabel(x, fontsize=8)
    axes.set_ylabel(panel.unit, fontsize=8)
    _scale(axes, panel.axis)
    axes.tick_params(which="both", labelsize=8)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _scale(axes: Axes, axis: Axis) -> None:
    from matplotlib.ticker import FuncFormatter, LogFormatter, PercentFormatter, SymmetricalLogLocator

    if axis == "log":
        axes.set_yscale("log", nonpositive="mask")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
        axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1, 0.4)))  # 1 to 2 has no major tick
    elif axis == "symlog":
        axes.set_yscale("symlog", linthresh=LINEAR_BELOW, linscale=0.5)
        ticks = SymmetricalLogLocator(base=10, linthresh=LINEAR_BELOW)
        ticks.set_params(numticks=5)
        axes.yaxis.set_major_locator(ticks)
    elif axis == "percent":
        axes.yaxis.set_major_formatter(PercentFormatter(xmax=1))
        axes.set_ylim(bottom=0.0)
    else:  # ticks show whole numbers: a common factor would overlap the title
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    if axis == "0-1":
        axes.set_ylim(0.0, 1.02)


def _whole_numbers(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))


def _legend(figure: Figure, names: Sequence[str]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=color, linewidth=3, marker=marker, markersize=7)
        for (color, marker), _ in zip(LOOKS, names, strict=False)
    ]
    figure.legend(handles, names, loc="outside upper left", ncols=min(6, len(names)), frameon=False, fontsize=10)


# --- numbers ----------------------------------------------------------------------------------------------------------


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _worth(panel: Panel, keys: Iterable[str], runs: Mapping[str, Lines]) -> bool:
    values = [line[key] for key in keys for lines in runs.values() for line in lines if _is_number(line.get(key))]
    return any(values) if panel.rare else bool(values)


def _points(lines: Lines, name: str) -> tuple[list[int], list[float]]:
    """Return steps, counted from 1, and values; NaN where a step has none, which leaves a gap in the line.

    Evaluations happen only at some steps, so their lines connect them. A held-out accuracy is drawn after as many
    batches as its weights have seen.
    """
    there = [line for line in lines if _is_number(line.get(name)) or not _is_evaluation(name)]
    values = [line[name] if _is_number(line.get(name)) else math.nan for line in there]
    return [line["step"] + _after(name, line) for line in there], values


def _after(name: str, line: Mapping[str, Any]) -> bool:
    """Return True if the value belongs after the step: an evaluation precedes its step, except after the last one."""
    return not _is_evaluation(name) or line.get("eval/policy_version") == line.get("policy_version")


def _is_evaluation(name: str) -> bool:
    return name.startswith("eval/")


def _every(name: str, marker: str, count: int) -> int:
    """Return the distance between markers: 1 for evaluations, an eighth of the line to tell runs apart, or 0."""
    if _is_evaluation(name):
        return 1
    return 0 if marker == MARKERS[0] else math.ceil(count / 8)


def _marked(values: Sequence[float], every: int) -> list[int]:
    """Return the points with a marker: each `every`th, and those that no line reaches."""
    gap = [True, *map(math.isnan, values), True]
    alone = {i for i in range(len(values)) if gap[i : i + 3] == [True, False, True]}
    return sorted(alone | set(range(0, len(values), every) if every else ()))


def _buckets(runs: Mapping[str, Lines]) -> list[str]:
    """Return the buckets of lag in which the runs have tokens, in order; empty if no run has several."""
    from rlvr.offpolicy.staleness import BUCKETS

    found = [{name.partition("/")[0] for line in lines for name in line} for lines in runs.values()]
    of_runs = [[bucket for bucket in BUCKETS if f"lag_{bucket}" in names] for names in found]
    if max(map(len, of_runs)) < 2:
        return []
    return [bucket for bucket in BUCKETS if any(bucket in of_run for of_run in of_runs)]


def _keys(panel: Panel, buckets: Sequence[str]) -> list[str]:
    return [f"lag_{bucket}/{name}" for bucket in buckets for name in panel.series]


def _mean(lines: Lines, key: str) -> float:
    """Return the mean over the steps that have the metric; NaN if none has."""
    values = [line[key] for line in lines if _is_number(line.get(key))]
    return math.fsum(values) / len(values) if values else math.nan


def _window(steps: int) -> int:
    """Return the number of steps to average over: odd, a twentieth of the run."""
    return 1 if steps < SMOOTH_FROM else 2 * (steps // 40) + 1


def _smooth(values: Sequence[float], window: int) -> list[float]:
    """Return the mean over `window` values around each, without those that are NaN; NaN stays NaN."""
    half = window // 2
    smooth = []
    for i, value in enumerate(values):
        around = [v for v in values[max(0, i - half) : i + half + 1] if not math.isnan(v)]
        smooth.append(math.nan if math.isnan(value) else math.fsum(around) / len(around))
    return smooth
