"""Sampling without training: records, continuation, and errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import rlvr
from interrupted import StopAfter
from rlvr.cli import main
from rlvr.errors import ConfigError, RequestError
from rlvr.record.store import read_rollouts

SMALL = {"sampling.max_tokens": 6, "sampling.prompts_per_step": 2, "verifier.workers": 1, "model.device": "cpu"}


def sampled(out: Path, limit: int = 5, **more: Any) -> rlvr.GenerateResult:
    return rlvr.generate("embedded", out=out, n=3, limit=limit, **{"config": SMALL, **more})


def tokens(path: Path) -> list[tuple[str | None, list[int]]]:
    return [(rollout.prompt, list(rollout.token_ids)) for rollout in read_rollouts(path)]


def test_records_hold_all_that_training_needs_in_the_order_of_the_questions(tmp_path: Path) -> None:
    out = tmp_path / "g.parquet"
    result = sampled(out, verifier="math")
    rollouts = list(read_rollouts(out))
    assert (result.questions, result.rollouts, len(rollouts)) == (5, 15, 15)
    assert result.tokens == sum(rollout.sampled_tokens for rollout in rollouts)
    assert result.truncated == sum(rollout.finish_reason == "length" for rollout in rollouts)
    assert result.verifier is not None
    assert sum(result.verifier.statuses.values()) == 15
    assert result.verifier.mean_reward == pytest.approx(sum(r.scores[0].reward or 0 for r in rollouts) / 15)
    assert [rollout.index for rollout in rollouts] == [0, 1, 2] * 5
    run_id = rollouts[0].run_id
    assert [rollout.group_id for rollout in rollouts[::3]] == [f"{run_id}-{question}" for question in range(5)]
    assert all(r.behaviour_logprobs is not None and r.sampling.stop is not None for r in rollouts)
    trained = rlvr.train(
        {"rollouts.files": [str(out)], "trainer": "grpo-off", "steps": 1, "eval.questions": 0}, out=tmp_path / "run"
    )
    assert trained.metrics["lag/max"] == 0  # the weights that sampled are those that learn


def test_nothing_is_verified_unless_it_is_asked_for(tmp_path: Path) -> None:
    result = sampled(tmp_path / "g.jsonl", limit=1)
    assert result.verifier is None
    assert all(not rollout.scores for rollout in read_rollouts(result.file))
    assert json.loads(json.dumps(result.to_dict()))["rollouts"] == 3


def test_the_same_call_goes_on_where_an_interrupted_one_stopped(tmp_path: Path) -> None:
    whole, out = sampled(tmp_path / "whole.parquet"), tmp_path / "g.parquet"
    with pytest.raises(KeyboardInterrupt):
        sampled(out, reporter=StopAfter(2))
    assert not out.exists()
    with pytest.raises(RequestError, match=r"holds the beginning of another request \(other questions\)"):
        sampled(out, limit=4)
    result = sampled(out)
    assert (result.replayed, result.questions) == (4, 5)
    assert result.tokens < whole.tokens
    assert tokens(out) == tokens(whole.file)
    assert len({rollout.run_id for rollout in read_rollouts(out)}) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"whole.parquet", "g.parquet"}


def test_what_is_there_is_replaced_only_by_force(tmp_path: Path) -> None:
    out = tmp_path / "g.parquet"
    sampled(out, limit=1)
    before = out.read_bytes()
    with pytest.raises(RequestError, match="exists: name another file, or replace it with --force"):
        sampled(out, limit=2)
    assert out.read_bytes() == before
    assert sampled(out, limit=2, force=True).rollouts == 6


def test_an_endless_data_set_needs_a_limit(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="arithmetic has no end: say how many questions to ask with --limit"):
        rlvr.generate("embedded", out=tmp_path / "g.parquet", config=SMALL)


def test_held_out_questions_are_another_split(awkward_model: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"problem": f"{i}+{i}=", "answer": f"{2 * i}"}) + "\n" for i in range(3)))
    result = rlvr.generate(
        awkward_model,
        "math500",
        out=tmp_path / "g.parquet",
        n=1,
        split="eval",
        config=SMALL | {"dataset.data_files": [str(rows)], "dataset.options": {"id": None}},
    )
    rollouts = list(read_rollouts(result.file))
    assert [(rollout.task.row_id, rollout.task.split) for rollout in rollouts] == [(f"{i}", "eval") for i in range(3)]


def test_the_command_prints_counts_and_refuses_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = str(tmp_path / "g.parquet")
    arguments = ["rlvr", "generate", "embedded", "--dataset", "arithmetic", "-n", "2", "--limit", "2", "--out", out]
    arguments += ["--max-tokens", "4", "-v", "math", "--set", "verifier.workers=1"]
    monkeypatch.setattr("sys.argv", arguments)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert "questions    2\nrollouts     4\n" in printed
    assert printed.endswith(f"written to {out}\n")
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"rlvr: {out} exists")
