"""`hf`: the sampler on transformers, in this process, on one device, synchronous."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
import transformers
from pydantic import Field
from torch import Tensor

from rlvr.errors import ConfigError
from rlvr.protocols import GroupRequest, ModelSize, ModelSpec, RunSize, Sample, SampledGroup, SamplerOptions, Snapshot
from rlvr.record.schema import FinishReason, SamplingParams, Stop, VersionRun
from rlvr.run.models import context_length, load_tokenizer

from ..model.models import load_model, resolve, stop_ids
from ..model.snapshots import load_snapshot, snapshot_of
from .completions import Completions, check_request, sample_seed
from .decode import Completion, decode
from .saved_weights import load_weights, save_weights

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


class HFSamplerOptions(SamplerOptions):
    """Keys of `sampling.options` for the sampler `hf`: how much is decoded at once."""

    max_sequences: int = Field(default=512, ge=1, description="largest number of rows in a batch")
    max_batch_tokens: int = Field(
        default=131072, ge=1, description="size of the key-value cache: rows × (prompt + max_tokens)"
    )

    dtype: Literal["float32", "bfloat16", "float16"] | None = Field(
        default=None, description="dtype of the sampler's weights; null is the run's"
    )

    @property
    def keeps_topk(self) -> bool:
        """True: the whole distribution is at hand."""
        return True

    def memory(self, model: ModelSize, run: RunSize) -> Mapping[str, int]:
        """Return the bytes of the sampler's weights, and an estimate of its key-value cache."""
        tokens = max(run.longest, min(self.max_batch_tokens, min(self.max_sequences, run.rollouts) * run.longest))
        cache = 2 * model.layers * model.key_value * tokens
        width = model.compute_bytes if self.dtype is None else BYTES[self.dtype]
        return {"sampler": width * model.parameters, "cache": width * cache}


@dataclass
class _Outstanding:
    """A request and the samples drawn for it so far."""

    request: GroupRequest
    samples: dict[int, Sample] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True)
class _Part:
    """Samples `indices` of one request. A group too large for one batch is split into several parts."""

    of: _Outstanding
    indices: range


