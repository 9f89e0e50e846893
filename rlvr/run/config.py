"""The configuration of a run: one pydantic model, filled from layers of flat `section.key: value` settings.

    defaults < model preset < recipe < file (--config) < --set and flags

Every setting remembers where it came from, so that an error says which file and line to mend. A section that has a
`name` may be given as that name alone: `trainer: grpo-off` is `trainer: {name: grpo-off}`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator

from rlvr.alarms import Alarms
from rlvr.errors import ConfigError, PluginError
from rlvr.frozen import Frozen
from rlvr.record.schema import SamplingParams, Status
from rlvr.registry import registry
from rlvr.run.factories import trainer_factory
from rlvr.settings import M, Setting, Settings, read_settings, validate
from rlvr.verify.scoring import DEFAULT_REWARDS


class ModelConfig(Frozen):
    """Which model learns."""

    name: str = Field(default="embedded", description="a preset, a local directory or a hub name")
    path: str | None = Field(default=None, description="where it is, when the name does not say (a preset sets this)")
    revision: str | None = None
    device: str = Field(default="auto", description="auto, cpu, cuda, cuda:1, mps")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="of the computation; master weights are float32 whatever this says"
    )

    @property
    def location(self) -> str:
        """What to load: a local directory or a hub name."""
        return self.path or self.name


class DatasetConfig(Frozen):
    """Which questions are asked."""

    name: str | None = Field(default=None, description="a configured name, or a file (.yaml, .jsonl, .parquet, .csv)")
    data_files: tuple[Path, ...] = Field(default=(), description="local files in the data set's layout")
    limit: int | None = Field(default=None, ge=1, description="train on the first so many questions only")
    max_prompt_tokens: int = Field(default=1024, ge=1, description="longer prompts are dropped, counted and reported")
    options: dict[str, Any] = Field(default_factory=dict, description="for the prompt source's factory")


class VerifierConfig(Frozen):
    """What is rewarded."""

    name: str | None = Field(default=None, description="a registered name or FILE.py:FUNCTION; the data set's default")
    options: dict[str, Any] = Field(default_factory=dict)
    workers: int | None = Field(default=None, ge=0, description="processes; one a CPU by default, 0 is in process")
    timeout: float = Field(default=5.0, gt=0, description="seconds a verdict")
    rewards: dict[Status, float | None] = Field(
        default_factory=lambda: dict(DEFAULT_REWARDS),
        description="what a verdict without a reward counts as; null drops the rollout",
    )

    @field_validator("rewards")
    @classmethod
    def _the_others_by_default(cls, rewards: dict[Status, float | None]) -> dict[Status, float | None]:
        if Status.GRADED in rewards:
            raise ValueError("a graded verdict has a reward of its own: that is the verifier's to give")
        return {**DEFAULT_REWARDS, **rewards}


class SamplingConfig(Frozen):
    """How many rollouts a step, and how they are drawn."""

    engine: str = Field(default="hf", description="a registered sampler")
    options: dict[str, Any] = Field(default_factory=dict, description="for the sampler's factory")
    prompts_per_step: int = Field(default=16, ge=1)
    group_size: int = Field(default=16, ge=2, description="G: completions a prompt")
    temperature: float = Field(default=1.0, gt=0)
    max_tokens: int = Field(default=1024, ge=1, description="length limit of a completion")
    refill: bool = Field(
        default=False, description="DAPO: further prompts take the place of groups whose rewards are all equal"
    )
    refill_rounds: int = Field(default=3, ge=1, description="how often a batch is refilled before it stays short")

    @property
    def params(self) -> SamplingParams:
        """As samplers are told."""
        return SamplingParams(temperature=self.temperature, max_tokens=self.max_tokens)


class RolloutsConfig(Frozen):
    """Saved rollouts to learn from, and which groups are learnt from at all."""

    files: tuple[Path, ...] = Field(
        default=(), description="record files, folders of them, or run directories; none is: every rollout is sampled"
    )
    scores: tuple[Path, ...] = Field(
        default=(), description="sidecars of `rlvr score --scores-only`: scores that follow those in the files"
    )
    share: float = Field(
        default=1.0, gt=0, le=1, description="of each batch's groups that are saved ones; the rest is sampled"
    )
    epochs: int | None = Field(
        default=None, ge=1, description="passes over the saved groups; says `steps`. One, where neither is given"
    )
    skip_unusable: bool = Field(default=False, description="leave out records that cannot be trained on")
    behaviour_model: str | None = Field(
        default=None, description="what sampled the records without log-probabilities: they are recomputed with it"
    )
    behaviour_revision: str | None = Field(default=None, description="its revision on the hub")
    single_version: bool = Field(
        default=False, description="leave out, and count, groups that more than one policy version sampled"
    )


class ReplayConfig(Frozen):
    """The run's own past groups, learnt from again."""

    share: float = Field(default=0.0, ge=0, lt=1, description="of each batch's groups that are past ones; 0 is off")
    capacity: int = Field(default=1024, ge=1, description="groups with a signal that are held, the newest")
    half_life: float = Field(default=50.0, gt=0, description="batches after which a group is drawn half as often")
    max_lag: int | None = Field(default=None, ge=1, description="optimizer steps; older groups are not drawn")


