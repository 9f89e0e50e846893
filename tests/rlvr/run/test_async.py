"""`mode: async`: batches are sampled while another is learned from, in order, and a kill loses nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import small_runs
from rlvr.errors import ConfigError
from rlvr.record.store import read_rollouts


def config(model: Path, **changes: Any) -> Any:
    return small_runs.small_config(model, mode="async", **{"trainer": "grpo-off", "trainer__push_every": 1, **changes})


def learned(path: Path) -> list[str]:
    """Group ids in the order in which they were learned from."""
    names = [rollout.group_id for rollout in read_rollouts(path / "rollouts")]
    return [name.rpartition("-")[2] for name in dict.fromkeys(names) if name is not None]


@pytest.mark.parametrize("ahead", [1, 2])
def test_every_prompt_is_learned_from_once_in_order_and_at_most_so_late(
    ahead: int, tiny_model: Path, tmp_path: Path
) -> None:
    small_runs.start(config(tiny_model, steps=5, sampling__ahead=ahead), tmp_path / "run")
    assert learned(tmp_path / "run") == [str(i) for i in range(15)]
    lines = [line for line in small_runs.metrics_of(tmp_path / "run") if "lag/max" in line]
    assert [line["lag/max"] for line in lines] == [min(step, ahead) for step in range(5)]


def test_a_run_that_is_extended_ends_like_one_that_was_long(tiny_model: Path, tmp_path: Path) -> None:
    """Runs that are killed and resumed are compared in `test_loop.py`."""
    small_runs.start(config(tiny_model, steps=6), tmp_path / "whole")
    small_runs.start(config(tiny_model, steps=3), tmp_path / "halves")
    small_runs.resume(tmp_path / "halves", steps=6)
    whole = small_runs.final_state(tmp_path / "whole")
    assert small_runs.final_state(tmp_path / "halves") == whole
    assert small_runs.timeless(tmp_path / "halves") == small_runs.timeless(tmp_path / "whole")


def test_weights_that_arrive_under_way_are_named_token_by_token(tiny_model: Path, tmp_path: Path) -> None:
    changes = {"sampling__in_flight_updates": True, "sampling__options": {"max_sequences": 4}}
    small_runs.start(config(tiny_model, steps=5, sampling__ahead=2, **changes), tmp_path / "run")
    assert learned(tmp_path / "run") == [str(i) for i in range(15)]
    lines = [line for line in small_runs.metrics_of(tmp_path / "run") if "lag/max" in line]
    assert all(line["lag/max"] <= 2 for line in lines)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sampling__refill": True}, "sampling.refill: how many prompts a batch takes is known only when it is there"),
        ({"mode": "sync", "sampling__ahead": 2}, "sampling.ahead .* does nothing while mode is sync"),
    ],
)
def test_what_cannot_be_asked_ahead_is_refused(changes: dict[str, Any], message: str, tiny_model: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        small_runs.small_config(tiny_model, **{"mode": "async", **changes})


def test_replayed_groups_are_mixed_in(tiny_model: Path, tmp_path: Path) -> None:
    small_runs.start(config(tiny_model, steps=5, replay__share=0.4), tmp_path / "run")
    assert len(set(learned(tmp_path / "run"))) == len(learned(tmp_path / "run"))
    assert json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[3])["replay/groups"] == 1
