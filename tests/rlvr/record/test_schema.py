"""Validation of records with its messages, and the round trip of valid ones."""

from __future__ import annotations

import copy
import json
import math
import pickle
import re
import statistics
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from rlvr.record import schema
from rlvr.record.schema import (
    GroupStats,
    Message,
    ModelRef,
    Rollout,
    Sampling,
    SamplingParams,
    Score,
    Status,
    Stop,
    Task,
    Timings,
    Verdict,
    VersionRun,
    canonical_json,
    digest,
    utc_now,
)

TOKENS: dict[str, Any] = {
    "token_ids": (5, 6, 7, 8),
    "loss_mask": (False, False, True, True),
    "behaviour_logprobs": (None, None, -0.5, -1.25),
    "policy_versions": ({"version": 0, "count": 1}, {"version": 3, "count": 1}),
}


def rollout(**changes: Any) -> Rollout:
    return Rollout.model_validate({"id": "r", "prompt": "1+1=", **TOKENS, **changes})


def refused(message: str) -> Any:
    return pytest.raises(ValidationError, match=re.escape(message))


# --- the rules of a rollout -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt": None}, "exactly one of 'prompt' and 'messages' must be given"),
        ({"messages": [{"role": "user", "content": "x"}]}, "exactly one of 'prompt' and 'messages' must be given"),
        ({"index": 4, "group_size": 4}, "index 4 is outside a group of 4"),
        ({"index": -1}, "index\n  Input should be greater than or equal to 0"),
        ({"group_size": 0}, "group_size\n  Input should be greater than or equal to 1"),
        ({"branch": -1}, "branch\n  Input should be greater than or equal to 0"),
        ({"segment": -1}, "segment\n  Input should be greater than or equal to 0"),
        ({"loss_mask": (True,)}, "loss_mask has 1 entries, token_ids has 4"),
        ({"behaviour_logprobs": (None, -1.0)}, "behaviour_logprobs has 2 entries, token_ids has 4"),
        ({"extra_tokens": {"moe.route": (1.0,)}}, "extra_tokens.moe.route has 1 entries, token_ids has 4"),
        (
            {"token_ids": None, "extra_tokens": {"moe.route": (1.0,)}},
            "loss_mask, behaviour_logprobs, extra_tokens.moe.route, policy_versions without token_ids",
        ),
        ({"token_ids": (5, -6, 7, 8)}, "token_ids[1] is -6: expected an id of at least 0"),
        ({"token_ids": (5, 6, "x", 8)}, "token_ids[2] is 'x': expected a whole number"),
        ({"token_ids": (5, 6.5, 7, 8)}, "token_ids[1] is 6.5: expected a whole number"),
        ({"token_ids": (5, [6], 7, 8)}, "token_ids[1] is [6]: expected a whole number"),
        ({"token_ids": (5, None, 7, 8)}, "token_ids[1] is None: expected a whole number"),
        ({"token_ids": (5, 2**64, 7, 8)}, "token_ids[1] is 18446744073709551616: expected a whole number"),
        ({"token_ids": "5678"}, "token_ids is '5678': expected a list with one entry per token"),
        ({"loss_mask": (False, 2, True, True)}, "loss_mask[1] is 2: expected true or false"),
        ({"loss_mask": (False, None, True, True)}, "loss_mask[1] is None: expected true or false"),
        ({"behaviour_logprobs": (None, None, "x", -1)}, "behaviour_logprobs[2] is 'x': expected a number or null"),
        ({"extra_tokens": {"a.b": (1, 2, "x", 4)}}, "extra_tokens.a.b[2] is 'x': expected a number or null"),
        (
            {"extra_tokens": {"a.b": (1, 2, math.inf, 4)}},
            "extra_tokens.a.b[2] is inf: expected a finite",
        ),
        ({"loss_mask": None}, "behaviour_logprobs and policy_versions need a loss_mask"),
        ({"loss_mask": None, "policy_versions": None}, "behaviour_logprobs and policy_versions need a loss_mask"),
        ({"loss_mask": None, "behaviour_logprobs": None}, "behaviour_logprobs and policy_versions need a loss_mask"),
        (
            {"behaviour_logprobs": (-0.5, None, -0.5, -1.0)},
            "behaviour_logprobs[0] is -0.5 where loss_mask is False: expected null",
        ),
        (
            {"behaviour_logprobs": (None, None, None, -1)},
            "behaviour_logprobs[2] is null or NaN: expected a fin",
        ),
        (
            {"behaviour_logprobs": (None, None, -1, 0.5)},
            "behaviour_logprobs[3] is 0.5: expected a finite number, at mo",
        ),
        (
            {"behaviour_logprobs": (None, None, -1, -math.inf)},
            "behaviour_logprobs[3] is -inf: expected a finite",
        ),
        ({"behaviour_logprobs": (None, None, -1, math.nan)}, "behaviour_logprobs[3] is null or NaN: expected a finite"),
        ({"policy_versions": ({"version": 0, "count": 3},)}, "policy_versions count 3 tokens, loss_mask marks 2"),
        ({"policy_versions": ()}, "policy_versions count 0 tokens, loss_mask marks 2"),
        ({"policy_versions": ({"version": -1, "count": 2},)}, "version\n  Input should be greater than or equal to 0"),
        ({"policy_versions": ({"version": 0, "count": 0},)}, "count\n  Input should be greater than or equal to 1"),
        ({"finish_reason": "tired"}, "finish_reason\n  Input should be 'stop', 'length', 'abort' or 'error'"),
        ({"advantage": 1.0}, "advantage\n  Extra inputs are not permitted"),
        ({"id": None}, "id\n  Input should be a valid string"),
        ({"group_stats": {"mean": 0.5, "std": -0.1, "count": 2}}, "std\n  Input should be greater than or equal to 0"),
        ({"group_stats": {"mean": 0.5, "std": 0.1, "count": 0}}, "count\n  Input should be greater than or equal to 1"),
        ({"timings": {"sample": math.nan}}, "sample\n  Input should be a finite number"),
        ({"task": {"answer": 5}}, "answer\n  Input should be a valid string"),
        ({"task": {"extra": "not JSON"}}, "extra\n  Value error"),
        ({"task": {"extra": {"x": math.nan}}}, "extra\n  Value error, cannot be written as JSON"),
        ({"task": {"extra": {"x": {1, 2}}}}, "extra\n  Value error, cannot be written as JSON"),
        ({"task": {"extra": '{"x": Infinity}'}}, "extra\n  Value error, cannot be written as JSON"),
    ],
)
def test_a_rollout_refuses(changes: dict[str, Any], message: str) -> None:
    with refused(message):
        rollout(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"prompt": None, "messages": [{"role": "user", "content": "1+1="}]},
        {"behaviour_logprobs": None},
        {"policy_versions": None},
        {"behaviour_logprobs": None, "policy_versions": None, "loss_mask": None},
        {"token_ids": None, "loss_mask": None, "behaviour_logprobs": None, "policy_versions": None},
        {"token_ids": (), "loss_mask": (), "behaviour_logprobs": (), "policy_versions": ()},
        {"behaviour_logprobs": (None, None, 0.0, 9e-5)},  # float32 rounding may leave a log-probability just above 0
        {"extra_tokens": {"moe.route": (None, 1.0, 2.0, 3.0)}},
        {"index": 3, "group_size": 4},
        {"index": 3},
    ],
)
def test_a_rollout_accepts(changes: dict[str, Any]) -> None:
    assert Rollout.model_validate_json(rollout(**changes).model_dump_json()) == rollout(**changes)


