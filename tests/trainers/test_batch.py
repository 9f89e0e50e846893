"""Records as tensors: columns, refusals, micro-batches."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr.errors import RunError
from rlvr.protocols import Group, RewardPart
from rlvr.record.schema import GroupStats, Sampling, VersionRun
from rlvr_trainers.batch import UNKNOWN, check_trainable, collate, micro_batches, token_columns
from rlvr_trainers.loss.advantage import whiten, whiten_parts

WHITEN = partial(whiten, advantage_epsilon=0.0)


def test_columns_are_aligned_with_the_token_ids(oracle: ModuleType) -> None:
    """Ragged rows; a mask with a hole (a tool's answer between two turns); two version runs across the hole."""
    holed = oracle.make_rollout(
        "holed",
        [5],
        [6, 7, 8, 9],
        [],
        loss_mask=(False, True, False, True, True),
        behaviour_logprobs=(None, -0.5, None, -1.0, -0.0),
        policy_versions=(VersionRun(version=2, count=2), VersionRun(version=7, count=1)),
    )
    short = oracle.make_rollout("short", [3, 4], [5], [-2.0])
    batch = collate([oracle.make_group([holed, short], [1.0, 0.0])], advantage=WHITEN, temperature=oracle.TEMPERATURE)
    assert batch.token_ids_BT.tolist() == [[5, 6, 7, 8, 9], [3, 4, 5, 0, 0]]
    assert batch.mask_BT.int().tolist() == [[0, 1, 0, 1, 1], [0, 0, 1, 0, 0]]
    assert batch.behaviour_logprobs_BT.tolist() == [[0, -0.5, 0, -1.0, 0], [0, 0, -2.0, 0, 0]]
    none = UNKNOWN
    assert batch.versions_BT.tolist() == [[none, 2, none, 2, 7], [none, none, 0, none, none]]
    assert batch.lengths_B.tolist() == [5, 3]
    assert batch.advantages_B.tolist() == [1.0, -1.0]
    assert batch.signal_B.tolist() == [True, True]


def test_segments_of_a_rollout_have_its_number(oracle: ModuleType) -> None:
    def member(name: str, segment: int) -> Any:
        return oracle.make_rollout(name, [3], [5], [-2.0], segment=segment)

    first = oracle.make_group([member("a", 0), member("b", 0), member("a", 1)], [1.0, 0.0, 1.0])
    second = oracle.make_group([member("a", 0)], [1.0])
    batch = collate([first, second], advantage=WHITEN, temperature=oracle.TEMPERATURE)
    assert batch.rollout_B.tolist() == [0, 1, 0, 2]


def test_parts_give_advantages_and_a_signal_that_their_sums_do_not_have(oracle: ModuleType) -> None:
    members = [oracle.make_rollout(name, [3], [5], [-2.0]) for name in "ab"]
    group = oracle.make_group(members, [1.0, 1.0])
    parts = (RewardPart("answer", 1.0, (1.0, 0.0)), RewardPart("form", 0.5, (0.0, 2.0)))
    given: Any = {"advantage": WHITEN, "temperature": oracle.TEMPERATURE}
    by_part = partial(whiten_parts, advantage_epsilon=0.0)
    batch = collate([replace(group, parts=parts)], by_part=by_part, **given)
    assert (batch.advantages_B.tolist(), batch.signal_B.tolist()) == ([0.5, -0.5], [True, True])
    assert collate([group], **given).signal_B.tolist() == [False, False]
    with pytest.raises(RunError, match=r"no weighted sums of parts, which trainer\.normalize_parts needs"):
        collate([group], by_part=by_part, **given)


def test_rows_are_cut_to_the_longest_of_them(oracle: ModuleType) -> None:
    rollouts = [oracle.make_rollout(str(n), [2], [3] * n, [-1.0] * n) for n in (4, 1, 2)]
    part = token_columns(rollouts).rows(torch.tensor([1, 2]))
    assert part.token_ids_BT.tolist() == [[2, 3, 0], [2, 3, 3]]
    assert part.lengths_B.tolist() == [2, 3]
    assert part.reference_logprobs_BT is None


def test_statistics_come_from_the_group_not_from_its_rewards(oracle: ModuleType) -> None:
    rollout = oracle.make_rollout("a", [2], [3], [-1.0])
    group = Group((rollout,), (1.0,), GroupStats(mean=0.25, std=0.5, count=4))
    batch = collate([group], advantage=WHITEN, temperature=oracle.TEMPERATURE)
    assert batch.advantages_B.tolist() == [1.5]


PROCESSED: dict[str, Any] = {"temperature": 0.7, "logprob_mode": "processed"}
UNKNOWN_LOGPROBS: dict[str, Any] = {"behaviour_logprobs": None}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (UNKNOWN_LOGPROBS, r"rollout a: no behaviour_logprobs; it cannot be trained on"),
        (UNKNOWN_LOGPROBS | {"policy_versions": None, "loss_mask": None}, "no loss_mask, behaviour_logprobs;"),
        ({"sampling": None}, "rollout a: no sampling"),
        (
            {"sampling": Sampling(top_p=0.8, top_k=20, **PROCESSED)},
            "rollout a was sampled with top_p, top_k and without the kept support .* or without filters",
        ),
        ({"sampling": Sampling(repetition_penalty=1.1, **PROCESSED)}, "sampled with repetition_penalty"),
        (
            {"sampling": Sampling(temperature=1.0, logprob_mode="processed")},
            r"at temperature 1\.0, training is at 0\.7",
        ),
        ({"sampling": Sampling(temperature=0.7, logprob_mode="raw")}, "logprob_mode is raw, expected 'processed'"),
        ({"sampling": Sampling(temperature=0.7)}, "logprob_mode is null, expected 'processed'"),
        (
            {"loss_mask": (False, False), "behaviour_logprobs": (None, None), "policy_versions": ()},
            "rollout a: loss_mask marks no sampled token",
        ),
        (
            {
                "loss_mask": (True, True),
                "behaviour_logprobs": (-1.0, -1.0),
                "policy_versions": (VersionRun(version=0, count=2),),
            },
            "rollout a: loss_mask marks the first token",
        ),
    ],
)
def test_what_cannot_be_trained_on_is_refused(changes: dict[str, Any], message: str, oracle: ModuleType) -> None:
    bad = oracle.make_rollout("a", [2], [3], [-1.0], **changes)
    good = oracle.make_rollout("b", [2], [3], [-1.0])
    with pytest.raises(RunError, match=message):
        collate([oracle.make_group([good, bad], [0.0, 1.0])], advantage=WHITEN, temperature=0.7)


