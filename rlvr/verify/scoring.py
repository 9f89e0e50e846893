"""Scores for many completions: a verifier in worker processes, items in, scores out in their order."""

from __future__ import annotations

import os
import pickle
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, NamedTuple, Self

from rlvr.errors import ConfigError, DataError
from rlvr.record.item import Item, item_of
from rlvr.record.rows import row_of
from rlvr.record.schema import Rollout, Score, Status, Verdict, digest
from rlvr.verify.cache import KEPT, VerdictCache, cache_key
from rlvr.verify.pool import Call, Pool, UnitResult, WorkUnit
from rlvr.verify.verifying import (
    DESCRIPTION_FIELDS,
    EXTRACTED_LIMIT,
    REASON_LIMIT,
    Claims,
    Sees,
    load_verifier,
)
from rlvr.verify.workers import LOAD_TIMEOUT

CGROUP_ROOT, OWN_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
IN_FLIGHT_UNITS, IN_FLIGHT_BYTES = 4096, 64 << 20
VERDICT_BYTES = EXTRACTED_LIMIT + REASON_LIMIT  # room that the verdict of a row in flight may need

DEFAULT_REWARDS: Mapping[Status, float | None] = MappingProxyType(
    {
        Status.UNPARSED: 0.0,
        Status.TIMEOUT: 0.0,
        Status.ABSTAINED: None,
        Status.INVALID: None,
        Status.ERROR: None,
    }
)
"""What training makes of a verdict without a reward: a number, or None to drop the rollout."""


def training_reward(score: Score, policy: Mapping[Status, float | None] = DEFAULT_REWARDS) -> float | None:
    """The reward that training uses for a score; None drops the rollout.

    Raises ConfigError when `policy` has no entry for the score's status.
    """
    if score.status is Status.GRADED:
        return score.reward
    if score.status not in policy:
        raise ConfigError(f"no reward is configured for the status {score.status.value!r}: give a number or null")
    return policy[score.status]


