"""`rlvr train`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from rlvr.cli.command import Command
from rlvr.cli.interrupts import INTERRUPTED
from rlvr.cli.json_output import print_json
from rlvr.cli.options import Quiet, SamplerName, Servers
from rlvr.cli.progress import Heartbeat
from rlvr.errors import RequestError

if TYPE_CHECKING:
    from rlvr.run.train import TrainResult
    from rlvr.settings import Settings

# Types of the options, with their help texts.
Files: TypeAlias = list[Path] | None
Texts: TypeAlias = list[str] | None

VerifierNames: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--verifier",
        help="Verifier: a name, FILE.py:FUNCTION, or a composition in a YAML file; NAME:WEIGHT, several times, for a "
        "weighted sum.",
    ),
]
TrainerName: TypeAlias = Annotated[str | None, typer.Option(help="Algorithm: grpo, grpo-off, or a plugin's.")]
RecipeName: TypeAlias = Annotated[str | None, typer.Option(help="Recipe; `rlvr recipes` lists them.")]
ModelName: TypeAlias = Annotated[
    str | None, typer.Option(help="Model: a local directory or a hub name. [default: embedded]")
]
DatasetNames: TypeAlias = Annotated[
    Texts,
    typer.Option(
        metavar="NAME", help="Data set: a name, or a file of questions. Several, each NAME:WEIGHT, are mixed."
    ),
]
DataFiles: TypeAlias = Annotated[
    Files, typer.Option("--data-files", help="Local files in the data set's layout; repeatable.")
]
RolloutFiles: TypeAlias = Annotated[
    Files,
    typer.Option(
        metavar="FILE...",
        help="Train on these saved records, folders or run directories instead of sampling; repeatable. "
        "--verifier names the score to use as reward.",
    ),
]
MoreFiles: TypeAlias = Annotated[Files, typer.Argument(metavar="FILE", hidden=True)]
ScoreFiles: TypeAlias = Annotated[
    Files,
    typer.Option(
        "--scores", metavar="SIDECAR", help="Scores of the records, from rlvr score --scores-only; repeatable."
    ),
]
SkipUnusable: TypeAlias = Annotated[
    bool, typer.Option("--skip-unusable", help="Leave out records that cannot be trained on, and count them.")
]
BehaviorModel: TypeAlias = Annotated[
    str | None, typer.Option(help="Model that sampled the records; it recomputes log-probabilities that they lack.")
]
Steps: TypeAlias = Annotated[int | None, typer.Option(help="Batches to train on.")]
LearningRate: TypeAlias = Annotated[float | None, typer.Option(help="Learning rate.")]
GroupSize: TypeAlias = Annotated[int | None, typer.Option(help="Completions per prompt.")]
PromptsPerStep: TypeAlias = Annotated[int | None, typer.Option(help="Prompts per batch.")]
MaxTokens: TypeAlias = Annotated[int | None, typer.Option(help="Length limit of a completion, in tokens.")]
PushEvery: TypeAlias = Annotated[int | None, typer.Option(help="Batches between two weight syncs (v in the paper).")]
ModeName: TypeAlias = Annotated[
    str | None, typer.Option("--mode", help="sync: sample, then learn; async: sample the next batch meanwhile.")
]
Device: TypeAlias = Annotated[str | None, typer.Option(help="Device: auto, cpu, cuda, cuda:1, mps.")]
Dtype: TypeAlias = Annotated[str | None, typer.Option(help="Compute dtype: auto, float32, bfloat16.")]
WriteProtect: TypeAlias = Annotated[
    bool,
    typer.Option("--write-protect", help="Let verifiers write to scratch folders only (Landlock, Linux 6.2)."),
]
TrustRemoteCode: TypeAlias = Annotated[
    bool,
    typer.Option("--trust-remote-code", help="Run Python code from the model's repository, with your permissions."),
]
Trackers: TypeAlias = Annotated[Texts, typer.Option("--tracker", help="Also log to this tracker; repeatable.")]
Seed: TypeAlias = Annotated[int | None, typer.Option(help="Random seed.")]
ConfigFile: TypeAlias = Annotated[
    Path | None, typer.Option(help="YAML file of settings, or a starting configuration: gsm8k-0.5b, deepscaler-1.5b, …")
]
Sets: TypeAlias = Annotated[Texts, typer.Option("--set", help="Any setting, e.g. trainer.epsilon=0.1; repeatable.")]
Out: TypeAlias = Annotated[Path | None, typer.Option(help="Run directory. [default: runs/DATE-TRAINER]")]
Resume: TypeAlias = Annotated[Path | None, typer.Option(help="Continue the run in this directory.")]
AcceptChanges: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--accept-changes",
        help="With --resume: continue even if the verifier, a plugin or rlvr changed version, and record the change.",
    ),
]
DryRun: TypeAlias = Annotated[
    bool, typer.Option("--dry-run", help="Check everything that needs no weights, then stop.")
]
AsJson: TypeAlias = Annotated[
    bool, typer.Option("--json", help="Print one JSON object at the end; progress goes to standard error.")
]


def train(
    context: typer.Context,
    verifier: VerifierNames = None,
    trainer: TrainerName = None,
    recipe: RecipeName = None,
    model: ModelName = None,
    dataset: DatasetNames = None,
    data_files: DataFiles = None,
    rollouts: RolloutFiles = None,
    more_rollouts: MoreFiles = None,
    scores: ScoreFiles = None,
    skip_unusable: SkipUnusable = False,
    behaviour_model: BehaviorModel = None,
    steps: Steps = None,
    lr: LearningRate = None,
    group_size: GroupSize = None,
    prompts_per_step: PromptsPerStep = None,
    max_tokens: MaxTokens = None,
    push_every: PushEvery = None,
    mode: ModeName = None,
    sampler: SamplerName = None,
    server: Servers = None,
    device: Device = None,
    dtype: Dtype = None,
    trust_remote_code: TrustRemoteCode = False,
    write_protect: WriteProtect = False,
    tracker: Trackers = None,
    seed: Seed = None,
    config: ConfigFile = None,
    set_: Sets = None,
    out: Out = None,
    resume: Resume = None,
    accept_changes: AcceptChanges = False,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Train a model on questions whose answers can be verified.

    With no arguments, a small embedded model learns arithmetic in minutes, on any machine. Ctrl-C finishes and saves
    the current step; a second Ctrl-C stops at once.
    """
    settings = _settings(context.params, set_ or [])
    if resume is not None:
        others = [flag for flag, given in (("--config", config), ("--out", out), ("--dry-run", dry_run)) if given]
        with _progress_elsewhere(as_json):
            result = _resume(resume, settings, others, accept_changes)
        _finish(result, as_json)
    elif accept_changes:
        raise RequestError("--accept-changes needs --resume: a new run has nothing that could have changed")
    elif dry_run:
        _dry_run(settings, config, as_json)
    else:
        with _progress_elsewhere(as_json):
            result = _start(settings, config, out)
        _finish(result, as_json)


