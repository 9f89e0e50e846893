"""The program behind a worker pool: it loads the verifier once and forks one worker a slot, on request.

`verify.workers` starts it, so that workers are forked from a small process without threads, and the caller
needs no `__main__` guard. What it holds, besides the verifier:

    control     a stream to the parent: one frame in (what to load), one frame out (what was loaded), then commands
                in (`COMMAND`: fork a slot, with the worker's channel attached; end a slot) and deaths out (`DEATH`)
    cells       shared memory, two doubles a slot: which row of its batch a worker is at, and since when

A worker reads a batch (a frame: pickled list of pickled rows) from its channel and answers with a frame of JSON: for
each row that it got to, the verdicts and the seconds. Answers are JSON because what a verifier leaves in a worker is
not to be trusted with unpickling in the parent.

Every worker leads a process group. On Linux, worker and zygote are subreapers too: whatever a verifier has forked stays
below its worker while that lives and comes to the zygote afterwards, daemons included, and is killed there. When the
control stream ends, whether the parent closed it or was killed, everything is killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib.util
import json
import mmap
import os
import pickle
import resource
import select
import signal
import socket
import struct
import sys
import time
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from rlvr.verify.verifying import FunctionVerifier

COMMAND = struct.Struct("=ci")  # b"F"ork or b"E"nd, slot
DEATH = struct.Struct("=ii")  # slot, wait status
LENGTH = struct.Struct("=Q")
EXIT_MEMORY = 77
"""Exit code of a worker that ran out of memory."""
BATCH_SECONDS = 0.05
"""A worker hands back what it has not got to after this time: slow rows cost no neighbour its turn."""
DEFAULT_MEMORY = 2 * 2**30

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


def send_frame(channel: socket.socket, data: bytes) -> None:
    """Write one frame: its length and its bytes."""
    channel.sendall(LENGTH.pack(len(data)) + data)


def receive_frame(channel: socket.socket) -> bytes | None:
    """Read one frame; None when the stream has ended."""
    header = _receive(channel, LENGTH.size)
    return None if header is None else _receive(channel, LENGTH.unpack(header)[0])


def _receive(channel: socket.socket, size: int) -> bytes | None:
    data = bytearray()
    while len(data) < size:
        chunk = channel.recv(min(size - len(data), 1 << 20))
        if not chunk:
            return None
        data += chunk
    return bytes(data)


def shared_cells(fd: int) -> memoryview[float]:
    """The shared memory behind a file descriptor, as doubles: aligned, so each is written and read whole."""
    return memoryview(mmap.mmap(fd, 0)).cast("d")


# --- the worker -----------------------------------------------------------------------------------------------------


def work(channel: socket.socket, cells: memoryview[float], slot: int, verifier: FunctionVerifier) -> None:
    """Answer batches until the channel ends. Leaves the process when memory runs out."""
    from rlvr.record.item import Item
    from rlvr.verify.verifying import failed

    while (frame := receive_frame(channel)) is not None:
        answers: list[tuple[list[tuple[str, float | None, str | None, str | None]], float]] = []
        begun = time.monotonic()
        for row, payload in enumerate(pickle.loads(frame)):
            now = time.monotonic()
            if answers and now - begun > BATCH_SECONDS:
                break
            # The time first: the parent reads the row first, so it never sees a new row with an old time.
            cells[2 * slot + 1] = now
            cells[2 * slot] = row
            size, data = payload
            start = time.perf_counter()
            try:
                verdicts = verifier.judge([Item(*fields) for fields in pickle.loads(data)])
            except MemoryError:
                os._exit(EXIT_MEMORY)  # nothing that needs memory can be relied on any more
            except BaseException as error:  # sys.exit(), KeyboardInterrupt, other libraries' time-outs
                verdicts = [failed(error)] * size
            seconds = time.perf_counter() - start
            signal.alarm(0)  # one that the row has left running is not the next row's
            answers.append(([(v.status.value, v.reward, v.extracted, v.reason) for v in verdicts], seconds))
        send_frame(channel, json.dumps(answers).encode())


# --- the zygote -----------------------------------------------------------------------------------------------------


class Zygote:
    """Forks workers, ends them, and tells the parent of every death."""

    def __init__(
        self, control: socket.socket, cells: memoryview[float], verifier: FunctionVerifier, memory: int
    ) -> None:
        self._control = control
        self._cells = cells
        self._verifier = verifier
        self._memory = memory
        self._slots: dict[int, int] = {}  # process id -> slot
        self._wake_read, self._wake_write = os.pipe()
        self._asked_to_end = False
        self._helpers = set(_children())  # what importing the verifier has started
        for end in (self._wake_read, self._wake_write):
            os.set_blocking(end, False)

    def serve(self) -> NoReturn:
        """Obey the parent until its end of the control stream closes; then kill everything."""
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._on_term)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        try:
            while not self._asked_to_end:
                ready, _, _ = select.select([self._control.fileno(), self._wake_read], [], [])
                if self._wake_read in ready:
                    os.read(self._wake_read, 4096)
                    self._bury()
                if self._control.fileno() in ready:
                    self._obey()
        except BaseException:
            traceback.print_exc()
            self._end_all(1)
        self._end_all(0)

    def _on_term(self, *_: object) -> None:
        self._asked_to_end = True  # the wake-up pipe tells the loop

    def _obey(self) -> None:
        try:
            data, fds, _, _ = socket.recv_fds(self._control, COMMAND.size, 1)
        except ConnectionError:
            data, fds = b"", []
        if not data:
            self._asked_to_end = True
            return
        verb, slot = COMMAND.unpack(data)
        if verb == b"F":
            os.set_inheritable(fds[0], False)
            self._fork(slot, fds[0])
            return
        for pid in [pid for pid, place in self._slots.items() if place == slot]:
            self._end(pid)

    def _fork(self, slot: int, fd: int) -> None:
        pid = os.fork()
        if pid == 0:
            self._become_worker(slot, fd)
        with contextlib.suppress(OSError):  # the child has done it already, or has ended
            os.setpgid(pid, pid)
        os.close(fd)
        self._slots[pid] = slot

    def _become_worker(self, slot: int, fd: int) -> NoReturn:
        code = 1
        try:
            os.setpgid(0, 0)
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            _process_control(_PR_SET_CHILD_SUBREAPER, 1)
            _process_control(_PR_SET_PDEATHSIG, signal.SIGKILL)  # safe here: the zygote's only thread is its main one
            self._control.close()
            os.close(self._wake_read)
            os.close(self._wake_write)
            _limit(resource.RLIMIT_CORE, 0)
            if sys.platform == "linux":
                _limit(resource.RLIMIT_AS, _address_space() + self._memory)
            work(socket.socket(fileno=fd), self._cells, slot, self._verifier)
            code = 0
        except OSError:  # the verifier closed our channel, or the parent went away
            code = 1
        finally:
            os._exit(code)

    def _end(self, pid: int) -> None:
        """Kill a worker's group, then what has left the group, and report the death."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        slot = self._slots.pop(pid)
        self._kill_orphans()
        with contextlib.suppress(ConnectionError):  # the parent has gone: its end of the stream says so next
            self._control.sendall(DEATH.pack(slot, status))

    def _bury(self) -> None:
        """Workers that died by themselves. The group goes before the leader is reaped: its id is theirs until then."""
        for pid in list(self._slots):
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                self._end(pid)

    def _kill_orphans(self) -> None:
        """Kill what a dead worker's verifier had forked, and in turn what that had."""
        while orphans := [pid for pid in _children() if pid not in self._slots and pid not in self._helpers]:
            for pid in orphans:
                os.kill(pid, signal.SIGKILL)
            for pid in orphans:
                os.waitpid(pid, 0)

    def _end_all(self, code: int) -> NoReturn:
        for pid in list(self._slots):
            self._end(pid)
        self._helpers.clear()
        self._kill_orphans()
        os._exit(code)