class Scorer:
    """One verifier with its options, and the processes it runs in. A context manager; made once, used many times.

    Several threads may score with one Scorer. In asynchronous code, iterate in a thread (`asyncio.to_thread`).
    """

    name: str
    version: str
    config: Mapping[str, Any]
    config_hash: str
    wants_rollout: bool
    """The verifier looks at the whole rollout: an item without one is not enough."""
    claims: Claims
    """What the verifier can be held to: see `rlvr.bench.bench`."""
    wants_extra: bool
    """The verifier looks at more of the task than the gold answer."""
    takes_groups: bool
    """The verifier judges the rollouts of a group together."""

    def __init__(
        self,
        verifier: str,
        options: Mapping[str, Any] | None = None,
        *,
        workers: int | None = None,
        timeout: float = 5.0,
        memory: int | None = None,
        label: str | None = None,
        cache: VerdictCache | None = None,
        load_timeout: float = LOAD_TIMEOUT,
    ) -> None:
        """Loads the verifier at once, in a process of its own; the workers are forked when there is work.

        Args:
            verifier: As `load_verifier` has it: a registered name, `file.py:function`, `package.module:function`.
            options: The verifier's options.
            workers: Processes; None is one a usable CPU; 0 verifies in this process, for a debugger: no time-outs, no
                limits, a crash is a crash.
            timeout: Seconds of wall clock a verdict; a verifier that takes groups has that times the group's size.
            memory: Bytes of address space a worker may add to what importing the verifier took; None is what the
                verifier declares, or 2 GiB. Enforced on Linux.
            label: Names this variant of the verifier: its scores are by `NAME@LABEL`.
            cache: Where to look for verdicts first, and where to keep new ones: used for a verifier that takes
                `(completion, task)` and is deterministic.

        Raises:
            PluginError: the verifier does not exist or cannot be loaded.
            ConfigError: its options, `workers`, `timeout` or `memory` make no sense.
        """
        if workers is not None and workers < 0:
            raise ConfigError(f"workers is {workers}: 0 is in process, None one a CPU")
        if not timeout > 0:
            raise ConfigError(f"timeout is {timeout}: expected seconds, more than 0")
        if memory is not None and memory <= 0:
            raise ConfigError(f"memory is {memory}: expected bytes, more than 0")
        self._pool: Pool | None = None
        if workers == 0:
            self._verifier = load_verifier(verifier, **(options or {}))
            description: Mapping[str, Any] = {name: getattr(self._verifier, name) for name in DESCRIPTION_FIELDS}
            self.claims = self._verifier.claims
        else:
            count = usable_cpus() if workers is None else workers
            self._pool = Pool(
                verifier, options or {}, workers=count, timeout=timeout, memory=memory, load_timeout=load_timeout
            )
            description = self._pool.description
            self.claims = Claims(**description["claims"])
        self.name = description["name"] if label is None else f"{description['name']}@{label}"
        self.version, self.config = description["version"], description["config"]
        self.takes_groups, self.wants_rollout = description["takes_groups"], description["wants_rollout"]
        self._sees: Sees = description["sees"]
        self.wants_extra = self._sees == "task"
        self.config_hash = digest(self.config)
        self._cache = cache if description["repeatable"] else None
        self._identity = "\n".join((description["name"], self.version, self.config_hash, self._sees)).encode()
        self._blank = Score(
            status=Status.ABSTAINED,
            verifier=self.name,
            version=self.version,
            config=self.config,
            config_hash=self.config_hash,
        )

    def score(self, items: Iterable[Item]) -> Iterator[Score]:
        """A score for each item, in their order.

        Items are read as they are needed, a bounded number ahead of the score that is due. A verifier that takes
        groups sees consecutive items of one `rollout.group_id` as a group. Raises RunError when the workers cannot
        be kept up or the Scorer is closed.
        """
        units = self._units(items)
        return self._score_here(units) if self._pool is None else self._score_there(self._pool.call(), units)

    def close(self) -> None:
        """End the processes."""
        if self._pool is not None:
            self._pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _units(self, items: Iterable[Item]) -> Iterator[list[Item]]:
        if not self.takes_groups:
            yield from ([item] for item in items)
            return
        # An item without a group is a group of its own: no two consecutive ones have the same key.
        keyed = (
            (item.rollout.group_id if item.rollout and item.rollout.group_id is not None else place, item)
            for place, item in enumerate(items)
        )
        for _, members in groupby(keyed, key=lambda pair: pair[0]):
            yield [item for _, item in members]

    def _score_here(self, units: Iterator[list[Item]]) -> Iterator[Score]:
        for unit in units:
            key = self._key(unit)
            known = self._known(key)
            start = time.perf_counter()
            verdicts = tuple(self._verifier.verify_items(unit)) if known is None else (known,)
            outcome = UnitResult(verdicts, time.perf_counter() - start if known is None else 0.0)
            self._keep(key, outcome)
            yield from self._scores(outcome)

    def _score_there(self, call: Call, units: Iterator[list[Item]]) -> Iterator[Score]:
        pending: deque[_Due] = deque()
        working: dict[bytes, WorkUnit] = {}  # by the key of what is pending
        in_flight = 0
        more = True
        try:
            while pending or more:
                if pending and pending[0].unit.result is not None:
                    due = pending.popleft()
                    if not due.again:
                        in_flight -= _bytes_in_flight(due.unit)
                        working.pop(due.key or b"", None)
                    yield from self._scores(self._outcome(call, due))
                elif more and len(pending) < IN_FLIGHT_UNITS and in_flight < IN_FLIGHT_BYTES:
                    items = next(units, None)
                    if items is None:
                        more = False
                        continue
                    pending.append(self._begin(call, items, working))
                    in_flight += 0 if pending[-1].again else _bytes_in_flight(pending[-1].unit)
                else:
                    call.wait(pending[0].unit)
        finally:
            call.abandon()

    def _begin(self, call: Call, items: list[Item], working: dict[bytes, WorkUnit]) -> _Due:
        key = self._key(items)
        if key in working:
            return _Due(working[key], key, again=True)
        known = self._known(key)
        if known is not None:
            unit = WorkUnit(call, b"", 1)
            unit.result = UnitResult((known,), 0.0)
            return _Due(unit)
        unit = self._submit(call, items)
        if key is not None:
            working[key] = unit
        return _Due(unit, key)

    def _outcome(self, call: Call, due: _Due) -> UnitResult:
        outcome = call.wait(due.unit)
        if not due.again:
            self._keep(due.key, outcome)
            return outcome
        if outcome.verdicts[0].status in KEPT:
            return UnitResult(outcome.verdicts, 0.0)
        return call.wait(call.submit(due.unit.data))  # a time-out or an error is nobody's but the row's that had it

    def _key(self, unit: list[Item]) -> bytes | None:
        return None if self._cache is None else cache_key(self._identity, unit[0], self._sees)

    def _known(self, key: bytes | None) -> Verdict | None:
        return None if self._cache is None or key is None else self._cache.get(key)

    def _keep(self, key: bytes | None, outcome: UnitResult) -> None:
        if self._cache is not None and key is not None:
            self._cache.put(key, outcome.verdicts[0])

    def _submit(self, call: Call, items: list[Item]) -> WorkUnit:
        rows = [(item.completion, item.task, item.rollout if self.wants_rollout else None) for item in items]
        return call.submit(pickle.dumps(rows, pickle.HIGHEST_PROTOCOL), len(items))

    def _scores(self, outcome: UnitResult) -> Iterator[Score]:
        """Several verdicts of one unit share its seconds equally."""
        seconds = outcome.seconds / len(outcome.verdicts)
        for verdict in outcome.verdicts:
            yield self.score_of(verdict, seconds, outcome.at)

    def score_of(self, verdict: Verdict, seconds: float, at: str) -> Score:
        """Return a verdict as a score of this verifier: with its name, version and configuration."""
        # A verdict has been validated, and so has everything else of the blank score: a third of the time.
        return self._blank.model_copy(update={**vars(verdict), "seconds": seconds, "created_at": at})


