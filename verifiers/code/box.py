"""A warm sandbox for programs, from outside: one per worker process.

    verdict (this process)            | box (bubblewrap, or Landlock)
    Box --control socket------------> | zygote --fork--> warden --fork in new namespaces--> program
    Box --time, report--------------> |                  warden
    Calls --one call at a time------> |                                                      program

Nothing that a program says is believed: what it prints is text to compare, and what it returns is a claim
(`inside.claims`). How it ended is reported by the warden, over a socket that the program never has.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import os
import select
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias

from .errors import BoxError
from .inside.seccomp import supported
from .inside.zygote import PATIENCE, TIME, Confinement, Order
from .places import Interpreter, binds, interpreter, open_to_all, rules

Kind: TypeAlias = Literal["bubblewrap", "landlock", "none"]

START_SECONDS = 60.0
"""Seconds in which a box must be ready."""
GRACE = 20.0
"""Seconds beyond its limits after which a program's warden is taken for broken."""
LONGEST_MESSAGE = 2_000
"""Bytes of a program's standard error that are kept."""
NOBODY = 65534
_LENGTH = struct.Struct("=I")
_INSIDE = ("claims", "seccomp", "programs", "zygote")
"""Modules of the other side, in the order of their imports; `rlvr.verify.landlock` comes first."""
_BOOTSTRAP = (
    "import json,sys,types\n"
    "for name,text in json.load(sys.stdin):\n"
    "    above=''\n"
    "    for part in name.split('.'):\n"
    "        full=above+part\n"
    "        if full not in sys.modules:\n"
    "            sys.modules[full]=module=types.ModuleType(full)\n"
    "            module.__path__=[]\n"
    "            module.__package__=above[:-1]\n"
    "            if above: setattr(sys.modules[above[:-1]],part,module)\n"
    "        above=full+'.'\n"
    "    exec(compile(text,name,'exec',dont_inherit=True),module.__dict__)\n"
    "sys.modules['inside.zygote'].main()\n"
)
"""Python's modules from their text: the box needs no file of rlvr."""


@dataclass(frozen=True)
class Allowance:
    """Limits of a program."""

    seconds: float = 2.0
    """CPU seconds per test."""
    memory: int = 512 * 2**20
    """Bytes of address space."""
    output: int = 4 * 2**20
    """Bytes that it may print, or return from one call."""
    files: int = 16 * 2**20
    """Bytes of its folder, and of a file."""
    total: float = 60.0
    """Seconds of CPU of its life, and seconds of the clock of a life in which it hardly computes."""

    @property
    def clock(self) -> float:
        """Seconds of the clock per test, after which a program that does not compute is ended."""
        return 2 * self.seconds

    @property
    def patience(self) -> float:
        """Seconds of the clock after which a warden must have ended a program, or is taken for broken."""
        return PATIENCE * self.clock + GRACE


@dataclass
class Ended:
    """How a program ended, by its warden."""

    how: str
    """exited, cpu, clock, closed (by us), or output (too much of it)."""
    code: int
    """Exit code; negative: the signal."""
    cpu: float
    """CPU seconds of its life."""
    warden: float = 0.0
    """CPU seconds of its warden."""
    clock: float = 0.0
    """Seconds of the clock that it was waited for."""
    output: bytes = b""
    message: str = ""
    """The last line of its standard error."""


