"""Adapters: trained weights, reference, synced and saved weights, and bitwise continuation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from peft import PeftModel
from pydantic import ValidationError
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

import small_runs
from rlvr.errors import ConfigError, RunError
from rlvr.protocols import ModelSpec, TrainContext
from rlvr.run.config import resolve, trainer_options
from rlvr.settings import Setting
from rlvr_trainers.grpo import Grpo, GrpoOptions
from rlvr_trainers.sampling.hf_sampler import HFSampler, HFSamplerOptions

SHAPES = [[0.0, 1.0, 0.5], [1.0, 0.0]]
LORA = {"rank": 4, "alpha": 8}


def make(path: Path, seed: int = 0, lora: Mapping[str, Any] = LORA, **options: Any) -> Grpo:
    spec = ModelSpec(str(path), device="cpu", dtype="float32")
    given = GrpoOptions(**{"lr": 1e-2, "lora": lora} | options)
    return Grpo(given, TrainContext(spec, seed=seed, temperature=0.7, total_updates=9, alarms=small_runs.NOISY))


def base(path: Path) -> dict[str, Tensor]:
    state: dict[str, Tensor] = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).state_dict()
    return state


@pytest.fixture(params=["tiny_model", "awkward_model"])
def path(request: pytest.FixtureRequest) -> Path:
    found: Path = request.getfixturevalue(request.param)
    return found


def test_the_adapter_alone_learns_and_leaves_the_trainer_merged(path: Path, oracle: ModuleType) -> None:
    trainer, original = make(path), base(path)
    assert all(torch.equal(tensor, original[name]) for name, tensor in trainer.policy.weights().items())  # B is 0
    groups = oracle.Oracle(path).groups(0, SHAPES, noise=0.1)
    for _ in range(2):
        trainer.update(groups)
    weights = trainer.policy.weights()
    assert weights.keys() == original.keys()
    moved = {name for name, tensor in weights.items() if not torch.equal(tensor, original[name])}
    linear = {name for name in original if name.endswith("_proj.weight")}
    assert moved == linear
    trained = {name for name, p in trainer.policy.model.named_parameters() if p.requires_grad}
    assert all(".lora_A." in name or ".lora_B." in name for name in trained)
    assert sum(p.numel() for p in trainer.policy.parameters) < 0.5 * sum(t.numel() for t in original.values())


def test_a_snapshot_holds_the_adapter_by_itself_too(path: Path) -> None:
    trainer, original = make(path), base(path)
    with torch.no_grad():
        for parameter in trainer.policy.parameters:
            parameter += 0.1
    snapshot = trainer.snapshot()
    assert snapshot.adapter is not None
    assert snapshot.adapter.lora is not None
    parts = dict(snapshot.adapter.tensors())
    scale = snapshot.adapter.lora["lora_alpha"] / snapshot.adapter.lora["r"]
    merged = dict(snapshot.tensors())
    for layer in snapshot.adapter.lora["target_modules"]:
        a, b = (parts[f"base_model.model.{layer}.lora_{part}.weight"] for part in "AB")
        torch.testing.assert_close(original[f"{layer}.weight"] + scale * b @ a, merged[f"{layer}.weight"])
    assert len(parts) == 2 * len(snapshot.adapter.lora["target_modules"])


def test_a_step_is_that_of_the_formula(tiny_model: Path, oracle: ModuleType) -> None:
    """The gradients of A and B follow from the full weight's: dB = s · dW · Aᵀ, dA = s · Bᵀ · dW."""
    groups = oracle.Oracle(tiny_model).groups(0, SHAPES, noise=0.1)
    found: dict[str, Tensor] = {}
    adapted, whole = (
        make(tiny_model, lr=1e-12, max_grad_norm=1e9),
        make(tiny_model, lora=None, lr=1e-12, max_grad_norm=1e9),
    )
    layer: Any = adapted.policy.model.get_submodule("model.layers.0.self_attn.q_proj")
    with torch.no_grad():
        layer.lora_B.default.weight.normal_(std=0.1, generator=torch.Generator().manual_seed(0))
        whole.policy.model.load_state_dict(adapted.policy.weights())
    for key, trainer in (("adapted", adapted), ("whole", whole)):
        trainer.policy.optimizer.register_step_pre_hook(
            lambda *_, key=key, policy=trainer.policy: found.update(
                {f"{key} {name}": p.grad.clone() for name, p in policy.model.named_parameters() if p.grad is not None}
            )
        )
        trainer.update(groups)
    name = "model.layers.0.self_attn.q_proj"
    grad_W, scaling = found[f"whole {name}.weight"], LORA["alpha"] / LORA["rank"]
    A, B = layer.lora_A.default.weight.detach(), layer.lora_B.default.weight.detach()
    for key, expected in (("lora_A", scaling * B.T @ grad_W), ("lora_B", scaling * grad_W @ A.T)):
        difference = found[f"adapted {name}.{key}.default.weight"] - expected
        assert difference.norm() < 1e-4 * expected.norm()