@contextmanager
def _progress_elsewhere(as_json: bool) -> Iterator[None]:
    """Send what is printed to standard error, so that standard output holds only the JSON."""
    with redirect_stdout(sys.stderr) if as_json else nullcontext():
        yield


class TrainCommand(Command):
    """`rlvr train`. For an unknown option, it suggests the setting or the option to use."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments. Raises RequestError for an option that is a setting, or an option of another name."""
        known = {option for parameter in self.get_params(ctx) for option in parameter.opts}
        for argument in args:
            option = argument.partition("=")[0]
            if option.startswith("--") and option not in known and (meant := _meant(option)):
                raise RequestError(f"there is no option {option}; did you mean {meant}?")
        return super().parse_args(ctx, args)


OTHER_NAMES = {
    "--option": "--set verifier.options.KEY=VALUE",
    "--learning-rate": "--lr",
    "--batch-size": "--prompts-per-step",
    "--num-generations": "--group-size",
    "--max-steps": "--steps",
    "--max-new-tokens": "--max-tokens",
    "--output-dir": "--out",
    "--output": "--out",
}
"""Option of another command or program → its name here."""


def _meant(option: str) -> str:
    """Return the option or the settings that an unknown option stands for; "" if there are none."""
    if option in OTHER_NAMES:
        return OTHER_NAMES[option]
    from rlvr.run.reference import keys_called

    return " or ".join(f"--set {key}=VALUE" for key in keys_called(option.removeprefix("--").replace("-", "_")))


