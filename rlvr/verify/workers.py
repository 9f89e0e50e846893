"""The parent's end of the zygote: start it, fork and kill workers, read their deaths and their progress."""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import mmap
import os
import pickle
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any

from rlvr.errors import ConfigError, PluginError, RunError
from rlvr.secret_options import variables
from rlvr.verify import landlock, zygote
from rlvr.verify.composition import leaves
from rlvr.verify.environment import worker_environment
from rlvr.verify.output import OutputRelay
from rlvr.verify.worker import waited_below, waited_for_cpu

MAX_FRAME = 256 << 20  # bytes; capped verdicts of a whole batch are far smaller
LOAD_TIMEOUT = 300.0  # seconds that loading a verifier may take
RESTARTS = 5  # attempts to load a verifier again whose process was lost
CLOSE_TIMEOUT = 10.0  # seconds that the zygote may take to end its workers


class ZygoteLostError(RunError):
    """The process that forks the workers is gone."""


class LoadingLostError(PluginError):
    """The process that loads the verifier ended meanwhile."""


class Channel:
    """Frames to and from one worker, without blocking."""

    def __init__(self, stream: socket.socket) -> None:
        stream.setblocking(False)
        self.stream = stream
        self.ended = False
        self._incoming = bytearray()
        self._outgoing = memoryview(b"")

    @property
    def sending(self) -> bool:
        """Whether part of the last frame is still unsent: call `flush` when the stream is writable."""
        return bool(self._outgoing)

    def send(self, frame: bytes) -> None:
        """Start to send a frame. The previous one has been answered, so it was sent completely."""
        self._outgoing = memoryview(zygote.LENGTH.pack(len(frame)) + frame)
        self.flush()

    def flush(self) -> None:
        """Continue to send."""
        try:
            while self._outgoing:
                self._outgoing = self._outgoing[self.stream.send(self._outgoing[: 1 << 18]) :]
        except BlockingIOError:
            pass
        except OSError:  # the worker is dead or has closed its end
            self._outgoing = memoryview(b"")

    def frames(self) -> Iterator[bytes]:
        """Yield the frames that have arrived completely. If `ended` is set, no more will.

        Raises ValueError for a frame of more than `MAX_FRAME` bytes.
        """
        if self.ended:
            return
        try:
            while data := self.stream.recv(1 << 18):
                self._incoming += data
            self.ended = True
        except BlockingIOError:
            pass
        except OSError:
            self.ended = True
        start = zygote.LENGTH.size
        while len(self._incoming) >= start:
            end = start + zygote.LENGTH.unpack_from(self._incoming)[0]
            if end > MAX_FRAME:
                raise ValueError("a frame is too large")
            if len(self._incoming) < end:
                return
            frame = bytes(self._incoming[start:end])
            del self._incoming[:end]
            yield frame

    def finish(self, deadline: float) -> None:
        """Tell an idle worker that there is no more work, and wait until it has closed its end, or for the deadline."""
        with contextlib.suppress(OSError):  # it is gone already
            self.stream.shutdown(socket.SHUT_WR)
            self.stream.settimeout(max(0.001, deadline - time.monotonic()))
            while self.stream.recv(1 << 18):
                pass

    def close(self) -> None:
        """Close this end."""
        self.stream.close()


