"""The loop: Algorithm 1 of arXiv 2505.22257, with all other parts behind protocols.

for each step k:
    if k mod v == 0: sync π_θ to the sampler (it becomes the behavior policy α)
    draw groups: sampled from α, verified and stored (`run.fresh`), read from files (`run.saved`), or replayed from
        this run's past (`run.replay`)
    learn from them (i gradient steps)
"""

from __future__ import annotations

import json
import math
import re
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from rlvr.alarms import Fired, blocking, fired, in_a_row
from rlvr.data.prompts import PromptStream
from rlvr.errors import RequestError, RunError
from rlvr.files import to_json
from rlvr.protocols import Group, ModelSpec, SampleTracker, TrackedSample, Tracker, TrainContext, TrainerFactory
from rlvr.record.schema import Rollout
from rlvr.run.ahead import Ahead, AskedPrompts
from rlvr.run.computation import computation
from rlvr.run.cost import cost_so_far
from rlvr.run.evaluation import HeldOutEvaluation
from rlvr.run.factories import Backend
from rlvr.run.fresh import Fresh, training_request
from rlvr.run.groups import Drawn, Grader, GroupSource, Mixed, by_group, part_metrics, verdict_shares
from rlvr.run.keeping import Keeper
from rlvr.run.mailbox import Mailbox
from rlvr.run.models import model_ref
from rlvr.run.phases import Phases
from rlvr.run.plan import Plan
from rlvr.run.proof import WeightProof
from rlvr.run.replay import Replay
from rlvr.run.rundir import RunDirectory
from rlvr.run.sampled import SampleRecorder
from rlvr.run.saved import Saved
from rlvr.run.threads import shares, torch_threads
from rlvr.run.unordered import Unordered


class Reporter(Protocol):
    """Receives the progress of a run."""

    def step(self, metrics: Mapping[str, Any], total: int) -> None:
        """Report a finished step (`metrics["step"]` of `total`)."""

    def working(self, phase: str, done: int = 0, total: int = 0) -> None:
        """Report that a phase of the current step begins, or that `done` of its `total` is done."""

    def stopping(self) -> None:
        """Report that the run was asked to end after the current step."""


@dataclass
class Outcome:
    """The end of a run."""

    steps: int
    finished: bool
    """False if it was interrupted; it can be resumed."""


