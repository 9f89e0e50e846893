"""Evaluation on held-out questions with the sampler's weights, recorded and scored exactly like training rollouts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from rlvr.data.prompts import Encoded
from rlvr.record.schema import SamplingParams
from rlvr.run.config import RunConfig
from rlvr.run.groups import Grader
from rlvr.run.mailbox import Mailbox
from rlvr.run.sampled import SampleRecorder, request

RIGHT = 0.5
"""Rewards at or above this count as correct."""

NAMES = tuple(f"eval/{kind}{what}" for kind in ("", "greedy_") for what in ("accuracy", "reward"))
"""Metrics that tell how good weights are."""


class Evaluation:
    """Measures a policy on held-out questions, at the sampling temperature and greedily."""

    def __init__(
        self,
        config: RunConfig,
        run_id: str,
        questions: Sequence[Encoded],
        mailbox: Mailbox,
        recorder: SampleRecorder,
        grader: Grader,
        size: int,
    ) -> None:
        """`size`: completions per question; more than one for a verifier that judges groups."""
        self._config, self._run_id, self._questions = config, run_id, questions
        self._mailbox, self._recorder, self._grader, self._size = mailbox, recorder, grader, size

    def metrics(self, step: int, version: int) -> dict[str, Any]:
        """Return the metrics of an evaluation after `step` batches, of weights of `version`.

        `eval/accuracy` is the share of rewards that count as correct (at least 0.5), `eval/reward` their mean; with
        rewards of 0 and 1 the two are equal. Both are over completions with a reward: verdicts without one count as
        `verifier.rewards` says. `eval/dropped` is the share of completions left without a reward, because the verifier
        abstained or broke, the row is invalid, or the sampler aborted. Where none has a reward the first two are None.
        The same three with `greedy_` are at temperature 0.
        """
        if not self._questions:
            return {}
        at_temperature = self._config.sampling.params
        greedy = at_temperature.model_copy(update={"temperature": 0.0})
        return {
            "eval/policy_version": version,
            **self._measured("", at_temperature, step, version),
            **self._measured("greedy_", greedy, step, version),
        }

    def _measured(self, kind: str, params: SamplingParams, step: int, version: int) -> dict[str, float | None]:
        seed = self._config.seed
        requests = [
            request(
                f"{self._run_id}-eval-{version}-{kind or 'sampled_'}{question.position}",
                question,
                self._size,
                params,
                *(seed, "eval", question.position),
            )
            for question in self._questions
        ]
        where = f"held-out verdicts at step {step}"
        scored = self._recorder.scored(self._mailbox.ask(requests), self._config.alarms, where)
        rewards = [
            reward
            for members in scored.values()
            for rollout in members
            if (reward := self._grader.reward(rollout)) is not None
        ]
        asked = len(requests) * self._size
        return {
            f"eval/{kind}accuracy": sum(reward >= RIGHT for reward in rewards) / len(rewards) if rewards else None,
            f"eval/{kind}reward": math.fsum(rewards) / len(rewards) if rewards else None,
            f"eval/{kind}dropped": 1 - len(rewards) / asked,
        }