class Workers:
    """A zygote and its workers, by slot. `description` is what the zygote reported about the verifier."""

    control: socket.socket
    """The stream to the zygote; readable if there are deaths. `restart` replaces it."""

    def __init__(
        self,
        ref: str,
        options: Mapping[str, Any],
        count: int,
        memory: int | None,
        load_timeout: float = LOAD_TIMEOUT,
        *,
        write_protect: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Raises PluginError and ConfigError, as loading the verifier in the zygote did.

        With `write_protect`, workers may write to their scratch folders only (`rlvr.verify.landlock`); ConfigError if
        the kernel cannot do that. `timeout` limits each of several verdicts that a worker is at.
        """
        if write_protect:
            landlock.require()
        given = [options, *(part.options for part in leaves(ref))]
        self._write_protect, self._variables = write_protect, set[str]().union(*map(variables, given))
        self._ref, self._count, self._memory, self._load_timeout = ref, count, memory, load_timeout
        self._timeout = timeout
        self._output = OutputRelay(ref)
        try:
            self._options = pickle.dumps(dict(options))
        except Exception as error:  # pickling raises whatever it likes
            raise ConfigError(f"the options of verifier {ref!r} cannot be sent to a process: {error}") from error
        self.description = self._start()

    def restart(self) -> None:
        """Replace the zygote, and with it all workers. Raises RunError if it then loads another verifier, or none."""
        for attempt in range(1, RESTARTS + 1):
            self._kill()
            try:
                description = self._start()
                break
            except LoadingLostError as error:
                if attempt == RESTARTS:  # else what has killed its predecessor may have killed it
                    raise RunError(f"the verifier's process ended and cannot be started again: {error}") from error
            except (ConfigError, PluginError) as error:
                raise RunError(f"the verifier's process ended and cannot be started again: {error}") from error
        if description != self.description:
            self.close()
            raise RunError(f"verifier {self._ref!r} was changed while it was in use: start again to use the new one")

    def _start(self) -> Mapping[str, Any]:
        self._incoming_deaths = bytearray()
        self._scratch = os.path.join(tempfile.gettempdir(), f"rlvr-{secrets.token_hex(8)}")
        try:
            self._spawn()
        except OSError as error:
            raise RunError(f"cannot start a process for verifier {self._ref!r}: {error.strerror}") from error
        try:
            description = self._load()
            os.mkdir(self._scratch, 0o700)  # last, so that the zygote is there to remove it
        except OSError as error:
            self._kill()
            raise RunError(
                f"cannot make a folder for the temporary files of workers: {self._scratch}: {error.strerror}; "
                "TMPDIR says where"
            ) from error
        except BaseException:
            self._kill()
            raise
        return description

    def _spawn(self) -> None:
        """Start the zygote at the other end of `control`. Raises OSError."""
        with ExitStack() as failed, ExitStack() as passed:

            def passed_on(descriptor: int) -> int:
                """Return the descriptor, or a copy that is none of the process's standard streams; close it here."""
                high = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)
                os.close(descriptor)
                passed.callback(os.close, high)
                return high

            self.control, theirs = socket.socketpair()
            failed.callback(self.control.close)
            control = passed_on(theirs.detach())
            shared = passed_on(_shared_file(mmap.PAGESIZE * self._count))
            output = passed_on(self._output.open())
            self._cells = zygote.shared_cells(shared)
            self._process = subprocess.Popen(
                # By its path, with -P: neither the working directory nor rlvr's own folder is where imports look first.
                [sys.executable, "-P", zygote.__file__, str(control), str(shared)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(control, shared),
                start_new_session=True,  # Ctrl-C is the caller's to handle
                # The hash seed: the same verdicts in every run.
                env={"PYTHONHASHSEED": "0", **worker_environment(os.environ, self._variables)},
            )
            failed.pop_all()  # nothing has

    def _load(self) -> Mapping[str, Any]:
        """Have the zygote load the verifier, and return its description."""
        path = [entry or os.getcwd() for entry in sys.path]
        order: dict[str, Any] = {"path": path, "ref": self._ref, "options": self._options, "memory": self._memory}
        order |= {"scratch": self._scratch, "write_protect": self._write_protect, "timeout": self._timeout}
        answer = None
        self.control.settimeout(self._load_timeout)
        try:
            zygote.send_frame(self.control, pickle.dumps(order))
            answer = zygote.receive_frame(self.control)
            if answer is not None and "env" in (declared := json.loads(answer)):
                values = {name: os.environ[name] for name in declared["env"] if name in os.environ}
                zygote.send_frame(self.control, json.dumps(values).encode())
                answer = zygote.receive_frame(self.control)
        except ConnectionError:  # it has ended without reading the order
            pass
        except TimeoutError as error:
            raise PluginError(
                f"verifier {self._ref!r} was not loaded after {self._load_timeout:g} s: its import or preload hangs"
            ) from error
        self.control.settimeout(None)
        if answer is None:
            ending = ending_of(self._process.wait())
            raise LoadingLostError(f"verifier {self._ref!r} ended its process while it was loaded: {ending}")
        description: dict[str, Any] = json.loads(answer)
        if "error" in description:
            raise {"ConfigError": ConfigError, "PluginError": PluginError}[description["error"]](description["message"])
        return description

    def fork(self, slot: int) -> Channel:
        """Fork a worker for an empty slot. Raises RunError if this process has no descriptors left."""
        try:
            ours, theirs = socket.socketpair()
        except OSError as error:
            raise RunError(f"cannot start a worker for the verifier: {error.strerror}") from error
        # If the zygote is gone, `deaths` says so.
        with theirs, contextlib.suppress(ConnectionError):
            socket.send_fds(self.control, [zygote.COMMAND.pack(b"F", slot)], [theirs.fileno()])
        return Channel(ours)

    def end(self, slot: int) -> None:
        """Have the worker of a slot killed. Its death is reported once, as if it had died by itself."""
        with contextlib.suppress(ConnectionError):
            self.control.sendall(zygote.COMMAND.pack(b"E", slot))

    def deaths(self) -> Iterator[tuple[int, int]]:
        """Yield slots whose worker and all its descendants are dead, with its exit code (negative: a signal).

        Call it when `control` is readable. Raises ZygoteLostError if the zygote itself is gone.
        """
        try:
            data = self.control.recv(1 << 12)
        except ConnectionError:
            data = b""
        if not data:
            ending = ending_of(self._process.wait())
            raise ZygoteLostError(f"the process that forks the verifier's workers is gone: {ending}")
        self._incoming_deaths += data
        while len(self._incoming_deaths) >= zygote.DEATH.size:
            slot, status = zygote.DEATH.unpack_from(self._incoming_deaths)
            del self._incoming_deaths[: zygote.DEATH.size]
            yield slot, os.waitstatus_to_exitcode(status)

    def begin(self, slot: int) -> None:
        """Note that a batch is on its way to an idle worker."""
        first = zygote.CELLS * slot
        self._cells[first], self._cells[first + 1] = -1.0, time.monotonic()

    def progress(self, slot: int) -> tuple[int, float] | None:
        """Return the step of its batch that a worker is at (-1: it has not begun), and since when (`time.monotonic`).

        The rows of a batch are one step each, in as many passes as the worker makes. None if the worker's cells hold
        no numbers: the verifier can write there.
        """
        step, since = self._cells[zygote.CELLS * slot], self._cells[zygote.CELLS * slot + 1]
        return (int(step), since) if math.isfinite(step) and math.isfinite(since) else None

    def waited(self, slot: int, since: float) -> float:
        """Return the seconds that a worker has waited for a CPU since its batch began.

        A worker that runs programs waits for them: what those wait that began after `since` (`time.monotonic`), the
        begin of its row, counts as well.
        """
        pid, before = self._cells[zygote.CELLS * slot + 2], self._cells[zygote.CELLS * slot + 3]
        if not math.isfinite(pid) or pid <= 0:
            return 0.0
        waited = waited_for_cpu(int(pid)) - before
        return (waited if waited > 0 else 0.0) + waited_below(int(pid), since)

    def lose(self) -> None:
        """Kill a zygote that does not react; `deaths` then reports its loss."""
        self._process.kill()

    def close(self) -> None:
        """End all processes and wait for that."""
        self.control.close()  # the zygote kills its workers and ends
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(CLOSE_TIMEOUT)
        self._kill()

    def _kill(self) -> None:
        """Kill the zygote and its process group; on Linux its workers die with it."""
        self.control.close()
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        if self._process.returncode != 0:
            self._kill_orphans()
        self._output.wait()
        zygote.remove_folder(self._scratch)  # the zygote has done that, unless it was killed

    def _kill_orphans(self) -> None:
        """Kill what the zygote would have killed, had it not been killed itself."""
        deadline = time.monotonic() + CLOSE_TIMEOUT
        while (orphans := zygote.marked(self._scratch)) and time.monotonic() < deadline:
            for pid in orphans:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def disown(self) -> None:
        """In a forked child: close the stream, which must end when the parent's end does, and nothing else."""
        self._process.returncode = 0  # the parent waits for it
        self._output.disown()
        self.control.close()


def ending_of(status: int) -> str:
    """Describe how a process ended, from its exit code (negative: a signal)."""
    if status >= 0:
        return f"it ended itself with exit code {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:  # a real-time signal
        return f"killed by signal {-status}"


def _shared_file(size: int) -> int:
    """Return a descriptor of `size` zero bytes in an unnamed file."""
    if sys.platform == "linux":
        fd = os.memfd_create("rlvr-cells")
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, size)
    return fd
