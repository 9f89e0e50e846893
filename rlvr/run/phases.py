"""Seconds of a training step by phase."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Phases:
    """A stopwatch for phases that interrupt each other, so that every second counts once.

    with phases("score"):        # waiting for verdicts …
        with phases("sample"):   # … which need samples: these seconds count as sampling only
            …
    """

    def __init__(
        self, clock: Callable[[], float] = time.perf_counter, entered: Callable[[str], object] = lambda name: None
    ) -> None:
        """`entered` is called with the name of each phase that begins."""
        self._clock, self._entered = clock, entered
        self._running: list[str] = []
        self.start()

    def start(self) -> None:
        """Begin a step: all phases are at 0."""
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._began = self._since = self._clock()

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Count the time inside the block as `name`, except for phases inside it."""
        self._turn()
        self._running.append(name)
        self._entered(name)
        try:
            yield
        finally:
            self._turn()
            self._running.pop()

    def _turn(self) -> None:
        """Count the time since the last change for the phase that runs."""
        now = self._clock()
        if self._running:
            self._seconds[self._running[-1]] += now - self._since
        self._since = now

    def metrics(self) -> dict[str, float]:
        """Return `time/PHASE` of every phase of the step so far, and `time/step`, in seconds."""
        return {f"time/{name}": seconds for name, seconds in self._seconds.items()} | {
            "time/step": self._clock() - self._began
        }
