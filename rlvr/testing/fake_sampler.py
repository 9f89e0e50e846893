"""A sampler without a model: deterministic, instant, and with configurable faults."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from rlvr.draws import draw, uniform
from rlvr.protocols import GroupRequest, ModelSpec, Sample, SampledGroup, SamplerOptions, Snapshot
from rlvr.record.schema import Sampling, VersionRun

LATENESS = 2
"""Calls of `collect` with a timeout that return nothing while only late groups are outstanding."""


class FakeSamplerOptions(SamplerOptions):
    """Shares of unusual answers. The choice of answers is a function of each request's key."""

    vocabulary: int = Field(default=32, ge=2, description="token ids are drawn below this number")
    alphabet: str = Field(default="0123456789+-*/=. ", min_length=1, description="text: one character per token")
    reversed_order: bool = Field(default=False, description="answer the newest requests first")
    per_collect: int = Field(default=4, ge=1, description="groups that one `collect` returns at most")
    late: float = Field(default=0.0, ge=0, le=1, description="share of groups that come after all others")
    aborted: float = Field(default=0.0, ge=0, le=1, description="share of groups that come back without samples")
    duplicated: float = Field(default=0.0, ge=0, le=1, description="share of groups that come back twice")
    ignores_cancel: bool = Field(default=False, description="answer cancelled requests all the same")
    turns: bool = Field(default=False, description="samples hold tokens that the policy did not sample")
    rewards: bool = Field(default=False, description="samples come with a reward")

    @property
    def gives_rewards(self) -> bool:
        """True with `rewards`."""
        return self.rewards


@dataclass(frozen=True)
class _Answer:
    group: SampledGroup
    late: bool


class FakeSampler:
    """A `Sampler` that draws tokens and log-probabilities from a hash of the request's key and the policy version.

    As a factory it takes the same arguments as any sampler, so that a plan or a test can use it in place of one. The
    model is ignored. Attributes for assertions: `synced` (versions, in order), `cancelled` (ids) and `closed`.
    """

    Options: ClassVar[type[SamplerOptions]] = FakeSamplerOptions

    def __init__(self, model: ModelSpec | None = None, options: FakeSamplerOptions | None = None) -> None:
        self.options = options or FakeSamplerOptions()
        self.version = 0
        self.synced: list[int] = []
        self.cancelled: list[str] = []
        self.closed = False
        self._requests: list[GroupRequest] = []
        self._again: list[SampledGroup] = []
        """Answers that are returned a second time."""
        self._empty = 0

    def sync(self, snapshot: Snapshot) -> None:
        """Note the version; further draws depend on it."""
        self.version = snapshot.version
        self.synced.append(snapshot.version)

    def submit(self, requests: Sequence[GroupRequest]) -> None:
        """Queue the requests."""
        self._requests.extend(requests)

    def collect(self, timeout: float | None = None) -> list[SampledGroup]:
        """Return up to `per_collect` groups. Late ones come last, after `LATENESS` empty calls with a `timeout`."""
        if self._again:
            again, self._again = self._again, []
            return again
        order = list(reversed(self._requests)) if self.options.reversed_order else list(self._requests)
        ready = [request for request in order if not self._happens("late", request)]
        if not ready and order and timeout is not None and self._empty < LATENESS:
            self._empty += 1
            return []
        self._empty = 0
        ready = ready or order
        taken = ready[: self.options.per_collect]
        self._requests = [request for request in self._requests if not any(request is each for each in taken)]
        groups = [self._answer(request) for request in taken]
        self._again = [group for group in groups if self._happens("duplicated", group.request)]
        return groups

    def cancel(self, ids: Collection[str]) -> None:
        """Forget the requests with these ids, unless the option says to answer them all the same."""
        self.cancelled += [request.group_id for request in self._requests if request.group_id in ids]
        if not self.options.ignores_cancel:
            self._requests = [request for request in self._requests if request.group_id not in ids]

    def save(self, directory: Path) -> None:
        """Write the version."""
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "fake_sampler.json").write_text(json.dumps({"version": self.version}))

    def load(self, directory: Path) -> None:
        """Read the version."""
        self.version = json.loads((directory / "fake_sampler.json").read_text())["version"]

    def close(self) -> None:
        """Forget all requests."""
        self._requests.clear()
        self._again.clear()
        self.closed = True

    def _happens(self, what: str, request: GroupRequest) -> bool:
        share: float = {"late": self.options.late, "aborted": self.options.aborted}.get(what, self.options.duplicated)
        return uniform("fake sampler", what, *request.key) < share

    def _answer(self, request: GroupRequest) -> SampledGroup:
        size = 0 if self._happens("aborted", request) else request.size
        sampling = Sampling(
            **request.params.model_dump(),
            engine="fake",
            engine_version="1",
            dtype="float32",
            logprob_mode="raw" if request.params.temperature == 0 else "processed",
        )
        return SampledGroup(request, tuple(self._sample(request, index) for index in range(size)), sampling, 0.0)

    def _sample(self, request: GroupRequest, index: int) -> Sample:
        greedy = request.params.temperature == 0
        key = (*request.key, self.version, "greedy" if greedy else index)
        length = 1 + draw("fake length", *key) % request.params.max_tokens
        tokens = tuple(draw("fake token", *key, t) % self.options.vocabulary for t in range(length))
        mask = tuple(t % 4 != 3 for t in range(length)) if self.options.turns else None
        sampled = length if mask is None else sum(mask)
        return Sample(
            token_ids=tokens,
            logprobs=tuple(math.log1p(-uniform("fake logprob", *key, t)) for t in range(sampled)),
            text="".join(self.options.alphabet[token % len(self.options.alphabet)] for token in tokens),
            finish_reason="length" if length == request.params.max_tokens else "stop",
            stop_reason=None,
            versions=(VersionRun(version=self.version, count=sampled),),
            loss_mask=mask,
            reward=float(draw("fake reward", *key) % 2) if self.options.rewards else None,
        )
