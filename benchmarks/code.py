"""Measure the sandbox of `code-python`: programs per second on two cores, CPU time of a program, start of a box.

    python benchmarks/code.py [--seconds 5] [SANDBOX ...]

Two processes, each with a box, run trivial programs (read two numbers, print their sum) one after another, and then
calls of a function in one program. CPU time is counted in all processes of the box and in the one that judges. PER
SECOND, IDLE is the number of programs for which two cores have this CPU time, if they do nothing else.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, get_args

from rlvr.columns import columns
from rlvr_verifiers.code.box import Allowance, Box, Kind

HEAD = ("SANDBOX", "START MS", "PROGRAMS PER SECOND", "CPU MS", "PER SECOND, IDLE", "CALLS PER SECOND", "LOAD")
KINDS: tuple[Kind, ...] = get_args(Kind)
PROCESSES = 2
PROGRAM = "print(sum(map(int, input().split())))"
FUNCTION = {"kind": "calls", "source": "def f(x): return 2 * x", "prelude": False}
REQUEST = ["call", "f", ["l", [21]], ["d", []], False]
LIMITS = Allowance(seconds=10.0, total=600.0)


class Measured(NamedTuple):
    """Numbers of one process."""

    start: float
    programs: float
    """Per second of the clock."""
    cpu: float
    """Seconds a program."""
    calls: float
    """Per second of the clock."""


def measure(kind: Kind, seconds: float) -> Measured:
    """Return the numbers of one box in this process."""
    begin = time.perf_counter()
    with Box(kind) as box:
        box.start()
        start = time.perf_counter() - begin
        box.script(PROGRAM, b"1 2\n", LIMITS)
        done, cpu, before, begin = 0, 0.0, standing(), time.perf_counter()
        while (passed := time.perf_counter() - begin) < seconds:
            ended = box.script(PROGRAM, b"1 2\n", LIMITS)
            assert ended.output == b"3\n", ended
            done, cpu = done + 1, cpu + ended.cpu + ended.warden
        cpu += standing() - before
        return Measured(start, done / passed, cpu / done, calls_per_second(box, seconds / 2))


def calls_per_second(box: Box, seconds: float) -> float:
    """Return the calls that one program answers in a second."""
    done = 0
    with box.calls(FUNCTION, LIMITS) as calls:
        assert calls.receive() == ["value", None]
        begin = time.perf_counter()
        while (passed := time.perf_counter() - begin) < seconds:
            calls.allow()
            calls.send(REQUEST)
            assert calls.receive() == ["value", 42, None]
            done += 1
    return done / passed


def standing() -> float:
    """Return the CPU seconds of this process and of what lives below it: the zygote."""
    ticks = 0
    for pid in below(os.getpid()):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a warden that has just ended
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def below(pid: int) -> Iterator[int]:
    """Yield the descendants of a process that live."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for child in map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
            yield child
            yield from below(child)


def row(kind: Kind, seconds: float) -> list[str]:
    """Return one line of the table."""
    with multiprocessing.get_context("spawn").Pool(PROCESSES) as pool:
        found = pool.starmap(measure, [(kind, seconds)] * PROCESSES, chunksize=1)
    start, programs, cpu, calls = (sum(values) for values in zip(*found, strict=True))
    cpu, start = cpu / PROCESSES, start / PROCESSES
    numbers = [f"{start * 1e3:.0f}", f"{programs:.0f}", f"{cpu * 1e3:.1f}", f"{PROCESSES / cpu:.0f}", f"{calls:,.0f}"]
    return [kind, *numbers, f"{os.getloadavg()[0]:.1f}"]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("sandboxes", nargs="*", metavar="SANDBOX", help=f"by default {', '.join(KINDS)}")
    parser.add_argument("--seconds", type=float, default=5.0, help="of programs, for each sandbox")
    given = parser.parse_args()
    if unknown := set(given.sandboxes) - set(KINDS):
        parser.error(f"there is no sandbox {', '.join(unknown)}")
    print(columns([list(HEAD), *(row(kind, given.seconds) for kind in given.sandboxes or KINDS)]))


if __name__ == "__main__":
    main()
