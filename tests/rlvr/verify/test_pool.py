"""The pool against verifiers that really hang, crash, fork and eat memory."""

from __future__ import annotations

import asyncio
import errno
import itertools
import json
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from enum import IntEnum
from pathlib import Path
from queue import SimpleQueue
from types import ModuleType
from typing import Any

import pytest

from rlvr.errors import ConfigError, PluginError, RunError
from rlvr.record.item import Item
from rlvr.record.schema import Status, Task, Verdict
from rlvr.verify import zygote
from rlvr.verify.pool import Pool
from rlvr.verify.scoring import IN_FLIGHT_UNITS, Scorer
from rlvr.verify.verifying import load_verifier
from rlvr.verify.worker import Worker

MISBEHAVING = str(Path(__file__).parents[1] / "misbehaving.py")
MEMORY = 64 << 20  # bytes
GENEROUS = 60.0  # seconds: for tests without time-outs
TIMEOUT = 1.0  # seconds that a row which hangs is waited for: a thousand times what its neighbors need


def ref(name: str = "check") -> str:
    return f"{MISBEHAVING}:{name}"


def item(completion: str | None, answer: str | None = "1", **extra: Any) -> Item:
    return Item(completion, Task(answer=answer, extra=extra))


def judged(pool: Pool, *completions: str) -> list[Verdict]:
    """Return the verdicts of a pool with the given arguments."""
    call = pool.call()
    units = [call.submit(pickle.dumps([(completion, Task(answer="1"), None)])) for completion in completions]
    return [call.wait(unit).verdicts[0] for unit in units]


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def wait_until_dead(*pids: int) -> None:
    while any(map(alive, pids)):  # pytest ends a test that hangs
        time.sleep(0.01)


def run_script(path: Path, source: str, cwd: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    path.write_text(textwrap.dedent(source))
    return subprocess.run([sys.executable, str(path)], cwd=cwd, capture_output=True, text=True, check=False, **options)


@pytest.fixture(scope="module")
def scorer() -> Iterator[Scorer]:
    """Scorer with one worker, so that all rows of a test share it."""
    with Scorer(ref(), workers=1, timeout=GENEROUS, memory=MEMORY) as scorer:
        yield scorer


@pytest.fixture(scope="module")
def hasty() -> Iterator[Scorer]:
    """Scorer for rows that hang."""
    with Scorer(ref(), workers=1, timeout=TIMEOUT, memory=MEMORY) as scorer:
        yield scorer


DEEDS = [
    ("raise", Status.ERROR, "ZeroDivisionError: integer division or modulo by zero (misbehaving.py:"),
    ("raise unprintable", Status.ERROR, "UnprintableError: <exception str() failed>"),
    ("raise a BaseException", Status.ERROR, "NotAnException: mine"),
    ("interrupt", Status.ERROR, "KeyboardInterrupt"),
    ("sys.exit", Status.ERROR, "SystemExit: 0"),
    ("os._exit", Status.ERROR, "ended itself with exit code 0"),
    ("segfault", Status.ERROR, "killed by SIGSEGV"),
    ("abort", Status.ERROR, "killed by SIGABRT"),
    ("kill the group", Status.ERROR, "killed by SIGKILL"),
    ("memory", Status.ERROR, "out of memory: a worker may take 0.0625 GiB"),
    ("memory bit by bit", Status.ERROR, "out of memory: a worker may take 0.0625 GiB"),
    ("recurse", Status.ERROR, "RecursionError"),
    ("hang", Status.TIMEOUT, "not done after 1 s"),
    ("hang deaf", Status.TIMEOUT, "not done after 1 s"),
    ("hang in C", Status.TIMEOUT, "not done after 1 s"),
    ("nan", Status.ERROR, "returned float nan: a reward is a finite number"),
    ("infinity", Status.ERROR, "returned float inf: a reward is a finite number"),
    ("huge", Status.ERROR, "a reward is a finite number"),
    ("string", Status.ERROR, "returned str '1.0': expected"),
    ("list", Status.ERROR, "returned list [1.0]: expected"),
    ("unvalidated", Status.ERROR, "ValidationError"),
    ("write everywhere", Status.ERROR, "wrote into its worker's channel"),
    ("close everything", Status.ERROR, "the worker died"),
    ("read stdin", Status.ERROR, "EOFError"),
    ("None", Status.ABSTAINED, None),
]


@pytest.mark.parametrize(("deed", "status", "reason"), DEEDS, ids=[deed for deed, _, _ in DEEDS])
def test_a_misdeed_costs_one_verdict(
    request: pytest.FixtureRequest, deed: str, status: Status, reason: str | None
) -> None:
    scorer: Scorer = request.getfixturevalue("hasty" if status is Status.TIMEOUT else "scorer")
    items = [item(str(i % 2)) for i in range(40)]
    items[23] = item(f"!{deed}")
    scores = list(scorer.score(items))
    assert scores[23].status is status
    assert scores[23].reward is None
    if reason is None:
        assert scores[23].reason is None
    else:
        assert reason in (scores[23].reason or "")
    del scores[23]
    del items[23]
    assert [score.reward for score in scores] == [float(item.completion == "1") for item in items]


def test_several_misdeeds_side_by_side() -> None:
    deeds = [deed for deed in DEEDS if not deed[0].startswith("hang")]
    items = [item(text) for deed, _, _ in deeds for text in ("1", f"!{deed}", "0")]
    with Scorer(ref(), workers=3, timeout=GENEROUS, memory=MEMORY) as scorer:
        scores = list(scorer.score(items))
    assert [score.status for score in scores[1::3]] == [status for _, status, _ in deeds]
    assert [score.reward for score in scores[0::3]] == [1.0] * len(deeds)
    assert [score.reward for score in scores[2::3]] == [0.0] * len(deeds)


def test_what_a_row_leaves_running_is_not_its_neighbors(hasty: Scorer) -> None:
    """A pending alarm would interrupt a later row, and a thread that blocks the interpreter would hang it."""
    assert [score.reward for score in hasty.score([item("!alarm"), item("!nap")])] == [1.0, 1.0]
    hogged = list(hasty.score([item("0"), item("!hog"), item("1")]))
    assert [hogged[0].reward, hogged[2].reward] == [0.0, 1.0]


def test_statuses_that_need_no_call(scorer: Scorer) -> None:
    scores = list(scorer.score([item(None), item("!hang", answer=None), item(" \n")]))
    assert [score.status for score in scores] == [Status.INVALID, Status.INVALID, Status.UNPARSED]


def test_a_hang_is_tried_twice_and_then_remembered(tmp_path: Path) -> None:
    log = tmp_path / "log"
    hang, fine = item("hang", log=str(log), hangs=99), item("1", log=str(log))
    with Scorer(ref("counting"), workers=1, timeout=TIMEOUT) as scorer:
        first = list(scorer.score([fine, hang, hang, fine]))
        assert [score.status.value for score in first] == ["graded", "timeout", "timeout", "graded"]
        assert first[1].seconds is not None
        assert first[1].seconds >= TIMEOUT
        called = log.read_text().split().count("hang")
        again = next(scorer.score([hang]))
        assert (again.status, again.seconds) == (Status.TIMEOUT, 0.0)
        assert log.read_text().split().count("hang") == called
    assert called in (2, 3)  # the second row was under way when the first was given up, or it was not


def test_a_hang_that_does_not_come_back_is_forgiven(tmp_path: Path) -> None:
    with Scorer(ref("counting"), workers=1, timeout=TIMEOUT) as scorer:
        score = next(scorer.score([item("1", log=str(tmp_path / "log"), hangs=1)]))
    assert score.reward == 1.0


def test_a_worker_hands_back_what_it_has_not_got_to() -> None:
    """So a hang or a crash late in a batch costs little of the work before it, and slow rows find other workers."""
    ours, theirs = socket.socketpair()
    with ours, theirs, ThreadPoolExecutor(1) as thread:
        units = [(1, pickle.dumps([("0.03", Task(), None)])) for _ in range(10)]
        nonce = bytes(range(zygote.NONCE_BYTES))
        zygote.send_frame(ours, pickle.dumps((nonce, units)))
        cells = memoryview(bytearray(32)).cast("d")
        ended = thread.submit(Worker(cells, load_verifier(ref("sleeping"))).serve, theirs)
        frame = zygote.receive_frame(ours) or b""
        assert frame.startswith(nonce)
        answers = json.loads(frame.removeprefix(nonce))["answers"]
        ours.shutdown(socket.SHUT_WR)
        ended.result()
    assert 1 <= len(answers) <= 2
    assert cells[0] == len(answers) - 1


@pytest.mark.parametrize("end", ["hang", "crash", "close", "kill the zygote"])
def test_nothing_that_a_verifier_forks_outlives_its_worker(tmp_path: Path, end: str) -> None:
    """Tested for a process in the same group, in a session of its own, and a daemon."""
    logs = [tmp_path / how for how in ("group", "session", "daemon")]
    with Scorer(ref("forking"), workers=1, timeout=TIMEOUT) as scorer:
        scores = list(scorer.score(item(end, how=log.name, log=str(log)) for log in logs))
        expected = {"hang": Status.TIMEOUT, "crash": Status.ERROR}.get(end, Status.GRADED)
        assert [score.status for score in scores] == [expected] * 3
        left = [int(pid) for log in logs for pid in log.read_text().split()]
        assert len(left) >= 3
        if expected is Status.GRADED:
            assert all(map(alive, left))
            if end == "close":
                scorer.close()
            else:
                zygote = int(scores[0].reward or 0)
                os.kill(zygote, signal.SIGKILL)
                wait_until_dead(zygote, *left)
        assert not any(map(alive, left))


def test_a_zygote_that_is_asked_to_end_lets_the_caller_finish() -> None:
    """A service manager or a scheduler asks all processes at once."""
    with Scorer(ref(), workers=1, timeout=GENEROUS) as scorer:
        zygote = int(next(scorer.score([item("!zygote")])).reward or 0)
        os.kill(zygote, signal.SIGTERM)
        assert [score.reward for score in scorer.score([item("1"), item("!zygote")])] == [1.0, float(zygote)]


@pytest.mark.parametrize("deed", ["cells: garbage", "cells: future", "cells: next row"])
def test_a_worker_s_shared_memory_is_not_trusted(deed: str) -> None:
    """The deed hangs after it has written there. Its row times out, and nobody else's does."""
    with Scorer(ref(), workers=2, timeout=TIMEOUT) as scorer:
        found = result_of(scorer, *[item(f"!{deed}") if place == 9 else item("1") for place in range(40)])
    assert [score.reward for score in found] == [None if place == 9 else 1.0 for place in range(40)]
    assert found[9].status is Status.TIMEOUT


def test_a_crash_leaves_the_neighbors_daemons_alone(tmp_path: Path) -> None:
    with Scorer(ref("watching"), workers=2, timeout=60) as scorer:
        watch, crash = scorer.score(item(what, folder=str(tmp_path)) for what in ("watch", "crash"))
        assert crash.status is Status.ERROR
        assert watch.reward == 1.0
    assert not alive(int((tmp_path / "daemon").read_text()))


def test_killing_the_caller_ends_everything(tmp_path: Path) -> None:
    script = tmp_path / "caller.py"
    script.write_text(
        textwrap.dedent(
            f"""
            from rlvr.record.schema import Task
            from rlvr.verify.scoring import Scorer
            from rlvr.record.item import Item

            scorer = Scorer({ref("forking")!r}, workers=2, timeout=600)
            zygote = Scorer({ref()!r}, workers=1)
            pids = [next(zygote.score([Item(what, Task(answer=""))])).reward for what in ("!pid", "!zygote")]
            print(*map(int, pids), flush=True)
            rows = [Item("hang", Task(extra={{"how": how, "log": {str(tmp_path)!r} + "/" + how}}))
                    for how in ("group", "daemon")]
            list(scorer.score(rows))
            """
        )
    )
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as caller:
        assert caller.stdout is not None
        pids = [int(pid) for pid in caller.stdout.readline().split()]
        assert len(pids) == 2
        logs = [tmp_path / "group", tmp_path / "daemon"]
        while not all(log.exists() and log.read_text().strip() for log in logs):
            assert caller.poll() is None
            time.sleep(0.01)
        pids += [int(log.read_text()) for log in logs]
        assert all(map(alive, pids))
        caller.kill()
    wait_until_dead(*pids)


def test_closing_ends_the_processes() -> None:
    with Scorer(ref(), workers=1) as scorer:
        pids = [int(score.reward or 0) for score in scorer.score([item("!pid"), item("!zygote")])]
        assert all(map(alive, pids))
    assert not any(map(alive, pids))
    with pytest.raises(RunError, match="closed"):
        next(scorer.score([item("1")]))


def test_a_scorer_that_is_dropped_ends_its_processes() -> None:
    scorer = Scorer(ref(), workers=1)
    pids = [int(score.reward or 0) for score in scorer.score([item("!pid"), item("!zygote")])]
    del scorer
    wait_until_dead(*pids)


def test_closing_wakes_who_waits() -> None:
    scorer = Scorer(ref(), workers=1, timeout=600)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(list, scorer.score([item("!hang")]))
        time.sleep(0.1)
        scorer.close()
        with pytest.raises(RunError, match="closed"):
            waiting.result()


def test_a_lost_zygote_is_replaced() -> None:
    with Scorer(ref(), workers=1, timeout=600) as scorer:
        zygote, worker = (int(score.reward or 0) for score in scorer.score([item("!zygote"), item("!pid")]))
        os.kill(zygote, signal.SIGKILL)
        wait_until_dead(zygote, worker)
        found = result_of(scorer, item("1"), item("!zygote"), item("0"))
    assert [score.reward == expected for score, expected in zip(found, (1.0, zygote, 0.0), strict=True)] == [
        True, False, True
    ]  # fmt: skip


def test_a_row_that_kills_the_zygote_costs_itself(scorer: Scorer) -> None:
    found = result_of(scorer, item("1"), item("!kill the zygote"), item("0"))
    assert [score.reward for score in found] == [1.0, None, 0.0]
    assert found[1].status is Status.ERROR
    assert "the process that forks the verifier's workers is gone: killed by SIGKILL" in (found[1].reason or "")


def test_rows_that_kill_the_zygote_cost_themselves_alone() -> None:
    deeds = [f"!kill the zygote#{place}" if place % 4 == 1 else f"!nap#{place}" for place in range(12)]
    with Scorer(ref(), workers=2, timeout=600) as scorer:
        found = list(scorer.score(map(item, deeds)))
    expected = [Status.ERROR if deed.startswith("!kill") else Status.GRADED for deed in deeds]
    assert [score.status for score in found] == expected


def test_a_stopped_zygote_is_replaced() -> None:
    pool = Pool(ref(), {}, workers=1, timeout=TIMEOUT, end_grace=0.2)
    with closing(pool):
        (verdict,) = judged(pool, "!zygote")
        zygote = int(verdict.reward or 0)
        os.kill(zygote, signal.SIGSTOP)
        found = judged(pool, "!hang", "1")
        assert not alive(zygote)
    assert [verdict.status for verdict in found] == [Status.TIMEOUT, Status.GRADED]


def test_a_zygote_that_is_lost_again_and_again_is_an_error(tmp_path: Path) -> None:
    """The zygote ends at every fork; the marker lets the verifier load each time."""
    (tmp_path / "mortal.py").write_text(
        "import os\nos.register_at_fork(before=lambda: os._exit(3))\ndef check(completion, task): return True\n"
    )
    with Scorer(f"{tmp_path / 'mortal.py'}:check", workers=1) as scorer:
        error = result_of(scorer, item("1"))
    assert "exit code 3; it was lost 3 times in a row, before any row was verified" in str(error)


def test_a_verifier_that_was_changed_is_not_loaded_in_a_lost_ones_place(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("import os\ndef check(completion, task): return float(os.getppid())\n")
    with Scorer(f"{file}:check", workers=1) as scorer:
        zygote = int(next(scorer.score([item("1")])).reward or 0)
        file.write_text("def check(completion, task): return 0.5\n")
        os.kill(zygote, signal.SIGKILL)
        wait_until_dead(zygote)
        error = result_of(scorer, item("2"))
    assert "was changed while it was in use" in str(error)


def test_a_zygote_that_is_killed_while_it_replaces_another_is_replaced_too(tmp_path: Path) -> None:
    (tmp_path / "killed.py").write_text(
        "import os, signal\nfrom pathlib import Path\n"
        "log = Path(__file__).with_name('log')\n"
        "with log.open('a') as file: file.write('x')\n"
        "if 1 < len(log.read_text()) < 4: os.kill(os.getpid(), signal.SIGKILL)\n"
        "def check(completion, task):\n"
        "    if completion == 'kill': os.kill(os.getppid(), signal.SIGKILL); signal.pause()\n"
        "    return True\n"
    )
    with Scorer(f"{tmp_path / 'killed.py'}:check", workers=1, timeout=GENEROUS) as scorer:
        found = result_of(scorer, item("kill"), item("1"))
    assert [score.reward for score in found] == [None, 1.0]
    assert (tmp_path / "log").read_text() == "xxxxx", "at first, three times for the first loss, once for the second"


def test_a_verifier_that_hangs_while_it_is_loaded_times_out(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text("import time\ntime.sleep(600)\ndef check(completion, task): return True\n")
    with pytest.raises(PluginError, match=r"slow.py:check' was not loaded after 0.5 s: its import or preload hangs"):
        Scorer(f"{tmp_path / 'slow.py'}:check", workers=1, load_timeout=0.5)


def test_a_verifier_that_hangs_while_it_is_loaded_ends_with_the_caller(tmp_path: Path) -> None:
    log = tmp_path / "pid"
    (tmp_path / "slow.py").write_text(
        f"import os, time\nopen({str(log)!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)\n"
    )
    script = f"from rlvr.verify.scoring import Scorer\nScorer({str(tmp_path / 'slow.py')!r} + ':check', workers=1)\n"
    with subprocess.Popen([sys.executable, "-c", script]) as caller:
        while not (log.exists() and log.read_text()):
            assert caller.poll() is None
            time.sleep(0.01)
        caller.kill()
    wait_until_dead(int(log.read_text()))


def test_a_stopped_zygote_ends_with_the_caller(tmp_path: Path) -> None:
    script = (
        "from rlvr.record.item import Item\nfrom rlvr.record.schema import Task\n"
        "from rlvr.verify.scoring import Scorer\n"
        f"scorer = Scorer({ref()!r}, workers=1, timeout=600)\n"
        "pids = [next(scorer.score([Item(what, Task(answer='1'))])).reward for what in ('!zygote', '!pid')]\n"
        "print(*map(int, pids), flush=True)\ninput()\n"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as caller:
        assert caller.stdout is not None
        zygote, worker = map(int, caller.stdout.readline().split())
        os.kill(worker, signal.SIGSTOP)
        os.kill(zygote, signal.SIGSTOP)
        caller.kill()
    wait_until_dead(zygote, worker)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("end", ["close", "crash", "kill the zygote"])
def test_what_a_worker_leaves_in_its_scratch_folder_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with Scorer(ref(), workers=1, timeout=600) as scorer:
        left, again = scorer.score([item("!scratch#1"), item("!scratch#2")])
        scratch = Path(left.extracted or "").parent
        assert scratch.parent.parent == tmp_path
        assert Path(again.extracted or "").parent == scratch
        assert (scratch / Path(left.extracted or "").name / "closed").is_dir()
        if end != "close":
            list(scorer.score([item("!os._exit" if end == "crash" else f"!{end}")]))
            assert not Path(left.extracted or "").exists()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_for_scratch_folders_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    with pytest.raises(RunError, match=r"cannot make a folder for the temporary files of workers: .*TMPDIR"):
        Scorer(ref(), workers=1)


def result_of(scorer: Scorer, *items: Item) -> Any:
    """Return the result of scoring in a thread, so that endless scoring fails the test instead of blocking it."""
    results: SimpleQueue[Any] = SimpleQueue()

    def score() -> None:
        try:
            results.put(list(scorer.score(items)))
        except RunError as error:
            results.put(error)

    threading.Thread(target=score, daemon=True).start()
    return results.get()


def test_workers_that_die_before_their_first_row_are_an_error_and_not_a_hang(tmp_path: Path) -> None:
    (tmp_path / "stillborn.py").write_text(
        "import os\nos.register_at_fork(after_in_child=lambda: os._exit(7))\ndef check(completion, task): return True\n"
    )
    with Scorer(f"{tmp_path / 'stillborn.py'}:check", workers=1) as scorer:
        error = result_of(scorer, item("1"))
    assert str(error) == "3 workers in a row died before their first row; the last: it ended itself with exit code 7"


def test_a_process_that_may_open_no_more_files_gets_an_error_and_no_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left() -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    with Scorer(ref(), workers=1) as scorer:
        monkeypatch.setattr("rlvr.verify.workers.socket.socketpair", none_left)
        error = result_of(scorer, item("1"))
    assert str(error) == "cannot start a worker for the verifier: Too many open files"


def test_workers_are_replaced_after_so_many_units() -> None:
    with closing(Pool(ref(), {}, workers=1, timeout=GENEROUS, batch_units=5, recycle_after=10)) as pool:
        pids = [verdict.reward for verdict in judged(pool, *(f"!pid#{i}" for i in range(60)))]
    changes = [i for i, (a, b) in enumerate(itertools.pairwise(pids)) if a != b]
    assert len(changes) >= 3
    assert len(set(pids)) == len(changes) + 1


def test_work_is_shared_and_order_kept() -> None:
    seconds = [0.001 * (i % 7) for i in range(60)]
    with Scorer(ref("sleeping"), workers=3) as scorer:
        scores = list(scorer.score(item(str(s)) for s in seconds))
    assert len({score.reward for score in scores}) == 3
    for slept, score in zip(seconds, scores, strict=True):
        assert score.seconds is not None
        assert score.seconds >= slept


def test_memory_is_counted_from_after_the_import() -> None:
    with Scorer(ref("eating"), workers=1) as scorer:
        fits, not_ = scorer.score([item("50"), item("200")])
    assert fits.reward == 50
    assert "a worker may take 0.0625 GiB" in (not_.reason or "")
    with Scorer(ref("eating"), workers=1, memory=1 << 30) as scorer:
        assert next(scorer.score([item("200")])).reward == 200


def test_threads_share_a_scorer() -> None:
    with Scorer(ref(), workers=2) as scorer, ThreadPoolExecutor(4) as threads:

        def rewards(seed: int) -> list[float | None]:
            return [score.reward for score in scorer.score(item(str((i * seed) % 3)) for i in range(300))]

        for seed, result in enumerate(threads.map(rewards, range(8))):
            assert result == [float((i * seed) % 3 == 1) for i in range(300)]


def test_asynchronous_code_scores_in_threads() -> None:
    async def main(scorer: Scorer) -> list[list[float | None]]:
        def rewards(text: str) -> list[float | None]:
            return [score.reward for score in scorer.score([item(text)] * 10)]

        return await asyncio.gather(asyncio.to_thread(rewards, "1"), asyncio.to_thread(rewards, "0"))

    with Scorer(ref(), workers=1) as scorer:
        assert asyncio.run(main(scorer)) == [[1.0] * 10, [0.0] * 10]


def test_calls_may_interleave(scorer: Scorer) -> None:
    ones, zeros = scorer.score([item("1")] * 50), scorer.score([item("0")] * 50)
    assert [(a.reward, b.reward) for a, b in zip(ones, zeros, strict=True)] == [(1.0, 0.0)] * 50


def test_items_are_read_as_they_are_needed(scorer: Scorer) -> None:
    read = itertools.count()
    scores = scorer.score(item("1") for _ in iter(lambda: next(read), None))  # endless
    assert [next(scores).reward for _ in range(10)] == [1.0] * 10
    assert next(read) <= IN_FLIGHT_UNITS + 11
    scores.close()  # type: ignore[attr-defined]


def test_what_is_abandoned_is_not_begun(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with Scorer(ref("counting"), workers=1) as scorer:
        scores = scorer.score(item(str(i), log=str(log), seconds=0.02) for i in range(1000))
        next(scores)
        scores.close()  # type: ignore[attr-defined]
        assert next(scorer.score([item("1", log=str(tmp_path / "other"))])).reward == 1.0
    assert len(log.read_text().split()) < 100


def test_an_error_of_the_items_is_the_callers(scorer: Scorer) -> None:
    def items() -> Iterator[Item]:
        yield item("1")
        raise LookupError("no more")

    with pytest.raises(LookupError, match="no more"):
        list(scorer.score(items()))
    assert next(scorer.score([item("1")])).reward == 1.0


def test_an_item_that_a_worker_cannot_read_is_an_error(scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("only_in_this_process")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    module.Level = IntEnum("Level", ["HIGH"], module=module.__name__)  # type: ignore[attr-defined]
    scores = list(scorer.score([item("1"), item("1", level=module.Level.HIGH), item("0")]))  # type: ignore[attr-defined]
    assert [score.status.value for score in scores] == ["graded", "error", "graded"]
    assert "No module named 'only_in_this_process'" in (scores[1].reason or "")


def test_nothing_in_the_working_directory_stands_in_for_a_module(tmp_path: Path) -> None:
    """No `__main__` guard either, and standard input and output are the caller's."""
    for name in ("json.py", "pickle.py", "selectors.py", "pydantic.py", "rlvr/__init__.py", "rlvr/verifying.py"):
        path = tmp_path / "cwd" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("raise SystemExit('the wrong file')")
    result = run_script(
        tmp_path / "script.py",
        f"""
        from rlvr.record.schema import Task
        from rlvr.verify.scoring import Scorer
        from rlvr.record.item import Item

        with Scorer({ref()!r}, workers=1) as scorer:
            deeds = ("1", "0", "!talk", "!read stdin")
            print([score.reward for score in scorer.score([Item(deed, Task(answer="1")) for deed in deeds])])
        """,
        tmp_path / "cwd",
        input="7\n",
    )
    assert result.stdout == "[1.0, 0.0, 1.0, None]\n", result.stderr
    shown = [f"[misbehaving:check] said {text}" for text in ("by print", "to descriptor 1", "by a child")]
    assert result.stderr.splitlines() == shown
    assert result.returncode == 0


def test_a_module_next_to_the_callers_script_is_found(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def check(completion, task): return len(completion)")
    result = run_script(
        tmp_path / "script.py",
        """
        from rlvr.record.schema import Task
        from rlvr.verify.scoring import Scorer
        from rlvr.record.item import Item

        with Scorer("mine:check", workers=1) as scorer:
            print(next(scorer.score([Item("abc", Task(answer="1"))])).reward)
        """,
        Path("/"),
    )
    assert result.stdout == "3.0\n", result.stderr


def test_workers_run_the_callers_rlvr(tmp_path: Path) -> None:
    """They import the caller's checkout, not the installed rlvr."""
    shutil.copytree(Path(zygote.__file__).parents[1], tmp_path / "rlvr", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "mine.py").write_text(
        "import rlvr\ndef check(completion, task): return rlvr.Verdict(status='abstained', reason=rlvr.__file__)\n"
    )
    result = run_script(
        tmp_path / "script.py",
        """
        import rlvr
        from rlvr.verify.scoring import Scorer
        from rlvr.record.item import Item

        with Scorer("mine.py:check", workers=1) as scorer:
            print(next(scorer.score([Item("1", rlvr.Task(answer="1"))])).reason)
        """,
        tmp_path,
    )
    assert result.stdout == f"{tmp_path / 'rlvr' / '__init__.py'}\n", result.stderr


def test_a_forked_child_has_no_part_in_the_pool(tmp_path: Path) -> None:
    """It can neither use the pool nor keep it alive after its owner."""
    result = run_script(
        tmp_path / "script.py",
        f"""
        import os, time
        from rlvr.errors import RunError
        from rlvr.record.schema import Task
        from rlvr.verify.scoring import Scorer
        from rlvr.record.item import Item

        def say(*words):  # in one piece, whatever the other process says
            os.write(1, (" ".join(map(str, words)) + "\\n").encode())

        items = [Item("!zygote", Task(answer="1"))]
        scorer = Scorer({ref()!r}, workers=1)
        zygote = next(scorer.score(items)).reward
        child = os.fork()
        if child == 0:
            try:
                next(scorer.score(items))
            except RunError as error:
                say("child:", error)
            with Scorer({ref()!r}, workers=1) as another:
                say("child:", next(another.score(items)).status.value)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(1, 2)
            time.sleep(600)
        say("parent:", next(scorer.score(items)).reward == zygote)
        say(int(zygote), child)
        os.kill(os.getpid(), 9)
        """,
        tmp_path,
    )
    lines = sorted(result.stdout.splitlines())
    zygote, child = map(int, lines[0].split())
    try:
        wait_until_dead(zygote)
        assert alive(child)
    finally:
        os.kill(child, signal.SIGKILL)
    assert lines[1:] == [
        "child: graded",
        "child: the verifier's pool belongs to the process that this one was forked from",
        "parent: True",
    ]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import nonsense_that_is_not_there", r"ModuleNotFoundError.*\(broken.py:1\)"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("import ctypes; ctypes.string_at(0)", "ended its process while it was loaded: killed by SIGSEGV"),
        (
            "import rlvr\n@rlvr.verifier(preload=lambda: 1 // 0)\ndef check(completion, task): return True\n",
            "ZeroDivisionError",
        ),
    ],
)
def test_a_broken_verifier_is_an_error_at_once(tmp_path: Path, source: str, message: str) -> None:
    (tmp_path / "broken.py").write_text(source)
    with pytest.raises(PluginError, match=message):
        Scorer(f"{tmp_path / 'broken.py'}:check", workers=1)


def test_what_is_not_there_or_makes_no_sense_is_an_error_at_once() -> None:
    with pytest.raises(PluginError, match="there is no verifier 'mth'; did you mean 'math'"):
        Scorer("mth", workers=1)
    with pytest.raises(ConfigError, match="no option 'cutt'; did you mean 'cut'"):
        Scorer(ref("relative"), {"cutt": 1}, workers=1)
    with pytest.raises(ConfigError, match="cannot be sent to a process"):
        Scorer(ref("relative"), {"cut": lambda: 1}, workers=1)
    for wrong in ({"workers": -1}, {"timeout": 0}, {"timeout": float("nan")}, {"memory": 0}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            Scorer(ref(), **wrong)  # type: ignore[arg-type]
