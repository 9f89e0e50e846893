"""Groups by id: rows of one group are judged together wherever they stand, and keep their order."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

import rlvr
from rlvr.errors import DataError
from rlvr.record.item import Item
from rlvr.record.schema import Rollout, Status, Task
from rlvr.verify.grouping import Numbering, Spool
from rlvr.verify.scoring import Scorer

TOGETHER = """
def together(rollouts):
    return [100 * len(rollouts) + min(int(r.completion) for r in rollouts)] * len(rollouts)
"""


@pytest.fixture
def together(tmp_path: Path) -> str:
    (tmp_path / "mine.py").write_text(TOGETHER)
    return f"{tmp_path / 'mine.py'}:together"


def rollout(number: int, group: str | None, run: str | None = None) -> Rollout:
    return Rollout(
        id=f"{run}-{number}", run_id=run, group_id=group, prompt="p", completion=str(number), task=Task(answer="1")
    )


def test_rows_of_one_group_need_not_stand_together(together: str) -> None:
    rows = [rollout(number, f"g{number % 3}") for number in range(12)]
    random.Random(1).shuffle(rows)
    scores = rlvr.score(rows, together, workers=1)
    assert [score.reward for score in scores] == [400 + int(row.completion or "") % 3 for row in rows]


def test_equal_group_ids_of_two_runs_are_two_groups(together: str) -> None:
    rows = [rollout(number, "0", run=f"run{number // 3}") for number in range(6)]
    assert [score.reward for score in rlvr.score(rows, together, workers=0)] == [300] * 3 + [303] * 3


def test_a_row_without_a_group_is_judged_with_no_other(together: str) -> None:
    scores = list(rlvr.score([rollout(1, None), rollout(2, None), rollout(3, "g"), rollout(4, "g")], together))
    assert [score.status for score in scores] == [Status.INVALID] * 2 + [Status.GRADED] * 2


def test_items_of_a_stream_must_stand_together(together: str) -> None:
    items = [Item(row.completion, row.task, row) for row in (rollout(i, f"g{i % 2}") for i in range(4))]
    with Scorer(together, workers=0) as scorer, pytest.raises(DataError, match="group 'g0' are not consecutive"):
        list(scorer.score(items))


@pytest.mark.parametrize("held", [1 << 20, 16])
def test_a_spool_gives_back_what_it_was_given(held: int) -> None:
    with Spool[Any](held) as spool:
        things = [f"text {i}" * (i % 5) for i in range(50)]
        order = random.Random(0).sample(range(50), 50)
        for number in order:
            spool.put(number, things[number])
        assert [spool[number] for number in range(50)] == things
        spool.add({"one": "more"})
        assert len(spool) == 51
        assert spool[50] == {"one": "more"}


def test_numbers_and_sizes_of_groups() -> None:
    numbering = Numbering()
    assert [numbering.add(key) for key in ["a", "a", None, "b", None, "c"]] == [0, 0, 1, 2, 3, 4]
    assert numbering.together
    assert [numbering.add(key) for key in ["c", "a", "c"]] == [4, 0, 4]
    assert not numbering.together
    assert numbering.sizes.tolist() == [3, 1, 1, 1, 3]
    assert list(numbering.in_groups()) == [[0, 1, 7], [2], [3], [4], [5, 6, 8]]
    assert (numbering.number("c"), numbering.number("d")) == (4, None)
