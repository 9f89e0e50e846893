"""`check_sampler`: the rules of the `Sampler` protocol, tried on a sampler."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from rlvr.errors import RunError
from rlvr.protocols import GroupRequest, Prompt, Sample, SampledGroup, Sampler, Snapshot, TensorLayout
from rlvr.record.schema import SamplingParams, Task

PATIENCE = 60.0
"""Seconds that the check waits for an answer."""
GROUPS, SIZE = 4, 3


def check_sampler(
    make: Callable[[], Sampler],
    snapshot: Snapshot,
    directory: Path,
    *,
    prompt_ids: Sequence[int] = (1, 2, 3),
    params: SamplingParams | None = None,
    deterministic: bool = True,
) -> None:
    """Assert that a sampler keeps the protocol.

    Every request is answered once, under its own id, with samples whose columns agree; cancelled requests are not
    answered; versions are those of the last sync; a snapshot that does not fit is refused; a saved sampler continues.

    Args:
        make: Returns a new sampler, each time in the same state.
        snapshot: Weights that fit it, e.g. `trainer.snapshot()`.
        directory: An empty folder that the check may write to.
        prompt_ids: Token ids that the model knows.
        params: How to sample; by default temperature 1 and at most 8 tokens.
        deterministic: The same key, weights and prompt give the same samples; False for engines that cannot promise it.

    Raises AssertionError with the rule that is broken.
    """
    check = _Check(make, tuple(prompt_ids), params or SamplingParams(max_tokens=8), deterministic)
    check.answers()
    check.cancelling()
    check.versions(snapshot)
    check.refusal(snapshot)
    check.saving(snapshot, directory)
    check.closing()


class _Check:
    def __init__(
        self, make: Callable[[], Sampler], prompt_ids: tuple[int, ...], params: SamplingParams, deterministic: bool
    ) -> None:
        self.make, self.prompt_ids, self.params, self.deterministic = make, prompt_ids, params, deterministic

    def requests(self, name: str = "g", size: int = SIZE) -> list[GroupRequest]:
        prompt = Prompt(Task(), text="token ids are given")
        return [
            GroupRequest(f"{name}{i}", prompt, self.prompt_ids, size, self.params, ("check", i)) for i in range(GROUPS)
        ]

    def answers(self) -> None:
        sampler = self.make()
        _hold(sampler.collect(timeout=0.0) == [], "collect returns [] when nothing was submitted")
        requests = self.requests()
        sampler.submit(requests)
        groups = _all_of(sampler, requests)
        _hold(sampler.collect(timeout=0.0) == [], "a group is returned once")
        for group in groups:
            self._columns(group)
        drawn = [sample.token_ids for group in groups for sample in group.samples]
        _hold(len(set(drawn)) > 1, "different keys and places in a group draw differently")
        if self.deterministic:
            sampler.submit(requests)
            again = {group.request.group_id: group.samples for group in _all_of(sampler, requests)}
            same = all(again[group.request.group_id] == group.samples for group in groups)
            _hold(same, "the same key, weights and prompt give the same samples")
        sampler.close()

    def _columns(self, group: SampledGroup) -> None:
        name = f"group {group.request.group_id}"
        _hold(len(group.samples) <= group.request.size, f"{name} has at most as many samples as requested")
        _hold(group.sampling.temperature == self.params.temperature, f"{name} says its sampling temperature")
        _hold(group.sampling.engine is not None, f"{name} names the engine")
        _hold(group.seconds >= 0, f"{name} took no negative time")
        for sample in group.samples:
            _hold(0 < sampled_tokens(sample) <= self.params.max_tokens, f"{name} samples 1 to max_tokens tokens")
            _hold(all(token >= 0 for token in sample.token_ids), f"{name} has no negative token ids")
            fine = all(math.isfinite(p) and p <= 1e-4 for p in sample.logprobs)
            _hold(fine, f"{name} has finite log-probabilities of at most 0")

    def cancelling(self) -> None:
        sampler, requests = self.make(), self.requests()
        sampler.submit(requests)
        sampler.cancel([requests[-1].group_id, "an id that was never submitted"])
        _all_of(sampler, requests[:-1])
        _hold(sampler.collect(timeout=0.0) == [], "a cancelled request is not answered")
        sampler.close()

    def versions(self, snapshot: Snapshot) -> None:
        sampler, requests = self.make(), self.requests()
        sampler.sync(replace(snapshot, version=3))
        sampler.submit(requests)
        sampler.sync(replace(snapshot, version=5))
        found = {run.version for group in _all_of(sampler, requests) for one in group.samples for run in one.versions}
        _hold(found <= {3, 5}, f"tokens in flight across a sync are of version 3 or 5, not of {sorted(found)}")
        sampler.submit(requests)
        found = {run.version for group in _all_of(sampler, requests) for one in group.samples for run in one.versions}
        _hold(found == {5}, f"tokens sampled after the sync to version 5 say so, not {sorted(found)}")
        sampler.close()

    def refusal(self, snapshot: Snapshot) -> None:
        if not snapshot.layout:
            return
        sampler = self.make()
        sampler.sync(replace(snapshot, version=3))
        unknown = {**snapshot.layout, "no.such.weight": TensorLayout("float32", (1,))}
        try:
            sampler.sync(replace(snapshot, version=9, layout=unknown))
        except RunError:
            pass
        else:
            raise AssertionError("check_sampler: a snapshot with a weight that the model has not is refused (RunError)")
        requests = self.requests()
        sampler.submit(requests)
        found = {run.version for group in _all_of(sampler, requests) for one in group.samples for run in one.versions}
        _hold(found == {3}, "a refused snapshot changes nothing, not even the version")
        sampler.close()

    def saving(self, snapshot: Snapshot, directory: Path) -> None:
        sampler, requests = self.make(), self.requests()
        sampler.sync(replace(snapshot, version=7))
        sampler.save(directory / "sampler")
        sampler.submit(requests)
        before = {group.request.group_id: group.samples for group in _all_of(sampler, requests)}
        sampler.close()
        resumed = self.make()
        resumed.load(directory / "sampler")
        resumed.submit(requests)
        after = {group.request.group_id: group.samples for group in _all_of(resumed, requests)}
        found = {run.version for samples in after.values() for one in samples for run in one.versions}
        _hold(found == {7}, f"a loaded sampler has the version that was saved, 7, not {sorted(found)}")
        if self.deterministic:
            _hold(before == after, "a loaded sampler samples as the saved one would have")
        resumed.close()

    def closing(self) -> None:
        sampler = self.make()
        sampler.submit(self.requests())
        sampler.close()
        try:
            sampler.close()
        except Exception as error:
            raise AssertionError(f"check_sampler: close may be called twice, but raised {error!r}") from error


def sampled_tokens(sample: Sample) -> int:
    """Return how many tokens of a sample the policy sampled."""
    return len(sample.token_ids) if sample.loss_mask is None else sum(sample.loss_mask)


def _all_of(sampler: Sampler, requests: Sequence[GroupRequest]) -> list[SampledGroup]:
    """Collect until every request is answered; return the answers in the order of the requests."""
    asked = {request.group_id: request for request in requests}
    found: list[SampledGroup] = []
    deadline = time.monotonic() + PATIENCE
    while len(found) < len(asked):
        groups = sampler.collect(timeout=1.0)
        found += groups
        for group in groups:
            name = group.request.group_id
            _hold(name in asked, f"only what was submitted is answered, not {name!r}")
            _hold(group.request == asked[name], f"the answer to {name!r} holds the request as it was submitted")
        counts = Counter(group.request.group_id for group in found)
        _hold(max(counts.values(), default=1) == 1, "each request is answered once")
        _hold(time.monotonic() < deadline, f"{len(asked)} requests are answered, only {len(found)} were in time")
    order = list(asked)
    return sorted(found, key=lambda group: order.index(group.request.group_id))


def _hold(true: bool, rule: str) -> None:
    if not true:
        raise AssertionError(f"check_sampler: {rule}")
