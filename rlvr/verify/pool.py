"""A pool that loses one verdict to a verifier that hangs, crashes or eats memory, and no other.

Callers queue units and wait for their outcomes, from any thread; one thread of the pool's own hands the units to
worker processes (`rlvr.verify.workers`), watches their clocks, and replaces the workers that had to be killed.

A unit is one row, or one group for a verifier that takes groups. Units travel in batches whose size follows the time
that units take. The clock of a unit starts with its work, never with its queueing. A unit that has cost a worker is
tried once more, alone, in a fresh one; if that fails too, the failure is its outcome, and is remembered as long as the
pool lives.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
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
from rlvr.verify.workers import Channel, Workers, ending_of

BATCH_TARGET = 0.02  # seconds of work that a batch should hold
BATCH_UNITS, BATCH_BYTES = 1024, 4 << 20
RECYCLE_AFTER = 10_000  # units: bounds what a verifier's leaks can add up to
START_GRACE = 10.0  # seconds beyond the time-out that a worker may take to begin a batch
STARTS = 3  # workers in a row that may die before their first unit
TIMEOUT = "timeout"


@dataclass(frozen=True)
class Outcome:
    """What became of a unit: a verdict for each of its items, the seconds that it took, and when it was known."""

    verdicts: tuple[Verdict, ...]
    seconds: float
    at: str = field(default_factory=utc_now)


class Unit:
    """A piece of work: pickled items, judged together, `size` of them. `outcome` is None until there is one."""

    __slots__ = ("call", "data", "failures", "outcome", "size")

    def __init__(self, call: Call, data: bytes, size: int) -> None:
        self.call = call
        self.data = data
        self.size = size
        self.failures = 0
        self.outcome: Outcome | None = None

    @property
    def key(self) -> bytes:
        """Equal for equal work."""
        return hashlib.blake2b(self.data, digest_size=16).digest()


class Call:
    """One caller's units."""

    def __init__(self, pool: Pool, dispatcher: _Dispatcher) -> None:
        self._pool = pool  # not to be collected, and closed, while somebody waits
        self._dispatcher = dispatcher
        self._changed = threading.Condition()
        self.abandoned = False
        dispatcher.join(self)

    def submit(self, data: bytes, size: int = 1) -> Unit:
        """Queue pickled items as one unit of `size` verdicts. Raises RunError when the pool cannot work any more."""
        unit = Unit(self, data, size)
        self._dispatcher.submit(unit)
        return unit

    def wait(self, unit: Unit) -> Outcome:
        """The unit's outcome, once it is there. Raises RunError when it never will be."""
        with self._changed:
            while unit.outcome is None:
                if self._dispatcher.failure is not None:
                    raise self._dispatcher.failure
                self._changed.wait()
        return unit.outcome

    def notify(self) -> None:
        """Wake who waits."""
        with self._changed:
            self._changed.notify_all()

    def abandon(self) -> None:
        """Nobody will ask for the outcomes: what has not begun never will."""
        self.abandoned = True


class Pool:
    """Workers for one verifier; safe to use from several threads. Forks of the caller's process have no part in it."""

    def __init__(
        self, ref: str, options: Mapping[str, Any], *, workers: int, timeout: float, memory: int | None = None
    ) -> None:
        """Loads the verifier in a process of its own and waits for that; workers are forked when there is work.

        Args:
            ref, options: As `load_verifier` has them.
            workers: At most so many processes, at least 1.
            timeout: Seconds of wall clock for each verdict of a unit.
            memory: Bytes of address space that a worker may add to what importing took; None is what the verifier
                declares, or 2 GiB.

        Raises:
            PluginError, ConfigError: what loading the verifier raised.
        """
        processes = Workers(ref, options, workers, memory)
        self.told = processes.told
        """What the verifier says of itself: `verifying.TOLD`, its `claims`, and the `memory` that a worker may take."""
        self._dispatcher = _Dispatcher(processes, workers, timeout)
        self._finalizer = weakref.finalize(self, self._dispatcher.stop)

    def call(self) -> Call:
        """A new caller."""
        return Call(self, self._dispatcher)

    def close(self) -> None:
        """End all processes. Who still waits gets a RunError."""
        self._finalizer()


@dataclass
class _Slot:
    """A place for a worker, and what the worker in it is doing."""

    index: int
    channel: Channel | None = None  # None: no worker
    batch: list[Unit] = field(default_factory=list)  # empty: idle
    done: int = 0  # units since it was forked
    ending: str | None = None  # why it is being killed; "" when it has done nothing wrong
    blamed: int = -1  # which unit of the batch that is for