class Box:
    """A warm sandbox. Use it as a context manager, or call `close`."""

    def __init__(self, kind: Kind, *, python: str | None = None) -> None:
        """`python`: the interpreter that runs programs; by default this process's own, without its packages."""
        self.kind = kind
        self._python = python
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._errors = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start the box, if it does not run yet. Raises BoxError if it cannot be started."""
        if self._process is not None:
            return
        if sys.platform != "linux":
            raise BoxError(f"programs are run on Linux only, and this is {sys.platform}")
        if self.kind != "none" and (reason := supported()):
            raise BoxError(reason)
        command = _command(self.kind, interpreter(self._python))
        self._errors = os.memfd_create("errors")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, _memory(_sources()) as sources:
            try:
                self._process = subprocess.Popen(
                    [*command, str(theirs.fileno())],
                    stdin=sources,
                    stdout=subprocess.DEVNULL,
                    stderr=self._errors,
                    env=_environment(),
                    cwd="/",
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )
            except OSError as error:
                ours.close()
                self.close()
                raise BoxError(f"{command[0]} cannot be started: {error.strerror}") from error
        self._control = ours
        ours.settimeout(START_SECONDS)
        try:
            ready = ours.recv(16)
        except OSError:
            ready = b""
        if ready != b"ready":
            said = self._said()
            self.close()
            raise BoxError(f"the box does not start: {said or 'it says nothing'}")

    def close(self) -> None:
        """End the box and everything in it."""
        control, process, errors = self._control, self._process, self._errors
        self._control, self._process, self._errors = None, None, -1
        if control is not None:
            control.close()  # the zygote ends, and with it the box
        if process is not None:
            try:
                process.wait(5.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if errors >= 0:
            os.close(errors)

    def _said(self) -> str:
        """Return the last lines of the box's standard error."""
        size = os.fstat(self._errors).st_size
        text = os.pread(self._errors, 2_000, max(0, size - 2_000)).decode("utf-8", "replace")
        return " / ".join(text.strip().splitlines()[-2:])

    def script(self, source: str, given: bytes, limits: Allowance) -> Ended:
        """Run a program with this standard input. Raises BoxError if the box breaks, twice in a row."""
        try:
            return self._script(source, given, limits)
        except BoxError:
            self.close()
            return self._script(source, given, limits)

    def _script(self, source: str, given: bytes, limits: Allowance) -> Ended:
        out, writes_out = os.pipe()
        err, writes_err = os.pipe()
        try:
            with _memory(given) as stdin, _devnull() as nothing:
                watch = self._launch(
                    {"kind": "script", "source": source}, [stdin, writes_out, writes_err], nothing, limits
                )
        except BaseException:
            os.close(out)
            os.close(err)
            raise
        finally:
            os.close(writes_out)
            os.close(writes_err)
        with watch:
            return _collect(watch, out, err, limits)

    def calls(self, job: Mapping[str, Any], limits: Allowance) -> Calls:
        """Start a program whose functions are called, or test code that calls them. Raises BoxError."""
        self.start()
        ours, theirs = socket.socketpair()
        with theirs, _devnull() as nothing:
            try:
                watch = self._launch(job, [nothing] * 3, theirs.fileno(), limits)
            except BaseException:
                ours.close()
                raise
        return Calls(ours, watch, limits)

    def _launch(self, job: Mapping[str, Any], streams: list[int], channel: int, limits: Allowance) -> socket.socket:
        """Order a program, and return the socket of its warden."""
        self.start()
        assert self._control is not None
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        order = Order(memory=limits.memory, cpu=math.ceil(limits.total), files=limits.files, idle=limits.total)
        with theirs, _memory(json.dumps(job).encode()) as text:
            descriptors = [*streams, text, channel, theirs.fileno()]
            try:
                ours.send(TIME.pack(limits.seconds, limits.clock))
                socket.send_fds(self._control, [json.dumps(order).encode()], descriptors)
            except OSError as error:
                ours.close()
                said = self._said()
                self.close()
                raise BoxError(f"the box is gone: {error.strerror}; {said}") from error
        return ours