FLAGS = {
    "verifier": ("--verifier", "verifier.name"),
    "trainer": ("--trainer", "trainer.name"),
    "recipe": ("--recipe", "recipe"),
    "model": ("--model", "model.name"),
    "dataset": ("--dataset", "dataset.name"),
    "data_files": ("--data-files", "dataset.data_files"),
    "rollouts": ("--rollouts", "rollouts.files"),
    "scores": ("--scores", "rollouts.scores"),
    "skip_unusable": ("--skip-unusable", "rollouts.skip_unusable"),
    "behaviour_model": ("--behaviour-model", "rollouts.behaviour_model"),
    "steps": ("--steps", "steps"),
    "lr": ("--lr", "trainer.lr"),
    "group_size": ("--group-size", "sampling.group_size"),
    "prompts_per_step": ("--prompts-per-step", "sampling.prompts_per_step"),
    "max_tokens": ("--max-tokens", "sampling.max_tokens"),
    "push_every": ("--push-every", "trainer.push_every"),
    "mode": ("--mode", "mode"),
    "sampler": ("--sampler", "sampling.engine"),
    "server": ("--server", "sampling.options.servers"),
    "device": ("--device", "model.device"),
    "dtype": ("--dtype", "model.dtype"),
    "trust_remote_code": ("--trust-remote-code", "model.trust_remote_code"),
    "write_protect": ("--write-protect", "verifier.write_protect"),
    "tracker": ("--tracker", "trackers"),
    "seed": ("--seed", "seed"),
}
"""Parameter of `train` → its flag and the setting that it sets."""


def _settings(parameters: Mapping[str, Any], sets: Sequence[str]) -> Settings:
    """Return the settings that the command line gives. Raises ConfigError for a key given twice."""
    from rlvr.settings import command_line_settings
    from rlvr.verify.composition import weighted

    given = dict(parameters)
    more = given.pop("more_rollouts")
    if more and not given["rollouts"]:
        raise RequestError(f"{more[0]} is no option: did you mean --rollouts {more[0]}?")
    given["rollouts"] = [*given["rollouts"], *more]
    given["verifier"] = weighted(given["verifier"] or ())
    datasets = list(given.pop("dataset") or ())
    flags = {key: (flag, _plain(given[name])) for name, (flag, key) in FLAGS.items() if name in given}
    if len(datasets) > 1:
        flags["dataset.mix"] = ("--dataset", datasets)
    elif datasets:
        flags["dataset.name"] = ("--dataset", datasets[0])
    return command_line_settings(sets, flags)


def _plain(value: Any) -> Any:
    """Return an option's value as YAML would hold it; None if it was not given."""
    if isinstance(value, list | tuple):
        return [str(each) for each in value] or None
    if isinstance(value, Path):
        return str(value)
    return None if value is False else value


def _start(settings: Settings, config: Path | None, out: Path | None) -> TrainResult:
    from rlvr.cli.reporters import reporter
    from rlvr.run.config import resolve
    from rlvr.run.starting import config_file
    from rlvr.run.train import train as run

    with reporter() as shown:
        return run(resolve(settings, config and config_file(config)), out=out, reporter=shown)


def _resume(path: Path, settings: Settings, others: Sequence[str], accept_changes: bool) -> TrainResult:
    from rlvr.cli.reporters import reporter
    from rlvr.run.train import train as run

    others = [*(setting.source for key, setting in settings.items() if key != "steps"), *others]
    if others:
        raise RequestError(
            f"--resume takes the settings from {path}/config.yaml; only --steps and --accept-changes can be added, "
            f"not {', '.join(others)}"
        )
    steps = {key: setting.value for key, setting in settings.items()}
    with reporter() as shown:
        return run(resume=path, overrides=steps, accept_changes=accept_changes, reporter=shown)


def _dry_run(settings: Settings, config: Path | None, as_json: bool) -> None:
    from rlvr.cli.dry_run import plan_summary, plan_text
    from rlvr.run.config import resolve
    from rlvr.run.memory import refuse_too_large
    from rlvr.run.plan import make_plan
    from rlvr.run.starting import config_file

    with make_plan(resolve(settings, config and config_file(config)), Heartbeat()) as plan:
        if as_json:
            print_json(plan_summary(plan))
        else:
            for line in plan_text(plan):
                print(line)
        refuse_too_large(plan.memory, plan.config.model.name)


def _finish(result: TrainResult, as_json: bool) -> None:
    """Print where the run is. Exits with 130 if it was interrupted."""
    if as_json:
        print_json(result.to_dict())
        if not result.finished:
            raise typer.Exit(INTERRUPTED)
        return
    print(f"cost: {result.cost.text}")
    if result.checkpoint is not None:
        print(f"checkpoint: {result.checkpoint} (load it with AutoModelForCausalLM.from_pretrained)")
    if result.best is not None:
        print(f"best weights: {result.best} (by checkpoint.best; `rlvr export-model` copies them)")
    if not result.finished:
        print(f"interrupted after {result.steps} steps; continue with: rlvr train --resume {result.directory}")
        raise typer.Exit(INTERRUPTED)
