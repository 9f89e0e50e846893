"""Scores for many completions: a verifier in worker processes, items in, scores out in their order."""

from __future__ import annotations

import logging
import os
import pickle
import time
from collections import deque
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby, islice
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, NamedTuple, Self, TypeAlias

from rlvr.errors import ConfigError, DataError, PluginError
from rlvr.record.item import Item, item_of
from rlvr.record.rows import Row, row_of
from rlvr.record.schema import Rollout, Score, Status, Verdict, digest
from rlvr.registry import registry
from rlvr.terminal import prints_to_standard_error
from rlvr.verify.cache import KEPT, VerdictCache, cache_key
from rlvr.verify.composition import references
from rlvr.verify.grouping import group_key, score_by_group
from rlvr.verify.loaded import DESCRIPTION_FIELDS, Claims, LoadedVerifier, Sees
from rlvr.verify.pool import Call, Pool, UnitResult, WorkUnit
from rlvr.verify.results import EXTRACTED_LIMIT, REASON_LIMIT, describe
from rlvr.verify.reward_limit import LARGEST_MAX_REWARD, MAX_REWARD, limited
from rlvr.verify.verifying import load_verifier
from rlvr.verify.workers import LOAD_TIMEOUT

CGROUP_ROOT, OWN_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
IN_FLIGHT_UNITS, IN_FLIGHT_BYTES = 4096, 64 << 20
MAX_TIMEOUT = 1e6  # seconds; the kernel's timers end at about twice that
VERDICT_BYTES = EXTRACTED_LIMIT + REASON_LIMIT  # room that the verdict of a row in flight may need

_log = logging.getLogger("rlvr")

PythonRow: TypeAlias = Rollout | Row | Item | Mapping[str, Any]
"""A row to score: see `score_rows`."""

DEFAULT_REWARDS: Mapping[Status, float | None] = MappingProxyType(
    {
        Status.UNPARSED: 0.0,
        Status.TIMEOUT: None,
        Status.ABSTAINED: None,
        Status.INVALID: None,
        Status.ERROR: None,
    }
)
"""Rewards in training of verdicts without a reward: a number, or None to drop the rollout.

Only an answer that cannot be read counts as wrong. A time-out or an error says nothing about the answer: a slow service
or a broken worker must not teach the policy that its answer was wrong.
"""


def training_reward(score: Score, policy: Mapping[Status, float | None] = DEFAULT_REWARDS) -> float | None:
    """Return the reward that training uses for a score; None drops the rollout.

    Raises ConfigError if `policy` has no entry for the score's status.
    """
    score = limited(score)
    if score.status is Status.GRADED:
        return score.reward
    if score.status not in policy:
        raise ConfigError(f"no reward is configured for the status {score.status.value!r}: give a number or null")
    return policy[score.status]


