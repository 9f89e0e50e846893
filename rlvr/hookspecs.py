"""Everything that can be plugged in. A plugin is a module with one or more of these functions, decorated with
`rlvr.hookimpl`, named by an entry point of the group `rlvr`.

Each hook returns names and where to find what they stand for: `"package.module:attribute"`, imported when the name is
first used, never before; or the `Path` of a YAML file, where a kind of thing can be described by data alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pluggy

hookspec = pluggy.HookspecMarker("rlvr")
hookimpl = pluggy.HookimplMarker("rlvr")


@hookspec
def rlvr_verifiers() -> Mapping[str, str]:  # type: ignore[empty-body]
    """Verifiers: a function decorated with `rlvr.verifier`, or one of TRL's or verl's reward functions."""


@hookspec
def rlvr_prompt_sources() -> Mapping[str, str | Path]:  # type: ignore[empty-body]
    """Prompt datasets: a factory `(SourceRequest) -> PromptSource`, or a YAML file as in `datasets_cfg/`."""


@hookspec
def rlvr_samplers() -> Mapping[str, str]:  # type: ignore[empty-body]
    """Samplers: a factory `(ModelSpec, options) -> Sampler`."""


@hookspec
def rlvr_trainers() -> Mapping[str, str]:  # type: ignore[empty-body]
    """Trainers: a factory `(options, TrainContext) -> Trainer` with a pydantic model `Options` as attribute."""


@hookspec
def rlvr_trackers() -> Mapping[str, str]:  # type: ignore[empty-body]
    """Trackers: a factory `(directory, config) -> Tracker`."""


@hookspec
def rlvr_recipes() -> Mapping[str, Path]:  # type: ignore[empty-body]
    """Recipes: what `--recipe NAME` stands for, a YAML file of an algorithm's settings and what it says of itself."""


@hookspec
def rlvr_presets() -> Mapping[str, Path]:  # type: ignore[empty-body]
    """Model presets: what `--model NAME` stands for, a YAML file of configuration defaults that fit that model."""
