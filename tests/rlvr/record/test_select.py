"""`rlvr.show`: the rows that match, for notebooks."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

import rlvr
from rlvr.errors import RequestError
from rlvr.record.schema import Rollout, Score
from rlvr.record.store import write_rollouts


def test_rows_that_match_are_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rollouts = [
        Rollout(
            id=str(i),
            group_id=f"g{i % 2}",
            prompt="p",
            completion="c" * i,
            scores=(Score(status="graded", reward=float(i), verifier="v", version="1"),),
        )
        for i in range(20)
    ]
    write_rollouts(tmp_path / "a.parquet", rollouts[:10])
    write_rollouts(tmp_path / "b.jsonl", rollouts[10:])
    result = rlvr.show(tmp_path, where=["reward>3"], group="g1", limit=5)
    assert capsys.readouterr() == ("", "")
    assert (result.matching, result.total) == (8, 20)
    table = pd.DataFrame(result.rows)
    assert list(table["id"]) == ["5", "7", "9", "11", "13"]
    assert list(table["reward"]) == [5.0, 7.0, 9.0, 11.0, 13.0]
    assert table["where"][3] == f"{tmp_path / 'b.jsonl'}, line 2"
    assert json.loads(json.dumps(result.to_dict()))["matching"] == 8
    assert len(rlvr.show(tmp_path, limit=0).rows) == 20
    with pytest.raises(RequestError, match="has no field 'rewrad'; did you mean 'reward'"):
        rlvr.show(tmp_path, where="rewrad>3")


def test_a_row_shows_the_score_that_met_the_conditions(tmp_path: Path) -> None:
    scores = tuple(
        Score(status="graded", reward=reward, verifier=verifier, version="1", extracted=verifier)
        for verifier, reward in (("a", 1.0), ("b", 0.0), ("c", 0.0))
    )
    write_rollouts(tmp_path / "in.parquet", [Rollout(id="r", prompt="p", completion="c", scores=scores)])

    def shown(*where: str) -> list[str]:
        return [row["verifier"] for row in rlvr.show(tmp_path, where=where).rows]

    assert shown("verifier=a", "reward=1") == ["a"]
    assert shown("reward=0") == ["c"]
    assert shown("id=r") == ["c"]
    assert shown("verifier=a", "reward=0") == []
