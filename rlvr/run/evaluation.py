"""Evaluation on held-out questions with the sampler's weights, recorded and scored exactly like training rollouts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from rlvr.evaluation.figures import RIGHT
from rlvr.evaluation.intervals import clustered_interval
from rlvr.record.schema import Rollout, SamplingParams
from rlvr.run.config import RunConfig
from rlvr.run.groups import Grader
from rlvr.run.held_out import HeldOut
from rlvr.run.mailbox import Mailbox
from rlvr.run.sampled import SampleRecorder, request


class HeldOutEvaluation:
    """Measures a policy on sets of held-out questions."""

    def __init__(
        self,
        config: RunConfig,
        run_id: str,
        held_out: Sequence[HeldOut],
        mailbox: Mailbox,
        recorder: SampleRecorder,
        grader: Grader,
        least: int = 1,
    ) -> None:
        """`least`: completions per question, at least; more than one for a verifier that judges groups."""
        self.answers: list[Rollout] = []
        """Records of the last evaluation."""
        self._config, self._run_id, self._held_out = config, run_id, held_out
        self._mailbox, self._recorder, self._grader, self._least = mailbox, recorder, grader, least

    def metrics(self, step: int, version: int) -> dict[str, Any]:
        """Return the metrics of an evaluation after `step` batches, of weights of `version`.

        For each set, `accuracy` is the share of rewards that count as correct (at least 0.5), with the ends of its 95 %
        interval as `accuracy_low` and `accuracy_high`, and `reward` is their mean; with rewards of 0 and 1 the two are
        equal. Both are over completions with a reward: verdicts without one count as `verifier.rewards` says. With
        several samples per question, `any_correct` is the share of questions with a correct one. `dropped` is the share
        of completions left without a reward, because the verifier abstained or broke, the row is invalid, or the
        sampler aborted. Where none has a reward, the others are None. Those with `greedy_` are at temperature 0.
        """
        metrics: dict[str, Any] = {}
        self.answers = []
        for each in self._held_out:
            metrics |= self._measured(each, "", each.params, each.samples, step, version)
            if each.greedy:
                greedy = each.params.model_copy(update={"temperature": 0.0})
                metrics |= self._measured(each, "greedy_", greedy, 1, step, version)
        return {"eval/policy_version": version, **metrics} if metrics else {}

    def _measured(
        self, held_out: HeldOut, kind: str, params: SamplingParams, samples: int, step: int, version: int
    ) -> dict[str, float | None]:
        size = max(samples, self._least)
        own = (held_out.name,) if held_out.name else ()
        marks = "-".join([*own, kind or "sampled_"])
        requests = [
            request(
                f"{self._run_id}-eval-{version}-{marks}{question.position}",
                question,
                size,
                params,
                *(self._config.seed, "eval", *own, question.position),
            )
            for question in held_out.questions
        ]
        where = f"held-out verdicts at step {step}"
        scored = self._recorder.scored(self._mailbox.ask(requests), self._config.alarms, where)
        self.answers += [rollout for members in scored.values() for rollout in members]
        by_question = [
            [reward for rollout in members if (reward := self._grader.reward(rollout)) is not None]
            for members in scored.values()
        ]
        dropped = 1 - sum(map(len, by_question)) / (len(requests) * size)
        shown = _shares(by_question, kind, several=samples > 1)
        return {f"{held_out.prefix}{name}": value for name, value in {**shown, f"{kind}dropped": dropped}.items()}


def _shares(by_question: Sequence[Sequence[float]], kind: str, *, several: bool) -> dict[str, float | None]:
    """Return the metrics of the rewards of each question's completions."""
    rewards = [reward for own in by_question for reward in own]
    right = [[reward >= RIGHT for reward in own] for own in by_question if own]
    low, high = clustered_interval(list(map(sum, right)), list(map(len, right))) if rewards else (None, None)
    shares: dict[str, float | None] = {
        f"{kind}accuracy": sum(map(sum, right)) / len(rewards) if rewards else None,
        f"{kind}accuracy_low": low,
        f"{kind}accuracy_high": high,
        f"{kind}reward": math.fsum(rewards) / len(rewards) if rewards else None,
    }
    if several:
        shares[f"{kind}any_correct"] = sum(map(any, right)) / len(right) if right else None
    return shares
