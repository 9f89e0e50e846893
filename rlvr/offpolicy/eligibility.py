"""Eligibility of saved records for training: reasons against it, and remedies.

`faults` compares a record with what the model expects; `SeenRollouts` compares records with each other. A reason is a
short text, so that records can be counted by it. `rlvr diagnose` and `rlvr train --rollouts` report the same reasons.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from rlvr.offpolicy.support import lacking_support
from rlvr.record.schema import Rollout

NO_LOGPROBS = "no behavior log-probabilities"
"""The only reason that a behavior model removes."""
NO_TOKENS = "no token ids"
NO_MASK = "no loss mask"
NO_GROUP = "no group"
ANOTHER_MODEL = "another model sampled it"
ANOTHER_VERSION = "another policy version"
ANOTHER_PROMPT = "another prompt than the rest of its group"
TWICE = "a duplicate rollout"
NO_REWARD = "a verdict without a reward"

REMEDIES: tuple[tuple[str, str], ...] = (
    (NO_LOGPROBS, "name the model that sampled them with --behaviour-model"),
    (NO_GROUP, "give the rollouts of one prompt a common group_id; rlvr does not group by prompt"),
    (NO_TOKENS, "record the token ids when sampling; rlvr never tokenizes text again"),
    (NO_MASK, "add a loss_mask: true for each sampled token"),
    ("the loss mask marks", "correct loss_mask: true for each sampled token, false for those of the prompt"),
    ("no score", "rlvr score FILE --verifier NAME --out SCORED, then train on SCORED"),
    ("sampled greedily", "sample again at a temperature above 0; greedy samples cannot be trained on"),
    (
        "sampled at temperature",
        "train at the sampling temperature: --set sampling.temperature=T; records of two temperatures need two runs",
    ),
    (
        "sampled with",
        "sample again with sampling.top_k, which records the kept support, or without filters; penalties are not "
        "supported",
    ),
    ("sampling was broken off", "sample them again: the completion is incomplete"),
    ("unknown sampling", "add the temperature and the filters to the record's `sampling`"),
    (
        "log-probabilities are",
        "sample again with logprob_mode: processed (after the division by the temperature), or remove "
        "behaviour_logprobs and name the model that sampled them with --behaviour-model",
    ),
    (
        "unknown tokenizer",
        "add the tokenizer_hash of the sampling tokenizer to the record's `model` (rlvr.models.tokenizer_hash)",
    ),
    ("another tokenizer", "train a model with the tokenizer that sampled them"),
    ("token ids beyond", "train a model with the vocabulary of these token ids"),
    ("more tokens than", "leave longer rollouts out, or train a model with more positions"),
    (ANOTHER_MODEL, "name the model that sampled them with --behaviour-model"),
    (
        ANOTHER_VERSION,
        "name the checkpoint of the version that sampled them with --behaviour-model, and leave out records of other "
        "versions",
    ),
    (ANOTHER_PROMPT, "correct group_id: it must be the same for all rollouts of a prompt, and for no others"),
    (TWICE, "leave out one of the files that hold the same rollouts"),
    (NO_REWARD, "set its reward with verifier.rewards"),
)
"""Start of a reason → its remedy."""


def remedy(reason: str) -> str:
    """Return the remedy for a reason. A reason without an entry comes from a trainer (`lacks` of its options)."""
    advice = (advice for start, advice in REMEDIES if reason.startswith(start))
    return next(advice, "add it to the records, or do not use the setting")


@dataclass(frozen=True)
class _Expected:
    """Expected values of a record; None is not checked."""

    tokenizer_hash: str | None
    temperature: float | None
    vocabulary: int | None
    verifier: str | None
    positions: int | None


def _tokens(rollout: Rollout, expected: _Expected) -> str | None:
    if rollout.token_ids is None or not len(rollout.token_ids):
        return NO_TOKENS
    if expected.vocabulary is not None and rollout.token_ids.max() >= expected.vocabulary:
        return f"token ids beyond the vocabulary of {expected.vocabulary:,}"
    if expected.positions is not None and len(rollout.token_ids) > expected.positions:
        return f"more tokens than the model's {expected.positions:,} positions"
    return None


def _mask(rollout: Rollout, _: _Expected) -> str | None:
    if rollout.loss_mask is None:
        return NO_MASK
    if not rollout.sampled_tokens:
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
    if rollout.sampling.temperature == 0:
        return "sampled greedily: temperature 0 has no log-probabilities"
    if expected.temperature is not None and rollout.sampling.temperature != expected.temperature:
        return f"sampled at temperature {rollout.sampling.temperature:g}, not {expected.temperature:g}"
    return None


def _filters(rollout: Rollout, _: _Expected) -> str | None:
    return lacking_support(rollout)


def _mode(rollout: Rollout, _: _Expected) -> str | None:
    """Check the mode. At temperature 1 and without filters the two modes are equal."""
    sampling = rollout.sampling
    if sampling is None or rollout.behaviour_logprobs is None or sampling.temperature == 1.0:
        return None
    if sampling.logprob_mode == "processed":
        return None
    mode = sampling.logprob_mode or "of unknown mode"
    return f"log-probabilities are {mode}, not at temperature {sampling.temperature:g}"


def _ending(rollout: Rollout, _: _Expected) -> str | None:
    broken_off = rollout.finish_reason in ("abort", "error")
    return f"sampling was broken off ({rollout.finish_reason})" if broken_off else None


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
    _ending,
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
    positions: int | None = None,
) -> tuple[str, ...]:
    """Return every reason why the record cannot be trained on as it is, in the order of `CHECKS`; empty if it can.

    Args:
        rollout: A valid record.
        tokenizer_hash: Hash of the model's tokenizer (`rlvr.run.models.tokenizer_hash`); None skips the check.
        temperature: Temperature of every log-probability; None takes each record's own.
        vocabulary: Rows of the model's embedding, above every token id; None skips the check.
        verifier: Verifier whose score is the reward; None takes the last score of any.
        positions: Longest sequence that the model takes (`rlvr.run.models.context_length`); None skips the check.
    """
    expected = _Expected(tokenizer_hash, temperature, vocabulary, verifier, positions)
    return tuple(reason for check in CHECKS if (reason := check(rollout, expected)) is not None)


class SeenRollouts:
    """Records seen so far, to detect duplicates and groups that answer more than one prompt.

    A record's id is unique within its run and branch, or within its file if it names no run.
    """

    def __init__(self) -> None:
        self._places: dict[tuple[object, ...], str] = {}
        self._prompts: dict[tuple[object, ...], bytes] = {}

    def check(
        self, rollout: Rollout, file: str, where: str, own_faults: tuple[str, ...]
    ) -> tuple[tuple[str, ...], str | None]:
        """Return every reason why a record cannot be trained on, and where the same rollout was seen before.

        This is the one decision on eligibility: `rlvr train --rollouts` and `rlvr diagnose` both ask here.

        Args:
            rollout: The next record.
            file: The file that it is from.
            where: The place in the file, for messages.
            own_faults: What is wrong with the record by itself; see `faults`.
        """
        before = self.before(rollout, file, where)
        reasons = own_faults if before is None else (*own_faults, TWICE)
        if not reasons and self.has_another_prompt(rollout, file):
            reasons = (ANOTHER_PROMPT,)
        return reasons, before

    def before(self, rollout: Rollout, file: str, where: str) -> str | None:
        """Return where the same rollout was seen before. If it is new, remember it at `where` and return None."""
        place = self._places.setdefault((*origin(rollout, file), rollout.id, rollout.segment), where)
        return None if place == where else place

    def has_another_prompt(self, rollout: Rollout, file: str) -> bool:
        """Return True if the prompt differs from the first prompt seen for this group."""
        asked = repr((rollout.prompt, rollout.messages)).encode("utf-8", "surrogatepass")
        digest = hashlib.blake2b(asked, digest_size=16).digest()
        return self._prompts.setdefault((*origin(rollout, file), rollout.group_id), digest) != digest


def origin(rollout: Rollout, file: str) -> tuple[object, ...]:
    """Return the scope in which a record's id and group_id are unique: its run and branch, or else its file."""
    return rollout.run_id is None, rollout.run_id or file, rollout.branch
