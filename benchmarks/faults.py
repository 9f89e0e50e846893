"""Measure the cost of faults in `rlvr score`: hostile verifiers, killed processes and full disks.

    python benchmarks/faults.py                     # the whole campaign, about half an hour on two busy cores
    python benchmarks/faults.py --trials 1 --kills 2
    python benchmarks/faults.py --only hang forge   # faults whose name holds one of these words

Hostile rows: a file of innocent rows, whose verdicts are known, and some rows that make the verifier do something that
no verifier should (`tests/rlvr/misbehaving.py`), at random places. Some of the innocent rows look whether their process
is as it was when the verifier was imported. Kills: `rlvr score` is killed with SIGKILL at a random moment, and resumed
until it ends; or its zygote or a worker is killed or stopped from outside. Full disks: a small limit on the size of
files ends `rlvr score`, and it is resumed without the limit.

Every trial has its own folder for files and for temporary files. A trial is clean if every row has one verdict, every
innocent row has the right one, no process and no file is left, and the command said what happened without a traceback.
Writes `results/faults.md` beside itself.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"
VERIFIER = f"{Path(__file__).resolve().parents[1] / 'tests' / 'rlvr' / 'misbehaving.py'}:confined"
ROWS, HOSTILE = 60, 3
TIMEOUT = 1.0  # seconds per verdict
GRACE = 30.0  # seconds that processes may take to end after their command
SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER

DEEDS: Mapping[str, Sequence[str]] = {
    "raises: an exception, sys.exit, KeyboardInterrupt": (
        "raise", "raise unprintable", "raise a BaseException", "interrupt", "sys.exit", "recurse",
    ),
    "hangs: idle, deaf to signals, in C": ("hang", "hang deaf", "hang in C"),
    "computes beyond the time limit": ("burn 60",),
    "crashes: os._exit, SIGSEGV, abort, kills its group": ("os._exit", "segfault", "abort", "kill the group"),
    "exhausts memory, at once and bit by bit": ("memory", "memory bit by bit"),
    "returns no reward: NaN, infinity, 10**400, text, a list": (
        "nan", "infinity", "huge", "string", "list", "unvalidated",
    ),
    "returns a reward of 1e300": ("1e300",),
    "changes the directory": ("chdir", "quiet chdir"),
    "changes the environment": ("environment",),
    "changes decimal context, signal handlers, recursion limit": ("decimal", "handler", "recursion limit", "alarm"),
    "changes umask, import path, limit of digits": ("umask", "import path", "digits"),
    "replaces modules, or clears the table of modules": ("module", "no modules"),
    "patches modules and classes, rlvr's among them": ("patched modules", "patched class"),
    "lowers a resource limit": ("limits",),
    "leaks descriptors": ("descriptor",),
    "closes all descriptors, or writes into them": ("close everything", "write everywhere"),
    "leaves children: running and dead": ("child", "zombie"),
    "leaves a thread that never gives the interpreter back": ("hog",),
    "leaves temporary files": ("temporary file",),
    "prints to standard output": ("talk",),
    "forges or garbles its worker's answers": (
        "frame: empty", "frame: nothing", "frame: no answers", "frame: nested", "frame: NaN", "frame: forged",
    ),
    "writes into the memory that is shared with the parent": ("cells: garbage", "cells: future", "cells: next row"),
    "says what UTF-8 cannot hold": ("surrogates", "raise surrogates"),
    "says a megabyte a row": ("long",),
    "kills the zygote, also with daemons left": ("kill the zygote", "daemon and kill the zygote"),
}  # fmt: skip


@dataclass
class Tally:
    """Counts over the trials of one fault."""

    tried: int = 0
    clean: int = 0
    lost: int = 0
    changed: int = 0
    processes: int = 0
    files: int = 0
    problems: list[str] = field(default_factory=list)

    def add(self, trial: Tally) -> None:
        """Add the counts of one trial."""
        self.tried += 1
        self.lost += trial.lost
        self.changed += trial.changed
        self.processes += trial.processes
        self.files += trial.files
        self.problems += trial.problems
        self.clean += not (trial.lost or trial.changed or trial.processes or trial.files or trial.problems)


# --- rows -----------------------------------------------------------------------------------------------------------


def innocent(count: int) -> list[dict[str, Any]]:
    """Return rows with a known reward: `expected`. Every fourth checks the state of its process."""
    rows = []
    for place in range(count):
        right = place % 2 == 0
        completion = f"!pristine#{place}" if place % 4 == 0 else str(place)
        rows.append({"completion": completion, "answer": str(place if right else -1), "expected": float(right)})
    return rows


def mixed(deed: str, chance: random.Random, count: int = ROWS) -> list[dict[str, Any]]:
    """Return innocent rows, and hostile rows at random places."""
    rows = innocent(count)
    for place in range(HOSTILE):
        row = {"completion": f"!{deed}#{place}", "answer": "1", "expected": None}
        rows.insert(chance.randint(0, len(rows)), row)
    return [{"id": str(place), **row} for place, row in enumerate(rows)]


# --- one run of rlvr score ------------------------------------------------------------------------------------------


class Place:
    """A folder for the files of a trial, and one for its temporary files."""

    def __init__(self, folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
        self.rows = rows
        self.folder, self.temporary = folder / "files", folder / "tmp"
        self.folder.mkdir()
        self.temporary.mkdir()
        self.source, self.out = self.folder / "rows.jsonl", self.folder / "out.jsonl"
        self.log = folder / "log"  # no pipe: that would wait for all processes that hold its end
        self.source.write_text("".join(json.dumps(row) + "\n" for row in rows))

    @property
    def done(self) -> bool:
        """Whether the output is complete, and the journal gone."""
        return self.out.exists() and not any(self.folder.glob(".*.journal"))

    def start(self, limit: int | None = None) -> subprocess.Popen[bytes]:
        """Start `rlvr score`; no file may grow beyond `limit` bytes."""

        def confine() -> None:
            if limit is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        command = [sys.executable, "-m", "rlvr", "score", str(self.source), "--out", str(self.out)]
        command += ["--verifier", VERIFIER, "--workers", "2", "--timeout", str(TIMEOUT), "--max-error-rate", "1"]
        with self.log.open("wb") as log:
            return subprocess.Popen(
                command, stdout=log, stderr=log, env={**os.environ, "TMPDIR": str(self.temporary)}, preexec_fn=confine
            )

    def finish(self, process: subprocess.Popen[bytes], tally: Tally, *, may_fail: bool = False) -> str:
        """Wait for a command to end and note if it fails, though it should not, or shows a traceback."""
        try:
            process.wait(600)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            tally.problems.append("rlvr score hung")
        said = self.log.read_text(encoding="utf-8", errors="replace")
        if process.returncode > 0 and not may_fail:
            tally.problems.append(f"exit code {process.returncode}: {said[-300:]}")
        if "Traceback" in said:
            tally.problems.append(f"a traceback: {said[-600:]}")
        return said

    def judge(self, tally: Tally) -> Tally:
        """Count what is missing, wrong or left over."""
        found: dict[str, list[Any]] = {}
        for line in self.out.read_text(encoding="utf-8").splitlines() if self.out.exists() else ():
            row = json.loads(line)
            found.setdefault(row["id"], []).append(row["scores"])
        for row in self.rows:
            scores = found.get(row["id"], [])
            if len(scores) != 1 or len(scores[0]) != 1:
                tally.lost += 1
            elif row["expected"] is not None and scores[0][0]["reward"] != row["expected"]:
                tally.changed += 1
        tally.processes += len(ended_or_left())
        left = [path for path in self.folder.iterdir() if path not in (self.source, self.out)]
        tally.files += len(left) + sum(1 for _ in self.temporary.iterdir())
        return tally


def children() -> list[int]:
    """Return this process's children. Orphans of its descendants are among them: it is a subreaper."""
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


