"""Scores for many completions: a verifier in worker processes, items in, scores out in their order."""

from __future__ import annotations

import os
import pickle
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, NamedTuple, Self

from rlvr.errors import ConfigError, DataError
from rlvr.record.item import Item, item_of
from rlvr.record.rows import row_of
from rlvr.record.schema import Rollout, Score, Status, Verdict, digest
from rlvr.verify.cache import KEPT, VerdictCache, cache_key
from rlvr.verify.pool import Call, Outcome, Pool, Unit
from rlvr.verify.verifying import TOLD, Claims, Sees, load_verifier

CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")
IN_FLIGHT_UNITS, IN_FLIGHT_BYTES = 4096, 64 << 20

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
            told: Mapping[str, Any] = {name: getattr(self._verifier, name) for name in TOLD}
            self.claims = self._verifier.claims
        else:
            count = usable_cpus() if workers is None else workers
            self._pool = Pool(verifier, options or {}, workers=count, timeout=timeout, memory=memory)
            told = self._pool.told
            self.claims = Claims(**told["claims"])
        self.name = told["name"] if label is None else f"{told['name']}@{label}"
        self.version, self.config = told["version"], told["config"]
        self.takes_groups, self.wants_rollout = told["takes_groups"], told["wants_rollout"]
        self._sees: Sees = told["sees"]
        self.wants_extra = self._sees == "task"
        self.config_hash = digest(self.config)
        self._cache = cache if told["repeatable"] else None
        self._identity = "\n".join((told["name"], self.version, self.config_hash, self._sees)).encode()
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

    def restored(self, fields: Sequence[Any]) -> Score:
        """A score of this verifier from what `stored_fields` kept of it. Raises ValidationError when they are none."""
        status, reward, extracted, reason, seconds, created_at = fields
        verdict = Verdict(status=status, reward=reward, extracted=extracted, reason=reason)
        return self._score(verdict, seconds, created_at)

    def _score_here(self, units: Iterator[list[Item]]) -> Iterator[Score]:
        for unit in units:
            key = self._key(unit)
            known = self._known(key)
            start = time.perf_counter()
            verdicts = tuple(self._verifier.verify_items(unit)) if known is None else (known,)
            outcome = Outcome(verdicts, time.perf_counter() - start if known is None else 0.0)
            self._keep(key, outcome)
            yield from self._scores(outcome)

    def _score_there(self, call: Call, units: Iterator[list[Item]]) -> Iterator[Score]:
        pending: deque[_Due] = deque()
        working: dict[bytes, Unit] = {}  # by the key of what is pending
        in_flight = 0
        more = True
        try:
            while pending or more:
                if pending and pending[0].unit.outcome is not None:
                    due = pending.popleft()
                    if not due.again:
                        in_flight -= len(due.unit.data)
                        working.pop(due.key or b"", None)
                    yield from self._scores(self._outcome(call, due))
                elif more and len(pending) < IN_FLIGHT_UNITS and in_flight < IN_FLIGHT_BYTES:
                    items = next(units, None)
                    if items is None:
                        more = False
                        continue
                    pending.append(self._begin(call, items, working))
                    in_flight += 0 if pending[-1].again else len(pending[-1].unit.data)
                else:
                    call.wait(pending[0].unit)
        finally:
            call.abandon()

    def _begin(self, call: Call, items: list[Item], working: dict[bytes, Unit]) -> _Due:
        key = self._key(items)
        if key in working:
            return _Due(working[key], key, again=True)
        known = self._known(key)
        if known is not None:
            unit = Unit(call, b"", 1)
            unit.outcome = Outcome((known,), 0.0)
            return _Due(unit)
        unit = self._submit(call, items)
        if key is not None:
            working[key] = unit
        return _Due(unit, key)

    def _outcome(self, call: Call, due: _Due) -> Outcome:
        outcome = call.wait(due.unit)
        if not due.again:
            self._keep(due.key, outcome)
            return outcome
        if outcome.verdicts[0].status in KEPT:
            return Outcome(outcome.verdicts, 0.0)
        return call.wait(call.submit(due.unit.data))  # a time-out or an error is nobody's but the row's that had it

    def _key(self, unit: list[Item]) -> bytes | None:
        return None if self._cache is None else cache_key(self._identity, unit[0], self._sees)

    def _known(self, key: bytes | None) -> Verdict | None:
        return None if self._cache is None or key is None else self._cache.get(key)

    def _keep(self, key: bytes | None, outcome: Outcome) -> None:
        if self._cache is not None and key is not None:
            self._cache.put(key, outcome.verdicts[0])

    def _submit(self, call: Call, items: list[Item]) -> Unit:
        rows = [(item.completion, item.task, item.rollout if self.wants_rollout else None) for item in items]
        return call.submit(pickle.dumps(rows, pickle.HIGHEST_PROTOCOL), len(items))

    def _scores(self, outcome: Outcome) -> Iterator[Score]:
        """Several verdicts of one unit share its seconds equally."""
        seconds = outcome.seconds / len(outcome.verdicts)
        for verdict in outcome.verdicts:
            yield self._score(verdict, seconds, outcome.at)

    def _score(self, verdict: Verdict, seconds: float, at: str) -> Score:
        # A verdict has been validated, and so has everything else of the blank score: a third of the time.
        return self._blank.model_copy(update={**vars(verdict), "seconds": seconds, "created_at": at})


class _Due(NamedTuple):
    """A unit whose outcome is due; `again` when an equal one was under way already, and this is that."""

    unit: Unit
    key: bytes | None = None
    again: bool = False


def stored_fields(score: Score) -> list[Any]:
    """What of a score its verifier does not say: what `Scorer.restored` needs to make it again."""
    return [score.status.value, score.reward, score.extracted, score.reason, score.seconds, score.created_at]


def score(
    rows: Iterable[Rollout | Mapping[str, Any] | Item],
    verifier: str = "math",
    *,
    options: Mapping[str, Any] | None = None,
    workers: int | None = None,
    timeout: float = 5.0,
) -> Iterator[Score]:
    """A score for each row, in their order.

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
    """CPUs that this process may use: its affinity, cut by the control group's quota where there is one."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = CPU_QUOTA.read_text().split()
    except OSError:
        return count
    return count if quota == "max" else max(1, min(count, round(int(quota) / int(period))))
