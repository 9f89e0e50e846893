"""Fresh groups: requested, scored as they arrive, and stored while they are trained on.

A batch that was stored before a kill is read back instead of being sampled again.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count, islice
from typing import Any

from rlvr.data.curriculum import Curriculum
from rlvr.data.prompts import Encoded
from rlvr.errors import DataError
from rlvr.evaluation.figures import RIGHT
from rlvr.protocols import Group, GroupRequest, SampledGroup
from rlvr.record.schema import Rollout, Verdict
from rlvr.run.ahead import AskedPrompts
from rlvr.run.config import RunConfig
from rlvr.run.groups import Drawn, Grader, by_group
from rlvr.run.phases import Phases
from rlvr.run.rundir import RunDirectory
from rlvr.run.sampled import SampleRecorder, request
from rlvr.run.shadow import Shadows

_ESCAPE = re.compile(r"\\ud[89a-f][0-9a-f]{2}")


def holds_escape(verdict: Verdict) -> bool:
    """Return whether a text of a verdict holds the escape of a lone surrogate.

    It is read from the text, so that a batch that is read back counts as it did when it was sampled.
    """
    own = any(_ESCAPE.search(text) for text in (verdict.extracted, verdict.reason) if text)
    return own or any(_ESCAPE.search(name) or holds_escape(part) for name, part in (verdict.parts or {}).items())


def group_id(run_id: str, prompt: Encoded) -> str:
    """Return the id of a prompt's group, a function of its position in the stream."""
    return f"{run_id}-{prompt.position}"


def training_request(config: RunConfig, run_id: str, prompt: Encoded) -> GroupRequest:
    """Return the request for a prompt's group."""
    sampling, key = config.sampling, (config.seed, "train", prompt.position)
    return request(
        group_id(run_id, prompt), prompt, sampling.group_size, sampling.params, *key, keep_topk=sampling.kept
    )


