"""The record, its files, and foreign rows: all that travels between sampling, scoring, storing and training.

    import rlvr.record

    for row in rlvr.record.open("rollouts/*.parquet"):
        print(row.id, row.completion, row.gold)

`open` and `Row` are imported when they are first used: reading files needs pyarrow, the record does not.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlvr.record.reading import open as open  # noqa: A004
    from rlvr.record.rows import Row as Row

_HOME = {"Row": "rlvr.record.rows", "open": "rlvr.record.reading"}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'rlvr.record' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
