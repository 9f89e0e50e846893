"""The configuration of a run: one pydantic model, filled from layers of flat `section.key: value` settings.

    defaults < model preset < recipe < file (--config) < --set and flags

Every setting remembers where it came from, so that an error names the file and line. A section that has a `name` may be
given as that name alone: `trainer: grpo-off` is `trainer: {name: grpo-off}`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_core import to_jsonable_python

from rlvr.alarms import Alarms
from rlvr.data.mixing import parse_member
from rlvr.errors import ConfigError, PluginError
from rlvr.frozen import Frozen
from rlvr.protocols import ModelSpec
from rlvr.record.schema import SamplingParams, Status
from rlvr.registry import registry
from rlvr.run.factories import trainer_factory
from rlvr.settings import M, Setting, Settings, read_settings, validate, yaml_text
from rlvr.verify.scoring import DEFAULT_REWARDS, MAX_TIMEOUT


class ModelConfig(Frozen):
    """Model to train."""

    name: str = Field(default="embedded", description="a preset, a local directory or a hub name")
    path: str | None = Field(
        default=None, description="location of the model, if it differs from the name (set by presets)"
    )
    revision: str | None = Field(default=None, description="hub revision: a branch, a tag or a commit")
    device: str = Field(default="auto", description="auto, cpu, cuda, cuda:1, mps")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="compute dtype; master weights are always float32"
    )
    attn_implementation: str | None = Field(
        default=None,
        description="attention: eager, sdpa, flash_attention_2, flex_attention; null is the model's default "
        "(eager for Gemma 2 and gpt-oss)",
    )
    trust_remote_code: bool = Field(
        default=False,
        description="run Python code from the model's repository, in this process and with your permissions",
    )
    chat: Literal["auto"] | bool = Field(
        default="auto", description="use the chat template: on, off (for a base model), auto (if the tokenizer has one)"
    )
    chat_template_kwargs: dict[str, Any] = Field(
        default_factory=dict, description="arguments of the chat template, e.g. {enable_thinking: false}"
    )

    @property
    def location(self) -> str:
        """Location to load from: a local directory or a hub name."""
        return self.path or self.name

    @property
    def spec(self) -> ModelSpec:
        """Description of the model for samplers and trainers, which load it."""
        return ModelSpec(
            self.location,
            self.revision,
            self.device,
            self.dtype,
            self.attn_implementation,
            trust_remote_code=self.trust_remote_code,
        )


class CurriculumConfig(Frozen):
    """Rarely ask questions that were solved, or hopeless, when they were last asked."""

    low: float = Field(default=0.1, ge=0, le=1, description="lowest pass rate of a question that is always asked again")
    high: float = Field(
        default=0.9, ge=0, le=1, description="highest pass rate of a question that is always asked again"
    )
    rare: float = Field(
        default=0.1, gt=0, lt=1, description="probability that a question outside of low and high is asked at its turn"
    )

    @model_validator(mode="after")
    def _is_a_band(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low is {self.low:g}, above high, {self.high:g}")
        return self


class DatasetConfig(Frozen):
    """Prompts to train on."""

    name: str | None = Field(default=None, description="a registered name, or a file (.yaml, .jsonl, .parquet, .csv)")
    mix: tuple[str, ...] = Field(
        default=(), description="several data sets instead of name, NAME:WEIGHT each; --dataset given several times"
    )
    data_files: tuple[Path, ...] = Field(default=(), description="local files in the data set's layout")
    limit: int | None = Field(default=None, ge=1, description="train only on the first N questions (of each data set)")
    epochs: int | None = Field(default=None, ge=1, description="passes over the questions, instead of `steps`")
    curriculum: CurriculumConfig | None = Field(
        default=None, description="ask solved and hopeless questions rarely; {} for the defaults, null is off"
    )
    max_prompt_tokens: int = Field(default=1024, ge=1, description="longer prompts are dropped, counted and reported")
    options: dict[str, Any] = Field(default_factory=dict, description="options of the prompt source")

    @property
    def members(self) -> list[tuple[str, float]]:
        """Names of the data sets, with their weights; empty if none is named."""
        return [parse_member(text) for text in self.mix] or ([] if self.name is None else [(self.name, 1.0)])

    @property
    def title(self) -> str:
        """The name, or those of a mixture with their shares."""
        total = sum(weight for _, weight in self.members)
        return " + ".join(f"{name} ({weight / total:.0%})" if self.mix else name for name, weight in self.members)


class VerifierConfig(Frozen):
    """Verifier whose score is the reward."""

    name: str | None = Field(default=None, description="a registered name or FILE.py:FUNCTION; the data set's default")
    options: dict[str, Any] = Field(default_factory=dict, description="options of the verifier")
    workers: int | None = Field(
        default=None, ge=0, description="worker processes; null is one per CPU, 0 verifies in this process"
    )
    timeout: float = Field(default=5.0, gt=0, le=MAX_TIMEOUT, description="seconds per verdict")
    max_reward: float = Field(default=1e6, gt=0, le=1e100, description="rewards beyond plus or minus this are errors")
    shadow: tuple[str, ...] = Field(
        default=(), description="further verifiers that are logged and never trained on; the alarm hacking reads them"
    )
    shadow_share: float = Field(default=0.1, gt=0, le=1, description="share of the sampled groups that they score")
    write_protect: bool = Field(
        default=False, description="let workers write to their scratch folders only (Landlock; Linux 6.2 or newer)"
    )
    rewards: dict[Status, float | None] = Field(
        default_factory=lambda: dict(DEFAULT_REWARDS),
        description="reward of a verdict without one, by status; null drops the rollout",
    )

    @field_validator("rewards")
    @classmethod
    def _the_others_by_default(cls, rewards: dict[Status, float | None]) -> dict[Status, float | None]:
        if Status.GRADED in rewards:
            raise ValueError("a graded verdict has its own reward, which the verifier gives")
        return {**DEFAULT_REWARDS, **rewards}

    @model_validator(mode="after")
    def _within_the_limit(self) -> Self:
        for status, reward in self.rewards.items():
            if reward is not None and not abs(reward) <= self.max_reward:
                raise ValueError(f"rewards.{status.value} is {reward:g}, beyond max_reward, ±{self.max_reward:g}")
        return self


class SamplingConfig(Frozen):
    """Rollouts per step, and how they are sampled."""

    engine: str = Field(
        default="hf", description="a registered sampler, or auto: vllm if it is installed and faster here, else hf"
    )
    options: dict[str, Any] = Field(default_factory=dict, description="options of the sampler")
    process: bool = Field(
        default=False, description="run the sampler in a process of its own; mode=async does for one in this process"
    )
    threads: int | None = Field(
        default=None,
        ge=1,
        description="CPU threads of a sampler in a process of its own; null: with mode=async half of them, unless "
        "OMP_NUM_THREADS is set, else as many as the trainer. With mode=async the trainer has the others",
    )
    copies: int = Field(
        default=1, ge=1, description="processes that sample side by side, each with the whole model on model.device"
    )
    ahead: int = Field(default=1, ge=1, description="mode=async: batches sampled while another is learned from")
    in_flight_updates: bool = Field(
        default=False, description="mode=async: new weights at once, also for completions that are under way"
    )
    max_lag: int | None = Field(
        default=None,
        ge=1,
        description="mode=async: learn from groups as they finish, and drop those older than so many optimizer steps; "
        "null: in order, none dropped",
    )
    prompts_per_step: int = Field(default=16, ge=1, description="prompts (groups) per batch")
    group_size: int = Field(default=16, ge=2, description="G: completions per prompt")
    temperature: float = Field(default=1.0, gt=0, description="sampling temperature; training uses it as well")
    top_p: float = Field(
        default=1.0, gt=0, le=1, description="sample from the fewest tokens that hold this probability; needs top_k"
    )
    top_k: int = Field(default=0, ge=0, description="sample from the so many likeliest tokens; 0 is off")
    min_p: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="sample from tokens of at least this share of the highest probability; needs top_k",
    )
    keep_topk: int | None = Field(
        default=None,
        ge=0,
        description="K: record the K likeliest tokens at each sampled token, with their log-probabilities, in "
        "extra_tokens; null is top_k",
    )
    max_tokens: int = Field(default=1024, ge=1, description="length limit of a completion, in tokens")
    stop: tuple[str | int, ...] = Field(
        default=(),
        description="strings and token ids that end a completion, in addition to the model's end-of-text tokens, the "
        "chat template's end of turn, and for base models the data set's stops",
    )
    refill: bool = Field(
        default=False, description="DAPO: replace groups whose rewards are equal by groups of further prompts"
    )
    refill_rounds: int = Field(default=3, ge=1, description="largest number of refill rounds per batch")

    @model_validator(mode="after")
    def _support_is_bounded_and_kept(self) -> Self:
        for name in ("top_p", "min_p"):
            if not self.top_k and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(
                    f"sampling.{name} alone may leave any number of tokens, and training needs all of them in the "
                    "record: bound them with sampling.top_k, e.g. 64"
                )
        if self.top_k and self.keep_topk is not None and self.keep_topk < self.top_k:
            raise ValueError(
                f"sampling.keep_topk={self.keep_topk} does not hold the {self.top_k} tokens of sampling.top_k, which "
                "training needs in the record: leave keep_topk out, or raise it"
            )
        return self

    @property
    def params(self) -> SamplingParams:
        """Sampling parameters of a request."""
        return SamplingParams(
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            min_p=self.min_p,
            max_tokens=self.max_tokens,
        )

    @property
    def kept(self) -> int:
        """Likeliest tokens that are recorded at each sampled token; 0 for none."""
        return self.top_k if self.keep_topk is None else self.keep_topk


class RolloutsConfig(Frozen):
    """Saved rollouts to train on, and which groups are used at all."""

    files: tuple[Path, ...] = Field(
        default=(), description="record files, folders of them, or run directories; empty: every rollout is sampled"
    )
    scores: tuple[Path, ...] = Field(
        default=(), description="sidecars of `rlvr score --scores-only` with further scores of these records"
    )
    share: float = Field(
        default=1.0, gt=0, le=1, description="share of each batch's groups that are saved; the rest is sampled"
    )
    epochs: int | None = Field(
        default=None, ge=1, description="passes over the saved groups, instead of `steps`; 1 if neither is given"
    )
    skip_unusable: bool = Field(default=False, description="leave out records that cannot be trained on")
    behaviour_model: str | None = Field(
        default=None, description="model that sampled the records; it recomputes log-probabilities that they lack"
    )
    behaviour_revision: str | None = Field(default=None, description="hub revision of the behavior model")
    single_version: bool = Field(
        default=False, description="leave out and count groups sampled by more than one policy version"
    )


class ReplayConfig(Frozen):
    """Replay of the run's own past groups."""

    share: float = Field(default=0.0, ge=0, lt=1, description="share of each batch that is replayed; 0 is off")
    capacity: int = Field(default=1024, ge=1, description="number of past groups kept: the newest that have a signal")
    half_life: float = Field(
        default=50.0, gt=0, description="age, in batches, at which the probability of a group is halved"
    )
    max_lag: int | None = Field(default=None, ge=1, description="largest lag of a replayed group, in optimizer steps")


