"""`rlvr plot`: the metrics of one or several runs on one page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from rlvr.errors import RequestError, nearest

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = (".png", ".pdf", ".svg")
# Okabe and Ito's colours, which people with any colour vision tell apart; black is left to text.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F")
STYLES = ("-", "--", ":")
COLUMNS = 4
SMOOTH_FROM = 40  # steps; a shorter run is drawn as it is


@dataclass(frozen=True)
class Panel:
    """One diagram: what it is called, the unit of its axis, and up to three metrics, a line style each."""

    title: str
    unit: str
    series: Mapping[str, str]
    """Metric → what its line is called; the first is solid, the second dashed, the third dotted."""
    share: bool = False
    """Shown in percent, from 0."""
    smooth: bool = True
    rare: bool = False
    """Left out while it is 0 throughout."""


PANELS = (
    Panel("reward", "mean of what training uses", {"reward/mean": ""}),
    Panel(
        "held-out accuracy",
        "share of questions",
        {"eval/accuracy": "sampled", "eval/greedy_accuracy": "greedy"},
        share=True,
        smooth=False,
    ),
    Panel("groups with a signal", "share of groups", {"signal/groups": ""}, share=True),
    Panel("entropy", "nats a token", {"entropy": ""}),
    Panel("lag", "optimizer steps", {"lag/max": "largest", "lag/mean": "mean"}, smooth=False),
    Panel("effective sample size", "share of samples", {"ess/token": "tokens", "ess/sequence": "sequences"}),
    Panel("KL(α‖π)", "nats a token", {"kl/k3": "k3", "kl/k1": "k1"}),
    Panel("mean (log π/α)²", "nats²", {"ratio/log_square": ""}),
    Panel("χ²(π‖α)", "mean w² - 1, tokens", {"chi2/token": ""}),
    Panel("clipped", "share of tokens", {"clip/high": "A > 0", "clip/low": "A ≤ 0"}, share=True),
    Panel("masked or rejected", "share of tokens", {"mask/high": "A > 0", "mask/low": "A ≤ 0"}, share=True, rare=True),
    Panel("sampler against trainer, lag 0", "mean |Δ log p|, nats", {"mismatch/mean": ""}, smooth=False),
    Panel("KL(π‖reference)", "nats a token", {"kl/reference": ""}),
    Panel("length of completions", "sampled tokens", {"length/mean": "mean", "length/max": "longest"}),
    Panel("truncated", "share of completions", {"length/truncated": ""}, share=True),
    Panel(
        "verdicts without a reward",
        "share of verdicts",
        {"verdict/unparsed": "unparsed", "verdict/timeout": "timeout", "verdict/error": "error"},
        share=True,
    ),
    Panel("learning rate", "", {"train/lr": ""}, smooth=False),
    Panel("gradient norm", "before clipping", {"train/grad_norm": ""}),
    Panel("throughput", "sampled tokens a second", {"tokens_per_second": ""}),
    Panel("time", "seconds a step", {"time/sample": "sampling", "time/train": "training", "time/score": "scoring"}),
)
"""The page, in reading order. A panel that no run has a number for is left out."""

BY_LAG = (
    ("effective sample size", "share of tokens", ("ess_token",)),
    ("KL(α‖π), k3", "nats a token", ("kl_k3",)),
    ("clipped", "share of tokens", ("clip_high", "clip_low")),
    ("groups with a signal", "share of groups", ("signal",)),
)
"""The row of panels that a run with several buckets of lag gets: title, unit, metrics of a bucket, which are summed."""

Lines: TypeAlias = list[dict[str, Any]]


def plot(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run directories, or metrics.jsonl files.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="What to write: .png, .pdf or .svg.")] = Path("plot.png"),
    metrics: Annotated[
        str | None, typer.Option(help="Only these, e.g. reward/mean,kl/k3; a panel each, by their names.")
    ] = None,
) -> None:
    """Draw the metrics of one or several runs, one over the other, on one page."""
    if out.suffix not in FORMATS:
        raise RequestError(f"--out {out} ends in none of {', '.join(FORMATS)}: the ending says which format it is")
    lines = {name: read_metrics(path) for name, path in _names(runs).items()}
    panels = PANELS if metrics is None else _chosen([name.strip() for name in metrics.split(",")], lines)
    try:
        import matplotlib as mpl
    except ImportError:
        raise RequestError("rlvr plot needs matplotlib: pip install 'rlvr[plot]'") from None
    from rlvr.files import replacing

    mpl.use("Agg")  # no window is opened, and no display needed
    page = draw(lines, panels, by_lag=metrics is None)
    with replacing(out) as temporary:
        page.savefig(temporary, format=out.suffix[1:], dpi=110)
    print(f"{out}: {len(page.axes)} panels of {len(lines)} run{'s' if len(lines) > 1 else ''}")


def read_metrics(path: Path) -> Lines:
    """A run's metrics, a step each; a last line that is still being written is left out. Raises RequestError."""
    from rlvr.files import decoded, from_json, raw_lines_of

    file = path / "metrics.jsonl" if path.is_dir() else path
    if not file.is_file():
        raise RequestError(f"{path} is no run: there is no {file}")
    raw = list(raw_lines_of(file))
    if raw and not file.read_bytes().endswith(b"\n"):
        raw.pop()
    lines = [from_json(decoded(line, where), where) for where, line in raw]
    for (where, _), line in zip(raw, lines, strict=True):
        if not isinstance(line, dict) or not isinstance(line.get("step"), int):
            raise RequestError(f"{where} holds no step's metrics: expected an object with a step")
    if not lines:
        raise RequestError(f"{file} holds no step yet")
    return lines


