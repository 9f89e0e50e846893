"""`rlvr diagnose` on a real run's rollouts, and on unusable ones."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import small_runs
from rlvr.protocols import ModelSpec
from rlvr.record.schema import ModelRef, Rollout, Score, Status
from rlvr.record.store import read_rollouts, write_rollouts
from rlvr.run.config import model_config
from rlvr.run.models import load_tokenizer, tokenizer_hash


@pytest.fixture(scope="module")
def run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run of six steps with v = 3, and a learning rate large enough to see their effect."""
    path: Path = tmp_path_factory.mktemp("runs") / "run"
    small_runs.start(
        small_runs.small_config(tiny_model, trainer="grpo-off", trainer__push_every=3, eval__questions=0), path
    )
    return path


@pytest.fixture
def diagnose(cli: Callable[..., Any]) -> Callable[..., str]:
    def call(*arguments: str | Path) -> str:
        done = cli("diagnose", *arguments, "--device", "cpu")
        assert done.code in (0, 2)
        return str(done.err if done.code else done.out)

    return call


@pytest.fixture
def records(run: Path) -> list[Rollout]:
    """The run's first batch: three groups of four, scored by digits."""
    return list(read_rollouts(run / "rollouts" / "step-000000.parquet"))


def at(temperature: float, rollout: Rollout) -> Rollout:
    assert rollout.sampling is not None
    sampling = rollout.sampling.model_copy(update={"temperature": temperature, "logprob_mode": "processed"})
    return rollout.model_copy(update={"sampling": sampling})


def scored(verifier: str, i: int, rollout: Rollout) -> Rollout:
    return rollout.with_score(Score(status=Status.GRADED, reward=float(i % 2), verifier=verifier, version="1"))


def command_of(shown: str) -> list[str]:
    (command,) = re.findall(r"^ +rlvr (train .+)$", shown, flags=re.MULTILINE)
    return shlex.split(command)


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
    for text in ("usable       72 (100.0%)", "measured     8 of them", "PART", "ESS SEQ", "recommended  "):
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
    assert "not usable   12 (100.0%): no behavior log-probabilities" in shown
    assert "--behaviour-model" in shown
    assert "recommended  nothing yet: recompute" in shown
    assert "ESS SEQ" not in shown


CHANGED: list[tuple[str, Callable[[int, Rollout], Rollout], str, list[str]]] = [
    ("two verifiers", lambda i, r: scored("short", i, r), "scores by short", ["--verifier short", "eval.questions=0"]),
    ("one that can judge", lambda i, r: scored("math", i, r), "scores by math", ["--verifier math"]),
    ("temperature", lambda i, r: at(0.7, r), "at temperature 0.7", ["--set sampling.temperature=0.7"]),
    (
        "two temperatures",
        lambda i, r: at(0.7, r) if i < 4 else r,
        "not usable   8 (66.7%): sampled at temperature 1, not 0.7\n"
        "             train at the sampling temperature: "
        "--set sampling.temperature=T; records of two temperatures need two runs",
        ["--set sampling.temperature=0.7", "--skip-unusable"],
    ),
    (
        "some without log-probabilities",
        lambda i, r: r.model_copy(update={"behaviour_logprobs": None}) if i < 4 else r,
        "4 of them lack nothing else: rlvr train --behaviour-model MODEL recomputes these",
        ["--skip-unusable"],
    ),
    (
        "some greedy",
        lambda i, r: at(0.0, r) if i < 4 else r,
        "sampled greedily: temperature 0 has no log-probabilities\n             sample again at a temperature above 0",
        ["--skip-unusable"],
    ),
]


@pytest.mark.parametrize(("change", "told", "options"), [case[1:] for case in CHANGED], ids=[c[0] for c in CHANGED])
def test_the_command_that_is_recommended_is_one_that_train_takes(
    records: list[Rollout],
    tiny_model: Path,
    tmp_path: Path,
    diagnose: Any,
    cli: Any,
    change: Callable[[int, Rollout], Rollout],
    told: str,
    options: list[str],
) -> None:
    write_rollouts(tmp_path / "changed.jsonl", [change(i, record) for i, record in enumerate(records)])
    shown = diagnose(tmp_path / "changed.jsonl", "--model", tiny_model)
    assert told in shown
    command = command_of(shown)
    for option in ("--verifier", *options):
        assert option in shlex.join(command)
    done = cli(*command, "--dry-run")
    assert done.code == 0, done.err
    assert f"scores by {command[command.index('--verifier') + 1]}" in done.out


@pytest.mark.parametrize("verifier", ["short", "not_installed:short"])
def test_the_command_goes_with_a_model_that_has_questions_of_its_own(
    records: list[Rollout], tmp_path: Path, diagnose: Any, cli: Any, verifier: str
) -> None:
    """The embedded model's preset evaluates held-out questions, which needs a verifier that can be loaded."""
    own = tokenizer_hash(load_tokenizer(ModelSpec(model_config("embedded").location)))
    write_rollouts(
        tmp_path / "short.jsonl",
        [
            scored(verifier, i, r).model_copy(update={"model": ModelRef(tokenizer_hash=own)})
            for i, r in enumerate(records)
        ],
    )
    done = cli(*command_of(diagnose(tmp_path / "short.jsonl", "--model", "embedded")), "--dry-run")
    assert done.code == 0, done.err


def test_where_nothing_is_usable_each_reason_has_its_remedy(
    records: list[Rollout], tiny_model: Path, tmp_path: Path, diagnose: Any
) -> None:
    greedy = [at(0.0, record).model_copy(update={"group_id": None, "scores": ()}) for record in records]
    write_rollouts(tmp_path / "greedy.jsonl", greedy)
    shown = diagnose(tmp_path / "greedy.jsonl", "--model", tiny_model)
    assert shown.startswith(f"{tmp_path / 'greedy.jsonl'} against {tiny_model}\n")
    for text in ("sample again at a temperature above 0", "a common group_id", "rlvr score FILE --verifier NAME"):
        assert text in shown
    assert "rlvr train" not in shown


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
