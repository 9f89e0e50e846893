"""The first process of a box. It never reads a program: for each, it forks a warden, which forks and watches it.

    zygote    waits for orders on the control socket; when that ends, it ends, and the box with it
    warden    gives the program fresh namespaces, ends it when it is late, and reports on a socket that the program
              never has
    program   process 1 of its namespaces: no capabilities, no files to write but its own, a filter of system calls

An order is JSON (`Order`) with six descriptors: standard input, output and error, the job, the channel of its calls,
and the warden's socket. Over that socket, the client allows time (`TIME`) and gets one report at the end. When the
client sends anything else or closes it, the program is ended.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import gc
import importlib
import json
import os
import resource
import select
import signal
import socket
import struct
import sys
import time
import traceback
from typing import Any, NoReturn, TypedDict

from rlvr.verify import landlock

from . import programs, seccomp

DESCRIPTORS = 6
TIME = struct.Struct("=dd")
"""Seconds of CPU and of the clock that a program may use from now on."""
PRELOADED = (
    *("bisect", "collections", "copy", "datetime", "decimal", "fractions", "functools", "heapq", "itertools", "json"),
    *("math", "operator", "random", "re", "statistics", "string", "threading", "traceback", "typing"),
)
"""Modules that programs often import. They are shared, so that they are imported once."""

BUSY, PATIENCE = 0.02, 5.0
"""A program that computes for less than this share of the time is ended when the clock says so; any other is given this
many times the time, because its CPU may be busy."""

_CLONE_NEWNS, _CLONE_NEWIPC, _CLONE_NEWPID = 0x00020000, 0x08000000, 0x20000000
_MS_NOSUID, _MS_NODEV = 2, 4
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4
_CAPSET, _CAPABILITIES = 126, 0x20080522
_NOBODY = 65534
_STACK = 64 * 2**20


class Order(TypedDict):
    """Limits of a program."""

    memory: int
    """Bytes of address space."""
    cpu: int
    """Seconds of CPU in its whole life: a limit of the kernel's own."""
    idle: float
    """Seconds of the clock in its whole life, if it hardly computes."""
    files: int
    """Bytes of its folder, and of a file."""


class Confinement(TypedDict):
    """How a box is confined."""

    kind: str
    """bubblewrap, landlock or none."""
    folders: list[str]
    """Folders to read, for landlock."""
    files: list[str]
    """Files to read, for landlock."""
    listed: list[str]
    """Folders whose entries may be listed, for landlock."""
    user: int
    """User to become, for landlock; -1 to stay the same."""


def main() -> None:
    """Serve orders: the arguments are a `Confinement`, and the descriptor of the control socket."""
    place, control = json.loads(sys.argv[1]), socket.socket(fileno=int(sys.argv[2]))
    sys.argv[:] = ["program"]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps wardens
    for name in PRELOADED:
        importlib.import_module(name)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.clearenv()
    os.environ.clear()
    _confine(place)
    if place["kind"] == "bubblewrap":
        seccomp.program(1)  # made once: every program is process 1
    gc.collect()
    gc.freeze()
    control.send(b"ready")
    while True:
        try:
            data, descriptors, _, _ = socket.recv_fds(control, 1 << 16, DESCRIPTORS)
        except ConnectionError:
            os._exit(0)
        if not data:
            os._exit(0)
        if os.fork() == 0:
            try:
                control.close()
                _watch(place, json.loads(data), descriptors, libc)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(1)
        for descriptor in descriptors:
            os.close(descriptor)


def _confine(place: Confinement) -> None:
    """Restrict this process, and all that it forks, as far as that needs no fresh namespaces. Raises OSError."""
    if place["kind"] != "landlock":
        return
    files = [*place["files"], "/dev/zero", "/dev/urandom"]
    landlock.allow_reading_only(place["folders"], files, listed=place["listed"], written=["/dev/null"])
    if place["user"] >= 0:
        os.setgroups([])
        os.setresgid(place["user"], place["user"], place["user"])
        os.setresuid(place["user"], place["user"], place["user"])
    os.chdir("/")


# --- the warden -----------------------------------------------------------------------------------------------------


