"""Ids for rows that have none, made from their content, so that sidecars and two files can be matched."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from typing import Any

from rlvr.files import to_json
from rlvr.record.rows import Row, messages_of
from rlvr.record.values import json_safe


class ContentIds:
    """Ids of the rows of one or several files, in their order.

    An id is a hash of the row's prompt and completion. It does not depend on the file's format, on other columns or on
    scores. Rows that are equal get an ordinal, the first none: `c-4f0e…`, `c-4f0e…-2`.
    """

    def __init__(self) -> None:
        self._seen: Counter[bytes] = Counter()

    def next(self, row: Row) -> str | None:
        """Return the id of the next row; None if it has neither a prompt nor a completion."""
        content = [_content(row, row.columns[target]) for target in ("prompt", "completion")]
        if content == [None, None]:
            return None
        key = hashlib.sha256(to_json(content).encode()).digest()[:16]
        self._seen[key] += 1
        count = self._seen[key]
        return f"c-{key.hex()}" if count == 1 else f"c-{key.hex()}-{count}"


def _content(row: Row, column: str) -> Any:
    """Return a value in the form that JSON lines and Parquet share: a chat without the nulls that Parquet adds, a
    number as text."""
    value = row.at(column)
    if not isinstance(value, str) and column in row.literals:
        return row.literals[column]
    try:
        return _without_nulls(json_safe(messages_of(value) or value))
    except RecursionError:
        return "nested too deeply"


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nulls(value[key]) for key in sorted(value) if value[key] is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value
