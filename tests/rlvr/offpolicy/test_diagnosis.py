"""Diagnosis: the sample of records, its distances, and the recommended recipe."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from rlvr.offpolicy.diagnosis import ADVICE, DrawnRecord, Evidence, PartDistances, RecordSample, measure, recommend
from rlvr.offpolicy.eligibility import ANOTHER_PROMPT, NO_LOGPROBS, TWICE
from rlvr.offpolicy.lineage import Lineage
from rlvr.record.schema import ModelRef, Rollout, Sampling, Score, Status, VersionRun

EXPECTED: dict[str, Any] = {"tokenizer_hash": "abc", "temperature": 1.0, "vocabulary": 9, "verifier": "math"}


def record(group: str, index: int, *, reward: float | None = 0.0, version: int | None = 0, **changes: Any) -> Rollout:
    """Return a record with two sampled tokens whose log α are -1 and -2."""
    status = Status.ERROR if reward is None else Status.GRADED
    fields: dict[str, Any] = {
        "run_id": "run",
        "id": f"{group}-{index}",
        "group_id": group,
        "prompt": "1+1=",
        "token_ids": (3, 4, 5),
        "loss_mask": (False, True, True),
        "behaviour_logprobs": (None, -1.0, -2.0),
        "policy_versions": None if version is None else (VersionRun(version=version, count=2),),
        "sampling": Sampling(temperature=1.0, logprob_mode="processed"),
        "model": ModelRef(tokenizer_hash="abc", weights_hash="base"),
        "finish_reason": "stop",
        "scores": (Score(status=status, reward=reward, verifier="math", version="1"),),
    }
    return Rollout(**{**fields, **changes})


# --- the sample -------------------------------------------------------------------------------------------------------


def sampled(limit: int, groups: int = 40, size: int = 4) -> RecordSample:
    sample = RecordSample(limit, **EXPECTED)
    for index in range(size):  # a group's members need not be consecutive
        for group in range(groups):
            sample.add("a.jsonl" if group < groups // 2 else "b.jsonl", record(f"g{group}", index))
    return sample


@pytest.mark.parametrize(("limit", "kept"), [(1, 4), (4, 4), (5, 8), (61, 64), (160, 160), (10_000, 160)])
def test_whole_groups_about_as_many_as_the_limit_says(limit: int, kept: int) -> None:
    sample = sampled(limit)
    assert (sample.records, sample.usable, sample.kept) == (160, 160, kept)
    assert sum(map(len, sample.groups)) == kept
    for group in sample.groups:
        assert [each.rollout.index for each in group] == [None] * 4
        assert {each.rollout.id[-1] for each in group} == set("0123")
        assert len({each.rollout.group_id for each in group}) == 1


def test_every_file_is_drawn_from_and_again_the_same() -> None:
    first = sampled(64)
    assert {group[0].source for group in first.groups} == {"a.jsonl", "b.jsonl"}
    assert [g[0].rollout.group_id for g in first.groups] == [g[0].rollout.group_id for g in sampled(64).groups]


def test_what_several_records_have_to_do_with_each_other_is_what_training_asks() -> None:
    sample = RecordSample(8, **EXPECTED)
    sample.add("runs", record("g", 0), "runs/a.parquet")
    sample.add("runs", record("g", 0), "runs/b.parquet")
    sample.add("runs", record("g", 1, prompt="2+2="), "runs/b.parquet")
    sample.add("runs", record("g", 2), "runs/b.parquet")
    assert (sample.records, sample.usable) == (4, 2)
    assert sample.reasons == {TWICE: 1, ANOTHER_PROMPT: 1}
    # Equal ids in two files are different records if no run is named.
    sample = RecordSample(8, **EXPECTED)
    for file in ("runs/a.parquet", "runs/b.parquet"):
        sample.add("runs", record("g", 0, run_id=None, prompt=file), file)
    assert (sample.usable, dict(sample.reasons)) == (2, {})


def test_what_is_not_usable_is_counted_by_reason() -> None:
    sample = RecordSample(8, **EXPECTED)
    sample.add("a", record("g", 0))
    sample.add("a", record("g", 1, behaviour_logprobs=None))
    sample.add("a", record("g", 2, behaviour_logprobs=None, group_id=None))
    sample.add("a", record("g", 3, reward=None))
    assert (sample.records, sample.usable, sample.only_logprobs) == (4, 1, 1)
    assert sample.reasons == {NO_LOGPROBS: 2, "no group": 1, "a verdict without a reward (error)": 1}


# --- measuring --------------------------------------------------------------------------------------------------------


def measured(groups: list[list[DrawnRecord]], shifts: list[float], lineage: Lineage) -> dict[str, PartDistances]:
    """Return distances; `shifts` are log w of every token of each record."""
    own = [(None, -1.0 + shift, -2.0 + shift) for shift in shifts]
    return {line.part: line for line in measure(groups, own, lineage, "math")}


def test_by_lag_within_the_model_s_run() -> None:
    groups = [
        [DrawnRecord("f", record("a", 0, reward=1.0, version=10)), DrawnRecord("f", record("a", 1, version=10))],
        [
            DrawnRecord("f", record("b", 0, version=5)),
            DrawnRecord("f", record("b", 1, version=5, finish_reason="length")),
        ],
        [DrawnRecord("f", record("c", 0, version=12)), DrawnRecord("f", record("c", 1, version=None))],
    ]
    shifts = [0.0, 0.0, 0.5, -0.5, 0.1, 0.2]
    lines = measured(groups, shifts, Lineage("run", 10, "other"))
    assert list(lines) == ["all", "lag 0", "lag 4-7", "newer than the model", "lag unknown"]
    assert [line.rollouts for line in lines.values()] == [6, 2, 2, 1, 1]
    assert [line.tokens for line in lines.values()] == [12, 4, 4, 2, 2]
    assert [line.signal for line in lines.values()] == [1 / 3, 1.0, 0.0, None, 0.0]
    assert [line.truncated for line in lines.values()] == [1 / 6, 0.0, 0.5, 0.0, 0.0]
    stale = lines["lag 4-7"]
    w = [math.exp(0.5), math.exp(-0.5)]
    assert stale.ess_token == pytest.approx(sum(w) ** 2 / 2 / sum(x * x for x in w))
    assert stale.ess_sequence == pytest.approx(sum(x**2 for x in w) ** 2 / 2 / sum(x**4 for x in w))
    assert stale.log_w_mean == pytest.approx(0.0)
    assert stale.log_w_square == pytest.approx(0.25)
    assert stale.gap == pytest.approx(0.5)
    assert stale.ratio_max == pytest.approx(w[0])
    assert stale.chi2 == pytest.approx(sum(x * x for x in w) / 2 - 1)
    assert lines["lag 0"].gap == 0


def test_a_run_that_began_with_the_model_counts_from_it() -> None:
    groups = [[DrawnRecord("f", record("a", 0, version=0)), DrawnRecord("f", record("a", 1, version=3))]]
    assert list(measured(groups, [0.0, 0.0], Lineage(weights_hash="base"))) == ["all", "lag 0", "newer than the model"]


def test_across_lineages_there_are_files_and_versions_and_no_lag() -> None:
    strangers = [DrawnRecord("x", record(f"g{v}", 0, version=v)) for v in range(12)]
    strangers += [DrawnRecord("y", record("h", 0, version=7)), DrawnRecord("z", record("i", 0, version=None))]
    lines = measured([[each] for each in strangers], [0.0] * 14, Lineage("elsewhere", 3, "other"))
    assert list(lines) == [
        "all",
        *(f"x, version {v} to {v + 1}" for v in range(0, 12, 2)),
        "y, version 7",
        "z, no version",
    ]
    # After a rollback, versions repeat: another branch is another lineage.
    branched = [[DrawnRecord("x", record("g", 0, version=3, branch=1))]]
    assert list(measured(branched, [0.0], Lineage("run", 3, "other"))) == ["all", "x, version 3"]


def test_an_unknown_end_is_no_truncation() -> None:
    groups = [[DrawnRecord("f", record("a", 0, finish_reason=None))]]
    assert measured(groups, [0.0], Lineage())["all"].truncated is None


# --- the decision table -----------------------------------------------------------------------------------------------


def line(**numbers: Any) -> PartDistances:
    nothing = {field.name: None for field in fields(PartDistances)}
    return PartDistances(**{**nothing, "part": "all", "rollouts": 4, "tokens": 9, "signal": 0.5, **numbers})


USABLE = Evidence(100, 90, 5, line(ess_token=1.0), None)

DECISIONS = [
    (Evidence(10, 0, 3, None, None), "recompute", None),
    (Evidence(10, 0, 0, None, None), "nothing usable", None),
    (replace(USABLE, all=line(ess_token=1.0, signal=0.0)), "no signal", None),
    (replace(USABLE, fresh=line(gap=0.021)), "mismatch", "paper-v1-i1"),
    (replace(USABLE, fresh=line(gap=0.019)), "near", "paper-v1-i1"),
    (replace(USABLE, all=line(ess_token=0.99)), "near", "paper-v1-i1"),
    (replace(USABLE, all=line(ess_token=0.98)), "moderate", "paper-v10-i1"),
    (replace(USABLE, all=line(ess_token=0.9)), "moderate", "paper-v10-i1"),
    (replace(USABLE, all=line(ess_token=0.89)), "stale", "decoupled-ppo"),
    (replace(USABLE, all=line(ess_token=0.5)), "stale", "decoupled-ppo"),
    (replace(USABLE, all=line(ess_token=0.49)), "far", "m2po"),
    (replace(USABLE, all=line(ess_token=0.1)), "far", "m2po"),
    (replace(USABLE, all=line(ess_token=0.09)), "another policy", "topr"),
    (replace(USABLE, all=line(ess_token=0.09, signal=None)), "another policy", "topr"),
]


@pytest.mark.parametrize(("evidence", "name", "recipe"), DECISIONS, ids=[name for _, name, _ in DECISIONS])
def test_the_first_row_that_holds_decides(evidence: Evidence, name: str, recipe: str | None) -> None:
    advice = recommend(evidence)
    assert (advice.name, advice.recipe) == (name, recipe)


def test_the_document_has_the_table() -> None:
    text = (Path(__file__).parents[3] / "docs" / "instruments.md").read_text(encoding="utf-8").replace("\\|", "¦")
    for advice in ADVICE:
        recipe = ", ".join(f"`{each}`" for each in (advice.recipe, *advice.settings) if each) or "–"
        assert f"| {advice.name} | {advice.condition.replace('|', '¦')} | {recipe} |" in text


def test_every_row_of_the_table_can_be_reached() -> None:
    assert [advice.name for advice in ADVICE] == list(dict.fromkeys(name for _, name, _ in DECISIONS))