class HFSampler:
    """A `Sampler` that decodes with the model's own forward pass.

    Of the checkpoint's generation configuration only the stop tokens are used. `SamplingParams` alone shapes the
    distribution. Ids that the model has and the tokenizer lacks (vocabularies are padded to round sizes) can be drawn,
    as under the trainer's softmax; masking them only here would make the two distributions differ. They decode to
    nothing.

    Temperature 0 is greedy, for evaluation. Its log-probabilities are the model's own at temperature 1 (`logprob_mode`
    "raw"), not the zeros of a distribution with one outcome.
    """

    Options: ClassVar[type[SamplerOptions]] = HFSamplerOptions

    def __init__(self, model: ModelSpec, options: HFSamplerOptions) -> None:
        """Load the model. Its weights are version 0 until the first sync."""
        self.options = options
        self.spec = resolve(model if options.dtype is None else replace(model, dtype=options.dtype))
        self.model = load_model(self.spec, master=False)
        self.tokenizer = load_tokenizer(self.spec)
        self.stop_ids = stop_ids(self.model, self.tokenizer)
        self._completions = Completions(self.tokenizer, self.stop_ids)
        self.version = 0
        embeddings: Any = self.model.get_input_embeddings()
        self._vocabulary: int = embeddings.weight.shape[0]
        self._context = context_length(self.model.config)
        self._batches: list[list[_Part]] = []
        self._criteria: dict[Stop, transformers.StopStringCriteria] = {}

    # --- weights ----------------------------------------------------------------------------------------------------

    def sync(self, snapshot: Snapshot) -> None:
        """Copy the weights, in this model's dtype.

        Raises RunError, with nothing changed, if names or shapes are not those of this model.
        """
        load_snapshot(self.model, snapshot)
        self.version = snapshot.version

    def save(self, directory: Path) -> None:
        """Write the weights held and their version. Outstanding requests are the caller's to submit again."""
        save_weights(directory, self.version, dict(snapshot_of(self.model, self.version).tensors()))

    def load(self, directory: Path) -> None:
        """Read what `save` wrote. Raises RunError if it is missing or belongs to another model."""
        snapshot = load_weights(directory, self.spec.device)
        if snapshot is not None:
            self.sync(snapshot)

    def close(self) -> None:
        """Release the model and forget outstanding requests."""
        self._batches.clear()
        vars(self).pop("model", None)
        if self.spec.device.startswith("cuda"):
            torch.cuda.empty_cache()

    # --- sampling ---------------------------------------------------------------------------------------------------

    def submit(self, requests: Sequence[GroupRequest]) -> None:
        """Queue the requests; `collect` does the work.

        Raises ConfigError for parameters that are not implemented, and RequestError for a prompt that does not fit the
        model. Nothing is queued then.
        """
        for request in requests:
            self._check(request)
        self._batches.extend(_batches([_Outstanding(request) for request in requests], self.options))

    def cancel(self, ids: Collection[str]) -> None:
        """Take the requests with these ids out of the batches that are still to be decoded."""
        kept = ([part for part in batch if part.of.request.group_id not in ids] for batch in self._batches)
        self._batches = [batch for batch in kept if batch]

    def collect(self, timeout: float | None = None) -> list[SampledGroup]:
        """Decode batches until at least one group is complete, and return those that are.

        With `timeout` no further batch is begun after that many seconds; one is decoded in any case.
        """
        finished: list[SampledGroup] = []
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        tried = False
        while self._batches and not finished and not (tried and time.monotonic() >= deadline):
            tried = True
            touched = self._decode(self._batches[0])
            finished = [self._answer(o) for o in touched if len(o.samples) == o.request.size]
            del self._batches[0]  # not earlier: an interrupted batch is decoded again, with the same result
        return finished

    def _decode(self, parts: list[_Part]) -> list[_Outstanding]:
        start = time.perf_counter()
        first = parts[0].of.request  # all of a batch have its parameters, stops and K
        rows = [(row, part.of, index) for row, part in enumerate(parts) for index in part.indices]
        completions = decode(
            self.model,
            prompts=[part.of.request.prompt_ids for part in parts],
            rows=[row for row, _, _ in rows],
            seeds=[sample_seed(outstanding.request, index) for _, outstanding, index in rows],
            params=first.params,
            stop_ids=self._completions.stop_ids(first.stop),
            ends=self._ends(first.stop),
            keep_topk=first.keep_topk,
        )
        for (_, outstanding, index), completion in zip(rows, completions, strict=True):
            outstanding.samples[index] = self._sample(completion, outstanding.request)
        seconds = time.perf_counter() - start
        for part in parts:
            part.of.seconds += seconds * len(part.indices) / len(rows)
        return [part.of for part in parts]

    def _ends(self, stop: Stop) -> Callable[[Tensor], Tensor] | None:
        """Return a function of (B, t) token ids that is True where a text has just come to one of the stop strings."""
        if not stop.strings:
            return None
        if stop not in self._criteria:
            self._criteria[stop] = transformers.StopStringCriteria(self.tokenizer, list(stop.strings))
        criteria = self._criteria[stop]
        return lambda token_ids_BT: criteria(token_ids_BT, None)

    def _sample(self, completion: Completion, request: GroupRequest) -> Sample:
        token_ids, logprobs, stopped, top = completion
        versions = (VersionRun(version=self.version, count=len(token_ids)),)
        reason: FinishReason = "stop" if stopped else "length"
        return self._completions.sample(request, token_ids, logprobs, reason, versions, top)

    def _answer(self, outstanding: _Outstanding) -> SampledGroup:
        request = outstanding.request
        return SampledGroup(
            request=request,
            samples=tuple(outstanding.samples[index] for index in range(request.size)),
            sampling=self._completions.sampling(request, "transformers", transformers.__version__, self.spec.dtype),
            seconds=outstanding.seconds,
        )

    def _check(self, request: GroupRequest) -> None:
        penalties = [name for name in request.params.filters if name.endswith("_penalty")]
        if penalties:
            raise ConfigError(f"sampling.{penalties[0]}: the sampler 'hf' has no penalties; leave it out")
        check_request(request, self._vocabulary, self._context)


def _batches(requests: Sequence[_Outstanding], options: HFSamplerOptions) -> Iterator[list[_Part]]:
    """Yield batches of equal parameters and similar prompt lengths, within the options' limits.

    They depend on the requests and their order alone. A group is split only if it exceeds a batch by itself.
    """
    by_params: dict[tuple[SamplingParams, Stop, int], list[_Outstanding]] = {}
    for outstanding in requests:
        request = outstanding.request
        by_params.setdefault((request.params, request.stop, request.keep_topk), []).append(outstanding)
    for (params, _, _), alike in by_params.items():
        batch: list[_Part] = []
        rows = 0
        # Longest first, so that the first of a batch determines the room of each row.
        for outstanding in sorted(alike, key=lambda o: -len(o.request.prompt_ids)):
            size, start = outstanding.request.size, 0
            while start < size:
                if not batch:
                    room = options.max_batch_tokens // (len(outstanding.request.prompt_ids) + params.max_tokens)
                    room = max(1, min(room, options.max_sequences))
                take = min(size - start, room)
                if rows + take > room:
                    yield batch
                    batch, rows = [], 0
                    continue
                batch.append(_Part(outstanding, range(start, start + take)))
                rows += take
                start += take
        if batch:
            yield batch
