"""Hooks of the bridges to other software, and of the embedded model with its task."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rlvr.hookspecs import hookimpl

EMBEDDED = Path(__file__).parent / "embedded"


@hookimpl
def rlvr_prompt_sources() -> Mapping[str, str | Path]:
    return {
        "arithmetic": "rlvr_plugins.embedded.task:Arithmetic",
        "reasoning-gym": "rlvr_plugins.reasoning_gym:ReasoningGym",
    }


@hookimpl
def rlvr_presets() -> Mapping[str, Path]:
    return {"embedded": EMBEDDED / "preset.yaml"}


@hookimpl
def rlvr_trackers() -> Mapping[str, str]:
    return {
        "tensorboard": "rlvr_plugins.tensorboard:TensorBoard",
        "wandb": "rlvr_plugins.wandb:WandB",
        "trackio": "rlvr_plugins.trackio:Trackio",
        "mlflow": "rlvr_plugins.mlflow:MLflow",
    }
