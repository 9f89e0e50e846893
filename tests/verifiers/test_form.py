"""The verifiers `format` and `length`, which look at the form of a completion only."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr import Status, Task, Verdict
from rlvr.errors import ConfigError
from rlvr.verify.verifying import load_verifier
from rlvr_verifiers import format as form
from rlvr_verifiers import language, length

GERMAN = "Das ist ein kurzer Satz in deutscher Sprache, und er sagt nichts Neues."
ENGLISH = "This is a short sentence in the English language, and it says nothing new."


@settings(max_examples=30)
@given(st.permutations(["<think>", "a", "</think>", "<answer>", "b", "</answer>"]))
def test_only_one_order_of_the_tags_is_right(parts: list[str]) -> None:
    right = [part for part in parts if len(part) > 1] == ["<think>", "</think>", "<answer>", "</answer>"]
    inside = [parts[parts.index(letter) - 1] for letter in "ab"]
    inside.sort()
    assert form.check("".join(parts), Task()).reward == float(right and inside == ["<answer>", "<think>"])


def test_a_prefilled_tag_is_not_repeated() -> None:
    assert form.check("so</think><answer>b</answer>", Task(), prefilled=True).reward == 1
    assert form.check("<think>so</think><answer>b</answer>", Task(), prefilled=True).reward == 0
    assert form.check("</think><answer>b</answer>", Task(), prefilled=True).reward == 0


def test_rules_are_parts_and_may_be_paid_one_by_one() -> None:
    text = f"<think>so</think> {ENGLISH} \\boxed{{1}} \\boxed{{2}}"
    verdict = form.check(text, Task(), tags=(), boxed=True, language="en", partial=True)
    assert verdict.reward == 0.5
    assert {name: part.reward for name, part in (verdict.parts or {}).items()} == {"box": 0.0, "language": 1.0}
    assert form.check(text, Task(), tags=(), boxed=True, language="en").reward == 0
    assert form.check(text, Task(), tags=()).reward == 1


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (GERMAN, "de"),
        (ENGLISH, "en"),
        ("这是一个用中文写的句子,没有任何新内容。", "zh"),
        ("12345 !!!", None),
        ("Hi.", None),
    ],
)
def test_languages_are_told_apart_and_short_texts_have_none(text: str, code: str | None) -> None:
    found = {each for each in ("de", "en", "fr", "zh") if language.is_in(text, each)}
    assert found == ({code} if code else set())
    assert {language.language_of(text) for _ in range(3)} == {language.language_of(text)}


def test_bad_tags_are_refused() -> None:
    with pytest.raises(ConfigError, match="option 'tags'"):
        load_verifier("format", tags=["<think>"])


@settings(max_examples=30)
@given(words=st.integers(0, 60), least=st.integers(1, 20), more=st.integers(0, 20), margin=st.integers(0, 10))
def test_the_reward_falls_linearly_beyond_the_limits(words: int, least: int, more: int, margin: int) -> None:
    verdict = length.check("word " * words, Task(), least=least, most=least + more, margin=margin)
    beyond = max(least - words, words - least - more, 0)
    assert verdict.reward == pytest.approx(max(0, 1 - beyond / (margin + 1)) if words else 0)


def test_units_and_the_column_of_the_largest_length() -> None:
    def status(verdict: Verdict) -> float | Status:
        return verdict.status if verdict.reward is None else verdict.reward

    assert status(length.check("abc", Task(), unit="characters", most=3)) == 1
    assert status(length.check("a b\n\nc", Task(), unit="lines", most=2)) == 1
    assert status(length.check("a b c", Task(extra={"budget": 2}), column="budget")) == 0
    assert status(length.check("a b", Task(extra={"budget": 2}), column="budget")) == 1
    for wrong in ("2", -1, True, None):
        assert status(length.check("a b", Task(extra={"budget": wrong}), column="budget")) is Status.INVALID
    assert status(length.check("a", Task(), least=3, most=2)) is Status.INVALID
    assert status(length.check("<think>a", Task())) is Status.UNPARSED
    assert status(length.check("<think>a", Task(), of="completion")) == 1