def test_the_reference_is_the_model_without_the_adapter(path: Path, oracle: ModuleType) -> None:
    groups = oracle.Oracle(path).groups(0, SHAPES, noise=0.1)
    trainer = make(path, beta=0.1)
    assert trainer.policy.reference is None  # no copy
    ids_BT = torch.tensor(groups[0].rollouts[0].token_ids)[None].long()
    mask_BT = torch.tensor(groups[0].rollouts[0].loss_mask)[None]
    before = trainer.policy.logprobs(ids_BT, mask_BT).logprobs_BT.detach()
    trainer.update(groups)
    assert torch.equal(trainer.policy.reference_logprobs(ids_BT, mask_BT), before)
    after = trainer.policy.logprobs(ids_BT, mask_BT).logprobs_BT
    assert not torch.equal(after, before)
    assert after.requires_grad
    assert trainer.update(groups)["kl/reference"] > 0


MIXTURES: dict[str, dict[str, Any]] = {
    "mixtral": {"num_local_experts": 4},
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
    "gpt_oss": {"num_local_experts": 4, "head_dim": 8, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}},
    "gpt2": {"n_positions": 512, "n_embd": 32, "n_layer": 2, "n_head": 4},
}


@pytest.mark.parametrize("kind", MIXTURES)
def test_what_can_be_adapted_is_and_the_rest_is_named(
    kind: str, tiny_model: Path, tmp_path: Path, oracle: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    """Fused experts and routers are no linear layers; GPT-2's layers keep their weights transposed."""
    path = build_like(tiny_model, kind, tmp_path, **MIXTURES[kind])
    with caplog.at_level("WARNING", "rlvr"):
        trainer = make(path)
    frozen = [] if kind == "gpt2" else ["experts.gate_up_proj", "experts.down_proj", "layers.*.mlp."]
    assert bool(caplog.messages) == bool(frozen)
    assert all(name in caplog.messages[0] for name in frozen)
    groups = oracle.Oracle(tiny_model).groups(0, SHAPES, noise=0.1)
    original = trainer.policy.weights()
    before = {name: tensor.clone() for name, tensor in original.items()}
    trainer.update(groups)
    weights = trainer.policy.weights()
    moved = {name for name, tensor in weights.items() if not torch.equal(tensor, before[name])}
    attention = ("c_attn", "c_fc", "c_proj") if kind == "gpt2" else ("q_proj", "k_proj", "v_proj", "o_proj")
    assert moved == {name for name in weights if name.endswith(tuple(f"{each}.weight" for each in attention))}
    sampler = HFSampler(ModelSpec(str(path), device="cpu", dtype="float32"), HFSamplerOptions())
    sampler.sync(trainer.snapshot())
    for name, tensor in sampler.model.state_dict().items():
        assert torch.equal(tensor, weights[name])


def build_like(tiny_model: Path, kind: str, directory: Path, **settings: Any) -> Path:
    """Return a random model of another architecture with the tiny model's tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    given = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **given | settings)).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def test_the_sampler_gets_merged_weights(path: Path, oracle: ModuleType) -> None:
    """Sampler and trainer give equal log-probabilities, and a sync does not change the trainer."""
    trainer = make(path)
    groups = oracle.Oracle(path).groups(0, SHAPES, noise=0.1)
    trainer.update(groups)
    trained = [p.clone() for p in trainer.policy.parameters]
    sampler = HFSampler(ModelSpec(str(path), device="cpu", dtype="float32"), HFSamplerOptions())
    sampler.sync(trainer.snapshot())
    rollout = groups[0].rollouts[0]
    ids_T = torch.tensor(rollout.token_ids).long()
    with torch.no_grad():
        logits_TV = sampler.model(input_ids=ids_T[None]).logits[0] / 0.7
    expected_T = torch.log_softmax(logits_TV, -1)[:-1].gather(-1, ids_T[1:, None])[:, 0]
    for found, expected, sampled in zip(
        trainer.logprobs([rollout])[0][1:], expected_T.tolist(), rollout.loss_mask[1:], strict=True
    ):
        assert (not math.isnan(found)) == sampled
        assert math.isnan(found) or found == pytest.approx(expected, abs=2e-5)
    assert all(torch.equal(a, b) for a, b in zip(trained, trainer.policy.parameters, strict=True))


def test_a_saved_run_goes_on_bit_by_bit(path: Path, oracle: ModuleType, tmp_path: Path) -> None:
    batches = [oracle.Oracle(path).groups(seed, SHAPES, noise=0.2) for seed in range(4)]
    unbroken = make(path, beta=0.1)
    for groups in batches[:2]:
        unbroken.update(groups)
    unbroken.save(tmp_path)
    expected = [unbroken.update(groups) for groups in batches[2:]]
    resumed = make(path, beta=0.1, seed=1)  # the initial random values are overwritten
    resumed.load(tmp_path)
    assert resumed.version == 2
    assert [resumed.update(groups) for groups in batches[2:]] == expected
    weights = resumed.policy.weights()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in unbroken.policy.weights().items())


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning")  # peft reads it
def test_a_checkpoint_is_an_ordinary_model_and_holds_an_ordinary_adapter(
    path: Path, oracle: ModuleType, tmp_path: Path
) -> None:
    trainer = make(path)
    trainer.update(oracle.Oracle(path).groups(0, SHAPES, noise=0.2))
    trainer.save(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    weights = trainer.policy.weights()
    assert model.state_dict().keys() == weights.keys()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
    original = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    assert model.generation_config.eos_token_id == original.generation_config.eos_token_id
    with torch.no_grad():
        expected = model.eval()(torch.arange(5, 15)[None]).logits
        found = PeftModel.from_pretrained(original, tmp_path / "adapter")(torch.arange(5, 15)[None]).logits
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_an_adapter_on_the_output_layer(awkward_model: Path, oracle: ModuleType) -> None:
    """Its gradient is computed in parts, and the merged head is synced."""
    groups = oracle.Oracle(awkward_model).groups(0, SHAPES, noise=0.1)
    trainer = make(awkward_model, lora=LORA | {"targets": ["lm_head"]}, beta=0.1)
    assert {id(p) for p in trainer.policy.parameters} == {
        id(p) for name, p in trainer.policy.model.named_parameters() if name.startswith("lm_head.lora")
    }
    for _ in range(2):  # after the first step, A has a gradient too
        before = [p.clone() for p in trainer.policy.parameters]
        trainer.update(groups)
    assert not any(torch.equal(a, b) for a, b in zip(before, trainer.policy.parameters, strict=True))
    original, weights = base(awkward_model), trainer.policy.weights()
    assert [name for name in weights if not torch.equal(weights[name], original[name])] == ["lm_head.weight"]


def test_gradient_checkpointing_and_shared_prefixes_change_nothing(tiny_model: Path, oracle: ModuleType) -> None:
    groups = oracle.Oracle(tiny_model).groups(0, SHAPES, noise=0.1)
    plain, other = make(tiny_model), make(tiny_model, gradient_checkpointing=True, share_prefixes=True)
    for _ in range(2):
        expected, found = plain.update(groups), other.update(groups)
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-5)


def test_another_seed_draws_another_adapter(tiny_model: Path) -> None:
    first, again, other = (list(make(tiny_model, seed=seed).policy.parameters) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_a_misspelt_key_is_named_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"no key trainer.lora.rnk \(--set\); did you mean .trainer.lora.rank"):
        resolve({"trainer.lora.rnk": Setting(4, "--set")})
    assert trainer_options(resolve({"trainer.lora.rank": Setting(4, "--set")}), GrpoOptions).lora is not None


def test_what_cannot_be_is_refused(tiny_model: Path, awkward_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^trainer.lora.targets: .*nowhere"):
        make(tiny_model, lora=LORA | {"targets": ["nowhere"]})
    with pytest.raises(ConfigError, match=r"trainer.lora.targets: lm_head shares its weights"):
        make(tiny_model, lora=LORA | {"targets": ["lm_head"]})
    with pytest.raises(ConfigError, match=r"trainer.lora.targets: model.embed_tokens is not a linear layer"):
        make(awkward_model, lora=LORA | {"targets": ["embed_tokens"]})
    with pytest.raises(ValidationError, match=r"leave trainer.ref_reset_every out"):
        make(tiny_model, beta=0.1, ref_reset_every=1)
    make(tiny_model).save(tmp_path)
    with pytest.raises(RunError, match=r"has other layers or another rank than trainer.lora says"):
        make(tiny_model, lora=LORA | {"rank": 2}).load(tmp_path)
