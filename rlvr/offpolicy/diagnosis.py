"""Diagnosis of saved rollouts against a model: the pure functions behind `rlvr.diagnose`.

RecordSample  records that are measured, and why the others cannot be used
measure       distances and shares of the sample, by part (bucket of lag, or file and versions)
recommend     decision table: from distances to a recipe
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from rlvr.offpolicy.eligibility import NO_LOGPROBS, NO_REWARD, SeenRollouts, faults
from rlvr.offpolicy.lineage import Lineage
from rlvr.offpolicy.staleness import BUCKETS, UNKNOWN, bucket_of, distances, means, oldest
from rlvr.record.schema import LogprobColumn, Rollout
from rlvr.verify.scoring import training_reward

VERSION_RANGES = 6  # lines a source, where versions say nothing of the lag


# --- which records ----------------------------------------------------------------------------------------------------


class DrawnRecord(NamedTuple):
    """A record, and the given path that it came from."""

    source: str
    rollout: Rollout


class RecordSample:
    """Count records, and keep whole groups of usable ones, about `limit` rollouts in all.

    The choice of groups depends on their names alone (the smallest hashes stay), so all files are sampled equally. Of
    other records only the names are kept.
    """

    def __init__(self, limit: int, **expected: Any) -> None:
        """Take the arguments of `rlvr.offpolicy.eligibility.faults` as `expected`."""
        self.limit = limit
        self.records = self.usable = self.kept = 0
        self.reasons: Counter[str] = Counter()
        """Reason → number of records; a record may have several reasons."""
        self.only_logprobs = 0
        """Records that lack their log-probabilities and nothing else."""
        self.scored: Counter[str] = Counter()
        """Verifier → records that it has scored."""
        self._expected = expected
        self._seen = SeenRollouts()
        self._groups: dict[tuple[int, str], list[DrawnRecord]] = {}
        self._heap: list[tuple[int, str]] = []
        self._bound = 0  # the negative of the smallest hash that was removed

    def add(self, source: str, rollout: Rollout, file: str | None = None) -> None:
        """Count a record. `source` is the given path that is or contains its `file`."""
        self.records += 1
        self.scored.update({score.verifier for score in rollout.scores})
        file = file or source
        found, _ = self._seen.check(rollout, file, f"{self.records}", faults(rollout, **self._expected))
        found = found or _without_reward(rollout, self._expected["verifier"])
        self.reasons.update(found)
        self.only_logprobs += found == (NO_LOGPROBS,)
        if found:
            return
        self.usable += 1
        name = f"{source}\0{rollout.run_id or file}\0{rollout.branch}\0{rollout.group_id}"
        key = (-int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big"), name)
        if key[0] <= self._bound < 0:
            return
        if key not in self._groups:
            heapq.heappush(self._heap, key)
        self._groups.setdefault(key, []).append(DrawnRecord(source, rollout))
        self.kept += 1
        while self.kept - len(self._groups[self._heap[0]]) >= self.limit:
            self._bound, name = key = heapq.heappop(self._heap)
            self.kept -= len(self._groups.pop(key))

    @property
    def groups(self) -> list[list[DrawnRecord]]:
        """Groups that were kept, in the order of the files."""
        return list(self._groups.values())


def _without_reward(rollout: Rollout, verifier: str | None) -> tuple[str, ...]:
    score = rollout.last_score(verifier)
    assert score is not None  # or there is a fault
    return () if training_reward(score) is not None else (f"{NO_REWARD} ({score.status.value})",)


# --- how far ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PartDistances:
    """Sizes and distances of a part of the sample, or of all of it. A mean over nothing is None."""

    part: str
    rollouts: int
    tokens: int
    log_w_mean: float | None
    log_w_square: float | None
    ratio_max: float | None
    kl_k1: float | None
    kl_k3: float | None
    chi2: float | None
    ess_token: float | None
    ess_sequence: float | None
    gap: float | None
    """Mean |log π - log α| per token; at lag 0 it is the disagreement of sampler and trainer."""
    signal: float | None
    """Share of groups whose rewards differ."""
    truncated: float | None
    """Share of rollouts cut at their length limit."""


def measure(
    groups: Sequence[Sequence[DrawnRecord]],
    logprobs: Sequence[LogprobColumn],
    lineage: Lineage,
    verifier: str | None,
) -> list[PartDistances]:
    """Return the distances of the whole sample (`all`), then by part: buckets of lag, then files and version ranges.

    Args:
        groups: Usable records, at least one.
        logprobs: (T,) log-probabilities under the model per record, in the groups' order; NaN outside the loss mask.
        lineage: Lineage of the model.
        verifier: Verifier whose last score is the reward.
    """
    found = [each for group in groups for each in group]
    group_of_R = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    log_w, part = [], []
    names = list(BUCKETS)
    ranges = _version_ranges(found, lineage)
    for each, own in zip(found, logprobs, strict=True):
        behaviour = each.rollout.behaviour_logprobs
        assert behaviour is not None
        log_w.append((np.asarray(own, np.float64) - behaviour)[each.rollout.loss_mask])
        part.append(np.fromiter(_parts(each, lineage, ranges, names), dtype=np.int64))
    row_N = np.repeat(np.arange(len(found)), [len(tokens) for tokens in part])
    log_w_N, part_N = np.concatenate(log_w), np.concatenate(part)
    signal_G = [len({_reward(each.rollout, verifier) for each in group}) > 1 for group in groups]
    ended = [(r, each.rollout.finish_reason == "length") for r, each in enumerate(found) if each.rollout.finish_reason]

    def lines(part_N: Any, names: Sequence[str]) -> Iterator[PartDistances]:
        parts = len(names)
        part_R = oldest(part_N, row_N, len(found))
        part_G = oldest(part_R, group_of_R, len(groups))
        numbers = {
            **distances(log_w_N, row_N, part_N, parts),
            "gap": means(np.abs(log_w_N), part_N, parts),
            "signal": means(signal_G, part_G, parts),
            "truncated": means([cut for _, cut in ended], part_R[[r for r, _ in ended]], parts)
            if ended
            else np.full(parts, np.nan),
        }
        tokens_P = np.bincount(part_N, minlength=parts)
        rollouts_P = np.bincount(part_R, minlength=parts)
        del numbers["ratio_mean"]
        for p in np.flatnonzero(tokens_P):
            shown = {name: _number(values_P[p]) for name, values_P in numbers.items()}
            yield PartDistances(names[int(p)], int(rollouts_P[p]), int(tokens_P[p]), **shown)

    whole = lines(np.zeros_like(part_N), ["all"])
    return [*whole, *lines(part_N, [_BY_LAG.get(name, name) for name in names])]


_BY_LAG = {name: f"lag {name}" for name in BUCKETS} | {"newer": "newer than the model"}


def _reward(rollout: Rollout, verifier: str | None) -> float | None:
    score = rollout.last_score(verifier)
    assert score is not None
    return training_reward(score)


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


Ranges: TypeAlias = Sequence[tuple[int, int]]


def _version_ranges(found: Sequence[DrawnRecord], lineage: Lineage) -> Mapping[str, Ranges]:
    """Return source → at most `VERSION_RANGES` ascending ranges (first, last) of its versions, if they give no lag."""
    versions: dict[str, set[int]] = {}
    for source, rollout in found:
        if lineage.version_for(rollout) is None:
            versions.setdefault(source, set()).update(run.version for run in rollout.policy_versions or ())
    chunks = {source: np.array_split(sorted(seen), VERSION_RANGES) for source, seen in versions.items()}
    return {source: [(int(c[0]), int(c[-1])) for c in cut if len(c)] for source, cut in chunks.items()}


def _parts(found: DrawnRecord, lineage: Lineage, ranges: Mapping[str, Ranges], names: list[str]) -> Iterator[int]:
    """Yield the part of each sampled token, as an index into `names`; new names are appended to it."""
    source, rollout = found
    here, runs = lineage.version_for(rollout), rollout.policy_versions
    if runs is None:
        place = UNKNOWN if here is not None else _place(f"{source}, no version", names)
        yield from [place] * rollout.sampled_tokens
        return
    for run in runs:
        if here is not None:
            place = int(bucket_of([here - run.version], [True])[0])
        else:
            first, last = next(each for each in ranges[source] if run.version <= each[1])
            place = _place(f"{source}, version {first}" + (f" to {last}" if last > first else ""), names)
        yield from [place] * run.count


def _place(name: str, names: list[str]) -> int:
    if name not in names:
        names.append(name)
    return names.index(name)


# --- what to do -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Evidence:
    """Input of the decision table."""

    records: int
    usable: int
    only_logprobs: int
    """Records that lack only their log-probabilities."""
    all: PartDistances | None
    """The whole sample; None if nothing is usable."""
    fresh: PartDistances | None
    """Its tokens at lag 0."""


@dataclass(frozen=True)
class Advice:
    """Row of the decision table; the first whose condition holds applies."""

    name: str
    recipe: str | None
    """Recipe for `rlvr train --recipe`; None if there is nothing to train on yet."""
    settings: tuple[str, ...]
    """Settings for `--set`, besides the recipe."""
    when: Callable[[Evidence], bool]
    condition: str
    """`when` in words."""
    why: str


MISMATCH = 0.02
NEAR, MODERATE, FAR, COLLAPSED = 0.99, 0.9, 0.5, 0.1


def _ess_at_least(bound: float) -> Callable[[Evidence], bool]:
    return lambda e: e.all is not None and e.all.ess_token is not None and e.all.ess_token >= bound


ADVICE: tuple[Advice, ...] = (
    Advice(
        "recompute",
        None,
        (),
        lambda e: e.usable == 0 and e.only_logprobs > 0,
        "nothing is usable, and some records lack only log-probabilities",
        "name the model that sampled them: rlvr train --rollouts … --behaviour-model MODEL computes their "
        "log-probabilities",
    ),
    Advice(
        "nothing usable",
        None,
        (),
        lambda e: e.usable == 0,
        "nothing is usable",
        "each reason above comes with a remedy",
    ),
    Advice(
        "no signal",
        None,
        (),
        lambda e: e.all is not None and e.all.signal == 0,
        "no group has rewards that differ",
        "all rewards of a group are equal, so every advantage is 0: sample harder or easier questions, or use a "
        "verifier that distinguishes the completions",
    ),
    Advice(
        "mismatch",
        "paper-v1-i1",
        ("trainer.correction=icepop",),
        lambda e: e.fresh is not None and e.fresh.gap is not None and e.fresh.gap > MISMATCH,
        f"mean |log w| at lag 0 is above {MISMATCH}",
        "sampler and trainer disagree about the log-probabilities of the same weights by more than rounding. Look for "
        "the cause first (temperature, dtype, engine); truncated weights (tis) or a mask (icepop) limit the effect",
    ),
    Advice(
        "near",
        "paper-v1-i1",
        (),
        _ess_at_least(NEAR),
        f"token ESS at least {NEAR}",
        "a typical importance weight is within 10 % of 1: nearly on-policy",
    ),
    Advice(
        "moderate",
        "paper-v10-i1",
        (),
        _ess_at_least(MODERATE),
        f"token ESS at least {MODERATE}",
        "importance weights vary by up to a third, so a clip band of ±0.2 around 1 keeps the gradient of most tokens",
    ),
    Advice(
        "stale",
        "decoupled-ppo",
        (),
        _ess_at_least(FAR),
        f"token ESS at least {FAR}",
        "a clip band around 1 would cut tokens because the data is old, not because the step is large: clip around the "
        "current policy, and multiply by its importance weight",
    ),
    Advice(
        "far",
        "m2po",
        (),
        _ess_at_least(COLLAPSED),
        f"token ESS at least {COLLAPSED}",
        "a few tokens dominate the estimate: bound the second moment of the log-ratios, which cuts only extreme tokens",
    ),
    Advice(
        "another policy",
        "topr",
        (),
        lambda _: True,
        f"token ESS below {COLLAPSED}",
        "importance weights carry almost no information: train on successes without them, and on failures with weights "
        "of at most 1",
    ),
)
"""The decision table. The bounds are rules of thumb: if log w is normal with standard deviation s, the token ESS is
exp(-s²), so 0.99, 0.9, 0.5 and 0.1 stand for s = 0.1, 0.3, 0.8 and 1.5."""


def recommend(evidence: Evidence) -> Advice:
    """Return the first row of `ADVICE` that holds."""
    return next(advice for advice in ADVICE if advice.when(evidence))
