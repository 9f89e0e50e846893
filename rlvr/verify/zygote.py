"""The zygote: a program that loads the verifier once and forks one worker per slot, on request.

`rlvr.verify.workers` starts it. Workers are forked from a small process without threads, and the caller needs no
`__main__` guard. Besides the verifier, the zygote holds:

- control: a stream to the parent. One frame in (what to load), one frame out (the names of the environment variables
  that the verifier declares), one frame in (their values), one frame out (the verifier's description), then
  commands in (`COMMAND`: fork a worker for a slot, with its channel attached; kill the worker of a slot) and deaths out
  (`DEATH`).
- cells: shared memory, one page of `CELLS` doubles per slot, which only the slot's worker maps: the step of the batch
  that the worker is at (row 2 of the second pass over 5 rows is step 7), when it began (`time.monotonic`), the worker's
  process id, and how long it had waited for a CPU when the batch began, in seconds.

A worker reads a batch from its channel: a frame with a pickled nonce and a list of pickled rows. It answers with a
frame of the nonce and JSON (`rlvr.verify.worker.Worker.answer`). Answers are JSON because the parent must not unpickle
anything from a process that ran a verifier. The nonce keeps a verifier that writes to the channel from answering for
its neighbors.

Every worker leads a process group. On Linux, worker and zygote are subreapers too: a process that a verifier forks
stays below its worker while that lives and moves to the zygote afterwards, even a daemon, and is killed there. When the
control stream ends, because the parent closed it or was killed, everything is killed. A zygote that is stopped then is
continued by the kernel.

Every worker has a scratch folder, where `tempfile` puts its files. It is removed when the worker is dead, whatever the
verifier left in it.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import gc
import importlib.util
import json
import logging
import mmap
import os
import pickle
import resource
import select
import shutil
import signal
import socket
import struct
import sys
import tempfile
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from rlvr.verify.loaded import LoadedVerifier
    from rlvr.verify.worker import Worker

COMMAND = struct.Struct("=ci")  # b"F" (fork) or b"E" (end), slot
DEATH = struct.Struct("=ii")  # slot, wait status
LENGTH = struct.Struct("=Q")
CELLS = mmap.PAGESIZE // 8
NONCE_BYTES = 16
EXIT_MEMORY = 77
"""Exit code of a worker that ran out of memory."""
DEFAULT_MEMORY = 2 * 2**30

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36

_marks: list[mmap.mmap] = []  # what `_mark` has mapped


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
    """Map the shared memory of a file descriptor as doubles. They are aligned, so reads and writes are atomic."""
    return memoryview(mmap.mmap(fd, 0)).cast("d")


def _own_cells(fd: int, slot: int) -> memoryview[float]:
    """Map the cells of one slot, and close the file: a worker can write to no cells but its own."""
    mapped = mmap.mmap(fd, mmap.PAGESIZE, offset=slot * mmap.PAGESIZE)
    os.close(fd)
    return memoryview(mapped).cast("d")


# --- the zygote -----------------------------------------------------------------------------------------------------


class Zygote:
    """The loop that forks workers, kills them, and reports every death to the parent."""

    def __init__(
        self,
        control: socket.socket,
        cells: int,
        verifier: LoadedVerifier,
        memory: int,
        make_worker: type[Worker],
        scratch: str,
        write_protect: bool,
    ) -> None:
        self._control = control
        self._scratch = scratch
        self._write_protect = write_protect
        self._make_worker = make_worker
        self._cells = cells
        self._verifier = verifier
        self._memory = memory
        self._slots: dict[int, int] = {}  # process id -> slot
        self._wake_read, self._wake_write = os.pipe()
        self._asked_to_end = False
        self._helpers = set(_children())  # started while the verifier was imported
        for end in (self._wake_read, self._wake_write):
            os.set_blocking(end, False)

    def serve(self) -> NoReturn:
        """Follow the parent's commands until its end of the control stream closes, then kill everything."""
        signal.signal(signal.SIGCHLD, lambda *_: None)
        # A service manager or scheduler that asks all processes to end asks the parent too: that finishes its work.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
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
            tempfile.tempdir = os.environ["TMPDIR"] = self._scratch_of(slot)
            os.makedirs(tempfile.tempdir, mode=0o700, exist_ok=True)
            if self._write_protect:
                from rlvr.verify.landlock import allow_writing_only  # not before `_same_rlvr`

                allow_writing_only([tempfile.tempdir], ["/dev/null"])
            cells = _own_cells(self._cells, slot)
            cells[2] = os.getpid()
            self._make_worker(cells, self._verifier).serve(socket.socket(fileno=fd))
            code = 0
        except OSError:  # the verifier closed our channel, or the parent went away
            code = 1
        finally:
            os._exit(code)

    def _end(self, pid: int) -> None:
        """Kill a worker's group, then the processes that left the group, and report the death."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        slot = self._slots.pop(pid)
        self._kill_orphans()
        remove_folder(self._scratch_of(slot))
        with contextlib.suppress(ConnectionError):  # the parent is gone: the end of the stream is read next
            self._control.sendall(DEATH.pack(slot, status))

    def _scratch_of(self, slot: int) -> str:
        return os.path.join(self._scratch, str(slot))

    def _bury(self) -> None:
        """Handle workers that died by themselves. Their group is killed first: reaping its leader frees its id."""
        for pid in list(self._slots):
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                self._end(pid)

    def _kill_orphans(self) -> None:
        """Kill what a dead worker's verifier had forked, and what those processes had forked in turn."""
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
        remove_folder(self._scratch)
        os._exit(code)