class TrainerConfig(BaseModel):
    """Which algorithm; the other keys are the trainer's own `Options`, checked against them when it is loaded."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    name: str = "grpo"

    @property
    def options(self) -> dict[str, Any]:
        """All keys but the name."""
        return dict(self.model_extra or {})


class EvalConfig(Frozen):
    """Held-out questions: asked at the start, at the end, and at the first push of weights after `every` steps."""

    every: int = Field(default=50, ge=1)
    questions: int = Field(default=200, ge=0, description="0 is no evaluation")
    dataset: str | None = Field(default=None, description="another data set than the one trained on")
    data_files: tuple[Path, ...] = Field(default=(), description="local files in its layout")


class CheckpointConfig(Frozen):
    """When the run is saved (and at its end, and on Ctrl-C)."""

    every: int = Field(default=50, ge=1)
    keep: int = Field(default=2, ge=1, description="how many of the newest stay")


class RunConfig(Frozen):
    """All that a run is told."""

    recipe: str | None = Field(default=None, description="a registered recipe, or a YAML file of one")
    model: ModelConfig = ModelConfig()
    dataset: DatasetConfig = DatasetConfig()
    verifier: VerifierConfig = VerifierConfig()
    sampling: SamplingConfig = SamplingConfig()
    rollouts: RolloutsConfig = RolloutsConfig()
    replay: ReplayConfig = ReplayConfig()
    trainer: TrainerConfig = TrainerConfig()
    eval: EvalConfig = EvalConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    alarms: Alarms = Alarms()
    trackers: tuple[str, ...] = ()
    steps: int = Field(default=200, ge=1, description="batches")
    seed: int = Field(default=0, ge=0)

    @property
    def samples(self) -> bool:
        """Whether any rollout is sampled to be learnt from."""
        return not self.rollouts.files or self.rollouts.share < 1


class Recipe(Frozen):
    """What a recipe says of itself, in its section `recipe`; the rest of its file is settings for any model."""

    title: str
    formula: str = Field(description="what is maximised")
    source: str = Field(description="paper and equation")
    staleness: str = Field(description="the v that it is meant for")
    notes: tuple[str, ...] = Field(default=(), description="deviations from the source, and what to mind")


def resolve(command_line: Settings, file: Path | None = None) -> RunConfig:
    """The run's configuration. Raises ConfigError for an unknown key, a wrong value or an impossible combination, and
    PluginError for a trainer or a recipe that there is not."""
    given = {**(read_settings(file) if file else {}), **command_line}
    name = given.get("model.name", Setting(ModelConfig().name, "default"))
    preset = _preset(str(name.value))
    dataset = given.get("dataset.name")
    if "model.name" not in given and dataset is not None and dataset.value != preset["dataset.name"].value:
        raise ConfigError(
            f"dataset {str(dataset.value)!r} needs a model that can read it: the default, {name.value!r}, knows "
            f"{preset['dataset.name'].value!r} only. Name one, e.g. --model Qwen/Qwen2.5-0.5B-Instruct, or a directory"
        )
    recipe = given.get("recipe")
    layer = read_recipe(str(recipe.value))[1] if recipe is not None and recipe.value is not None else {}
    settings = {**preset, **layer, **given}
    config = _default_epochs(validate(RunConfig, settings), given)
    _check_consistent(config)
    _reject_ignored(config, given)
    trainer_options(config, trainer_factory(config.trainer.name).Options, settings)
    if config.dataset.name is None and config.samples:
        raise ConfigError(f"model {config.model.name!r} has no default data set: name one with --dataset")
    return config


def read_recipe(name: str) -> tuple[Recipe, Settings]:
    """A registered recipe, or that of a YAML file: what it says of itself, and its settings.

    Raises ConfigError for a file that is no recipe, PluginError for a name that there is not.
    """
    file = Path(name) if name.endswith((".yaml", ".yml")) else registry().load("recipe", name)
    settings = read_settings(file)
    about = {key: setting for key, setting in settings.items() if key.startswith("recipe.")}
    if not about:
        raise ConfigError(f"{file} has no section `recipe` with title, formula, source and staleness; it is no recipe")
    layer = {key: setting for key, setting in settings.items() if key not in about}
    tied = next((setting for key, setting in layer.items() if key.startswith(("model.", "dataset."))), None)
    if tied is not None:
        raise ConfigError(f"{tied.source}: a recipe is for any model and data set; name them in a file for --config")
    stripped = {key.removeprefix("recipe."): setting for key, setting in about.items()}
    return validate(Recipe, stripped, "recipe."), layer


def _default_epochs(config: RunConfig, given: Settings) -> RunConfig:
    """One pass over saved rollouts where nothing else was asked for: a preset's steps are meant for sampling."""
    if "steps" in given and config.rollouts.epochs is not None:
        raise ConfigError("steps and rollouts.epochs say the same thing: give one of them")
    if config.samples or "steps" in given or config.rollouts.epochs is not None:
        return config
    return config.model_copy(update={"rollouts": config.rollouts.model_copy(update={"epochs": 1})})


