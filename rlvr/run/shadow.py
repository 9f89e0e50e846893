"""Shadow verifiers: they score a share of the sampled groups, and nothing is trained on what they say.

A policy that exploits the training verifier earns more from it, and not from another verifier. The gap between the two
rewards then grows. `Gap` measures this growth against its own noise; the alarm `hacking` reads it.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from rlvr.draws import uniform
from rlvr.errors import ConfigError
from rlvr.record.item import Item
from rlvr.record.schema import Rollout
from rlvr.run.config import RunConfig
from rlvr.run.groups import Grader, by_group
from rlvr.run.sampled import configured_scorer
from rlvr.verify.scoring import Scorer, training_reward

WINDOW = 32
"""Groups that a mean of the gap is taken over: the first ones of a run, and the newest ones."""


class Gap:
    """Gap between the training reward and a shadow verifier's, group by group.

    The groups of a run are compared in two windows: the first `WINDOW` groups and the newest ones. A group is one
    observation, because its completions answer the same prompt.
    """

    def __init__(self, first: Iterable[float] = (), newest: Iterable[float] = ()) -> None:
        self._first, self._newest = list(first), list(newest)

    def add(self, gap: float) -> None:
        """Add the mean gap of one group."""
        if len(self._first) < WINDOW:
            self._first.append(gap)
        else:
            self._newest = [*self._newest, gap][-WINDOW:]

    @property
    def excess(self) -> float:
        """Growth of the mean gap from the first window to the newest, in its standard errors; NaN until both are full.

        The standard error is at least that of half a reward in one group of each window, so that the first difference
        after none is no alarm.
        """
        if len(self._newest) < WINDOW:
            return math.nan
        growth = statistics.fmean(self._newest) - statistics.fmean(self._first)
        variance = (statistics.variance(self._first) + statistics.variance(self._newest)) / WINDOW
        return growth / math.sqrt(max(variance, (0.5 / WINDOW) ** 2))

    def state(self) -> dict[str, list[float]]:
        """Return the state that a checkpoint keeps."""
        return {"first": self._first, "newest": self._newest}


class Shadows:
    """The shadow verifiers of a run, their processes and their gaps."""

    def __init__(self, config: RunConfig, grader: Grader) -> None:
        """Load the verifiers. Raises ConfigError if one is the training verifier, and as `Scorer` does."""
        self._config, self._grader = config, grader
        self._stack = ExitStack()
        self.scorers: list[Scorer] = []
        plain = config.verifier.model_copy(update={"options": {}})
        with ExitStack() as loaded:
            for name in config.verifier.shadow:
                scorer = loaded.enter_context(configured_scorer(name, plain))
                if scorer.name in (grader.verifier, *(other.name for other in self.scorers)):
                    raise ConfigError(
                        f"verifier.shadow: {name!r} gives scores as {scorer.name!r}, as another verifier does"
                    )
                self.scorers.append(scorer)
            self._stack = loaded.pop_all()
        self._gaps = {scorer.name: Gap() for scorer in self.scorers}

    def chosen(self, position: int) -> bool:
        """Return whether the group of the prompt at this position is scored: a function of seed and position."""
        share = self._config.verifier.shadow_share
        return bool(self.scorers) and uniform(self._config.seed, "shadow", position) < share

    def scored(self, rollouts: Sequence[Rollout]) -> list[Rollout]:
        """Return the rollouts with the scores of every shadow verifier after those that they have."""
        found = list(rollouts)
        for scorer in self.scorers:
            scores = scorer.score(Item(rollout.completion, rollout.task, rollout) for rollout in rollouts)
            found = [rollout.with_score(score) for rollout, score in zip(found, scores, strict=True)]
        return found

    def metrics(self, rollouts: Iterable[Rollout]) -> dict[str, float]:
        """Return the metrics of a batch's rollouts, and move the gaps on; empty without shadow verifiers."""
        groups = list(by_group(rollouts)) if self.scorers else []
        found: dict[str, float] = {}
        for name, gap in self._gaps.items():
            pairs = [self._pairs(members, name) for members in groups]
            for group in filter(None, pairs):
                gap.add(math.fsum(ours - theirs for ours, theirs in group) / len(group))
            flat = [pair for group in pairs for pair in group]
            label = re.sub(r"[^\w.-]", "-", name)
            found[f"shadow/{label}/reward"] = _mean([theirs for _, theirs in flat])
            found[f"shadow/{label}/gap"] = _mean([ours - theirs for ours, theirs in flat])
        known = [gap.excess for gap in self._gaps.values() if not math.isnan(gap.excess)]
        return found | ({"shadow/excess": max(known, default=math.nan)} if self._gaps else {})

    def _pairs(self, members: Sequence[Rollout], name: str) -> list[tuple[float, float]]:
        """Return (training reward, shadow reward) of the members that have both."""
        found = []
        for rollout in members:
            shadow = rollout.last_score(name)
            ours = self._grader.reward(rollout)
            theirs = None if shadow is None else training_reward(shadow, self._grader.rewards)
            if ours is not None and theirs is not None:
                found.append((ours, theirs))
        return found

    def state(self) -> dict[str, Any]:
        """Return the state that a checkpoint keeps, as JSON values."""
        return {name: gap.state() for name, gap in self._gaps.items()}

    def seek(self, state: Mapping[str, Any]) -> None:
        """Continue from a state that `state` returned."""
        self._gaps |= {name: Gap(**state[name]) for name in self._gaps if name in state}

    def close(self) -> None:
        """End the verifiers' processes."""
        self._stack.close()


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan
