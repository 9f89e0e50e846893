"""`rlvr diagnose` on a real run's rollouts, and on what cannot be trained on."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from rlvr.cli import main
from rlvr.store import read_rollouts, write_rollouts

_spec = importlib.util.spec_from_file_location("runs", Path(__file__).parent / "runs.py")
assert _spec is not None
assert _spec.loader is not None
runs = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(runs)


@pytest.fixture(scope="module")
def run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six steps with v = 3, and steps large enough to be seen."""
    path: Path = tmp_path_factory.mktemp("runs") / "run"
    runs.start(runs.small_config(tiny_model, trainer="grpo-off", trainer__push_every=3, eval__questions=0), path)
    return path


@pytest.fixture
def diagnose(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    def call(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["rlvr", "diagnose", *map(str, arguments), "--device", "cpu"])
        with pytest.raises(SystemExit) as exit_:
            main()
        assert exit_.value.code in (None, 0, 2)
        captured = capsys.readouterr()
        return captured.err if exit_.value.code else captured.out

    return call


def measured(answer: str) -> dict[str, Any]:
    return {line["part"]: line for line in json.loads(answer)["measured"]}


def test_against_the_model_that_the_run_began_with(run: Path, tiny_model: Path, diagnose: Any) -> None:
    lines = measured(diagnose(run, "--model", tiny_model, "--json"))
    assert list(lines) == ["all", "lag 0", "newer than the model"]
    assert lines["lag 0"]["gap"] < 1e-5  # sampler and trainer agree
    assert lines["lag 0"]["ess_token"] == pytest.approx(1.0)
    assert lines["newer than the model"]["gap"] > 1e-3
    assert lines["all"]["rollouts"] == 72
    assert lines["lag 0"]["tokens"] + lines["newer than the model"]["tokens"] == lines["all"]["tokens"]


def test_against_a_checkpoint_of_the_run(run: Path, diagnose: Any) -> None:
    answer = diagnose(
        run / "rollouts", "--model", run / "checkpoints" / "step-000006", "--json", "--verifier", "digits"
    )
    lines = measured(answer)
    assert list(lines) == ["all", "lag 1-3", "lag 4-7"]
    assert lines["lag 1-3"]["gap"] < lines["lag 4-7"]["gap"]
    assert json.loads(answer)["advice"]["recipe"]


def test_people_get_a_table_and_a_command(run: Path, tiny_model: Path, diagnose: Any) -> None:
    shown = diagnose(run, "--model", tiny_model, "--limit", 8)
    for text in ("usable       72 (100.0%)", "measured     8 of them", "AGE", "ESS SEQ", "recommended  "):
        assert text in shown
    assert f"rlvr train --rollouts {run} --model {tiny_model} --recipe " in shown


def test_what_only_lacks_log_probabilities_can_be_mended(
    run: Path, tiny_model: Path, tmp_path: Path, diagnose: Any
) -> None:
    bare = [
        rollout.model_copy(update={"behaviour_logprobs": None})
        for rollout in read_rollouts(run / "rollouts" / "step-000000.parquet")
    ]
    write_rollouts(tmp_path / "bare.jsonl", bare)
    shown = diagnose(tmp_path / "bare.jsonl", "--model", tiny_model)
    assert "not usable   12 (100.0%): no behaviour log-probabilities" in shown
    assert "--behaviour-model" in shown
    assert "recommended  nothing yet: recompute" in shown
    assert "AGE" not in shown


def test_other_tokens_and_other_temperatures_are_told(
    run: Path, awkward_model: Path, tiny_model: Path, diagnose: Any
) -> None:
    assert "another tokenizer (" in diagnose(run, "--model", awkward_model)
    assert "sampled at temperature 1, not 0.5" in diagnose(run, "--model", tiny_model, "--temperature", 0.5)


@pytest.mark.parametrize(
    ("rollouts", "model", "message"),
    [
        ("nowhere.jsonl", None, "nowhere.jsonl does not exist"),
        ("empty.jsonl", None, "empty.jsonl: there is no record to diagnose"),
        ("foreign.jsonl", None, "foreign.jsonl, line 1 is not a record: it has no schema_version"),
        ("empty.jsonl", "./no-model", "model: there is no directory './no-model'"),
    ],
)
def test_a_wrong_request_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tiny_model: Path,
    diagnose: Any,
    rollouts: str,
    model: str | None,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty.jsonl").touch()
    Path("foreign.jsonl").write_text('{"completion": "2"}\n')
    told = diagnose(rollouts, "--model", model or tiny_model)
    assert told == f"rlvr: {told.removeprefix('rlvr: ').strip()}\n"
    assert message in told