class TrainerConfig(BaseModel):
    """Algorithm. The other keys are the trainer's own `Options`, validated when it is loaded."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    name: str = Field(default="grpo", description="grpo (on-policy), grpo-off (off-policy), or a plugin's")

    @property
    def options(self) -> dict[str, Any]:
        """All keys except the name."""
        return dict(self.model_extra or {})


class EvalSetConfig(Frozen):
    """A further set of held-out questions."""

    dataset: str = Field(description="a registered name, or a file of questions")
    data_files: tuple[Path, ...] = Field(default=(), description="local files in the data set's layout")
    options: dict[str, Any] = Field(default_factory=dict, description="options of the prompt source")
    questions: int = Field(default=200, ge=1, description="questions to ask")
    samples: int = Field(default=1, ge=1, description="completions per question")
    temperature: float | None = Field(default=None, ge=0, description="temperature; null is sampling.temperature")
    max_tokens: int | None = Field(default=None, ge=1, description="length limit; null is sampling.max_tokens")
    greedy: bool = Field(default=False, description="ask once more at temperature 0")


class EvalConfig(Frozen):
    """Evaluation on held-out questions: at the start, at the end, and at the first weight sync after `every` steps."""

    every: int = Field(default=50, ge=1, description="batches between two evaluations")
    questions: int = Field(default=200, ge=0, description="held-out questions; 0 asks none")
    samples: int = Field(default=1, ge=1, description="completions per held-out question")
    dataset: str | None = Field(
        default=None, description="data set of the held-out questions; null is the one trained on"
    )
    data_files: tuple[Path, ...] = Field(default=(), description="local files of held-out questions")
    sets: dict[Annotated[str, Field(pattern=r"^[\w-]+$")], EvalSetConfig] = Field(
        default_factory=dict,
        description="further sets by name: {math500: {dataset: math500, samples: 4}}; keys: dataset, data_files, "
        "options, questions, samples, temperature, max_tokens, greedy",
    )


class CheckpointConfig(Frozen):
    """When the run is saved, besides its end and Ctrl-C."""

    every: int = Field(default=50, ge=1, description="batches between two checkpoints")
    minutes: float | None = Field(default=None, gt=0, description="also a checkpoint after so many minutes without one")
    keep: int = Field(default=2, ge=1, description="number of checkpoints kept, the newest ones")
    best: str | None = Field(
        default=None,
        pattern=r"^eval(_[\w-]+)?/.",
        description="metric of an evaluation (eval/reward, eval/accuracy, eval_NAME/accuracy); the weights with its "
        "largest value are kept in weights/best",
    )
    weights_every: int | None = Field(
        default=None, ge=1, description="batches between two folders of weights alone in weights/; all are kept"
    )
    weights_dtype: Literal["float32", "bfloat16"] = Field(
        default="bfloat16", description="dtype of weights alone; checkpoints that a run continues from are float32"
    )


class TrackingConfig(Frozen):
    """Tables of samples for trackers."""

    samples: int = Field(default=8, ge=0, description="rollouts in a table, one of each group; 0 sends none")
    every: int = Field(default=10, ge=1, description="batches between two tables of samples")


class RunConfig(Frozen):
    """The whole configuration of a run."""

    mode: Literal["sync", "async"] = Field(
        default="sync", description="sync: sample, then learn; async: sample the next batches meanwhile"
    )
    recipe: str | None = Field(default=None, description="a registered recipe, or the YAML file of one")
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
    tracking: TrackingConfig = TrackingConfig()
    trackers: tuple[str, ...] = Field(
        default=(),
        description="trackers that also receive metrics and samples: tensorboard, wandb, trackio, mlflow, a plugin's, "
        "or FILE.py:CLASS",
    )
    steps: int = Field(default=200, ge=1, description="batches to train on")
    seed: int = Field(default=0, ge=0, description="seed of every random draw")

    @property
    def batches_ahead(self) -> int:
        """Batches that are asked for before they are needed."""
        return self.sampling.ahead if self.mode == "async" else 0

    @property
    def samples(self) -> bool:
        """True if any rollout to train on is sampled."""
        return not self.rollouts.files or self.rollouts.share < 1


class Recipe(Frozen):
    """Section `recipe` of a recipe's file. The rest of the file is settings for any model."""

    title: str
    formula: str = Field(description="objective that is maximized")
    source: str = Field(description="paper and equation")
    staleness: str = Field(description="staleness (v) that it is meant for")
    notes: tuple[str, ...] = Field(default=(), description="deviations from the source, and warnings")


