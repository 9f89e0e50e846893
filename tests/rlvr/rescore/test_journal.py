"""Scores that survive a kill: whole groups only, with everything that a verdict says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from rlvr.errors import RequestError
from rlvr.record.schema import Score, Verdict
from rlvr.rescore.journal import ScoreJournal
from rlvr.verify.scoring import Scorer


@pytest.fixture
def scorer(tmp_path: Path) -> Iterator[Scorer]:
    (tmp_path / "mine.py").write_text("def check(completion, task): return True\n")
    with Scorer(f"{tmp_path}/mine.py:check", workers=0, label="x") as scorer:
        yield scorer


def numbered(scorer: Scorer, i: int) -> tuple[Score, ...]:
    verdict = Verdict(status="graded", reward=i / 3, extracted=f"{i}\ud800\u2028", reason=None)
    return (scorer.score_of(verdict, 0.25 * i, "2026-01-01T00:00:00Z"),)


BAD_ENTRIES = [
    "5", "[]", "[5]", "[{}]", '[{"status": "graded", "reward": 1.0}]',
    '[{"status": "graded", "reward": null, "seconds": 0.1, "created_at": "now"}]',
    '[{"status": "graded", "reward": 1.0, "seconds": "long", "created_at": "now"}]',
    '[{"status": "good", "seconds": 0.1, "created_at": "now"}]',
]  # fmt: skip


@pytest.mark.parametrize("entry", BAD_ENTRIES)
def test_a_bad_entry_and_all_after_it_are_verified_again(tmp_path: Path, scorer: Scorer, entry: str) -> None:
    path, good = tmp_path / "journal", [numbered(scorer, i) for i in range(3)]
    for scores in good:  # a line each
        journal = ScoreJournal(path, {}, [scorer])
        journal.add(scores)
        journal.close()
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:3], f"[{entry}]\n", *lines[3:]]))
    journal = ScoreJournal(path, {}, [scorer])
    assert journal.rows == 2
    assert list(journal.replayed()) == good[:2]
    journal.add(good[2])
    journal.close()
    with closing(ScoreJournal(path, {}, [scorer])) as journal:
        assert list(journal.replayed()) == good


@pytest.mark.parametrize(
    ("groups", "kept"),
    [
        ([None, None, None], 3),
        (["a", "a", "b", "b"], 2),  # b may still be incomplete
        (["a", "a", "b", None], 4),
        ([None, "a", "a"], 1),
        (["a"], 0),
    ],
)
def test_a_group_is_kept_whole_or_not_at_all(
    tmp_path: Path, scorer: Scorer, groups: list[str | None], kept: int
) -> None:
    path = tmp_path / "journal"
    first = ScoreJournal(path, {"request": 1}, [scorer])
    for i, group in enumerate(groups):
        first.add(numbered(scorer, i), group)
    first.close()
    assert path.exists() == (kept > 0)
    again = ScoreJournal(path, {"request": 1}, [scorer])
    assert again.rows == kept
    assert list(again.replayed()) == [numbered(scorer, i) for i in range(kept)]
    again.remove()
    assert not path.exists()


def test_a_journal_of_another_format_is_that_of_another_request(tmp_path: Path, scorer: Scorer) -> None:
    path = tmp_path / "journal"
    path.write_text('{"request": 1}\n[[["graded", 1.0, null, null, 0, null]]]\n')
    with pytest.raises(RequestError, match=r"journal of another request .*format: null there, 3 here"):
        ScoreJournal(path, {"request": 1}, [scorer])
    ScoreJournal(path, {"request": 1}, [scorer], anew=True).remove()