class Fresh:
    """A `GroupSource` that samples.

    A group's id and its random draws derive from the prompt's position in the stream, never from the step that
    consumes it.

    With `sampling.refill` (dynamic sampling of DAPO, arXiv 2503.14476) groups without a signal are replaced by
    further prompts, in rounds, until the batch is full or `sampling.refill_rounds` are over. The trainer gets the
    groups with a signal; everything that was sampled is stored.
    """

    def __init__(
        self,
        config: RunConfig,
        prompts: AskedPrompts,
        recorder: SampleRecorder,
        grader: Grader,
        directory: RunDirectory,
        phases: Phases,
        shadows: Shadows,
        working: Callable[[str, int, int], object] = lambda phase, done, total: None,
        curriculum: Curriculum | None = None,
    ) -> None:
        """`working` is called with `sample` or `score`, and how many groups or completions are done, of how many."""
        self._config, self._prompts, self._recorder = config, prompts, recorder
        self._grader, self._directory, self._phases, self._shadows = grader, directory, phases, shadows
        self._curriculum = curriculum
        self._run_id: str = directory.manifest["run_id"]
        self._escaped_verdicts, self._working = 0, working

    def draw(self, step: int, size: int, version: int) -> Drawn:
        """Sample, score and begin to store the batch of a step, or read it back.

        Raises DataError if the batch that is read back answers other prompts than those of its step.
        """
        refill = self._config.sampling.refill
        stored = self._directory.stored(step)
        back = None if stored is None else {members[0].group_id: members for members in by_group(stored)}
        rollouts: list[Rollout] = []
        groups: list[Group] = []
        asked: list[Encoded] = []
        before, rounds = self._prompts.position, 0
        while len(groups) < size and rounds <= (self._config.sampling.refill_rounds if refill else 0):
            positions = None if back is None else self._positions(back)
            prompts = self._prompts.take(size - len(groups), version, positions)
            if back is None:
                new = self._sampled(step, prompts)
            else:  # an aborted group has no records
                new = [rollout for prompt in prompts for rollout in self._taken(back, prompt, step)]
            rollouts += new
            groups += [group for group in self._grader.groups(new) if group.stats.has_signal or not refill]
            asked += prompts
            rounds += 1
        if back:
            others = ", ".join(map(str, back))
            raise DataError(f"the stored batch of step {step} holds groups that this step did not ask for: {others}")
        if stored is None:
            with self._phases("store"):
                self._directory.store(step, rollouts)
        at = self._prompts.position
        metrics = {"prompts/dropped": float(at.dropped), **self._grader.mixed(by_group(rollouts))}
        self._escaped_verdicts += sum(holds_escape(score) for rollout in rollouts for score in rollout.scores)
        metrics |= {"escaped/prompts": float(at.escaped), "escaped/verdicts": float(self._escaped_verdicts)}
        if self._config.mode == "async":
            metrics |= lengths(rollouts, groups, self._prompts.late())
        if refill:
            metrics |= {"refill/rounds": rounds - 1.0, "refill/groups": float(len(asked) - size)}
        if self._curriculum is not None:
            metrics["curriculum/skipped"] = float(
                at.position - before.position - len(asked) - (at.dropped - before.dropped)
            )
            self._curriculum.measure(self._pass_rates(asked, rollouts))
            metrics |= self._curriculum.metrics()
        return Drawn(tuple(groups), tuple(rollouts), metrics)

    def state(self) -> dict[str, Any]:
        """Return the position of the next prompt, counts so far, and the rates of a curriculum. The random draws have
        no state."""
        rates = {} if self._curriculum is None else {"curriculum": self._curriculum.state()}
        return {**self._prompts.state(), "escaped_verdicts": self._escaped_verdicts, **rates}

    def seek(self, state: Mapping[str, Any]) -> None:
        """Continue at a position that `state` returned."""
        self._prompts.seek(state)
        self._escaped_verdicts = state.get("escaped_verdicts", 0)  # older checkpoints lack it
        if self._curriculum is not None:
            self._curriculum.seek(state["curriculum"])

    def _pass_rates(self, prompts: Sequence[Encoded], rollouts: Sequence[Rollout]) -> dict[int, float]:
        """Return the share of right rollouts of each prompt's group, by index of the question; nothing for a group
        without rewards."""
        indices = {self._group_id(prompt): prompt.index for prompt in prompts}
        rates: dict[int, float] = {}
        for members in by_group(rollouts):
            # Several sequences of one rollout share its reward.
            rewards = {rollout.id: self._grader.reward(rollout) for rollout in members}.values()
            known = [reward for reward in rewards if reward is not None]
            if known:
                rates[indices[members[0].group_id or ""]] = sum(reward >= RIGHT for reward in known) / len(known)
        return rates

    def _group_id(self, prompt: Encoded) -> str:
        return group_id(self._run_id, prompt)

    def _positions(self, back: Mapping[str | None, object]) -> list[int]:
        """Return the positions of stored groups in the stream; groups of other runs have none."""
        begin = f"{self._run_id}-"
        ends = [name.removeprefix(begin) for name in back if name is not None and name.startswith(begin)]
        return [int(end) for end in ends if end.isdecimal()]

    def _taken(self, back: dict[str | None, list[Rollout]], prompt: Encoded, step: int) -> list[Rollout]:
        """Remove and return the prompt's group of a stored batch. Raises DataError if it answers another prompt."""
        members = back.pop(self._group_id(prompt), [])
        for rollout in members:
            ids, task = rollout.token_ids, rollout.task
            same = ids is not None and tuple(ids[: len(prompt.token_ids)].tolist()) == prompt.token_ids
            if not same or task.answer != prompt.prompt.task.answer:
                raise DataError(
                    f"the prompt at position {prompt.position} is not the one that the stored batch of step {step} "
                    f"answers (row {task.row_id} of {task.dataset}): the prompts changed since. Restore them, or "
                    "start a new run"
                )
        return members

    def _sampled(self, step: int, prompts: Sequence[Encoded]) -> list[Rollout]:
        """Return scored rollouts of the prompts, in their order."""
        with self._phases("score"):
            groups = self._timed(self._prompts.groups(prompts, step), len(prompts))
            total = len(prompts) * self._config.sampling.group_size
            scored = self._recorder.scored(
                groups,
                self._config.alarms,
                f"verdicts at step {step}",
                lambda done: self._working("score", done, total),
            )
            members = {prompt.position: scored.get(self._group_id(prompt), []) for prompt in prompts}
            chosen = [position for position in members if self._shadows.chosen(position)]
            # All of them in one call, so that the verifiers' workers are busy.
            shadowed = iter(self._shadows.scored([rollout for position in chosen for rollout in members[position]]))
            members |= {position: list(islice(shadowed, len(members[position]))) for position in chosen}
        return [rollout for rollouts in members.values() for rollout in rollouts]

    def _timed(self, groups: Iterator[SampledGroup], total: int) -> Iterator[SampledGroup]:
        """Yield the groups; the time until each is there counts as sampling."""
        for done in count(1):
            with self._phases("sample"):
                group = next(groups, None)
            if group is None:
                return
            self._working("sample", done, total)
            yield group


def lengths(rollouts: Sequence[Rollout], groups: Sequence[Group], late: Sequence[SampledGroup]) -> dict[str, float]:
    """Return the metrics that show whether training starves long completions.

    Args:
        rollouts: All that were sampled for the batch.
        groups: Those that the trainer learns from.
        late: Groups that were dropped for their lag.
    """
    dropped = [len(sample.logprobs) for group in late for sample in group.samples]
    finished = [rollout.sampled_tokens for rollout in rollouts] + dropped
    learned = [rollout.sampled_tokens for group in groups for rollout in group.rollouts]
    return {
        "groups/late": float(len(late)),
        "length/finished": sum(finished) / len(finished) if finished else math.nan,
        "length/learned": sum(learned) / len(learned) if learned else math.nan,
    }