def resolve(command_line: Settings, file: Path | None = None) -> RunConfig:
    """Return the configuration of a run, from its layers.

    Raises ConfigError for an unknown key, a wrong value or an impossible combination, and PluginError for an unknown
    trainer or recipe.
    """
    written = read_settings(file) if file else {}
    given = {**written, **command_line}
    name = given.get("model.name", Setting(ModelConfig().name, "default"))
    preset = _preset(str(name.value))
    own = preset.get("dataset.name")
    mix = given.get("dataset.mix")
    dataset = mix if mix is not None and mix.value else given.get("dataset.name")
    if dataset is mix is not None:
        preset.pop("dataset.name", None)
    if "model.name" not in given and dataset is not None and own is not None and dataset.value != own.value:
        raise ConfigError(
            f"dataset {str(dataset.value)!r} needs a model that can read it: the default, {name.value!r}, knows "
            f"{own.value!r} only. Name one, e.g. --model Qwen/Qwen2.5-0.5B-Instruct, or a directory"
        )
    recipe = given.get("recipe")
    layer = read_recipe(str(recipe.value))[1] if recipe is not None and recipe.value is not None else {}
    _reject_another_recipe(layer, written, command_line)
    settings = {**preset, **layer, **given}
    config = _default_epochs(validate(RunConfig, settings), given)
    _check_consistent(config)
    _reject_ignored(config, given)
    trainer_options(config, trainer_factory(config.trainer.name).Options, settings)
    if not config.dataset.members and config.samples:
        raise ConfigError(f"model {config.model.name!r} has no default data set: name one with --dataset")
    return config