@pytest.mark.parametrize(
    "model", [Task, Verdict, Score, Sampling, Stop, ModelRef, VersionRun, GroupStats, Timings, Message]
)
def test_every_part_refuses_unknown_keys_and_is_frozen(model: type[BaseModel]) -> None:
    with refused("surprise\n  Extra inputs are not permitted"):
        model.model_validate({"surprise": 1} | ({"temperature": 1.0} if model is Sampling else {}))
    assert model.model_config["frozen"] is True


def test_a_rollout_is_frozen() -> None:
    with refused("Instance is frozen"):
        rollout().completion = "2"


def test_every_key_is_always_written() -> None:
    assert set(json.loads(Rollout(id="r", prompt="p").model_dump_json())) == set(Rollout.model_fields)


# --- the round trip -------------------------------------------------------------------------------------------------

TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
NUMBER = st.floats(allow_nan=False, allow_infinity=False)
LOGPROB = st.floats(max_value=0, allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | NUMBER | TEXT,
    lambda below: st.lists(below, max_size=2) | st.dictionaries(TEXT, below, max_size=2),
    max_leaves=4,
)
SCORES = st.builds(
    Score,
    status=st.just(Status.GRADED),
    reward=NUMBER,
    extracted=st.none() | TEXT,
    verifier=TEXT,
    version=TEXT,
    config=st.dictionaries(TEXT, JSON, max_size=2),
    seconds=st.none() | st.floats(0, 1e6),
) | st.builds(Score, status=st.sampled_from([s for s in Status if s != "graded"]), verifier=TEXT, version=TEXT)


