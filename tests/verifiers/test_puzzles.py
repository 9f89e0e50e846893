"""The verifiers `countdown`, `puzzle24` and `sudoku`: no answer is evaluated as code, and no number is invented."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr import Status, Task
from rlvr_verifiers import countdown, puzzle24, sudoku
from rlvr_verifiers.arithmetic import Computed, compute, read_value

NUMBERS = st.integers(0, 99).map(lambda number: (str(number), Fraction(number), [number]))
OPERATORS = {"+": Fraction.__add__, "-": Fraction.__sub__, "*": Fraction.__mul__, "/": Fraction.__truediv__}


def joined(left: tuple, operator: str, right: tuple) -> tuple:
    """Text, value (None after a division by zero) and numbers of an operation."""
    value = None
    if left[1] is not None and right[1] is not None and (operator != "/" or right[1]):
        value = OPERATORS[operator](left[1], right[1])
    return f"({left[0]} {operator} {right[0]})", value, left[2] + right[2]


EXPRESSIONS = st.recursive(
    NUMBERS, lambda each: st.builds(joined, each, st.sampled_from([*OPERATORS]), each), max_leaves=8
)


@settings(max_examples=30)
@given(EXPRESSIONS)
def test_values_are_those_of_fractions(expression: tuple) -> None:
    text, value, numbers = expression
    assert compute(text) == ("it divides by zero" if value is None else Computed(value, numbers))


@settings(max_examples=30)
@given(st.lists(st.sampled_from(["+", "-", "*", "/"]), min_size=1, max_size=6), st.lists(st.integers(1, 9), min_size=7))
def test_operators_bind_as_in_python(operators: list[str], numbers: list[int]) -> None:
    parts = [str(numbers[0])]
    for operator, number in zip(operators, numbers[1:], strict=False):
        parts += [operator, str(number)]
    found = compute(" ".join(parts))
    assert isinstance(found, Computed)
    # Digits and four operators: the test's own text.
    expected = eval(" ".join(part if part in OPERATORS else f"Fraction({part})" for part in parts))
    assert found.value == expected


@settings(max_examples=30)
@given(st.text("0123456789+-*/() .=\\x", max_size=40))
def test_any_text_has_a_value_or_a_reason(text: str) -> None:
    found = compute(text)
    assert isinstance(found, str | Computed)


@pytest.mark.parametrize(
    "text",
    ["(" * 400, "1" + "+1" * 300, "1 2", "2(3)", "()", "1+", "-1", "1e3", "²", "１+１", "9" * 13, "(1))", "((1)"],
)
def test_what_is_no_expression_has_no_value(text: str) -> None:
    assert isinstance(compute(text), str)


def test_values_of_golds() -> None:
    assert [read_value(text) for text in ("-7", "3/4", " 5 ", "−2")] == [-7, Fraction(3, 4), 5, -2]
    assert [read_value(text) for text in ("", "1/0", "1.5", "2+2", "9" * 13)] == [None] * 5


@pytest.mark.parametrize("nums", [None, "3 5", [], ["3"], [3.5], [True], [-3], [1] * 101, {"a": 1}])
def test_a_row_without_numbers_is_invalid(nums: object) -> None:
    row = {"nums": nums, "numbers": nums}
    assert countdown.check("\\boxed{3}", Task(answer="3", extra=row)).status is Status.INVALID
    assert puzzle24.check("\\boxed{3}", Task(extra=row)).status is Status.INVALID


def test_numbers_may_be_left_out_only_if_that_is_allowed() -> None:
    task = Task(answer="12", extra={"nums": "[3, 4, 5]"})
    assert countdown.check("\\boxed{3*4}", task).reward == 0
    assert countdown.check("\\boxed{3*4}", task, use_all=False).reward == 1
    assert countdown.check("\\boxed{3*4*4/4}", task, use_all=False).reward == 0
    assert puzzle24.check("\\boxed{3*4+5}", Task(extra={"numbers": [3, 4, 5]}), target=17).reward == 1


@settings(max_examples=30)
@given(st.permutations(range(1, 5)), st.permutations(range(4)), st.lists(st.booleans(), min_size=16, max_size=16))
def test_a_solution_solves_its_puzzles_and_a_changed_one_does_not(
    digits: list[int], changed: list[int], shown: list[bool]
) -> None:
    base = [(row * 2 + row // 2 + column) % 4 for row in range(4) for column in range(4)]
    grid = [digits[digit] for digit in base]
    puzzle = "".join(str(digit) if seen else "." for digit, seen in zip(grid, shown, strict=True))
    task = Task(extra={"puzzle": puzzle})
    assert sudoku.check(f"\\boxed{{{''.join(map(str, grid))}}}", task).reward == 1
    grid[changed[0] * 4 + changed[1]] = grid[changed[0] * 4 + changed[1]] % 4 + 1
    assert sudoku.check(f"\\boxed{{{''.join(map(str, grid))}}}", task).reward == 0


@pytest.mark.parametrize(
    "puzzle", [None, "", "1" * 16, "12", "x" * 81, [[1, 1, 0, 0]] + [[0] * 4] * 3, [1.5], "5" + "." * 15]
)
def test_what_is_no_sudoku_is_invalid(puzzle: object) -> None:
    assert sudoku.check("\\boxed{1}", Task(extra={"puzzle": puzzle})).status is Status.INVALID
