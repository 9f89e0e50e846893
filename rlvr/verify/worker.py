"""A worker process: it runs the verifier on batches of rows, and keeps rows from changing the verdicts of others."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import signal
import socket
import time
from typing import Any, TypeAlias

from rlvr.record.item import Item
from rlvr.record.schema import Verdict
from rlvr.verify.loaded import LoadedVerifier
from rlvr.verify.process_state import Differences, ProcessState, RandomState
from rlvr.verify.zygote import EXIT_MEMORY, receive_frame, send_frame

BATCH_SECONDS = 0.05
"""After this time, a worker returns the rows that it has not begun, so that slow rows do not delay their neighbors."""
SLOW_ROW = 0.05
"""Seconds from which the time that a row waited for a CPU is looked up and subtracted."""

Row: TypeAlias = "tuple[int, bytes]"
"""The number of verdicts that a row needs, and its pickled items."""


class Worker:
    """The process of one slot. `rlvr.verify.zygote` describes the channel and the cells."""

    def __init__(self, cells: memoryview[float], verifier: LoadedVerifier) -> None:
        self._cells = cells
        self._passes = 0  # over the rows of a batch, before the current one
        self._verifier = verifier
        self._broken: Verdict | None = None
        """The verdict on every row, if the verifier's `setup` failed."""
        try:
            verifier.setup()
        except Exception as error:
            failure = verifier.failed(error)
            self._broken = failure.model_copy(update={"reason": f"setup failed: {failure.reason}"})
        self._state = ProcessState(descriptors=verifier.at_once)
        self._one_by_one = False  # a row has changed the process: compare and restore after each row
        self._reseed = False  # a row has drawn random numbers: seed the generators before each row

    def serve(self, channel: socket.socket) -> None:
        """Answer batches until the channel ends. Exits the process if memory runs out."""
        while (frame := receive_frame(channel)) is not None:
            nonce, rows = pickle.loads(frame)
            send_frame(channel, nonce + json.dumps(self.answer(rows)).encode())
        self._verifier.close()

    def answer(self, rows: list[Row]) -> dict[str, Any]:
        """Run the first rows of a batch, at least one.

        Returns:
            `answers`: for each row that was run, its verdicts, seconds, and the number of verdicts whose text was
                escaped. Empty only if several rows were run and one of them broke the process: then they have to be run
                one by one, in fresh processes.
            `changes`: what the rows changed in the process, in words.
            `fresh`: whether this process must be replaced.
        """
        self._passes = 0
        draws = None if self._reseed else RandomState()
        answers, found = self._run(rows)
        changes = dict.fromkeys(found.all)
        if draws is not None and draws.was_used() and not found.broken:
            self._reseed = True
            answers, found = self._run(rows)
        if found.restorable and not found.broken and not self._one_by_one:
            self._one_by_one = True
            if len(answers) > 1:
                answers, found = self._run(rows)
        changes |= dict.fromkeys(found.all)
        if found.broken and len(answers) > 1 and not self._one_by_one:
            answers = []
        return {"answers": answers, "changes": list(changes), "fresh": bool(found.worn or found.broken)}

    def _run(self, rows: list[Row]) -> tuple[list[Any], Differences]:
        """Run rows until `BATCH_SECONDS` have passed or the process is useless, and restore what they changed."""
        answers: list[Any] = []
        restored: dict[str, None] = {}
        begun = time.monotonic()
        self._cells[3] = waited = waited_for_cpu()
        first_step, self._passes = self._passes * len(rows), self._passes + 1
        for place, (size, data) in enumerate(rows):
            now = time.monotonic()
            if answers and now - begun > BATCH_SECONDS:
                break
            if answers and self._one_by_one:
                found = self._compare()
                restored |= dict.fromkeys(found.restorable)
                if found.worn or found.broken:
                    return answers, found._replace(restorable=list(restored))
            # The time first: the parent reads the row first, so it never sees a new row with an old time.
            self._cells[1] = now
            self._cells[0] = first_step + place
            if self._reseed:  # with a hash of the row, so that its draws depend on nothing else
                RandomState.seed(int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big"))
            start, escaped = time.perf_counter(), self._verifier.escaped
            verdicts = self._judge(size, data)
            seconds = time.perf_counter() - start
            signal.alarm(0)  # an alarm of this row must not interrupt the next one
            if seconds > SLOW_ROW:
                before, waited = waited, waited_for_cpu()
                seconds = max(0.0, seconds - (waited - before))
            answers.append(([v.packed() for v in verdicts], seconds, self._verifier.escaped - escaped))
        found = self._compare()
        restored |= dict.fromkeys(found.restorable)
        return answers, found._replace(restorable=list(restored))

    def _judge(self, size: int, data: bytes) -> list[Verdict]:
        if self._broken is not None:
            return [self._broken] * size
        try:
            return self._verifier.judge([Item(*fields) for fields in pickle.loads(data)])
        except MemoryError:
            os._exit(EXIT_MEMORY)  # nothing that needs memory can be relied on any more
        except BaseException as error:  # sys.exit(), KeyboardInterrupt, timeouts of other libraries
            return [self._verifier.failed(error)] * size

    def _compare(self) -> Differences:
        """Return what differs from the state that the process should be in, and restore it as far as possible."""
        found = self._state.differences()
        if found.restorable and not found.broken:
            self._state.restore()
        return found


def waited_below(pid: int, since: float) -> float:
    """Return the seconds that descendants of a process have waited for a CPU, of those that began after `since`.

    `since` is a time of `time.monotonic`. The descendants of a worker that began with its row work for that row. Their
    time is 0.0 if the system does not tell.
    """
    waited, tick = 0.0, 1 / os.sysconf("SC_CLK_TCK")
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            children = [int(child) for child in file.read().split()]
        for child in children:
            with open(f"/proc/{child}/stat", "rb") as status:
                ticks = int(status.read().rpartition(b")")[2].split()[19])
            age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks * tick
            if time.monotonic() - age >= since - tick:  # it began in that tick, not at its begin
                waited += waited_for_cpu(child)
            waited += waited_below(child, since)
    except (OSError, IndexError, ValueError, AttributeError):  # it has ended meanwhile, or this is not Linux
        return waited
    return waited


def waited_for_cpu(pid: int | str = "self") -> float:
    """Return the seconds for which a process was ready to run but had no CPU; 0.0 if the system does not tell."""
    try:
        with open(f"/proc/{pid}/schedstat", "rb") as file:
            return int(file.read().split()[1]) * 1e-9
    except (OSError, IndexError, ValueError):
        return 0.0