@st.composite
def rollouts(draw: st.DrawFn) -> Rollout:
    mask = tuple(draw(st.lists(st.booleans(), max_size=6)))
    chat = draw(st.booleans())
    sampled = sum(mask)
    first = draw(st.integers(0, sampled))
    runs = [VersionRun(version=v, count=count) for v, count in enumerate((first, sampled - first)) if count]
    return Rollout(
        id=draw(TEXT),
        prompt=None if chat else draw(TEXT),
        messages=(Message(role="user", content=draw(TEXT)),) if chat else None,
        completion=draw(st.none() | TEXT),
        task=Task(answer=draw(st.none() | TEXT), extra=draw(st.dictionaries(TEXT, JSON, max_size=3))),
        token_ids=tuple(draw(st.lists(st.integers(0, 2**31), min_size=len(mask), max_size=len(mask)))),
        loss_mask=mask,
        behaviour_logprobs=tuple(draw(LOGPROB) if marked else None for marked in mask),
        policy_versions=tuple(runs),
        scores=tuple(draw(st.lists(SCORES, max_size=2))),
        sampling=draw(st.none() | st.builds(Sampling, temperature=st.floats(0, 4), top_p=st.floats(0.01, 1))),
    )


# --- token columns --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ([5, 6, 7, 8], np.int32),
        ((5, 6, 7, 2**31), np.int64),
        (range(5, 9), np.int32),
        ([5.0, 6.0, 7.0, 8.0], np.int32),
        (np.array([5, 6, 7, 8], np.int64), np.int32),
        (np.array([5, 6, 7, 8], np.uint16), np.int32),
        (np.array([5, 6, 7, 8], np.int32), np.int32),
    ],
)
def test_token_ids_become_one_array(given: Any, kind: Any) -> None:
    ids = rollout(token_ids=given).token_ids
    assert ids is not None
    assert ids.dtype == kind
    assert ids.tolist() == list(given)


@pytest.mark.parametrize("given", [[0, 0, 1, 1], (False, False, True, True), np.array([0, 0, 1, 1]), [0.0, 0, 1, 1.0]])
def test_a_mask_becomes_one_array(given: Any) -> None:
    mask = rollout(loss_mask=given).loss_mask
    assert mask is not None
    assert mask.dtype == np.bool_
    assert mask.tolist() == [False, False, True, True]
    assert rollout(loss_mask=given).sampled_tokens == 2


def test_null_is_nan_in_memory() -> None:
    for column in (TOKENS["behaviour_logprobs"], np.array([np.nan, np.nan, -0.5, -1.25])):
        record = rollout(behaviour_logprobs=column, extra_tokens={"a.b": [None, 1, 2, 3]})
        assert record.behaviour_logprobs is not None
        np.testing.assert_array_equal(record.behaviour_logprobs, [np.nan, np.nan, -0.5, -1.25])
        assert record.model_dump()["behaviour_logprobs"] == [None, None, -0.5, -1.25]
        assert json.loads(record.model_dump_json())["extra_tokens"] == {"a.b": [None, 1.0, 2.0, 3.0]}


def test_float32_stays_float32_and_python_numbers_keep_every_digit() -> None:
    narrow = np.array([np.nan, np.nan, -0.1, -0.2], np.float32)
    assert rollout(behaviour_logprobs=narrow).behaviour_logprobs.dtype == np.float32  # type: ignore[union-attr]
    assert rollout(behaviour_logprobs=(None, None, -0.1, -0.2)).model_dump()["behaviour_logprobs"][2] == -0.1


def test_columns_are_read_only_and_nobody_elses() -> None:
    given = {"token_ids": np.array([5, 6, 7, 8], np.int32), "loss_mask": np.array([False, False, True, True])}
    record = rollout(**given, extra_tokens={"a.b": np.zeros(4)})
    given["token_ids"][0] = 99
    given["loss_mask"][0] = True
    copies = [
        record,
        pickle.loads(pickle.dumps(record)),
        copy.copy(record),
        copy.deepcopy(record),
        record.model_copy(deep=True),
        record.model_copy(update={"behaviour_logprobs": [None, None, -0.5, -1.25]}),
    ]
    for each in copies:
        assert each == record
        assert hash(each) == hash(record)
        assert each.token_ids is not None
        assert each.token_ids[0] == 5
        for column in (each.token_ids, each.loss_mask, each.behaviour_logprobs, each.extra_tokens["a.b"]):
            with pytest.raises(ValueError, match="read-only"):
                column[0] = 1


