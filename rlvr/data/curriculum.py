"""Curriculum by measured pass rate: questions that were solved, or hopeless, when they were last asked come up rarely.

The order of the questions stays what it is. A question whose last pass rate was outside of the band is passed over at
most of its positions: at a share of `rare` of them it is asked nevertheless, and measured anew. So a position still
says which question it has, and a resume needs the position and the measured rates only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlvr.draws import uniform


class Curriculum:
    """Last measured pass rate of each question, and whether it is asked at a position of the stream.

    What it decides is a function of the seed, the position and the rates. Questions without a rate are always asked.
    """

    def __init__(self, *, low: float, high: float, rare: float, seed: int) -> None:
        """Ask questions with a rate from `low` to `high` always, and others with the probability `rare`."""
        self._low, self._high, self._rare, self._seed = low, high, rare, seed
        self._rates: dict[int, float] = {}

    def asks(self, index: int, position: int) -> bool:
        """Return whether question `index` is asked at this position."""
        rate = self._rates.get(index)
        return rate is None or self._in_band(rate) or uniform(self._seed, "curriculum", position) < self._rare

    def measure(self, rates: Mapping[int, float]) -> None:
        """Keep new pass rates, by index of the question; they replace older ones."""
        self._rates.update(rates)

    def metrics(self) -> dict[str, float]:
        """Return how many questions have a rate, and the share of these that is in the band."""
        known = len(self._rates)
        within = sum(map(self._in_band, self._rates.values()))
        return {"curriculum/measured": float(known), **({"curriculum/in_band": within / known} if known else {})}

    def state(self) -> dict[str, Any]:
        """Return the rates as JSON values."""
        return {"rates": sorted(map(list, self._rates.items()))}

    def seek(self, state: Mapping[str, Any]) -> None:
        """Continue with the rates that `state` returned."""
        self._rates = {int(index): float(rate) for index, rate in state["rates"]}

    def _in_band(self, rate: float) -> bool:
        return self._low <= rate <= self._high
