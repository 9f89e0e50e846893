"""Hooks for plugins. A plugin is a module with one or more of these functions, decorated with `rlvr.hookimpl`, and
named by an entry point of the group `rlvr`.

Each hook maps names to their targets: `"package.module:attribute"`, which is imported when the name is first used, or
the `Path` of a YAML file where data is enough.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pluggy

hookspec = pluggy.HookspecMarker("rlvr")
hookimpl = pluggy.HookimplMarker("rlvr")


@hookspec
def rlvr_verifiers() -> Mapping[str, str]:  # type: ignore[empty-body]
    """Verifiers: functions decorated with `rlvr.verifier`, or reward functions written for TRL or verl.

    They run in worker processes that see only the environment variables which the decorator's `env=[…]` declares.
    """


@hookspec
def rlvr_prompt_sources() -> Mapping[str, str | Path]:  # type: ignore[empty-body]
    """Prompt data sets: factories `(SourceRequest) -> PromptSource`, or YAML cards as in `datasets_cfg/`."""


@hookspec
def rlvr_samplers() -> Mapping[str, str]:  # type: ignore[empty-body]
    """Samplers: a `rlvr.protocols.SamplerFactory` each."""


@hookspec
def rlvr_trainers() -> Mapping[str, str]:  # type: ignore[empty-body]
    """Trainers: a `rlvr.protocols.TrainerFactory` each, or a `rlvr.run.factories.BackendFactory`."""


@hookspec
def rlvr_trackers() -> Mapping[str, str]:  # type: ignore[empty-body]
    """Trackers: a `rlvr.protocols.TrackerFactory` each."""


@hookspec
def rlvr_recipes() -> Mapping[str, Path]:  # type: ignore[empty-body]
    """Recipes for `--recipe NAME`: YAML files with an algorithm's settings and its description."""


@hookspec
def rlvr_presets() -> Mapping[str, Path]:  # type: ignore[empty-body]
    """Presets for `--model NAME`: YAML files with configuration defaults that fit a model."""
