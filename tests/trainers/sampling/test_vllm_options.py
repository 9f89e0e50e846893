"""Refusals of the samplers on vLLM before vLLM is loaded."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest
import torch

import small_runs
from rlvr.errors import ConfigError, RequestError, RunError
from rlvr.protocols import ModelSpec, Snapshot, TensorLayout
from rlvr.run.config import ModelConfig
from rlvr.run.plan import make_plan
from rlvr.run.serve import server_command
from rlvr_trainers.sampling.vllm_requests import EngineModel
from rlvr_trainers.sampling.vllm_sampler import VLLMOptions, VLLMSampler, top_tokens
from rlvr_trainers.sampling.vllm_server import VLLMServerOptions, VLLMServerSampler


class Entry(NamedTuple):
    """One token of vLLM's answer."""

    logprob: float


def test_the_likeliest_tokens_of_an_answer_are_sorted_and_without_filtered_ones() -> None:
    """The drawn token comes with the likeliest, whatever its rank."""
    answer = [
        {9: Entry(-3.0), 4: Entry(-0.1), 7: Entry(-2.5)},  # 9 was drawn, the third likeliest
        {4: Entry(0.0), 7: Entry(-math.inf), 1: Entry(-math.inf)},  # the filters left one token
    ]
    top = top_tokens(answer, 2)  # type: ignore[arg-type]
    assert top.ids.tolist() == [[4, 7], [4, -1]]
    assert top.logprobs[0].tolist() == pytest.approx([-0.1, -2.5])
    assert top.logprobs[1][0] == 0
    assert math.isnan(top.logprobs[1][1])


@pytest.fixture
def spec(tiny_model: Path) -> ModelSpec:
    return ModelSpec(str(tiny_model), device="cpu", dtype="float32")


def test_sleep_needs_a_gpu(spec: ModelSpec) -> None:
    with pytest.raises(ConfigError, match=r"sampling\.options\.sleep frees a GPU's memory"):
        VLLMSampler(spec, VLLMOptions(sleep=True))


@pytest.mark.parametrize("transfer", ["nccl", "ipc"])
def test_a_transfer_from_gpu_to_gpu_needs_a_gpu(transfer: Literal["nccl", "ipc"], spec: ModelSpec) -> None:
    options = VLLMServerOptions(servers=("http://127.0.0.1:1",), transfer=transfer)
    with pytest.raises(ConfigError, match=rf"transfer={transfer} sends weights from GPU to GPU, .* 'cpu'"):
        VLLMServerSampler(spec, options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU serves")
def test_a_server_for_such_a_transfer_needs_a_gpu() -> None:
    with pytest.raises(RequestError, match=r"--transfer nccl sends weights from GPU to GPU, and there is none here"):
        server_command(ModelConfig(), transfer="nccl")


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        (None, r"lora_rank is 8, and all weights are trained: leave it out, or set trainer\.lora"),
        ({"rank": 16}, r"lora_rank is 8, and the adapter has rank 16 .*: set it to at least 16"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused_by_the_plan(
    lora: dict[str, int] | None, message: str, tiny_model: Path
) -> None:
    given: dict[str, Any] = {"trainer__lora": lora} if lora else {}
    config = small_runs.small_config(tiny_model, sampling__engine="vllm", sampling__options={"lora_rank": 8}, **given)
    with pytest.raises(ConfigError, match=message), make_plan(config):
        pass


def test_an_adapter_of_another_model_is_refused(spec: ModelSpec) -> None:
    model = EngineModel(spec)
    fits = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    layout = TensorLayout("float32", (4, 32))
    adapter = Snapshot(3, {fits: layout}, {}, lambda: iter(()), lora={"r": 4})
    model.check_weights(adapter)
    with pytest.raises(RunError, match=r"the adapter of version 3 holds .*layers\.9.*, which the model lacks"):
        model.check_weights(replace(adapter, layout={fits.replace("layers.0", "layers.9"): layout}))
