"""Weights of the policy: precision, files, and bitwise continuation."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import small_runs
from rlvr.errors import ConfigError, RunError
from rlvr.protocols import ModelSpec, TrainContext
from rlvr_trainers.grpo_off import GrpoOff, GrpoOffOptions

SHAPES = [[0.0, 1.0, 0.5], [1.0, 0.0]]


def make(path: Path, dtype: Any = "float32", temperature: float = 0.7, **options: Any) -> GrpoOff:
    spec = ModelSpec(str(path), device="cpu", dtype=dtype)
    return GrpoOff(
        GrpoOffOptions(**options),
        TrainContext(spec, seed=0, temperature=temperature, total_updates=9, alarms=small_runs.NOISY),
    )


def copy(trainer: GrpoOff) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in trainer.policy.weights().items()}


def test_small_steps_move_the_weights_although_the_computation_is_in_bfloat16(
    awkward_model: Path, oracle: ModuleType
) -> None:
    """20 steps of 1e-6 on a bfloat16 checkpoint: they add up in float32, and are nearly all lost in bfloat16."""
    groups = oracle.Oracle(awkward_model).groups(0, SHAPES, noise=0.1)
    trainer = make(awkward_model, dtype="bfloat16", lr=1e-6)
    before = copy(trainer)
    del before["model.embed_tokens.weight"]  # a token that does not occur has no gradient
    for _ in range(20):
        trainer.update(groups)
    after = trainer.policy.weights()
    assert {tensor.dtype for tensor in after.values()} == {torch.float32}
    total = sum(tensor.numel() for tensor in before.values())
    moved = sum(int((after[name] != before[name]).sum()) for name in before)
    moved_in_bfloat16 = sum(int((after[name].bfloat16() != before[name].bfloat16()).sum()) for name in before)
    assert moved > 0.9 * total
    assert moved_in_bfloat16 < 0.1 * total


def test_bfloat16_changes_the_computation_alone(tiny_model: Path, oracle: ModuleType) -> None:
    groups = oracle.Oracle(tiny_model).groups(0, SHAPES, noise=0.0)
    exact, rounded = (make(tiny_model, dtype=dtype).update(groups) for dtype in ("float32", "bfloat16"))
    assert exact["mismatch/max"] < 1e-4 < rounded["mismatch/max"] < 0.3
    assert rounded["train/grad_norm"] == pytest.approx(exact["train/grad_norm"], rel=0.05)


def test_a_float32_head_reads_what_the_rest_computed_in_bfloat16(tiny_model: Path) -> None:
    ids_BT, mask_BT = torch.tensor([[5, 9, 12, 3, 30]]), torch.tensor([[False, True, True, True, True]])
    rounded, mixed = (make(tiny_model, dtype="bfloat16", float32_head=flag).policy for flag in (False, True))
    with torch.no_grad():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            hidden_TH = mixed.model.base_model(input_ids=ids_BT).last_hidden_state[0]
        logits_TV = hidden_TH.float() @ mixed.weights()["lm_head.weight"].T / 0.7
        expected_T = torch.log_softmax(logits_TV, -1)[:-1].gather(-1, ids_BT[0, 1:, None])[:, 0]
        found_T, other_T = (policy.logprobs(ids_BT, mask_BT).logprobs_BT[0, 1:] for policy in (mixed, rounded))
    assert (found_T - expected_T).abs().max() < 1e-5 < 1e-4 < (other_T - expected_T).abs().max()


OPTIONS: dict[str, Any] = {
    "lr": 1e-3, "beta": 0.2, "ref_reset_every": 2, "updates_per_batch": 2, "warmup_updates": 9,
    "lr_schedule": "cosine", "weight_decay": 0.1,
}  # fmt: skip


@pytest.mark.parametrize("model", ["tiny_model", "awkward_model"])
def test_a_saved_run_goes_on_bit_by_bit(
    model: str, oracle: ModuleType, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Weights, AdamW's moments, π_ref, the version and the place between two resets."""
    path: Path = request.getfixturevalue(model)
    batches = [oracle.Oracle(path).groups(seed, SHAPES, noise=0.2) for seed in range(5)]
    unbroken = make(path, **OPTIONS)
    for groups in batches[:3]:  # so that π_ref is neither the first nor the saved policy
        unbroken.update(groups)
    unbroken.save(tmp_path)
    expected = [unbroken.update(groups) for groups in batches[3:]]

    resumed = make(path, **OPTIONS)
    resumed.load(tmp_path)
    assert resumed.version == 6
    assert [resumed.update(groups) for groups in batches[3:]] == expected
    weights = resumed.policy.weights()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in unbroken.policy.weights().items())


