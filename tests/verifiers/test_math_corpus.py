"""The whole labeled corpus: no false positives, and only the false negatives listed here."""

from __future__ import annotations

import json
from collections import Counter
from importlib.resources import files
from typing import Any

import pytest

from rlvr import Task
from rlvr_verifiers.math import check

CORPUS = files("rlvr_verifiers.math") / "corpus.jsonl"
ROWS: list[dict[str, Any]] = [json.loads(line) for line in CORPUS.read_text("utf-8").splitlines()]
# A formula inside of a remark's words.
KNOWN_FALSE_NEGATIVES = {("4", r"4 \text{ (since } x>0)")}


def completion(row: dict[str, Any]) -> str:
    return f"\\boxed{{{row['pred']}}}" if row["form"] == "bare" else row["pred"]


def test_every_category_has_both_verdicts_and_there_are_enough_pairs() -> None:
    assert len(ROWS) >= 600
    verdicts = Counter((row["category"], row["expected"]) for row in ROWS)
    for category in {row["category"] for row in ROWS}:
        assert verdicts[category, True]
        assert verdicts[category, False]


def test_no_pair_stands_twice() -> None:
    counted = Counter((row["gold"], row["pred"], row["form"]) for row in ROWS)
    assert [pair for pair, count in counted.items() if count > 1] == []


@pytest.mark.parametrize("category", sorted({row["category"] for row in ROWS}))
def test_verdicts(category: str) -> None:
    wrong = {
        (row["gold"], row["pred"])
        for row in ROWS
        if row["category"] == category
        and (check(completion(row), Task(answer=row["gold"])).reward == 1.0) != row["expected"]
    }
    assert wrong - KNOWN_FALSE_NEGATIVES == set()


def test_the_gold_answer_accepts_itself() -> None:
    golds = {row["gold"] for row in ROWS}
    rejected = {gold for gold in golds if check(f"\\boxed{{{gold}}}", Task(answer=gold)).reward != 1.0}
    assert rejected == {"\\frac{1}{2"}


def test_formatting_around_the_answer_does_not_matter() -> None:
    wrong = []
    for row in ROWS:
        if row["form"] != "bare" or not row["expected"] or (row["gold"], row["pred"]) in KNOWN_FALSE_NEGATIVES:
            continue
        if row["pred"].endswith("\\") or row["pred"].count("$") % 2:
            continue
        for form in ("Thus\n\n\\[ \\boxed{%s} \\]", "<think>\\boxed{0}</think>\n\\boxed{ %s }.", "$\\fbox{%s}$"):
            if check(form.replace("%s", row["pred"]), Task(answer=row["gold"])).reward != 1.0:
                wrong.append((form, row["gold"], row["pred"]))  # noqa: PERF401
    assert wrong == []


def test_equality_is_symmetric_where_neither_side_is_rounded() -> None:
    wrong = []
    for row in ROWS:
        pair = row["gold"] + row["pred"]
        if (
            row["form"] != "bare"
            or "." in pair
            or "\\sum" in pair
            or "\\prod" in pair
            or row["category"]
            in ("multiple choice", "stated values", "times and dates", "golds as found", "words beside a value")
        ):
            # a decimal states a precision; a sum restates the question; a letter stands for its text; a value that is
            # stated as an equation is more than an equation's right-hand side; a gold date may leave its year out;
            # a gold may be a sentence or a quotation, which is not how an answer is written; words that only the
            # gold has may be left out
            continue
        there = check(f"\\boxed{{{row['pred']}}}", Task(answer=row["gold"]), unevaluated=True)
        back = check(f"\\boxed{{{row['gold']}}}", Task(answer=row["pred"]), unevaluated=True)
        if (there.reward == 1.0) != (back.reward == 1.0):
            wrong.append((row["gold"], row["pred"]))
    assert wrong == []
