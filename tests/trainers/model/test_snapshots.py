"""Snapshots hold what `save_pretrained` writes, under the same names, and load into a sampler's model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel, Qwen2Config, Qwen2MoeConfig

from rlvr.errors import RunError
from rlvr.protocols import ModelSpec, Snapshot, TrainContext
from rlvr_trainers.grpo import Grpo, GrpoOptions
from rlvr_trainers.model.snapshots import load_snapshot, snapshot_from, snapshot_of

SMALL = {
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}


def model_of(config: Qwen2Config | Qwen2MoeConfig, seed: int = 0) -> PreTrainedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config).eval()
    return model


def dense(tied: bool, seed: int = 0) -> PreTrainedModel:
    return model_of(Qwen2Config(**SMALL, tie_word_embeddings=tied), seed)


def mixture(seed: int = 0) -> PreTrainedModel:
    """Mixture of experts, whose experts are fused in memory and separate in a checkpoint."""
    config = Qwen2MoeConfig(
        **SMALL, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=8, shared_expert_intermediate_size=8
    )
    return model_of(config, seed)


def written(model: PreTrainedModel, folder: Path) -> dict[str, Tensor]:
    model.save_pretrained(folder)
    return load_file(folder / "model.safetensors")


MODELS = {"tied": lambda seed=0: dense(True, seed), "untied": lambda seed=0: dense(False, seed), "mixture": mixture}


@pytest.mark.parametrize("name", MODELS)
def test_a_snapshot_is_what_save_pretrained_writes(name: str, tmp_path: Path) -> None:
    model = MODELS[name]()
    snapshot = snapshot_of(model, 3)
    expected = written(model, tmp_path)
    found = dict(snapshot.tensors())
    assert list(snapshot.layout) == list(found), "the layout says in which order tensors come"
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], tensor) for key, tensor in expected.items())
    assert all(layout.shape == found[key].shape for key, layout in snapshot.layout.items())
    assert {layout.dtype for layout in snapshot.layout.values()} == {"float32"}
    assert snapshot.tied == ({"lm_head.weight": "model.embed_tokens.weight"} if name == "tied" else {})
    assert snapshot.version == 3


def test_the_mixture_of_this_test_has_other_parameters_than_its_checkpoint() -> None:
    model = mixture()
    assert any(".experts.gate_up_proj" in name for name in model.state_dict())
    assert any(".experts.3.up_proj.weight" in name for name in snapshot_of(model, 0).layout)


def test_tensors_are_read_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    model, merged = dense(False), []
    snapshot = snapshot_of(model, 0, merge=lambda name, tensor: merged.append(name) or tensor)  # type: ignore[func-returns-value]
    assert not merged, "the layout needs no values"
    next(snapshot.tensors())
    assert len(merged) == 1


@pytest.mark.parametrize("name", MODELS)
def test_a_snapshot_makes_one_model_of_another(name: str) -> None:
    trained, held = MODELS[name](seed=1), MODELS[name]()
    load_snapshot(held, snapshot_of(trained, 1))
    expected = trained.state_dict()
    assert all(torch.equal(tensor, expected[key]) for key, tensor in held.state_dict().items())
    ids = torch.arange(8)[None]
    assert torch.equal(held(ids).logits, trained(ids).logits)


def test_a_tied_head_reaches_a_model_whose_head_is_its_own() -> None:
    trained, held = dense(True, seed=1), dense(False)
    load_snapshot(held, snapshot_of(trained, 1))
    assert torch.equal(held.state_dict()["lm_head.weight"], trained.state_dict()["model.embed_tokens.weight"])


def test_a_layout_that_does_not_fit_changes_nothing() -> None:
    held = dense(False)
    before = {name: tensor.clone() for name, tensor in held.state_dict().items()}
    read = []

    def tensors() -> None:
        read.append(True)

    wrong = snapshot_of(dense(False, seed=1), 4)
    layout = {name: entry for name, entry in wrong.layout.items() if name != "model.norm.weight"}
    with pytest.raises(RunError, match=r"weights of version 4 lack model\.norm\.weight; nothing was changed"):
        load_snapshot(held, Snapshot(4, layout, {}, tensors))  # type: ignore[arg-type]
    assert not read
    assert all(torch.equal(tensor, before[name]) for name, tensor in held.state_dict().items())


def test_an_adapter_is_merged_under_the_checkpoint_s_names(tiny_model: Path, tmp_path: Path) -> None:
    context = TrainContext(ModelSpec(str(tiny_model), device="cpu"), seed=0, temperature=1.0, total_updates=1)
    trainer = Grpo(GrpoOptions(lora={"rank": 2, "alpha": 4}), context)
    for name, parameter in trainer.policy.model.named_parameters():
        if ".lora_B" in name:
            parameter.data.normal_(generator=torch.Generator().manual_seed(0))
    trainer.save(tmp_path)
    expected = load_file(tmp_path / "model.safetensors")
    found = dict(trainer.snapshot().tensors())
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    base = load_file(tiny_model / "model.safetensors")
    assert any(not torch.equal(found[name], tensor) for name, tensor in base.items())


def test_a_snapshot_of_tensors_says_their_layout() -> None:
    snapshot = snapshot_from({"a": torch.zeros(2, 3, dtype=torch.bfloat16)}, 5)
    assert (snapshot.version, snapshot.layout["a"].dtype, snapshot.layout["a"].shape) == (5, "bfloat16", (2, 3))
