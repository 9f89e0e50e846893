"""System calls that a program may make, as a filter of the kernel (seccomp) for x86-64.

What is not listed fails with EPERM. There is no way to start a program or a process, to reach the network, other
processes, shared memory or kernel interfaces, or to change a file's mode or times. Calls with a number of another
architecture (i386, x32) end the process.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from functools import lru_cache

_ARCHITECTURE = 0xC000003E  # AUDIT_ARCH_X86_64
_X32 = 0x40000000
_KILL, _FAIL, _ALLOW = 0x80000000, 0x00050000, 0x7FFF0000  # SECCOMP_RET_KILL_PROCESS, _ERRNO, _ALLOW
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _AND, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_NUMBER, _ARCH = 0, 4  # offsets in struct seccomp_data; argument i has its low half at 16 + 8 i
_PR_SET_NO_NEW_PRIVS, _SECCOMP, _SET_MODE_FILTER = 38, 317, 1

ALLOWED = {
    "read": 0, "write": 1, "open": 2, "close": 3, "stat": 4, "fstat": 5, "lstat": 6, "poll": 7, "lseek": 8, "mmap": 9,
    "mprotect": 10, "munmap": 11, "brk": 12, "rt_sigaction": 13, "rt_sigprocmask": 14, "rt_sigreturn": 15,
    "pread64": 17, "pwrite64": 18, "readv": 19, "writev": 20, "access": 21, "pipe": 22, "select": 23,
    "sched_yield": 24, "mremap": 25, "msync": 26, "mincore": 27, "madvise": 28, "dup": 32, "dup2": 33, "pause": 34,
    "nanosleep": 35, "getitimer": 36, "alarm": 37, "setitimer": 38, "getpid": 39, "sendto": 44, "recvfrom": 45,
    "sendmsg": 46, "recvmsg": 47, "shutdown": 48, "getsockname": 51, "getpeername": 52,
    "getsockopt": 55, "exit": 60, "wait4": 61, "uname": 63, "fsync": 74, "fdatasync": 75, "ftruncate": 77,
    "getdents": 78, "getcwd": 79, "chdir": 80, "fchdir": 81, "rename": 82, "mkdir": 83, "rmdir": 84, "unlink": 87,
    "readlink": 89, "umask": 95, "gettimeofday": 96, "getrlimit": 97, "getrusage": 98, "sysinfo": 99, "times": 100,
    "getuid": 102, "getgid": 104, "geteuid": 107, "getegid": 108, "getppid": 110, "getpgrp": 111, "getgroups": 115,
    "getresuid": 118, "getresgid": 120, "getpgid": 121, "getsid": 124, "rt_sigpending": 127, "rt_sigtimedwait": 128,
    "rt_sigsuspend": 130, "sigaltstack": 131, "statfs": 137, "fstatfs": 138, "sched_getparam": 143,
    "sched_getscheduler": 145, "sched_get_priority_max": 146, "sched_get_priority_min": 147, "setrlimit": 160,
    "gettid": 186, "time": 201, "futex": 202, "sched_getaffinity": 204, "epoll_create": 213, "getdents64": 217,
    "set_tid_address": 218, "restart_syscall": 219, "fadvise64": 221, "clock_gettime": 228, "clock_getres": 229,
    "clock_nanosleep": 230, "exit_group": 231, "epoll_wait": 232, "epoll_ctl": 233, "waitid": 247, "openat": 257,
    "mkdirat": 258, "newfstatat": 262, "unlinkat": 263, "renameat": 264, "readlinkat": 267, "faccessat": 269,
    "pselect6": 270, "ppoll": 271, "set_robust_list": 273, "epoll_pwait": 281, "eventfd": 284, "fallocate": 285,
    "eventfd2": 290, "epoll_create1": 291, "dup3": 292, "pipe2": 293, "preadv": 295, "pwritev": 296, "getcpu": 309,
    "renameat2": 316, "getrandom": 318, "membarrier": 324, "copy_file_range": 326, "statx": 332, "rseq": 334,
    "close_range": 436, "faccessat2": 439, "epoll_pwait2": 441,
}  # fmt: skip
"""Calls that are allowed whatever their arguments: on a program's own memory, threads, descriptors and files."""
CHOSEN: dict[str, tuple[int, int, tuple[int, ...]]] = {
    "ioctl": (16, 1, (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)),  # size of a terminal, bytes to read, flags
    "fcntl": (72, 1, (0, 1, 2, 3, 4, 5, 6, 7, 1030, 1032, 1034)),  # no owner, no signal, no lease, no notification
    "socketpair": (53, 0, (1,)),  # AF_UNIX; and streams only, below: a datagram could be sent elsewhere
    "prctl": (157, 0, (15, 16)),  # the name of a thread
    "prlimit64": (302, 0, (0,)),
}
"""Calls that are allowed for some values of one argument: number of the call, place of the argument, values."""
_SIGNALS = {"kill": 62, "tkill": 200, "tgkill": 234}
_CLONE, _CLONE3, _SOCKETPAIR = 56, 435, 53
_THREAD = 0x00010000  # CLONE_THREAD
_NAMESPACES = 0x7E020080  # CLONE_NEW…


