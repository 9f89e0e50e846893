"""Progress of long work: counts of verdicts, speed, time left."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from rlvr.errors import RequestError
from rlvr.terminal import neutral_streams, one_line, raw_stream

EVERY = "RLVR_PROGRESS_SECONDS"
"""Environment variable: seconds between lines of progress; 10 by default."""


def be_quiet(wanted: bool) -> None:
    """Show no progress from now on, if wanted: no time between two lines is long enough."""
    if wanted:
        os.environ[EVERY] = "inf"


def is_quiet() -> bool:
    """Return True if no progress is shown."""
    return math.isinf(_seconds_between_lines())


def _seconds_between_lines() -> float:
    text = os.environ.get(EVERY, "10")
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not seconds >= 0:
        raise RequestError(f"{EVERY} is {text!r}: expected seconds, at least 0")
    return seconds


class Heartbeat:
    """Print the progress of long work to standard error, a line every 10 seconds or as `EVERY` says."""

    def __init__(self) -> None:
        self.every = _seconds_between_lines()
        self.last = time.monotonic()

    def __call__(self, text: str) -> None:
        """Print the text if enough time has passed since the last line."""
        now = time.monotonic()
        if now - self.last >= self.every:
            self.last = now
            print(text, file=sys.stderr, flush=True)


class Progress(Protocol):
    """Receives the progress of scoring."""

    def advance(self, rows: int, at: str, statuses: Mapping[str, int], *, replayed: int = 0) -> None:
        """Add `rows` to the count, of which `replayed` were scored by an earlier attempt; show the file and the
        verdicts so far."""


@contextmanager
def progress_of(total: int) -> Iterator[Progress]:
    """Show progress on standard error: a bar in a terminal, else a line every few seconds."""
    if not sys.stderr.isatty() or is_quiet():
        yield _Plain(total)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bar

    shown = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}", markup=False))
    console = Console(file=raw_stream(sys.stderr))
    with Bar(*shown, console=console, transient=True) as bar, neutral_streams():  # the bar redirects prints to itself
        yield _Bar(bar, bar.add_task("", total=total), total)


class _Pace:
    """Rows done, rows per second, and time left."""

    def __init__(self, total: int) -> None:
        self._total, self._free = total, 0
        self._begin = time.monotonic()
        self.done = 0

    def advance(self, rows: int, replayed: int) -> None:
        self.done += rows
        self._free += replayed

    def text(self) -> str:
        speed = (self.done - self._free) / max(1e-9, time.monotonic() - self._begin)
        left = f"{(self._total - self.done) / speed:,.0f} s left" if speed else "?"
        return f"{speed:,.0f} rows/s, {left}"


def _counts(at: str, statuses: Mapping[str, int]) -> str:
    counts = ", ".join(f"{count:,} {status}" for status, count in sorted(statuses.items(), key=lambda pair: -pair[1]))
    return f"{counts}{f' ({one_line(at)})' if at else ''}"


class _Bar:
    def __init__(self, bar: Any, task: Any, total: int) -> None:
        self._bar, self._task, self._pace = bar, task, _Pace(total)

    def advance(self, rows: int, at: str, statuses: Mapping[str, int], *, replayed: int = 0) -> None:
        self._pace.advance(rows, replayed)
        self._bar.update(self._task, advance=rows, description=f"{self._pace.text()}; {_counts(at, statuses)}")


class _Plain:
    def __init__(self, total: int) -> None:
        self._total, self._pace, self._say = total, _Pace(total), Heartbeat()

    def advance(self, rows: int, at: str, statuses: Mapping[str, int], *, replayed: int = 0) -> None:
        self._pace.advance(rows, replayed)
        self._say(f"{self._pace.done:,} of {self._total:,} rows, {self._pace.text()}; {_counts(at, statuses)}")


def rates(what: str) -> Callable[[int, int], None]:
    """Return a function that prints how many of `what` are done, and the rate, to standard error at intervals."""
    begin, beat = time.monotonic(), Heartbeat()

    def advance(done: int, total: int) -> None:
        beat(f"{done:,} of {total:,} {what}, {done / max(1e-9, time.monotonic() - begin):,.0f} per second")

    return advance
