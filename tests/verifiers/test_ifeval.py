"""The verifier `ifeval`: 25 instructions in two dialects, the functions of RLVR-IFeval, and the layouts of rows.

`reference` in the labeled cases is the verdict of lm-eval 0.4.13 on the same row, strict.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr import Status, Task, Verdict
from rlvr_verifiers.ifeval import check, variants
from rlvr_verifiers.ifeval.functions import FUNCTIONS
from rlvr_verifiers.ifeval.instructions import INSTRUCTIONS, Instruction
from rlvr_verifiers.ifeval.reference import REFERENCE
from rlvr_verifiers.ifeval.texts import sentences

CASES = Path(__file__).parents[2] / "verifiers" / "ifeval" / "cases.jsonl"
ROWS = [json.loads(line) for line in CASES.read_text(encoding="utf-8").splitlines()]


def row(*instructions: tuple[str, Mapping[str, Any]]) -> Task:
    names, arguments = zip(*instructions, strict=True)
    return Task(extra={"instruction_id_list": list(names), "kwargs": [dict(each) for each in arguments]})


def followed(text: str, *instructions: tuple[str, Mapping[str, Any]], **options: Any) -> float | str:
    verdict = check(text, row(*instructions), **options)
    return verdict.status.value if verdict.reward is None else verdict.reward


NO_COMMA = ("punctuation:no_comma", {"num_words": None})
TITLE = ("detectable_format:title", {})


def test_every_instruction_has_cases_of_both_kinds() -> None:
    found = {(each["instruction_id_list"][0], each["expected"]) for each in ROWS if "instruction_id_list" in each}
    assert {name for name, _ in found} == INSTRUCTIONS.keys() == REFERENCE.keys()
    assert len(found) == 2 * 25 == 2 * len(FUNCTIONS)


def test_the_reference_dialect_has_the_reference_s_verdicts() -> None:
    compared = [each for each in ROWS if "reference" in each]
    assert len(compared) > 130
    for each in compared:
        task = Task(extra={key: each[key] for key in ("instruction_id_list", "kwargs")})
        assert (check(each["completion"], task, dialect="reference").reward == 1) is each["reference"], each
    assert sum(each["reference"] is not each["expected"] for each in compared) > 20  # the mistakes that are not copied


def test_levels_and_parts() -> None:
    assert followed("<<a>> b, c", NO_COMMA, TITLE) == 0
    assert followed("<<a>> b, c", NO_COMMA, TITLE, level="instruction") == 0.5
    parts = check("<<a>> b, c", row(NO_COMMA, TITLE, NO_COMMA)).parts or {}
    assert {name: part.reward for name, part in parts.items()} == {
        "punctuation:no_comma": 0,
        "detectable_format:title": 1,
        "punctuation:no_comma (3)": 0,
    }


def test_the_loose_mode_tries_eight_texts() -> None:
    text = "Sure, here it is:\n*<<a>>*\nI hope, it helps"
    assert list(variants("a\n*b*\nc")) == ["a\n*b*\nc", "a\nb\nc", "*b*\nc", "b\nc", "a\n*b*", "a\nb", "*b*", "b"]
    assert followed(text, NO_COMMA) == 0
    assert followed(text, NO_COMMA, TITLE, mode="loose") == 1
    assert followed("one, line", NO_COMMA, mode="loose") == 0


@pytest.mark.parametrize("text", ["", " \n", "<think>a</think>"])
def test_an_empty_answer_follows_nothing(text: str) -> None:
    assert followed(text, NO_COMMA) == followed(text, NO_COMMA, mode="loose") == 0
    assert followed("<think>a", NO_COMMA) == "unparsed"
    assert followed("a " * 60_000, NO_COMMA) == "unparsed"


@pytest.mark.parametrize(
    "answer",
    [
        '{"func_name": "validate_no_commas", "N": null}',
        '[{"instruction_id": ["punctuation:no_comma"], "kwargs": [null]}]',
        "[{'instruction_id': ['punctuation:no_comma'], 'kwargs': [None]}]",
        json.dumps([json.dumps({"instruction_id": ["punctuation:no_comma"], "kwargs": [{"N": None}]})]),
    ],
)
def test_rows_in_the_layouts_of_data_sets(answer: str) -> None:
    assert check("a b", Task(answer=answer)).reward == 1
    assert check("a, b", Task(answer=answer)).reward == 0


@pytest.mark.parametrize(
    "task",
    [
        Task(),
        Task(answer="no JSON"),
        Task(answer="[]"),
        Task(answer='{"func_name": "os.system"}'),
        Task(answer='{"func_name": "verify_bullet_points", "N": null}'),
        Task(extra={"instruction_id_list": [], "kwargs": []}),
        Task(extra={"instruction_id_list": ["punctuation:no_comma"], "kwargs": []}),
        row(("punctuation:no_dots", {})),
        row(("keywords:existence", {"keywords": "river"})),
        row(("keywords:existence", {"keywords": [""]})),
        row(("keywords:frequency", {"keyword": "a", "frequency": 1, "relation": "about"})),
        row(("keywords:letter_frequency", {"letter": "ab", "let_frequency": 1, "let_relation": "at least"})),
        row(("length_constraints:number_words", {"num_words": True, "relation": "at least"})),
        row(("length_constraints:number_words", {"num_words": 2.5, "relation": "at least"})),
    ],
)
def test_a_row_without_usable_instructions_is_invalid(task: Task) -> None:
    assert check("a", task).status is Status.INVALID


def test_integers_may_have_become_floats_and_zero_counts() -> None:
    assert followed("a b", ("length_constraints:number_words", {"num_words": 2.0, "relation": "at least"})) == 1
    assert followed("a b", ("detectable_format:number_bullet_lists", {"num_bullets": 0})) == 1
    assert followed("* a", ("detectable_format:number_bullet_lists", {"num_bullets": 0})) == 0


def test_a_keyword_that_is_no_pattern_only_matters_to_the_reference() -> None:
    task = row(("keywords:existence", {"keywords": ["c++"]}))
    assert check("I like C++ a lot", task).reward == 1
    assert check("I like C++ a lot", task, dialect="reference").status is Status.INVALID


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("...", 0),
        ("One", 1),
        ("One. Two", 2),
        ("He is 3.5 m tall, e.g. here. Yes!", 2),
        ("J. R. R. Tolkien wrote it. So did I. Really?!", 3),
        ("It was 5 p.m. yesterday. It was 5 p.m. Then it rained.", 3),
        ('"So it is." He left.', 2),
        ("是的。不是！", 2),
        ("Wait... what?", 2),
        ("A title\n\nA sentence\nover two lines.", 2),
    ],
)
def test_sentences(text: str, count: int) -> None:
    assert sentences(text) == count


ARGUMENTS = {str: st.sampled_from(["a", "Section", "P.S.", "en", "at least", "around"]), int: st.integers(-1, 3)}
TEXTS = st.text("aA1 .,!?\n*#\"'<>[]{}`-:Ss", max_size=40)


@settings(max_examples=30)
@given(st.data(), TEXTS)
def test_every_check_gives_a_verdict_on_any_text(data: st.DataObject, text: str) -> None:
    table: Mapping[str, Instruction] = data.draw(st.sampled_from([INSTRUCTIONS, FUNCTIONS]))
    name = data.draw(st.sampled_from([*table]))
    arguments = {
        key: data.draw(ARGUMENTS[kind] if kind in ARGUMENTS else st.lists(ARGUMENTS[str], max_size=2))
        for key, kind in table[name].arguments.items()
    }
    task = (
        row((name, arguments)) if table is INSTRUCTIONS else Task(answer=json.dumps({"func_name": name, **arguments}))
    )
    for verdict in (check(text, task), check(text, task, dialect="reference", mode="loose")):
        assert isinstance(verdict, Verdict)
        assert verdict.status in (Status.GRADED, Status.INVALID)


HOSTILE = ["[" * 90_000, "*" * 90_000, "\n" * 90_000, "<<" * 45_000, " p." * 30_000, "a." * 45_000, "``` " * 20_000]


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: repr(text[:4]))
def test_long_texts_take_linear_time(text: str) -> None:
    """A quadratic check would take minutes on one of these."""
    everything = [each for each in ROWS if "instruction_id_list" in each and each["expected"]]
    tasks = {each["instruction_id_list"][0]: each for each in everything if "language" not in str(each)}
    for each in tasks.values():
        task = Task(extra={key: each[key] for key in ("instruction_id_list", "kwargs")})
        for dialect in ("careful", "reference"):
            check(text, task, dialect=dialect)