@pytest.mark.parametrize("mode", [None, "raw", "processed"])
def test_at_temperature_one_the_unscaled_logits_are_the_scaled_ones(mode: Any, oracle: ModuleType) -> None:
    check_trainable(
        oracle.make_rollout("a", [2], [3], [-1.0], sampling=Sampling(temperature=1.0, logprob_mode=mode)), 1.0
    )


@settings(deadline=None)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=40), st.integers(1, 200))
def test_micro_batches_hold_every_row_once_and_stay_within_bounds(lengths: list[int], max_tokens: int) -> None:
    parts = [part.tolist() for part in micro_batches(torch.tensor(lengths), max_tokens)]
    assert sorted(row for part in parts for row in part) == list(range(len(lengths)))
    for part in parts:
        assert len(part) == 1 or len(part) * max(lengths[row] for row in part) <= max_tokens


@settings(deadline=None)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=40), st.integers(1, 400))
def test_little_padding_is_computed_once_a_part_is_large_enough(lengths: list[int], max_tokens: int) -> None:
    lengths_B = torch.tensor(lengths)
    parts = list(micro_batches(lengths_B, max_tokens))
    for part in parts:
        rows = lengths_B[part].tolist()
        for n, length in enumerate(rows):
            assert length >= 0.8 * rows[0] or (n - 1) * rows[0] < max_tokens / 8 or n == 0
    assert len(parts) >= len(list(micro_batches(lengths_B, max_tokens, padded=False)))
