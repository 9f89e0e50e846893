"""Importance weights of single tokens: how a model's probabilities differ from those of the policy that sampled."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rlvr.protocols import TrainContext
from rlvr.record.schema import LogprobColumn, Rollout
from rlvr.record.store import read_rollouts
from rlvr.reports.observations import Observation
from rlvr.reports.sources import ReportSource
from rlvr.run.config import model_config
from rlvr.run.factories import trainer_factory
from rlvr.run.train import no_progress_bars

TRAINER = "grpo"
"""Trainer whose code computes log-probabilities."""
CHUNK = 64
"""Rollouts that are computed at once."""


@dataclass(frozen=True)
class Reweighting:
    """A model to compare the sampling policy with."""

    model: str
    """A local directory, a hub name, or `embedded`."""
    limit: int = 512
    """Rollouts that are computed, at most, in whole groups."""
    device: str = "auto"


def log_weights(
    source: ReportSource, groups: Sequence[Sequence[Observation]], request: Reweighting
) -> Mapping[tuple[int, int], list[int | None]]:
    """Return (file, row) → 1000 · log w of each token from the first sampled one on; None where no token was sampled.

    The rollouts are those of the first groups whose records have log-probabilities, temperature and tokens. They are
    computed at the temperature that most of them were sampled at; others are left out. Raises RequestError for a model
    that cannot be loaded.
    """
    wanted: dict[int, set[int]] = {}
    left = request.limit
    for group in groups:
        left -= len(group)
        if left < 0:
            break
        for each in group:
            wanted.setdefault(each.file, set()).add(each.row)
    found = [
        ((file, row), rollout)
        for file in sorted(wanted)
        for row, rollout in enumerate(read_rollouts(source.files[file]))
        if row in wanted[file] and _temperature(rollout) is not None
    ]
    if not found:
        return {}
    temperatures = [_temperature(rollout) for _, rollout in found]
    usual = max(set(temperatures), key=temperatures.count)
    assert usual is not None
    same = [(place, rollout) for place, rollout in found if _temperature(rollout) == usual]
    own = _logprobs([rollout for _, rollout in same], request, usual)
    return {place: _milli(rollout, logprobs) for (place, rollout), logprobs in zip(same, own, strict=True)}


def _temperature(rollout: Rollout) -> float | None:
    """Return the temperature of a rollout whose weights can be computed; None for any other."""
    columns = (rollout.token_ids, rollout.loss_mask, rollout.behaviour_logprobs)
    if rollout.sampling is None or any(column is None for column in columns):
        return None
    return rollout.sampling.temperature or None


def _logprobs(rollouts: Sequence[Rollout], request: Reweighting, temperature: float) -> list[LogprobColumn]:
    with no_progress_bars():
        factory = trainer_factory(TRAINER)
        assert not factory.owns_loop
        spec = model_config(request.model, device=request.device).spec
        trainer = factory(factory.Options(), TrainContext(spec, seed=0, temperature=temperature, total_updates=1))
        own: list[LogprobColumn] = []
        for start in range(0, len(rollouts), CHUNK):
            own += trainer.logprobs(rollouts[start : start + CHUNK])
    return own


def _milli(rollout: Rollout, logprobs: LogprobColumn) -> list[int | None]:
    assert rollout.loss_mask is not None
    assert rollout.behaviour_logprobs is not None
    mask = rollout.loss_mask.tolist()
    start = mask.index(True) if True in mask else len(mask)
    weights = [float(a) - float(b) for a, b in zip(logprobs[start:], rollout.behaviour_logprobs[start:], strict=True)]
    return [
        round(1000 * weight) if sampled and math.isfinite(weight) else None
        for weight, sampled in zip(weights, mask[start:], strict=True)
    ]
