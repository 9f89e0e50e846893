"""Prompt templates: placeholders, literal braces, and errors."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr.data.templates import columns_in, fill, placeholders
from rlvr.errors import ConfigError

COLUMNS = ("problem", "context", "level of it", "answer")


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{question}", "1 + {1}?"),
        (r"{question} Write \boxed{}.", r"1 + {1}? Write \boxed{}."),
        (r"\frac{1}{2} {question}", r"\frac{1}{2} 1 + {1}?"),
        ("{context}: {question}{question}", "{question}: 1 + {1}?1 + {1}?"),
        (r"\boxed{{answer}} {question}", r"\boxed{answer} 1 + {1}?"),
        (r"\boxed{{{context}}}", r"\boxed{{question}}"),
        ("{question} {{question}}", "1 + {1}? {question}"),
        ("{ {question", "{ {question"),
        (r"\boxed{\text{…}}", r"\boxed{\text{…}}"),
    ],
)
def test_names_are_filled_in_and_other_braces_are_literal(template: str, expected: str) -> None:
    assert fill(template, {"question": "1 + {1}?", "context": "{question}"}) == expected


@given(st.text(), st.text())
def test_a_value_is_inserted_as_it_is(before: str, value: str) -> None:
    plain = before.replace("{", "(").replace("}", ")")
    assert fill(f"{plain}{{question}}{plain}", {"question": value}) == plain + value + plain


def test_placeholders_leave_escapes_out() -> None:
    assert placeholders("{a}{{b}}{{{c}}}{a}{}") == ["a", "c", ""]


def columns(template: str) -> list[str]:
    return columns_in(template, COLUMNS, answer="answer", key="dataset.options.plain", where="q.jsonl")


def test_columns_of_a_template() -> None:
    assert columns(r"{question} {level of it} {problem} \boxed{} {{other}} {1}") == ["level of it", "problem"]


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (
            "{question} {contxt}",
            r"options.plain: {contxt} names no column of q.jsonl \(did you mean {context}\?",
        ),
        ("{qestion}", r"did you mean {question}\?"),
        ("{ question }", r"did you mean {question}\?"),
        (r"{question} \boxed{ANSWER}", "A placeholder is one of: question, problem, context, level of it; for literal"),
        (r"{question} \boxed{ANSWER}", "write {{ANSWER}}"),
        ("{question} {answer}", "{answer} would put the gold answer into the prompt"),
    ],
)
def test_a_placeholder_that_nothing_fills_is_refused(template: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        columns(template)
