"""Cost of a run: samples, tokens, wall-clock and time by phase."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

PHASES = {
    "sampling": ("time/sample",),
    "scoring": ("time/score",),
    "training": ("time/train",),
    "evaluation": ("time/eval",),
    "weight syncs": ("time/sync", "time/proof"),
}
"""Phase -> its metrics. The rest of a step is `other`."""


@dataclass(frozen=True)
class Cost:
    """Sums over the batches of a run, those before a resume included."""

    samples: int
    """Completions of all batches."""
    tokens: int
    """Sampled tokens in them."""
    seconds: float
    """Wall-clock of the batches and their evaluations, without loading."""
    phases: Mapping[str, float]
    """Phase -> seconds."""

    @property
    def text(self) -> str:
        """One line: `2:47, 40,960 completions, 512,345 tokens; sampling 41%, training 45%, …`."""
        minutes, seconds = divmod(round(self.seconds), 60)
        hours, minutes = divmod(minutes, 60)
        clock = f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
        shares = [
            f"{phase} {spent / self.seconds:.0%}"
            for phase, spent in sorted(self.phases.items(), key=lambda pair: -pair[1])
            if self.seconds and spent >= 0.005 * self.seconds
        ]
        counts = f"{clock}, {self.samples:,} completions, {self.tokens:,} tokens"
        return f"{counts}; {', '.join(shares)}" if shares else counts

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-safe values."""
        return asdict(self)


def cost_so_far(
    last: Mapping[str, Any], samples: int, tokens: int, metrics: Mapping[str, Any], steps: int
) -> dict[str, float]:
    """Return the metrics of the cost up to a batch, and the expected time of the whole run.

    Args:
        last: Metrics of the batch before; empty for the first one.
        samples: Completions of this batch.
        tokens: Sampled tokens in them.
        metrics: Metrics of this batch, with `step` and `time/step`.
        steps: Batches of the run.
    """
    total = (last.get("seconds/total") or 0.0) + metrics["time/step"]
    return {
        "total/samples": (last.get("total/samples") or 0.0) + samples,
        "total/tokens": (last.get("total/tokens") or 0.0) + tokens,
        "seconds/total": total,
        "seconds/expected": total / (metrics["step"] + 1) * steps,
    }


def cost_of(rows: Iterable[Mapping[str, Any]]) -> Cost:
    """Return the cost of a run from its metrics, one mapping per batch."""
    rows = list(rows)
    last = rows[-1] if rows else {}
    phases = {phase: sum(row.get(name) or 0.0 for row in rows for name in names) for phase, names in PHASES.items()}
    seconds = max(last.get("seconds/total") or 0.0, sum(phases.values()))
    phases["other"] = seconds - sum(phases.values())
    return Cost(int(last.get("total/samples") or 0), int(last.get("total/tokens") or 0), seconds, phases)
