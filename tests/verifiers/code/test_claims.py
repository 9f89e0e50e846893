"""Values on their way out of the sandbox: what goes in comes out equal, and nothing else is equal to anything."""

from __future__ import annotations

import contextlib
import json
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr_verifiers.code.inside.claims import NOTHING, ClaimError, decode, encode, matches

SCALARS = (
    st.none() | st.booleans() | st.integers() | st.integers(10**17, 10**400) | st.floats() | st.text(max_size=5)
    | st.text(st.characters(codec=None), max_size=3) | st.binary(max_size=5) | st.fractions() | st.complex_numbers()
    | st.decimals(min_value=-1000, max_value=1000)
)  # fmt: skip
KEYS = st.recursive(
    st.integers(-3, 3) | st.sampled_from([1.0, True, "a", "b", None, Fraction(2)]),
    lambda inner: st.tuples(inner) | st.frozensets(inner, max_size=3),
    max_leaves=4,
)
VALUES = st.recursive(
    SCALARS | KEYS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.tuples(inner, inner) | st.dictionaries(KEYS, inner, max_size=4)
        | st.sets(KEYS, max_size=4) | st.frozensets(KEYS, max_size=4)
    ),
    max_leaves=12,
)  # fmt: skip
TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.sampled_from([*"ifcqmbltszder", "x"]),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=20,
)


def through(value: Any) -> Any:
    """Return the tree of a value as the other side reads it."""
    return json.loads(json.dumps(encode(value)))


@settings(max_examples=60)
@given(VALUES, VALUES)
def test_a_claim_matches_as_python_compares(one: Any, other: Any) -> None:
    """A container may hold the very NaN that it is compared with, which is equal to Python, but not here."""
    assert matches(one, through(other)) is bool(decode(through(one)) == decode(through(other)))
    assert matches(one, through(one)) is bool(decode(through(one)) == decode(through(one)))


@settings(max_examples=40)
@given(VALUES)
def test_what_is_decoded_consists_of_built_in_types(value: Any) -> None:
    built = (type(None), bool, int, float, str, bytes, complex, Fraction, Decimal, list, tuple, dict, set, frozenset)

    def check(value: Any) -> None:
        assert type(value) in built
        if isinstance(value, list | tuple | set | frozenset | dict):
            for item in value:
                check(item)
        if type(value) is dict:
            for item in value.values():
                check(item)

    check(decode(through(value)))


@given(TREES, VALUES)
def test_any_tree_is_compared_and_decoded_without_an_error(tree: Any, expected: Any) -> None:
    assert matches(expected, tree) in (True, False)
    with contextlib.suppress(ClaimError):
        decode(tree)


class Liar(int):
    """A number that says it equals everything."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = int.__hash__


@pytest.mark.parametrize(
    ("expected", "claim", "equal"),
    [
        (16, 16.0, True),
        (True, 1, True),
        ([1], (1,), False),
        ({1: 2}, {1.0: 2}, True),
        ({1, 2}, frozenset({2, 1}), True),
        ("1", 1, False),
        (0.1 + 0.2, 0.3, False),
        (8, Liar(7), False),
        (7, Liar(7), True),
        (float("nan"), float("nan"), False),
        ([], "", False),
    ],
)
def test_examples(expected: Any, claim: Any, equal: bool) -> None:
    assert matches(expected, through(claim)) is equal


def test_sequences_and_floats_can_be_compared_loosely() -> None:
    assert matches([1, [2]], through((1, (2,))), sequences=True)
    assert matches([0.1 + 0.2], through([0.3]), tolerance=1e-9)
    assert not matches([0.31], through([0.3]), tolerance=1e-9)
    assert not matches(10**18, through(10**18 + 1), tolerance=1e-9)
    assert matches(2.0, through(2), tolerance=1e-9)
    assert not matches(1.5, through(10**400), tolerance=1e-9)


@pytest.mark.parametrize(
    "tree",
    [
        ["d", [[1, 2], [1, 2]]],
        ["d", [[1, 2, 3], [2, 2]]],
        ["d", {"1": 2}],
        ["d", [1, 2]],
        ["s", [1, 1]],
        ["d"],
        ["i", "zz"],
        ["i", 5],
        ["f", "1.0"],
        ["q", 1, 0],
        ["m", "1e999999999"],
        ["m", "sNaN"],
        ["c", "a", 1],
        [],
        {},
        [["d"], []],
        10**30,
    ],
)
def test_malformed_trees_equal_nothing(tree: Any) -> None:
    for expected in ({1: 2, 2: 2}, {1: 2}, {1}, {1, 2}, [], 0, "", None, 5, 1.0, Decimal(1), float("inf")):
        assert not matches(expected, tree)


def test_keys_with_one_hash_cost_nothing() -> None:
    """Putting these into a dictionary would compare each with each: 10 ** 9 times."""
    keys = [key * (2**61 - 1) for key in range(2, 50_000)]
    tree = ["d", [[["i", f"{key:x}"], 0] for key in keys]]
    assert not matches(dict.fromkeys(range(len(keys)), 0), tree)


def test_values_that_are_too_deep_or_of_other_classes_are_refused() -> None:
    deep: Any = []
    for _ in range(100):
        deep = [deep]
    with pytest.raises(ClaimError, match="nested too deeply"):
        encode(deep)
    with pytest.raises(ClaimError, match="an object of the class object"):
        encode(object())
    kept: list[Any] = []
    assert encode([object()], lambda value: kept.append(value) or 7) == ["l", [["r", 7, "object"]]]
    assert decode(["r", 7, "object"]) is NOTHING
    assert list(decode(encode(iter([1, 2]), len))) == [1, 2]
    assert not matches([1, 2], encode(range(1, 3), len))