def _watch(place: Confinement, order: Order, descriptors: list[int], libc: ctypes.CDLL) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    socket_of_client = descriptors.pop()
    if place["kind"] == "bubblewrap" and libc.unshare(_CLONE_NEWPID | _CLONE_NEWNS | _CLONE_NEWIPC) != 0:
        raise OSError(ctypes.get_errno(), "no namespaces")
    confined, says_so = os.pipe()
    pid = os.fork()
    if pid == 0:
        _become_program(place, order, [*descriptors, says_so], libc)
    for descriptor in (*descriptors, says_so):
        os.close(descriptor)
    watch = socket.socket(fileno=socket_of_client)
    ended = _wait(pid, watch, order["idle"])
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    if place["kind"] == "none":
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
    _, status, usage = os.wait4(pid, 0)
    if not os.read(confined, 1):  # not by its exit code, which the program chooses
        ended = "unconfined"
    cpu, own = usage.ru_utime + usage.ru_stime, time.process_time()
    report = {"ended": ended, "code": os.waitstatus_to_exitcode(status), "cpu": cpu, "warden": own}
    with contextlib.suppress(OSError):  # the client has closed it
        watch.send(json.dumps(report).encode())
    os._exit(0)


def _wait(pid: int, watch: socket.socket, idle: float) -> str:
    """Wait until the program ends or must be ended, and return which: exited, cpu, clock or closed."""
    poll = select.poll()
    process = os.pidfd_open(pid)
    poll.register(process, select.POLLIN)
    poll.register(watch, select.POLLIN)
    begun, before, cpu, clock = time.monotonic(), 0.0, 60.0, 60.0  # until the client allows time
    over, born = begun + clock, begun
    while True:
        left = min(cpu - (cpu_seconds(pid) - before), over - time.monotonic())
        ready = {descriptor for descriptor, _ in poll.poll(max(1.0, left * 1e3 + 1))}
        if process in ready:
            return "exited"
        if watch.fileno() in ready:
            message = watch.recv(TIME.size)
            if len(message) != TIME.size:
                return "closed"
            cpu, clock = TIME.unpack(message)
            begun, before = time.monotonic(), cpu_seconds(pid)
            if begun - born > idle and before < BUSY * (begun - born):
                return "clock"
            over = begun + clock
        used, waited = cpu_seconds(pid) - before, time.monotonic() - begun
        if used >= cpu:
            return "cpu"
        if time.monotonic() >= over:
            if used < BUSY * waited or waited >= PATIENCE * clock:
                return "clock"
            over += clock / 4  # it computes, on a busy machine


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process, which has not been reaped yet."""
    return time.clock_gettime((~pid << 3) | 2)


# --- the program ----------------------------------------------------------------------------------------------------


def _become_program(place: Confinement, order: Order, descriptors: list[int], libc: ctypes.CDLL) -> NoReturn:
    """Give up everything but five descriptors, then run the job.

    The last descriptor is a pipe to the warden. It is closed before the program runs.
    """
    try:
        os.setsid()  # its own process group: `kill(0, 9)` reaches a group through PID namespaces
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)  # a crash is no work for the host's collector of core dumps
        for number, descriptor in enumerate([fcntl.fcntl(each, fcntl.F_DUPFD, 20) for each in descriptors]):
            os.dup2(descriptor, number)
        os.closerange(len(descriptors), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        if place["kind"] == "bubblewrap":
            size = f"size={order['files']},nr_inodes=1000,mode=0777"
            if libc.mount(b"tmpfs", b"/tmp", b"tmpfs", _MS_NOSUID | _MS_NODEV, size.encode()) != 0:
                raise OSError(ctypes.get_errno(), "no folder")
            os.chdir("/tmp")
        job: dict[str, Any] = programs.read_job(3)  # made by the client; the program itself is only text in it
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        _limit(order, place)
        if place["kind"] != "none":
            _drop_capabilities(libc)
            seccomp.install(os.getpid(), libc)
        os.write(len(descriptors) - 1, b"!")
        os.close(len(descriptors) - 1)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    programs.run(job)


def _limit(order: Order, place: Confinement) -> None:
    limits = {
        resource.RLIMIT_AS: order["memory"],
        resource.RLIMIT_CPU: order["cpu"],
        resource.RLIMIT_FSIZE: order["files"],
        resource.RLIMIT_NOFILE: 64,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
    }
    if place["kind"] == "bubblewrap":  # counted in the box's own user namespace
        limits[resource.RLIMIT_NPROC] = 200
    for name, value in limits.items():
        hard = resource.getrlimit(name)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(name, (value, value))
    hard = resource.getrlimit(resource.RLIMIT_STACK)[1]
    resource.setrlimit(resource.RLIMIT_STACK, (_STACK if hard == resource.RLIM_INFINITY else min(_STACK, hard), hard))


def _drop_capabilities(libc: ctypes.CDLL) -> None:
    header, none = struct.pack("=Ii", _CAPABILITIES, 0), bytes(24)
    if libc.syscall(_CAPSET, header, none) != 0:
        raise OSError(ctypes.get_errno(), "capabilities stay")
