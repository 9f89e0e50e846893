"""The verifiers `exact`, `choice`, `numeric`, `qa` and `regex`, and where they read an answer."""

from __future__ import annotations

import unicodedata
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr import Status, Task, Verdict
from rlvr.errors import ConfigError
from rlvr.verify.verifying import load_verifier
from rlvr_verifiers import choice, exact, numeric, qa, regex
from rlvr_verifiers.stated import Place, stated_answer

WORDS = st.text(st.characters(categories=["Ll", "Lu", "Nd"]), min_size=1, max_size=12)
ANSWERS: dict[Place, str] = {
    "boxed": "So \\boxed{%s}.",
    "tag": "So\n<answer> %s </answer>",
    "line": "So it is.\n**Answer:** %s",
    "hashes": "So it is.\n#### %s",
    "whole": "\n%s ",
}


def box(answer: str) -> str:
    return f"\\boxed{{{answer}}}"


def reward(verdict: Verdict) -> float | str:
    """The reward, or the status of a verdict without one."""
    return verdict.status.value if verdict.reward is None else verdict.reward


@pytest.mark.parametrize(("place", "form"), ANSWERS.items())
def test_an_answer_is_read_where_it_stands(place: Place, form: str) -> None:
    assert stated_answer(form % "42", place) == "42"
    assert stated_answer("<think>" + form % "41" + "</think>\n" + form % "42", place) == "42"
    for text in ("", "<think>" + form % "42", "<think>" + form % "42" + "</think>"):
        assert isinstance(stated_answer(text, place), Verdict)
    if place != "whole":
        twice = f"{form % '42'}\n{form % '42'}"
        assert stated_answer(twice, place) == "42"
        assert isinstance(stated_answer(f"{form % '42'}\n{form % '43'}", place), Verdict)
        assert isinstance(stated_answer("42", place), Verdict)


def test_boxes_may_hold_boxes_and_braces() -> None:
    assert stated_answer(r"\boxed{\{1, \boxed{2}\}}", "boxed") == r"\{1, \boxed{2}\}"
    assert stated_answer(r"{ \boxed {a}", "boxed") == "a"
    assert stated_answer(r"\boxedx{a} \boxed{b}", "boxed") == "b"


@settings(max_examples=30)
@given(answer=WORDS, other=WORDS, place=st.sampled_from([*ANSWERS]))
def test_exact_accepts_the_gold_answer_and_nothing_else(answer: str, other: str, place: Place) -> None:
    said = ANSWERS[place] % other
    equal = exact.check(said, Task(answer=other), answer_in=place)
    assert equal.reward == 1
    if exact.check(said, Task(answer=answer), answer_in=place).reward:
        assert unicodedata.normalize("NFC", answer) == unicodedata.normalize("NFC", other)


def test_options_of_exact() -> None:
    assert reward(exact.check(box("PARIS"), Task(answer="Paris"), case=False)) == 1
    assert reward(exact.check(box("a  b"), Task(answer="a b"), whitespace=True)) == 0
    assert reward(exact.check("Answer: U.S.", Task(answer="U.S."), answer_in="line")) == 1
    assert reward(exact.check("Answer: U.S.", Task(answer="U.S"), answer_in="line")) == 1
    assert reward(exact.check(box("b"), Task(answer='["a", "b"]'), several=True)) == 1
    assert reward(exact.check(box("b"), Task(answer='["a", "b"]'))) == 0
    assert reward(exact.check(box("c"), Task(answer='["a", ["b"]]'), several=True)) == "invalid"


@pytest.mark.parametrize(
    ("gold", "said", "expected"),
    [
        ("A, C", "A, C", 1),
        ("AC", "C and A", 1),
        ("A,C", "CA", 1),
        ("A, C", "A", 0),
        ("A, C", "A, B, C", 0),
        ("A", "A", 1),
        ("A, C", "A, A, C", "unparsed"),
        ("A, C", "A, C, E", "unparsed"),
        ("A, E", "A", "invalid"),
        ("A, C", "cork and wool", 1),
    ],
)
def test_several_choices_are_a_set(gold: str, said: str, expected: float | str) -> None:
    task = Task(answer=gold, extra={"choices": ["cork", "lead", "wool", "air"]})
    assert reward(choice.check(box(said), task, several=True)) == expected


@pytest.mark.parametrize("choices", ["no list", 7, [], [["a"]], {"label": ["A"], "text": ["x", "y"]}, {"text": ["x"]}])
def test_a_column_without_options_makes_the_row_invalid(choices: Any) -> None:
    assert choice.check(box("A"), Task(answer="A", extra={"choices": choices})).status is Status.INVALID


def test_options_may_be_json_text_in_another_column() -> None:
    task = Task(answer="B", extra={"options": '["cork", "lead"]'})
    assert reward(choice.check(box("lead"), task, column="options")) == 1
    assert reward(choice.check(box("C"), task, column="options")) == "unparsed"


