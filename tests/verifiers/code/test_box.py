"""The sandbox with what every machine has: Landlock and seccomp. `make test-sandbox` does the same with bubblewrap."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import arena
import attacks
from rlvr.verify import landlock
from rlvr_verifiers.code.box import Allowance, Box, Ended, Kind
from rlvr_verifiers.code.errors import BoxError
from rlvr_verifiers.code.inside import seccomp
from rlvr_verifiers.code.inside.claims import decode

LIMITS = Allowance(seconds=5.0, memory=256 * 2**20, output=10_000)


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    if landlock.version() < landlock.NEEDED:
        pytest.fail("this kernel has no Landlock, so that nothing here can be tested: make test-sandbox")
    with Box("landlock") as box:
        yield box


def test_no_attack_wins(box: Box) -> None:
    with arena.arena(box) as host:
        assert [won for attack in attacks.ATTACKS for won in host.won(attack)] == []


def test_nothing_of_a_program_reaches_the_next(box: Box) -> None:
    with arena.arena(box) as host:
        assert [found for trace in attacks.TRACES for found in host.traced(trace)] == []


HARMLESS = (
    *("fork", "exec", "a secret of the host", "a file in a folder of the host", "TCP", "an abstract socket"),
    *("files in memory", "the environment"),
)


def test_attacks_win_without_a_sandbox() -> None:
    """Shows that the list can tell a sandbox from none. Attacks that would do harm are left out."""
    with arena.arena(Box("none")) as host:
        lost = [name for name in HARMLESS if not host.won(next(a for a in attacks.ATTACKS if a.name == name))]
    assert lost == []


@pytest.mark.parametrize(
    ("source", "given", "expected"),
    [
        ("print(int(input()) + int(input()))", "1\n2", "3\n"),
        ("import sys\nfor line in sys.stdin: print(line.strip()[::-1])", "ab\ncd\n", "ba\ndc\n"),
        ("import sys\nsys.stdout.buffer.write(sys.stdin.buffer.read())", "x\ny", "x\ny"),
        ("print(open(0).read())", "all", "all\n"),
        ("import os\nos.write(1, os.read(0, 9))", "raw", "raw"),
        ("print('a', end='')\nexit()", "", "a"),
        ("print('a')\nquit(0)", "", "a\n"),
        ("import sys\nprint('a')\nsys.exit()", "", "a\n"),
        ("import atexit\natexit.register(print, 'late')", "", "late\n"),
        ("import threading\nthreading.Thread(target=print, args=('thread',)).start()", "", "thread\n"),
        ("import sys, threading\nsys.setrecursionlimit(10**6)\nthreading.stack_size(2**26)\n"
         "def f(n): return n and f(n - 1) + 1\nt = threading.Thread(target=lambda: print(f(50000)))\nt.start()",
         "", "50000\n"),
        ("import asyncio\nasync def f(): return 7\nprint(asyncio.run(f()))", "", "7\n"),
        ("import sqlite3\nprint(sqlite3.connect(':memory:').execute('SELECT 3').fetchone())", "", "(3,)\n"),
        ("import tempfile, zlib, hashlib, unittest, ctypes, zoneinfo, csv\nprint('imported')", "", "imported\n"),
        ("if __name__ == '__main__': print('main')", "", "main\n"),
        ("import __main__\nx = 5\nprint(__main__.x)", "", "5\n"),
        ("from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\nprint(P(3))", "", "P(x=3)\n"),
        ("import random\nprint(random.random() == random.Random(0).random())", "", "True\n"),
        ("print({'b', 'a', 'c'} == set('abc'), hash('a') == hash('a'))", "", "True True\n"),
        ("print('é', '\\udc80'.encode('utf-8', 'surrogateescape'))", "", "é b'\\x80'\n"),
        ("from concurrent.futures import ThreadPoolExecutor\nprint(sum(ThreadPoolExecutor(4).map(abs, [-1, -2])))", "",
         "3\n"),
    ],
    ids=lambda text: text[:20],
)  # fmt: skip
def test_an_honest_program_runs_as_anywhere(box: Box, source: str, given: str, expected: str) -> None:
    ended = box.script(source, given.encode(), LIMITS)
    assert (ended.how, ended.code, ended.output.decode()) == ("exited", 0, expected), ended.message


@pytest.mark.parametrize(
    ("source", "how", "code", "message"),
    [
        ("1/0", "exited", 1, "ZeroDivisionError: division by zero"),
        ("def f(:", "exited", 1, "SyntaxError: invalid syntax (program.py, line 1)"),
        ("raise SystemExit(3)", "exited", 3, ""),
        ("raise SystemExit(99)", "exited", 99, ""),
        ("raise SystemExit('no')", "exited", 1, ""),
        ("while True: pass", "cpu", -9, ""),
        ("import time\ntime.sleep(60)", "clock", -9, ""),
        ("x = 'a' * 10**9", "exited", 1, "MemoryError"),
        ("import ctypes\nctypes.string_at(0)", "exited", -11, ""),
        ("while True: print('x' * 1000)", "output", -9, ""),
    ],
)
def test_how_a_program_ends_is_reported(box: Box, source: str, how: str, code: int, message: str) -> None:
    limits = Allowance(seconds=0.2, memory=256 * 2**20, output=10_000)
    ended = box.script(source, b"", limits)
    assert (ended.how, ended.code, ended.message) == (how, code, message)
    assert len(ended.output) <= limits.output


def test_calls_share_a_process_and_answer_with_values(box: Box) -> None:
    source = "seen = []\ndef f(x):\n    seen.append(x)\n    return seen, {len(seen): 1.5}\n"
    source += "class Solution:\n    def g(self, x): return {x}"
    with box.calls({"kind": "calls", "source": source, "prelude": False}, LIMITS) as calls:
        assert calls.receive() == ["value", None]
        for number, (name, expected) in enumerate([("f", ([1], {1: 1.5})), ("f", ([1, 1], {2: 1.5})), ("g", {1})]):
            calls.allow()
            calls.send(["call", name, ["l", [1]], ["d", []], False])
            reply = calls.receive()
            assert reply is not None, number
            assert decode(reply[1]) == expected
        calls.send(["call", "h", ["l", []], ["d", []], False])
        assert calls.receive() == ["raised", "NameError", "NameError: name 'h' is not defined"]
    assert calls.ended is not None
    assert calls.ended.how == "closed"


def test_a_box_that_was_killed_is_started_again(box: Box) -> None:
    def zygotes() -> set[int]:
        return {int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}

    others = zygotes()
    with Box("landlock") as own:
        assert own.script("print(1)", b"", LIMITS).output == b"1\n"
        (zygote,) = zygotes() - others
        os.kill(zygote, signal.SIGKILL)
        assert own.script("print(2)", b"", LIMITS).output == b"2\n"
    assert zygotes() == others


DIES = """
import sys, threading, time
from rlvr_verifiers.code.box import Box, Allowance
box = Box(sys.argv[1])
box.start()
threading.Thread(target=box.script, args=("while True: pass", b"", Allowance(seconds=200))).start()
time.sleep(0.3)
print("running", flush=True)
time.sleep(600)
"""


def below(pid: int) -> list[int]:
    """Return all descendants of a process."""
    children = [
        int(each) for task in Path(f"/proc/{pid}/task").iterdir() for each in (task / "children").read_text().split()
    ]
    return children + [each for child in children for each in below(child)]


def survivors_of_a_killed_owner(kind: str) -> list[int]:
    """Return the processes of a box that live on after its owner was killed."""
    owner = subprocess.Popen([sys.executable, "-c", DIES, kind], stdout=subprocess.PIPE)
    assert owner.stdout is not None
    assert owner.stdout.readline() == b"running\n"
    inside = below(owner.pid)
    assert len(inside) >= 3, "a zygote, a warden and a program"
    owner.kill()
    owner.wait()
    owner.stdout.close()
    for _ in range(200):
        alive = [pid for pid in inside if Path(f"/proc/{pid}").exists()]
        if not alive:
            break
        time.sleep(0.05)
    return alive


def test_a_box_ends_with_its_owner(box: Box) -> None:
    assert survivors_of_a_killed_owner("landlock") == []


def left_by_a_killed_warden(kind: Kind) -> list[int]:
    """Return the programs that live on after their warden was killed."""
    mine, depth = set(below(os.getpid())), 4 if kind == "bubblewrap" else 3
    job = {"kind": "calls", "source": "while True: pass", "prelude": False}
    with Box(kind) as box, box.calls(job, LIMITS) as calls:
        inside: list[int] = []
        while len(inside) < depth:
            inside = [pid for pid in below(os.getpid()) if pid not in mine]
        *_, warden, program = inside
        os.kill(warden, signal.SIGKILL)
        with pytest.raises(BoxError, match="the warden of a program has died"):
            calls.receive()
        calls.ended = calls.ended or Ended("closed", -9, 0.0)
        for _ in range(200):
            if not Path(f"/proc/{program}").exists():
                return []
            time.sleep(0.05)
        return [program]


def test_a_program_ends_with_its_warden(box: Box) -> None:
    assert left_by_a_killed_warden("landlock") == []


def test_other_processors_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    with pytest.raises(BoxError, match="for x86-64, and this machine is riscv64"):
        Box("landlock").start()


def test_the_filter_lists_every_call_once() -> None:
    numbers = [*seccomp.ALLOWED.values(), *(number for number, _, _ in seccomp.CHOSEN.values())]
    assert len(numbers) == len(set(numbers))
    assert len(seccomp.program(1)) // 8 < 4096, "the kernel's limit"


def test_a_python_that_is_none_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BoxError, match="is no Python that works"):
        Box("landlock", python=str(tmp_path / "python")).start()
