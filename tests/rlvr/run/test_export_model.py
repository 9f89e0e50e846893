"""Weights that a run keeps besides its newest checkpoints, and `rlvr.export_model`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import rlvr
import small_runs
from rlvr.errors import ConfigError, RequestError
from rlvr.protocols import ModelSpec
from rlvr.run.config import CheckpointConfig
from rlvr.run.keeping import Keeper
from rlvr.run.model_folder import convert_model
from rlvr.run.plan import make_plan
from rlvr.run.rundir import RunDirectory

SETTINGS = {
    "checkpoint__best": "eval/reward", "checkpoint__weights_every": 2, "checkpoint__every": 100,
    "steps": 4, "eval__every": 2, "eval__questions": 3, "sampling__max_tokens": 4,
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four steps that keeps the best weights, and weights alone every two steps."""
    path: Path = tmp_path_factory.mktemp("runs") / "run"
    small_runs.start(small_runs.small_config(tiny_model, **SETTINGS), path)
    return path


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return dict(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict())


def as_bfloat16(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.bfloat16().float() for name, tensor in weights.items()}


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


def test_the_best_evaluation_keeps_its_weights(run: Path) -> None:
    rewards = {line["step"]: line["eval/reward"] for line in small_runs.metrics_of(run) if "eval/reward" in line}
    # An evaluation comes before its batch; the last one after it.
    measured = {4 if step == 3 else step: reward for step, reward in rewards.items()}
    best = max(measured, key=lambda step: (measured[step], -step))
    kept = json.loads((run / "weights" / "best" / "best.json").read_text())
    assert kept == {"step": best, "metric": "eval/reward", "value": measured[best]}


def test_weights_alone_are_kept_in_bfloat16(run: Path) -> None:
    assert sorted(folder.name for folder in (run / "weights").iterdir()) == ["best", "step-000002", "step-000004"]
    folder = run / "weights" / "step-000004"
    assert {t.dtype for t in load_file(folder / "model.safetensors").values()} == {torch.bfloat16}
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"
    assert same(weights_of(folder), as_bfloat16(weights_of(run / "checkpoints" / "step-000004")))
    assert AutoTokenizer.from_pretrained(folder)("1+1")["input_ids"]


@pytest.mark.parametrize(
    ("asked", "source"),
    [("newest", "checkpoints/step-000004"), ("4", "checkpoints/step-000004"), (2, "weights/step-000002"),
     ("best", "weights/best")],
)  # fmt: skip
def test_a_checkpoint_is_exported_for_from_pretrained(run: Path, asked: int | str, source: str, tmp_path: Path) -> None:
    result = rlvr.export_model(run, tmp_path / "model", checkpoint=asked)
    assert (result.source, result.dtype) == (run / source, "bfloat16")
    assert same(weights_of(tmp_path / "model"), as_bfloat16(weights_of(run / source)))
    assert AutoTokenizer.from_pretrained(tmp_path / "model")("1+1")["input_ids"]
    names = {file.name for file in (tmp_path / "model").iterdir()}
    assert names == {name for name, _ in result.files}
    assert not names & {"optimizer.pt", "trainer.json", "run.json", "SHA256SUMS", "best.json"}
    assert json.loads(json.dumps(result.to_dict()))["source"] == str(run / source)


def test_float32_is_exported_bit_by_bit(run: Path, tmp_path: Path) -> None:
    rlvr.export_model(run, tmp_path / "model", dtype="float32")
    assert same(weights_of(tmp_path / "model"), weights_of(run / "checkpoints" / "step-000004"))


def test_large_models_are_written_in_several_files_and_read_back(run: Path, tmp_path: Path) -> None:
    source = run / "checkpoints" / "step-000004"
    convert_model(source, tmp_path / "several", "float32", shard_bytes=20_000)
    shards = sorted(file.name for file in (tmp_path / "several").glob("*.safetensors"))
    assert shards[0] == f"model-00001-of-{len(shards):05d}.safetensors"
    assert len(shards) > 2
    convert_model(tmp_path / "several", tmp_path / "one", "float32")
    assert not list((tmp_path / "one").glob("model-*"))
    for folder in ("several", "one"):
        assert same(weights_of(tmp_path / folder), weights_of(source))


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning")  # peft reads it
def test_an_adapter_is_merged_or_exported_alone(tiny_model: Path, tmp_path: Path) -> None:
    from peft import PeftModel

    config = small_runs.small_config(tiny_model, steps=1, eval__questions=0, trainer__lora={"rank": 2, "alpha": 4})
    small_runs.start(config, tmp_path / "run")
    merged = rlvr.export_model(tmp_path / "run", tmp_path / "merged", dtype="float32")
    alone = rlvr.export_model(tmp_path / "run", tmp_path / "alone", adapter=True)
    assert (merged.adapter, alone.adapter) == (False, True)
    assert not {name for name, _ in alone.files} & {"config.json", "model.safetensors"}
    config_file = json.loads((tmp_path / "alone" / "adapter_config.json").read_text())
    assert config_file["base_model_name_or_path"] == str(tiny_model)
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    together: Any = PeftModel.from_pretrained(base, tmp_path / "alone")
    found, expected = dict(together.merge_and_unload().state_dict()), weights_of(tmp_path / "merged")
    assert all(torch.allclose(found[name], expected[name], atol=1e-7) for name in expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"checkpoint": 3}, r"holds no checkpoint 3; it holds 2, 4, best"),
        ({"checkpoint": "last"}, r"checkpoint: 'last' is no number of batches; or say newest or best"),
        ({"dtype": "fp8"}, r"there is no 'fp8'; choose float32, bfloat16, float16"),
        ({"adapter": True}, r"holds no adapter: the run trained all weights"),
        ({"public": True}, r"public is about the upload"),
        ({"hub": "me/model"}, r"cannot upload to me/model: HF_HUB_OFFLINE is set"),
    ],
)
def test_what_cannot_be_exported_is_refused(run: Path, arguments: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=message):
        rlvr.export_model(run, tmp_path / "model", **arguments)
    assert not (tmp_path / "model").exists()


def test_no_folder_is_written_over(run: Path, tmp_path: Path, cli: Callable[..., Any]) -> None:
    assert cli("export-model", run, "--out", "model").code == 0
    again = cli("export-model", run, "--out", "model")
    assert (again.code, again.err) == (2, "rlvr: model exists already: name a new folder\n")
    none = cli("export-model", "nowhere", "--out", "other")
    assert (none.code, none.err) == (2, "rlvr: nowhere is no run directory (no config.yaml)\n")


def test_a_checkpoint_is_due_by_steps_or_minutes(tmp_path: Path) -> None:
    now = 0.0
    with RunDirectory.create(tmp_path / "run", small_runs.resolve({})) as directory:
        spec = ModelSpec("unused")
        keeper = Keeper(CheckpointConfig(every=10, minutes=2), directory, spec, clock=lambda: now)
        assert [keeper.checkpoint_is_due(step) for step in (9, 10, 11)] == [False, True, False]
        now = 120.0
        assert keeper.checkpoint_is_due(11)
        keeper.saved()
        assert not keeper.checkpoint_is_due(11)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"checkpoint__best": "eval/rewards"},
            "the evaluation has no metric 'eval/rewards'; did you mean 'eval/reward'",
        ),
        ({"checkpoint__best": "eval/reward", "eval__questions": 0}, "no held-out questions are asked"),
    ],
)
def test_a_metric_that_the_run_lacks_is_refused(tiny_model: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message), make_plan(small_runs.small_config(tiny_model, **changes)):
        pass
