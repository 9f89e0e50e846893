"""Workers see no tokens that were not declared, and secret options are never written down."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import SecretStr

import rlvr
import small_runs
from rlvr.errors import ConfigError, PluginError
from rlvr.protocols import SamplerOptions
from rlvr.record.item import Item
from rlvr.record.schema import Status, Task
from rlvr.secret_options import is_secret, writable_model
from rlvr.settings import sampler_options
from rlvr.verify.scoring import Scorer
from rlvr.verify.verifying import load_verifier, verifier

SECRET = "sk-0123456789-secret"
JUDGES = """
import os, signal
from pydantic import SecretStr
import rlvr

AT_IMPORT = dict(os.environ)
LOADED = {}

def load():
    LOADED.update(os.environ)

@rlvr.verifier(name="looking", version="1", needs_answer=False)
def looking(completion, task):
    return rlvr.Verdict(status="graded", reward=1.0, extracted=" ".join(sorted({*AT_IMPORT, *os.environ})))

@rlvr.verifier(name="declaring", version="1", needs_answer=False, env=["JUDGE_API_KEY", "NOT_SET"], preload=load)
def declaring(completion, task):
    if completion == "kill the parent":
        os.kill(os.getppid(), signal.SIGKILL)
        signal.pause()
    seen = os.environ["JUDGE_API_KEY"] + LOADED["JUDGE_API_KEY"] + str("NOT_SET" in os.environ)
    return rlvr.Verdict(status="graded", reward=1.0, extracted=str(len(seen)))

@rlvr.verifier(name="keyed", version="1", needs_answer=False, answer_form=None)
def keyed(completion, task, *, api_key: str | None = None, password: SecretStr = SecretStr("built in"), limit: int = 3):
    right = api_key == "sk-0123456789-secret"
    return rlvr.Verdict(status="graded", reward=float(right), extracted=str(len(password.get_secret_value())))
