"""Rules that the samplers share: which prompts fit, where a text ends, and which seed a group has."""

from __future__ import annotations

import math
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase as Tokenizer

from rlvr.draws import draw
from rlvr.errors import RequestError, RunError
from rlvr.protocols import GroupRequest, Sample, TopTokens
from rlvr.record.schema import FinishReason, Sampling, Stop, VersionRun


class Completions:
    """Turns an engine's token ids into samples, with the tokenizer that the trainer has.

    Ids that the model has and the tokenizer lacks (vocabularies are padded to round sizes) decode to nothing.
    """

    def __init__(self, tokenizer: Tokenizer, end_ids: frozenset[int]) -> None:
        """`end_ids`: token ids that end a completion, whatever a request says."""
        self._tokenizer = tokenizer
        self.end_ids = end_ids

    def stop_ids(self, stop: Stop) -> frozenset[int]:
        """Return the ids that end a completion, those of a request included."""
        return self.end_ids.union(stop.token_ids)

    def sample(
        self,
        request: GroupRequest,
        token_ids: Sequence[int],
        logprobs: Sequence[float],
        finish_reason: FinishReason,
        versions: Sequence[VersionRun],
        top: TopTokens | None = None,
    ) -> Sample:
        """Return one sample. Raises RunError if a log-probability is not finite."""
        if not all(map(math.isfinite, logprobs)):
            raise RunError(
                f"weights of version {versions[-1].version} give log-probabilities that are not finite for group "
                f"{request.group_id}: training has diverged, or the sampler's dtype is too narrow for this model"
            )
        text, stop_reason = self._text(token_ids, finish_reason == "stop", request.stop)
        return Sample(
            token_ids=tuple(token_ids),
            logprobs=tuple(logprobs),
            text=text,
            finish_reason=finish_reason,
            stop_reason=stop_reason,
            versions=tuple(versions),
            top=top,
        )

    def sampling(self, request: GroupRequest, engine: str, engine_version: str, dtype: str | None) -> Sampling:
        """Return how a group was sampled, for its records."""
        return Sampling(
            **request.params.model_dump(),
            engine=engine,
            engine_version=engine_version,
            dtype=dtype,
            stop=Stop(strings=request.stop.strings, token_ids=tuple(sorted(self.stop_ids(request.stop)))),
            logprob_mode="raw" if request.params.temperature == 0 else "processed",
        )

    def _text(self, token_ids: Sequence[int], stopped: bool, stop: Stop) -> tuple[str, str | None]:
        """Return the text without what ended it, and what did: a stop token, a stop string, or None."""
        last = self._token_text(token_ids[-1]) if stopped and token_ids[-1] in self.stop_ids(stop) else None
        kept = list(token_ids if last is None else token_ids[:-1])
        # Special tokens stay: harmony's channels and tool calls are special tokens, and a verifier reads them.
        text = str(self._tokenizer.decode(kept, skip_special_tokens=False, clean_up_tokenization_spaces=False))
        if not stopped or last is not None:
            return text, last
        found = [(text.find(string), string) for string in stop.strings if string in text]
        if not found:  # the tokens spell the stop, and the tokenizer's decoder changes it
            return text, None
        place, string = min(found)
        return text[:place], string

    def _token_text(self, token_id: int) -> str:
        token = self._tokenizer.convert_ids_to_tokens([token_id])[0]
        return str(token_id) if token is None else str(token)


def check_request(request: GroupRequest, vocabulary: int, longest: int | None) -> None:
    """Raise RequestError for a group without samples, or a prompt that does not fit the model.

    Args:
        request: A group to sample.
        vocabulary: Number of token ids that the model knows.
        longest: Positions of the model; None if there is no limit.
    """
    where = f"group {request.group_id}"
    if request.size < 1:
        raise RequestError(f"{where}: a group of {request.size} samples was asked for")
    if not request.prompt_ids:
        raise RequestError(f"{where}: the prompt has no tokens; a model without BOS needs some text to go on")
    if not 0 <= min(request.prompt_ids) <= max(request.prompt_ids) < vocabulary:
        raise RequestError(
            f"{where}: the prompt holds a token id outside the model's vocabulary of {vocabulary}; it was made with "
            "another tokenizer"
        )
    needed = len(request.prompt_ids) + request.params.max_tokens
    if longest is not None and needed > longest:
        raise RequestError(
            f"{where}: {len(request.prompt_ids)} tokens of prompt and sampling.max_tokens "
            f"{request.params.max_tokens} exceed the model's {longest} positions; lower max_tokens"
        )


def sample_seed(request: GroupRequest, *place: int) -> int:
    """Return the seed of a group's draws, or of one sample's; the request's key holds the run's seed."""
    own = () if request.params.seed is None else ("seed", request.params.seed)
    return draw("sample", *request.key, *own, *place)
