"""A reporter of `rlvr.generate` and `rlvr.evaluate` that interrupts them."""

from __future__ import annotations

from typing import Any

import rlvr


class StopAfter(rlvr.GenerateReporter):
    """Stops after some batches, like Ctrl-C."""

    def __init__(self, batches: int) -> None:
        self.left = batches

    def advance(self, progress: Any) -> None:
        """Count a batch of questions."""
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt
