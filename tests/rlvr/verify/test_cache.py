"""Cached verdicts: equal work, cached statuses, and limits."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr.errors import RequestError, RunError
from rlvr.record.item import Item
from rlvr.record.schema import Status, Task, Verdict
from rlvr.verify.cache import IN_MEMORY, VerdictCache, cache_key
from rlvr.verify.scoring import Scorer

COUNTING = """
import rlvr, time
from pathlib import Path

def note(text):
    with open(Path(__file__).with_name("calls"), "a") as file:
        file.write(text + "\\n")

@rlvr.verifier(sees="answer")
def blind(completion, task, *, weight: float = 1.0):
    note(completion)
    if completion == "hang": time.sleep(60)
    if completion == "raise": raise ValueError("no")
    assert not task.extra and task.row_id is None
    return weight * (completion == task.answer)

def seeing(completion, task):
    note(completion)
    return float(task.extra["level"])

@rlvr.verifier(deterministic=False)
def judge(completion, task):
    note(completion)
    return True
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(COUNTING)
    return tmp_path


def calls(folder: Path) -> list[str]:
    path = folder / "calls"
    made = path.read_text().split() if path.exists() else []
    path.unlink(missing_ok=True)
    return made


@pytest.mark.parametrize(
    "row", ["{", "[]", '["graded"]', '["error", null, null, null]', '["graded", "x", 1, 2]', b"\xff"]
)
def test_a_damaged_row_is_verified_again_and_replaced(tmp_path: Path, row: str | bytes) -> None:
    path, key, verdict = tmp_path / "cache", b"k" * 16, Verdict(status="graded", reward=0.5)
    VerdictCache(path).close()
    with closing(sqlite3.connect(path)) as file, file:
        file.execute("INSERT INTO verdicts VALUES (?, ?)", (key, row))
    with closing(VerdictCache(path)) as cached:
        assert cached.get(key) is None
        cached.put(key, verdict)
    with closing(VerdictCache(path)) as cached:
        assert cached.get(key) == verdict


def test_a_file_that_is_damaged_while_it_is_in_use_ends_the_run_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "cache"
    cached = VerdictCache(path)
    with closing(sqlite3.connect(path)) as file:
        file.execute("DROP TABLE verdicts")
    with pytest.raises(RunError, match=r"/cache cannot be read: no such table.*; delete it, or use another"):
        cached.get(b"k" * 16)


def test_parts_of_verdicts_count_in_memory() -> None:
    """Otherwise a verifier with large parts would keep far more than the limit."""
    part = Verdict(status="graded", reward=1.0, extracted="x" * 100_000)
    cached = VerdictCache()
    for i in range(200):
        cached.put(bytes([i]) * 16, Verdict(status="graded", reward=1.0, parts={"a": part, "b": part}))
    known = sum(cached.get(bytes([i]) * 16) is not None for i in range(200))
    assert 0 < known <= IN_MEMORY // 200_000


def item(completion: str | None, answer: str = "1", row: str | None = None, **extra: object) -> Item:
    return Item(completion, Task(answer=answer, row_id=row, extra=extra))


@pytest.mark.parametrize("workers", [0, 2])
def test_equal_work_is_done_once(folder: Path, workers: int) -> None:
    items = [item(str(i % 3), row=str(i), n=i) for i in range(300)]
    with Scorer(f"{folder}/mine.py:blind", workers=workers, cache=VerdictCache()) as scorer:
        first = list(scorer.score(items))
        assert sorted(calls(folder)) == ["0", "1", "2"]
        again = list(scorer.score(items))
        assert calls(folder) == []
    assert [score.reward for score in first] == [score.reward for score in again] == [0, 1, 0] * 100
    assert sum(score.seconds != 0 for score in first) == 3
    assert all(score.seconds == 0 for score in again)


def test_work_is_equal_only_when_all_that_is_seen_is(folder: Path) -> None:
    shared = VerdictCache()
    with Scorer(f"{folder}/mine.py:blind", workers=1, cache=shared) as scorer:
        assert [s.reward for s in scorer.score([item("1"), item("1", "2"), item("12", "1")])] == [1, 0, 0]
    assert len(calls(folder)) == 3
    with Scorer(f"{folder}/mine.py:blind", {"weight": 2}, workers=1, cache=shared) as scorer:
        assert [s.reward for s in scorer.score([item("1")])] == [2]
    assert len(calls(folder)) == 1
    with Scorer(f"{folder}/mine.py:seeing", workers=1, cache=shared) as scorer:
        rows = [item("1", level=1), item("1", level=2), item("1", level=1), item("1", row="a", level=1)]
        assert [s.reward for s in scorer.score(rows)] == [1, 2, 1, 1]
    assert len(calls(folder)) == 3


@pytest.mark.parametrize("workers", [0, 1])
def test_without_a_cache_or_determinism_every_row_is_verified(folder: Path, workers: int) -> None:
    with Scorer(f"{folder}/mine.py:judge", workers=workers, cache=VerdictCache()) as scorer:
        list(scorer.score([item("1")] * 5))
    assert len(calls(folder)) == 5
    with Scorer(f"{folder}/mine.py:blind", workers=workers) as scorer:
        list(scorer.score([item("1")] * 5))
    assert len(calls(folder)) == 5


def test_errors_and_time_outs_are_never_kept(folder: Path) -> None:
    path = folder / "cache.sqlite"
    remembered = VerdictCache(path)
    with Scorer(f"{folder}/mine.py:blind", workers=1, timeout=1.0, cache=remembered) as scorer:
        scores = list(scorer.score([item("raise"), item("raise"), item("hang"), item("1")]))
        assert [score.status.value for score in scores] == ["error", "error", "timeout", "graded"]
        assert calls(folder).count("raise") >= 2  # a hang in its batch has it done once more
        list(scorer.score([item("raise"), item("1")]))
        assert calls(folder) == ["raise", "raise"]  # and once more in a fresh worker
    remembered.close()
    assert sqlite3.connect(path).execute("SELECT count(*) FROM verdicts").fetchone() == (1,)


def test_a_file_remembers_for_the_next_run(folder: Path) -> None:
    path = folder / "cache.sqlite"
    for made in (["1", "2"], []):
        remembered = VerdictCache(path)
        with Scorer(f"{folder}/mine.py:blind", workers=1, label="strict", cache=remembered) as scorer:
            scores = list(scorer.score([item("1"), item("2"), item(None)]))
        remembered.close()
        assert [score.status.value for score in scores] == ["graded", "graded", "invalid"]
        assert [score.verifier for score in scores] == ["mine:blind@strict"] * 3
        assert sorted(calls(folder)) == made


def test_processes_and_threads_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite"
    caches = [VerdictCache(path), VerdictCache(path)]

    def fill(which: int) -> None:
        for i in range(500):
            caches[which].put(bytes([which, i % 256, i // 256]), Verdict(status=Status.GRADED, reward=float(i)))

    threads = [threading.Thread(target=fill, args=(which,)) for which in (0, 1, 0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for each in caches:
        each.close()
    found = VerdictCache(path).get(bytes([1, 44, 1]))
    assert found is not None
    assert found.reward == 300


@settings(max_examples=30, deadline=None)
@given(
    extracted=st.none() | st.text(st.characters()), reason=st.none() | st.text(st.characters()), reward=st.floats(0, 1)
)
def test_a_verdict_comes_back_from_the_file_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, extracted: str | None, reason: str | None, reward: float
) -> None:
    path = tmp_path_factory.mktemp("cache") / "c"
    verdict = Verdict(status=Status.GRADED, reward=reward, extracted=extracted, reason=reason)
    written = VerdictCache(path)
    written.put(b"k", verdict)
    written.close()
    read = VerdictCache(path)
    assert read.get(b"k") == verdict
    assert read.get(b"other") is None
    read.close()


def test_memory_is_bounded_and_keeps_what_is_asked_for() -> None:
    remembered = VerdictCache(in_memory=3 * 512)
    for i in range(3):
        remembered.put(bytes([i]), Verdict(status=Status.GRADED, reward=float(i)))
    assert remembered.get(b"\0") is not None
    remembered.put(b"\3", Verdict(status=Status.GRADED, reward=3.0))
    assert [remembered.get(bytes([i])) is None for i in range(4)] == [False, True, False, False]


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database, but a text that is long enough to look at" * 20)
    with pytest.raises(RequestError, match=r"the cache .*text cannot be used: file is not a database"):
        VerdictCache(tmp_path / "text")
    newer = sqlite3.connect(tmp_path / "newer")
    newer.execute("PRAGMA user_version = 99")
    newer.close()
    with pytest.raises(RequestError, match="another version of rlvr"):
        VerdictCache(tmp_path / "newer")
    with pytest.raises(RequestError, match="cannot be used"):
        VerdictCache(tmp_path / "none" / "c")


def test_lengths_keep_completion_and_answer_apart() -> None:
    keys = {
        cache_key(b"v", item("ab", "c"), "answer"),
        cache_key(b"v", item("a", "bc"), "answer"),
        cache_key(b"v", Item("ab", Task()), "answer"),
        cache_key(b"w", item("ab", "c"), "answer"),
        cache_key(b"v", item("\ud800", "c"), "answer"),
    }
    assert len(keys) == 5
    assert cache_key(b"v", item(None), "answer") is None