class Calls:
    """A program that answers requests, one at a time."""

    def __init__(self, channel: socket.socket, watch: socket.socket, limits: Allowance) -> None:
        self._channel = channel
        self._watch = watch
        self._limits = limits
        self.ended: Ended | None = None
        """How the program ended; None while it runs."""
        self.clock = 0.0
        """Seconds that its answers took so far."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the program, and wait until its warden says so."""
        if self.ended is None:
            self._stop("closed")
        self._channel.close()
        self._watch.close()

    def allow(self) -> None:
        """Allow the time of one more test."""
        with contextlib.suppress(OSError):  # it has ended
            self._watch.send(TIME.pack(self._limits.seconds, self._limits.clock))

    def send(self, message: Any) -> None:
        """Send a request."""
        data = json.dumps(message).encode()
        self._channel.settimeout(self._limits.patience)
        with contextlib.suppress(OSError):  # the program has ended, or does not read: `receive` will know
            self._channel.sendall(_LENGTH.pack(len(data)) + data)

    def receive(self) -> list[Any] | None:
        """Return the next answer, a list that begins with a text; None if the program has ended (`ended`).

        An answer that is malformed or too large ends the program. Raises BoxError if the box breaks.
        """
        begun = time.monotonic()
        try:
            return self._answer(begun + self._limits.patience)
        finally:
            self.clock += time.monotonic() - begun

    def _answer(self, over: float) -> list[Any] | None:
        data = bytearray()
        size = _LENGTH.size
        while len(data) < size:
            if self.ended is not None:
                return None
            if not _ready([self._channel, self._watch], over):
                raise BoxError("the warden of a program does not answer")
            part = self._received(size - len(data))
            if part is None:
                return None
            data += part
            if len(data) == size == _LENGTH.size:
                size += _LENGTH.unpack(data)[0]
                if size > self._limits.output:
                    self._stop("output")
                    return None
        try:
            answer = json.loads(bytes(data[_LENGTH.size :]), parse_constant=_refuse)
        except (ValueError, RecursionError):
            self._stop("malformed")
            return None
        if not isinstance(answer, list) or not answer or not isinstance(answer[0], str):
            self._stop("malformed")
            return None
        return answer

    def _received(self, most: int) -> bytes | None:
        """Return bytes of the channel; None at its end."""
        self._channel.setblocking(False)
        try:
            part = self._channel.recv(min(most, 1 << 20))
        except OSError:  # also if it would block: then the warden has something to say, and the program has ended
            part = b""
        if not part:
            self._stop("exited")
        return part or None

    def _stop(self, how: str) -> None:
        """End the program, unless it has ended, and keep the report. A reason that the warden gives goes first."""
        if how not in ("exited",):
            with contextlib.suppress(OSError):
                self._watch.send(b"end")
        self.ended = _report(self._watch, time.monotonic() + GRACE)
        if self.ended.how in ("exited", "closed"):
            self.ended.how = how
        self.ended.clock = self.clock


def _refuse(text: str) -> Any:
    raise ValueError(text)


# --- reading --------------------------------------------------------------------------------------------------------


def _collect(watch: socket.socket, out: int, err: int, limits: Allowance) -> Ended:
    """Read what a program prints until it has ended. Closes the two pipes."""
    begun = time.monotonic()
    over = begun + limits.patience
    parts: dict[int, list[bytes]] = {out: [], err: []}
    sizes = {out: 0, err: 0}
    too_much = False
    opened = [out, err]
    try:
        while opened:
            for descriptor in _ready(opened, over) or _broken():
                data = os.read(descriptor, 1 << 16)
                sizes[descriptor] += len(data)
                if not data:
                    opened.remove(descriptor)
                elif sizes[descriptor] <= (limits.output if descriptor == out else LONGEST_MESSAGE):
                    parts[descriptor].append(data)
                elif not too_much and descriptor == out:
                    too_much = True
                    watch.send(b"end")
        ended = _report(watch, over)
    finally:
        os.close(out)
        os.close(err)
    lines = b"".join(parts[err]).decode("utf-8", "replace").strip().splitlines()
    ended.clock = time.monotonic() - begun
    ended.output, ended.message = b"".join(parts[out]), lines[-1][:300] if lines else ""
    if too_much:
        ended.how = "output"
    return ended


def _broken() -> Iterator[int]:
    raise BoxError("the warden of a program does not answer")


