"""A pool in which a row whose verifier hangs, crashes, leaks or exhausts memory costs its own verdict and no other.

Callers queue work units and wait for their results, from any thread. A thread of the pool sends the units to worker
processes (`rlvr.verify.workers`), watches their time limits, and replaces workers.

A work unit is one row, or one group for a verifier that takes groups. Units travel in batches whose size follows the
time that units take.

- **Retries**: a unit that ends its worker, times out or has the verdict `error` is tried once more, alone, in a fresh
  worker. The second result is final. Lost workers and timeouts are remembered as long as the pool lives. Once
  the retry has repeated `TRUSTED_ERRORS` errors in a row, the verifier is taken to raise on such rows, and only every
  `TRUSTED_ERRORS`-th further error is retried.
- **Losses**: when the process that forks the workers is lost, all workers are. Of the rows that were being judged, each
  is tried once more while no other row is.
- **Leaks**: workers compare their process state after each batch (`rlvr.verify.process_state`). What rows change is
  restored, or the worker is replaced. The first time, a warning says what the verifier changes.
- **Time limit**: the clock of a unit starts with its work, not with its queueing. It counts the time that the worker
  computes or sleeps, but not the time that it, or a process that it began for the unit, waits for a CPU, so the limit
  means the same on an idle and on a busy machine. Wall-clock time may reach `WALL_FACTOR` times the limit. (Without
  /proc, the limit is wall-clock time.)
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import pickle
import secrets
import selectors
import threading
import time
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rlvr.errors import RunError
from rlvr.record.schema import Status, Verdict, utc_now
from rlvr.verify import zygote
from rlvr.verify.workers import LOAD_TIMEOUT, Channel, Workers, ZygoteLostError, ending_of

BATCH_TARGET = 0.02  # seconds of work that a batch should hold
BATCH_UNITS, BATCH_BYTES = 1024, 4 << 20
RECYCLE_AFTER = 10_000  # units: bounds what a verifier's leaks can add up to
START_GRACE = 10.0  # seconds beyond the time limit that a worker may take to begin a batch
END_GRACE = 10.0  # seconds that the zygote may take to kill a worker, before it is killed itself
STARTS = 3  # workers in a row, and zygotes in a row, that may die before their first unit
LOSSES = 20  # zygotes in a row that may be lost while rows are judged
PASSES = 3  # over the rows of a batch that a worker makes at most
WALL_FACTOR = 100.0  # wall-clock time that a unit may take at most, in time limits
TRUSTED_ERRORS = 16  # errors in a row that a retry must repeat, until errors are final without one
TIMEOUT = "timeout"

_log = logging.getLogger("rlvr")


@dataclass(frozen=True)
class UnitResult:
    """A verdict for each item of a work unit, the seconds that the unit took, and when the result was known."""

    verdicts: tuple[Verdict, ...]
    seconds: float
    at: str = field(default_factory=utc_now)
    escaped: int = 0
    """Verdicts with text that had to be escaped."""

    @property
    def failed(self) -> bool:
        """Whether a verdict is `error`."""
        return any(verdict.status is Status.ERROR for verdict in self.verdicts)


class WorkUnit:
    """`size` pickled items that are judged together. `result` is None until it is known."""

    __slots__ = ("alone", "call", "data", "failures", "result", "retry", "size", "solo")

    def __init__(self, call: Call, data: bytes, size: int, retry: bool = True) -> None:
        self.call = call
        self.data = data
        self.size = size
        self.retry = retry  # a verdict that is an error is tried once more
        self.failures = 0
        self.alone = False  # a row of its batch broke the worker: it gets a batch to itself
        self.solo = False  # the zygote was lost while it was being judged: it is judged while no other worker works
        self.result: UnitResult | None = None

    @property
    def key(self) -> bytes:
        """A hash that is equal for equal work."""
        return hashlib.blake2b(self.data, digest_size=16).digest()


class Call:
    """One caller's work units."""

    def __init__(self, pool: Pool, dispatcher: _Dispatcher) -> None:
        self._pool = pool  # keeps the pool from being collected, and closed, while somebody waits
        self._dispatcher = dispatcher
        self._changed = threading.Condition()
        self.abandoned = False
        dispatcher.join(self)

    def submit(self, data: bytes, size: int = 1, retry: bool = True) -> WorkUnit:
        """Queue pickled items as one unit of `size` verdicts. Raises RunError if the pool cannot work any more.

        `retry`: Try the unit once more if one of its verdicts is an `error`.
        """
        unit = WorkUnit(self, data, size, retry)
        self._dispatcher.submit(unit)
        return unit

    def wait(self, unit: WorkUnit) -> UnitResult:
        """Wait for the unit's result. Raises RunError if there will never be one."""
        with self._changed:
            while unit.result is None:
                if self._dispatcher.failure is not None:
                    raise self._dispatcher.failure
                self._changed.wait()
        return unit.result

    def notify(self) -> None:
        """Wake the caller."""
        with self._changed:
            self._changed.notify_all()

    def abandon(self) -> None:
        """Drop the units that have not begun; nobody will ask for their results."""
        self.abandoned = True


