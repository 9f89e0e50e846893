"""The study under examples/: regimes match their names on both bases, and reports match the runs."""

from __future__ import annotations

import importlib.util
import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from rlvr.run.config import RunConfig, read_recipe, resolve
from rlvr.settings import command_line_settings

FOLDER = Path(__file__).parents[1] / "examples" / "revisiting_grpo"
BASES = [FOLDER / "embedded.yaml", FOLDER / "gsm8k.yaml"]

_spec = importlib.util.spec_from_file_location("study", FOLDER / "study.py")
assert _spec is not None
assert _spec.loader is not None
study = importlib.util.module_from_spec(_spec)
sys.modules["study"] = study  # where its dataclasses look for their annotations
_spec.loader.exec_module(study)

REGIMES, PARTS = study.read_study(FOLDER / "study.yaml")


def configured(name: str, base: Path) -> RunConfig:
    """Return the configuration that `rlvr train` makes of the regime's arguments."""
    _, recipe, *sets = REGIMES[name].arguments(base)
    assert sets[::2] == ["--set"] * (len(sets) // 2)
    return resolve(command_line_settings(sets[1::2], {"recipe": ("--recipe", recipe)}), base)


@pytest.mark.parametrize("base", BASES, ids=lambda base: base.stem)
def test_a_regime_is_its_recipe_but_for_what_it_says(base: Path) -> None:
    """The base overrides recipes, so it must not set what recipes differ in."""
    plain = resolve({}, base).trainer.options
    for name, regime in REGIMES.items():
        _, layer = read_recipe(regime.recipe)
        own = {key.removeprefix("trainer."): s.value for key, s in layer.items() if key.startswith("trainer.")}
        said = {key[8:]: value for key, value in regime.settings.items() if key.startswith("trainer.")}
        found = configured(name, base).trainer
        assert found.name == own.pop("name")
        expected = {**plain, **own, **said, "lr": regime.lr * plain["lr"]}
        assert found.options == expected, name
    assert {name.rpartition("-lr-")[2]: regime.lr for name, regime in REGIMES.items() if regime.lr != 1} == {
        "half": 0.5,
        "twice": 2,
        "4x": 4,
    }


@pytest.mark.parametrize("base", BASES, ids=lambda base: base.stem)
def test_names_say_v_and_i(base: Path) -> None:
    for name in REGIMES:
        options: dict[str, Any] = configured(name, base).trainer.options
        if not re.search(r"(^|-)v\d", name):  # those of the parts mismatch and async
            assert options.get("push_every", 1) == options.get("updates_per_batch", 1) == 1, name
            continue
        v, _, rest = name.removeprefix("v").partition("-i") if name.startswith("v") else name.rpartition("-v")[::-1]
        assert options.get("push_every", 1) == int(v), name
        if name.startswith("v"):
            assert options.get("updates_per_batch", 1) == int(rest.partition("-")[0]), name


def test_every_regime_answers_a_question() -> None:
    assert {name for part in PARTS for name in part.regimes} == set(REGIMES)


def test_an_interval_is_student_s() -> None:
    estimate = study.Estimate.of([0.1, 0.2, 0.3, 0.4, 0.5])
    assert (estimate.mean, estimate.half) == pytest.approx((0.3, 2.776 * math.sqrt(0.025 / 5)))
    assert study.Estimate.of([0.5]).percent() == "50.0"
    assert study.Estimate.of([0.0, 0.02]).percent(signed=True) == "+1.0 ± 12.7"
    assert study.Estimate.of([0.0, 1.0] * 9).half == pytest.approx(
        study.T_95[9] * study.statistics.stdev([0.0, 1.0] * 9) / math.sqrt(18)
    ), "between two entries the one that is wider"


def test_what_a_curve_says_of_a_run() -> None:
    points = [study.Point(*point) for point in ((0, 0, 0.2, 0.5), (10, 100, 0.6, 0.7), (20, 400, 0.4, 0.8))]
    result = study.Result(REGIMES["v1-i1"], {0: points}, {0: []})
    assert result.final("sampled") == {0: 0.4}
    assert result.over_the_run() == {0: pytest.approx((100 * 0.4 + 300 * 0.5) / 400)}
    assert result.fall() == {0: pytest.approx(0.2)}
    assert result.at_gradient_steps(14) == {0: points[1]}
    assert (result.last("gradient_steps"), result.last("rollouts")) == (20, 400)


def test_a_study_runs_reports_and_does_not_run_again_what_has_ended(
    tmp_path: Path, cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first three runs take the study's commands and this process; the study itself starts the last."""
    base = {"model": "embedded", "steps": 3, "checkpoint": {"every": 2}, "verifier": {"workers": 0}}
    base |= {"sampling": {"prompts_per_step": 2, "group_size": 4}, "eval": {"every": 1, "questions": 8}}
    regimes = {"v1-i1": {"recipe": "paper-v1-i1"}, "v1-i4": {"recipe": "paper-v1-i1", "lr": 2}}
    regimes["v1-i4"] |= {"settings": {"trainer.updates_per_batch": 4}}
    parts = {"both": {"title": "Both", "regimes": [*regimes]}}
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(base))
    (tmp_path / "study.yaml").write_text(yaml.safe_dump({"regimes": regimes, "parts": parts}))
    arguments = [
        "--study", "study.yaml", "--base", "base.yaml", "--seeds", "0", "1", "--runs", "runs", "--results", "results",
        "--jobs", "1",
    ]  # fmt: skip
    named, _ = study.read_study(tmp_path / "study.yaml")
    for name, seed in (("v1-i1", 0), ("v1-i4", 0), ("v1-i1", 1)):
        job = study.Job(named[name], seed, tmp_path / "base.yaml", tmp_path / "runs" / name / f"seed-{seed}")
        python, dash, module, *command = job.command()
        assert (python, dash, module) == (sys.executable, "-m", "rlvr")
        done = cli(*command)
        assert done.code == 0, done.err
        (job.directory / "done").touch()
    program = [sys.executable, str(FOLDER / "study.py"), *arguments]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (done.stdout.count(": was there"), done.stdout.count(": done")) == (3, 1)
    first, second = ((tmp_path / "runs" / name / "seed-1" / "config.yaml").read_text() for name in regimes)
    assert ("lr: 5.0e-05" in first, "lr: 0.0001" in second) == (True, True)
    table = (tmp_path / "results" / "both.md").read_text()
    assert (tmp_path / "results" / "both.png").stat().st_size > 1000
    lines = [json.loads(line) for line in (tmp_path / "runs/v1-i1/seed-0/metrics.jsonl").read_text().splitlines()]
    curve = study.curve(tmp_path / "runs" / "v1-i1" / "seed-0")
    assert [(p.gradient_steps, p.rollouts) for p in curve] == [(0, 0), (1, 8), (3, 24)]
    assert curve[-1].sampled == lines[-1]["eval/accuracy"]
    ends = [study.curve(tmp_path / "runs" / "v1-i4" / f"seed-{seed}")[-1].sampled for seed in (0, 1)]
    row = next(line for line in table.splitlines() if line.startswith("| `v1-i4`"))
    assert row.startswith(f"| `v1-i4` | 2 | 24 | {study.Estimate.of(ends).percent()} |")
    assert " gradient steps**" in table
    with monkeypatch.context() as patch:
        patch.setattr(sys, "argv", ["study.py", *arguments])
        study.main()
    assert capsys.readouterr().out.count(": was there") == 4
    assert (tmp_path / "results" / "both.md").read_text() == table
