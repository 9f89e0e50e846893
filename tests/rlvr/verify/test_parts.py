"""Named parts of a verdict arrive wherever the verdict does: from a worker, a cache, a scored file and a sidecar."""

from __future__ import annotations

from pathlib import Path

import pytest

import rlvr
from rlvr.record.item import Item
from rlvr.record.schema import Rollout, Status, Task, Verdict
from rlvr.record.store import read_rollouts, write_rollouts
from rlvr.verify.cache import VerdictCache
from rlvr.verify.scoring import Scorer

SOURCE = """
import rlvr

@rlvr.verifier(name="two", version="1", deterministic=True)
def two(completion: str, task: rlvr.Task) -> rlvr.Verdict:
    parts = {
        "form": rlvr.Verdict(status="graded", reward=1.0, extracted="\\ud800"),
        "answer": rlvr.Verdict(status="unparsed", reason="no box"),
    }
    return rlvr.Verdict(status="graded", reward=0.5, parts=parts)
"""
PARTS = {
    "form": Verdict(status=Status.GRADED, reward=1.0, extracted="\\ud800"),
    "answer": Verdict(status=Status.UNPARSED, reason="no box"),
}


@pytest.fixture
def verifier(tmp_path: Path) -> str:
    (tmp_path / "two.py").write_text(SOURCE)
    return f"{tmp_path / 'two.py'}:two"


@pytest.mark.parametrize("workers", [0, 1])
def test_parts_come_from_a_worker_and_from_a_cache(tmp_path: Path, verifier: str, workers: int) -> None:
    for _ in range(2):  # the second time, the verdict is in the file
        cache = VerdictCache(tmp_path / "cache.sqlite")
        with Scorer(verifier, workers=workers, cache=cache) as scorer:
            (score,) = scorer.score([Item("a", Task(answer="1"))])
        cache.close()
        assert (score.status, score.reward, score.parts) == (Status.GRADED, 0.5, PARTS)


@pytest.mark.parametrize("ending", [".parquet", ".jsonl"])
def test_parts_are_in_scored_files_and_in_sidecars(tmp_path: Path, verifier: str, ending: str) -> None:
    source = tmp_path / f"rollouts{ending}"
    write_rollouts(source, [Rollout(id="a", prompt="p", completion="c", task=Task(answer="1"))])
    scored, beside = tmp_path / f"scored{ending}", tmp_path / f"beside{ending}"
    rlvr.score(source, verifier, out=scored)
    rlvr.score(source, verifier, out=beside, scores_only=True)
    for rows in (read_rollouts(scored), read_rollouts(source, sidecars=beside)):
        (rollout,) = rows
        assert rollout.scores[0].parts == PARTS