@settings(max_examples=30)
@given(
    value=st.integers(-(10**12), 10**12),
    places=st.integers(0, 6),
    rtol=st.sampled_from([0.0, 1e-6, 0.01, 0.5]),
    shift=st.integers(-20, 20),
)
def test_numbers_within_the_tolerance_are_right(value: int, places: int, rtol: float, shift: int) -> None:
    """The oracle compares fractions."""
    gold = Fraction(value, 10**places)
    said = gold + gold * Fraction(str(rtol)) * Fraction(shift, 10)
    expected = abs(said - gold) <= Fraction(str(rtol)) * abs(gold)
    found = numeric.check(box(f"{said.numerator}/{said.denominator}"), Task(answer=f"{value}e-{places}"), rtol=rtol)
    if len(f"{said}") < 100:
        assert found.reward == float(expected), found


@pytest.mark.parametrize(
    ("gold", "said", "options", "expected"),
    [
        ("9.81", "9.8", {"digits": 2}, 1),
        ("9.81", "9.86", {"digits": 2}, 1),
        ("9.81", "9.87", {"digits": 2}, 0),
        ("0.00123", "0.00124", {"digits": 2}, 1),
        ("12345", "12300", {"digits": 3}, 1),
        ("12345", "12200", {"digits": 3}, 0),
        ("1/3", "0.333", {"digits": 3}, 1),
        ("100", "100.4", {"digits": 3}, 1),
        ("0", "0.1", {"digits": 3}, 0),
        ("3.14", "3.14159", {"rounded": True}, 1),
        ("3.14", "3.146", {"rounded": True}, 0),
        ("3.1e2", "314", {"rounded": True}, 1),
        ("50%", "0.504", {"rounded": True}, 1),
        ("42", "42.4", {"atol": 0.5}, 1),
        ("42", "42.6", {"atol": 0.5}, 0),
        ("5 km", "5", {"units": "require"}, 0),
        ("5 km", "5000 m", {"units": "require"}, 1),
        ("5 km", "5 m", {"units": "ignore"}, 1),
        ("5 km", "5 km or 6", {"units": "ignore"}, "unparsed"),
        ("five", "5", {}, "invalid"),
        ("1" + "0" * 300, "1" + "0" * 300, {}, "invalid"),
    ],
)
def test_tolerances_and_units(gold: str, said: str, options: dict[str, Any], expected: float | str) -> None:
    assert reward(numeric.check(box(said), Task(answer=gold), **options)) == expected


def test_a_negative_tolerance_is_refused() -> None:
    with pytest.raises(ConfigError, match="option 'rtol' is float -1"):
        load_verifier("numeric", rtol=-1.0)


@pytest.mark.parametrize(
    ("said", "gold", "expected"),
    [("a b c", "b c d", 2 / 3), ("b", "b", 1), ("b b", "b", 2 / 3), ("x", "y", 0), ("the cat", "cat", 1), ("", "y", 0)],
)
def test_f1_is_that_of_the_shared_words(said: str, gold: str, expected: float) -> None:
    form = qa.normalized(said.replace("a b c", "q b c"), "careful")
    assert qa.f1(form, qa.normalized(gold, "careful")) == pytest.approx(expected)


def test_the_best_of_several_golds_counts() -> None:
    task = Task(answer='["Eiffel Tower", "La Tour Eiffel"]')
    assert reward(qa.check(box("la tour eiffel"), task)) == 1
    assert qa.check(box("Tour Eiffel"), task, score="f1").reward == pytest.approx(0.8)
    assert reward(qa.check(box("Eiffel Tower, La Tour Eiffel"), task)) == 0
    assert reward(qa.check(box("1984"), Task(answer='[1984, "MCMLXXXIV"]'))) == 1
    assert reward(qa.check(box("x"), Task(answer="[]"))) == "invalid"
    assert reward(qa.check(box("-42"), Task(answer="42"), normalization="squad")) == 1


def test_patterns_that_are_no_patterns_make_the_row_invalid() -> None:
    for pattern in ("(a", "a)(b", "a\\", "\\Qa", "(?=a)a", r"(a)\1", "a{1001}", "x" * 10_001, "\ud800", "*"):
        assert regex.check(box("a"), Task(answer=pattern)).status is Status.INVALID, pattern


def test_options_of_regex() -> None:
    task = Task(answer="b.c")
    assert reward(regex.check("<think>bxc</think> a b\nc d", task, search_in="completion", match="part")) == 1
    assert reward(regex.check("<think>bxc</think> d", task, search_in="completion", match="part")) == 0
    assert reward(regex.check(box("BxC"), task, case=False)) == 1
    assert reward(regex.check(box("abxc"), task)) == 0
    assert reward(regex.check("<think>", task, search_in="completion")) == "unparsed"
