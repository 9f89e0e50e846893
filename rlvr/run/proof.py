"""Proof that the sampler holds the trainer's weights: it samples a few probes, and the trainer scores them.

Sampling is part of the proof: an engine that scores given tokens with new weights may still sample from cached keys of
old ones. So the probes are longer than an engine's cache block (128 tokens for vLLM on a CPU, 16 on a GPU).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle, islice

import numpy as np

from rlvr.alarms import Alarms, fired
from rlvr.data.prompts import Encoded
from rlvr.errors import RunError
from rlvr.protocols import GroupRequest, Prompt, SampledGroup, Trainer
from rlvr.record.schema import Rollout, SamplingParams, Task
from rlvr.run.mailbox import Mailbox
from rlvr.run.sampled import SampleRecorder

PROBE_TOKENS = 144
"""Length of a probe's prompt, if the model's context allows it."""
SAMPLED_TOKENS = 4
PROBES, SAMPLES = 2, 1
ROUNDING = {"float32": 5e-5, "bfloat16": 5e-3, "float16": 1e-3}
"""Ordinary mean difference of log-probabilities in nats, by the sampler's dtype."""

CAUSES = (
    "the sync did not arrive, the sampler answers from a prefix cache of old weights, a tied output layer was not "
    "sent, or sampler and trainer differ in dtype, tokenizer or rotary embedding"
)


def probe_prompts(questions: Sequence[Encoded], longest: int | None) -> list[tuple[int, ...]]:
    """Return token ids of the probes: questions of a run, repeated to the length of a probe.

    Args:
        questions: Each makes a probe.
        longest: Longest sequence that the model takes; None if it is unknown.
    """
    room = PROBE_TOKENS if longest is None else max(1, min(PROBE_TOKENS, longest - SAMPLED_TOKENS))
    return [tuple(islice(cycle(question.token_ids), room)) for question in questions]


class WeightProof:
    """Compares sampler and trainer on the same tokens after a weight sync."""

    def __init__(
        self,
        prompts: Sequence[Sequence[int]],
        params: SamplingParams,
        mailbox: Mailbox,
        recorder: SampleRecorder,
        trainer: Trainer,
        alarms: Alarms,
        keep_topk: int = 0,
    ) -> None:
        """`params`, `keep_topk`: the run's; log-probabilities compare at its temperature and on its support only."""
        self._prompts, self._mailbox, self._recorder, self._trainer = prompts, mailbox, recorder, trainer
        self._params = params.model_copy(update={"max_tokens": min(SAMPLED_TOKENS, params.max_tokens)})
        self._alarms, self._keep_topk = alarms, keep_topk

    def after_sync(self) -> dict[str, float]:
        """Return the metrics of a proof; empty if the alarm `weights` is off.

        Raises RunError if the difference sets off the alarm `weights` and its consequence is to stop, or if a sample
        names another policy version than the trainer's.
        """
        if self._alarms.weights.consequence == "none":
            return {}
        groups = list(self._mailbox.ask(self._requests()))
        rollouts = [rollout for group in groups for rollout in self._recorder.records(group)]
        self._check_versions(rollouts)
        metrics = self._differences(groups, rollouts)
        for alarm in fired(metrics, self._alarms):
            if alarm.alarm == "weights" and alarm.consequence == "stop":
                raise RunError(
                    f"the sampler does not compute what the trainer does: after the weight sync at version "
                    f"{self._trainer.version}, log-probabilities of the same tokens differ by "
                    f"{metrics['weights/difference']:.3g} nats on average, {metrics['weights/excess']:,.0f} times the "
                    f"rounding of {groups[0].sampling.dtype}. Likely causes: {CAUSES}. To continue anyway: "
                    "--set alarms.weights.consequence=warn"
                )
        return metrics

    def _requests(self) -> list[GroupRequest]:
        version = self._trainer.version
        probe = Prompt(Task(dataset="probe"), text="")
        return [
            GroupRequest(
                f"probe-{version}-{i}",
                probe,
                tuple(ids),
                SAMPLES,
                self._params,
                ("probe", version, i),
                keep_topk=self._keep_topk,
            )
            for i, ids in enumerate(self._prompts)
        ]

    def _check_versions(self, rollouts: Sequence[Rollout]) -> None:
        version = self._trainer.version
        sampled = {run.version for rollout in rollouts for run in rollout.policy_versions or ()}
        if sampled - {version}:
            raise RunError(
                f"after the weight sync at version {version}, the sampler still samples with version "
                f"{min(sampled - {version})}: the sync did not arrive"
            )

    def _differences(self, groups: Sequence[SampledGroup], rollouts: Sequence[Rollout]) -> dict[str, float]:
        if not rollouts:
            return {}
        scored = np.concatenate(self._trainer.logprobs(rollouts))
        sampled = np.concatenate([rollout.behaviour_logprobs for rollout in rollouts])
        gap = np.abs(scored - sampled)
        mean = float(np.nanmean(gap))
        rounding = ROUNDING.get(groups[0].sampling.dtype or "float32", ROUNDING["float32"])
        return {
            "weights/difference": mean,
            "weights/worst": float(np.nanmax(gap)),
            "weights/excess": mean / rounding,
        }
