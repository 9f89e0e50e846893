"""Threads of torch on the CPU: how they wait for each other, and how trainer and sampler share them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import NamedTuple

from rlvr.run.computation import THREAD_VARIABLES, accelerators

WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
"""Environment variables that say how long a thread of OpenMP spins before it sleeps."""
SPINS = "10000"
"""Rounds that a thread spins, some tenths of a millisecond. With 1,000, what OpenMP takes itself if it has more threads
than cores, a step of the embedded model on quiet cores takes 0.33 s instead of 0.26; on busy cores both take 0.8."""


def spin_briefly(environment: MutableMapping[str, str] = os.environ) -> None:
    """Have idle threads of OpenMP sleep soon, unless the environment says how they wait.

    By default a thread spins for milliseconds. On cores that other processes use as well, it spins away the time that
    the thread it waits for needs, at every operation: a step took ten times as long. Results are the same. Call it
    before torch is imported, because OpenMP reads the environment once.
    """
    if not any(name in environment for name in WAITING):
        environment["GOMP_SPINCOUNT"] = SPINS


class Shares(NamedTuple):
    """Numbers of threads."""

    trainer: int
    sampler: int


def shares(device: str, asked: int | None, *, at_once: bool, environment: Mapping[str, str] = os.environ) -> Shares:
    """Return the threads of the trainer and of a sampler in a process of its own.

    If both compute on the CPU at once, they divide torch's threads, so that neither waits for a core of the other's.
    The numbers depend on the machine and the arguments alone.

    Args:
        device: The model's device.
        asked: Threads of the sampler, if the user says (`sampling.threads`); the trainer has the others.
        at_once: Whether sampler and trainer compute at the same time (`mode: async`).
        environment: If it sets the number of threads (`OMP_NUM_THREADS`), each process has as many.
    """
    import torch

    total = torch.get_num_threads()
    on_cpu = device.startswith("cpu") or (device == "auto" and not accelerators())
    said = any(name in environment for name in THREAD_VARIABLES)
    if not (at_once and on_cpu) or (asked is None and said):
        return Shares(total, asked or total)
    sampler = asked or max(1, total // 2)
    return Shares(max(1, total - sampler), sampler)


@contextmanager
def torch_threads(number: int) -> Iterator[None]:
    """Let torch have so many threads in this process inside the block."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
