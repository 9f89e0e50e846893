"""`rlvr.diagnose`: saved rollouts against a model, as one function."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError
from pathlib import Path

import pandas as pd
import pytest

import rlvr
import small_runs
from rlvr.errors import RequestError


@pytest.fixture(scope="module")
def run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("runs") / "run"
    config = small_runs.small_config(tiny_model, trainer="grpo-off", steps=3, eval__questions=0)
    small_runs.start(config, path)
    return path


def test_a_run_against_its_first_model(run: Path, tiny_model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    texts: list[str] = []
    found = rlvr.diagnose(run, tiny_model, limit=24, device="cpu", progress=texts.append)
    assert capfd.readouterr() == ("", "")
    assert (found.records, found.usable, found.only_logprobs_missing, found.reasons) == (36, 36, 0, {})
    assert (found.temperature, found.verifier, found.scores) == (1.0, "digits", {"digits": 36})
    assert found.measured == 24
    assert [part.part for part in found.parts] == ["all", "lag 0"]
    table = pd.DataFrame(found.rows).set_index("part")
    assert table.loc["all", "rollouts"] == 24
    assert table.loc["lag 0", "ess_token"] == pytest.approx(1.0)
    assert found.advice.recipe is not None
    assert found.command is not None
    assert found.command.startswith(f"rlvr train --rollouts {run} --model {tiny_model} --recipe {found.advice.recipe}")
    assert json.loads(json.dumps(found.to_dict())) == found.to_dict()
    assert texts[0] == "1 record read"
    assert texts[-1] == "log-probabilities of 24 of 24 rollouts"
    with pytest.raises(FrozenInstanceError):
        found.usable = 0  # type: ignore[misc]


def test_records_that_cannot_be_used_are_counted_by_reason(run: Path, tiny_model: Path) -> None:
    found = rlvr.diagnose([run / "rollouts"], str(tiny_model), temperature=0.5, device="cpu")
    assert (found.usable, found.measured, found.parts, found.rows, found.command) == (0, 0, (), [], None)
    assert found.reasons == {"sampled at temperature 1, not 0.5": 36}
    assert found.advice.name == "nothing usable"


def test_a_wrong_request_raises(run: Path, tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="does not exist"):
        rlvr.diagnose(tmp_path / "nowhere.jsonl", tiny_model)
    with pytest.raises(RequestError, match="no score by 'other'"):
        rlvr.diagnose(run, tiny_model, verifier="other", device="cpu")
