"""State of a worker process that one row may leave behind for the next: compared between batches, and restored.

Three kinds of differences are told apart:

- What can be put back is put back: working directory, environment, import path, umask, signal handlers, decimal
  context, precision of mpmath, error handling of NumPy, locale, recursion limit, limit of digits. Random draws are no
  leak; a verifier that draws gets a seed per row, derived from the row.
- What wears a worker out (open descriptors, threads, child processes beyond `MAY_KEEP`) is tolerated up to a limit,
  because a verifier may well keep a file, a thread pool or a helper process. Beyond it, the worker is replaced.
- What cannot be put back makes the worker useless: removed or replaced modules, other attributes of the modules and
  classes in `WATCHED`, closed descriptors, lower resource limits, another user.
"""

from __future__ import annotations

import contextlib
import decimal
import locale
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

MAY_KEEP: Mapping[str, int] = {"open descriptors": 32, "threads": 32, "child processes": 4}
"""Largest increase since its start that a worker may have, before it is replaced."""
WATCHED: Sequence[str] = (
    "builtins",
    "fractions",
    "hashlib",
    "io",
    "json",
    "math",
    "os",
    "pickle",
    "random",
    "re",
    "shutil",
    "signal",
    "statistics",
    "subprocess",
    "sys",
    "time",
    "rlvr.record.item:Item",
    "rlvr.record.schema",
    "rlvr.record.schema:Task",
    "rlvr.record.schema:Verdict",
    "rlvr.verify.composed",
    "rlvr.verify.composed:ComposedVerifier",
    "rlvr.verify.composition",
    "rlvr.verify.loaded",
    "rlvr.verify.loaded:LoadedVerifier",
    "rlvr.verify.process_state",
    "rlvr.verify.options",
    "rlvr.verify.results",
    "rlvr.verify.subject",
    "rlvr.verify.subject:Subject",
    "rlvr.verify.verifying",
    "rlvr.verify.verifying:FunctionVerifier",
    "rlvr.verify.worker",
    "rlvr.verify.worker:Worker",
)
"""Modules and classes whose attributes no row may change, as far as they are imported: others rely on them."""
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

    def __init__(self, descriptors: int = 0) -> None:
        """`descriptors`: Open descriptors that may be kept besides `MAY_KEEP`, such as connections."""
        self._keep = {**MAY_KEEP, "open descriptors": MAY_KEEP["open descriptors"] + descriptors}
        self._counts = _counts()
        self._modules = dict(sys.modules)
        self._attributes = _attributes()
        self._directory = _directory()
        self._environment = _environment().copy()
        self._path = list(sys.path)
        self._umask = _umask()
        self._handlers = _handlers()
        self._decimal = decimal.getcontext().copy()
        self._numeric = _numeric()
        self._locale = locale.setlocale(locale.LC_ALL)
        self._recursion = sys.getrecursionlimit()
        self._digits = sys.get_int_max_str_digits()
        self._fixed = _fixed()

    def differences(self) -> Differences:
        """Return what differs now. Modules that were imported since are accepted, and dead children reaped."""
        changed = {
            "working directory": _directory() != self._directory,
            "environment": _environment() != self._environment,
            "import path": sys.path != self._path,
            "umask": _umask() != self._umask,
            "signal handlers": _handlers() != self._handlers,
            "decimal context": _settings(decimal.getcontext()) != _settings(self._decimal),
            "locale": locale.setlocale(locale.LC_ALL) != self._locale,
            "recursion limit": sys.getrecursionlimit() != self._recursion,
            "limit of digits": sys.get_int_max_str_digits() != self._digits,
        }
        changed |= {name: value != self._numeric.setdefault(name, value) for name, value in _numeric().items()}
        _reap()
        counts = _counts()
        broken = self._changed_modules()
        if (fixed := _fixed()) != self._fixed:
            broken += [name for name, value in fixed.items() if value != self._fixed[name]]
        if counts["open descriptors"] < self._counts["open descriptors"]:
            broken.append("closed descriptors")
        worn = [name for name, limit in self._keep.items() if counts[name] > self._counts[name] + limit]
        return Differences([name for name, differs in changed.items() if differs], worn, broken)

    def _changed_modules(self) -> list[str]:
        """Return whether modules or their attributes were changed. A module that is imported may change others."""
        if sys.modules != self._modules:
            if any(sys.modules.get(name) is not module for name, module in self._modules.items()):
                return ["modules"]
            self._modules, self._attributes = dict(sys.modules), _attributes()
        elif any(vars(owner) != before for owner, before in self._attributes):
            return ["attributes of modules"]
        return []

    def restore(self) -> None:
        """Put back what can be put back. Raises OSError or ValueError if that fails."""
        if self._directory is not None:
            os.chdir(self._directory)
        if _environment() != self._environment:
            os.environb.clear()
            os.environb.update(self._environment)
            time.tzset()
        sys.path[:] = self._path
        os.umask(self._umask)
        for number, handler in self._handlers.items():
            if signal.getsignal(number) != handler:
                signal.signal(number, handler)
        decimal.setcontext(self._decimal.copy())
        if locale.setlocale(locale.LC_ALL) != self._locale:
            locale.setlocale(locale.LC_ALL, self._locale)
        sys.setrecursionlimit(self._recursion)
        sys.set_int_max_str_digits(self._digits)
        if "numpy" in sys.modules:
            sys.modules["numpy"].seterr(**self._numeric["NumPy error handling"])
        if "mpmath" in sys.modules:
            sys.modules["mpmath"].mp.prec = self._numeric["mpmath precision"]


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


def _attributes() -> list[tuple[Any, dict[str, Any]]]:
    """Return the modules and classes in `WATCHED` that are imported, each with its attributes."""
    found = []
    for name in WATCHED:
        module, _, inner = name.partition(":")
        if module in sys.modules:
            owner = getattr(sys.modules[module], inner) if inner else sys.modules[module]
            found.append((owner, dict(vars(owner))))
    return found


def _umask() -> int:
    before = os.umask(0o077)
    os.umask(before)
    return before


def _numeric() -> dict[str, Any]:
    """Return the settings of numeric libraries that are imported: they decide about results as decimal's do."""
    found: dict[str, Any] = {}
    if "numpy" in sys.modules:
        found["NumPy error handling"] = sys.modules["numpy"].geterr()
    if "mpmath" in sys.modules:
        found["mpmath precision"] = sys.modules["mpmath"].mp.prec
    return found


def _fixed() -> dict[str, Any]:
    """Return what a process cannot take back, or must not have changed."""
    limits = (resource.RLIMIT_CPU, resource.RLIMIT_DATA, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE)
    return {"resource limits": [resource.getrlimit(each) for each in limits], "user": (os.geteuid(), os.getegid())}


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
