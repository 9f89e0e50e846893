"""Scores that survive a kill: whole groups only, with everything that a verdict says."""

from __future__ import annotations

from collections.abc import Iterator
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


@pytest.mark.parametrize(
    ("groups", "kept"),
    [
        ([None, None, None], 3),
        (["a", "a", "b", "b"], 2),  # nobody knows yet whether b is complete
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
    with pytest.raises(RequestError, match=r"journal of another request .*format: null there, 2 here"):
        ScoreJournal(path, {"request": 1}, [scorer])
    ScoreJournal(path, {"request": 1}, [scorer], anew=True).remove()