def _ready(sources: list[Any], over: float) -> list[Any]:
    """Return those that can be read; none when time is over."""
    poll = select.poll()
    found = {source if isinstance(source, int) else source.fileno(): source for source in sources}
    for descriptor in found:
        poll.register(descriptor, select.POLLIN)
    return [found[descriptor] for descriptor, _ in poll.poll(max(0.0, over - time.monotonic()) * 1e3)]


def _report(watch: socket.socket, over: float) -> Ended:
    """Return the warden's report. Raises BoxError if it ends without one, or could not start the program."""
    if not _ready([watch], over):
        raise BoxError("the warden of a program does not answer")
    try:
        data = watch.recv(1 << 12)
    except ConnectionResetError:  # the warden has ended with time from us unread; its report stands behind the error
        data = watch.recv(1 << 12)
    if not data:
        raise BoxError("the warden of a program has died")
    report = json.loads(data)
    ended = Ended(report["ended"], report["code"], report["cpu"], report["warden"])
    if ended.how == "unconfined":
        raise BoxError("a program could not be confined")
    return ended


# --- starting -------------------------------------------------------------------------------------------------------


def _command(kind: Kind, python: Interpreter) -> list[str]:
    """Return the command that starts a zygote, without its last argument: the descriptor of the control socket."""
    place = Confinement(kind=kind, folders=[], files=[], listed=[], user=-1)
    if kind == "landlock":
        place["folders"], place["files"], place["listed"] = rules(python)
        if os.getuid() == 0 and all(map(open_to_all, (os.path.dirname(python.path), *python.libraries))):
            place["user"] = NOBODY
    # -P -s -S: no folder of ours or of packages is searched. Not -I: it would ignore PYTHONHASHSEED.
    zygote = [python.path, "-P", "-s", "-S", "-B", "-X", "utf8", "-c", _BOOTSTRAP, json.dumps(place)]
    return [*_bubblewrap(python), *zygote] if kind == "bubblewrap" else zygote


def _bubblewrap(python: Interpreter) -> list[str]:
    if any(f"{path}/".startswith("/tmp/") for path in (python.path, *python.libraries)):
        raise BoxError(f"{python.path} lies in /tmp, which a program has for itself: use another Python")
    found = shutil.which("bwrap")
    if found is None:
        raise BoxError("bubblewrap is not installed (apt-get install bubblewrap)")
    arguments = [
        found,
        "--unshare-user",
        "--unshare-all",
        "--hostname",
        "box",
        "--uid",
        str(NOBODY),
        "--gid",
        str(NOBODY),
    ]
    arguments += ["--cap-drop", "ALL", "--cap-add", "CAP_SYS_ADMIN", "--as-pid-1", "--clearenv"]
    for name, value in _environment().items():
        arguments += ["--setenv", name, value]
    arguments += binds(python)
    for device in ("null", "zero", "urandom"):
        arguments += ["--dev-bind", f"/dev/{device}", f"/dev/{device}"]
    return [*arguments, "--dir", "/tmp", "--remount-ro", "/", "--chdir", "/"]


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
    return {"PYTHONHASHSEED": "0", **kept}


@cache
def _sources() -> bytes:
    """Return the modules of the other side, as the bootstrap reads them."""
    spec = importlib.util.find_spec("rlvr.verify.landlock")
    assert spec is not None
    assert spec.origin is not None
    files = {"rlvr.verify.landlock": Path(spec.origin)}
    files |= {f"inside.{name}": Path(__file__).parent / "inside" / f"{name}.py" for name in _INSIDE}
    return json.dumps([(name, path.read_text(encoding="utf-8")) for name, path in files.items()]).encode()


@contextlib.contextmanager
def _memory(data: bytes) -> Iterator[int]:
    """Open a file in memory with this content, which nobody can change, at its beginning."""
    import fcntl

    descriptor = os.memfd_create("data", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.lseek(descriptor, 0, os.SEEK_SET)
        seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _devnull() -> Iterator[int]:
    descriptor = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
