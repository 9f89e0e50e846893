"""Run directories for tests of reports: metrics, configuration and batches as data, without a model."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rlvr.record.schema import Rollout, Score, Status, Task, VersionRun
from rlvr.record.store import write_rollouts


def score(verifier: str, reward: float | None, status: str = "graded", **more: Any) -> Score:
    """Return a score; a reward of None needs another status."""
    return Score(status=Status(status), reward=reward, verifier=verifier, version="1", **more)


def rollout(group: str, index: int, completion: str, *scores: Score, version: int = 0, **more: Any) -> Rollout:
    """Return a rollout of three prompt tokens and five sampled ones."""
    columns: dict[str, Any] = {
        "prompt": f"prompt of {group}",
        "token_ids": [1, 2, 3, 4, 5, 6, 7, 8],
        "loss_mask": [False] * 3 + [True] * 5,
        "behaviour_logprobs": [None] * 3 + [-0.1, -0.2, -0.5, -1.0, -4.0],
        "policy_versions": (VersionRun(version=version, count=5),),
        "finish_reason": "stop",
        "task": Task(dataset="arithmetic", row_id=group, answer="4"),
    }
    identity = {"id": f"{group}-{index}", "group_id": group, "index": index, "group_size": 2}
    return Rollout(**{**identity, **columns, "completion": completion, "scores": scores, **more})


def metrics(step: int, **more: Any) -> dict[str, Any]:
    """Return the metrics of a step of a run with one optimizer step a batch."""
    return {"step": step, "policy_version": step + 1, "reward/mean": step / 10, "alarms": [], **more}


def make_run(
    run: Path, lines: Sequence[dict[str, Any]], batches: Sequence[Sequence[Rollout]] = (), **settings: Any
) -> Path:
    """Write a run directory and return its path. `settings` have `__` for the dot."""
    (run / "rollouts").mkdir(parents=True)
    config = {"steps": len(lines), **{key.replace("__", "."): value for key, value in settings.items()}}
    (run / "config.yaml").write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in config.items()))
    (run / "manifest.json").write_text(json.dumps({"run_id": run.name, "command": ["rlvr", "train"]}))
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for step, batch in enumerate(batches):
        write_rollouts(run / "rollouts" / f"step-{step:06d}.parquet", batch)
    return run


WORDS = "so we add the two numbers and carry the one then check the sum again before we box it"


def make_long_run(run: Path, steps: int, groups: int = 125, size: int = 8) -> Path:
    """Write a run of `steps * groups * size` rollouts of 20 words each, no two alike, and return its path.

    The first batch is made of records; the others are its columns with other ids and texts, which is a hundred times
    faster.
    """

    def completion(group: int, index: int) -> str:
        words = WORDS.split()
        chosen = ((index * 7 + k * (group % 5 + 1)) % len(words) for k in range(20))
        return " ".join(f"{words[place]}{k * (group + index) % 97}" for k, place in enumerate(chosen))

    first = [
        rollout(
            f"0-{group}",
            index,
            completion(group, index),
            score("math", float((index + group) % 3 == 0), reason="equal", extracted=str(index)),
            group_size=size,
        )
        for group in range(groups)
        for index in range(size)
    ]
    make_run(run, [metrics(i, entropy=math.exp(-i / steps)) for i in range(steps)], [first])
    batch = pq.read_table(run / "rollouts" / "step-000000.parquet")
    for step in range(1, steps):
        changed = batch
        for name in ("id", "group_id"):
            place = batch.schema.get_field_index(name)
            renamed = pc.replace_substring_regex(batch.column(name), "^0-", f"{step}-")
            changed = changed.set_column(place, batch.schema.field(name), renamed)
        place = batch.schema.get_field_index("completion")
        texts = pa.chunked_array(
            [[f"{step} {text} {i * step}" for i, text in enumerate(batch.column(place).to_pylist())]]
        )
        changed = changed.set_column(place, batch.schema.field(place), texts)
        pq.write_table(changed, run / "rollouts" / f"step-{step:06d}.parquet")
    return run