class Scorer:
    """One verifier with its options, and the processes that it runs in. A context manager, made once and used often.

    Several threads may score with one Scorer. In asynchronous code, iterate in a thread (`asyncio.to_thread`).
    """

    name: str
    version: str
    config: Mapping[str, Any]
    config_hash: str
    wants_rollout: bool
    """Whether the verifier needs the whole rollout, not only completion and task."""
    claims: Claims
    """Properties that the verifier declares and `rlvr.bench` checks."""
    wants_extra: bool
    """Whether the verifier sees more of the task than the gold answer."""
    takes_groups: bool
    """Whether the verifier judges the rollouts of a group together."""
    escaped: int
    """Verdicts so far with text that had to be escaped, because no file can hold lone surrogates."""
    min_group: int
    """Rollouts that a group needs at least for a verdict; 1 for verifiers that do not take groups."""

    def __init__(
        self,
        verifier: str,
        options: Mapping[str, Any] | None = None,
        *,
        workers: int | None = None,
        timeout: float = 5.0,
        memory: int | None = None,
        max_reward: float = MAX_REWARD,
        label: str | None = None,
        cache: VerdictCache | None = None,
        write_protect: bool = False,
        load_timeout: float = LOAD_TIMEOUT,
        seed: int = 0,
        warn_escaped: bool = True,
    ) -> None:
        """Load the verifier in a process of its own. Workers are forked when there is work.

        Args:
            verifier: A registered name, `file.py:function`, `package.module:function` or a composition, as for
                `load_verifier`.
            options: The verifier's options.
            workers: Number of processes; None means one per usable CPU. 0 verifies in this process, for a debugger:
                without timeouts, limits and isolation.
            timeout: Time limit per verdict in seconds, not counting the time that a worker waits for a CPU
                (`rlvr.verify.pool`). For a verifier that takes groups, it is multiplied by the group's size.
            memory: Bytes of address space that a worker may use in addition to what imports took. None means what the
                verifier declares, or 2 GiB. Enforced on Linux.
            max_reward: Size of a reward beyond which the verdict is an `error`; at most 1e100.
            label: Name of this variant of the verifier: its scores are by `NAME@LABEL`.
            cache: Verdicts to reuse, and to which new ones are added. Used if the verifier takes `(completion, task)`
                and is deterministic.
            write_protect: Let workers write to their scratch folders only, as Landlock of Linux 6.2 or newer enforces.
            load_timeout: Seconds that loading the verifier may take.
            seed: Seed of the random numbers that a verifier draws in its workers, together with the row.
            warn_escaped: Log a warning at the first verdict whose text had to be escaped.

        Raises:
            PluginError: The verifier does not exist or cannot be loaded.
            ConfigError: An option, `workers`, `timeout` or `memory` is invalid, or the kernel cannot write-protect.
        """
        _check_request(verifier, workers, timeout, memory, write_protect)
        self._max_reward = _checked_max_reward(max_reward)
        self._seed = b"%d" % seed if seed else b""
        self._warn_escaped = warn_escaped
        self.escaped = 0
        self._pool: Pool | None = None
        if workers == 0:
            self._verifier = _set_up(load_verifier(verifier, **(options or {})), timeout)
            description: Mapping[str, Any] = {name: getattr(self._verifier, name) for name in DESCRIPTION_FIELDS}
            self.claims = self._verifier.claims
        else:
            count = usable_cpus() if workers is None else workers
            limits: dict[str, Any] = {"timeout": timeout, "memory": memory, "load_timeout": load_timeout}
            self._pool = Pool(verifier, options or {}, workers=count, write_protect=write_protect, **limits)
            description = self._pool.description
            self.claims = Claims(**description["claims"])
        self._describe(description, label, cache)

    def _describe(self, description: Mapping[str, Any], label: str | None, cache: VerdictCache | None) -> None:
        """Take what the process that has loaded the verifier says about it."""
        self.name = description["name"] if label is None else f"{description['name']}@{label}"
        self.version, self.config = description["version"], description["config"]
        self.takes_groups, self.wants_rollout = description["takes_groups"], description["wants_rollout"]
        self.min_group = description["min_group"]
        self._at_once: int = description["at_once"]
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
        """Yield a score for each item, in order.

        Items are read as needed, a bounded number ahead of the next score. A verifier that takes groups gets
        consecutive items with one `rollout.group_id` (of one run) as a group. Raises RunError if workers cannot be kept
        running or the Scorer is closed, DataError if other items stand between those of a group.
        """
        units = self._units(items)
        return self._score_units(units)

    def score_groups(self, groups: Iterable[Sequence[Item]]) -> Iterator[Score]:
        """Yield a score for each item of each group, in order; otherwise like `score`."""
        if self.takes_groups:
            return self._score_units(map(list, groups))
        return self.score(item for group in groups for item in group)

    def _score_units(self, units: Iterator[list[Item]]) -> Iterator[Score]:
        return self._score_here(units) if self._pool is None else self._score_there(self._pool.call(), units)

    def close(self) -> None:
        """End all processes."""
        if self._pool is not None:
            self._pool.close()
        else:
            self._verifier.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _units(self, items: Iterable[Item]) -> Iterator[list[Item]]:
        if not self.takes_groups:
            rest = iter(items)
            while unit := list(islice(rest, self._at_once)):
                yield unit
            return
        # An item without a group is a group of its own, because consecutive ones have different keys.
        keyed = ((place if (key := group_key(item)) is None else key, item) for place, item in enumerate(items))
        done: set[Hashable] = set()
        for key, members in groupby(keyed, key=lambda pair: pair[0]):
            if key in done:
                raise DataError(f"the rollouts of group {key[-1]!r} are not consecutive: give them one after another")
            done.add(key)
            yield [item for _, item in members]

    def _score_here(self, units: Iterator[list[Item]]) -> Iterator[Score]:
        for unit in units:
            key = self._key(unit)
            known = self._known(key)
            start, escaped = time.perf_counter(), self._verifier.escaped
            with prints_to_standard_error():
                verdicts = tuple(self._verifier.verify_items(unit)) if known is None else (known,)
            seconds = time.perf_counter() - start if known is None else 0.0
            result = UnitResult(verdicts, seconds, escaped=self._verifier.escaped - escaped)
            self._keep(key, result)
            yield from self._scores(result)

    def _score_there(self, call: Call, units: Iterator[list[Item]]) -> Iterator[Score]:
        pending: deque[_Due] = deque()
        working: dict[bytes, WorkUnit] = {}  # by the key of the pending unit
        in_flight = 0
        more = True
        try:
            while pending or more:
                if pending and pending[0].unit.result is not None:
                    due = pending.popleft()
                    if not due.again:
                        in_flight -= _bytes_in_flight(due.unit)
                        working.pop(due.key or b"", None)
                    yield from self._scores(self._result(call, due))
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

    def _result(self, call: Call, due: _Due) -> UnitResult:
        result = call.wait(due.unit)
        if not due.again:
            self._keep(due.key, result)
            return result
        if result.verdicts[0].status in KEPT:
            return UnitResult(result.verdicts, 0.0)
        return call.wait(call.submit(due.unit.data))  # a timeout or an error is not shared by equal rows

    def _key(self, unit: list[Item]) -> bytes | None:
        return None if self._cache is None else cache_key(self._identity, unit[0], self._sees)

    def _known(self, key: bytes | None) -> Verdict | None:
        return None if self._cache is None or key is None else self._cache.get(key)

    def _keep(self, key: bytes | None, result: UnitResult) -> None:
        if self._cache is not None and key is not None:
            self._cache.put(key, result.verdicts[0])

    def _submit(self, call: Call, items: list[Item]) -> WorkUnit:
        rows = [(item.completion, item.task, item.rollout if self.wants_rollout else None) for item in items]
        # A worker seeds its generators with these bytes. What follows the end of a pickle is not read.
        data = pickle.dumps(rows, pickle.HIGHEST_PROTOCOL) + self._seed
        # Of many items at once, some may fail: asking about all of them again would cost more than it saves.
        return call.submit(data, len(items), retry=self._at_once == 1)

    def _scores(self, result: UnitResult) -> Iterator[Score]:
        """Yield the scores of a unit, which share its seconds equally."""
        seconds = result.seconds / len(result.verdicts)
        if result.escaped and not self.escaped and self._warn_escaped:
            _log.warning(
                "verifier %r gave text with lone surrogates, which no file can hold: it is escaped, here and elsewhere",
                self.name,
            )
        self.escaped += result.escaped
        for verdict in result.verdicts:
            yield self.score_of(limited(verdict, self._max_reward), seconds, result.at)

    def score_of(self, verdict: Verdict, seconds: float, at: str) -> Score:
        """Return a verdict as a score of this verifier: with its name, version and configuration."""
        # Verdict and blank score are validated already; validating again would triple the time.
        return self._blank.model_copy(update={**vars(verdict), "seconds": seconds, "created_at": at})