def remove_folder(folder: str) -> None:
    """Remove a folder and all in it, also what its owner may not enter or write. A folder that is not there is fine."""
    shutil.rmtree(folder, ignore_errors=True)
    if not os.path.isdir(folder):
        return
    with contextlib.suppress(OSError):  # something else removes it too
        os.chmod(folder, 0o700)
        for parent, folders, _ in os.walk(folder):
            for path in (os.path.join(parent, name) for name in folders):
                if not os.path.islink(path):
                    os.chmod(path, 0o700)
    shutil.rmtree(folder, ignore_errors=True)


def _process_control(option: int, value: int) -> None:
    """Call prctl(2). Systems other than Linux have no equivalent: there, a daemon that a verifier starts stays."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def _children() -> list[int]:
    if sys.platform != "linux":
        return []
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


def _address_space() -> int:
    """Return the bytes of address space in use. Before the first row, they belong to imported libraries."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _limit(what: int, value: int) -> None:
    _, hard = resource.getrlimit(what)
    resource.setrlimit(what, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def _same_rlvr() -> None:
    """Import `rlvr` from the package that contains this file, whatever else the path holds under that name."""
    folder = Path(__file__).resolve().parents[1]
    spec = importlib.util.spec_from_file_location(
        "rlvr", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["rlvr"] = module
    spec.loader.exec_module(module)


def _mark(name: str) -> None:
    """Map a file of this name, so that what is forked from here can be told by it, as `marked` does."""
    if sys.platform == "linux":
        fd = os.memfd_create(name)
        os.ftruncate(fd, mmap.PAGESIZE)
        _marks.append(mmap.mmap(fd, mmap.PAGESIZE))
        os.close(fd)


def marked(scratch: str) -> list[int]:
    """Return the processes that a zygote with this scratch folder, or its workers, have forked and not yet ended.

    They map a file of its name or, if they run another program, have the folder in their environment.
    """
    name, found = os.path.basename(scratch).encode(), []
    for folder in Path("/proc").glob("[0-9]*") if sys.platform == "linux" else ():
        with contextlib.suppress(OSError):  # it has ended, or belongs to somebody else
            if b"memfd:" + name in (folder / "maps").read_bytes() or b"/" + name in (folder / "environ").read_bytes():
                found.append(int(folder.name))
    return found


def _end_with_parent(control: socket.socket, on: bool) -> None:
    """Have the kernel end this process, through SIGIO, when the parent closes the control stream or is gone.

    A verifier that hangs while it is imported would otherwise keep the process alive forever.
    """
    fcntl.fcntl(control, fcntl.F_SETOWN, os.getpid())
    flags = fcntl.fcntl(control, fcntl.F_GETFL)
    fcntl.fcntl(control, fcntl.F_SETFL, flags | os.O_ASYNC if on else flags & ~os.O_ASYNC)


def main(control_fd: int, cells_fd: int) -> None:
    """Load the verifier that the first frame names, send its description, and serve."""
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # so that text printed before a fork is not written twice
    control = socket.socket(fileno=control_fd)
    for fd in (control_fd, cells_fd):
        os.set_inheritable(fd, False)
    request = receive_frame(control)
    if request is None:
        return
    _process_control(_PR_SET_CHILD_SUBREAPER, 1)
    _process_control(_PR_SET_PDEATHSIG, signal.SIGCONT)  # a stopped process would not notice that the stream has ended
    _end_with_parent(control, True)
    order: dict[str, Any] = pickle.loads(request)
    _mark(os.path.basename(order["scratch"]))
    sys.path.extend(entry for entry in order["path"] if entry not in sys.path)
    _same_rlvr()
    logging.getLogger("rlvr.registry").disabled = True  # the caller reports broken plugins
    from rlvr.errors import ConfigError, PluginError
    from rlvr.verify.loaded import DESCRIPTION_FIELDS
    from rlvr.verify.results import describe
    from rlvr.verify.verifying import load_verifier
    from rlvr.verify.worker import Worker

    try:
        verifier = load_verifier(order["ref"], **pickle.loads(order["options"]))
        _end_with_parent(control, False)  # the parent's answer must not end this process
        send_frame(control, json.dumps({"env": verifier.env}).encode())
        if (values := receive_frame(control)) is None:
            return
        _end_with_parent(control, True)
        os.environ.update(json.loads(values))
        verifier.preload()
        verifier.limit = order["timeout"]
        memory = order["memory"] or verifier.memory or DEFAULT_MEMORY
    except ConfigError as error:
        send_frame(control, json.dumps({"error": "ConfigError", "message": str(error)}).encode())
        return
    except BaseException as error:
        message = str(error) if isinstance(error, PluginError) else describe(error)
        send_frame(control, json.dumps({"error": "PluginError", "message": message}).encode())
        return
    description = {name: getattr(verifier, name) for name in DESCRIPTION_FIELDS}
    description |= {"claims": asdict(verifier.claims), "memory": memory}
    _end_with_parent(control, False)  # from here on, the loop reads the end of the stream
    send_frame(control, json.dumps(description).encode())
    gc.collect()
    gc.freeze()  # so that garbage collection in workers does not write to pages shared with the zygote
    Zygote(control, cells_fd, verifier, memory, Worker, order["scratch"], order["write_protect"]).serve()


if __name__ == "__main__":
    with contextlib.suppress(ConnectionError):  # the parent is gone
        main(int(sys.argv[1]), int(sys.argv[2]))