def _reject_another_recipe(layer: Settings, written: Settings, command_line: Settings) -> None:
    """Raise ConfigError if the command line names a recipe and the file, resolved for another one, overrides it."""
    asked, before = command_line.get("recipe"), written.get("recipe")
    if asked is None or before is None or asked.value == before.value:
        return
    contrary = [key for key, setting in layer.items() if key in written and written[key].value != setting.value]
    if kept := [key for key in contrary if key not in command_line]:
        lines = ", ".join(f"{key} ({written[key].source})" for key in kept)
        raise ConfigError(
            f"recipe {asked.value!r} ({asked.source}) would not take effect: the file was written for recipe "
            f"{before.value!r} and sets {lines} otherwise; remove these lines"
        )


def read_recipe(name: str) -> tuple[Recipe, Settings]:
    """Return a registered recipe, or that of a YAML file, and its settings.

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
    """Set one pass over saved rollouts if neither steps nor epochs were given: a preset's steps are for sampling."""
    if "steps" in given and config.dataset.epochs is not None:
        raise ConfigError("steps and dataset.epochs both set the length of the run: give one of them")
    if "steps" in given and config.rollouts.epochs is not None:
        raise ConfigError("steps and rollouts.epochs both set the length of the run: give one of them")
    if config.samples or "steps" in given or config.rollouts.epochs is not None:
        return config
    return config.model_copy(update={"rollouts": config.rollouts.model_copy(update={"epochs": 1})})


