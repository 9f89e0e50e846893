"""Verifiers that misbehave, for the tests of the pool. The completion names the fault."""

from __future__ import annotations

import contextlib
import ctypes
import decimal
import json
import math
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from rlvr import Rollout, Status, Task, Verdict, verifier


class NotAnException(BaseException):
    """Like time-outs of some libraries, not an Exception."""


class UnprintableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def _umask() -> int:
    before = os.umask(0o77)
    os.umask(before)
    return before


DIRECTORY, RECURSION, PATH, UMASK = os.getcwd(), sys.getrecursionlimit(), list(sys.path), _umask()
DUMPS, PACKED = json.dumps, Verdict.packed


def _change_and_fail(change: Callable[[], object]) -> None:
    change()
    raise ValueError("and it does not clean up")


def _pristine() -> float:
    """Return 1.0 if the process state is the same as when this file was imported."""
    return float(
        os.getcwd() == DIRECTORY
        and decimal.getcontext().prec == 28
        and "LEAKED" not in os.environ
        and signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL
        and sys.getrecursionlimit() == RECURSION
        and sys.path == PATH
        and sys.get_int_max_str_digits() == 4300
        and json.dumps is DUMPS
        and Verdict.packed is PACKED
        and _umask() == UMASK
        and {"json", "misbehaving_neighbor"} & sys.modules.keys() == {"json"}
        and len(os.listdir("/proc/self/fd")) < 100
    )


def _replace_a_module() -> bool:
    sys.modules["json"] = sys.modules["os"]
    sys.modules["misbehaving_neighbor"] = sys.modules["os"]
    return True


def _guard() -> bool:
    """Take away what a program should not use, as HumanEval's `reliability_guard` does."""
    os.kill = shutil.rmtree = subprocess.Popen = None  # type: ignore[assignment, misc]
    json.dumps = lambda *_, **__: "[]"  # type: ignore[assignment]
    return True


def _write_cells(deed: str) -> None:
    """Write into the memory that is shared with the parent, then hang."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        if "rlvr-cells" in line:
            begin, end = (int(part, 16) for part in line.split()[0].split("-"))
            cells = (ctypes.c_double * ((end - begin) // 8)).from_address(begin)
            for place in range(0, len(cells), 512):
                if deed == "garbage":
                    cells[place : place + 4] = [math.nan] * 4
                elif deed == "future":
                    cells[place + 1] = time.monotonic() + 1e9
                else:
                    cells[place : place + 2] = [cells[place] + 1, time.monotonic()]
    _hang()


def _lower_a_limit() -> bool:
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    return True


def _leave_a_daemon_and_kill_the_zygote() -> None:
    if os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        time.sleep(600)
    subprocess.Popen(["sleep", "600"], start_new_session=True)
    time.sleep(0.1)
    _kill_the_zygote()


def _fill_scratch() -> Verdict:
    """Leave files, an inaccessible folder and a link; return the place."""
    folder = Path(tempfile.mkdtemp())
    (folder / "link").symlink_to(DIRECTORY)
    (folder / "closed" / "inner").mkdir(parents=True)
    (folder / "closed" / "inner" / "file").write_text("left")
    (folder / "closed").chmod(0)
    return Verdict(status=Status.GRADED, reward=1.0, extracted=str(folder))


def _leave_a_child() -> bool:
    subprocess.Popen(["sleep", "600"])
    return True


def _burn(seconds: float) -> bool:
    """Use this much CPU time."""
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass
    return True


def _answer(text: str, nonce: bytes = b"") -> float:
    """Write a frame into the worker's channel, whichever descriptor that is."""
    frame = nonce + text.encode()
    for fd in _open_descriptors():
        try:
            socket.socket(fileno=os.dup(fd)).send(len(frame).to_bytes(8, sys.byteorder) + frame)
        except OSError:
            continue
    return 1.0


def _forged(reward: str, count: int) -> str:
    answers = ", ".join([f'[[["graded", {reward}, null, null]], 0.0]'] * count)
    return f'{{"answers": [{answers}], "changes": [], "fresh": false}}'


def _kill_the_zygote() -> None:
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(600)


def _hang() -> None:
    while True:
        time.sleep(0.01)