def test_records_are_equal_when_every_entry_is() -> None:
    assert rollout() == rollout(token_ids=list(TOKENS["token_ids"]))
    assert rollout() != rollout(token_ids=(5, 6, 7, 9))
    assert rollout() != rollout(behaviour_logprobs=(None, None, -0.5, -1.5))
    assert rollout() != rollout(behaviour_logprobs=None)
    assert rollout() != rollout(extra_tokens={"a.b": (1, 2, 3, 4)})
    assert rollout(extra_tokens={"a.b": (1, None, 3, 4)}) == rollout(extra_tokens={"a.b": (1, None, 3, 4)})
    assert rollout(extra_tokens={"a.b": (1, None, 3, 4)}) != rollout(extra_tokens={"a.b": (1, 2, 3, 4)})
    assert rollout() != "a rollout"


def test_a_copy_with_a_column_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match=re.escape("behaviour_logprobs[1] is 'x': expected a number or null")):
        rollout().model_copy(update={"behaviour_logprobs": (None, "x", -1.0, -1.0)})


@given(rollouts())
def test_what_goes_in_as_json_comes_out_equal(record: Rollout) -> None:
    assert Rollout.model_validate_json(record.model_dump_json()) == record
    assert Rollout.model_validate(record.model_dump()) == record


# --- verdicts and scores --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.GRADED])
def test_only_graded_has_a_reward(status: Status) -> None:
    assert Verdict(status=status).reward is None
    with refused(f"status '{status}' with reward 0.0: only 'graded' has a reward"):
        Verdict(status=status, reward=0.0)


def test_graded_needs_a_reward() -> None:
    with refused("status 'graded' with reward None: only 'graded' has a reward"):
        Verdict(status=Status.GRADED)


@pytest.mark.parametrize("reward", [math.nan, math.inf, -math.inf])
def test_a_reward_is_finite(reward: float) -> None:
    with refused("reward\n  Input should be a finite number"):
        Verdict(status=Status.GRADED, reward=reward)


def test_an_unknown_status() -> None:
    with refused("Input should be 'graded', 'unparsed', 'abstained', 'invalid', 'timeout' or 'error'"):
        Verdict.model_validate({"status": "wrong"})


def test_a_score_is_stamped_with_the_hash_of_its_configuration() -> None:
    def score(**config: Any) -> Score:
        return Score(status=Status.GRADED, reward=1, verifier="math", version="1", config=config)

    assert score(a=1, b=[2.5]).config_hash == score(b=[2.5], a=1).config_hash == digest({"a": 1, "b": [2.5]})
    assert len({score().config_hash, score(a=1).config_hash, score(a="1").config_hash}) == 3
    assert Score.model_validate_json(score(a=1).model_dump_json()) == score(a=1)
    kept = Score.model_validate({**score(a=1).model_dump(), "config_hash": "written by an older version"})
    assert kept.config_hash == "written by an older version"


def test_seconds_are_not_negative() -> None:
    with refused("seconds\n  Input should be greater than or equal to 0"):
        Score(status=Status.ERROR, verifier="math", version="1", seconds=-1)


def test_scores_are_appended_and_the_last_of_a_verifier_counts() -> None:
    def score(verifier: str, reward: float) -> Score:
        return Score(status=Status.GRADED, reward=reward, verifier=verifier, version="1")

    bare = rollout()
    scored = bare.with_score(score("math", 0)).with_score(score("format", 0.5)).with_score(score("math", 1))
    assert [one.reward for one in scored.scores] == [0, 0.5, 1]
    assert bare.scores == ()
    assert scored.last_score() == scored.scores[2]
    assert scored.last_score("math") == scored.scores[2]
    assert scored.last_score("format") == scored.scores[1]
    assert scored.last_score("other") is None
    assert bare.last_score() is None


