"""How often two verifiers disagree on the same rollouts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from rlvr.comparison.paired import kappa
from rlvr.evaluation.figures import RIGHT
from rlvr.reports.observations import Observations


@dataclass(frozen=True)
class FlipCounts:
    """Verdicts of two verifiers, right or wrong, on the rollouts that have a reward by both."""

    verifier: str
    """The one that counts."""
    other: str
    both_right: int
    only_verifier: int
    """Right by the verifier that counts alone."""
    only_other: int
    both_wrong: int

    @property
    def total(self) -> int:
        """Rollouts with a reward by both."""
        return self.both_right + self.only_verifier + self.only_other + self.both_wrong

    @property
    def agreement(self) -> float:
        """Share of the rollouts on which they agree."""
        return (self.both_right + self.both_wrong) / self.total

    @property
    def kappa(self) -> float | None:
        """Cohen's kappa: agreement beyond chance; None if it is undefined."""
        counts = (self.both_right, self.only_verifier, self.only_other, self.both_wrong)
        with np.errstate(all="ignore"):
            value = float(kappa(*(np.array([count], dtype=np.float64) for count in counts))[0])
        return value if np.isfinite(value) else None


def flip_counts(observations: Observations) -> Iterator[FlipCounts]:
    """Yield the flips between the verifier that counts and each other one."""
    for name in observations.others:
        counts = {(ours, theirs): 0 for ours in (True, False) for theirs in (True, False)}
        for each in observations.found:
            theirs = each.others.get(name)
            if each.reward is not None and theirs is not None:
                counts[each.is_right, theirs >= RIGHT] += 1
        if any(counts.values()):
            ordered = (counts[True, True], counts[True, False], counts[False, True], counts[False, False])
            yield FlipCounts(observations.verifier or "", name, *ordered)