def ended_or_left() -> list[int]:
    """Wait for all children to end, kill those that do not, and return them."""
    deadline = time.monotonic() + GRACE
    while (left := children()) and time.monotonic() < deadline:
        try:
            os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            break
        time.sleep(0.01)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return left


def below(pid: int) -> list[int]:
    """Return the processes below one."""
    found: list[int] = []
    waiting = [pid]
    while waiting:
        for task in Path(f"/proc/{waiting.pop()}/task").glob("*/children"):
            try:
                more = [int(child) for child in task.read_text().split()]
            except OSError:
                continue
            found += more
            waiting += more
    return found


# --- faults ---------------------------------------------------------------------------------------------------------

Trial = Callable[[Path, random.Random], Tally]


def hostile(deeds: Sequence[str], turn: int) -> Trial:
    """Return a trial with hostile rows that do the deeds in turn."""

    def trial(folder: Path, chance: random.Random) -> Tally:
        place, tally = Place(folder, mixed(deeds[turn % len(deeds)], chance)), Tally()
        place.finish(place.start(), tally)
        return place.judge(tally)

    return trial


def killed(folder: Path, chance: random.Random) -> Tally:
    """Kill `rlvr score` at a random moment, resume it, perhaps kill it again, until it ends."""
    place, tally = Place(folder, mixed("os._exit", chance, count=3000)), Tally()
    for _ in range(chance.choice([1, 1, 2])):
        if place.done:  # it was quicker than the kill
            break
        process = place.start()
        try:
            process.wait(chance.uniform(0.2, 4.0))
        except subprocess.TimeoutExpired:
            process.kill()
        place.finish(process, tally)
        tally.processes += len(ended_or_left())
    if not place.done:
        place.finish(place.start(), tally)
    return place.judge(tally)


