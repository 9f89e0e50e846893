"""Threads of torch on the CPU: how they wait for each other."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
"""Environment variables that say how long a thread of OpenMP spins before it sleeps."""
SPINS = "1000"
"""Rounds that a thread spins, some tens of microseconds: what OpenMP takes itself if it has more threads than cores."""


def spin_briefly(environment: MutableMapping[str, str] = os.environ) -> None:
    """Have idle threads of OpenMP sleep soon, unless the environment says how they wait.

    By default a thread spins for milliseconds. On cores that other processes use as well, it spins away the time that
    the thread it waits for needs, at every operation: a step took ten times as long. Results are the same. Call it
    before torch is imported, because OpenMP reads the environment once.
    """
    if not any(name in environment for name in WAITING):
        environment["GOMP_SPINCOUNT"] = SPINS