def _check_consistent(config: RunConfig) -> None:
    """Raises ConfigError for settings of rollouts that contradict each other."""
    rollouts, replay, size = config.rollouts, config.replay, config.sampling.prompts_per_step
    if rollouts.scores and not rollouts.files:
        raise ConfigError("rollouts.scores are of saved rollouts: it needs --rollouts")
    if rollouts.epochs is not None and config.samples:
        raise ConfigError("rollouts.epochs counts passes over saved rollouts: it needs --rollouts and share 1")
    if not config.samples and replay.share:
        raise ConfigError("replay.share: there is nothing to replay where nothing is sampled")
    if not config.samples and config.sampling.refill:
        raise ConfigError(
            "sampling.refill: there is nothing to refill with where nothing is sampled; leave it out with "
            "--set sampling.refill=false"
        )
    saved = portion(rollouts.share, size) if rollouts.files and config.samples else 0
    past = portion(replay.share, size) if replay.share else 0
    if replay.capacity < past:
        raise ConfigError(
            f"replay.capacity {replay.capacity} is less than the {past} groups that each batch of {size} replays "
            f"(replay.share): say at least {past}"
        )
    if config.samples and saved + past >= size:
        raise ConfigError(
            f"of {size} groups a batch (sampling.prompts_per_step) {saved} would be saved (rollouts.share) and {past} "
            "replayed (replay.share): at least one must be sampled"
        )


