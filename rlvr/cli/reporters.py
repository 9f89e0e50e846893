"""Reporters of `rlvr train`: bars in a terminal, lines elsewhere, nothing with `--quiet`."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from rlvr.cli.progress import Heartbeat, is_quiet
from rlvr.run.reporting import ProgressLines, TrainReporter
from rlvr.terminal import neutral_streams, raw_stream

SECONDS_BETWEEN_FRAMES = 0.1
PARTS = {"sample": "sampling", "score": "scoring", "train": "training"}
"""Phases with a bar, in the order of a step."""


class Count(ProgressColumn):
    """How much of a task is done, of how much; empty for a part that counts nothing."""

    def render(self, task: Task) -> Text:
        """Return the text."""
        return Text(f"{task.completed:,.0f}/{task.total:,.0f}" if task.total is not None and task.total > 1 else "")


class Left(TimeRemainingColumn):
    """Time left of the run; empty for a part of a step."""

    def render(self, task: Task) -> Text:
        """Return the text."""
        return super().render(task) if task.fields.get("whole") else Text("")


class Silent(TrainReporter):
    """Show nothing, and remember the run's directory."""

    directory: Path | None = None

    def start(self, headline: str, directory: Path) -> None:
        """Remember the directory."""
        self.directory = directory
        super().start(headline, directory)


class Lines(Silent, ProgressLines):
    """`ProgressLines`, and the progress of long work before the first step on standard error."""

    def __init__(self) -> None:
        super().__init__()
        self.progress = Heartbeat()  # type: ignore[method-assign]  # a function of one text, as the method is


class RunBars(Lines):
    """`Lines` with bars below them: one for the run, and one for each part of the current step.

    Bars are drawn when something advances, never by a thread: processes are forked while a run trains.
    """

    def __init__(self, bars: Progress) -> None:
        super().__init__()
        self._bars, self._drawn, self._phase = bars, 0.0, ""
        self._run = bars.add_task("step", total=None, whole=True)
        self._parts: dict[str, TaskID] = {}

    def step(self, metrics: Mapping[str, Any], total: int) -> None:
        """Print the step's line if it is due, and begin the next step's bars."""
        super().step(metrics, total)
        self._bars.update(self._run, total=total, completed=metrics["step"] + 1)
        for task in self._parts.values():
            self._bars.update(task, completed=0)
        self._draw(now=True)

    def working(self, phase: str, done: int = 0, total: int = 0) -> None:
        """Advance the part's bar. A part that counts nothing has a bar without a length until another begins."""
        name = PARTS.get(phase)
        if name is not None and phase not in self._parts:
            self._parts[phase] = self._bars.add_task(name, total=None)
        if phase != self._phase:
            self._ended(self._phase)
            self._phase = phase
        if name is not None and total:
            self._bars.update(self._parts[phase], total=total, completed=done)
        self._draw(now=False)

    def _ended(self, phase: str) -> None:
        """Fill the bar of a part that counts nothing."""
        if phase == "train" and phase in self._parts:
            self._bars.update(self._parts[phase], total=1, completed=1)

    def _draw(self, now: bool) -> None:
        if now or time.monotonic() - self._drawn >= SECONDS_BETWEEN_FRAMES:
            self._drawn = time.monotonic()
            self._bars.refresh()


@contextmanager
def reporter() -> Iterator[TrainReporter]:
    """Yield the reporter that suits the terminal. After Ctrl-C it says how to continue the run."""
    with ExitStack() as stack:
        shown = Silent() if is_quiet() else Lines()
        if not is_quiet() and sys.stdout.isatty() and sys.stderr.isatty():
            shown = RunBars(stack.enter_context(_bars()))
        try:
            yield shown
        except KeyboardInterrupt:
            stack.close()  # the message stands below the lines, not within the bars
            if shown.directory is not None:
                print(f"rlvr: stopped; continue with: rlvr train --resume {shown.directory}", file=sys.stderr)
            raise


@contextmanager
def _bars() -> Iterator[Progress]:
    """Yield bars on standard output, which is a terminal; what is printed meanwhile stands above them."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=32), Count(), Left(compact=True))
    console = Console(file=raw_stream(sys.stdout))
    with Progress(*columns, console=console, transient=True, auto_refresh=False) as bars, neutral_streams():
        yield bars