def _check_consistent(config: RunConfig) -> None:
    """Raise ConfigError for settings of rollouts that contradict each other."""
    rollouts, replay, size = config.rollouts, config.replay, config.sampling.prompts_per_step
    if rollouts.scores and not rollouts.files:
        raise ConfigError("rollouts.scores are of saved rollouts: it needs --rollouts")
    if rollouts.epochs is not None and config.samples:
        raise ConfigError("rollouts.epochs counts passes over saved rollouts: it needs --rollouts and share 1")
    if config.dataset.mix and (config.dataset.name is not None or config.dataset.data_files):
        other = "dataset.name" if config.dataset.name is not None else "dataset.data_files"
        raise ConfigError(f"dataset.mix and {other} both say what to train on: give one of them")
    if config.dataset.epochs is not None and (rollouts.files or config.sampling.refill or config.dataset.mix):
        raise ConfigError(
            "dataset.epochs counts passes over one data set: give steps with a mixture, with sampling.refill, whose "
            "batches take any number of questions, and with saved rollouts (rollouts.epochs if all are saved)"
        )
    _check_curriculum(config)
    if not config.samples and replay.share:
        raise ConfigError("replay.share: there is nothing to replay, because nothing is sampled")
    if not config.samples and config.sampling.refill:
        raise ConfigError(
            "sampling.refill: there is nothing to refill with, because nothing is sampled; leave it out with "
            "--set sampling.refill=false"
        )
    if config.mode == "async" and config.sampling.refill:
        raise ConfigError(
            "sampling.refill: how many prompts a batch takes is known only when it is there, so none can be sampled "
            "ahead: use mode=sync, or --set sampling.refill=false"
        )
    if config.mode == "async" and not config.samples:
        raise ConfigError("mode=async: every rollout is a saved one, and nothing is sampled meanwhile; leave it out")
    saved = portion(rollouts.share, size) if rollouts.files and config.samples else 0
    past = portion(replay.share, size) if replay.share else 0
    if replay.capacity < past:
        raise ConfigError(
            f"replay.capacity {replay.capacity} is less than the {past} groups that each batch of {size} replays "
            f"(replay.share): set it to at least {past}"
        )
    if config.samples and saved + past >= size:
        raise ConfigError(
            f"of {size} groups per batch (sampling.prompts_per_step) {saved} would be saved (rollouts.share) and "
            f"{past} replayed (replay.share): at least one must be sampled"
        )