def _check_request(verifier: str, workers: int | None, timeout: float, memory: int | None, write_protect: bool) -> None:
    """Raise ConfigError for limits that make no sense, and PluginError for a name that is not registered.

    The name is looked up in this process because worker processes do not report broken plugins.
    """
    for name in references(verifier):
        if ":" not in name and not name.endswith(".py"):
            registry().entry("verifier", name)
    if workers is not None and workers < 0:
        raise ConfigError(f"workers is {workers}: expected None (one per CPU), 0 (in this process) or more")
    if not 0 < timeout <= MAX_TIMEOUT:
        raise ConfigError(f"timeout is {timeout}: expected seconds, more than 0 and at most {MAX_TIMEOUT:,.0f}")
    if memory is not None and memory <= 0:
        raise ConfigError(f"memory is {memory}: expected bytes, more than 0")
    if write_protect and workers == 0:
        raise ConfigError("write protection is for worker processes: with 0 workers, the verifier runs in this one")


def _set_up(verifier: LoadedVerifier, limit: float) -> LoadedVerifier:
    """Return the verifier, ready to judge in this process. Raises PluginError if its `setup` fails."""
    verifier.limit = limit
    try:
        verifier.setup()
    except Exception as error:
        verifier.close()
        raise PluginError(f"verifier {verifier.name!r}: setup failed: {describe(error)}") from error
    return verifier