"""


@pytest.fixture
def judges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "judges.py").write_text(JUDGES)
    for name in ("JUDGE_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "SOMETHING_ELSE", "PYTHON_TOKEN", "MKL_THREADS"):
        monkeypatch.setenv(name, SECRET)
    return f"{tmp_path}/judges.py"


def verdict(scorer: Scorer) -> Any:
    (score,) = scorer.score([Item("x", Task(answer="1"))])
    return score


def test_a_worker_sees_what_python_and_libraries_need_and_nothing_else(judges: str) -> None:
    with Scorer(f"{judges}:looking", workers=1, timeout=60) as scorer:
        seen = set(verdict(scorer).extracted.split())
    assert {"PATH", "HOME", "PYTHONHASHSEED", "TMPDIR", "MKL_THREADS"} <= seen
    assert not seen & {"JUDGE_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "SOMETHING_ELSE", "PYTHON_TOKEN"}


def test_a_worker_sees_what_the_verifier_declares(judges: str) -> None:
    with Scorer(f"{judges}:declaring", workers=2, timeout=60) as scorer:
        assert verdict(scorer).extracted == str(2 * len(SECRET) + len("False"))


def test_a_replaced_process_sees_it_too(judges: str) -> None:
    with Scorer(f"{judges}:declaring", workers=1, timeout=60) as scorer:
        (killer,) = scorer.score([Item("kill the parent", Task(answer="1"))])
        assert killer.status is Status.ERROR
        assert verdict(scorer).reward == 1.0


@pytest.mark.parametrize("env", ["JUDGE_API_KEY", [""], [5]])
def test_env_is_a_list_of_names(env: Any) -> None:
    with pytest.raises(PluginError, match="expected a list of names of environment variables"):
        verifier(env=env)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_secret_option_is_taken_from_the_environment_and_written_as_its_variable(judges: str, workers: int) -> None:
    options = {"api_key": "env:JUDGE_API_KEY", "limit": 4}
    with Scorer(f"{judges}:keyed", options, workers=workers, timeout=60) as scorer:
        score = verdict(scorer)
    assert (score.reward, score.extracted) == (1.0, str(len("built in")))
    assert score.config == {"api_key": "env:JUDGE_API_KEY", "password": "**********", "limit": 4}


def test_python_code_may_pass_a_secret_of_its_own(judges: str) -> None:
    with Scorer(f"{judges}:keyed", {"password": SecretStr("abc")}, workers=1, timeout=60) as scorer:
        score = verdict(scorer)
    assert (score.extracted, score.config["password"], score.config["api_key"]) == ("3", "**********", None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"api_key": SECRET}, r"option 'api_key' is secret, .*: give it as api_key=env:NAME"),
        ({"password": SECRET}, r"option 'password' is secret, .*: give it as password=env:NAME"),
        ({"api_key": 5}, r"option 'api_key' is secret"),
        ({"api_key": "env:NOT_SET"}, r"option 'api_key' is env:NOT_SET, but there is no environment variable NOT_SET"),
    ],
)
def test_a_secret_that_is_written_out_is_refused_and_not_repeated(
    judges: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        load_verifier(f"{judges}:keyed", **options)
    assert SECRET not in str(raised.value)


def contents(folder: Path) -> str:
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "judges.py"]
    return "".join(path.read_bytes().decode("latin-1") for path in files)


def test_no_file_of_rlvr_score_holds_the_secret(judges: str, tmp_path: Path, cli: Callable[..., Any]) -> None:
    (tmp_path / "rows.jsonl").write_text('{"completion": "x"}\n')
    command = ("score", "rows.jsonl", "-v", "judges.py:keyed", "--workers", "1", "--out", "out.jsonl")
    refused = cli(*command, "--option", f"api_key={SECRET}")
    assert refused.code == 2
    assert SECRET not in refused.err
    assert cli(*command, "--option", "api_key=env:JUDGE_API_KEY", "--cache", "cache").code == 0
    assert json.loads((tmp_path / "out.jsonl").read_text())["scores"][0]["reward"] == 1.0
    assert SECRET not in contents(tmp_path)


def test_no_file_of_a_run_holds_the_secret(judges: str, tmp_path: Path, tiny_model: Path) -> None:
    settings = {**small_runs.SMALL, "model": str(tiny_model), "verifier": f"{judges}:keyed", "steps": 1}
    settings |= {"eval.questions": 0, "verifier.workers": 1, "verifier.timeout": 60}
    with pytest.raises(ConfigError, match="is secret"):
        rlvr.train({**settings, "verifier.options": {"api_key": SECRET}}, out=tmp_path / "refused")
    rlvr.train({**settings, "verifier.options": {"api_key": "env:JUDGE_API_KEY"}}, out=tmp_path / "run")
    assert "api_key: env:JUDGE_API_KEY" in (tmp_path / "run" / "config.yaml").read_text()
    assert SECRET not in contents(tmp_path)
    assert rlvr.train(resume=tmp_path / "run", overrides={"steps": 2}).finished
    assert os.environ["JUDGE_API_KEY"] == SECRET


class EngineOptions(SamplerOptions):
    api_key: str | None = None
    token: SecretStr = SecretStr("built in")
    max_tokens: int = 3


def test_secret_options_of_samplers_and_trainers_are_treated_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGINE_KEY", SECRET)
    given = {"api_key": "env:ENGINE_KEY", "token": "env:ENGINE_KEY", "max_tokens": 5}
    options = sampler_options(given, EngineOptions)
    assert (options.api_key, options.token.get_secret_value()) == (SECRET, SECRET)
    assert writable_model(options, given) == given
    assert writable_model(EngineOptions(), {}) == {"api_key": None, "max_tokens": 3}
    with pytest.raises(ConfigError, match=r"sampling.options.api_key is secret") as raised:
        sampler_options({"api_key": SECRET}, EngineOptions)
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "annotation", "value", "expected"),
    [
        ("api_key", str, "", True),
        ("apiKey", str | None, None, True),
        ("HF_TOKEN", Any, "x", True),
        ("key", Any, None, True),
        ("anything", SecretStr | None, None, True),
        ("max_tokens", int, 5, False),
        ("max_tokens", Any, None, False),
        ("token", int, 5, False),
        ("token", Any, 5, False),
        ("key", Literal["a", "b"], "a", False),
        ("keyword", str, "x", False),
        ("tokenizer", str, "x", False),
        ("monkey", str, "x", False),
    ],
)
def test_which_options_are_secret(name: str, annotation: Any, value: Any, expected: bool) -> None:
    assert is_secret(name, annotation, value) is expected
