"""Results of a comparison of policies, such as checkpoints or models, on the same questions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rlvr.evaluation.answers import SetAnswers


@dataclass(frozen=True)
class ComparedPolicy:
    """One of the policies."""

    name: str
    """`a` for the first, `b`, `c`, … for the others."""
    file: Path
    models: tuple[Mapping[str, Any], ...]
    """The models that sampled, as the records identify them; one for an evaluation."""


@dataclass(frozen=True)
class FigureChange:
    """A figure of both policies, and its change from a to b with a 95 % interval. What is not defined is None."""

    figure: str
    a: float | None
    b: float | None
    difference: float | None
    low: float | None
    high: float | None
    questions: int
    """Questions that have the figure from both."""


@dataclass(frozen=True)
class ChangedQuestion:
    """A question that one policy answers right more often than the other. Its texts are untrusted."""

    key: str
    prompt: str
    """The end of the prompt."""
    gold: str | None
    a: tuple[float, int]
    """Right completions of the first policy, and those that count."""
    b: tuple[float, int]


@dataclass(frozen=True)
class PolicyDifference:
    """Comparison of a policy, b, with the first one, a, on the questions of a data set."""

    comparisons: int
    """Number of comparisons that are made at once."""
    dataset: str
    a: str
    """Name of the first policy among the sides."""
    b: str
    verifier: str
    main: FigureChange
    """The accuracy: `avg`, or `greedy` if one of the files has greedy answers only."""
    simultaneous: tuple[float, float] | None
    """Interval of the difference in accuracy that holds for all comparisons at once (Bonferroni)."""
    better: int
    """Questions that b answers right more often than a."""
    worse: int
    p: float
    """p-value of the sign test on these questions."""
    corrected_p: float
    """p-value corrected for the number of comparisons (Holm)."""
    detectable: float | None
    """Smallest difference in accuracy that these questions show with a probability of 80 %, at the observed variance;
    None if no question differs, or there is only one."""
    figures: tuple[FigureChange, ...]
    """All figures that both have, the accuracy among them."""
    gained: tuple[ChangedQuestion, ...]
    """Questions that improve most."""
    lost: tuple[ChangedQuestion, ...]
    """Questions that get worse most."""

    @property
    def unchanged(self) -> int:
        """Questions that both answer right equally often."""
        return self.main.questions - self.better - self.worse


@dataclass(frozen=True)
class PolicyComparison:
    """Comparison of policies with the first of them, by data set."""

    sides: tuple[ComparedPolicy, ...]
    threshold: float
    resamples: int
    differences: tuple[PolicyDifference, ...]
    claims: tuple[str, ...]
    """Sentences that may be claimed, one for each difference."""
    notes: tuple[str, ...]
    """Differences besides the policy: sampling parameters, prompts, questions that only one file has."""

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One row per data set, policy and figure; `pandas.DataFrame(result.rows)` is a table."""
        return [
            {"dataset": each.dataset, "policy": each.b, **asdict(change)}
            for each in self.differences
            for change in each.figures
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON-safe values."""
        sides = [{"name": s.name, "file": str(s.file), "models": [dict(each) for each in s.models]} for s in self.sides]
        differences = [{**asdict(each), "unchanged": each.unchanged} for each in self.differences]
        own = {"threshold": self.threshold, "resamples": self.resamples, "notes": list(self.notes)}
        return {"policies": sides, **own, "differences": differences, "claims": list(self.claims)}


@dataclass(frozen=True)
class PolicyAnswers:
    """Answers of one policy, by data set."""

    side: ComparedPolicy
    sets: Mapping[str, SetAnswers]


def titled(dataset: str) -> str:
    """Return the name of a data set for messages; it is empty for rows that name none."""
    return dataset or "questions without a data set"