class Run:
    """One run in one directory, begun from its plan or continued from its newest checkpoint."""

    def __init__(self, plan: Plan, directory: RunDirectory, reporter: Reporter) -> None:
        """Load the weights, and the newest checkpoint if there is one."""
        self.plan, self.directory, self.reporter = plan, directory, reporter
        self.config = plan.config
        self.run_id: str = directory.manifest["run_id"]
        self.step = 0
        """Batches that the policy has learned from."""
        self.last_metrics: dict[str, Any] = {}
        self._shown: list[TrackedSample] = []
        self.stopping = False
        checkpoint = directory.intact_checkpoint()
        self.notes = self._changes()
        """Changes since the run last continued."""
        directory.extend(self.config)
        settings = self.config.model_dump(mode="json")
        self.trackers: list[Tracker] = [make(directory.path, settings) for make in plan.trackers.values()]
        self.backend: Backend | None = None
        """Trains by itself; None if this loop trains."""
        if plan.trainer.owns_loop:
            self.backend = plan.trainer(plan.options, self._context(plan.model))
        else:
            self._load(plan.trainer)
            if checkpoint is None:
                directory.cut_metrics(0)
            else:
                self._restore(*checkpoint)

    def _load(self, factory: TrainerFactory) -> None:
        """Load the sampler and the trainer."""
        plan = self.plan
        self._recompute(factory)
        self.trainer = factory(plan.options, self._context(plan.model))
        at_once = self.config.mode == "async" and not plan.sampler_options.runs_elsewhere
        self._threads = shares(plan.model.device, self.config.sampling.threads, at_once=at_once).trainer
        self.sampler = plan.sampler(plan.model, plan.sampler_options) if plan.needs_sampler else None
        self.mailbox = None if self.sampler is None else Mailbox(self.sampler)
        self.phases = Phases(entered=self.reporter.working)
        model = model_ref(plan.model, self.config.model.name, plan.tokenizer_hash)
        recorder = SampleRecorder(self.run_id, model, plan.scorer, plan.grader)
        self.ahead: AskedPrompts | None = None
        """Prompts and their groups; None if nothing is sampled."""
        self.source = self._source(recorder)
        self.evaluation = self._evaluation(recorder)
        self.proof = self._proof(recorder)
        self.keeper = Keeper(self.config.checkpoint, self.directory, plan.model)

    def _proof(self, recorder: SampleRecorder) -> WeightProof | None:
        if self.mailbox is None or not (probes := self.plan.probes):
            return None
        sampling, alarms = self.config.sampling, self.config.alarms
        return WeightProof(
            probes, sampling.params, self.mailbox, recorder, self.trainer, alarms, keep_topk=sampling.kept
        )

    def _context(self, model: ModelSpec) -> TrainContext:
        return TrainContext(
            model,
            seed=self.config.seed,
            temperature=self.config.sampling.temperature,
            total_updates=self.config.steps,
            alarms=self.config.alarms,
        )

    def _changes(self) -> list[str]:
        """Return notes on what changed since the run last continued.

        Raises RequestError if something that decides what is learned changed: weights, other files of the model,
        prompts, saved rollouts, or the version of code.
        """
        plan, saved, scorer = self.plan, self.plan.saved, self.plan.scorer
        read_again = {
            "weights": ("the weights", plan.weights),
            "model": ("the files of the model", plan.model_files),
            "prompts": ("the prompts", plan.prompt_files),
        }
        if saved is not None:
            read_again["inputs"] = ("the saved rollouts", saved.digests())
        for name, (what, digests) in read_again.items():
            if others := self.directory.remember(name, digests):
                raise RequestError(
                    f"{what} changed since the run began: {', '.join(others)} (SHA-256); nothing was done. "
                    "Restore the old files, or start a new run"
                )
        scorers = [*([] if scorer is None else [scorer]), *plan.shadows.scorers]
        return self.directory.go_on(
            {each.name: each.version for each in scorers}, plan.distributions, computation(), plan.held_out_files
        )

    def _recompute(self, factory: TrainerFactory) -> None:
        """Compute the log-probabilities that saved records lack, by the trainer's own code on the behavior model."""
        plan = self.plan
        if plan.saved is not None and plan.saved.missing:
            assert plan.behaviour is not None
            behaviour = factory(plan.options, self._context(plan.behaviour))
            plan.saved.recompute(self.directory.path / "recomputed", behaviour.logprobs)

    def _source(self, recorder: SampleRecorder) -> GroupSource:
        """Return the source of batches, composed as configured."""
        plan, config, directory = self.plan, self.config, self.directory
        saved = None if plan.saved is None else Saved(plan.saved, config.seed)
        if saved is not None and not config.samples:
            return saved
        assert plan.prompts is not None
        assert self.mailbox is not None
        self.ahead = self._asked(plan.prompts, self.mailbox)
        parts = (plan.grader, directory, self.phases, plan.shadows, self.reporter.working, plan.prompts.curriculum)
        source: GroupSource = Fresh(config, self.ahead, recorder, *parts)
        if config.replay.share:
            source = Replay(source, plan.replayed_groups, config.replay, plan.grader, directory, config.seed)
        return source if saved is None else Mixed(saved, plan.saved_groups, source)

    def _asked(self, prompts: PromptStream, mailbox: Mailbox) -> AskedPrompts:
        """Return the prompts, with as many asked ahead as configured."""
        config = self.config
        request = partial(training_request, config, self.run_id)
        if config.sampling.max_lag is not None:
            return Unordered(
                prompts,
                mailbox,
                request,
                outstanding=(config.batches_ahead + 1) * config.sampling.prompts_per_step,
                total=config.steps * self.plan.sampled_groups,
                max_lag=config.sampling.max_lag,
            )
        return Ahead(
            prompts,
            mailbox,
            request,
            batches=config.batches_ahead,
            batch_size=self.plan.sampled_groups,
            steps=config.steps,
            is_stored=self.directory.is_stored,
            waits=not config.sampling.in_flight_updates,
        )

    def _evaluation(self, recorder: SampleRecorder) -> HeldOutEvaluation | None:
        plan, config = self.plan, self.config
        if not plan.questions:
            return None
        assert self.mailbox is not None
        least = config.sampling.group_size if plan.scorer is not None and plan.scorer.takes_groups else 1
        return HeldOutEvaluation(config, self.run_id, plan.held_out, self.mailbox, recorder, plan.grader, least)

    # --- the algorithm ----------------------------------------------------------------------------------------------

    def train(self) -> Outcome:
        """Train to the last step. On the first interrupt (Ctrl-C, SIGTERM) finish and save the current step."""
        with self._interruptible(), ExitStack() as stack:
            for tracker in self.trackers:
                stack.callback(tracker.close)
            if self.backend is not None:
                self.backend.fit(self)
                return Outcome(self.config.steps, finished=not self.stopping)
            if self.sampler is not None:
                stack.callback(self.sampler.close)
            stack.enter_context(torch_threads(self._threads))
            while self.step < self.config.steps and not self.stopping:
                self.last_metrics = metrics = self._one_step()
                self._stop_if_alarmed(metrics)
                last = self.step == self.config.steps
                if last or self.stopping or self.keeper.checkpoint_is_due(self.step):
                    self._checkpoint(metrics)
                self.keeper.weights(self.step, self.trainer.snapshot)
                if not last:
                    self._log(metrics)
            if self.step == self.config.steps:
                self.phases.start()
                self._sync()
                self._log(self.last_metrics | self._evaluate())
        return Outcome(self.step, finished=self.step == self.config.steps)

    def _one_step(self) -> dict[str, Any]:
        phases = self.phases
        phases.start()
        metrics: dict[str, Any] = {"step": self.step}
        if self.step % self.plan.options.batches_per_sync == 0:
            metrics |= self._sync()
            if self._evaluation_is_due():
                metrics |= self._evaluate()
        drawing = time.perf_counter()
        with phases("sample"):
            drawn = self.source.draw(self.step, self.config.sampling.prompts_per_step, self.trainer.version)
        self._shown = self._samples(drawn)
        with phases("metrics"):
            lag = lag_of((r for group in drawn.groups for r in group.rollouts), self.trainer.version)
            told = rollout_metrics(drawn, self.plan.grader) | self.plan.shadows.metrics(drawn.rollouts)
            if self.config.dataset.mix:
                told |= dataset_metrics(drawn)
        with phases("train"):
            learned = self._learn(drawn, told)
        # The batch is written meanwhile. It is on disk before anything of what was learned from it is.
        with phases("store"):
            self.directory.wait_until_stored()
        self.step += 1
        tokens = sum(rollout.sampled_tokens for rollout in drawn.rollouts)
        metrics |= {
            "policy_version": self.trainer.version,
            **told,
            "lag/max": lag,
            **learned,
            "time/score": 0.0,
            **drawn.metrics,
            **self._discarded(),
            **phases.metrics(),
            "tokens_per_second": tokens / (time.perf_counter() - drawing),
        }
        metrics |= cost_so_far(self.last_metrics, len(drawn.rollouts), tokens, metrics, self.config.steps)
        behind = lag_of(drawn.rollouts, self.trainer.version) if self.config.samples else 0
        metrics |= in_a_row(self.last_metrics, metrics, self.config.alarms, sampler_is_behind=behind > 0)
        metrics["alarms"] = [asdict(each) for each in fired(metrics, self.config.alarms)]
        # A mean of nothing is null: JSON has no NaN, in the metrics as in a checkpoint.
        return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in metrics.items()}

    def _learn(self, drawn: Drawn, verdicts: Mapping[str, float]) -> Mapping[str, float]:
        """Update the trainer, unless an alarm about the batch's verdicts forbids it."""
        if blocking(fired(verdicts, self.config.alarms)):
            return {**self.trainer.update(()), "train/skipped": 1.0}
        return self.trainer.update(drawn.groups)

    def _stop_if_alarmed(self, metrics: Mapping[str, Any]) -> None:
        """Raise RunError if an alarm stops the run; the step is reported, and not saved."""
        alarms = [Fired(**each) for each in metrics["alarms"]]
        for alarm in alarms:
            if alarm.consequence == "stop":
                self._log(metrics)
                skipping = [each.text for each in alarms if each.consequence == "skip"]
                why = f", after {', '.join(skipping)}" if skipping else ""
                raise RunError(
                    f"step {metrics['step'] + 1}: {alarm.text}{why}; {alarm.alarm} is {alarm.about}. The step's "
                    f"numbers are the last line of {self.directory.metrics_path}. To continue anyway, change "
                    f"alarms.{alarm.alarm} in {self.directory.path / 'config.yaml'} and continue with --resume "
                    f"{self.directory.path}"
                )

    def _discarded(self) -> dict[str, float]:
        """Return how many of the sampler's answers were dropped so far; empty if there is no sampler."""
        if self.mailbox is None:
            return {}
        counts = self.mailbox.discarded
        return {"answers/duplicate": float(counts["duplicate"]), "answers/late": float(counts["late"])}

    def _sync(self) -> dict[str, float]:
        """Give the sampler the trainer's weights and return the metrics of the proof that it holds them."""
        if self.sampler is None:
            return {}
        if self.ahead is not None:
            with self.phases("sample"):
                self.ahead.before_sync(self.step)
        with self.phases("sync"):
            weights = self.trainer.snapshot()
            by_itself = weights.adapter if self.plan.sampler_options.adapter_rank is not None else None
            self.sampler.sync(by_itself or weights)
        with self.phases("proof"):
            return {} if self.proof is None else self.proof.after_sync()

    # --- evaluation -------------------------------------------------------------------------------------------------

    def _evaluation_is_due(self) -> bool:
        """Return True at the start, and at the first weight sync after every `eval.every` steps."""
        every, since = self.config.eval.every, self.step - self.plan.options.batches_per_sync
        return self.step == 0 or self.step // every > since // every

    def _evaluate(self) -> dict[str, Any]:
        """Return the metrics of the held-out questions, for the weights that the sampler holds; empty if none."""
        if self.evaluation is None:
            return {}
        with self.phases("eval"):
            metrics = self.evaluation.metrics(self.step, self.trainer.version)
            self.directory.store_answers(self.step, self.evaluation.answers)
        self.keeper.best(self.step, metrics, self.trainer.snapshot)
        return metrics | {"time/eval": self.phases.metrics()["time/eval"]}

    # --- keeping ----------------------------------------------------------------------------------------------------

    def _log(self, metrics: Mapping[str, Any]) -> None:
        self.directory.log(metrics)
        for tracker in self.trackers:
            tracker.log(metrics["step"], metrics)
            if self._shown and isinstance(tracker, SampleTracker):
                tracker.log_samples(metrics["step"], self._shown)
        self.reporter.step(metrics, self.config.steps)

    def _samples(self, drawn: Drawn) -> list[TrackedSample]:
        """Return the samples of a batch that trackers show: the first rollout of each of its first groups."""
        tracking = self.config.tracking
        if not self.trackers or self.step % tracking.every:
            return []
        first = (members[0] for members in by_group(drawn.rollouts))
        return [tracked_sample(self.step, rollout, self.plan.grader) for rollout in islice(first, tracking.samples)]

    def _checkpoint(self, metrics: dict[str, Any]) -> None:
        with self.directory.checkpoint(self.step, self.config.checkpoint.keep) as folder:
            self.trainer.save(folder)
            if self.sampler is not None:
                self.sampler.save(folder / "sampler")
            state = {"step": self.step, "source": self.source.state(), "metrics": metrics}
            state["shadows"] = self.plan.shadows.state()
            (folder / "run.json").write_text(to_json(state), encoding="utf-8")
        self.keeper.saved()

    def _restore(self, step: int, folder: Path) -> None:
        state = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        self.trainer.load(folder)
        if self.sampler is not None:
            self.sampler.load(folder / "sampler")
        self.source.seek(state["source"])
        self.plan.shadows.seek(state.get("shadows", {}))  # older checkpoints have none
        self.step, self.last_metrics = state["step"], state["metrics"]
        # The last line belongs to the checkpoint: a kill may have come before it was written, and the end of a
        # shorter run wrote its evaluation into it.
        self.directory.cut_metrics(step - 1)
        if step < self.config.steps:
            self.directory.log(self.last_metrics)

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Stop after the current step on the first Ctrl-C or SIGTERM, and at once on the second.

        Python delivers signals to the main thread only; in another thread they are left alone.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def ask_to_stop(signum: int, _: Any) -> None:
            if self.stopping:
                raise KeyboardInterrupt
            self.stopping = True
            self.reporter.stopping()

        before = {signum: signal.signal(signum, ask_to_stop) for signum in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)