class Pool:
    """Workers for one verifier. Safe to use from several threads, but not from forks of the caller's process."""

    def __init__(
        self,
        ref: str,
        options: Mapping[str, Any],
        *,
        workers: int,
        timeout: float,
        memory: int | None = None,
        write_protect: bool = False,
        load_timeout: float = LOAD_TIMEOUT,
        batch_units: int = BATCH_UNITS,
        recycle_after: int = RECYCLE_AFTER,
        end_grace: float = END_GRACE,
    ) -> None:
        """Load the verifier in a process of its own and wait for that. Workers are forked when there is work.

        Args:
            ref, options: Arguments of `load_verifier`.
            workers: Largest number of worker processes, at least 1.
            timeout: Time limit for each verdict of a unit, in seconds; see the module's documentation.
            memory: Bytes of address space that a worker may use in addition to what imports took. None means what the
                verifier declares, or 2 GiB.
            write_protect: Let workers write to their scratch folders only (`rlvr.verify.landlock`).
            load_timeout: Seconds that loading the verifier may take.
            batch_units: Largest number of units that a worker is sent at a time.
            recycle_after: Units after which a worker is replaced, so that a verifier's leaks stay bounded.
            end_grace: Seconds that the zygote may take to kill a worker, before it is killed itself.

        Raises:
            PluginError, ConfigError: Loading the verifier raised it.
        """
        processes = Workers(ref, options, workers, memory, load_timeout, write_protect=write_protect, timeout=timeout)
        self.description = processes.description
        """The verifier's `loaded.DESCRIPTION_FIELDS`, its `claims`, and the `memory` that a worker may use."""
        limits = _Limits(timeout, batch_units, recycle_after, end_grace)
        self._dispatcher = _Dispatcher(processes, workers, limits)
        self._finalizer = weakref.finalize(self, self._dispatcher.stop)

    def call(self) -> Call:
        """Return a new caller's end of the pool."""
        return Call(self, self._dispatcher)

    def close(self) -> None:
        """End all processes. Callers that still wait get a RunError."""
        self._finalizer()


@dataclass
class _Slot:
    """A place for a worker, and the state of the worker in it."""

    index: int
    channel: Channel | None = None  # None: no worker
    batch: list[WorkUnit] = field(default_factory=list)  # empty: idle
    step: int = -1  # of the batch, as far as is known
    since: float = 0.0  # when that began
    waited: tuple[int, float] = (-1, 0.0)  # a row that had more time, and how many seconds
    garbled: bool = False  # the worker's cells hold no numbers: which row it is at is not known
    nonce: bytes = b""  # what the answer to the batch must begin with
    done: int = 0  # units since it was forked
    ending: str | None = None  # why it is being killed; "" if no unit is to blame
    blamed: int = -1  # the unit of the batch that is to blame
    asked: float = 0.0  # when the zygote was asked to kill it


@dataclass(frozen=True)
class _Limits:
    """Arguments of `Pool` that the dispatcher keeps to."""

    timeout: float
    batch_units: int
    recycle_after: int
    end_grace: float


