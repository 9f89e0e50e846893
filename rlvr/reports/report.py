"""`rlvr report`: one page about runs and files of rollouts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rlvr import __version__
from rlvr.errors import RequestError
from rlvr.files import replacing
from rlvr.record.schema import utc_now
from rlvr.reports.charts import Chart, charts
from rlvr.reports.headlines import Headline, headlines
from rlvr.reports.page import html
from rlvr.reports.settings_table import SettingRow, settings_table
from rlvr.reports.sources import ReportSource, read_sources

MOST_SOURCES = 14
"""Sources of one page, at most: more have no look of their own in a chart."""


@dataclass(frozen=True)
class RunReport:
    """Content of a report, and the file that it was written to."""

    sources: tuple[ReportSource, ...]
    headlines: tuple[tuple[Headline, ...], ...]
    """Numbers of each source."""
    charts: tuple[Chart, ...]
    settings: tuple[SettingRow, ...]
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
        }

    def lines(self) -> Iterator[str]:
        """Yield what was written, for people."""
        runs = sum(source.is_run for source in self.sources)
        parts = [f"{runs} run{'s' if runs != 1 else ''}"] if runs else []
        files = len(self.sources) - runs
        parts += [f"{files} file{'s' if files != 1 else ''}"] if files else []
        yield f"{self.file}: {' and '.join(parts)}, {len(self.charts)} charts; {self.size / 1e6:.1f} MB"

    def html(self, *, live: bool = False) -> str:
        """Return the page. `live`: it asks its server for new content."""
        return html(f"{self.title} – rlvr report", self.data(live=live), live=live)

    def data(self, *, live: bool = False) -> dict[str, Any]:
        """Return the content that the page needs at once, as JSON values."""
        return {
            "title": self.title,
            "created_at": self.created_at,
            "version": __version__,
            "live": live,
            "sources": [_source(source) for source in self.sources],
            "headlines": [[asdict(each) for each in found] for found in self.headlines],
            "charts": [asdict(chart) for chart in self.charts],
            "settings": {
                "sources": [source.name for source in self.sources if source.settings],
                "rows": [{"key": row.key, "values": row.values, "differs": row.differs} for row in self.settings],
            },
        }


def report(paths: str | Path | Sequence[str | Path], *, out: str | Path | None = None) -> RunReport:
    """Gather what runs and files of rollouts hold, and write it as one HTML page.

    Args:
        paths: Run directories, files or folders of rollouts. Several are laid over each other.
        out: File to write, which ends in `.html`; None writes nothing.

    Raises RequestError for a path that is neither a run nor holds rollouts, DataError for a file that cannot be read,
    RunError if the page cannot be written.
    """
    target = None if out is None else _target(Path(out))
    found = gather([paths] if isinstance(paths, str | Path) else list(paths))
    if target is None:
        return found
    text = found.html().encode("utf-8")
    with replacing(target) as temporary:
        temporary.write_bytes(text)
    return RunReport(**{**vars(found), "file": target, "size": len(text)})


def gather(paths: Sequence[str | Path]) -> RunReport:
    """Return the content of a report. Raises as `report` does."""
    sources = read_sources(paths)
    if len(sources) > MOST_SOURCES:
        raise RequestError(f"a report has room for {MOST_SOURCES} runs and files, these are {len(sources)}")
    runs = {source.name: source.metrics for source in sources}
    return RunReport(
        tuple(sources),
        tuple(tuple(headlines(source)) for source in sources),
        tuple(charts(runs)),
        tuple(settings_table(sources)),
    )


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
