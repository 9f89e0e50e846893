"""State of a worker process that one row may leave behind for the next: compared between batches, and restored.

Three kinds of differences are told apart:

- What can be put back is put back: working directory, environment, signal handlers, decimal context, locale, recursion
  limit. Random draws are no leak; a verifier that draws gets a seed per row, derived from the row.
- What wears a worker out (open descriptors, threads, child processes beyond `MAY_KEEP`) is tolerated up to a limit,
  because a verifier may well keep a file, a thread pool or a helper process. Beyond it, the worker is replaced.
- What cannot be put back (removed or replaced modules, closed descriptors) makes the worker useless.
"""

from __future__ import annotations

import contextlib
import decimal
import locale
import os
import random
import signal
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

MAY_KEEP: Mapping[str, int] = {"open descriptors": 32, "threads": 32, "child processes": 4}
"""Largest increase since its start that a worker may have, before it is replaced."""
_SIGNALS = (
    signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE, signal.SIGALRM,
    signal.SIGTERM, signal.SIGCHLD, signal.SIGVTALRM, signal.SIGPROF,
)  # fmt: skip


class Differences(NamedTuple):
    """Differences that a row has left behind, in words, by what can be done about them."""

    restorable: list[str]
    worn: list[str]
    broken: list[str]

    @property
    def all(self) -> list[str]:
        """Return every difference."""
        return [*self.restorable, *self.worn, *self.broken]


class ProcessState:
    """The state of this process when the object was made, or last accepted."""

    def __init__(self) -> None:
        self._counts = _counts()
        self._modules = dict(sys.modules)
        self._directory = _directory()
        self._environment = _environment().copy()
        self._handlers = _handlers()
        self._decimal = decimal.getcontext().copy()
        self._locale = locale.setlocale(locale.LC_ALL)
        self._recursion = sys.getrecursionlimit()

    def differences(self) -> Differences:
        """Return what differs now. Modules that were imported since are accepted, and dead children reaped."""
        changed = {
            "working directory": _directory() != self._directory,
            "environment": _environment() != self._environment,
            "signal handlers": _handlers() != self._handlers,
            "decimal context": _settings(decimal.getcontext()) != _settings(self._decimal),
            "locale": locale.setlocale(locale.LC_ALL) != self._locale,
            "recursion limit": sys.getrecursionlimit() != self._recursion,
        }
        _reap()
        counts = _counts()
        broken = []
        if sys.modules != self._modules:
            if all(sys.modules.get(name) is module for name, module in self._modules.items()):
                self._modules = dict(sys.modules)
            else:
                broken.append("modules")
        if counts["open descriptors"] < self._counts["open descriptors"]:
            broken.append("closed descriptors")
        worn = [name for name, limit in MAY_KEEP.items() if counts[name] > self._counts[name] + limit]
        return Differences([name for name, differs in changed.items() if differs], worn, broken)

    def restore(self) -> None:
        """Put back what can be put back. Raises OSError or ValueError if that fails."""
        if self._directory is not None:
            os.chdir(self._directory)
        if _environment() != self._environment:
            os.environb.clear()
            os.environb.update(self._environment)
        for number, handler in self._handlers.items():
            if signal.getsignal(number) != handler:
                signal.signal(number, handler)
        decimal.setcontext(self._decimal.copy())
        if locale.setlocale(locale.LC_ALL) != self._locale:
            locale.setlocale(locale.LC_ALL, self._locale)
        sys.setrecursionlimit(self._recursion)


class RandomState:
    """Whether this process has drawn random numbers, from Python's generator or NumPy's global one."""

    def __init__(self) -> None:
        self._python, self._numpy = random.getstate(), _numpy_state()

    def was_used(self) -> bool:
        """Return whether a number was drawn, or a seed set, since the object was made."""
        return random.getstate() != self._python or _numpy_state() != (self._numpy or _numpy_state())

    @staticmethod
    def seed(value: int) -> None:
        """Seed both generators with a 64-bit number."""
        random.seed(value)
        if "numpy.random" in sys.modules:
            sys.modules["numpy.random"].seed(value & 0xFFFFFFFF)


def _numpy_state() -> tuple[Any, ...] | None:
    if "numpy.random" not in sys.modules:
        return None
    name, keys, *rest = sys.modules["numpy.random"].get_state()
    return (name, keys.tobytes(), *rest)


def _directory() -> str | None:
    try:
        return os.getcwd()
    except FileNotFoundError:  # it was removed
        return None


def _environment() -> dict[bytes, bytes]:
    """Return the mapping behind `os.environ`: comparing that takes 1 µs, comparing `os.environ` 100."""
    data: dict[bytes, bytes] = vars(os.environ)["_data"]
    return data


def _handlers() -> dict[int, Any]:
    return {number: signal.getsignal(number) for number in _SIGNALS}


def _settings(context: decimal.Context) -> tuple[Any, ...]:
    """Return what decides about results; the flags only tell what has happened."""
    traps = tuple(sorted(trap.__name__ for trap, is_set in context.traps.items() if is_set))
    return context.prec, context.rounding, context.Emin, context.Emax, context.capitals, context.clamp, traps


def _reap() -> None:
    """Collect children that have ended."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _counts() -> dict[str, int]:
    if sys.platform != "linux":
        return dict.fromkeys(MAY_KEEP, 0)
    tasks = os.listdir("/proc/self/task")
    children = 0
    for task in tasks:
        with (
            contextlib.suppress(OSError),
            open(f"/proc/self/task/{task}/children") as file,
        ):  # the thread may have ended
            children += len(file.read().split())
    return {"open descriptors": len(os.listdir("/proc/self/fd")), "threads": len(tasks), "child processes": children}