def _check_curriculum(config: RunConfig) -> None:
    """Raise ConfigError if `dataset.curriculum` cannot work with the other settings."""
    if config.dataset.curriculum is None:
        return
    if not config.samples:
        raise ConfigError("dataset.curriculum: every rollout is a saved one, and no question is asked; leave it out")
    if config.mode == "async":
        raise ConfigError(
            "dataset.curriculum: which questions come next is known only when those before have been measured, so none "
            "can be sampled ahead: use mode=sync, or leave the curriculum out"
        )
    if config.dataset.mix or config.dataset.epochs is not None:
        other, why = ("dataset.mix", "the weights of a mixture") if config.dataset.mix else ("dataset.epochs", "a pass")
        raise ConfigError(
            f"dataset.curriculum passes over questions, and {other} counts them for {why}: give one of the two"
        )


def _reject_ignored(config: RunConfig, given: Settings) -> None:
    """Raise ConfigError for a setting that has no effect in this run.

    Settings left at their default are exempt, since a run's own config.yaml spells out all of them. If nothing is
    sampled, sampling settings from a file are exempt too: a run on saved rollouts may start from the file of the run
    that sampled them.
    """
    ignored: list[tuple[Frozen, str, str]] = []
    if not config.rollouts.files:
        keys = ["share", "skip_unusable", "behaviour_model", "behaviour_revision"]
        why = "without saved rollouts: name some with --rollouts"
        ignored += [(config.rollouts, f"rollouts.{key}", why) for key in keys]
    if not config.sampling.refill:
        ignored += [(config.sampling, "sampling.refill_rounds", "without sampling.refill: no batch is refilled")]
    if config.mode == "sync":
        keys, why = ["ahead", "in_flight_updates", "max_lag"], "while mode is sync: nothing is sampled ahead"
        ignored += [(config.sampling, f"sampling.{key}", why) for key in keys]
    if not config.verifier.shadow:
        why = "without verifier.shadow: no shadow verifier scores anything"
        ignored += [(config.verifier, "verifier.shadow_share", why)]
    if not config.replay.share:
        keys = ["capacity", "half_life", "max_lag"]
        why = "while replay.share is 0: nothing is replayed"
        ignored += [(config.replay, f"replay.{key}", why) for key in keys]
    if not config.samples:
        why = "while every rollout is a saved one: shadow verifiers score what is sampled"
        ignored += [(config.verifier, "verifier.shadow", why)]
        typed = {key for key, setting in given.items() if setting.source.startswith("--")}
        why = "while every rollout is a saved one: nothing is sampled (rollouts.share)"
        ignored += [(config.sampling, key, why) for key in typed & {"sampling.group_size"}]
        ignored += [(config.dataset, key, why) for key in typed & {"dataset.limit"}]
    for section, dotted, why in ignored:
        key = dotted.partition(".")[2]
        if dotted in given and getattr(section, key) != type(section).model_fields[key].default:
            raise ConfigError(f"{dotted} ({given[dotted].source}) does nothing {why}")