class _Dispatcher:
    """The thread that owns the workers. Other threads touch `join`, `submit`, `stop`, `failure`, and nothing else."""

    def __init__(self, processes: Workers, workers: int, timeout: float) -> None:
        self.failure: RunError | None = None
        self._processes = processes
        self._timeout = timeout
        self._slots = [_Slot(index) for index in range(workers)]
        self._lock = threading.Lock()  # over the calls, the queue, `_hungry` and the pipe
        self._calls: weakref.WeakSet[Call] = weakref.WeakSet()
        self._queue: deque[Unit] = deque()
        self._hungry = False  # the thread sleeps and could hand out a unit
        self._suspects: deque[Unit] = deque()  # each has ended its worker, so each has a fresh one coming
        self._remembered: dict[bytes, Outcome] = {}
        self._unit_seconds = BATCH_TARGET / 4  # a running mean; the first batches are small
        self._failed_starts = 0
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

    def submit(self, unit: Unit) -> None:
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
                self._wait()
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
            if slot.done >= RECYCLE_AFTER:
                self._end(slot, "")
                continue
            batch = [self._suspects.popleft()] if self._suspects and slot.done == 0 else self._next_batch()
            if batch:
                self._send(slot, batch)

    def _next_batch(self) -> list[Unit]:
        batch: list[Unit] = []
        size = 0
        with self._lock:
            share = len(self._queue) / (2 * len(self._slots))  # towards the end everybody gets less
            units = max(1, min(BATCH_UNITS, BATCH_TARGET / self._unit_seconds, share))
            while self._queue and len(batch) < units and size < BATCH_BYTES:
                unit = self._queue.popleft()
                if unit.call.abandoned:
                    continue
                known = self._remembered.get(unit.key) if self._remembered else None
                if known is not None:
                    unit.outcome = Outcome(known.verdicts, 0.0)
                    unit.call.notify()
                    continue
                batch.append(unit)
                size += len(unit.data)
            self._hungry = not batch
        return batch

    def _send(self, slot: _Slot, batch: list[Unit]) -> None:
        if slot.channel is None:
            slot.channel = self._processes.fork(slot.index)
            self._selector.register(slot.channel.stream, selectors.EVENT_READ, slot)
        slot.batch = batch
        self._processes.begin(slot.index)
        slot.channel.send(pickle.dumps([(unit.size, unit.data) for unit in batch]))
        self._listen(slot)

    def _listen(self, slot: _Slot) -> None:
        """Have the selector watch what the slot's channel waits for."""
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
        """Have the slot's worker killed; hearing of its death does the rest."""
        slot.ending, slot.blamed = why, blamed
        self._processes.end(slot.index)

    def _wait(self) -> None:
        """Sleep until something arrives or the next deadline passes, and deal with what has arrived."""
        deadlines = [self._deadline(slot) for slot in self._slots if slot.batch and slot.ending is None]
        # A row that begins meanwhile has a deadline of its own, and that is a time-out away at least.
        limit = max(0.0, min(self._timeout, min(deadlines) - time.monotonic())) if deadlines else None
        deaths = False
        for key, _ in self._selector.select(limit):
            if key.fileobj is self._processes.control:
                deaths = True  # after the answers: a worker that has answered and then died has answered
            elif key.fileobj == self._wake_read:
                os.read(self._wake_read, 4096)
            else:
                key.data.channel.flush()
                self._read(key.data)
        if deaths:
            for index, status in self._processes.deaths():
                self._bury(self._slots[index], status)

    def _watch(self) -> None:
        """Kill the workers whose row has had its time."""
        for slot in self._slots:
            if slot.batch and slot.ending is None and self._deadline(slot) <= time.monotonic():
                row, _ = self._processes.progress(slot.index)
                if self._deadline(slot) <= time.monotonic():  # else it went on to the next row in between
                    self._end(slot, TIMEOUT, row)

    def _deadline(self, slot: _Slot) -> float:
        row, since = self._processes.progress(slot.index)
        if row < 0:
            return since + self._timeout + START_GRACE
        return since + self._timeout * slot.batch[min(row, len(slot.batch) - 1)].size

    def _read(self, slot: _Slot) -> None:
        assert slot.channel is not None
        for frame in slot.channel.frames():
            if not self._settle(slot, frame):  # the verifier has found its worker's channel and written to it
                slot.channel.ended = True
                if slot.ending is None:
                    self._end(slot, "it wrote into its worker's channel", self._processes.progress(slot.index)[0])
                break
        self._listen(slot)

    def _settle(self, slot: _Slot, frame: bytes) -> bool:
        """A worker's answer: outcomes for the first units of its batch; the others go back to the queue.

        False when it is no such thing.
        """
        now = utc_now()
        try:
            outcomes = [
                Outcome(
                    tuple(Verdict(status=s, reward=r, extracted=e, reason=w) for s, r, e, w in verdicts), seconds, now
                )
                for verdicts, seconds in json.loads(frame)
            ]
            answered, rest = slot.batch[: len(outcomes)], slot.batch[len(outcomes) :]
            if [unit.size for unit in answered] != [len(outcome.verdicts) for outcome in outcomes]:
                raise ValueError("another number of verdicts than was asked for")
        except (ValueError, TypeError):
            return False
        slot.batch = []
        slot.done += len(outcomes)
        self._failed_starts = 0
        self._put_back(rest)
        for unit, outcome in zip(answered, outcomes, strict=True):
            self._unit_seconds = max(1e-6, 0.9 * self._unit_seconds + 0.1 * outcome.seconds)
            if outcome.seconds <= self._timeout * unit.size:
                unit.outcome = outcome
                continue
            self._blame(unit, TIMEOUT, outcome.seconds)  # done before we could kill it, and late all the same
            if slot.ending is None:
                self._end(slot, "")
        for call in {unit.call for unit in answered}:
            call.notify()
        return True

    def _put_back(self, units: Sequence[Unit]) -> None:
        with self._lock:
            self._queue.extendleft(reversed(units))

    def _bury(self, slot: _Slot, status: int) -> None:
        """A worker is dead: the unit that it died of pays, its neighbours go back to the queue."""
        self._read(slot)  # what it had answered before counts
        assert slot.channel is not None
        if not slot.channel.ended:  # something that the verifier forked had a copy of the channel
            self._selector.unregister(slot.channel.stream)
        slot.channel.close()
        batch, why, row = slot.batch, slot.ending, slot.blamed
        slot.channel, slot.batch, slot.done, slot.ending, slot.blamed = None, [], 0, None, -1
        if not batch:
            return
        at, since = self._processes.progress(slot.index)
        if why is None:
            row = at
        if row < 0:
            self._failed_starts += 1
            if self._failed_starts >= STARTS:
                raise RunError(f"{STARTS} workers in a row died before their first row; the last: {ending_of(status)}")
            self._put_back(batch)
            return
        guilty = batch.pop(min(row, len(batch) - 1))
        self._put_back(batch)
        self._blame(guilty, why or self._explain(status), time.monotonic() - since)

    def _explain(self, status: int) -> str:
        if status == zygote.EXIT_MEMORY:
            return f"out of memory: a worker may take {self._processes.told['memory'] / 2**30:.3g} GiB"
        return f"the worker died: {ending_of(status)}"

    def _blame(self, unit: Unit, why: str, seconds: float) -> None:
        """The unit has cost a worker: once more in a fresh one, then that is its outcome."""
        unit.failures += 1
        key = unit.key
        if unit.failures == 1 and key not in self._remembered:
            self._suspects.append(unit)
            return
        if why == TIMEOUT:
            verdict = Verdict(status=Status.TIMEOUT, reason=f"not done after {self._timeout * unit.size:g} s")
        else:
            verdict = Verdict(status=Status.ERROR, reason=why)
        unit.outcome = self._remembered.setdefault(key, Outcome((verdict,) * unit.size, seconds))
        unit.call.notify()

    # --- in a forked child

    def disown(self) -> None:
        """Let go of the parent's processes: their streams must end when the parent ends them."""
        self._lock = threading.Lock()  # a thread that is not here may have held it
        self.failure = RunError("the verifier's pool belongs to the process that this one was forked from")
        self._selector.close()
        for slot in self._slots:
            if slot.channel is not None:
                slot.channel.close()
        self._processes.disown()


_dispatchers: weakref.WeakSet[_Dispatcher] = weakref.WeakSet()


def _disown_all() -> None:
    for dispatcher in list(_dispatchers):
        dispatcher.disown()


os.register_at_fork(after_in_child=_disown_all)