def _names(paths: Sequence[Path]) -> dict[str, Path]:
    """What the legend calls each run: the last part of its path where that tells them apart, else the path."""
    short = [path.resolve().parent.name if path.name == "metrics.jsonl" else path.resolve().name for path in paths]
    return dict(zip(short if len(set(short)) == len(paths) else map(str, paths), paths, strict=True))


def _chosen(names: Sequence[str], runs: Mapping[str, Lines]) -> list[Panel]:
    known = {name for lines in runs.values() for line in lines for name, value in line.items() if _is_number(value)}
    for name in names:
        if name not in known:
            raise RequestError(f"--metrics: no run has {name!r}{nearest(name, known)}")
    return [Panel(name, "", {name: ""}) for name in names]


# --- drawing ----------------------------------------------------------------------------------------------------------


def draw(runs: Mapping[str, Lines], panels: Sequence[Panel], *, by_lag: bool) -> Figure:
    """The page: `panels` with every run in its colour, the alarms, and a row of panels by lag for each run that has
    several buckets."""
    from matplotlib.figure import Figure

    shown = [panel for panel in panels if any(_worth(panel, lines) for lines in runs.values())]
    alarmed = by_lag and any(line.get("alarms") for lines in runs.values() for line in lines)
    aged = {name: lines for name, lines in runs.items() if by_lag and len(_buckets(lines)) > 1}
    rows = math.ceil((len(shown) + alarmed) / COLUMNS)
    columns = COLUMNS if aged else min(COLUMNS, len(shown) + alarmed)
    figure = Figure(figsize=(4.2 * columns, 2.7 * (rows + len(aged)) + 0.6), layout="constrained")
    grid = figure.add_gridspec(rows + len(aged), columns)
    places = iter([(row, column) for row in range(rows) for column in range(columns)])
    for panel in shown:
        _panel(figure.add_subplot(grid[next(places)]), panel, runs)
    if alarmed:
        _alarms(figure.add_subplot(grid[next(places)]), runs)
    for row, (name, lines) in enumerate(aged.items(), start=rows):
        for column, (title, unit, metrics) in enumerate(BY_LAG):
            title = f"{title} by lag" + (f": {name}" if len(runs) > 1 else "")
            _by_lag(figure.add_subplot(grid[row, column]), title, unit, metrics, lines, legend=column == 0)
    _legend(figure, list(runs))
    return figure


def _panel(axes: Axes, panel: Panel, runs: Mapping[str, Lines]) -> None:
    for colour, lines in zip(_colours(len(runs)), runs.values(), strict=True):
        for style, name in zip(STYLES, panel.series, strict=False):
            x, y = _points(lines, name)
            window = _window(len(lines)) if panel.smooth else 1
            if window > 1 and len(runs) <= len(COLOURS):
                axes.plot(x, y, style, color=colour, alpha=0.2, linewidth=0.8)
            marker = "." if len(x) * 4 < len(lines) or len(x) == 1 else ""
            axes.plot(x, _smooth(y, window), style, color=colour, linewidth=1.5, marker=marker)
    words = zip(("solid", "dashed", "dotted"), panel.series.values(), strict=False)
    note = ", ".join(f"{word}: {label}" for word, label in words if label)
    _dress(axes, panel.title, panel.unit, share=panel.share, note=note)


