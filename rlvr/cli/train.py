"""`rlvr train`."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlvr.cli.progress import Said

if TYPE_CHECKING:
    from rlvr.run.config import RunConfig
    from rlvr.run.plan import Plan
    from rlvr.run.rundir import RunDirectory
    from rlvr.run.saved import SavedRollouts

INTERRUPTED = 130  # the shell's own code for an end by Ctrl-C
SECONDS_BETWEEN_LINES = 5.0


def train(
    verifier: Annotated[str | None, typer.Option(help="What is rewarded: a name, or FILE.py:FUNCTION.")] = None,
    trainer: Annotated[str | None, typer.Option(help="The algorithm: grpo, grpo-off, or a plugin's.")] = None,
    recipe: Annotated[str | None, typer.Option(help="Its settings by name, as `rlvr recipes` lists them.")] = None,
    model: Annotated[str | None, typer.Option(help="A local directory or hub name. [default: embedded]")] = None,
    dataset: Annotated[str | None, typer.Option(help="A configured data set, or a file of questions.")] = None,
    data_files: Annotated[
        list[Path] | None, typer.Option("--data-files", help="Local files in the data set's layout; repeatable.")
    ] = None,
    rollouts: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE...",
            help="Learn from these saved records, folders or run directories instead of sampling; repeatable. "
            "--verifier names the score.",
        ),
    ] = None,
    more_rollouts: Annotated[list[Path] | None, typer.Argument(metavar="FILE", hidden=True)] = None,
    scores: Annotated[
        list[Path] | None,
        typer.Option("--scores", metavar="SIDECAR", help="Scores of them, by rlvr score --scores-only; repeatable."),
    ] = None,
    skip_unusable: Annotated[
        bool, typer.Option("--skip-unusable", help="Leave out records that cannot be trained on, and say how many.")
    ] = False,
    behaviour_model: Annotated[
        str | None,
        typer.Option(help="What sampled the records without log-probabilities: they are recomputed with it."),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Batches to train on.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate.")] = None,
    group_size: Annotated[int | None, typer.Option(help="Completions a prompt.")] = None,
    prompts_per_step: Annotated[int | None, typer.Option(help="Prompts a batch.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Length limit of a completion.")] = None,
    push_every: Annotated[int | None, typer.Option(help="v: batches between two pushes to the sampler.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = None,
    dtype: Annotated[str | None, typer.Option(help="Of the computation: auto, float32, bfloat16.")] = None,
    tracker: Annotated[list[str] | None, typer.Option(help="Also report to this tracker; repeatable.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of questions and draws.")] = None,
    config: Annotated[Path | None, typer.Option(help="A YAML file of settings.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Any setting, e.g. trainer.epsilon=0.1; repeatable.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The run's directory. [default: runs/DATE-TRAINER]")] = None,
    resume: Annotated[Path | None, typer.Option(help="Continue the run in this directory.")] = None,
    accept_changes: Annotated[
        bool,
        typer.Option(
            "--accept-changes",
            help="With --resume: go on with another version of the verifier, a plugin or rlvr; the manifest says so.",
        ),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check all that needs no weights, and stop.")] = False,
) -> None:
    """Train a model on questions whose answers can be verified.

    With no arguments a small embedded model learns arithmetic, in minutes, on any machine. Ctrl-C ends the step, saves
    a checkpoint and exits with code 130; --resume continues.
    """
    from rlvr.errors import ConfigError
    from rlvr.run.config import resolve
    from rlvr.settings import command_line_settings

    if more_rollouts and not rollouts:
        raise ConfigError(f"{more_rollouts[0]} is no option: did you mean --rollouts {more_rollouts[0]}?")
    files = [str(path) for path in (*(rollouts or ()), *(more_rollouts or ()))]
    settings = command_line_settings(
        set_ or [],
        {
            "verifier.name": ("--verifier", verifier),
            "trainer.name": ("--trainer", trainer),
            "recipe": ("--recipe", recipe),
            "model.name": ("--model", model),
            "dataset.name": ("--dataset", dataset),
            "dataset.data_files": ("--data-files", [str(path) for path in data_files] if data_files else None),
            "rollouts.files": ("--rollouts", files or None),
            "rollouts.scores": ("--scores", [str(path) for path in scores] if scores else None),
            "rollouts.skip_unusable": ("--skip-unusable", skip_unusable or None),
            "rollouts.behaviour_model": ("--behaviour-model", behaviour_model),
            "steps": ("--steps", steps),
            "trainer.lr": ("--lr", lr),
            "sampling.group_size": ("--group-size", group_size),
            "sampling.prompts_per_step": ("--prompts-per-step", prompts_per_step),
            "sampling.max_tokens": ("--max-tokens", max_tokens),
            "trainer.push_every": ("--push-every", push_every),
            "model.device": ("--device", device),
            "model.dtype": ("--dtype", dtype),
            "trackers": ("--tracker", tracker),
            "seed": ("--seed", seed),
        },
    )
    if resume is not None:
        others = [setting.source for key, setting in settings.items() if key != "steps"]
        others += [flag for flag, given in (("--config", config), ("--out", out), ("--dry-run", dry_run)) if given]
        if others:
            raise ConfigError(
                f"--resume continues the run as {resume}/config.yaml has it; only --steps and "
                f"--accept-changes go with it, not {', '.join(others)}"
            )
        _resume(resume, steps, accept_changes)
    elif accept_changes:
        raise ConfigError("--accept-changes is for a run that goes on: it needs --resume")
    elif dry_run:
        _dry_run(resolve(settings, config))
    else:
        _start(resolve(settings, config), out)


def _start(config: RunConfig, out: Path | None) -> None:
    from rlvr.run.plan import make_plan
    from rlvr.run.rundir import RunDirectory

    with make_plan(config, Said()) as plan:
        config = plan.config
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-{Path(config.recipe or config.trainer.name).stem}"
        with RunDirectory.create(out or Path("runs") / name, config) as directory:
            _run(plan, directory)


def _resume(path: Path, steps: int | None, accept_changes: bool) -> None:
    from rlvr.errors import ConfigError
    from rlvr.run.plan import make_plan
    from rlvr.run.rundir import RunDirectory

    with RunDirectory.resume(path, accept_changes=accept_changes) as directory:
        config = directory.config
        newest = directory.newest_checkpoint()
        if steps is not None and newest is not None and steps < newest[0]:
            raise ConfigError(f"--steps {steps}: the run has trained for {newest[0]} already")
        if steps is not None:
            config = config.model_copy(update={"steps": steps})
        with make_plan(config, Said()) as plan:
            _run(plan, directory)


def _run(plan: Plan, directory: RunDirectory) -> None:
    from transformers.utils.logging import disable_progress_bar

    from rlvr.alarms import summary
    from rlvr.run.loop import Run

    disable_progress_bar()  # type: ignore[no-untyped-call]  # of shards of files; a download's own bar stays
    print(_headline(plan))
    print(f"run directory: {directory.path}", flush=True)
    for note in plan.notes:
        print(f"note: {note}", flush=True)
    run = Run(plan, directory, ProgressLines())
    for note in run.notes:
        print(f"note: {note}", flush=True)
    try:
        outcome = run.train()
    finally:
        if told := summary(list(directory.metrics())):
            print(told, flush=True)
    newest = directory.newest_checkpoint()
    if newest is not None:
        print(f"checkpoint: {newest[1]} (reads with AutoModelForCausalLM.from_pretrained)")
    if not outcome.finished:
        print(f"interrupted after {outcome.steps} steps; continue with: rlvr train --resume {directory.path}")
        raise typer.Exit(INTERRUPTED)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _headline(plan: Plan) -> str:
    config, saved = plan.config, plan.saved
    algorithm = config.trainer.name if config.recipe is None else f"{config.recipe} ({config.trainer.name})"
    size = config.sampling.prompts_per_step
    verifier = plan.grader.verifier if plan.scorer is None else f"{plan.scorer.name} {plan.scorer.version}"
    if saved is not None and not config.samples:
        return (
            f"{algorithm} on {len(saved.groups):,} saved groups with {config.model.name}, scores by "
            f"{verifier}: {_count(config.steps, 'step')} of {size} groups"
        )
    return (
        f"{algorithm} on {config.dataset.name} with {config.model.name}, verified by {verifier}: "
        f"{_count(config.steps, 'step')} of {size} prompts × {config.sampling.group_size} completions"
    )


class ProgressLines:
    """A line for the first step, for each evaluation, for an alarm that the step before had not, likewise for a step
    that learnt nothing, for the last, and otherwise one every few seconds."""

    def __init__(self) -> None:
        self.began: float | None = None
        self.printed = -math.inf
        self.first = 0
        self.troubles: set[str] = set()

    def step(self, metrics: Mapping[str, Any], total: int) -> None:
        """Print the step, if it is time."""
        now = time.monotonic()
        step = metrics["step"] + 1
        if self.began is None:
            self.began, self.first = now, step
        troubles = {each["alarm"] for each in metrics["alarms"]} | set(_nothing_kept(metrics))
        news = "eval/accuracy" in metrics or troubles - self.troubles
        self.troubles = troubles
        if not news and step < total and now - self.printed < SECONDS_BETWEEN_LINES:
            return
        self.printed = now
        done = step - self.first
        left = (now - self.began) / done * (total - step) if done else None
        print(_line(metrics, step, total, left), flush=True)


def _line(metrics: Mapping[str, Any], step: int, total: int, seconds_left: float | None) -> str:
    from rlvr.alarms import Fired

    reward, lag = metrics["reward/mean"], metrics["lag/max"]
    unknown = "?" if lag is None or metrics.get("lag_unknown/share") else ""
    parts = [
        f"step {step:>{len(str(total))}}/{total}",
        "reward    –" if reward is None else f"reward {reward:.2f}",
        f"signal {metrics['signal/groups']:4.0%}",
        "lag " + ("" if lag is None else f"{lag:.0f}") + unknown,
        *([f"ess {metrics['ess/token']:.2f}"] if (lag or unknown) and metrics.get("ess/token") is not None else []),
        *_nothing_kept(metrics),
        f"{metrics['tokens_per_second']:,.0f} tok/s",
    ]
    if seconds_left is not None:
        parts.append(f"{int(seconds_left) // 60}:{int(seconds_left) % 60:02d} left")
    if "eval/accuracy" in metrics:
        parts.append(
            f"held-out {metrics['eval/accuracy']:.1%} (greedy {metrics['eval/greedy_accuracy']:.1%}) "
            f"at version {metrics['eval/policy_version']}"
        )
    parts += [f"ALARM {Fired(**each).text}" for each in metrics["alarms"]]
    return "  ".join(parts)


def _nothing_kept(metrics: Mapping[str, Any]) -> list[str]:
    """Said of a batch with a signal of which masks or the correction left nothing to learn from."""
    learnt = metrics.get("train/optimizer_steps") != 0 or metrics.get("train/skipped")
    return [] if learnt or not metrics["signal/groups"] else ["nothing kept"]


def _dry_run(config: RunConfig) -> None:
    from rlvr.run.plan import make_plan

    with make_plan(config, Said()) as plan:
        print(_headline(plan))
        for line in _arithmetic(plan):
            print(line)
        for line in _gold(plan):
            print(line)
        for note in plan.notes:
            print(f"note: {note}")
        print("\nno weight was loaded and nothing was written (--dry-run)")


def _gold(plan: Plan) -> Iterator[str]:
    if plan.scorer is None:
        return
    for place, (encoded, score) in enumerate(plan.try_gold()):
        if place == 0:
            yield f"\ngold answers, put to the verifier as {plan.scorer.claims.answer_form.replace('{answer}', '…')}:"
        verdict = score.status.value if score.reward is None else score.reward
        reason = f" ({score.reason})" if score.reason else ""
        yield f"  {encoded.prompt.task.row_id}: {encoded.prompt.task.answer!r} → {verdict}{reason}"


def _arithmetic(plan: Plan) -> list[str]:
    config, options = plan.config, plan.options
    i = getattr(options, "updates_per_batch", 1) * getattr(options, "mini_batches", 1)
    lines = _of_saved(plan, plan.saved) if plan.saved is not None else []
    if config.samples:
        lines += _of_sampling(plan, getattr(plan.options, "push_every", 1), i)
    else:
        lines.append(f"  the run      {_count(config.steps, 'step')}, {_count(config.steps * i, 'optimizer step')}")
        lines.append(f"  questions    {len(plan.questions)} held-out")
    copy = f", and a copy for the sampler {config.sampling.engine}" if plan.needs_sampler else ""
    lines.append(
        f"  would load   {config.model.name}: float32 master weights for {config.trainer.name}{copy}; device "
        f"{plan.model.device}, dtype {plan.model.dtype}"
    )
    return lines


def _of_sampling(plan: Plan, v: int, i: int) -> list[str]:
    config, sampling = plan.config, plan.config.sampling
    epoch = plan.steps_per_epoch
    rows = "endless" if plan.dataset_size is None else f"{plan.dataset_size:,}"
    per_step = plan.rollouts_per_step
    lines = [
        f"  questions    {rows}; {len(plan.questions)} held-out",
        f"  a step       {plan.sampled_groups} prompts × {sampling.group_size} = {per_step} rollouts, at most "
        f"{per_step * sampling.max_tokens:,} sampled tokens",
        f"  an epoch     {'does not end' if epoch is None else _count(epoch, 'step')}",
        f"  the run      {_count(config.steps, 'step')} = {config.steps * per_step:,} rollouts, "
        f"{_count(config.steps * i, 'optimizer step')}",
        f"  pushes       every {_count(v, 'step')}; lag 0 to {v * i - 1} optimizer steps"
        + (", of replayed groups more" if plan.replayed_groups else ""),
    ]
    if sampling.refill:
        lines.append(
            "  refill       groups with equal rewards are replaced by further prompts, in up to "
            f"{sampling.refill_rounds} rounds a step"
        )
    if plan.replayed_groups:
        lines.append(
            f"  replay       {plan.replayed_groups} past groups a step, of the newest {config.replay.capacity:,} with "
            f"a signal; half as likely every {config.replay.half_life:g} steps, "
            f"{'however old' if config.replay.max_lag is None else f'lag up to {config.replay.max_lag:,}'}"
        )
    return lines


def _ages(saved: SavedRollouts) -> str:
    if saved.lags is None:
        return "unknown: their policy versions are of another run, or come after the model's"
    low, high = saved.lags
    known = _count(low, "optimizer step") if low == high else f"{low:,} to {high:,} optimizer steps"
    return f"{known} before the first step" + (f"; unknown of {saved.ageless:,} rollouts" if saved.ageless else "")


def _of_saved(plan: Plan, saved: SavedRollouts) -> list[str]:
    missing = sum(map(len, saved.missing.values()))
    lines = [
        f"  saved        {saved.members:,} rollouts in {len(saved.groups):,} groups, {saved.signal:.0%} with a signal; "
        f"{len(saved.files)} file{'s' if len(saved.files) > 1 else ''}",
        f"  of them      {plan.saved_groups} groups a step, a pass in "
        f"{_count(math.ceil(len(saved.groups) / plan.saved_groups), 'step')}",
        f"  lag          {_ages(saved)}",
    ]
    if missing and plan.behaviour is not None:
        lines.append(
            f"  recomputes   log-probabilities of {missing:,} rollouts with {plan.behaviour.path}, loaded before the "
            "model that learns"
        )
    return lines