def test_a_checkpoint_is_an_ordinary_model_directory(awkward_model: Path, oracle: ModuleType, tmp_path: Path) -> None:
    groups = oracle.Oracle(awkward_model).groups(0, SHAPES, noise=0.2)
    trainer = make(awkward_model, lr=1e-3)
    trainer.update(groups)
    trainer.save(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    weights = trainer.policy.weights()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
    original = AutoModelForCausalLM.from_pretrained(awkward_model).generation_config
    assert model.generation_config.eos_token_id == original.eos_token_id
    text = "What is 12 plus 7?"
    tokenizers = [AutoTokenizer.from_pretrained(path) for path in (tmp_path, awkward_model)]
    assert tokenizers[0](text)["input_ids"] == tokenizers[1](text)["input_ids"]
    assert tokenizers[0].chat_template == tokenizers[1].chat_template


def test_tied_weights_stay_tied(tiny_model: Path, oracle: ModuleType, tmp_path: Path) -> None:
    trainer = make(tiny_model, lr=1e-3)
    trainer.update(oracle.Oracle(tiny_model).groups(0, SHAPES, noise=0.2))
    trainer.save(tmp_path)
    resumed = make(tiny_model, lr=1e-3)
    resumed.load(tmp_path)
    weights = resumed.policy.weights()
    assert weights["lm_head.weight"].data_ptr() == weights["model.embed_tokens.weight"].data_ptr()


def test_reference_is_frozen_and_apart(tiny_model: Path, oracle: ModuleType) -> None:
    trainer = make(tiny_model, lr=1e-3, beta=0.1)
    assert trainer.policy.reference is not None
    before = copy(trainer)
    trainer.update(oracle.Oracle(tiny_model).groups(0, SHAPES, noise=0.2))
    held = trainer.policy.reference.state_dict()
    assert all(torch.equal(tensor, held[name]) for name, tensor in before.items())
    assert not torch.equal(trainer.policy.weights()["model.norm.weight"], held["model.norm.weight"])
    assert make(tiny_model).policy.reference is None


def test_what_cannot_train_is_refused(tiny_model: Path) -> None:
    with pytest.raises(ConfigError, match="float16 gradients underflow"):
        make(tiny_model, dtype="float16")
    with pytest.raises(ConfigError, match="temperature above 0"):
        make(tiny_model, temperature=0.0)


def test_norms_and_biases_do_not_decay(tiny_model: Path, oracle: ModuleType) -> None:
    trainer = make(tiny_model, lr=1e-2, weight_decay=0.5)
    decays = {id(p): g["weight_decay"] for g in trainer.policy.optimizer.param_groups for p in g["params"]}
    named = dict(trainer.policy.model.named_parameters())
    assert len(decays) == len(named)
    assert {name for name, weight in named.items() if not decays[id(weight)]} == {
        name for name in named if "norm" in name or name.endswith("bias")
    }


def test_moments_of_another_grouping_are_refused(tiny_model: Path, oracle: ModuleType, tmp_path: Path) -> None:
    """Until 0.1 weight decay also shrank norms and biases: all parameters were one group."""
    trainer = make(tiny_model, lr=1e-3)
    trainer.update(oracle.Oracle(tiny_model).groups(0, SHAPES, noise=0.2))
    trainer.save(tmp_path)
    with pytest.raises(RunError, match=r"older rlvr, whose trainer\.weight_decay also shrank norms and biases"):
        make(tiny_model, lr=1e-3, weight_decay=0.1).load(tmp_path)
    make(tiny_model, lr=1e-3).load(tmp_path)
