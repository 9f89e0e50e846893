"""Sampled groups as scored records, the same way for training and for evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeAlias

import numpy as np

from rlvr.alarms import Alarms, fired
from rlvr.data.prompts import Encoded
from rlvr.errors import RunError
from rlvr.protocols import GroupRequest, Sample, SampledGroup, TopTokens
from rlvr.record.item import Item
from rlvr.record.schema import (
    TOPK_IDS,
    TOPK_LOGPROBS,
    ModelRef,
    Rollout,
    SamplingParams,
    Score,
    Status,
    Timings,
    utc_now,
)
from rlvr.record.token_columns import Array, columns_of, frozen
from rlvr.run.config import VerifierConfig
from rlvr.run.groups import Grader, by_group, stats_of, verdict_shares
from rlvr.verify.cache import VerdictCache
from rlvr.verify.reward_limit import limited
from rlvr.verify.score_names import SAMPLER
from rlvr.verify.scoring import Scorer, training_reward

BROKEN = (Status.ERROR, Status.INVALID, Status.TIMEOUT)
"""Verdicts which say nothing about the answer: the alarm `verdicts` counts them."""

ScoredGroups: TypeAlias = dict[str, list[Rollout]]
"""Group id -> its scored records, in the order of their index."""


def request(
    group_id: str, encoded: Encoded, size: int, params: SamplingParams, *key: int | str, keep_topk: int = 0
) -> GroupRequest:
    """Return the request for `size` completions of a prompt; `key` names the random draws."""
    return GroupRequest(group_id, encoded.prompt, encoded.token_ids, size, params, key, encoded.stop, keep_topk)


def configured_scorer(name: str, config: VerifierConfig) -> Scorer:
    """Return the verifier's scorer, with all settings of a run. Raises as `Scorer` does."""
    return Scorer(
        name,
        config.options,
        workers=config.workers,
        timeout=config.timeout,
        max_reward=config.max_reward,
        write_protect=config.write_protect,
        cache=VerdictCache(),  # a policy that learns says the same again: equal answers are judged once
    )


class SampleRecorder:
    """Makes records of sampled groups and scores them."""

    def __init__(self, run_id: str, model: ModelRef, scorer: Scorer | None, grader: Grader) -> None:
        """`scorer`: None to take the rewards that the sampler gives."""
        self._run_id, self._model, self._scorer, self._grader = run_id, model, scorer, grader

    def scored(
        self,
        groups: Iterable[SampledGroup],
        alarms: Alarms,
        where: str,
        advanced: Callable[[int], object] = lambda done: None,
    ) -> ScoredGroups:
        """Return the records of the groups, scored while further groups are still being sampled.

        `advanced` is called with the number of verdicts so far, for each verdict.

        Raises RunError, with `where` in its message, if the alarm about broken verdicts stops the run.
        """
        made: list[Rollout] = []
        own: list[Score | None] = []

        def items() -> Iterator[Item]:
            for group in groups:
                for rollout, sample in zip(self.records(group), group.samples, strict=True):
                    made.append(rollout)
                    own.append(sampler_score(sample, rollout, self._grader.max_reward))
                    yield Item(rollout.completion, rollout.task, rollout)

        scores: list[tuple[Score, ...]]
        if self._scorer is None:
            scores = [(_required(own[-1], item),) for item in items()]
        else:
            verdicts: list[Score] = []
            for verdict in self._scorer.score(items()):
                verdicts.append(verdict)
                advanced(len(verdicts))
            scores = [(score,) if given is None else (score, given) for score, given in zip(verdicts, own, strict=True)]
        refuse_broken([each[0] for each in scores], alarms, where)
        return self._with_scores(made, scores)

    def _with_scores(self, made: Sequence[Rollout], scores: Sequence[tuple[Score, ...]]) -> ScoredGroups:
        scored: ScoredGroups = {}
        remaining = iter(scores)
        for members in by_group(made):
            own = list(islice(remaining, len(members)))
            # The first score is the one that the group is trained or evaluated with.
            stats = stats_of(training_reward(each[0], self._grader.rewards) for each in own)
            assert members[0].group_id is not None
            scored[members[0].group_id] = [
                rollout.model_copy(update={"scores": each, "group_stats": stats})
                for rollout, each in zip(members, own, strict=True)
            ]
        return scored

    def records(self, group: SampledGroup) -> Iterator[Rollout]:
        """Yield the records of a group, without scores."""
        request = group.request
        timings, now = Timings(sample=group.seconds / max(1, len(group.samples))), utc_now()
        for index, sample in enumerate(group.samples):
            token_ids, loss_mask, logprobs = sampled_columns(request.prompt_ids, sample)
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
                extra_tokens={} if sample.top is None else topk_columns(loss_mask, sample.top),
                sampling=group.sampling,
                model=self._model,
                finish_reason=sample.finish_reason,
                stop_reason=sample.stop_reason,
                created_at=now,
                timings=timings,
            )


def sampled_columns(prompt_ids: Sequence[int], sample: Sample) -> tuple[Array, Array, Array]:
    """Return (T,) token ids, loss mask and log-probabilities of a prompt and a sample, NaN where the mask is False."""
    if sample.loss_mask is None:
        return columns_of(prompt_ids, sample.token_ids, sample.logprobs)
    mask = np.array((*(False,) * len(prompt_ids), *sample.loss_mask), dtype=np.bool_)
    logprobs = np.full(len(mask), np.nan)
    logprobs[mask] = sample.logprobs
    return np.array((*prompt_ids, *sample.token_ids)), mask, logprobs


def topk_columns(loss_mask: Array, top: TopTokens) -> dict[str, Array]:
    """Return the columns (T, K) of `extra_tokens` that hold a sample's likeliest tokens."""
    shape = (len(loss_mask), top.ids.shape[1])
    ids, logprobs = np.full(shape, -1, np.int32), np.full(shape, np.nan, np.float32)
    ids[loss_mask], logprobs[loss_mask] = top.ids, top.logprobs
    return {TOPK_IDS: frozen(ids), TOPK_LOGPROBS: frozen(logprobs)}


def sampler_score(sample: Sample, rollout: Rollout, max_reward: float) -> Score | None:
    """Return the sampler's own reward as a score, an `error` if it is beyond the limit; None if it gave none."""
    if sample.reward is None:
        return None
    engine = rollout.sampling
    assert engine is not None
    score = Score(
        status=Status.GRADED,
        reward=sample.reward,
        verifier=SAMPLER,
        version=engine.engine_version or "unknown",
        config={"engine": engine.engine},
        created_at=rollout.created_at,
    )
    return limited(score, max_reward)


def _required(score: Score | None, item: Item) -> Score:
    if score is None:
        assert item.rollout is not None
        raise RunError(
            f"the sampler gave no reward for {item.rollout.id}, and no verifier is named (verifier.name: {SAMPLER})"
        )
    return score


def refuse_broken(scores: Sequence[Score], alarms: Alarms, where: str) -> None:
    """Raise RunError if so many verdicts are broken that the alarm about them stops the run."""
    broken = [score for score in scores if score.status in BROKEN] or list(scores)
    if any(alarm.consequence == "stop" for alarm in fired(verdict_shares(scores), alarms)):
        raise RunError(
            f"{len(broken)} of {len(scores)} {where} are broken, e.g. {broken[0].status.value}: {broken[0].reason} "
            f"(alarms.verdicts.threshold is {alarms.verdicts.threshold})"
        )
