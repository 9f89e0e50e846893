"""`rlvr report`: one page about runs and files of rollouts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from rlvr import __version__
from rlvr.errors import RequestError, nearest
from rlvr.evaluation.evaluation import Evaluation, evaluation_of
from rlvr.files import replacing
from rlvr.record.schema import utc_now
from rlvr.reports.browsing import BUDGET, LAG_BUCKETS, Budget, Shown, browsed
from rlvr.reports.changes import WhatChanged, changes
from rlvr.reports.charts import Chart, charts
from rlvr.reports.flips import FlipCounts, flip_counts
from rlvr.reports.hacking import HackingView, hacking_view
from rlvr.reports.headlines import Headline, headlines
from rlvr.reports.observations import Observations, Observer
from rlvr.reports.page import html, pack
from rlvr.reports.ratios import Reweighting
from rlvr.reports.settings_table import SettingRow, settings_table
from rlvr.reports.sources import ReportSource, evaluation_files, read_sources, step_of

MOST_SOURCES = 14
"""Sources of one page, at most: more have no look of their own in a chart."""
MOST_BYTES = 22_000_000
"""Size of the packed rollouts, so that the page stays below 25 MB."""


@dataclass(frozen=True)
class SourceEvaluation:
    """Figures of answers that a source holds."""

    source: int
    """Place of the source."""
    about: str
    """Name of the part of its answers; empty for all."""
    evaluation: Evaluation | None
    reason: str = ""
    """Reason why there are no figures; empty if there are."""


@dataclass(frozen=True)
class RunReport:
    """Content of a report, and the file that it was written to."""

    sources: tuple[ReportSource, ...]
    headlines: tuple[tuple[Headline, ...], ...]
    """Numbers of each source."""
    charts: tuple[Chart, ...]
    settings: tuple[SettingRow, ...]
    flips: tuple[tuple[FlipCounts, ...], ...]
    """Disagreements of verifiers in each source."""
    hacking: tuple[HackingView, ...]
    """Signs of reward hacking in each source."""
    changes: tuple[WhatChanged, ...]
    """Held-out questions whose answers changed."""
    evaluations: tuple[SourceEvaluation, ...]
    """Figures of files, and of the newest held-out answers of runs."""
    shown: Shown
    """Rollouts on the page."""
    packed: Mapping[str, str]
    """Large parts of the page, packed."""
    file: Path | None = None
    size: int = 0
    """Bytes of the file."""
    created_at: str = field(default_factory=utc_now)

    @property
    def title(self) -> str:
        """Names of the sources."""
        return ", ".join(source.name for source in self.sources)

    def to_dict(self) -> dict[str, Any]:
        """Return what was written, as JSON-safe values; the numbers of the charts are left out."""
        return {
            "file": None if self.file is None else str(self.file),
            "bytes": self.size,
            "sources": [source.name for source in self.sources],
            "headlines": {
                source.name: {each.label: each.value for each in found}
                for source, found in zip(self.sources, self.headlines, strict=True)
            },
            "charts": [chart.title for chart in self.charts],
            "rollouts": {
                "total": self.shown.total,
                "shown": self.shown.count,
                "with_tokens": self.shown.with_tokens,
                "with_ratios": self.shown.with_ratios,
            },
            "flips": {
                source.name: {each.other: each.only_verifier + each.only_other for each in found}
                for source, found in zip(self.sources, self.flips, strict=True)
            },
            "suspicious": {
                source.name: [{"id": each.id, "reasons": each.reasons} for each in view.suspicious]
                for source, view in zip(self.sources, self.hacking, strict=True)
            },
        }

    def lines(self) -> Iterator[str]:
        """Yield what was written, for people."""
        runs = sum(source.is_run for source in self.sources)
        parts = [f"{runs} run{'s' if runs != 1 else ''}"] if runs else []
        files = len(self.sources) - runs
        parts += [f"{files} file{'s' if files != 1 else ''}"] if files else []
        yield f"{self.file}: {' and '.join(parts)}, {len(self.charts)} charts; {self.size / 1e6:.1f} MB"
        if self.shown.count < self.shown.total:
            yield f"rollouts: {self.shown.count:,} of {self.shown.total:,}, whole groups of every step and outcome"

    def html(self, *, live: bool = False, state: int = 0) -> str:
        """Return the page. `live`: it asks its server for content that is newer than `state`."""
        return html(f"{self.title} – rlvr report", self.data(live=live, state=state), self.packed, live=live)

    def data(self, *, live: bool = False, state: int = 0) -> dict[str, Any]:
        """Return the content that the page needs at once, as JSON values."""
        return {
            "title": self.title,
            "created_at": self.created_at,
            "version": __version__,
            "live": live,
            "state": state,
            "sources": [_source(source) for source in self.sources],
            "headlines": [[asdict(each) for each in found] for found in self.headlines],
            "charts": [asdict(chart) for chart in self.charts],
            "flips": [[_flips(each) for each in found] for found in self.flips],
            "hacking": [_hacking(view) for view in self.hacking],
            "changes": [asdict(each) for each in self.changes],
            "evaluations": [_evaluation(each) for each in self.evaluations],
            "rollouts": {
                "total": self.shown.total,
                "count": self.shown.count,
                "groups": len(self.shown.groups.get("id", ())),
                "total_groups": self.shown.total_groups,
                "with_tokens": self.shown.with_tokens,
                "with_ratios": self.shown.with_ratios,
                "without_text": self.shown.without_text,
                "buckets": LAG_BUCKETS,
            },
            "settings": {
                "sources": [source.name for source in self.sources if source.settings],
                "rows": [{"key": row.key, "values": row.values, "differs": row.differs} for row in self.settings],
            },
        }


def report(
    paths: str | Path | Sequence[str | Path],
    *,
    out: str | Path | None = None,
    verifier: str | None = None,
    model: str | None = None,
) -> RunReport:
    """Gather what runs and files of rollouts hold, and write it as one HTML page.

    Args:
        paths: Run directories, files or folders of rollouts. Several are laid over each other.
        out: File to write, which ends in `.html`; None writes nothing.
        verifier: Name of the verifier whose reward counts. By default, that of the first score in a run, which is the
            one that training uses, and of the last score in a file.
        model: Directory, hub name, or `embedded`: the model whose importance weights color the tokens of some rollouts.
            It is loaded; without it, nothing is.

    Raises RequestError for a path that is neither a run nor holds rollouts, DataError for a file that cannot be read,
    RunError if the page cannot be written.
    """
    target = None if out is None else _target(Path(out))
    weighted = None if model is None else Reweighting(model)
    found = gather([paths] if isinstance(paths, str | Path) else list(paths), verifier=verifier, weighted=weighted)
    if target is None:
        return found
    text = found.html().encode("utf-8")
    with replacing(target) as temporary:
        temporary.write_bytes(text)
    return replace(found, file=target, size=len(text))


def gather(
    paths: Sequence[str | Path],
    *,
    verifier: str | None = None,
    observer: Observer | None = None,
    budget: Budget = BUDGET,
    weighted: Reweighting | None = None,
    most_bytes: int = MOST_BYTES,
) -> RunReport:
    """Return the content of a report. Raises as `report` does.

    Args:
        paths: Runs and files.
        verifier: See `report`.
        observer: What an earlier call has read, for a run that goes on.
        budget: Limits on the rollouts of the page.
        weighted: Model whose importance weights are shown.
        most_bytes: Size of the packed rollouts, at most; the budget is halved until they fit.
    """
    sources = read_sources(paths)
    if len(sources) > MOST_SOURCES:
        raise RequestError(f"a report has room for {MOST_SOURCES} runs and files, these are {len(sources)}")
    observer = Observer() if observer is None else observer
    observed = [observer.read(source, verifier) for source in sources]
    for source, found in zip(sources, observed, strict=True):
        if not source.is_run and not any(each.characters or each.tokens or each.status for each in found.found):
            raise RequestError(f"{source.path} holds no rollouts: no row has a completion, tokens or a score")
    if verifier is not None and not any(each.status is not None for found in observed for each in found.found):
        names = {name for found in observed for name in found.others}
        raise RequestError(f"no rollout has a score by {verifier!r}{nearest(verifier, names)}")
    hacking = [hacking_view(found, place) for place, found in enumerate(observed)]
    shown, packed = _packed(sources, observed, hacking, budget, weighted, most_bytes)
    return RunReport(
        tuple(sources),
        tuple(tuple(headlines(source)) for source in sources),
        tuple(charts({source.name: source.metrics for source in sources})),
        tuple(settings_table(sources)),
        tuple(tuple(flip_counts(found)) for found in observed),
        tuple(hacking),
        tuple(changes(sources, [found.verifier for found in observed], named=verifier is not None)),
        tuple(_evaluations(sources, observed, named=verifier is not None)),
        shown,
        packed,
    )


def _evaluations(
    sources: Sequence[ReportSource], observed: Sequence[Observations], *, named: bool
) -> Iterator[SourceEvaluation]:
    """Yield the figures of files, and of the last held-out answers of runs."""
    for place, (source, found) in enumerate(zip(sources, observed, strict=True)):
        files = evaluation_files(source.path)[-1:] if source.is_run else source.files
        if files and found.verifier is not None:
            about = f"step {step_of(files[0])}" if source.is_run else ""
            # Of several verifiers, one has to be named; else each data set has its own.
            verifier = found.verifier if named or found.others else None
            try:
                yield SourceEvaluation(place, about, evaluation_of(files, verifier=verifier))
            except RequestError as error:  # rollouts that are no evaluation: the page has all the rest
                yield SourceEvaluation(place, about, None, str(error))


def _packed(
    sources: Sequence[ReportSource],
    observed: Sequence[Observations],
    hacking: Sequence[HackingView],
    budget: Budget,
    weighted: Reweighting | None,
    most_bytes: int,
) -> tuple[Shown, dict[str, str]]:
    """Return the rollouts to show and their packed parts, of at most `most_bytes`."""
    first = [
        frozenset([*(each.id for each in view.suspicious), *(each.example for each in view.clusters)])
        for view in hacking
    ]
    while True:
        shown = browsed(sources, observed, budget, first=first, weighted=weighted)
        packed = {name: pack(value) for name, value in shown.packed().items()}
        if sum(map(len, packed.values())) <= most_bytes or not budget.rollouts:
            return shown, packed
        budget = budget.halved()


def _target(out: Path) -> Path:
    if out.suffix not in (".html", ".htm"):
        raise RequestError(f"--out {out} does not end in .html")
    return out


def _source(source: ReportSource) -> dict[str, Any]:
    command = source.manifest.get("command")
    return {
        "name": source.name,
        "is_run": source.is_run,
        "steps": len(source.metrics),
        "planned": source.steps,
        "created_at": source.manifest.get("created_at"),
        "run_id": source.manifest.get("run_id"),
        "command": " ".join(["rlvr", *map(str, command[1:])]) if isinstance(command, list) else None,
        "alarms": [
            {"step": line["step"] + 1, **alarm} for line in source.metrics for alarm in line.get("alarms") or ()
        ],
    }


def _flips(each: FlipCounts) -> dict[str, Any]:
    return {**asdict(each), "total": each.total, "agreement": each.agreement, "kappa": each.kappa}


def _evaluation(each: SourceEvaluation) -> dict[str, Any]:
    sets = [
        {
            **{name: getattr(own, name) for name in ("dataset", "split", "verifier", "versions", "completions")},
            "questions": len(own.questions),
            "figures": [{"name": name, **figure.to_dict()} for name, figure in own.figures.items()],
        }
        for own in (each.evaluation.sets if each.evaluation else ())
    ]
    return {"source": each.source, "about": each.about, "reason": each.reason, "sets": sets}


def _hacking(view: HackingView) -> dict[str, Any]:
    return {
        **asdict(view),
        "clusters": [
            {**asdict(each), "gain": each.gain, "is_suspicious": each.is_suspicious} for each in view.clusters
        ],
    }