class _Dispatcher:
    """The thread that owns the workers. Other threads use only `join`, `submit`, `stop` and `failure`."""

    def __init__(self, processes: Workers, workers: int, limits: _Limits) -> None:
        self.failure: RunError | None = None
        self._processes = processes
        self._limits = limits
        self._slots = [_Slot(index) for index in range(workers)]
        self._lock = threading.Lock()  # over the calls, the queue, `_hungry` and the pipe
        self._calls: weakref.WeakSet[Call] = weakref.WeakSet()
        self._queue: deque[WorkUnit] = deque()
        self._hungry = False  # the thread sleeps and could hand out a unit
        self._suspects: deque[WorkUnit] = deque()  # to be tried once more, each in a fresh worker
        self._remembered: dict[bytes, UnitResult] = {}
        self._repeated_errors = 0  # in a row: the retry of an error gave an error
        self._errors = 0
        self._reported = False  # that the verifier leaks state
        self._unit_seconds = BATCH_TARGET / 4  # a running mean; the first batches are small
        self._failed_starts = 0
        self._lost_zygotes = 0  # in a row, without a result in between
        self._row_was_lost = False  # with its worker, since a zygote was lost
        self._owner = os.getpid()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(processes.control, selectors.EVENT_READ)
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="rlvr-pool", daemon=True)
        self._thread.start()
        _dispatchers.add(self)

    # --- called from any thread

    def join(self, call: Call) -> None:
        with self._lock:
            self._calls.add(call)

    def submit(self, unit: WorkUnit) -> None:
        with self._lock:
            if self.failure is not None:
                raise self.failure
            self._queue.append(unit)
            if self._hungry:
                self._hungry = False
                os.write(self._wake_write, b"w")

    def stop(self) -> None:
        if os.getpid() != self._owner:
            return
        with self._lock:
            if self.failure is None:
                self.failure = RunError("the verifier's pool is closed")
                os.write(self._wake_write, b"w")
        if threading.current_thread() is not self._thread:  # a collection of garbage may run anywhere
            self._thread.join()

    # --- the thread

    def _run(self) -> None:
        try:
            while self.failure is None:
                self._feed()
                try:
                    self._wait()
                except ZygoteLostError as error:
                    self._replace_zygote(error)
                self._watch()
        except RunError as error:
            self._fail(error)
        except BaseException as error:
            self._fail(RunError(f"the verifier's pool broke: {type(error).__name__}: {error}"))
            raise
        finally:
            self._shut_down()

    def _fail(self, failure: RunError) -> None:
        with self._lock:
            self.failure = self.failure or failure

    def _shut_down(self) -> None:
        with self._lock:  # `failure` is set: nobody writes to the pipe after this
            calls = list(self._calls)  # all: what failed may have had a unit that is nowhere now
            os.close(self._wake_read)
            os.close(self._wake_write)
        self._selector.close()
        deadline = time.monotonic() + END_GRACE
        for slot in self._slots:
            if slot.channel is not None and not slot.batch and self._processes.description["closes"]:
                slot.channel.finish(deadline)
        for slot in self._slots:
            if slot.channel is not None:
                slot.channel.close()
        self._processes.close()
        for call in calls:
            call.notify()

    def _feed(self) -> None:
        """Give every idle worker a batch as long as there are units; fork workers for what is left."""
        for slot in self._slots:
            if slot.batch or slot.ending is not None:
                continue
            fresh = sum(1 for other in self._slots if other.ending is not None)
            if slot.done >= self._limits.recycle_after or (slot.done > 0 and len(self._suspects) > fresh):
                self._end(slot, "")
                continue
            if self._must_wait():
                continue
            batch = [self._suspects.popleft()] if self._suspects and slot.done == 0 else self._next_batch()
            if batch:
                self._send(slot, batch)

    def _must_wait(self) -> bool:
        """Return whether no unit may be handed out now: a unit that has to be judged solo is, or is the next one."""
        working = [slot.batch for slot in self._slots if slot.batch]
        is_next = bool(self._suspects) and self._suspects[0].solo
        return any(batch[0].solo for batch in working) or (is_next and bool(working))

    def _next_batch(self) -> list[WorkUnit]:
        batch: list[WorkUnit] = []
        size = 0
        with self._lock:
            share = len(self._queue) / (2 * len(self._slots))  # towards the end everybody gets less
            units = max(1, min(self._limits.batch_units, BATCH_TARGET / self._unit_seconds, share))
            while self._queue and len(batch) < units and size < BATCH_BYTES:
                unit = self._queue.popleft()
                if unit.call.abandoned:
                    continue
                if unit.alone and batch:
                    self._queue.appendleft(unit)
                    break
                known = self._remembered.get(unit.key) if self._remembered else None
                if known is not None:
                    unit.result = UnitResult(known.verdicts, 0.0)
                    unit.call.notify()
                    continue
                batch.append(unit)
                size += len(unit.data)
                if unit.alone:
                    break
            self._hungry = not batch
        return batch

    def _send(self, slot: _Slot, batch: list[WorkUnit]) -> None:
        if slot.channel is None:
            slot.channel = self._processes.fork(slot.index)
            self._selector.register(slot.channel.stream, selectors.EVENT_READ, slot)
        slot.batch = batch
        self._processes.begin(slot.index)
        slot.step, slot.since, slot.garbled = -1, time.monotonic(), False
        slot.nonce = secrets.token_bytes(zygote.NONCE_BYTES)
        slot.channel.send(pickle.dumps((slot.nonce, [(unit.size, unit.data) for unit in batch])))
        self._listen(slot)

    def _listen(self, slot: _Slot) -> None:
        """Have the selector watch for what the slot's channel waits for."""
        assert slot.channel is not None
        stream = slot.channel.stream
        known = self._selector.get_map().get(stream)
        if slot.channel.ended:
            if known is not None:
                self._selector.unregister(stream)
            return
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if slot.channel.sending else 0)
        if known is not None and known.events != events:
            self._selector.modify(stream, events, slot)

    def _end(self, slot: _Slot, why: str, blamed: int = -1) -> None:
        """Have the slot's worker killed; the report of its death does the rest."""
        slot.ending, slot.blamed, slot.asked = why, blamed, time.monotonic()
        self._processes.end(slot.index)

    def _wait(self) -> None:
        """Sleep until something arrives or the next deadline passes, and handle what has arrived."""
        deadlines = [self._deadline(slot) for slot in self._slots if slot.batch and slot.ending is None]
        deadlines += [slot.asked + self._limits.end_grace for slot in self._slots if slot.ending is not None]
        # A row that begins meanwhile has a deadline of its own, at least one time limit away.
        limit = max(0.0, min(self._limits.timeout, min(deadlines) - time.monotonic())) if deadlines else None
        deaths = False
        for key, _ in self._selector.select(limit):
            if key.fileobj is self._processes.control:
                deaths = True  # handled after the answers: a worker may answer and then die
            elif key.fileobj == self._wake_read:
                os.read(self._wake_read, 4096)
            else:
                key.data.channel.flush()
                self._read(key.data)
        if deaths:
            for index, status in self._processes.deaths():
                self._bury(self._slots[index], self._explain(status), ending_of(status))

    def _watch(self) -> None:
        """Kill workers whose row exceeds its time limit, and a zygote that does not kill when asked to."""
        for slot in self._slots:
            if slot.ending is not None and slot.asked + self._limits.end_grace <= time.monotonic():
                self._processes.lose()
                slot.asked = time.monotonic()
            elif slot.batch and slot.ending is None and self._deadline(slot) <= time.monotonic():
                row, _ = self._progress(slot)
                if self._deadline(slot) <= time.monotonic():  # else it has begun the next row in between
                    self._end(slot, TIMEOUT, row)

    def _progress(self, slot: _Slot) -> tuple[int, float]:
        """Return the row of its batch that a worker is at (-1: it has not begun), and since when.

        A step that was seen is not gone back from, and its clock is not set anew, whatever the verifier writes.
        """
        found = self._processes.progress(slot.index)
        if found is None:
            slot.garbled, slot.step = True, max(0, slot.step)
        elif slot.step < found[0] < PASSES * len(slot.batch):
            slot.step, slot.since = found[0], min(max(found[1], slot.since), time.monotonic())
        return (-1 if slot.step < 0 else slot.step % len(slot.batch)), slot.since

    def _deadline(self, slot: _Slot) -> float:
        """Return when the slot's row exceeds its time limit, as far as is known now (`time.monotonic`)."""
        row, since = self._progress(slot)
        limit = self._limits.timeout + START_GRACE if row < 0 else self._limits.timeout * slot.batch[row].size
        if since + limit > time.monotonic():
            return since + limit
        slot.waited = (row, self._processes.waited(slot.index, since))
        return min(since + limit + slot.waited[1], since + WALL_FACTOR * limit)

    def _read(self, slot: _Slot) -> None:
        """Take the answers that have arrived from a worker, and end it if one is malformed."""
        assert slot.channel is not None
        try:
            for frame in slot.channel.frames():
                self._settle(slot, frame)
        except (ValueError, TypeError, OverflowError, RecursionError):  # the verifier found the channel and wrote to it
            slot.channel.ended = True
            if slot.ending is None:
                row = self._progress(slot)[0] if slot.batch else -1
                self._end(slot, "it wrote into its worker's channel", row)
        self._listen(slot)

    def _settle(self, slot: _Slot, frame: bytes) -> None:
        """Take an answer: results for the first units of the batch; the others go back to the queue.

        Raises ValueError, TypeError, OverflowError or RecursionError if it is not a well-formed answer to the batch.
        """
        results, changes, fresh = _parsed(slot, frame)
        batch, slot.batch = slot.batch, []
        (waiting, waited), slot.waited = slot.waited, (-1, 0.0)
        answered, rest = batch[: len(results)], batch[len(results) :]
        slot.done += len(results)
        self._failed_starts = self._lost_zygotes = 0
        self._report(changes)
        if not results:
            for unit in rest:
                unit.alone = True
        self._put_back(rest)
        for row, (unit, result) in enumerate(zip(answered, results, strict=True)):
            limit = self._limits.timeout * unit.size + (waited if row == waiting else 0.0)
            self._unit_seconds = max(1e-6, 0.9 * self._unit_seconds + 0.1 * result.seconds)
            if result.seconds > limit:  # it ended before the worker could be killed, but too late
                self._blame(unit, TIMEOUT, result.seconds)
                fresh = True
            elif result.failed and unit.retry and self._retries(unit):
                unit.failures += 1
                self._suspects.append(unit)
                fresh = True
            else:
                if unit.failures and not result.failed:
                    self._repeated_errors = 0
                unit.result = result
        if fresh and slot.ending is None:
            self._end(slot, "")
        for call in {unit.call for unit in answered}:
            call.notify()

    def _retries(self, unit: WorkUnit) -> bool:
        """Return whether a unit with the verdict `error` is tried once more."""
        if unit.failures:
            self._repeated_errors += 1
            return False
        self._errors += 1
        return self._repeated_errors < TRUSTED_ERRORS or self._errors % TRUSTED_ERRORS == 0

    def _report(self, changes: Sequence[str]) -> None:
        """Log once what the verifier's rows change in their process."""
        if changes and not self._reported:
            self._reported = True
            _log.warning(
                "verifier %r leaks state between rows (%s); its workers are restored or replaced, which takes time",
                self._processes.description["name"],
                ", ".join(changes),
            )

    def _put_back(self, units: Sequence[WorkUnit]) -> None:
        with self._lock:
            self._queue.extendleft(reversed(units))

    def _bury(self, slot: _Slot, explanation: str, ending: str | None) -> None:
        """Clear the slot of a dead worker: the unit that is to blame pays, its neighbors go back to the queue."""
        self._read(slot)  # what it answered before counts
        assert slot.channel is not None
        if not slot.channel.ended:  # something that the verifier forked had a copy of the channel
            self._selector.unregister(slot.channel.stream)
        slot.channel.close()
        batch, why, row = slot.batch, slot.ending, slot.blamed
        at, since = self._progress(slot) if batch else (-1, 0.0)
        slot.channel, slot.batch, slot.done, slot.ending, slot.blamed = None, [], 0, None, -1
        if not batch:
            return
        if slot.garbled and len(batch) > 1:
            for unit in batch:
                unit.alone = True
            self._put_back(batch)
            return
        if why is None:
            row = at
        if row < 0:
            self._failed_starts += ending is not None
            if self._failed_starts >= STARTS:
                raise RunError(f"{STARTS} workers in a row died before their first row; the last: {ending}")
            self._put_back(batch)
            return
        guilty = batch.pop(min(row, len(batch) - 1))
        self._row_was_lost = True
        self._put_back(batch)
        self._blame(guilty, why or explanation, time.monotonic() - since)

    def _replace_zygote(self, loss: ZygoteLostError) -> None:
        """Start another zygote. Its predecessor's workers are gone, and pay as if they had died by themselves."""
        self._lost_zygotes += 1
        judged = [
            slot.batch[min(row, len(slot.batch) - 1)]
            for slot in self._slots
            if slot.batch and (row := self._progress(slot)[0]) >= 0
        ]
        if self._lost_zygotes >= (LOSSES if judged or self._row_was_lost else STARTS):
            raise RunError(f"{loss}; it was lost {self._lost_zygotes} times in a row, before any row was verified")
        for unit in judged:
            if not unit.solo:  # another row may have done it
                unit.solo, unit.failures = True, 0
        self._selector.unregister(self._processes.control)
        for slot in self._slots:
            if slot.channel is not None:
                self._bury(slot, str(loss), None)
        self._row_was_lost = False
        self._processes.restart()
        self._selector.register(self._processes.control, selectors.EVENT_READ)

    def _explain(self, status: int) -> str:
        if status == zygote.EXIT_MEMORY:
            return f"out of memory: a worker may take {self._processes.description['memory'] / 2**30:.3g} GiB"
        return f"the worker died: {ending_of(status)}"

    def _blame(self, unit: WorkUnit, why: str, seconds: float) -> None:
        """Try a unit that has cost a worker once more, in a fresh one; the second time, the failure is its result."""
        unit.failures += 1
        key = unit.key
        if unit.failures == 1 and key not in self._remembered:
            self._suspects.append(unit)
            return
        if why == TIMEOUT:
            verdict = Verdict(status=Status.TIMEOUT, reason=f"not done after {self._limits.timeout * unit.size:g} s")
        else:
            verdict = Verdict(status=Status.ERROR, reason=why)
        unit.result = self._remembered.setdefault(key, UnitResult((verdict,) * unit.size, seconds))
        unit.call.notify()

    # --- in a forked child

    def disown(self) -> None:
        """Close the parent's streams here: they must end when the parent closes them."""
        self._lock = threading.Lock()  # a thread of the parent may have held it
        self.failure = RunError("the verifier's pool belongs to the process that this one was forked from")
        self._selector.close()
        for slot in self._slots:
            if slot.channel is not None:
                slot.channel.close()
        self._processes.disown()


