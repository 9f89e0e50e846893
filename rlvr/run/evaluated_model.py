"""The model that an evaluation names: a directory, a hub name, a preset, a run directory or a checkpoint in one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlvr.errors import ConfigError, RequestError
from rlvr.registry import registry
from rlvr.run.config import RunConfig, resolve
from rlvr.run.export_model import checkpoint_of
from rlvr.run.rundir import BEST, WEIGHTS, checkpoints_of
from rlvr.settings import Setting, Settings, mapping_settings, read_settings, validate

OF_THE_RUN = {
    "model": frozenset({"device", "dtype", "attn_implementation", "trust_remote_code", "chat", "chat_template_kwargs"}),
    "sampling": frozenset({"temperature", "top_p", "top_k", "min_p", "max_tokens", "stop"}),
    "dataset": frozenset({"max_prompt_tokens"}),
}
"""Settings of a run that its checkpoints are evaluated with, unless the request says otherwise."""


@dataclass(frozen=True)
class EvaluatedModel:
    """A model, and settings that come with it."""

    name: str
    settings: Settings = field(default_factory=dict)
    """Settings of the run that trained it."""
    own: Settings = field(default_factory=dict)
    """Data set and verifier of the run's own evaluations, if no data set is named."""
    notes: tuple[str, ...] = ()

    def configured(self, given: Settings, dataset: str | None) -> RunConfig:
        """Return the configuration to ask the questions of a data set with; None is the model's own."""
        named = {"model.name": Setting(self.name, "MODEL")}
        if dataset is not None:
            named["dataset.name"] = Setting(dataset, "--dataset")
        own = self.own if dataset is None else {}
        config = resolve({**self.settings, **own, **given, **named})
        if config.dataset.mix:
            raise ConfigError("dataset.mix is for training: name the data sets with --dataset")
        if config.dataset.name is None:
            missing = "" if Path(self.name).exists() else ", and there is no folder of that name"
            raise ConfigError(f"model {self.name!r} has no default data set{missing}: name one with --dataset")
        return config


def evaluated_model(model: str | Path, checkpoint: int | str = "newest") -> EvaluatedModel:
    """Return the model that `model` names.

    Args:
        model: A local directory, a hub name, a preset, a run directory, or a checkpoint in one.
        checkpoint: For a run directory: a number of batches, `newest`, or `best`.

    Raises RequestError for a run without such a checkpoint, and for a folder that is neither a run nor a model;
    ConfigError for a checkpoint of something else.
    """
    path = Path(model)
    if (path / "config.yaml").is_file():
        folder = checkpoint_of(path, checkpoint)
        others = [each for each in _names(path) if each != folder.name]
        more = f"; the run also has {', '.join(others)}: --checkpoint" if others else ""
        return _of_run(path, folder, (f"evaluating {folder} ({checkpoint}){more}",))
    if checkpoint != "newest":
        raise ConfigError(f"checkpoint {checkpoint}: {model} is no run directory (no config.yaml)")
    run = path.absolute().parent.parent
    if path.is_dir() and path.absolute().parent.name in ("checkpoints", WEIGHTS) and (run / "config.yaml").is_file():
        return _of_run(run, path, ())
    if path.exists() and not (path / "config.json").is_file():
        raise RequestError(f"{model} is neither a run (no config.yaml) nor a model (no config.json)")
    return EvaluatedModel(str(model))


def _names(run: Path) -> list[str]:
    """Return the names of a run's checkpoints."""
    found = {folder.name for place in ("checkpoints", WEIGHTS) for folder in checkpoints_of(run / place)}
    return sorted(found) + ([BEST] if (run / WEIGHTS / BEST).is_dir() else [])


def _of_run(run: Path, folder: Path, notes: tuple[str, ...]) -> EvaluatedModel:
    config = validate(RunConfig, read_settings(run / "config.yaml"))
    kept: dict[str, Any] = {
        section: getattr(config, section).model_dump(mode="json", include=set(keys))
        for section, keys in OF_THE_RUN.items()
    }
    source = str(run / "config.yaml")
    return EvaluatedModel(str(folder), mapping_settings(kept, source), _own(config, source), notes)


def _own(config: RunConfig, source: str) -> Settings:
    """Return data set and verifier of the run's evaluations; nothing if it has no held-out questions of its own."""
    name = config.eval.dataset or config.dataset.name
    is_card = name is not None and name in registry().names("prompt_source")
    is_own = config.eval.dataset is None and not config.eval.data_files
    if name is None or (is_own and (config.dataset.data_files or not is_card)):
        return {}
    options: Mapping[str, Any] = {} if config.eval.dataset else config.dataset.options
    verifier = config.verifier.model_dump(mode="json", include={"name", "options", "timeout", "max_reward"})
    files = [str(file) for file in config.eval.data_files]
    return mapping_settings(
        {"dataset": {"name": name, "options": options, "data_files": files}, "verifier": verifier}, source
    )
