"""How a group is asked of vLLM and read from its answer, in process and over HTTP alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from rlvr.errors import RunError
from rlvr.protocols import GroupRequest, ModelSpec, Sample, SampledGroup, Snapshot, TopTokens
from rlvr.record.schema import FinishReason, Sampling, VersionRun
from rlvr.run.models import (
    context_length,
    empty_model,
    end_ids,
    load_configuration,
    load_tokenizer,
    vocabulary_size,
)

from ..model.lora import adapted_layer
from ..model.snapshots import check_snapshot
from .completions import Completions, check_request, sample_seed

FRESH = "default"
"""The version that an engine names before anyone has told it one."""


class EngineModel:
    """The model of a sampler whose engine holds the weights: what is known of it without them."""

    def __init__(self, spec: ModelSpec) -> None:
        """Load tokenizer and configuration. Raises RequestError if there is no such model."""
        self._spec, tokenizer = spec, load_tokenizer(spec)
        self.path = spec.path
        configuration = load_configuration(spec)
        self.completions = Completions(tokenizer, end_ids(spec, tokenizer))
        self._vocabulary = vocabulary_size(configuration)
        self.longest = context_length(configuration)
        """Longest sequence in tokens; None if it is unknown."""
        self._empty = empty_model(spec)

    def limit(self, length: int | None) -> None:
        """Lower the longest sequence, if a length is given."""
        self.longest = min((n for n in (self.longest, length) if n is not None), default=None)

    def check(self, requests: Sequence[GroupRequest]) -> None:
        """Raise RequestError for a request that does not fit the model."""
        for request in requests:
            check_request(request, self._vocabulary, self.longest)

    def check_weights(self, snapshot: Snapshot) -> None:
        """Raise RunError if names or shapes are not those of the model, or those of an adapter to it."""
        if snapshot.lora is None:
            check_snapshot(self._empty, snapshot)
            return
        layers = {name for name, _ in self._empty.named_modules()}
        unknown = [name for name in snapshot.layout if adapted_layer(name) not in layers]
        if unknown:
            raise RunError(f"the adapter of version {snapshot.version} holds {unknown[0]}, which the model lacks")

    def sample(
        self,
        request: GroupRequest,
        token_ids: Sequence[int],
        logprobs: Sequence[float],
        reason: str | None,
        spans: Iterable[Span],
        top: TopTokens | None = None,
    ) -> Sample:
        """Return one sample from what the engine answered. Raises RunError for an answer that is none."""
        runs = version_runs(spans, len(token_ids))
        return self.completions.sample(request, token_ids, logprobs, finish_reason(reason, request), runs, top)

    def sampling(self, request: GroupRequest, engine_version: str, dtype: str | None) -> Sampling:
        """Return how a group was sampled; `dtype` is the engine's if it is not the model's."""
        return self.completions.sampling(request, "vllm", engine_version, dtype or self._spec.dtype)


def group_of(request: GroupRequest, samples: Sequence[Sample], sampling: Sampling, seconds: float) -> SampledGroup:
    """Return the answer to a request. One greedy sample stands for all, as `engine_params` asked for it."""
    times = request.size if request.params.temperature == 0 else 1
    return SampledGroup(request=request, samples=tuple(samples) * times, sampling=sampling, seconds=seconds)


class Span(Protocol):
    """Output tokens `[start, end)` that weights of one version sampled."""

    @property
    def version(self) -> str:
        """Version as rlvr has named it to the engine."""

    @property
    def start(self) -> int:
        """First token."""

    @property
    def end(self) -> int:
        """Token behind the last."""


def engine_params(request: GroupRequest, completions: Completions) -> dict[str, Any]:
    """Return the arguments of `vllm.SamplingParams` for a group, which are also the fields of a server's JSON.

    Child i of a group is drawn with seed + i. The engine's own end-of-text id is ignored, because the model's stop ids
    are all named. Greedy decoding is asked for once: its samples are equal, and vLLM refuses n > 1.
    """
    params = request.params
    return {
        "n": 1 if params.temperature == 0 else request.size,
        "temperature": params.temperature,
        "top_p": params.top_p,
        "top_k": params.top_k,
        "min_p": params.min_p,
        "repetition_penalty": params.repetition_penalty,
        "presence_penalty": params.presence_penalty,
        "frequency_penalty": params.frequency_penalty,
        "max_tokens": params.max_tokens,
        "seed": sample_seed(request) >> 1,  # room for seed + i
        "logprobs": request.keep_topk,
        "stop": list(request.stop.strings),
        "stop_token_ids": sorted(completions.stop_ids(request.stop)),
        "ignore_eos": True,
        "detokenize": bool(request.stop.strings),
        "skip_special_tokens": False,
    }


def finish_reason(given: str | None, request: GroupRequest) -> FinishReason:
    """Return vLLM's finish reason as the record's. Raises RunError for one that ends no completion."""
    if given == "stop":
        return "stop"
    if given == "length":
        return "length"
    raise RunError(f"vLLM ended a sample of group {request.group_id} with {given!r}: expected 'stop' or 'length'")


def version_runs(spans: Iterable[Span], tokens: int) -> tuple[VersionRun, ...]:
    """Return the policy versions of a sample's tokens, from the engine's spans.

    Raises RunError for spans that do not cover the tokens, or a version that is not a number.
    """
    place = 0
    runs: list[VersionRun] = []
    for span in spans:
        if span.start != place or span.end < span.start:
            raise RunError(f"vLLM names the weights of tokens {span.start} to {span.end} after those up to {place}")
        place = span.end
        if span.end > span.start:
            runs.append(VersionRun(version=_number(span.version), count=span.end - span.start))
    if place != tokens:
        raise RunError(f"vLLM names the weights of {place} tokens, and the sample has {tokens}")
    return tuple(runs)


def _number(version: str) -> int:
    if version == FRESH:
        return 0
    if not version.isdecimal():
        raise RunError(
            f"vLLM says that weights {version!r} sampled a token, and rlvr gave it numbers: who else sets it?"
        )
    return int(version)