def _hang_deaf() -> None:
    """Stay busy, ignoring all signals that can be ignored and swallowing every exception."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while True:
        with contextlib.suppress(BaseException):
            sum(range(1000))


def _hang_in_c() -> None:
    10 ** (10**9)  # one C call that takes no signal and holds the interpreter lock


def _open_descriptors() -> list[int]:
    return [int(fd) for fd in os.listdir("/proc/self/fd") if int(fd) > 2]


def _write_everywhere() -> float:
    for fd in _open_descriptors():
        try:
            socket.socket(fileno=os.dup(fd)).send(b"\x08\0\0\0\0\0\0\0garbage!")
        except OSError:
            continue
    return 1.0


def _close_everything() -> float:
    os.closerange(3, 4096)
    return 1.0


def _leave_an_alarm() -> bool:
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    return True


def _hog_after_answering() -> bool:
    """Answer, and leave a thread that never gives the interpreter back."""
    threading.Thread(target=lambda: 10 ** (10**9), daemon=True).start()
    return True


def _talk() -> bool:
    print("said by print")
    sys.stdout.flush()
    os.write(1, b"said to descriptor 1\n")
    subprocess.run(["echo", "said by a child"], check=True)
    return True


def _call(name: str) -> object:
    actions: dict[str, Callable[[], object]] = {
        "raise": lambda: 1 // 0,
        "raise unprintable": lambda: (_ for _ in ()).throw(UnprintableError()),
        "raise a BaseException": lambda: (_ for _ in ()).throw(NotAnException("mine")),
        "interrupt": lambda: (_ for _ in ()).throw(KeyboardInterrupt()),
        "sys.exit": lambda: sys.exit(0),
        "os._exit": lambda: os._exit(0),
        "segfault": lambda: ctypes.string_at(0),
        "abort": os.abort,
        "kill the group": lambda: os.killpg(0, signal.SIGKILL),
        "memory": lambda: len(bytearray(64 << 30)) > 0,
        "memory bit by bit": lambda: [bytearray(1 << 20) for _ in range(1 << 16)],
        "recurse": lambda: _call("recurse"),
        "hang": _hang,
        "hang deaf": _hang_deaf,
        "hang in C": _hang_in_c,
        "nan": lambda: float("nan"),
        "infinity": lambda: float("inf"),
        "huge": lambda: 10**400,
        "string": lambda: "1.0",
        "list": lambda: [1.0],
        "unvalidated": lambda: Verdict.model_construct(status="graded", reward=float("nan")),
        "write everywhere": _write_everywhere,
        "close everything": _close_everything,
        "read stdin": lambda: float(input()),
        "alarm": _leave_an_alarm,
        "hog": _hog_after_answering,
        "talk": _talk,
        "nap": lambda: time.sleep(0.2) or True,
        "pid": lambda: float(os.getpid()),
        "zygote": lambda: float(os.getppid()),
        "None": lambda: None,
        "pristine": _pristine,
        "chdir": lambda: _change_and_fail(lambda: os.chdir("/")),
        "quiet chdir": lambda: os.chdir("/") or True,
        "environment": lambda: os.environ.update(LEAKED="1") or True,
        "decimal": lambda: setattr(decimal.getcontext(), "prec", 1) or True,
        "handler": lambda: signal.signal(signal.SIGUSR1, signal.SIG_IGN) is not None,
        "umask": lambda: os.umask(0o777) >= 0,
        "import path": lambda: sys.path.insert(0, "/nowhere") is None,
        "digits": lambda: sys.set_int_max_str_digits(640) is None,
        "patched modules": _guard,
        "patched class": lambda: setattr(Verdict, "packed", lambda _: ["graded", 7.0, None, None]) is None,
        "limits": _lower_a_limit,
        "cells: garbage": lambda: _write_cells("garbage"),
        "cells: future": lambda: _write_cells("future"),
        "cells: next row": lambda: _write_cells("next row"),
        "recursion limit": lambda: sys.setrecursionlimit(200) or True,
        "module": _replace_a_module,
        "no modules": lambda: _change_and_fail(sys.modules.clear),
        "descriptor": lambda: os.open(os.devnull, os.O_RDONLY) > 0,
        "child": _leave_a_child,
        "zombie": lambda: os.spawnlp(os.P_NOWAIT, "true", "true") > 0,
        "children": lambda: float(len(Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split())),
        "draw": random.random,
        "burn 0.3": lambda: _burn(0.3),
        "burn 60": lambda: _burn(60),
        "kill the zygote": _kill_the_zygote,
        "daemon and kill the zygote": _leave_a_daemon_and_kill_the_zygote,
        "temporary file": lambda: tempfile.mkstemp()[0] > 0,
        "scratch": _fill_scratch,
        "1e300": lambda: 1e300,
        "surrogates": lambda: Verdict.model_construct(
            status=Status.GRADED, reward=1.0, extracted="\ud800 \udfff", reason="\udc80", parts=None
        ),
        "raise surrogates": lambda: _change_and_fail(lambda: (_ for _ in ()).throw(ValueError("\ud800"))),
        "long": lambda: Verdict(status="graded", reward=1.0, extracted="x" * 10**6, reason="y" * 10**6),  # type: ignore[arg-type]
        "frame: empty": lambda: _answer("[]"),
        "frame: nothing": lambda: _answer(""),
        "frame: no answers": lambda: _answer('{"answers": [], "changes": [], "fresh": true}'),
        "frame: nested": lambda: _answer("[" * 100_000),
        "frame: NaN": lambda: _answer(_forged("NaN", 1)),
        "frame: forged": lambda: _answer(_forged("7.0", 3)),
    }
    return actions[name]()


@verifier(name="misbehaving", version="1")
def check(completion: str, task: Task) -> object:
    """Do what the completion names, or else compare it with the gold answer."""
    name, _, _ = completion.partition("#")
    if name.startswith("!"):
        return _call(name[1:])
    return completion == task.answer


@verifier(name="confined", version="1", memory=256 << 20)
def confined(completion: str, task: Task) -> object:
    """Do the same, with less memory to fill."""
    return check(completion, task)


@verifier(name="counting", version="1")
def counting(completion: str, task: Task) -> bool:
    """Note every call in the file `task.extra["log"]`; hang as often as `task.extra["hangs"]` says."""
    log = Path(task.extra["log"])
    with log.open("a") as file:
        file.write(f"{completion}\n")
    time.sleep(task.extra.get("seconds", 0))
    if log.read_text().split().count(completion) <= task.extra.get("hangs", 0):
        _hang()
    return completion == task.answer


@verifier(name="forking", version="1", needs_answer=False)
def forking(completion: str, task: Task) -> float:
    """Leave a process behind, whose id goes to `task.extra["log"]`; then end as the completion says.

    The reward is the zygote's process id.
    """
    how = task.extra["how"]
    if os.fork() == 0:
        if how == "session":
            os.setsid()
        if how == "daemon":
            os.setsid()
            if os.fork():
                os._exit(0)
        with Path(task.extra["log"]).open("a") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(600)
        os._exit(0)
    while not (Path(task.extra["log"]).exists() and Path(task.extra["log"]).stat().st_size):
        time.sleep(0.001)
    if completion == "crash":
        os._exit(9)
    if completion == "hang":
        _hang()
    return float(os.getppid())


@verifier(name="watching", version="1", needs_answer=False)
def watching(completion: str, task: Task) -> bool:
    """Two rows for two workers. "crash": end the process, once the other has a daemon, and note it in a file.

    "watch": leave a daemon, wait for two crashes, and tell whether the daemon has survived them.
    """
    daemon, crashes = Path(task.extra["folder"]) / "daemon", Path(task.extra["folder"]) / "crashes"
    if completion == "crash":
        while not daemon.exists():
            time.sleep(0.001)
        with crashes.open("a") as file:
            file.write("x")
        os._exit(9)
    if os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        daemon.with_suffix(".new").write_text(str(os.getpid()))
        daemon.with_suffix(".new").rename(daemon)
        time.sleep(600)
    while not (crashes.exists() and crashes.stat().st_size == 2):
        time.sleep(0.001)
    time.sleep(0.2)  # for whoever clears up after a crash
    return "State:\tZ" not in Path(f"/proc/{daemon.read_text()}/status").read_text()


@verifier(name="sleeping", version="1", needs_answer=False)
def sleeping(completion: str, task: Task) -> float:
    """Sleep for the given seconds; the reward is the process id."""
    time.sleep(float(completion))
    return float(os.getpid())


@verifier(name="eating", version="1", needs_answer=False, memory=64 << 20)
def eating(completion: str, task: Task) -> float:
    """Allocate the given number of MiB, once."""
    return float(len(bytearray(int(completion) << 20)) >> 20)


@verifier(name="relative", version="1", takes="group", needs_answer=False, min_group=1)
def relative(rollouts: list[Rollout], *, cut: int = 0) -> list[float | None]:
    """Return length ranks within the group, without the last `cut` results."""
    if any(rollout.completion == "hang" for rollout in rollouts):
        _hang()
    lengths = sorted(len(rollout.completion or "") for rollout in rollouts)
    ranks: list[float | None] = [float(lengths.index(len(rollout.completion or ""))) for rollout in rollouts]
    return ranks[: len(ranks) - cut]
