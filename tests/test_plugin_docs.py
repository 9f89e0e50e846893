"""The package of docs/plugins.md: its files are installed from the page, and every hook is used."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlvr import hookspecs
from rlvr.registry import KINDS
from rlvr.run.config import Setting, resolve

PAGE = (Path(__file__).parents[1] / "docs" / "plugins.md").read_text()
HOOKS = [name for name, _ in inspect.getmembers(hookspecs, inspect.isfunction) if name.startswith("rlvr_")]
BLOCK = re.compile(r"^```\w+\n# (?P<path>\S+)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, pip_install: Callable[[Path], Path]) -> Path:
    """A folder with the page's package in it."""
    tree = tmp_path_factory.mktemp("page")
    for block in BLOCK.finditer(PAGE):
        path = tree / block["path"]
        path.parent.mkdir(exist_ok=True)
        path.write_text(block["text"])
    return pip_install(tree)


def python(site: Path, cwd: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def entries(site: Path) -> list[dict[str, str]]:
    listed = json.loads(python(site, site, "-m", "rlvr", "plugins", "--json"))
    return [entry for entry in listed if entry["distribution"] == "rlvr-mine"]


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_has_a_section_and_an_example_that_registers(hook: str, entries: list[dict[str, str]]) -> None:
    (section,) = re.findall(rf"^### `{hook}`\n(.*?)(?=^##|\Z)", PAGE, flags=re.DOTALL | re.MULTILINE)
    (kind,) = [kind for kind, name in KINDS.items() if name == hook]
    (entry,) = [entry for entry in entries if entry["kind"] == kind]
    files = [block["path"] for block in BLOCK.finditer(section)]
    module = entry["target"].partition(":")[0].replace(".", "/")
    shown = [file for file in files if file == f"{module}.py" or entry["target"].endswith(file)]
    assert shown, "the section shows the file that the hook points to"


def test_a_run_uses_every_example(
    site: Path, tmp_path: Path, on_path: Callable[[Path], None], cli: Callable[..., Any]
) -> None:
    names = ("--dataset", "doubles", "--verifier", "short", "--trainer", "reinforce", "--tracker", "csv")
    sampler = ("--set", "sampling.engine=logged", "--set", "sampling.options.file=groups.jsonl")
    options = ("--set", "verifier.options.most=5", "--set", "trainer.gain=0.5", "--set", "eval.questions=4")
    small = ("--model", "embedded", "--steps", "2", "--prompts-per-step", "3", "--group-size", "8", "--out", "run")
    on_path(site)
    done = cli("train", *names, *sampler, *options, *small)
    assert done.code == 0, done.err
    metrics = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [step["policy_version"] for step in metrics] == [1, 2]
    assert {step["verdict/graded"] for step in metrics} == {1.0}
    assert len((tmp_path / "groups.jsonl").read_text().splitlines()) >= 2 * 3
    assert "1,policy_version,2" in (tmp_path / "run" / "metrics.csv").read_text().splitlines()


def test_its_tests_pass(site: Path, tmp_path: Path) -> None:
    (test,) = [block["text"] for block in BLOCK.finditer(PAGE) if block["path"] == "test_mine.py"]
    (tmp_path / "test_mine.py").write_text(test)
    assert "2 passed" in python(site, tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_mine.py")


def test_the_preset_gives_its_settings(site: Path, on_path: Callable[[Path], None]) -> None:
    on_path(site)
    config = resolve({"model.name": Setting("mine", "test")})
    assert config.model.path == str(site / "rlvr_mine" / "checkpoint")
    assert (config.dataset.name, config.sampling.max_tokens) == ("doubles", 8)
    assert config.trainer.options["lr"] == 3e-5


def test_the_recipe_gives_its_settings(site: Path, on_path: Callable[[Path], None]) -> None:
    on_path(site)
    config = resolve({"recipe": Setting("mild", "test"), "trainer.epsilon_high": Setting(0.1, "test")})
    options = config.trainer.options
    assert (config.recipe, config.trainer.name) == ("mild", "grpo")
    assert (options["band"], options["epsilon_high"]) == ("upper", 0.1)
