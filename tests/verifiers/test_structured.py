"""The verifiers `json` and `tools`: bounded parsing, no surprises in schemas, fields and calls compared one by one."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr import Status, Task, Verdict
from rlvr_verifiers import json as json_verifier
from rlvr_verifiers import tools
from rlvr_verifiers.calls import CallError, read_calls
from rlvr_verifiers.json_text import JsonTextError, read_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text('ab"\\\n', max_size=3),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text("abc", max_size=2), each, max_size=3),
    max_leaves=8,
)


def reward(verdict: Verdict) -> float | str:
    """The reward, or the status of a verdict without one."""
    return verdict.status.value if verdict.reward is None else verdict.reward


@settings(max_examples=30)
@given(VALUES, VALUES)
def test_a_value_is_right_exactly_if_it_is_equal(gold: Any, said: Any) -> None:
    equal = json.dumps(gold, sort_keys=True) == json.dumps(said, sort_keys=True)
    for partial in (False, True):
        verdict = json_verifier.check(json.dumps(said), Task(answer=json.dumps(gold)), partial=partial)
        assert (verdict.reward == 1) is equal
        assert 0 <= (verdict.reward or 0) <= 1


@settings(max_examples=30)
@given(VALUES)
def test_the_reader_takes_what_json_writes(value: Any) -> None:
    assert read_json(json.dumps(value, indent=1)) == value


@settings(max_examples=30)
@given(st.text('[]{}",:\\ue1.-nul', max_size=30))
def test_the_reader_takes_nothing_that_json_does_not(text: str) -> None:
    try:
        value = read_json(text)
    except JsonTextError:
        return
    assert json.loads(text) == value


@pytest.mark.parametrize(
    "text",
    [
        *("[" * 65 + "]" * 65, "9" * 401, "1" + "0" * 400 + ".5", "1e400", '{"a":1,"a":1}', "NaN", '"\\ud800"', ""),
        *("[" * 90_000, '"' + '\\"' * 45_000, " " * 100_001),
    ],
)
def test_the_reader_has_limits(text: str) -> None:
    with pytest.raises(JsonTextError):
        read_json(text)


def test_partial_credit_counts_the_fields_of_both_sides() -> None:
    gold = json.dumps({"a": 1, "b": {"c": 2, "d": [3, 4]}})

    def score(said: Any, **options: Any) -> float | str:
        return reward(json_verifier.check(json.dumps(said), Task(answer=gold), partial=True, **options))

    assert score({"a": 1, "b": {"c": 2, "d": [3, 5]}}) == 0.75
    assert score({"a": 1}) == 0.25
    assert score({"a": 1, "b": {"c": 2, "d": [3, 4]}, "e": 1, "f": 1, "g": 1, "h": 1}) == 0.5
    assert score({"a": 1, "b": {"c": 2, "d": [3, 4]}, "e": 1}, ignore_extra=True) == 1
    assert score({"a": 1.001, "b": {"c": 2, "d": [4, 3]}}, rtol=0.01, unordered=True) == 1
    assert score({"a": 1.1, "b": {"c": 2, "d": [4, 3]}}, atol=0.01, unordered=True) == 0.75
    parts = json_verifier.check('{"a": 1, "b": {"c": 2}}', Task(answer=gold)).parts or {}
    assert {name: part.reward for name, part in parts.items()} == {"a": 1, "b": 0}


def test_huge_integers_and_decimals_are_compared_exactly() -> None:
    assert reward(json_verifier.check("1" + "0" * 399, Task(answer="0.5"), rtol=0.1)) == 0


SCHEMA = {
    "type": "object",
    "properties": {"age": {"type": "integer", "minimum": 0}, "code": {"type": "string", "pattern": "^(a+)+$"}},
    "required": ["age"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ('{"age": 3}', 1),
        ('{"age": 3, "code": "aaa"}', 1),
        ('{"age": -1}', 0),
        ("{}", 0),
        ('{"age": 3, "x": 1}', 0),
        (json.dumps({"age": 3, "code": "a" * 5000 + "!"}), 0),  # hangs a backtracking engine
        ('{"age": 3', "unparsed"),
    ],
)
def test_a_schema_decides(said: str, expected: float | str) -> None:
    assert reward(json_verifier.check(said, Task(answer=json.dumps(SCHEMA)), gold="schema")) == expected
    task = Task(answer=said if expected == 1 else '{"age": 3}', extra={"schema": SCHEMA})
    assert reward(json_verifier.check(said, task, schema_column="schema")) == expected


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "http://127.0.0.1:9/schema.json"},
        {"$ref": "file:///etc/passwd"},
        {"type": "no type"},
        {"pattern": "(a"},
        {"pattern": "(?=a)"},
        [],
        7,
        "no JSON",
        None,
    ],
)
def test_a_schema_that_is_wrong_or_elsewhere_makes_the_row_invalid(schema: Any) -> None:
    task = Task(answer="1", extra={"schema": schema})
    assert json_verifier.check("1", task, schema_column="schema").status is Status.INVALID


# --- tools ----------------------------------------------------------------------------------------------------------

ARGUMENTS = st.dictionaries(st.sampled_from("ab"), st.integers(0, 1))
CALLS = st.lists(
    st.fixed_dictionaries({"name": st.sampled_from("fgh"), "arguments": ARGUMENTS}), min_size=1, max_size=4
)


def python(calls: list[dict[str, Any]]) -> str:
    one = [f"{c['name']}({', '.join(f'{k}={v!r}' for k, v in c['arguments'].items())})" for c in calls]
    return f"[{', '.join(one)}]"


@settings(max_examples=30)
@given(CALLS, CALLS, st.randoms(use_true_random=False))
def test_calls_are_right_exactly_if_they_are_equal_in_some_order(gold: Any, said: Any, random: Any) -> None:
    task = Task(answer=json.dumps(gold))
    shuffled = copy.deepcopy(gold)
    random.shuffle(shuffled)
    for text in (json.dumps(shuffled), python(shuffled)):
        assert reward(tools.check(text, task)) == 1
        assert reward(tools.check(text, task, ordered=True)) == float(shuffled == gold)

    def keyed(calls: Any) -> list[str]:
        return sorted(json.dumps(call, sort_keys=True) for call in calls)

    assert reward(tools.check(python(said), task)) == float(keyed(said) == keyed(gold))


def test_calls_with_several_allowed_values_are_matched_one_to_one() -> None:
    gold = Task(answer=json.dumps([{"f": {"x": [1, 2]}}, {"f": {"x": [1]}}]))
    assert reward(tools.check("[f(x=1), f(x=2)]", gold)) == 1
    assert reward(tools.check("[f(x=2), f(x=2)]", gold)) == 0
    assert reward(tools.check("[f(x=2), f(x=2)]", gold, partial_calls=True)) == 0.5
    assert reward(tools.check("[f(x=1), f(x=2), f(x=1), f(x=1)]", gold, partial_calls=True)) == 0.5


def test_texts_are_compared_as_asked() -> None:
    gold = Task(answer=json.dumps([{"f": {"s": ["New York, NY"]}}]))

    def score(text: str, strings: tools.Strings) -> float | str:
        return reward(tools.check(f"[f(s={text!r})]", gold, strings=strings))

    assert [score("new york,  NY", each) for each in ("exact", "case", "bfcl")] == [0, 1, 1]
    assert [score("new_york ny", each) for each in ("exact", "case", "bfcl")] == [0, 0, 1]


@pytest.mark.parametrize(
    "text",
    [
        "[f(x=" + "-" * 10_000 + "1)]",
        "[f(x=" + "- " * 9_000 + "1)]",
        "[f(x=" + "(" * 100 + "1" + ")" * 100 + ")]",
        "[f(x=" + "1+" * 9_000 + "1)]",
        "f" + ".f" * 9_000 + "()",
        "[f(x=" + "9" * 10_000 + ")]",
        "[f(x=" + "not " * 8 + "1)]",
        "[f(x=9**9**9)]",
        "[f(x=open('/etc/passwd'))]",
        "[f(x=lambda: 0)]",
        "[f(x=b'x')]",
        "[f(x={1, 2})]",
        "[f(x={1: 2})]",
        "[f(x=1, x=2)]",
        "[f(*[1])]",
        "[(lambda: 0)()]",
        "[f(x=1)",
        "[f()" + ", f()" * 64 + "]",
        "f(x='\0')",
        "<tool_call>{}</tool_call>",
        "<tool_call>[[[[",
        '{"name": "f", "arguments": [1]}',
        '{"name": "f", "arguments": "{"}',
        '{"name": 7}',
        "[" * 90_000,
    ],
)  # fmt: skip
def test_hostile_calls_are_unparsed(text: str) -> None:
    with pytest.raises(CallError):
        read_calls(text)
    assert tools.check(text, Task(answer="[]")).status is Status.UNPARSED


def test_gold_calls_that_cannot_be_read_make_the_row_invalid() -> None:
    for answer in ("", "x", "7", '[{"name": 1}]', '{"f": 1}', '[{"f": {"x": 1}, "g": {}}]'):
        assert tools.check("[f(x=1)]", Task(answer=answer)).status is Status.INVALID, answer