def signaled(number: signal.Signals, which: int) -> Trial:
    """Return a trial that sends a signal to the zygote (which: 0), or to a worker (1), while rows are verified."""

    def trial(folder: Path, chance: random.Random) -> Tally:
        place, tally = Place(folder, mixed("nap", chance, count=4000)), Tally()
        process = place.start()
        while process.poll() is None and len(pids := below(process.pid)) < 3:
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.3))
        if process.poll() is None:
            try:
                os.kill(pids[which], number)
            except ProcessLookupError:
                tally.problems.append("the process had ended before the signal")
        place.finish(process, tally)
        return place.judge(tally)

    return trial


def stopped_and_killed(folder: Path, chance: random.Random) -> Tally:
    """Stop the zygote, kill `rlvr score`, and resume it."""
    place, tally = Place(folder, mixed("hang", chance)), Tally()
    process = place.start()
    while process.poll() is None and len(pids := below(process.pid)) < 3:
        time.sleep(0.002)
    os.kill(pids[0], signal.SIGSTOP)
    process.kill()
    place.finish(process, tally)
    tally.processes += len(ended_or_left())
    place.finish(place.start(), tally)
    return place.judge(tally)


def full_disk(folder: Path, chance: random.Random) -> Tally:
    """Let no file grow beyond a random size, then resume without that limit."""
    place, tally = Place(folder, mixed("raise", chance, count=3000)), Tally()
    said = place.finish(place.start(limit=chance.randint(1 << 10, 400 << 10)), tally, may_fail=True)
    if not place.out.exists():
        if "rlvr: " not in said:
            tally.problems.append(f"no message: {said[-300:]}")
        place.finish(place.start(), tally)
    return place.judge(tally)


OUTSIDE: Mapping[str, Trial] = {
    "`rlvr score` is killed and resumed": killed,
    "the zygote is stopped and `rlvr score` is killed": stopped_and_killed,
    "the zygote is killed": signaled(signal.SIGKILL, 0),
    "the zygote is stopped": signaled(signal.SIGSTOP, 0),
    "a worker is killed": signaled(signal.SIGKILL, 1),
    "a worker is stopped": signaled(signal.SIGSTOP, 1),
    "the disk is full": full_disk,
}


def campaign(trials: int, kills: int, words: Sequence[str]) -> Iterator[tuple[str, list[Trial]]]:
    """Yield every fault with its trials; with `words`, those whose name holds one of them."""
    faults = {
        f"the verifier {name}": [hostile(deeds, turn) for turn in range(max(trials, len(deeds)))]
        for name, deeds in DEEDS.items()
    }
    faults |= {name: [trial] * kills for name, trial in OUTSIDE.items()}
    for name, each in faults.items():
        if not words or any(word in name for word in words):
            yield name, each


def table(tallies: Mapping[str, Tally], command: str) -> str:
    """Return the results as Markdown."""
    lines = ["# Faults", "", f"`{command}` on {os.cpu_count()} cores ({platform.machine()}), Python "]
    lines[-1] += f"{platform.python_version()}. A hostile verifier's file has {ROWS} innocent rows and {HOSTILE} that "
    lines[-1] += "do what the first column says; the others have 3,000 or 4,000 innocent rows."
    lines += ["", "| fault | tried | clean | rows lost | verdicts changed | processes left | files left |"]
    lines += ["|---|---:|---:|---:|---:|---:|---:|"]
    every = Tally()
    for name, tally in tallies.items():
        lines.append(line(name, tally))
        for count in ("tried", "clean", "lost", "changed", "processes", "files"):
            setattr(every, count, getattr(every, count) + getattr(tally, count))
    return "\n".join([*lines, line("**all**", every), ""])


def line(name: str, tally: Tally) -> str:
    """Return one line of the table."""
    counts = (tally.tried, tally.clean, tally.lost, tally.changed, tally.processes, tally.files)
    return f"| {name} | {' | '.join(map(str, counts))} |"


def main() -> None:
    """Run the campaign; print the table. The exit code is 1 if a fault cost anything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=3, help="of each kind of hostile verifier, at least")
    parser.add_argument("--kills", type=int, default=10, help="of each fault from outside")
    parser.add_argument("--only", nargs="+", default=[], metavar="WORD", help="faults whose name holds a word")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if sys.platform != "linux":
        raise SystemExit("faults.py needs Linux: it finds processes that are left through /proc")
    ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)
    chance = random.Random(arguments.seed)
    tallies: dict[str, Tally] = {}
    for name, trials in campaign(arguments.trials, arguments.kills, arguments.only):
        tally = tallies[name] = Tally()
        for trial in trials:
            with tempfile.TemporaryDirectory() as folder:
                tally.add(trial(Path(folder), chance))
        print(line(name, tally), *tally.problems, sep="\n    ", flush=True)
    text = table(tallies, f"python benchmarks/faults.py --trials {arguments.trials} --kills {arguments.kills}")
    print(text)
    if not arguments.only:
        (RESULTS / "faults.md").write_text(text, encoding="utf-8")
    if any(tally.clean < tally.tried for tally in tallies.values()):
        raise SystemExit("a fault cost something")


if __name__ == "__main__":
    main()
