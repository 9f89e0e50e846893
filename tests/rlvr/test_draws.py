"""Draws define runs, so their values must never change."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr.draws import draw, permuted, uniform

KEYS = st.lists(st.integers() | st.text(st.characters(codec="utf-8", exclude_characters="\x1f")), max_size=4)


def test_golden_values_which_may_never_change() -> None:
    assert draw() == 8238016292129134938
    assert draw(0) == 6711488920161924273
    assert draw(42, "prompt-order", 3) == 5827114046997839839
    assert uniform(42, "reward") == 0.3200140732150465
    assert [permuted(10, position, 0) for position in range(10)] == [2, 7, 9, 3, 8, 0, 6, 1, 5, 4]
    assert [permuted(1_000_003, position, 7, "order") for position in (0, 1, 1_000_002)] == [433334, 362951, 107435]


def test_another_process_draws_the_same() -> None:
    """Python's own `hash` of text differs from process to process."""
    code = "from rlvr.draws import draw; print(draw(1, 'a', -5))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(printed) == draw(1, "a", -5)


@given(KEYS)
def test_ranges(key: list[int | str]) -> None:
    assert 0 <= draw(*key) < 2**63
    assert 0.0 <= uniform(*key) < 1.0


@given(KEYS, KEYS)
def test_different_keys_draw_differently(one: list[int | str], other: list[int | str]) -> None:
    assert (draw(*one) == draw(*other)) == (one == other)


def test_parts_are_told_apart_by_type_and_by_boundary() -> None:
    keys = [(1, 2), (12,), ("1", 2), (1, "2"), (2, 1), ("12",), (1, 2, 0), ("a", "b"), ("ab",), ("", "ab")]
    assert len({draw(*key) for key in keys}) == len(keys)


@pytest.mark.parametrize("bins", [2, 10, 64])
def test_uniform_is_uniform(bins: int) -> None:
    """Pearson's χ² over 20,000 fixed draws: at most five standard deviations above its mean."""
    size = 20_000
    counts = [0] * bins
    for index in range(size):
        counts[int(uniform("uniformity", index) * bins)] += 1
    chi2 = sum((count - size / bins) ** 2 for count in counts) * bins / size
    assert chi2 < (bins - 1) + 5 * (2 * (bins - 1)) ** 0.5


def test_neighboring_seeds_share_nothing() -> None:
    draws = {(seed, index): draw(seed, index) for seed in range(40) for index in range(40)}
    assert len(set(draws.values())) == len(draws)


@given(st.integers(1, 400), KEYS)
def test_permuted_is_a_permutation(size: int, key: list[int | str]) -> None:
    assert sorted(permuted(size, position, *key) for position in range(size)) == list(range(size))


def test_permutations_differ_by_key_and_are_not_the_identity() -> None:
    orders = {tuple(permuted(50, position, epoch) for position in range(50)) for epoch in range(20)}
    assert len(orders) == 20
    assert tuple(range(50)) not in orders


@pytest.mark.parametrize("size", [2, 3, 5, 8, 17])
def test_small_permutations_are_uniform(size: int) -> None:
    """The same χ², over the images of the first two positions under 4,000 keys."""
    keys = 4_000
    counts = Counter((permuted(size, 0, "places", key), permuted(size, 1, "places", key)) for key in range(keys))
    pairs = list(itertools.permutations(range(size), 2))
    expected = keys / len(pairs)
    chi2 = sum((counts[pair] - expected) ** 2 for pair in pairs) / expected
    assert chi2 < (len(pairs) - 1) + 5 * (2 * (len(pairs) - 1)) ** 0.5


@pytest.mark.parametrize(("size", "position"), [(10, 10), (10, -1), (0, 0), (1, 1)])
def test_a_position_outside_is_an_error(size: int, position: int) -> None:
    with pytest.raises(IndexError, match=rf"position {position} is outside \[0, {size}\)"):
        permuted(size, position)


def test_one_element() -> None:
    assert permuted(1, 0, "any") == 0
