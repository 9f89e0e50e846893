"""Foreign values as text and as JSON: the same rules for every input."""

from __future__ import annotations

import json
import math
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rlvr.record
from rlvr.data.prompts import load_source
from rlvr.data.tables import file_table
from rlvr.protocols import SourceRequest
from rlvr.record.item import item_of
from rlvr.record.rows import row_of
from rlvr.record.values import LiteralFloat, json_safe, json_text, number_text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (4.0, "4"),
        (-0.0, "-0"),
        (0.1, "0.1"),
        (1e-7, "1e-7"),
        (1e22, "1e+22"),
        (1e15, "1000000000000000"),
        (math.inf, "inf"),
        (math.nan, None),
        (True, "true"),
        (10**30, str(10**30)),
        (Decimal("0.10"), "0.10"),
        (Decimal("nan"), None),
        (LiteralFloat.read("0.10"), "0.10"),
    ],
)
def test_a_number_has_one_text(number: Any, text: str | None) -> None:
    assert number_text(number) == text


@given(st.floats(allow_nan=False))
def test_the_text_reads_as_the_number(number: float) -> None:
    text = number_text(number)
    assert text is not None
    assert float(text) == number
    assert math.copysign(1.0, float(text)) == math.copysign(1.0, number)
    assert len(text) <= len(repr(number))


@given(st.floats(width=32, allow_nan=False), st.floats(width=16, allow_nan=False))
def test_the_text_of_a_narrow_float_is_as_short_as_its_type_allows(single: float, half: float) -> None:
    for number, bits, kind in ((single, 32, np.float32), (half, 16, np.float16)):
        text = number_text(number, bits=bits)
        assert text is not None
        assert kind(text) == kind(number)
    assert number_text(float(np.float32(0.1)), bits=32) == "0.1"
    assert number_text(float(np.float16(0.1)), bits=16) == "0.1"


VALUES: dict[str, Any] = {
    "infinity": math.inf,
    "minus": [-math.inf, math.nan, 0.5],
    "day": date(2026, 1, 2),
    "when": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    "price": Decimal("0.10"),
    "raw": b"\x00\xff",
    "deep": {"a": [{"b": math.inf}]},
    "long": timedelta(seconds=90),
}
SAFE = {
    "infinity": "inf",
    "minus": ["-inf", None, 0.5],
    "day": "2026-01-02",
    "when": "2026-01-02T03:04:05+00:00",
    "price": "0.10",
    "raw": None,
    "deep": {"a": [{"b": "inf"}]},
    "long": "0:01:30",
}


def test_what_json_has_no_type_for_becomes_text_or_null() -> None:
    assert json_safe(VALUES) == SAFE
    assert json_safe({1: np.int64(2), "x": np.float32(0.5), "y": object()}) == {"1": 2, "x": 0.5, "y": None}
    assert json_text("text") is None


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.decimals() | st.dates() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.integers() | st.text(), inner),
    max_leaves=10,
)


@given(ANYTHING)
def test_json_can_hold_what_is_safe(value: Any) -> None:
    safe = json_safe(value)
    assert json.loads(json.dumps(safe, allow_nan=False)) == safe
    assert json_safe(safe) == safe


def test_extra_and_gold_are_the_same_by_every_door(tmp_path: Path) -> None:
    """Compares a Parquet file read for scoring, the same file read as prompts, and its rows as Python mappings."""
    path = tmp_path / "in.parquet"
    row = {"question": "q", "completion": "c", "answer": 7.0, **VALUES}
    pq.write_table(pa.Table.from_pylist([row]), path)
    (read,) = rlvr.record.open(path)
    scored = item_of(read, wants_rollout=False).task
    asked = load_source(str(path), SourceRequest("train", chat=False, seed=0))[0].task
    given = item_of(row_of(row, "row 1"), wants_rollout=False).task
    expected = {"question": "q", **SAFE}
    assert scored.extra == given.extra == expected
    assert {**asked.extra, "question": "q"} == {**expected, "completion": "c"}
    assert scored.answer == asked.answer == given.answer == "7"


def test_a_gold_of_lines_is_the_same_for_scoring_and_for_prompts(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    literals = ["0.10", "1e-7", "1E+400", "-0.0", "3.0", "18", "123456789012345678901234567890"]
    path.write_text("".join(f'{{"question": "q", "answer": {literal}}}\n' for literal in literals))
    table = file_table(path)
    assert [row.gold for row in rlvr.record.open(path)] == literals
    assert [table.text("answer", i, table.rows[i]["answer"]) for i in range(len(literals))] == literals
