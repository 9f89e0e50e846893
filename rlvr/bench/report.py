"""Result of the test bench: labeled cases, checks and latencies, as data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from rlvr.bench.trials import Trial
from rlvr.errors import ConfigError
from rlvr.evaluation.intervals import Share, quantile
from rlvr.record.schema import Score

KEPT = 2000
"""Characters of a text that `to_dict` keeps."""


@dataclass(frozen=True)
class Limits:
    """Threshold of a correct reward, and how often a verifier may misjudge the labeled cases."""

    threshold: float = 0.5
    """Rewards at or above this count as correct."""
    false_positives: float = 0.0
    """Largest share of the wrong completions that may be accepted. 0, since a policy learns what is rewarded."""
    false_negatives: float = 0.1
    """Largest share of the right completions that may be refused."""

    def __post_init__(self) -> None:
        for name, share in (("positives", self.false_positives), ("negatives", self.false_negatives)):
            if not 0 <= share <= 1:
                raise ConfigError(f"the largest share of false {name} is {share}: expected 0 to 1")


class Result(StrEnum):
    """Result of a check. `note`: information, not a fault. `skip`: there was nothing to try."""

    PASSED = "pass"
    FAILED = "FAIL"
    NOTE = "note"
    SKIPPED = "skip"


@dataclass(frozen=True)
class Latency:
    """Seconds per verdict, without queueing: median, 99th percentile and maximum."""

    p50: float
    p99: float
    max: float

    @classmethod
    def of(cls, judged: Iterable[Judged]) -> Latency | None:
        """Return the latency of these verdicts; None if there are none. Verdicts from a cache do not count."""
        seconds = [each.score.seconds for each in judged if each.score.seconds]
        return cls(quantile(seconds, 0.5), quantile(seconds, 0.99), max(seconds)) if seconds else None


class Judged(NamedTuple):
    """A completion and its verdict."""

    trial: Trial
    score: Score

    def to_dict(self) -> dict[str, Any]:
        """Return the completion and its verdict as JSON-safe values; long texts lose their middle."""
        item, score = self.trial.item, self.score
        return {
            "what": self.trial.what,
            "gold": item.task.answer,
            "completion": None if item.completion is None else shortened(item.completion, KEPT),
            "status": score.status.value,
            "reward": score.reward,
            "extracted": None if score.extracted is None else shortened(score.extracted, KEPT),
            "reason": score.reason,
        }


@dataclass(frozen=True)
class Category:
    """Labeled cases of one kind."""

    name: str
    false_positives: Share
    """Share of the wrong completions that were accepted."""
    false_negatives: Share
    """Share of the right completions that were refused."""
    latency: Latency | None

    def to_dict(self) -> dict[str, Any]:
        """Return the category as JSON-safe values."""
        return {
            "category": self.name,
            "false_positives": _share(self.false_positives),
            "false_negatives": _share(self.false_negatives),
            "latency": _latency(self.latency),
        }


@dataclass(frozen=True)
class Check:
    """One check: the number of completions tried, and those on which the verifier failed."""

    name: str
    result: Result
    tried: int
    faults: tuple[Judged, ...] = ()
    detail: str = ""
    latency: Latency | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the check as JSON-safe values."""
        return {
            "name": self.name,
            "result": self.result.value,
            "tried": self.tried,
            "detail": self.detail,
            "latency": _latency(self.latency),
            "faults": [each.to_dict() for each in self.faults],
        }


@dataclass(frozen=True)
class Report:
    """Everything that the test bench found about a verifier."""

    verifier: str
    version: str
    config: Mapping[str, Any]
    answer_form: str
    timeout: float
    limits: Limits
    categories: tuple[Category, ...]
    """Labeled cases by category, sorted by name."""
    total: Category | None
    """All labeled cases; None if there are none."""
    checks: tuple[Check, ...]
    tested: bool
    """Whether right and wrong answers were tried. If not, the report does not show that right ones are rewarded."""
    latency: Latency | None
    """Latency of everything except the hostile completions."""

    @property
    def failed(self) -> list[Check]:
        """Checks that failed, in order."""
        return [check for check in self.checks if check.result is Result.FAILED]

    @property
    def passed(self) -> bool:
        """True if the verifier was tested and no check failed."""
        return self.tested and not self.failed

    def check(self, name: str) -> Check:
        """Return the check of that name. Raises KeyError if there is none."""
        try:
            return next(check for check in self.checks if check.name == name)
        except StopIteration:
            raise KeyError(name) from None

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One dictionary per check; `pandas.DataFrame(report.rows)` is the table of `rlvr check verifier`."""
        return [
            {
                "name": check.name,
                "result": check.result.value,
                "tried": check.tried,
                "faults": len(check.faults),
                "detail": check.detail,
                **{f"seconds_{name}": value for name, value in (_latency(check.latency) or NO_LATENCY).items()},
            }
            for check in self.checks
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return what `rlvr check verifier --json` prints. Times are in seconds; long texts lose their middle."""
        return {
            "verifier": self.verifier,
            "version": self.version,
            "config": dict(self.config),
            "answer_form": self.answer_form,
            "timeout": self.timeout,
            "limits": asdict(self.limits),
            "passed": self.passed,
            "tested": self.tested,
            "failed": [check.name for check in self.failed],
            "latency": _latency(self.latency),
            "cases": None if self.total is None else self.total.to_dict(),
            "categories": [category.to_dict() for category in self.categories],
            "checks": [check.to_dict() for check in self.checks],
        }


NO_LATENCY: Mapping[str, None] = {"p50": None, "p99": None, "max": None}


def shortened(text: str, limit: int) -> str:
    """Return the text, without its middle if it is longer than `limit` characters."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}[... {len(text) - 2 * half:,} characters ...]{text[-half:]}"


def _share(share: Share) -> dict[str, Any]:
    return {"count": share.hits, "of": share.trials, "share": share.value, "interval": list(share.interval)}


def _latency(latency: Latency | None) -> dict[str, float] | None:
    return asdict(latency) if latency else None
