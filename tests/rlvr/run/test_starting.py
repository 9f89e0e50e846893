"""Starting configurations: each resolves, names its sources, and passes `--dry-run` with a small model in its place."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlvr.errors import ConfigError
from rlvr.run.config import resolve
from rlvr.run.starting import config_file, starting_configurations

CONFIGS = starting_configurations()


def test_there_are_configurations_for_small_and_large_models_with_and_without_adapters() -> None:
    assert set(CONFIGS) == {
        "gsm8k-0.5b", "gsm8k-0.5b-lora", "deepscaler-1.5b", "deepscaler-1.5b-lora", "deepscaler-7b-lora",
    }  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_every_value_has_its_source_beside_it(name: str) -> None:
    lines = [line for line in CONFIGS[name].read_text().splitlines() if line and not line.startswith("#")]
    values = [line for line in lines if not line.split("#")[0].rstrip().endswith(":")]
    assert values
    assert [line for line in values if " # " not in line] == []


@pytest.mark.parametrize("name", CONFIGS)
def test_an_adapter_changes_rate_and_adapter_only(name: str) -> None:
    if not name.endswith("-lora") or name.removesuffix("-lora") not in CONFIGS:
        return
    config, whole = (resolve({}, CONFIGS[each]).model_dump() for each in (name, name.removesuffix("-lora")))
    assert config["trainer"].pop("lr") == pytest.approx(10 * whole["trainer"].pop("lr"))
    assert config["trainer"].pop("lora")["targets"] == "all-linear"
    config["trainer"].pop("ref_reset_every", None)
    assert config == whole


@pytest.mark.parametrize("name", CONFIGS)
def test_each_passes_the_dry_run(name: str, awkward_model: Path, tmp_path: Path, cli: Callable[..., Any]) -> None:
    """Models and data sets cannot be fetched here: a small model and a file take their places."""
    rows = tmp_path / "rows.jsonl"
    question, answer = ("question", "#### 2") if name.startswith("gsm8k") else ("problem", "2")
    rows.write_text("".join(json.dumps({question: f"What is {i}+1?", "answer": answer}) + "\n" for i in range(9)))
    done = cli(
        "train", "--config", name, "--dry-run", "--json", "--set", f"model.path={awkward_model}", "--data-files", rows,
        "--set", "eval.questions=0", "--set", "checkpoint.best=null", "--set", "verifier.workers=0",
        "--set", "sampling.max_tokens=64", "--set", "dataset.max_prompt_tokens=120", "--sampler", "hf",
    )  # fmt: skip
    assert done.code == 0, done.err
    summary = json.loads(done.out)
    assert summary["questions"] == 9
    assert summary["memory"]["peak"] > 0


def test_a_name_that_does_not_exist_is_refused_with_those_that_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--config gsm8k-05b: .*did you mean 'gsm8k-0.5b'"):
        config_file("gsm8k-05b")
    assert config_file("mine.yaml") == Path("mine.yaml")
    (tmp_path / "gsm8k-0.5b").write_text("steps: 1")
    assert config_file(tmp_path / "gsm8k-0.5b") == tmp_path / "gsm8k-0.5b"