def _process_control(option: int, value: int) -> None:
    """prctl(2); elsewhere than on Linux there is nothing like it and a daemon that a verifier leaves behind stays."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def _children() -> list[int]:
    if sys.platform != "linux":
        return []
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


def _address_space() -> int:
    """Bytes of address space in use: imported libraries have taken it, a row has not."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _limit(what: int, value: int) -> None:
    _, hard = resource.getrlimit(what)
    resource.setrlimit(what, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def _same_rlvr() -> None:
    """Import `rlvr` from the package that this file lies in, whatever else of that name the path would find."""
    folder = Path(__file__).resolve().parents[1]
    spec = importlib.util.spec_from_file_location(
        "rlvr", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["rlvr"] = module
    spec.loader.exec_module(module)


def main(control_fd: int, cells_fd: int) -> None:
    """Load what the first frame asks for, say what it is, and serve."""
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # what is printed before a fork once
    control = socket.socket(fileno=control_fd)
    cells = shared_cells(cells_fd)
    for fd in (control_fd, cells_fd):
        os.set_inheritable(fd, False)
    request = receive_frame(control)
    if request is None:
        return
    _process_control(_PR_SET_CHILD_SUBREAPER, 1)
    order: dict[str, Any] = pickle.loads(request)
    sys.path.extend(entry for entry in order["path"] if entry not in sys.path)
    _same_rlvr()
    from rlvr.errors import ConfigError, PluginError
    from rlvr.verify.verifying import TOLD, describe, load_verifier

    try:
        verifier = load_verifier(order["ref"], **pickle.loads(order["options"]))
        verifier.preload()
        memory = order["memory"] or verifier.memory or DEFAULT_MEMORY
    except ConfigError as error:
        send_frame(control, json.dumps({"error": "ConfigError", "message": str(error)}).encode())
        return
    except BaseException as error:
        message = str(error) if isinstance(error, PluginError) else describe(error)
        send_frame(control, json.dumps({"error": "PluginError", "message": message}).encode())
        return
    told = {name: getattr(verifier, name) for name in TOLD} | {"claims": asdict(verifier.claims), "memory": memory}
    send_frame(control, json.dumps(told).encode())
    gc.collect()
    gc.freeze()  # what is shared with the workers is not written to by their collections
    Zygote(control, cells, verifier, memory).serve()


if __name__ == "__main__":
    with contextlib.suppress(ConnectionError):  # who asked is gone
        main(int(sys.argv[1]), int(sys.argv[2]))
