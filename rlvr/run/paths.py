"""Absolute paths in the configuration of a run, so that it can be resumed from any working directory."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rlvr.data.tables import ENDINGS
from rlvr.record.row_files import is_saved_dataset
from rlvr.run.config import RunConfig
from rlvr.verify.composition import absolute_reference


def with_absolute_paths(config: RunConfig) -> RunConfig:
    """Return the configuration with every path of a file or folder made absolute. Registered and hub names stay."""
    model, dataset, rollouts, evaluation = config.model, config.dataset, config.rollouts, config.eval
    changes = {
        "model": {"path": os.path.abspath(model.location)} if os.path.isdir(model.location) else {},
        "dataset": {
            "name": _file(dataset.name),
            "mix": tuple(f"{_file(name)}:{weight:g}" for name, weight in dataset.members) if dataset.mix else (),
            "data_files": _all(dataset.data_files),
            "options": _with_absolute_folder(dataset.options),
        },
        "verifier": {
            "name": config.verifier.name and absolute_reference(config.verifier.name),
            "shadow": tuple(map(absolute_reference, config.verifier.shadow)),
        },
        "rollouts": {
            "files": _all(rollouts.files),
            "scores": _all(rollouts.scores),
            "behaviour_model": _folder(rollouts.behaviour_model),
        },
        "eval": {
            "dataset": _file(evaluation.dataset),
            "data_files": _all(evaluation.data_files),
            "sets": {
                name: each.model_copy(update={"dataset": _file(each.dataset), "data_files": _all(each.data_files)})
                for name, each in evaluation.sets.items()
            },
        },
    }
    config = config.model_copy(update={"trackers": tuple(map(absolute_reference, config.trackers))})
    return config.model_copy(
        update={name: getattr(config, name).model_copy(update=update) for name, update in changes.items()}
    )


def _with_absolute_folder(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a data set with the folder of its databases made absolute."""
    folder = options.get("databases")
    return {**options, "databases": os.path.abspath(folder)} if isinstance(folder, str) else dict(options)


def _all(paths: Iterable[Path]) -> tuple[Path, ...]:
    return tuple(path.absolute() for path in paths)


def _file(name: str | None) -> str | None:
    """Return the absolute path of a file or folder of questions; a registered name unchanged."""
    path = Path(name or "")
    is_file = path.suffix in (".yaml", ".yml", *ENDINGS) or is_saved_dataset(path)
    return os.path.abspath(path) if name and is_file else name


def _folder(name: str | None) -> str | None:
    return os.path.abspath(name) if name is not None and os.path.isdir(name) else name