class _Due(NamedTuple):
    """A unit whose outcome is due; `again` when an equal one was under way already, and this is that."""

    unit: WorkUnit
    key: bytes | None = None
    again: bool = False


def _bytes_in_flight(unit: WorkUnit) -> int:
    return len(unit.data) + unit.size * VERDICT_BYTES


def score_rows(
    rows: Iterable[Rollout | Mapping[str, Any] | Item],
    verifier: str = "math",
    *,
    options: Mapping[str, Any] | None = None,
    workers: int | None = None,
    timeout: float = 5.0,
) -> Iterator[Score]:
    """Yield a score for each row, in order.

    A row is a `Rollout`, an `Item`, or a mapping: a record (it has a `schema_version`), or any other with the keys
    `completion`, `answer`, `prompt`, `id`, `group_id` as far as they are known; its other keys are `task.extra`.
    Raises as `Scorer` does, and DataError for a row that is none of these.
    """
    with Scorer(verifier, options, workers=workers, timeout=timeout) as scorer:
        yield from scorer.score(item(row, f"row {place}") for place, row in enumerate(rows))


def item(row: Rollout | Mapping[str, Any] | Item, where: str) -> Item:
    """Return what verifying a row of Python values needs. Raises DataError, which says `where`, for an invalid row."""
    if isinstance(row, Item):
        return row
    if isinstance(row, Rollout):
        return Item(row.completion, row.task, row)
    if not isinstance(row, Mapping):
        raise DataError(f"{where} is a {type(row).__name__}: expected a Rollout, an Item or a mapping")
    return item_of(row_of(row, where), wants_rollout=True)


def usable_cpus() -> int:
    """Return the number of CPUs that this process may use: its affinity, limited by the quotas of its control groups.

    A quota is rounded down, but at least to 1: more workers than CPUs only take each other's time.
    """
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([count, *(int(quota) for quota in _cpu_quotas())]))


def _cpu_quotas() -> Iterator[float]:
    """Yield the CPU quotas of this process's control groups, and of the groups above them, in CPUs."""
    try:
        groups = [line.split(":", 2) for line in OWN_CGROUPS.read_text().splitlines()]
    except OSError:
        groups = []
    for _, controllers, path in groups or [["0", "", "/"]]:
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = CGROUP_ROOT / controllers if controllers else CGROUP_ROOT
        for group in [root / path.lstrip("/"), *(root / path.lstrip("/")).parents]:
            if controllers:
                quota, period = _number(group / "cpu.cfs_quota_us"), _number(group / "cpu.cfs_period_us")
            else:
                quota, period = _number(group / "cpu.max"), _number(group / "cpu.max", 1)
            if quota is not None and period is not None and quota > 0 and period > 0:
                yield quota / period
            if group == root:
                break


def _number(path: Path, place: int = 0) -> float | None:
    """Return a number of a control group's file; None if there is no such file, or no limit."""
    try:
        return float(path.read_text().split()[place])
    except (OSError, IndexError, ValueError):
        return None
