"""Events of a run, and its progress lines."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlvr.alarms import Fired
from rlvr.files import say_at_once
from rlvr.run.plan import Plan
from rlvr.terminal import one_line

SECONDS_BETWEEN_LINES = 5.0
EVALUATED = re.compile(r"(eval(?:_([\w-]+))?)/accuracy")
"""Name of a set's accuracy: `eval/accuracy`, `eval_NAME/accuracy`."""


class TrainReporter:
    """Receive the events of a run. Every method does nothing until a subclass overrides it."""

    def progress(self, text: str) -> None:
        """Long work before the first step has advanced (reading saved rollouts); called often."""

    def start(self, headline: str, directory: Path) -> None:
        """The run is about to load the model. `headline` says what it will do."""

    def note(self, text: str) -> None:
        """A note for the user, before the first step."""

    def step(self, metrics: Mapping[str, Any], total: int) -> None:
        """A step is done: number `metrics["step"]`, counted from 0, of `total`."""

    def working(self, phase: str, done: int = 0, total: int = 0) -> None:
        """A phase of the current step (`sample`, `score`, `train`, `store`, `sync`, `proof`, `eval`) begins or goes on.

        `done` of `total` groups are sampled, or completions scored; both are 0 if the phase counts nothing. Called
        often.
        """

    def stopping(self) -> None:
        """Ctrl-C or SIGTERM came: the run ends after this step and is saved. Called within the signal's handler."""

    def end(self, alarms: str) -> None:
        """The run is over, also if an error ended it. `alarms` is a summary of those that fired, or empty."""


def labeled(note: str) -> str:
    """Return a note as a line: `note: …`, or the text itself if it is a warning."""
    return note if note.startswith("warning: ") else f"note: {note}"


class ProgressLines(TrainReporter):
    """Print a run as `rlvr train` does, to standard output.

    A step is printed if it is the first or the last one, has an evaluation, or has a problem (an alarm, nothing left to
    train on) that the step before did not have. Other steps are printed at most every `SECONDS_BETWEEN_LINES`.
    """

    def __init__(self) -> None:
        self._began: float | None = None
        self._printed = -math.inf
        self._first = 0
        self._problems: set[str] = set()

    def start(self, headline: str, directory: Path) -> None:
        """Print what the run does and where it writes."""
        _say(headline)
        _say(f"run directory: {directory}")

    def note(self, text: str) -> None:
        """Print the note."""
        _say(labeled(text))

    def step(self, metrics: Mapping[str, Any], total: int) -> None:
        """Print the step if it is due."""
        now = time.monotonic()
        step = metrics["step"] + 1
        if self._began is None:
            self._began, self._first = now, step
        problems = {each["alarm"] for each in metrics["alarms"]} | set(_nothing_kept(metrics))
        news = "eval/policy_version" in metrics or problems - self._problems
        self._problems = problems
        if not news and step < total and now - self._printed < SECONDS_BETWEEN_LINES:
            return
        self._printed = now
        done = step - self._first
        left = (now - self._began) / done * (total - step) if done else None
        _say(step_line(metrics, total, left))

    def stopping(self) -> None:
        """Print to standard error that the run ends after this step."""
        say_at_once("rlvr: finishing this step, then saving; press again to stop now")

    def end(self, alarms: str) -> None:
        """Print the summary of alarms, if any fired."""
        if alarms:
            _say(alarms)


def _say(text: str) -> None:
    print(one_line(text), flush=True)


def headline(plan: Plan) -> str:
    """Return one line: algorithm, data, model, verifier and size of a run."""
    config, saved = plan.config, plan.saved
    algorithm = config.trainer.name if config.recipe is None else f"{config.recipe} ({config.trainer.name})"
    size = config.sampling.prompts_per_step
    verifier = plan.grader.verifier if plan.scorer is None else f"{plan.scorer.name} {plan.scorer.version}"
    if saved is not None and not config.samples:
        return (
            f"{algorithm} on {len(saved.groups):,} saved groups with {config.model.name}, scores by "
            f"{verifier}: {counted(config.steps, 'step')} of {size} groups"
        )
    return (
        f"{algorithm} on {config.dataset.title} with {config.model.name}, verified by {verifier}: "
        f"{counted(config.steps, 'step')} of {size} prompts × {config.sampling.group_size} completions"
    )


def counted(number: int, noun: str) -> str:
    """Return `1 step`, `2,000 steps`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def step_line(metrics: Mapping[str, Any], total: int, seconds_left: float | None) -> str:
    """Return the progress line of a step: `step 3/40  reward 0.33  signal 100%  …`."""
    step, reward, lag = metrics["step"] + 1, metrics["reward/mean"], metrics["lag/max"]
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
    parts += _held_out(metrics)
    parts += [f"ALARM {Fired(**each).text}" for each in metrics["alarms"]]
    return "  ".join(parts)


def _held_out(metrics: Mapping[str, Any]) -> list[str]:
    """Return the accuracies of every set of held-out questions; empty without an evaluation."""
    if "eval/policy_version" not in metrics:
        return []

    def text(name: str) -> str:
        return "–" if metrics[name] is None else f"{metrics[name]:.1%}"

    shown = []
    for name in metrics:
        if (found := EVALUATED.fullmatch(name)) is not None:
            greedy = f"{found[1]}/greedy_accuracy"
            also = f" (greedy {text(greedy)})" if greedy in metrics else ""
            shown.append(f"{found[2] or 'held-out'} {text(name)}{also}")
    return [", ".join(shown) + f" at version {metrics['eval/policy_version']}"]


def _nothing_kept(metrics: Mapping[str, Any]) -> list[str]:
    """Return `["nothing kept"]` if the batch has a signal, but masks or corrections left no token to train on."""
    trained = metrics.get("train/optimizer_steps") != 0 or metrics.get("train/skipped")
    return [] if trained or not metrics["signal/groups"] else ["nothing kept"]