def supported() -> str | None:
    """Return why this machine has no filter; None if it has one."""
    machine = platform.machine()
    return None if machine == "x86_64" else f"the filter of system calls is for x86-64, and this machine is {machine}"


@lru_cache(maxsize=2)
def program(pid: int) -> bytes:
    """Return the filter for a process that may send signals to itself alone, as instructions of BPF."""
    code = [
        (_LOAD, 0, 0, _ARCH),
        (_EQUAL, 1, 0, _ARCHITECTURE),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        (_AT_LEAST, 0, 1, _X32),
        (_RETURN, 0, 0, _KILL),
    ]
    code += _rule(_CLONE3, [(_RETURN, 0, 0, _FAIL | errno.ENOSYS)])
    code += _rule(
        _CLONE,
        [
            (_LOAD, 0, 0, 16),
            (_ANY_BIT, 2, 0, _NAMESPACES),
            (_ANY_BIT, 0, 1, _THREAD),
            (_RETURN, 0, 0, _ALLOW),
            (_RETURN, 0, 0, _FAIL | errno.EPERM),
        ],
    )
    code += _rule(_SOCKETPAIR, [(_LOAD, 0, 0, 24), (_AND, 0, 0, 0xF), (_EQUAL, 1, 0, 1), _REFUSED])
    for number, place, values in CHOSEN.values():
        code += _rule(number, _one_of(place, values))
    for number in _SIGNALS.values():
        code += _rule(number, _one_of(0, (pid,)))
    allowed = sorted(ALLOWED.values())
    code += [(_EQUAL, len(allowed) - place, 0, number) for place, number in enumerate(allowed)]
    code += [_REFUSED, (_RETURN, 0, 0, _ALLOW)]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


_REFUSED = (_RETURN, 0, 0, _FAIL | errno.EPERM)


def _rule(number: int, then: list[tuple[int, int, int, int]]) -> list[tuple[int, int, int, int]]:
    """Return instructions that do `then` for one call. What `then` does not decide goes on, with the number loaded."""
    return [(_EQUAL, 0, len(then) + 1, number), *then, (_LOAD, 0, 0, _NUMBER)]


def _one_of(place: int, values: tuple[int, ...]) -> list[tuple[int, int, int, int]]:
    tests = [(_EQUAL, len(values) - each, 0, value) for each, value in enumerate(values)]
    return [(_LOAD, 0, 0, 16 + 8 * place), *tests, _REFUSED, (_RETURN, 0, 0, _ALLOW)]


def install(pid: int, libc: ctypes.CDLL) -> None:
    """Filter the calls of this process, whose number is `pid`, for the rest of its life. Raises OSError."""
    data = program(pid)
    code = ctypes.create_string_buffer(data, len(data))
    header = struct.pack("@HP", len(data) // 8, ctypes.addressof(code))
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.syscall(_SECCOMP, _SET_MODE_FILTER, 0, header):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