def portion(share: float, size: int) -> int:
    """Return a share of `size` groups: rounded, at least 1."""
    return max(1, round(share * size))


def saved_groups(config: RunConfig) -> int:
    """Return how many groups of a batch come from files."""
    return portion(config.rollouts.share, config.sampling.prompts_per_step) if config.rollouts.files else 0


def replayed_groups(config: RunConfig) -> int:
    """Return how many groups of a batch are replayed, once there are enough past ones."""
    return portion(config.replay.share, config.sampling.prompts_per_step) if config.replay.share else 0


def sampled_groups(config: RunConfig) -> int:
    """Return how many groups of a batch are sampled, if enough past groups can be replayed."""
    return config.sampling.prompts_per_step - saved_groups(config) - replayed_groups(config)


def _preset(model: str) -> Settings:
    """Return the preset of a model's name; a `model.path` of `./…` is relative to the preset's file."""
    if model not in registry().names("preset"):
        return {}
    file: Path = registry().load("preset", model)
    settings = read_settings(file)
    path = settings.get("model.path")
    if path is None or not str(path.value).startswith("."):  # a hub name, or the name itself
        return settings
    return settings | {"model.path": Setting(str(file.parent / path.value), path.source)}


def model_config(name: str, **given: Any) -> ModelConfig:
    """Return the section `model` alone, for commands without a run. `given` are further keys of the section."""
    ours = {key: setting for key, setting in _preset(name).items() if key.startswith("model.")}
    ours |= {f"model.{key}": Setting(value, f"--{key}") for key, value in given.items()}
    ours["model.name"] = Setting(name, "--model")
    return validate(RunConfig, ours).model


def trainer_options(config: RunConfig, options: type[M], given: Settings | None = None) -> M:
    """Return the trainer's options, validated by its `Options`. `given` are the settings behind `config`, for error
    messages that say where a value was written."""
    if given is None:
        given = {f"trainer.{key}": Setting(value, "") for key, value in config.trainer.options.items()}
    ours = {key: setting for key, setting in given.items() if key.startswith("trainer.") and key != "trainer.name"}
    settings = {key.removeprefix("trainer."): setting for key, setting in ours.items()}
    return validate(options, _without_options_of_others(config.trainer.name, options, settings), "trainer.")


def _without_options_of_others(trainer: str, options: type[BaseModel], settings: Settings) -> Settings:
    """Return the settings without options that another trainer has, this one lacks, and a file leaves at their default:
    a run's own config.yaml spells out all of them.

    Raises ConfigError for other values of such options; the message names that trainer.
    """
    sources = {key.partition(".")[0]: setting.source for key, setting in settings.items()}
    lacking = {key: source for key, source in sources.items() if key not in options.model_fields}
    for entry in registry().entries("trainer") if lacking else ():
        try:
            theirs = trainer_factory(entry.name).Options.model_fields
        except PluginError:  # it cannot be used instead; whoever names it gets the error
            continue
        defaults = {key: to_jsonable_python(theirs[key].get_default()) for key in lacking if key in theirs}
        spelled_out = {
            key
            for key, default in defaults.items()
            if key in settings and settings[key].value == default and not lacking[key].startswith("--")
        }
        if moved := [key for key in defaults if key not in spelled_out]:
            named = ", ".join(f"trainer.{key}" + (f" ({lacking[key]})" if lacking[key] else "") for key in moved)
            raise ConfigError(
                f"{named}: the trainer is {trainer!r}, and this is an option of {entry.name!r}; take that (--trainer "
                f"{entry.name}), or leave the option out"
            )
        settings = {key: setting for key, setting in settings.items() if key not in spelled_out}
    return settings


def to_yaml(config: RunConfig) -> str:
    """Return the resolved configuration as YAML with every default; `read_settings` restores it exactly."""
    return yaml_text(config.model_dump(mode="json"))
