"""What keeps a saved record from being trained on: reasons that can be counted, since thousands of records share each.

Pure: a record and what the model expects go in, words come out. Which reason is mended, and how, is the caller's to
say (`rlvr diagnose`, `rlvr train --rollouts`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rlvr.schema import Rollout

NO_LOGPROBS = "no behaviour log-probabilities"
"""The one reason that a named behaviour model mends."""
NO_TOKENS = "no token ids"
NO_MASK = "no loss mask"
NO_GROUP = "no group"


@dataclass(frozen=True)
class _Expected:
    """What a record is held against; None is not checked."""

    tokenizer_hash: str | None
    temperature: float | None
    vocabulary: int | None
    verifier: str | None


def _tokens(rollout: Rollout, expected: _Expected) -> str | None:
    if not rollout.token_ids:
        return NO_TOKENS
    if expected.vocabulary is not None and max(rollout.token_ids) >= expected.vocabulary:
        return f"token ids beyond the vocabulary of {expected.vocabulary:,}"
    return None


def _mask(rollout: Rollout, _: _Expected) -> str | None:
    if rollout.loss_mask is None:
        return NO_MASK
    if not any(rollout.loss_mask):
        return "the loss mask marks no sampled token"
    return "the loss mask marks the first token, which nothing predicts" if rollout.loss_mask[0] else None


def _tokenizer(rollout: Rollout, expected: _Expected) -> str | None:
    if expected.tokenizer_hash is None:
        return None
    found = rollout.model.tokenizer_hash if rollout.model is not None else None
    if found is None:
        return "unknown tokenizer"
    return None if found == expected.tokenizer_hash else f"another tokenizer ({found})"


def _logprobs(rollout: Rollout, _: _Expected) -> str | None:
    return NO_LOGPROBS if rollout.behaviour_logprobs is None else None


def _temperature(rollout: Rollout, expected: _Expected) -> str | None:
    if rollout.sampling is None:
        return "unknown sampling parameters"
    if expected.temperature is not None and rollout.sampling.temperature != expected.temperature:
        return f"sampled at temperature {rollout.sampling.temperature:g}, not {expected.temperature:g}"
    return "sampled greedily: temperature 0 has no log-probabilities" if rollout.sampling.temperature == 0 else None


def _filters(rollout: Rollout, _: _Expected) -> str | None:
    names = rollout.sampling.filters if rollout.sampling is not None else []
    return f"sampled with {', '.join(names)}" if names else None


def _mode(rollout: Rollout, _: _Expected) -> str | None:
    """At temperature 1 and without filters the two modes are one."""
    sampling = rollout.sampling
    if sampling is None or rollout.behaviour_logprobs is None or sampling.temperature == 1.0:
        return None
    if sampling.logprob_mode == "processed":
        return None
    mode = sampling.logprob_mode or "of unknown mode"
    return f"log-probabilities are {mode}, not at temperature {sampling.temperature:g}"


def _group(rollout: Rollout, _: _Expected) -> str | None:
    return NO_GROUP if rollout.group_id is None else None


def _score(rollout: Rollout, expected: _Expected) -> str | None:
    if rollout.last_score(expected.verifier) is not None:
        return None
    return "no score" if expected.verifier is None else f"no score by {expected.verifier}"


CHECKS: tuple[Callable[[Rollout, _Expected], str | None], ...] = (
    _tokens,
    _mask,
    _tokenizer,
    _logprobs,
    _temperature,
    _filters,
    _mode,
    _group,
    _score,
)


def faults(
    rollout: Rollout,
    *,
    tokenizer_hash: str | None,
    temperature: float | None,
    vocabulary: int | None,
    verifier: str | None,
) -> tuple[str, ...]:
    """Every reason, in the order of `CHECKS`, why the record cannot be trained on as it is; empty when it can.

    Args:
        rollout: A valid record.
        tokenizer_hash: Of the model that learns (`rlvr.models.tokenizer_hash`); None skips the check.
        temperature: At which every log-probability is taken; None takes each record's own.
        vocabulary: Rows of the model's embedding, which no token id may reach; None skips the check.
        verifier: Whose score is the reward; None is the last score, whoever gave it.
    """
    expected = _Expected(tokenizer_hash, temperature, vocabulary, verifier)
    return tuple(reason for check in CHECKS if (reason := check(rollout, expected)) is not None)
