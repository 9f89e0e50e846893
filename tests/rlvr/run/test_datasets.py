"""Runs on several data sets, and for a number of epochs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import small_runs
from rlvr.errors import ConfigError, RequestError
from rlvr.record.store import read_rollouts
from rlvr.run.config import resolve
from rlvr.run.plan import make_plan
from rlvr.settings import command_line_settings

FAST: dict[str, Any] = {"eval__questions": 0, "sampling__max_tokens": 3, "sampling__group_size": 2}


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Two files with 7 and 3 questions; one of the first is too long."""
    paths = tmp_path / "sums.jsonl", tmp_path / "products.jsonl"
    for path, sign, size in zip(paths, "+*", (7, 3), strict=True):
        rows = [{"question": f"{i}{sign}1", "answer": str(i)} for i in range(size)]
        if sign == "+":
            rows[4]["question"] = "1+1" * 20
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return paths


def mix_of(files: tuple[Path, Path]) -> dict[str, Any]:
    return {"dataset": None, "dataset__mix": [f"{files[0]}:2", f"{files[1]}:1"], "dataset__max_prompt_tokens": 20}


def test_a_mixture_is_told_apart_and_resumed_in_order(
    tiny_model: Path, tmp_path: Path, files: tuple[Path, Path]
) -> None:
    changes = FAST | mix_of(files) | {"sampling__prompts_per_step": 3, "steps": 4}
    small_runs.start(small_runs.small_config(tiny_model, **changes), tmp_path / "whole")
    small_runs.start(small_runs.small_config(tiny_model, **changes | {"steps": 2}), tmp_path / "short")
    small_runs.resume(tmp_path / "short", steps=4)
    assert small_runs.final_state(tmp_path / "short") == small_runs.final_state(tmp_path / "whole")
    assert small_runs.timeless(tmp_path / "short") == small_runs.timeless(tmp_path / "whole")
    rows = list(read_rollouts(tmp_path / "whole" / "rollouts"))
    assert {row.task.dataset for row in rows} == {"sums", "products"}
    for line in small_runs.metrics_of(tmp_path / "whole"):
        groups = line["dataset_sums/groups"] + line["dataset_products/groups"]
        assert groups == 3
        mean = sum(line[f"dataset_{name}/reward"] * line[f"dataset_{name}/groups"] for name in ("sums", "products"))
        assert mean / groups == pytest.approx(line["reward/mean"])


def test_epochs_are_counted_in_questions_that_are_short_enough(
    tiny_model: Path, tmp_path: Path, files: tuple[Path, Path]
) -> None:
    """Two passes over six questions, four a batch, are three batches."""
    changes = FAST | {"dataset": str(files[0]), "dataset__max_prompt_tokens": 20, "steps": None, "dataset__epochs": 2}
    config = small_runs.small_config(tiny_model, **changes, sampling__prompts_per_step=4)
    with make_plan(config) as plan:
        assert (plan.config.steps, plan.config.dataset.epochs) == (3, None)
    small_runs.start(config, tmp_path / "run")
    rows = [row.task.row_id for row in read_rollouts(tmp_path / "run" / "rollouts")]
    assert {row: rows.count(row) for row in rows} == {str(i): 4 for i in range(7) if i != 4}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset__epochs": 1, "steps": 3}, "steps and dataset.epochs both set the length of the run"),
        ({"dataset__epochs": 1, "steps": None}, "dataset.epochs: arithmetic has no end; give steps"),
        ({"dataset__mix": ["arithmetic:1"]}, "dataset.mix and dataset.name both say what to train on"),
        ({"dataset__mix": ["arithmetic:0"], "dataset": None}, "the weight must be a number above 0"),
        ({"dataset__mix": ["no-such:1"], "dataset": None}, "there is no dataset 'no-such'"),
    ],
)
def test_what_contradicts_itself_is_refused(tiny_model: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(Exception, match=message) as error, make_plan(small_runs.small_config(tiny_model, **changes)):
        pass
    assert isinstance(error.value, RequestError)


def test_several_data_sets_on_the_command_line_are_a_mixture(
    tiny_model: Path, files: tuple[Path, Path], cli: Callable[..., Any]
) -> None:
    done = cli(
        "train", "--model", tiny_model, "--dataset", f"{files[0]}:3", "--dataset", f"{files[1]}:1", "--dry-run",
        "--set", "verifier.workers=0", "--max-tokens", "8",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert f"on {files[0]} (75%) + {files[1]} (25%) with" in done.out
    assert "questions    endless; 0 held-out" in done.out


def test_the_embedded_model_reads_its_own_data_set_only() -> None:
    with pytest.raises(ConfigError, match="knows 'arithmetic' only"):
        resolve(command_line_settings([], {"dataset.mix": ("--dataset", ["gsm8k:1", "math:1"])}))
