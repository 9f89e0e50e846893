"""Loading of models: dtypes, dropout, devices, and refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, Qwen2Config

from rlvr.errors import ConfigError, RequestError, RunError
from rlvr.protocols import GroupRequest, ModelSpec, Prompt, TrainContext
from rlvr.record.schema import SamplingParams, Task
from rlvr.run.models import context_length, fixed_rope_length, load_tokenizer
from rlvr_trainers.grpo import Grpo, GrpoOptions
from rlvr_trainers.model.models import load_model, resolve_device, resolve_dtype, stop_ids
from rlvr_trainers.sampling.hf_sampler import HFSampler, HFSamplerOptions

# --- device and dtype -----------------------------------------------------------------------------------------------


def test_auto_is_a_device_that_works() -> None:
    torch.zeros(1, device=resolve_device("auto"))


def test_a_device_that_exists_is_taken_as_named() -> None:
    assert resolve_device("cpu") == "cpu"


@pytest.mark.parametrize("name", ["cuda:99", "xpu:7", "meta"])
def test_a_device_that_is_not_here_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"device: '{name}' is not available; this machine has cpu"):
        resolve_device(name)


def test_a_misspelt_device_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="'cudaa' is not a device; did you mean 'cuda'"):
        resolve_device("cudaa")


def test_auto_computes_in_float32_on_the_cpu() -> None:
    assert resolve_dtype("auto", "cpu") == "float32"


def test_a_dtype_that_is_named_is_taken() -> None:
    assert resolve_dtype("bfloat16", "cpu") == "bfloat16"


def test_a_misspelt_dtype_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'bfloat16'"):
        resolve_dtype("bf16", "cpu")


# --- models ---------------------------------------------------------------------------------------------------------


def test_master_weights_are_float32_and_hold_the_bfloat16_checkpoint_exactly(awkward_model: Path) -> None:
    checkpoint = load_file(awkward_model / "model.safetensors")
    assert {tensor.dtype for tensor in checkpoint.values()} == {torch.bfloat16}
    master = load_model(ModelSpec(str(awkward_model), dtype="bfloat16"), master=True)
    assert {tensor.dtype for tensor in master.parameters()} == {torch.float32}
    state = master.state_dict()
    assert all(torch.equal(state[name], tensor.float()) for name, tensor in checkpoint.items())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_other_weights_have_the_dtype_asked_for(awkward_model: Path, dtype: str) -> None:
    model = load_model(ModelSpec(str(awkward_model), dtype=dtype), master=False)  # type: ignore[arg-type]
    assert {tensor.dtype for tensor in model.parameters()} == {getattr(torch, dtype)}
    assert not model.training


def test_there_is_no_dropout_even_in_training_mode(awkward_model: Path) -> None:
    assert json.loads((awkward_model / "config.json").read_text())["attention_dropout"] > 0
    model = load_model(ModelSpec(str(awkward_model)), master=True)
    ids = torch.arange(10, 40)[None]
    with torch.no_grad():
        evaluated = model(ids).logits
        model.train()
        assert torch.equal(model(ids).logits, evaluated)


def test_tied_weights_are_complete_without_lm_head(tiny_model: Path) -> None:
    assert "lm_head.weight" not in load_file(tiny_model / "model.safetensors")
    model = load_model(ModelSpec(str(tiny_model)), master=True)
    state = model.state_dict()
    assert state["lm_head.weight"].data_ptr() == state["model.embed_tokens.weight"].data_ptr()


def test_a_checkpoint_without_a_weight_is_refused(copy_of_awkward: Path) -> None:
    file = copy_of_awkward / "model.safetensors"
    tensors = load_file(file)
    del tensors["model.layers.1.mlp.down_proj.weight"]
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(RequestError, match=r"lacks 1 weights of Phi3ForCausalLM \(model\.layers\.1\.mlp\.down_proj"):
        load_model(ModelSpec(str(copy_of_awkward)), master=True)


def test_a_weight_of_another_shape_is_refused(copy_of_awkward: Path) -> None:
    file = copy_of_awkward / "model.safetensors"
    tensors = load_file(file)
    tensors["model.norm.weight"] = torch.ones(3)
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(RequestError, match=r"cannot load the model .*copy"):
        load_model(ModelSpec(str(copy_of_awkward)), master=True)


def test_a_broken_weight_file_is_refused(copy_of_awkward: Path) -> None:
    (copy_of_awkward / "model.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(RequestError, match="cannot load the model"):
        load_model(ModelSpec(str(copy_of_awkward)), master=True)


def test_what_is_not_there_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="there is no directory"):
        load_model(ModelSpec("./nowhere"), master=True)
    with pytest.raises(RequestError, match=r"has no config\.json"):
        load_model(ModelSpec(str(tmp_path)), master=True)
    with pytest.raises(
        RequestError, match=r"cannot load the model 'nobody/no-such-model': .* Give the directory of a model"
    ) as e:
        load_model(ModelSpec("nobody/no-such-model"), master=True)
    assert "\n" not in str(e.value)


# --- model properties -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("configured", "expected"), [([4, 1], {1, 4}), (4, {1, 4}), (None, {1})], ids=["list", "number", "none"]
)
def test_stop_ids_are_the_generation_configs_and_the_tokenizers(
    awkward_model: Path, configured: list[int] | int | None, expected: set[int]
) -> None:
    spec = ModelSpec(str(awkward_model))
    model = load_model(spec, master=False)
    assert model.generation_config is not None
    model.generation_config.eos_token_id = configured
    assert stop_ids(model, load_tokenizer(spec)) == expected


@pytest.mark.parametrize(
    ("rope", "expected"),
    [
        ({"rope_type": "default", "rope_theta": 1e4}, 1000),
        ({"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}, 2000),
        ({"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 1000}, 4000),
    ],
    ids=["plain", "linear", "yarn"],
)
def test_the_context_counts_stretched_positions(rope: dict[str, object], expected: int) -> None:
    assert context_length(Qwen2Config(max_position_embeddings=1000, rope_parameters=rope)) == expected


LENGTH_DEPENDENT: dict[str, tuple[dict[str, Any], int]] = {
    "dynamic": ({"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}}, 32),
    "longrope": (
        {
            "max_position_embeddings": 128,
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 1e4,
                "short_factor": [1.0] * 4,
                "long_factor": [4.0] * 4,
                "original_max_position_embeddings": 32,
            },
        },
        32,
    ),
}


@pytest.mark.parametrize("kind", LENGTH_DEPENDENT)
def test_a_rotary_embedding_that_depends_on_the_length_limits_it(
    kind: str, build_tiny_model: Callable[..., Path], tmp_path: Path
) -> None:
    """Beyond the limit, a row's log-probabilities depend on the longest row of its batch; up to it, they do not."""
    settings, limit = LENGTH_DEPENDENT[kind]
    spec = ModelSpec(str(build_tiny_model(tmp_path, **{"max_position_embeddings": 32} | settings)), device="cpu")
    model = load_model(spec, master=True)
    assert fixed_rope_length(model.config) == context_length(model.config) == limit
    row = torch.arange(limit)[None] % 40 + 2
    long = torch.cat([row, row[:, :8]], 1)
    with torch.no_grad():
        alone = model(input_ids=row).logits
        assert torch.allclose(model(input_ids=row[:, : limit // 2]).logits, alone[:, : limit // 2], atol=1e-5)
        assert not torch.allclose(model(input_ids=long).logits[:, :limit], alone, atol=1e-2)
    policy = Grpo(GrpoOptions(), TrainContext(spec, seed=0, temperature=1.0, total_updates=1)).policy
    mask = torch.ones_like(long, dtype=torch.bool)
    mask[:, 0] = False
    policy.logprobs(row, mask[:, :limit])
    with pytest.raises(RunError, match=f"a rollout has {limit + 8} tokens, and the model's rotary embedding changes"):
        policy.logprobs(long, mask)
    sampler = HFSampler(spec, HFSamplerOptions())
    request = GroupRequest("g", Prompt(Task(), text="x"), (5, 6), 1, SamplingParams(max_tokens=limit - 1), ("key",))
    with pytest.raises(RequestError, match=f"exceed the model's {limit} positions"):
        sampler.submit([request])


def test_rotary_parameters_per_type_of_layer_count_too() -> None:
    config = AutoConfig.for_model("gemma3_text", max_position_embeddings=1000)
    assert context_length(config) == 1000
    config.rope_parameters["full_attention"] |= {"rope_type": "linear", "factor": 8.0}
    assert context_length(config) == 8000
    assert fixed_rope_length(config) is None


@pytest.mark.parametrize("kind", ["mamba", "mamba2", "falcon_h1", "jamba", "lfm2", "qwen3_next", "recurrent_gemma"])
def test_models_with_recurrent_layers_are_refused(kind: str, tmp_path: Path) -> None:
    """The configuration suffices: this directory has no weights."""
    layers = {"lfm2": {"layer_types": ["conv", "full_attention"], "num_hidden_layers": 2}}  # short convolutions
    AutoConfig.for_model(kind, **layers.get(kind, {})).save_pretrained(tmp_path)
    with pytest.raises(RequestError, match="has state-space or other recurrent layers"):
        load_model(ModelSpec(str(tmp_path)), master=False)


@pytest.mark.parametrize("kind", ["llama", "gemma2", "gemma3_text", "gpt_oss", "qwen3_moe", "phi3", "gpt2"])
def test_attention_models_are_not(kind: str, tmp_path: Path) -> None:
    AutoConfig.for_model(kind).save_pretrained(tmp_path)
    with pytest.raises(RequestError, match="cannot load the model") as e:
        load_model(ModelSpec(str(tmp_path)), master=False)
    assert "recurrent" not in str(e.value)


def test_attention_is_a_setting_and_the_default_is_what_the_architecture_needs(
    tiny_model: Path, tmp_path: Path
) -> None:
    assert load_model(ModelSpec(str(tiny_model)), master=False).config._attn_implementation == "sdpa"
    eager = load_model(ModelSpec(str(tiny_model), attn_implementation="eager"), master=False)
    assert eager.config._attn_implementation == "eager"
    with pytest.raises(RequestError, match=r"cannot load the model .*no_such_attention"):
        load_model(ModelSpec(str(tiny_model), attn_implementation="no_such_attention"), master=False)
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "vocab_size": 64, "head_dim": 8}
    small |= {"num_attention_heads": 4, "num_key_value_heads": 2}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("gemma2", **small, pad_token_id=0))
    model.save_pretrained(tmp_path)
    assert load_model(ModelSpec(str(tmp_path)), master=False).config._attn_implementation == "eager"  # softcapping