def _checked_max_reward(limit: float) -> float:
    if not 0 < limit <= LARGEST_MAX_REWARD:
        raise ConfigError(f"max_reward is {limit}: expected a number above 0, at most {LARGEST_MAX_REWARD:g}")
    return limit


class _Due(NamedTuple):
    """A unit whose result is due. `again` means that it is shared with an equal item that came before."""

    unit: WorkUnit
    key: bytes | None = None
    again: bool = False


def _bytes_in_flight(unit: WorkUnit) -> int:
    return len(unit.data) + unit.size * VERDICT_BYTES


def score_rows(
    rows: Iterable[PythonRow],
    verifier: str = "math",
    *,
    options: Mapping[str, Any] | None = None,
    workers: int | None = None,
    timeout: float = 5.0,
    max_reward: float = MAX_REWARD,
    write_protect: bool = False,
) -> Iterator[Score]:
    """Yield a score for each row, in order. A verifier that takes groups gets the rows of one `group_id` together.

    A row is a `Rollout`, an `Item`, a `Row` of `rlvr.record.open`, or a mapping: a record (it has a `schema_version`),
    or any other with the keys `completion`, `answer`, `prompt`, `id`, `group_id` as far as they are known; its other
    keys are `task.extra`. Raises as `Scorer` does, and DataError for a row that is none of these.
    """
    limits: dict[str, Any] = {"timeout": timeout, "max_reward": max_reward, "write_protect": write_protect}
    with Scorer(verifier, options, workers=workers, **limits) as scorer:
        items = (item(row, f"row {place}") for place, row in enumerate(rows))
        yield from score_by_group(scorer, items) if scorer.takes_groups else scorer.score(items)


def item(row: PythonRow, where: str) -> Item:
    """Return what verifying a row of Python values needs. Raises DataError, which says `where`, for an invalid row."""
    if isinstance(row, Item):
        return row
    if isinstance(row, Rollout):
        return Item(row.completion, row.task, row)
    if isinstance(row, Mapping):
        row = row_of(row, where)
    if not isinstance(row, Row):
        raise DataError(f"{where} is a {type(row).__name__}: expected a Rollout, an Item or a mapping")
    return item_of(row, wants_rollout=True)


def usable_cpus(cgroups: Path = CGROUP_ROOT, own: Path = OWN_CGROUPS) -> int:
    """Return the number of CPUs that this process may use: its affinity, limited by the quotas of its control groups.

    A quota is rounded down, but at least to 1: more workers than CPUs only take each other's time. `own` lists the
    process's control groups, which lie below `cgroups`.
    """
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([count, *(int(quota) for quota in _cpu_quotas(cgroups, own))]))


def _cpu_quotas(cgroups: Path, own: Path) -> Iterator[float]:
    """Yield the CPU quotas of this process's control groups, and of the groups above them, in CPUs."""
    try:
        groups = [line.split(":", 2) for line in own.read_text().splitlines()]
    except OSError:
        groups = []
    for _, controllers, path in groups or [["0", "", "/"]]:
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = cgroups / controllers if controllers else cgroups
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
