"""The loop: Algorithm 1 of arXiv 2505.22257, with everything it touches behind a protocol.

    for each step k:
        if k mod v == 0: push π_θ to the sampler (it becomes the behaviour policy α)
        sample G completions a prompt from α, verify them, store the records
        learn from them (i gradient steps)

A batch that was stored before a kill is read back instead of being sampled again, so a resumed run learns from exactly
what the killed one saw.
"""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

from rlvr.alarms import Fired, blocking, fired, in_a_row
from rlvr.errors import RunError
from rlvr.files import to_json
from rlvr.models import weights_hash
from rlvr.plan import Plan
from rlvr.prompts import Encoded
from rlvr.protocols import Group, GroupRequest, OwnsLoop, SampledGroup, Sampler, Tracker, TrainContext, Trainer
from rlvr.rundir import RunDirectory
from rlvr.schema import GroupStats, ModelRef, Rollout, SamplingParams, Score, Status, Timings, utc_now
from rlvr.scoring import Item, training_reward

DROPPED = (Status.ERROR, Status.INVALID)  # verdicts that say that something other than the policy is broken


class Reporter(Protocol):
    """Is told how the run goes; the command line's prints it."""

    def step(self, metrics: Mapping[str, Any], total: int) -> None:
        """A step is done (`metrics["step"]`, of `total`)."""


@dataclass
class Outcome:
    """How a run ended."""

    steps: int
    finished: bool
    """False when it was interrupted; it can be resumed."""


