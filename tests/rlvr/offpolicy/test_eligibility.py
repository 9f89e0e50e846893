"""Reasons why a saved record cannot be trained on."""

from __future__ import annotations

from typing import Any

import pytest

from rlvr.offpolicy.eligibility import (
    ANOTHER_MODEL,
    ANOTHER_PROMPT,
    ANOTHER_VERSION,
    NO_GROUP,
    NO_LOGPROBS,
    NO_MASK,
    NO_REWARD,
    NO_TOKENS,
    TWICE,
    faults,
    remedy,
)
from rlvr.record.schema import ModelRef, Rollout, Sampling, Score, Status, VersionRun

GOOD: dict[str, Any] = {
    "id": "a",
    "group_id": "g",
    "prompt": "1+1=",
    "token_ids": (3, 4, 5),
    "loss_mask": (False, True, True),
    "behaviour_logprobs": (None, -0.5, -0.25),
    "policy_versions": (VersionRun(version=0, count=2),),
    "sampling": Sampling(temperature=0.7, logprob_mode="processed"),
    "model": ModelRef(tokenizer_hash="abc"),
    "scores": (Score(status=Status.GRADED, reward=1.0, verifier="math", version="1"),),
}
EXPECTED: dict[str, Any] = {"tokenizer_hash": "abc", "temperature": 0.7, "vocabulary": 6, "verifier": "math"}


def reasons(expected: dict[str, Any] | None = None, **changes: Any) -> tuple[str, ...]:
    return faults(Rollout(**{**GOOD, **changes}), **{**EXPECTED, **(expected or {})})


def test_a_whole_record_is_usable() -> None:
    assert reasons() == ()
    assert reasons(policy_versions=None) == ()  # its lag is unknown, its log-probabilities are not
    assert reasons(dict.fromkeys(EXPECTED)) == ()


CASES: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({}, {"loss_mask": None, "behaviour_logprobs": None, "policy_versions": None}, NO_MASK),
    (
        {},
        {"loss_mask": (False,) * 3, "behaviour_logprobs": (None,) * 3, "policy_versions": ()},
        "the loss mask marks no sampled token",
    ),
    (
        {},
        {"loss_mask": (True,) * 3, "behaviour_logprobs": (-1.0,) * 3, "policy_versions": None},
        "the loss mask marks the first token, which nothing predicts",
    ),
    ({"vocabulary": 5}, {}, "token ids beyond the vocabulary of 5"),
    ({"positions": 2}, {}, "more tokens than the model's 2 positions"),
    ({"tokenizer_hash": "xyz"}, {}, "another tokenizer (abc)"),
    ({}, {"model": None}, "unknown tokenizer"),
    ({}, {"model": ModelRef(name="m")}, "unknown tokenizer"),
    ({}, {"behaviour_logprobs": None}, NO_LOGPROBS),
    ({}, {"sampling": None}, "unknown sampling parameters"),
    ({"temperature": 1.0}, {}, "sampled at temperature 0.7, not 1"),
    (
        {"temperature": None},
        {"sampling": Sampling(temperature=0.0, logprob_mode="processed")},
        "sampled greedily: temperature 0 has no log-probabilities",
    ),
    (
        {},
        {"sampling": Sampling(temperature=0.7, top_p=0.9, presence_penalty=1.0, logprob_mode="processed")},
        "sampled with top_p, presence_penalty",
    ),
    (
        {},
        {"sampling": Sampling(temperature=0.7, logprob_mode="raw")},
        "log-probabilities are raw, not at temperature 0.7",
    ),
    (
        {},
        {"sampling": Sampling(temperature=0.7)},
        "log-probabilities are of unknown mode, not at temperature 0.7",
    ),
    ({}, {"finish_reason": "abort"}, "sampling was broken off (abort)"),
    ({}, {"finish_reason": "error"}, "sampling was broken off (error)"),
    ({}, {"group_id": None}, NO_GROUP),
    ({}, {"scores": ()}, "no score by math"),
    ({"verifier": "other"}, {}, "no score by other"),
    ({"verifier": None}, {"scores": ()}, "no score"),
]


@pytest.mark.parametrize(("expected", "changes", "reason"), CASES, ids=[reason for *_, reason in CASES])
def test_one_fault_is_one_reason(expected: dict[str, Any], changes: dict[str, Any], reason: str) -> None:
    found = reasons(expected, **changes)
    assert reason in found
    assert len(found) == (2 if reason == NO_MASK else 1)  # without a mask there are no log-probabilities either
    assert remedy(reason)


@pytest.mark.parametrize("reason", [ANOTHER_MODEL, ANOTHER_PROMPT, ANOTHER_VERSION, TWICE, f"{NO_REWARD} (error)"])
def test_a_reason_that_only_a_whole_file_or_a_run_has_is_mended_as_well(reason: str) -> None:
    assert remedy(reason)


def test_greedy_samples_are_not_sent_to_a_temperature_that_no_run_has() -> None:
    (reason,) = reasons({"temperature": 1.0}, sampling=Sampling(temperature=0.0, logprob_mode="processed"))
    assert "sampling.temperature" not in remedy(reason)


def test_text_alone_lacks_everything() -> None:
    bare = Rollout(id="a", prompt="1+1=", completion="2")
    found = faults(bare, **EXPECTED)
    assert found == (
        NO_TOKENS,
        NO_MASK,
        "unknown tokenizer",
        NO_LOGPROBS,
        "unknown sampling parameters",
        NO_GROUP,
        "no score by math",
    )


def test_raw_log_probabilities_at_temperature_one_are_the_processed_ones() -> None:
    assert reasons({"temperature": 1.0}, sampling=Sampling(temperature=1.0, logprob_mode="raw")) == ()
