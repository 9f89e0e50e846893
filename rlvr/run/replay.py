"""Replay of the run's own past groups: a bounded buffer, sampled by age, of groups with a signal.

The buffer holds references into the run directory's rollouts. So checkpoints are small, and a resumed run replays the
same groups as an uninterrupted one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import groupby
from typing import Any, NamedTuple

from rlvr.draws import uniform
from rlvr.protocols import Group
from rlvr.run.config import ReplayConfig
from rlvr.run.groups import Drawn, Grader, GroupSource
from rlvr.run.rundir import RunDirectory


class Held(NamedTuple):
    """Reference to a past group: where it is stored, and its oldest policy version."""

    step: int
    place: int
    """Place among the groups of that step's file."""
    version: int


class Replay:
    """A `GroupSource` around one that samples: some groups of each batch are past ones.

    A group sampled `a` batches ago is drawn in proportion to 2**(-a / half_life), and at most once per batch. Only
    groups with a signal are held. Until there are enough, more groups are sampled.
    """

    def __init__(
        self,
        sampled: GroupSource,
        number: int,
        config: ReplayConfig,
        grader: Grader,
        directory: RunDirectory,
        seed: int,
    ) -> None:
        """`number`: past groups per batch."""
        self._sampled, self._number, self._config = sampled, number, config
        self._grader, self._directory, self._seed = grader, directory, seed
        self._held: list[Held] = []

    def draw(self, step: int, size: int, version: int) -> Drawn:
        """Choose past groups, sample the rest of the batch, and remember the new groups."""
        chosen = self._choose(step, version)
        past = self._read(chosen)
        drawn = self._sampled.draw(step, size - len(past), version)
        self._remember(step, drawn)
        metrics = {"replay/groups": float(len(past)), "replay/held": float(len(self._held))}
        if past:
            metrics["replay/age"] = math.fsum(step - held.step for held in chosen) / len(chosen)
        return Drawn((*drawn.groups, *past), drawn.rollouts, {**drawn.metrics, **metrics})

    def state(self) -> dict[str, Any]:
        """Return the references and the sampling source's state."""
        return {"held": [list(held) for held in self._held], "sampled": self._sampled.state()}

    def seek(self, state: Mapping[str, Any]) -> None:
        """Continue with a state that `state` returned."""
        self._held = [Held(*held) for held in state["held"]]
        self._sampled.seek(state["sampled"])

    def _choose(self, step: int, version: int) -> list[Held]:
        """Draw by weight without replacement: the smallest -log(u) / w (Efraimidis and Spirakis 2006)."""
        oldest = -math.inf if self._config.max_lag is None else version - self._config.max_lag
        waits = [
            (-math.log1p(-uniform(self._seed, "replay", step, held.step, held.place)) / self._weight(step, held), held)
            for held in self._held
            if held.version >= oldest
        ]
        return [held for _, held in sorted(waits)[: self._number]]

    def _weight(self, step: int, held: Held) -> float:
        return float(2.0 ** max(-1000.0, (held.step - step) / self._config.half_life))

    def _read(self, chosen: list[Held]) -> list[Group]:
        groups = []
        for step, those in groupby(sorted(chosen), key=lambda held: held.step):
            for members in self._directory.stored_groups(step, [held.place for held in those]):
                group = self._grader.group(members)
                assert group is not None, "it was a group when it was remembered"
                groups.append(group)
        return groups

    def _remember(self, step: int, drawn: Drawn) -> None:
        ids = dict.fromkeys(rollout.group_id for rollout in drawn.rollouts)
        places = {group_id: place for place, group_id in enumerate(ids)}
        for group in drawn.groups:
            if group.stats.has_signal:
                versions = [run.version for rollout in group.rollouts for run in rollout.policy_versions or ()]
                oldest = min(versions, default=0)
                self._held.append(Held(step, places[group.rollouts[0].group_id], oldest))
        del self._held[: -self._config.capacity]