class Run:
    """One run in one directory: from the plan, or from the newest checkpoint there."""

    def __init__(self, plan: Plan, directory: RunDirectory, reporter: Reporter) -> None:
        """Loads the weights; after a checkpoint, all that it holds."""
        self.plan, self.directory, self.reporter = plan, directory, reporter
        self.config = plan.config
        self.run_id: str = directory.manifest["run_id"]
        local = Path(plan.model.path).is_dir()
        self.model_ref = ModelRef(
            name=self.config.model.name,
            revision=self.config.model.revision,
            weights_hash=weights_hash(plan.model.path) if local else None,
            tokenizer_hash=plan.tokenizer_hash,
        )
        self.step = 0
        """Batches that the policy has learnt from."""
        self.last_metrics: dict[str, Any] = {}
        self.stopping = False
        context = TrainContext(
            plan.model,
            seed=self.config.seed,
            temperature=self.config.sampling.temperature,
            total_updates=self.config.steps,
            alarms=self.config.alarms,
        )
        self.trainer: Trainer = plan.trainer(plan.options, context)
        self.sampler: Sampler = plan.sampler(plan.model, self.config.sampling.options)
        checkpoint = directory.newest_checkpoint()
        if checkpoint is None:
            directory.cut_metrics(0)
        else:
            self._restore(*checkpoint)
        settings = self.config.model_dump(mode="json")
        self.trackers: list[Tracker] = [make(directory.path, settings) for make in plan.trackers.values()]

    # --- the algorithm ----------------------------------------------------------------------------------------------

    def train(self) -> Outcome:
        """To the last step, or to the first interrupt (Ctrl-C, SIGTERM): the step under way is finished and saved."""
        if isinstance(self.trainer, OwnsLoop):
            self.trainer.fit(self)
            return Outcome(self.config.steps, finished=True)
        with self._interruptible(), ExitStack() as stack:
            stack.callback(self.sampler.close)
            for tracker in self.trackers:
                stack.callback(tracker.close)
            while self.step < self.config.steps and not self.stopping:
                self.last_metrics = metrics = self._one_step()
                self._stop_if_alarmed(metrics)
                last = self.step == self.config.steps
                if last or self.stopping or self.step % self.config.checkpoint.every == 0:
                    self._checkpoint(metrics)
                if not last:
                    self._log(metrics)
            if self.step == self.config.steps:
                self._push()
                self._log(self.last_metrics | self._evaluate())
        return Outcome(self.step, finished=self.step == self.config.steps)

    def _one_step(self) -> dict[str, Any]:
        began = time.perf_counter()
        metrics: dict[str, Any] = {"step": self.step}
        if self.step % self.trainer.push_every == 0:
            self._push()
            if self._evaluation_is_due():
                metrics |= self._evaluate()
        sampling = time.perf_counter()
        prompts = self.plan.prompts.take(self.config.sampling.prompts_per_step)
        rollouts = self.directory.stored(self.step)
        scoring = training = time.perf_counter()
        if rollouts is None:
            rollouts = list(self._sample(prompts))
            scoring = time.perf_counter()
            rollouts = self._score(rollouts)
            self.directory.store(self.step, rollouts)
            training = time.perf_counter()
        groups = list(self._groups(rollouts))
        oldest = min((run.version for rollout in rollouts for run in rollout.policy_versions or ()), default=None)
        lag = None if oldest is None else float(self.trainer.version - oldest)
        learnt = self._learn(groups, rollout_metrics(rollouts, groups))
        self.step += 1
        end = time.perf_counter()
        tokens = sum(sum(rollout.loss_mask or ()) for rollout in rollouts)
        metrics |= {
            "policy_version": self.trainer.version,
            **rollout_metrics(rollouts, groups),
            "lag/max": lag,
            **learnt,
            "prompts/dropped": self.plan.prompts.dropped,
            "time/sample": scoring - sampling,
            "time/score": training - scoring,
            "time/train": end - training,
            "time/step": end - began,
            "tokens_per_second": tokens / (end - sampling),
        }
        metrics |= in_a_row(self.last_metrics, metrics)
        metrics["alarms"] = [asdict(each) for each in fired(metrics, self.config.alarms)]
        # A mean of nothing is null: JSON has no NaN, in the metrics as in a checkpoint.
        return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in metrics.items()}

    def _learn(self, groups: Sequence[Group], verdicts: Mapping[str, float]) -> Mapping[str, float]:
        """The trainer's update, unless the batch's verdicts forbid it."""
        if blocking(fired(verdicts, self.config.alarms)):
            return {**self.trainer.update([]), "train/skipped": 1.0}
        return self.trainer.update(groups)

    def _stop_if_alarmed(self, metrics: Mapping[str, Any]) -> None:
        """Raises RunError for an alarm whose consequence is to stop; the step is reported, and not saved."""
        for alarm in (Fired(**each) for each in metrics["alarms"]):
            if alarm.consequence == "stop":
                self._log(metrics)
                raise RunError(
                    f"step {metrics['step'] + 1}: {alarm.text}; its numbers are the last line of "
                    f"{self.directory.metrics_path}. To go on all the same, change alarms.{alarm.alarm} in "
                    f"{self.directory.path / 'config.yaml'} and continue with --resume {self.directory.path}"
                )

    def _push(self) -> None:
        self.sampler.push(self.trainer.weights(), self.trainer.version)

    def _sample(self, prompts: Sequence[Encoded]) -> Iterator[Rollout]:
        """The batch's rollouts, in the order of its prompts, whatever the order in which groups finish."""
        sampling = self.config.sampling
        requests = [
            self._request(
                f"{self.run_id}-{self.step}-{i}", prompt, sampling.group_size, sampling.params, "train", self.step, i
            )
            for i, prompt in enumerate(prompts)
        ]
        for group in self._ask(requests):
            yield from self._records(group)

    def _request(
        self, group_id: str, encoded: Encoded, size: int, params: SamplingParams, *key: int | str
    ) -> GroupRequest:
        return GroupRequest(group_id, encoded.prompt, encoded.token_ids, size, params, (self.config.seed, *key))

    def _ask(self, requests: Sequence[GroupRequest]) -> list[SampledGroup]:
        self.sampler.submit(requests)
        answered: dict[str, SampledGroup] = {}
        while len(answered) < len(requests):
            finished = self.sampler.collect()
            if not finished:
                raise RunError(f"the sampler has returned {len(answered)} of {len(requests)} groups and has no more")
            answered |= {group.request.group_id: group for group in finished}
        return [answered[request.group_id] for request in requests]

    def _records(self, group: SampledGroup) -> Iterator[Rollout]:
        request = group.request
        prompt_tokens = len(request.prompt_ids)
        timings, now = Timings(sample=group.seconds / max(1, len(group.samples))), utc_now()
        for index, sample in enumerate(group.samples):
            yield Rollout(
                run_id=self.run_id,
                id=f"{request.group_id}-{index}",
                group_id=request.group_id,
                index=index,
                group_size=request.size,
                prompt=request.prompt.text,
                messages=request.prompt.messages,
                completion=sample.text,
                task=request.prompt.task,
                token_ids=request.prompt_ids + sample.token_ids,
                loss_mask=(False,) * prompt_tokens + (True,) * len(sample.token_ids),
                behaviour_logprobs=(None,) * prompt_tokens + sample.logprobs,
                policy_versions=sample.versions,
                sampling=group.sampling,
                model=self.model_ref,
                finish_reason=sample.finish_reason,
                stop_reason=sample.stop_reason,
                created_at=now,
                timings=timings,
            )

    def _score(self, rollouts: Sequence[Rollout]) -> list[Rollout]:
        """With the verifier's scores, and each group's statistics as they are now. Raises RunError, before anything is
        stored, where the alarm about broken verdicts stops the run: with a mended verifier they are scored anew."""
        items = (Item(rollout.completion, rollout.task, rollout) for rollout in rollouts)
        scores = list(self.plan.scorer.score(items))
        broken = [score for score in scores if score.status in DROPPED]
        if any(alarm.consequence == "stop" for alarm in fired(verdict_shares(scores), self.config.alarms)):
            raise RunError(
                f"{len(broken)} of {len(scores)} verdicts at step {self.step} are broken, e.g. "
                f"{broken[0].status.value}: {broken[0].reason} (alarms.verdicts.threshold is "
                f"{self.config.alarms.verdicts.threshold})"
            )
        scored = [rollout.with_score(score) for rollout, score in zip(rollouts, scores, strict=True)]
        result: list[Rollout] = []
        for _, members in groupby(scored, key=lambda rollout: rollout.group_id):
            group = list(members)
            rewards = [reward for rollout in group if (reward := self._reward(rollout)) is not None]
            stats = GroupStats.of(rewards) if rewards else None
            result += [rollout.model_copy(update={"group_stats": stats}) for rollout in group]
        return result

    def _reward(self, rollout: Rollout) -> float | None:
        score = rollout.last_score(self.plan.scorer.name)
        assert score is not None
        return training_reward(score, self.config.verifier.rewards)

    def _groups(self, rollouts: Sequence[Rollout]) -> Iterator[Group]:
        """What the trainer learns from: rollouts with a reward, by the prompt that they answer."""
        for _, members in groupby(rollouts, key=lambda rollout: rollout.group_id):
            rewarded = [(rollout, reward) for rollout in members if (reward := self._reward(rollout)) is not None]
            if rewarded:
                kept, rewards = zip(*rewarded, strict=True)
                assert kept[0].group_stats is not None
                yield Group(kept, rewards, kept[0].group_stats)

    # --- evaluation -------------------------------------------------------------------------------------------------

    def _evaluation_is_due(self) -> bool:
        """At the start, and at the first push after every `eval.every` steps: no push is made for its sake."""
        every, since = self.config.eval.every, self.step - self.trainer.push_every
        return self.step == 0 or self.step // every > since // every

    def _evaluate(self) -> dict[str, Any]:
        """Held-out accuracy of the weights that the sampler holds: at the sampling temperature, and greedy."""
        if not self.plan.questions:
            return {}
        began = time.perf_counter()
        at_temperature = self.config.sampling.params
        greedy = at_temperature.model_copy(update={"temperature": 0.0})
        return {
            "eval/policy_version": self.trainer.version,
            "eval/accuracy": self._accuracy("sampled", at_temperature),
            "eval/greedy_accuracy": self._accuracy("greedy", greedy),
            "time/eval": time.perf_counter() - began,
        }

    def _accuracy(self, kind: str, params: SamplingParams) -> float:
        """Mean reward over the held-out questions, a verdict without a reward counting as 0."""
        requests = [
            self._request(f"eval-{kind}-{i}", question, 1, params, "eval", i)
            for i, question in enumerate(self.plan.questions)
        ]
        items = [Item(g.samples[0].text, g.request.prompt.task) for g in self._ask(requests)]
        return math.fsum(score.reward or 0.0 for score in self.plan.scorer.score(items)) / len(items)

    # --- keeping ----------------------------------------------------------------------------------------------------

    def _log(self, metrics: Mapping[str, Any]) -> None:
        self.directory.log(metrics)
        for tracker in self.trackers:
            tracker.log(metrics["step"], metrics)
        self.reporter.step(metrics, self.config.steps)

    def _checkpoint(self, metrics: dict[str, Any]) -> None:
        with self.directory.checkpoint(self.step, self.config.checkpoint.keep) as folder:
            self.trainer.save(folder)
            self.sampler.save(folder / "sampler")
            prompts = self.plan.prompts
            state = {
                "step": self.step,
                "prompts": {"position": prompts.position, "dropped": prompts.dropped},
                "metrics": metrics,
            }
            (folder / "run.json").write_text(to_json(state))

    def _restore(self, step: int, folder: Path) -> None:
        state = json.loads((folder / "run.json").read_text())
        self.trainer.load(folder)
        self.sampler.load(folder / "sampler")
        self.plan.prompts.seek(**state["prompts"])
        self.step, self.last_metrics = state["step"], state["metrics"]
        # The last line belongs to the checkpoint: a kill may have come before it was written, and the end of a
        # shorter run wrote its evaluation into it.
        self.directory.cut_metrics(step - 1)
        if step < self.config.steps:
            self.directory.log(self.last_metrics)

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """The first Ctrl-C or SIGTERM asks to stop after the step under way; the second stops at once."""

        def ask_to_stop(signum: int, _: Any) -> None:
            if self.stopping:
                raise KeyboardInterrupt
            self.stopping = True

        before = {signum: signal.signal(signum, ask_to_stop) for signum in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)


def rollout_metrics(rollouts: Sequence[Rollout], groups: Sequence[Group]) -> dict[str, float]:
    """Of one batch: mean reward of what training uses, lengths in sampled tokens, shares of truncated completions and
    of each verdict."""
    lengths = [sum(rollout.loss_mask or ()) for rollout in rollouts]
    rewards = [reward for group in groups for reward in group.rewards]
    last = [rollout.scores[-1] for rollout in rollouts]
    return {
        "reward/mean": math.fsum(rewards) / len(rewards) if rewards else math.nan,
        "length/mean": sum(lengths) / len(lengths),
        "length/max": float(max(lengths)),
        "length/truncated": sum(rollout.finish_reason == "length" for rollout in rollouts) / len(rollouts),
        **verdict_shares(last),
        "seconds/verdict": math.fsum(score.seconds or 0.0 for score in last) / len(last),
    }


def verdict_shares(scores: Sequence[Score]) -> dict[str, float]:
    """verdict/STATUS → the share of verdicts that ended so."""
    found = [score.status for score in scores]
    return {f"verdict/{status.value}": found.count(status) / len(found) for status in Status}
