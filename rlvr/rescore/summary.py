"""Summary of a scored file: counts of scores by verifier."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rlvr.record.schema import Score
from rlvr.verify.scoring import training_reward


@dataclass(frozen=True)
class VerifierSummary:
    """Scores of one verifier, counted."""

    verifier: str
    mean_reward: float | None
    """Mean over `counted` rewards as training uses them: unparsed counts as 0. None if nothing counts."""
    counted: int
    """Scores that training keeps."""
    statuses: Mapping[str, int]
    """Status → number of scores, the most frequent first."""

    @property
    def rows(self) -> int:
        """Number of scores."""
        return sum(self.statuses.values())

    @property
    def error_rate(self) -> float:
        """Share of errors and time-outs."""
        return (self.statuses.get("error", 0) + self.statuses.get("timeout", 0)) / max(1, self.rows)

    def to_dict(self) -> dict[str, Any]:
        """Return the summary as one flat row of JSON-safe values."""
        return {
            "verifier": self.verifier,
            "rows": self.rows,
            "mean_reward": self.mean_reward,
            "counted": self.counted,
            "error_rate": self.error_rate,
            **self.statuses,
        }


class Tally:
    """Counts the scores of one verifier as they come."""

    def __init__(self, verifier: str) -> None:
        self.verifier = verifier
        self.statuses: Counter[str] = Counter()
        self._counted, self._sum = 0, 0.0

    def add(self, scores: Iterable[Score]) -> None:
        """Count scores."""
        for score in scores:
            self.statuses[score.status.value] += 1
            if (reward := training_reward(score)) is not None:
                self._counted += 1
                self._sum += reward

    def summary(self) -> VerifierSummary:
        """Return the counts so far."""
        mean = self._sum / self._counted if self._counted else None
        return VerifierSummary(self.verifier, mean, self._counted, dict(self.statuses.most_common()))