def _reject_ignored(config: RunConfig, given: Settings) -> None:
    """Raises ConfigError for a setting that this run would not look at. One that says the default is let pass: a run's
    own config.yaml spells out all of them. So is one of a file that says how a run sampled, where nothing is sampled:
    that file is what a run on its rollouts begins with."""
    unheard: list[tuple[Frozen, str, str]] = []
    if not config.rollouts.files:
        keys = ["share", "skip_unusable", "behaviour_model", "behaviour_revision"]
        why = "without saved rollouts: name some with --rollouts"
        unheard += [(config.rollouts, f"rollouts.{key}", why) for key in keys]
    if not config.sampling.refill:
        unheard += [(config.sampling, "sampling.refill_rounds", "without sampling.refill: no batch is refilled")]
    if not config.replay.share:
        keys = ["capacity", "half_life", "max_lag"]
        why = "while replay.share is 0: nothing is replayed"
        unheard += [(config.replay, f"replay.{key}", why) for key in keys]
    if not config.samples:
        typed = {key for key, setting in given.items() if setting.source.startswith("--")}
        why = "while all that is learnt from was saved: nothing is sampled (rollouts.share)"
        unheard += [(config.sampling, key, why) for key in typed & {"sampling.group_size"}]
        unheard += [(config.dataset, key, why) for key in typed & {"dataset.limit"}]
    for section, dotted, why in unheard:
        key = dotted.partition(".")[2]
        if dotted in given and getattr(section, key) != type(section).model_fields[key].default:
            raise ConfigError(f"{dotted} ({given[dotted].source}) does nothing {why}")


def portion(share: float, size: int) -> int:
    """How many groups a share of `size` is: rounded, at least one."""
    return max(1, round(share * size))


def _preset(model: str) -> Settings:
    """The preset that a model's name stands for; a `model.path` of `./…` is relative to the preset's file."""
    presets = {entry.name: entry for entry in registry().entries("preset")}
    if model not in presets:
        return {}
    file: Path = presets[model].load()
    settings = read_settings(file)
    path = settings.get("model.path")
    if path is None or not str(path.value).startswith("."):  # a hub name, or the name itself
        return settings
    return settings | {"model.path": Setting(str(file.parent / path.value), path.source)}


def model_config(name: str, **given: Any) -> ModelConfig:
    """The section `model` alone, for a command that needs no run; `given` are other keys of it than the name."""
    ours = {key: setting for key, setting in _preset(name).items() if key.startswith("model.")}
    ours |= {f"model.{key}": Setting(value, f"--{key}") for key, value in given.items()}
    ours["model.name"] = Setting(name, "--model")
    return validate(RunConfig, ours).model


def trainer_options(config: RunConfig, options: type[M], given: Settings | None = None) -> M:
    """The trainer's own options, checked against its `Options`; `given`, what `config` was made of, says where each
    was written."""
    if given is None:
        given = {f"trainer.{key}": Setting(value, "") for key, value in config.trainer.options.items()}
    ours = {key: setting for key, setting in given.items() if key.startswith("trainer.") and key != "trainer.name"}
    settings = {key.removeprefix("trainer."): setting for key, setting in ours.items()}
    _belong_to(config.trainer.name, options, settings)
    return validate(options, settings, "trainer.")


def _belong_to(trainer: str, options: type[BaseModel], settings: Settings) -> None:
    """Raises ConfigError for options that the trainer lacks and another one has, and names that one."""
    sources = {key.partition(".")[0]: setting.source for key, setting in settings.items()}
    lacking = {key: source for key, source in sources.items() if key not in options.model_fields}
    for entry in registry().entries("trainer") if lacking else ():
        try:
            theirs = trainer_factory(entry.name).Options.model_fields
        except PluginError:  # it cannot be taken instead; what is wrong with it is said to whoever names it
            continue
        if moved := [key for key in lacking if key in theirs]:
            named = ", ".join(f"trainer.{key}" + (f" ({lacking[key]})" if lacking[key] else "") for key in moved)
            raise ConfigError(
                f"{named}: the trainer is {trainer!r}, and this is an option of {entry.name!r}; take that (--trainer "
                f"{entry.name}), or leave the option out"
            )


def to_yaml(config: RunConfig) -> str:
    """The resolved configuration, every default spelt out; `read_settings` reads it back to the same."""
    text: str = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)  # ASCII: a NEL would end a line
    return text