def tracked_sample(step: int, rollout: Rollout, grader: Grader) -> TrackedSample:
    """Return a rollout as a row for trackers; a chat is shown with its roles."""
    turns = rollout.messages or ()
    return TrackedSample(
        batch=step,
        dataset=rollout.task.dataset,
        prompt=rollout.prompt or "\n\n".join(f"{turn.role}: {turn.content}" for turn in turns),
        completion=rollout.completion or "",
        gold=rollout.task.answer,
        verdict=grader.score(rollout).status.value,
        reward=grader.reward(rollout),
    )


def lag_of(rollouts: Iterable[Rollout], version: int) -> float:
    """Return the lag of the oldest token for a trainer at `version`, in optimizer steps; NaN if unknown."""
    oldest = min((run.version for rollout in rollouts for run in rollout.policy_versions or ()), default=math.nan)
    return version - oldest


def dataset_metrics(drawn: Drawn) -> dict[str, float]:
    """Return for each data set of a batch: its groups, the mean reward, and the share of groups with a signal."""
    by_dataset: dict[str, list[Group]] = {}
    for group in drawn.groups:
        by_dataset.setdefault(re.sub(r"[^\w-]", "_", group.rollouts[0].task.dataset or "unnamed"), []).append(group)
    metrics: dict[str, float] = {}
    for name, groups in sorted(by_dataset.items()):
        rewards = [reward for group in groups for reward in group.rewards]
        metrics |= {
            f"dataset_{name}/groups": float(len(groups)),
            f"dataset_{name}/reward": math.fsum(rewards) / len(rewards),
            f"dataset_{name}/signal": sum(group.stats.has_signal for group in groups) / len(groups),
        }
    return metrics


def rollout_metrics(drawn: Drawn, grader: Grader) -> dict[str, float]:
    """Return the metrics of one batch's rollouts: mean training reward, lengths in sampled tokens, and shares.

    `length/truncated` is over completions that say how they ended. If every sample was aborted, only the mean reward is
    returned, as NaN.
    """
    rollouts = drawn.rollouts
    if not rollouts:
        return {"reward/mean": math.nan}
    lengths = [rollout.sampled_tokens for rollout in rollouts]
    rewards = [reward for rollout in rollouts if (reward := grader.reward(rollout)) is not None]
    last = [grader.score(rollout) for rollout in rollouts]
    endings = [rollout.finish_reason for rollout in rollouts if rollout.finish_reason is not None]
    return {
        "reward/mean": math.fsum(rewards) / len(rewards) if rewards else math.nan,
        "length/mean": sum(lengths) / len(lengths),
        "length/max": float(max(lengths)),
        "length/truncated": endings.count("length") / len(endings) if endings else math.nan,
        **verdict_shares(last),
        **part_metrics(last),
        "seconds/verdict": math.fsum(score.seconds or 0.0 for score in last) / len(last),
    }