def _alarms(axes: Axes, runs: Mapping[str, Lines]) -> None:
    """A mark for each alarm, in the row of its name."""
    from rlvr.alarms import RULES

    told = [alarm["alarm"] for lines in runs.values() for line in lines for alarm in line.get("alarms", ())]
    names = [name for name in RULES if name in told]
    for place, (colour, lines) in enumerate(zip(_colours(len(runs)), runs.values(), strict=True)):
        marks = [(line["step"] + 1, names.index(a["alarm"])) for line in lines for a in line.get("alarms", ())]
        offset = 0.5 * (place + 0.5) / len(runs) - 0.25
        axes.plot([x for x, _ in marks], [y + offset for _, y in marks], "|", color=colour, markersize=8)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_xlim(0, max(line["step"] + 2 for lines in runs.values() for line in lines))
    _dress(axes, "alarms", "", share=False, note="")


def _by_lag(axes: Axes, title: str, unit: str, metrics: Sequence[str], lines: Lines, *, legend: bool) -> None:
    from matplotlib import colormaps

    buckets = _buckets(lines)
    shades = [colormaps["viridis"](0.8 * i / max(1, len(buckets) - 1)) for i in range(len(buckets))]
    for shade, bucket in zip(shades, buckets, strict=True):
        keys = [f"lag_{bucket}/{name}" for name in metrics]
        there = [line for line in lines if all(_is_number(line.get(key)) for key in keys)]
        axes.plot(
            [line["step"] + 1 for line in there],
            [sum(line[key] for key in keys) for line in there],
            ".-",
            color=shade,
            markersize=3,
            linewidth=0.8,
            label=f"lag {bucket}",
        )
    _dress(axes, title, unit, share=unit.startswith("share") and "ess_token" not in metrics, note="")
    if legend:
        axes.legend(fontsize=7, frameon=False, ncols=2)


def _dress(axes: Axes, title: str, unit: str, *, share: bool, note: str) -> None:
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    axes.set_title(f"{title}\n", fontsize=10, fontweight="bold", loc="left")  # a line for the note, so panels align
    axes.text(0, 1.02, note, transform=axes.transAxes, fontsize=8, color="0.35")
    axes.set_xlabel("step", fontsize=8)
    axes.set_ylabel(unit, fontsize=8)
    axes.tick_params(labelsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    if share:
        axes.yaxis.set_major_formatter(PercentFormatter(xmax=1))
        axes.set_ylim(bottom=0.0)


def _legend(figure: Figure, names: Sequence[str]) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=colour, linewidth=3) for colour in _colours(len(names))]
    figure.legend(handles, names, loc="outside upper left", ncols=min(6, len(names)), frameon=False, fontsize=10)


def _colours(count: int) -> Sequence[Any]:
    if count <= len(COLOURS):
        return COLOURS[:count]
    from matplotlib import colormaps

    return [colormaps["viridis"](0.9 * i / (count - 1)) for i in range(count)]


# --- numbers ----------------------------------------------------------------------------------------------------------


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _worth(panel: Panel, lines: Lines) -> bool:
    values = [line[name] for line in lines for name in panel.series if _is_number(line.get(name))]
    return any(values) if panel.rare else bool(values)


def _points(lines: Lines, name: str) -> tuple[list[int], list[float]]:
    """Steps, counted from 1, and values; a held-out accuracy stands after as many batches as its weights have seen."""
    there = [line for line in lines if _is_number(line.get(name))]
    return [line["step"] + _after(name, line) for line in there], [line[name] for line in there]


def _after(name: str, line: Mapping[str, Any]) -> bool:
    """An evaluation comes before the step of its line, and once more after the last step."""
    return not name.startswith("eval/") or line.get("eval/policy_version") == line.get("policy_version")


def _buckets(lines: Lines) -> list[str]:
    """Buckets of lag that the run has tokens in, in their order."""
    from rlvr.staleness import BUCKETS

    found = {name.partition("/")[0] for line in lines for name in line}
    return [bucket for bucket in BUCKETS if f"lag_{bucket}" in found]


def _window(steps: int) -> int:
    """Over how many steps a line is averaged: odd, a twentieth of the run."""
    return 1 if steps < SMOOTH_FROM else 2 * (steps // 40) + 1


def _smooth(values: Sequence[float], window: int) -> list[float]:
    """The mean over `window` values around each; fewer at the ends."""
    half = window // 2
    around = [values[max(0, i - half) : i + half + 1] for i in range(len(values))]
    return [math.fsum(part) / len(part) for part in around]
