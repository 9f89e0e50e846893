"""Groups that are sampled now: asked of the sampler, verified as they come, stored, and only then learnt from.

A batch that was stored before a kill is read back instead of being sampled again.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from rlvr.alarms import fired
from rlvr.data.prompts import Encoded, PromptStream
from rlvr.errors import RunError
from rlvr.protocols import Group, GroupRequest, SampledGroup, Sampler
from rlvr.record.item import Item
from rlvr.record.schema import ModelRef, Rollout, SamplingParams, Status, Timings, utc_now
from rlvr.record.token_columns import columns_of
from rlvr.run.config import RunConfig
from rlvr.run.groups import Drawn, Grader, by_group, stats_of, verdict_shares
from rlvr.run.rundir import RunDirectory
from rlvr.verify.scoring import Scorer, training_reward

DROPPED = (Status.ERROR, Status.INVALID)  # verdicts that say that something other than the policy is broken


def request(
    group_id: str, encoded: Encoded, size: int, params: SamplingParams, seed: int, *key: int | str
) -> GroupRequest:
    """`size` completions of a prompt; `seed` and `key` name the draws."""
    return GroupRequest(group_id, encoded.prompt, encoded.token_ids, size, params, (seed, *key))


def ask(sampler: Sampler, requests: Sequence[GroupRequest]) -> Iterator[SampledGroup]:
    """The answers, each as soon as it is there. Raises RunError when the sampler ends before, or answers what was not
    asked."""
    sampler.submit(requests)
    waiting = {request.group_id for request in requests}
    while waiting:
        finished = sampler.collect()
        if not finished:
            returned = len(requests) - len(waiting)
            raise RunError(f"the sampler has returned {returned} of {len(requests)} groups and has no more")
        for group in finished:
            if group.request.group_id not in waiting:
                raise RunError(f"the sampler has returned group {group.request.group_id}, which it was not asked for")
            waiting.remove(group.request.group_id)
            yield group


class Fresh:
    """A `GroupSource` that samples.

    With `sampling.refill` (DAPO, arXiv 2503.14476, dynamic sampling), further prompts are asked in place of groups
    without a signal, in rounds, until the batch is full or `sampling.refill_rounds` are over. The trainer gets the
    groups with a signal; everything that was sampled is stored.
    """

    def __init__(
        self,
        config: RunConfig,
        prompts: PromptStream,
        sampler: Sampler,
        scorer: Scorer,
        grader: Grader,
        directory: RunDirectory,
        model: ModelRef,
    ) -> None:
        self._config, self._prompts, self._sampler, self._scorer = config, prompts, sampler, scorer
        self._grader, self._directory, self._model = grader, directory, model
        self._run_id: str = directory.manifest["run_id"]

    def draw(self, step: int, size: int, version: int) -> Drawn:
        """Samples, scores and stores the batch of a step, or reads it back."""
        refill = self._config.sampling.refill
        stored = self._directory.stored(step)
        back = None if stored is None else {members[0].group_id: members for members in by_group(stored)}
        rollouts: list[Rollout] = []
        groups: list[Group] = []
        asked, rounds = 0, 0
        times = {"time/sample": 0.0, "time/score": 0.0}
        while len(groups) < size and rounds <= (self._config.sampling.refill_rounds if refill else 0):
            prompts = self._prompts.take(size - len(groups))
            if back is None:
                new = self._sampled(step, asked, prompts, times)
            else:
                ids = (self._group_id(step, asked + i) for i in range(len(prompts)))
                new = [rollout for name in ids for rollout in back.get(name, ())]  # none where all were aborted
            rollouts += new
            groups += [group for group in self._grader.groups(new) if group.stats.has_signal or not refill]
            asked += len(prompts)
            rounds += 1
        if stored is None:
            began = time.perf_counter()
            self._directory.store(step, rollouts)
            times["time/score"] += time.perf_counter() - began
        metrics = {"prompts/dropped": float(self._prompts.dropped), **times, **self._grader.mixed(by_group(rollouts))}
        if refill:
            metrics |= {"refill/rounds": rounds - 1.0, "refill/groups": float(asked - size)}
        return Drawn(tuple(groups), tuple(rollouts), metrics)

    def state(self) -> dict[str, Any]:
        """The place of the next prompt; the draws need none."""
        return {"position": self._prompts.position, "dropped": self._prompts.dropped}

    def seek(self, state: Mapping[str, Any]) -> None:
        """Go on at that prompt."""
        self._prompts.seek(**state)

    def _group_id(self, step: int, number: int) -> str:
        return f"{self._run_id}-{step}-{number}"

    def _sampled(self, step: int, first: int, prompts: Sequence[Encoded], times: dict[str, float]) -> list[Rollout]:
        """Scored rollouts of the prompts, which are number `first` and following of the step."""
        sampling, seed = self._config.sampling, self._config.seed
        requests = [
            request(self._group_id(step, i), prompt, sampling.group_size, sampling.params, seed, "train", step, i)
            for i, prompt in enumerate(prompts, start=first)
        ]
        began, waited = time.perf_counter(), times["time/sample"]
        scored = self._scored(step, self._waiting(ask(self._sampler, requests), times))
        times["time/score"] += time.perf_counter() - began - (times["time/sample"] - waited)
        return [rollout for request in requests for rollout in scored.get(request.group_id, ())]

    def _waiting(self, groups: Iterator[SampledGroup], times: dict[str, float]) -> Iterator[SampledGroup]:
        """The same groups; the time until they are there counts as sampling."""
        while True:
            began = time.perf_counter()
            group = next(groups, None)
            times["time/sample"] += time.perf_counter() - began
            if group is None:
                return
            yield group

    def _records(self, group: SampledGroup) -> Iterator[Rollout]:
        request = group.request
        timings, now = Timings(sample=group.seconds / max(1, len(group.samples))), utc_now()
        for index, sample in enumerate(group.samples):
            token_ids, loss_mask, logprobs = columns_of(request.prompt_ids, sample.token_ids, sample.logprobs)
            yield Rollout(
                run_id=self._run_id,
                id=f"{request.group_id}-{index}",
                group_id=request.group_id,
                index=index,
                group_size=request.size,
                prompt=request.prompt.text,
                messages=request.prompt.messages,
                completion=sample.text,
                task=request.prompt.task,
                token_ids=token_ids,
                loss_mask=loss_mask,
                behaviour_logprobs=logprobs,
                policy_versions=sample.versions,
                sampling=group.sampling,
                model=self._model,
                finish_reason=sample.finish_reason,
                stop_reason=sample.stop_reason,
                created_at=now,
                timings=timings,
            )

    def _scored(self, step: int, groups: Iterable[SampledGroup]) -> dict[str | None, list[Rollout]]:
        """Group → its records with the verifier's scores and the group's statistics as they are now.

        What has been sampled is judged while the rest still is. Raises RunError, before anything is stored, where the
        alarm about broken verdicts stops the run: with a mended verifier they are scored anew.
        """
        made: list[Rollout] = []

        def items() -> Iterator[Item]:
            for group in groups:
                for rollout in self._records(group):
                    made.append(rollout)
                    yield Item(rollout.completion, rollout.task, rollout)

        scores = list(self._scorer.score(items()))
        broken = [score for score in scores if score.status in DROPPED]
        alarms = self._config.alarms
        if any(alarm.consequence == "stop" for alarm in fired(verdict_shares(scores), alarms)):
            raise RunError(
                f"{len(broken)} of {len(scores)} verdicts at step {step} are broken, e.g. "
                f"{broken[0].status.value}: {broken[0].reason} (alarms.verdicts.threshold is "
                f"{alarms.verdicts.threshold})"
            )
        scored: dict[str | None, list[Rollout]] = {}
        remaining = iter(scores)
        for members in by_group(made):
            own = list(islice(remaining, len(members)))
            stats = stats_of(training_reward(score, self._grader.rewards) for score in own)
            scored[members[0].group_id] = [
                rollout.model_copy(update={"scores": (score,), "group_stats": stats})
                for rollout, score in zip(members, own, strict=True)
            ]
        return scored
