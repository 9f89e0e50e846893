"""Write protection for worker processes, and confinement of programs, by Landlock, a security module of Linux.

A process that has called `allow_writing_only` can, for the rest of its life, create, change, truncate, rename and
remove files only where it is allowed to; the same holds for its children. It can still read, change modes and times of
its own files, use the network, and write to files that are already open. A process that has called `allow_reading_only`
can also open nothing else. Sandboxes run the source of this module in a bare Python: at import time, it needs nothing
but the standard library.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import struct
import sys
from collections.abc import Iterator, Mapping, Sequence

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same numbers on all architectures
_VERSION, _PATH_BENEATH, _PR_SET_NO_NEW_PRIVS = 1, 1, 38
NEEDED = 3
"""Version of Landlock's interface (Linux 6.2) from which on it prevents truncation."""
_WRITE_FILE, _READ_FILE, _READ_FOLDER, _TRUNCATE, _IOCTL_DEVICE = 1 << 1, 1 << 2, 1 << 3, 1 << 14, 1 << 15
_WRITING = _WRITE_FILE | _TRUNCATE | sum(1 << bit for bit in range(4, 14))  # removing, making, and moving entries


def version() -> int:
    """Return the version of the kernel's Landlock interface; 0 if it has none, or if it is disabled."""
    if sys.platform != "linux":
        return 0
    try:
        return _call(_CREATE_RULESET, None, 0, _VERSION)
    except OSError:
        return 0


def require() -> None:
    """Raise ConfigError if the kernel cannot protect files from workers."""
    from rlvr.errors import ConfigError

    found = version()
    if found < NEEDED:
        has = f"version {found} of Landlock, which does not prevent truncation" if found else "no Landlock"
        raise ConfigError(
            f"write protection of workers needs Linux 6.2 or newer with Landlock enabled, and this kernel has {has}; "
            "leave it out, or run in a container that mounts what must not change read-only"
        )


def allow_writing_only(folders: Sequence[str], files: Sequence[str] = ()) -> None:
    """Let this process and its children write only below these folders, and to these files. Raises OSError."""
    rules = {**dict.fromkeys(folders, _WRITING), **dict.fromkeys(files, _WRITE_FILE | _TRUNCATE)}
    _restrict(struct.pack("=Q", _WRITING), rules)


def allow_reading_only(
    folders: Sequence[str], files: Sequence[str] = (), *, listed: Sequence[str] = (), written: Sequence[str] = ()
) -> None:
    """Let this process and its children read only below these folders and these files, and write only to `written`.

    Below the folders in `listed`, entries can be listed. As far as the kernel knows how, it also keeps them from
    running programs, from TCP, and from signals and abstract sockets of processes outside. Raises OSError.
    """
    found = version()
    handled = _WRITING | 1 | _READ_FILE | _READ_FOLDER | (_IOCTL_DEVICE if found >= 5 else 0)  # 1: run programs
    network = 0b11 if found >= 4 else 0  # bind and connect
    scoped = 0b11 if found >= 6 else 0  # abstract sockets and signals
    attributes = struct.pack("=QQQ", handled, network, scoped)[: 8 if found < 4 else 16 if found < 6 else 24]
    rules = {**dict.fromkeys(folders, _READ_FILE | _READ_FOLDER), **dict.fromkeys(files, _READ_FILE)}
    rules |= dict.fromkeys(listed, _READ_FOLDER)
    _restrict(attributes, {**rules, **dict.fromkeys(written, _READ_FILE | _WRITE_FILE)})


def _restrict(attributes: bytes, rules: Mapping[str, int]) -> None:
    """Restrict this process to a ruleset: its attributes, and what is allowed for each path. Raises OSError."""
    ruleset = _call(_CREATE_RULESET, attributes, len(attributes), 0)
    try:
        for path, allowed in rules.items():
            with _opened(path) as descriptor:
                _call(_ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("=Qi", allowed, descriptor), 0)
        if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "no_new_privs cannot be set")
        _call(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


@contextlib.contextmanager
def _opened(path: str) -> Iterator[int]:
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _call(number: int, *arguments: int | bytes | None) -> int:
    """Call the kernel. Raises OSError."""
    result: int = ctypes.CDLL(None, use_errno=True).syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        code = ctypes.get_errno() or errno.EINVAL
        raise OSError(code, os.strerror(code))
    return result
