"""`rlvr plot`: metrics of one or several runs on one page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlvr.cli.json_output import print_json
from rlvr.errors import RequestError, nearest
from rlvr.reports.curves import (
    Lines,
    bucket_keys,
    buckets_of,
    has_numbers,
    is_evaluation,
    is_number,
    mean_of,
    named_runs,
    points_of,
    read_metrics,
    smoothed,
    window_of,
)
from rlvr.reports.panels import APART, BY_LAG, PANELS, Axis, Panel

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
THIN_UP_TO = 6  # runs; the single steps of more runs would hide the means
LINEAR_BELOW = 1e-4  # on a symlog axis; closer to 0 is as good as on-policy


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
    if len(runs) > len(LOOKS):
        raise RequestError(f"a page has room for {len(LOOKS)} runs, these are {len(runs)}: plot fewer at a time")
    lines = {name: read_metrics(path) for name, path in named_runs(runs).items()}
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


def chosen(names: Sequence[str], runs: Mapping[str, Lines]) -> list[Panel]:
    """Return a panel per name, with its axis on the whole page. Raises RequestError for a name that no run has."""
    known = {name for lines in runs.values() for line in lines for name, value in line.items() if is_number(value)}
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

    shown = [panel for panel in panels if has_numbers(panel, panel.series, runs)]
    alarmed = by_lag and any(line.get("alarms") for lines in runs.values() for line in lines)
    buckets = buckets_of(runs)
    aged = (
        [panel for panel in BY_LAG if has_numbers(panel, bucket_keys(panel, buckets), runs)]
        if by_lag and buckets
        else []
    )
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
            x, y = points_of(lines, name)
            window = window_of(len(lines)) if panel.smooth else 1
            if window > 1 and len(runs) <= THIN_UP_TO:
                axes.plot(x, y, style, color=color, alpha=0.2, linewidth=0.8)
            marked = _marked(y, _every(name, marker, len(y)))
            axes.plot(x, smoothed(y, window), style, color=color, marker=marker, markersize=4, markevery=marked)
    _dress(axes, panel, panel.title, "step")
    _whole_numbers(axes)


def _by_lag(axes: Axes, panel: Panel, runs: Mapping[str, Lines], buckets: Sequence[str]) -> None:
    for (color, marker), lines in zip(LOOKS, runs.values(), strict=False):
        for style, name in zip(STYLES, panel.series, strict=False):
            points: list[tuple[int, float]] = []
            for place, bucket in enumerate(buckets):
                if bucket in APART:
                    points.append((place, math.nan))
                points.append((place, mean_of(lines, f"lag_{bucket}/{name}")))
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


def _every(name: str, marker: str, count: int) -> int:
    """Return the distance between markers: 1 for evaluations, an eighth of the line to tell runs apart, or 0."""
    if is_evaluation(name):
        return 1
    return 0 if marker == MARKERS[0] else math.ceil(count / 8)


def _marked(values: Sequence[float], every: int) -> list[int]:
    """Return the points with a marker: each `every`th, and those that no line reaches."""
    gap = [True, *map(math.isnan, values), True]
    alone = {i for i in range(len(values)) if gap[i : i + 3] == [True, False, True]}
    return sorted(alone | set(range(0, len(values), every) if every else ()))