_dispatchers: weakref.WeakSet[_Dispatcher] = weakref.WeakSet()


def _parsed(slot: _Slot, frame: bytes) -> tuple[list[UnitResult], list[str], bool]:
    """Return the results, changes and freshness that a frame reports.

    Raises ValueError, TypeError, OverflowError or RecursionError for anything but a well-formed answer to the batch: a
    verifier may have written the frame.
    """
    if not slot.batch or frame[: zygote.NONCE_BYTES] != slot.nonce:
        raise ValueError("not an answer to the batch")
    answer = json.loads(frame[zygote.NONCE_BYTES :], parse_constant=_no_number)
    if not isinstance(answer, dict) or answer.keys() != {"answers", "changes", "fresh"}:
        raise ValueError("not an answer")
    answers, changes, fresh = answer["answers"], answer["changes"], answer["fresh"]
    if not isinstance(changes, list) or not all(isinstance(change, str) for change in changes):
        raise TypeError("changes are a list of text")
    if len(answers) > len(slot.batch) or (not answers and not (fresh and changes and len(slot.batch) > 1)):
        raise ValueError("another number of answers than was asked for")
    now = utc_now()
    results = []
    for unit, (verdicts, seconds, escaped) in zip(slot.batch, answers, strict=False):
        if len(verdicts) != unit.size or not isinstance(seconds, int | float) or not 0 <= seconds < math.inf:
            raise ValueError("another number of verdicts than was asked for, or no seconds")
        if type(escaped) is not int or not 0 <= escaped <= unit.size:
            raise ValueError("not a number of verdicts")
        found = map(Verdict.unpacked, verdicts)
        results.append(UnitResult(tuple(found), float(seconds), now, escaped))
    return results, changes, bool(fresh)


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number of an answer")


def _disown_all() -> None:
    for dispatcher in list(_dispatchers):
        dispatcher.disown()


os.register_at_fork(after_in_child=_disown_all)
