"""The trainers and the sampler that come with rlvr."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rlvr.hookspecs import hookimpl


@hookimpl
def rlvr_trainers() -> Mapping[str, str]:
    return {"grpo": "rlvr_trainers.grpo:Grpo", "grpo-off": "rlvr_trainers.grpo_off:GrpoOff"}


@hookimpl
def rlvr_recipes() -> Mapping[str, Path]:
    return {path.stem: path for path in (Path(__file__).parent / "recipes").glob("*.yaml")}


@hookimpl
def rlvr_samplers() -> Mapping[str, str]:
    return {
        "hf": "rlvr_trainers.sampling.hf_sampler:HFSampler",
        "vllm": "rlvr_trainers.sampling.vllm_sampler:VLLMSampler",
        "vllm-server": "rlvr_trainers.sampling.vllm_server:VLLMServerSampler",
    }