# --- sampling parameters --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_k", -1),
        ("min_p", -0.1),
        ("min_p", 1.0),
        ("repetition_penalty", 0.0),
        ("max_tokens", 0),
        ("temperature", math.nan),
    ],
)
def test_sampling_parameters_out_of_range(name: str, value: float) -> None:
    with refused(f"{name}\n  Input should be"):
        SamplingParams.model_validate({name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("top_p", 0.9),
        ("top_k", 50),
        ("min_p", 0.05),
        ("repetition_penalty", 1.1),
        ("presence_penalty", 0.1),
        ("frequency_penalty", -0.1),
    ],
)
def test_filters_are_what_bends_the_distribution(name: str, value: float) -> None:
    assert SamplingParams.model_validate({name: value}).filters == [name]


@pytest.mark.parametrize("sampling", [{"engine": "vllm"}, {"temperature": None, "top_p": 0.9}])
def test_sampling_without_a_temperature_is_not_known(sampling: dict[str, object]) -> None:
    with refused("no temperature: if the sampling parameters are unknown, set sampling to null"):
        Rollout.model_validate({"id": "a", "prompt": "1+1=", "sampling": sampling})


def test_temperature_length_and_seed_are_no_filters() -> None:
    assert SamplingParams(temperature=0.6, max_tokens=5, seed=3).filters == []
    assert Sampling(temperature=0.6, engine="hf", logprob_mode="processed").filters == []


# --- group statistics -----------------------------------------------------------------------------------------------


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=32))
def test_group_statistics_are_the_population_s(rewards: list[float]) -> None:
    found = GroupStats.of(rewards)
    assert found.count == len(rewards)
    assert math.isclose(found.mean, statistics.fmean(rewards), rel_tol=1e-9, abs_tol=1e-9)
    assert math.isclose(found.std, statistics.pstdev(rewards), rel_tol=1e-6, abs_tol=1e-6)


@given(st.floats(-1e6, 1e6), st.integers(1, 64))
def test_equal_rewards_deviate_by_exactly_nothing(reward: float, size: int) -> None:
    assert GroupStats.of([reward] * size) == GroupStats(mean=reward, std=0.0, count=size)


# --- helpers --------------------------------------------------------------------------------------------------------


def test_canonical_json_is_one_text_for_equal_values() -> None:
    assert canonical_json({"b": 1, "a": [True, None, "é"]}) == '{"a":[true,null,"é"],"b":1}'
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json(math.nan)


def test_a_digest_is_pinned() -> None:
    """Existing files contain this digest of configurations."""
    assert digest({"b": 1, "a": [True, None, "é"]}) == "17c8c6f7f948ee1c"
    assert digest({}) == "44136fa355b3678a"


def test_time_is_utc_to_the_second() -> None:
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", utc_now())


def test_every_model_of_the_module_is_tested_here() -> None:
    models = {name for name, value in vars(schema).items() if isinstance(value, type) and issubclass(value, BaseModel)}
    assert models - {"BaseModel", "Frozen"} <= set(globals())


# --- parts ------------------------------------------------------------------------------------------------------------


def test_parts_are_verdicts_by_name() -> None:
    parts = {"format": Verdict(status=Status.GRADED, reward=1), "answer": Verdict(status=Status.UNPARSED, reason="?")}
    whole = Verdict(status=Status.GRADED, reward=0.5, parts=parts)
    assert Verdict.model_validate(whole.model_dump()) == whole
    assert Verdict.model_validate_json(whole.model_dump_json()) == whole
    assert Verdict.unpacked(json.loads(json.dumps(whole.packed()))) == whole
    bare = Verdict(status=Status.ABSTAINED, reason="no opinion")
    assert bare.packed() == ["abstained", None, None, "no opinion"]
    assert Verdict.unpacked(bare.packed()) == bare
    with refused("part 'a' has parts of its own"):
        Verdict(status=Status.GRADED, reward=1, parts={"a": whole})
    with refused("two parts have the same name"):
        Verdict.model_validate({"status": "abstained", "parts": [{"name": "a", "status": "error"}] * 2})


def test_a_column_of_vectors_has_one_width() -> None:
    assert rollout(extra_tokens={"a.b": [[1, 2]] * 4}).extra_tokens["a.b"].shape == (4, 2)
    with refused("extra_tokens.a.b has entries of several types"):
        rollout(extra_tokens={"a.b": [[1, 2], [1, 2], [1], [2]]})
    with refused("extra_tokens.a.b[2, 1] is inf: expected a finite number or null"):
        rollout(extra_tokens={"a.b": [[1.0, 2.0], [1.0, 2.0], [1.0, math.inf], [2.0, 1.0]]})
