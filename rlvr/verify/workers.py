"""The parent's end of the zygote: start it, ask it for workers, learn of their deaths and of their progress."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from typing import Any

from rlvr.errors import ConfigError, PluginError, RunError
from rlvr.verify import zygote


class Channel:
    """Frames to and from one worker, never blocking."""

    def __init__(self, stream: socket.socket) -> None:
        stream.setblocking(False)
        self.stream = stream
        self.ended = False
        self._incoming = bytearray()
        self._outgoing = memoryview(b"")

    @property
    def sending(self) -> bool:
        """Something of the last frame is still to be sent: call `flush` when the stream is writable."""
        return bool(self._outgoing)

    def send(self, frame: bytes) -> None:
        """Begin to send a frame; the one before has been answered, so it has been sent."""
        self._outgoing = memoryview(zygote.LENGTH.pack(len(frame)) + frame)
        self.flush()

    def flush(self) -> None:
        """Send on."""
        try:
            while self._outgoing:
                self._outgoing = self._outgoing[self.stream.send(self._outgoing[: 1 << 18]) :]
        except BlockingIOError:
            pass
        except OSError:  # the worker is dead or has closed its end
            self._outgoing = memoryview(b"")

    def frames(self) -> Iterator[bytes]:
        """The frames that have arrived whole. `ended` says that no more will."""
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
            if len(self._incoming) < end:
                return
            frame = bytes(self._incoming[start:end])
            del self._incoming[:end]
            yield frame

    def close(self) -> None:
        """Close our end."""
        self.stream.close()


class Workers:
    """A zygote and its workers, by slot. `told` is what the zygote said about the verifier that it loaded."""

    def __init__(self, ref: str, options: Mapping[str, Any], count: int, memory: int | None) -> None:
        """Raises PluginError and ConfigError, as loading the verifier in the zygote did."""
        try:
            pickled = pickle.dumps(dict(options))
        except Exception as error:  # pickling raises whatever it likes
            raise ConfigError(f"the options of verifier {ref!r} cannot be sent to a process: {error}") from error
        shared = _shared_file(16 * count)
        self.control, theirs = socket.socketpair()
        self._news = bytearray()
        try:
            self._cells = zygote.shared_cells(shared)
            self._process = subprocess.Popen(
                # By its path, with -P: neither the working directory nor rlvr's own folder is where imports look first.
                [sys.executable, "-P", zygote.__file__, str(theirs.fileno()), str(shared)],
                stdin=subprocess.DEVNULL,
                stdout=_standard_error(),  # standard output belongs to the caller
                stderr=_standard_error(),
                pass_fds=(theirs.fileno(), shared),
                start_new_session=True,  # Ctrl-C is the caller's to handle
                env={"PYTHONHASHSEED": "0", **os.environ},  # the same verdicts in every run
            )
        except BaseException:
            self.control.close()
            raise
        finally:
            theirs.close()
            os.close(shared)
        try:
            self.told = self._introduce(ref, pickled, memory)
        except BaseException:
            self._process.kill()
            self.close()
            raise

    def _introduce(self, ref: str, options: bytes, memory: int | None) -> Mapping[str, Any]:
        path = [entry or os.getcwd() for entry in sys.path]
        order = {"path": path, "ref": ref, "options": options, "memory": memory}
        answer = None
        with contextlib.suppress(ConnectionError):  # it has ended, and left unread what we sent
            zygote.send_frame(self.control, pickle.dumps(order))
            answer = zygote.receive_frame(self.control)
        if answer is None:
            ending = ending_of(self._process.wait())
            raise PluginError(f"verifier {ref!r} ended its process while it was loaded: {ending}")
        told: dict[str, Any] = json.loads(answer)
        if "error" in told:
            raise {"ConfigError": ConfigError, "PluginError": PluginError}[told["error"]](told["message"])
        return told

    def fork(self, slot: int) -> Channel:
        """A new worker in an empty slot. Raises RunError when this process has no descriptors left."""
        try:
            ours, theirs = socket.socketpair()
        except OSError as error:
            raise RunError(f"cannot start a worker for the verifier: {error.strerror}") from error
        # Without the zygote nobody listens: `deaths` will say so.
        with theirs, contextlib.suppress(ConnectionError):
            socket.send_fds(self.control, [zygote.COMMAND.pack(b"F", slot)], [theirs.fileno()])
        return Channel(ours)

    def end(self, slot: int) -> None:
        """Have the worker in a slot killed. Its death is among `deaths` then, once, as it is when it dies by itself."""
        with contextlib.suppress(ConnectionError):
            self.control.sendall(zygote.COMMAND.pack(b"E", slot))

    def deaths(self) -> Iterator[tuple[int, int]]:
        """Slots whose worker and all its descendants are dead, and its exit code (negative: a signal).

        Call it when `control` is readable. Raises RunError when the zygote itself is gone.
        """
        try:
            data = self.control.recv(1 << 12)
        except ConnectionError:
            data = b""
        if not data:
            raise RunError(f"the process that forks the verifier's workers is gone: {ending_of(self._process.wait())}")
        self._news += data
        while len(self._news) >= zygote.DEATH.size:
            slot, status = zygote.DEATH.unpack_from(self._news)
            del self._news[: zygote.DEATH.size]
            yield slot, os.waitstatus_to_exitcode(status)

    def begin(self, slot: int) -> None:
        """Note that a batch is on its way to an idle worker."""
        self._cells[2 * slot], self._cells[2 * slot + 1] = -1.0, time.monotonic()

    def progress(self, slot: int) -> tuple[int, float]:
        """Which row of its batch a worker is at (-1: it has not begun), and since when (`time.monotonic`)."""
        row = self._cells[2 * slot]
        return int(row), self._cells[2 * slot + 1]

    def close(self) -> None:
        """End everything and wait for it."""
        self.control.close()  # the zygote kills its workers and ends
        self._process.wait()

    def disown(self) -> None:
        """In a forked child: let go of the stream, which must end when the parent does, and of nothing else."""
        self._process.returncode = 0  # not ours to wait for
        self.control.close()


def ending_of(status: int) -> str:
    """How a process ended, in words, from its exit code (negative: a signal)."""
    if status >= 0:
        return f"it ended itself with exit code {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:  # a real-time signal
        return f"killed by signal {-status}"


def _standard_error() -> int:
    try:
        os.fstat(2)
    except OSError:
        return subprocess.DEVNULL
    return 2


def _shared_file(size: int) -> int:
    """A descriptor of `size` zero bytes that have no name."""
    if sys.platform == "linux":
        fd = os.memfd_create("rlvr-cells")
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, size)
    return fd
