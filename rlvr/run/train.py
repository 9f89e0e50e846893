"""Train a model: what `rlvr train` does, as one function."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from rlvr.alarms import summary
from rlvr.errors import ConfigError
from rlvr.run.config import RunConfig, resolve
from rlvr.run.cost import Cost, cost_of
from rlvr.run.loop import Run
from rlvr.run.memory import refuse_too_large
from rlvr.run.paths import with_absolute_paths
from rlvr.run.plan import Plan, make_plan
from rlvr.run.reporting import TrainReporter, headline
from rlvr.run.rundir import BEST, WEIGHTS, RunDirectory, read_metrics
from rlvr.run.starting import config_file
from rlvr.run.threads import spin_briefly
from rlvr.settings import mapping_settings

Given: TypeAlias = RunConfig | Mapping[str, Any] | Path | str | None
"""Settings as a mapping, the path of a YAML file, a resolved configuration, or None for the defaults."""


@dataclass(frozen=True)
class TrainResult:
    """Directory of a run, and how the run ended."""

    directory: Path
    checkpoint: Path | None
    """Newest checkpoint; `AutoModelForCausalLM.from_pretrained` reads it. None if none was written."""
    best: Path | None
    """Weights of the best evaluation, if `checkpoint.best` names its metric."""
    steps: int
    """Batches trained on, including those before a resume."""
    total_steps: int
    finished: bool
    """False if the run was interrupted. `rlvr.train(resume=result.directory)` continues it."""
    stopped: str | None
    """Why the run ended before its last step; None if it finished."""
    metrics: Mapping[str, Any]
    """Metrics of the last step, by name (`docs/instruments.md`)."""
    accuracy: float | None
    """Newest held-out accuracy at the sampling temperature; None if no held-out questions were asked."""
    greedy_accuracy: float | None
    """Newest held-out accuracy at temperature 0."""
    alarms: str
    """Summary of the alarms that fired; empty if none did."""
    notes: tuple[str, ...]
    """Notes for the user, one line each."""

    @property
    def cost(self) -> Cost:
        """Samples, tokens, wall-clock and time by phase so far; `print(result.cost.text)`."""
        return cost_of(self.rows)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Metrics of every step so far, read from `metrics.jsonl`; `pandas.DataFrame(result.rows)` is a table."""
        return list(read_metrics(self.directory))

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON-safe values, without `rows`."""
        return {
            "directory": str(self.directory),
            "checkpoint": None if self.checkpoint is None else str(self.checkpoint),
            "best": None if self.best is None else str(self.best),
            "steps": self.steps,
            "total_steps": self.total_steps,
            "finished": self.finished,
            "stopped": self.stopped,
            "metrics": dict(self.metrics),
            "accuracy": self.accuracy,
            "greedy_accuracy": self.greedy_accuracy,
            "alarms": self.alarms,
            "cost": self.cost.to_dict(),
            "notes": list(self.notes),
        }


def train(
    config: Given = None,
    *,
    overrides: Mapping[str, Any] | None = None,
    out: Path | str | None = None,
    resume: Path | str | None = None,
    accept_changes: bool = False,
    reporter: TrainReporter | None = None,
) -> TrainResult:
    """Train a model in a run directory, to the last step or to an interrupt.

    In the main thread, the first Ctrl-C or SIGTERM ends the run after the current step and saves it; the second one
    raises KeyboardInterrupt. In other threads signals are left alone.

    Args:
        config: Settings as a mapping (nested sections, dotted keys or both: `{"trainer": {"lr": 1e-5}}`,
            `{"trainer.lr": 1e-5}`), the path of a YAML file, the name of a starting configuration, or a `RunConfig`.
            None is the default run: the embedded model learns arithmetic.
        overrides: Settings that replace those of `config`.
        out: New run directory; `runs/DATE-TRAINER` by default.
        resume: Run directory to continue. Of all settings only `{"steps": N}` may be given then, in `overrides`.
        accept_changes: With `resume`, continue although the verifier, a plugin or rlvr has changed its version.
        reporter: Receives the events of the run. By default nothing is printed; `rlvr.ProgressLines()` prints the lines
            of `rlvr train`.

    Raises RequestError (ConfigError, DataError, PluginError) if the request is wrong, before anything is written, and
    RunError if the run fails or an alarm stops it.
    """
    spin_briefly()
    reporter = reporter or TrainReporter()
    if resume is not None:
        if config is not None or out is not None or set(overrides or ()) - {"steps"}:
            raise ConfigError(
                f"resume takes the settings from {Path(resume) / 'config.yaml'}: give nothing else than "
                "overrides={'steps': N} and accept_changes"
            )
        steps = None if overrides is None else overrides.get("steps")
        return _continue(Path(resume), steps, accept_changes, reporter)
    if accept_changes:
        raise ConfigError("accept_changes needs resume: a new run has nothing that could have changed")
    return _start(_configuration(config, overrides or {}), None if out is None else Path(out), reporter)


def _configuration(
    config: RunConfig | Mapping[str, Any] | Path | str | None, overrides: Mapping[str, Any]
) -> RunConfig:
    """Return the resolved configuration. Raises ConfigError as `resolve` does."""
    if isinstance(config, RunConfig):
        if overrides:
            raise ConfigError("overrides replace settings of a mapping or a file; a RunConfig is complete as it is")
        return config
    changes = mapping_settings(overrides, "overrides")
    if isinstance(config, Mapping):
        return resolve({**mapping_settings(config, "config"), **changes})
    return resolve(changes, None if config is None else config_file(config))


def _start(config: RunConfig, out: Path | None, reporter: TrainReporter) -> TrainResult:
    with make_plan(with_absolute_paths(config), reporter.progress) as plan:
        config = plan.config
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-{Path(config.recipe or config.trainer.name).stem}"
        with RunDirectory.create(out or Path("runs") / name, config) as directory:
            return _run(plan, directory, reporter)


def _continue(path: Path, steps: int | None, accept_changes: bool, reporter: TrainReporter) -> TrainResult:
    with RunDirectory.resume(path, accept_changes=accept_changes) as directory:
        config = directory.config
        newest = directory.newest_checkpoint()
        if steps is not None and newest is not None and steps < newest[0]:
            raise ConfigError(f"steps {steps}: the run has trained for {newest[0]} already")
        planned = config.steps
        if steps is not None:
            config = config.model_copy(update={"steps": steps})
        with make_plan(config, reporter.progress) as plan:
            if newest is not None and planned != config.steps and (settings := plan.options.depends_on_steps):
                plan.notes.append(
                    f"{' and '.join(settings)}: planned for {planned:,} steps so far, and for {config.steps:,} from "
                    f"step {newest[0] + 1:,} on; the learning rate changes there"
                )
            return _run(plan, directory, reporter)


def _run(plan: Plan, directory: RunDirectory, reporter: TrainReporter) -> TrainResult:
    refuse_too_large(plan.memory, plan.config.model.name)
    reporter.start(headline(plan), directory.path)
    for note in plan.notes:
        reporter.note(note)
    with no_progress_bars():
        run = Run(plan, directory, reporter)
        for note in run.notes:
            reporter.note(note)
        try:
            outcome = run.train()
        finally:
            alarms = summary(list(directory.metrics()))
            reporter.end(alarms)
    lines = list(directory.metrics())
    newest = directory.newest_checkpoint()
    return TrainResult(
        directory=directory.path,
        checkpoint=None if newest is None else newest[1],
        best=None if directory.best() is None else directory.path / WEIGHTS / BEST,
        steps=outcome.steps,
        total_steps=plan.config.steps,
        finished=outcome.finished,
        stopped=None if outcome.finished else "interrupted",
        metrics=lines[-1] if lines else {},
        accuracy=_newest(lines, "eval/accuracy"),
        greedy_accuracy=_newest(lines, "eval/greedy_accuracy"),
        alarms=alarms,
        notes=(*plan.notes, *run.notes),
    )


def _newest(lines: list[dict[str, Any]], name: str) -> float | None:
    return next((line[name] for line in reversed(lines) if line.get(name) is not None), None)


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Hide the progress bars that transformers shows while it loads and saves weights."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
