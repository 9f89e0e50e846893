"""Arrow types for columns of JSON values, chosen so that the conversion changes no value.

pyarrow's own inference looks at one batch, and turns a bool among fractions into 1.0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from rlvr.errors import DataError
from rlvr.files import kind_of

MAX_KEYS = 1000
"""Objects with more distinct keys than this have data as keys, not columns."""

MAX_DEPTH = 50
"""Deepest nesting that readers of Parquet accept."""

_EXACT = 2**53  # every whole number up to here is a float64
_ADVICE = "write .jsonl instead"


class MisfitError(Exception):
    """The values of one column do not fit one Arrow type."""


class ColumnTypes:
    """Columns of JSON objects, inferred from all objects one after the other."""

    def __init__(self) -> None:
        self._columns: dict[str, _Type] = {}

    def see(self, values: Mapping[str, Any], where: str) -> None:
        """Take one object into account. Raises DataError, naming the column, if no type fits all its values so far."""
        for name, value in values.items():
            try:
                _see(self._columns, name, value, 0)
            except MisfitError as error:
                raise DataError(f"{where}: Parquet cannot hold the column {name!r}: {error}; {_ADVICE}") from error

    def schema(self, where: str) -> pa.Schema:
        """Return the schema, with columns in the order of their first appearance. Raises DataError for a column without
        a type."""
        fields = []
        for name, column in self._columns.items():
            try:
                fields.append(pa.field(name, column.arrow()))
            except MisfitError as error:
                raise DataError(f"{where}: Parquet cannot hold the column {name!r}: {error}; {_ADVICE}") from error
        return pa.schema(fields)


def _see(types: dict[str, _Type], name: str, value: Any, depth: int) -> None:
    if name not in types:
        if len(types) == MAX_KEYS:
            raise MisfitError(f"there are more than {MAX_KEYS} different keys")
        types[name] = _Type()
    types[name].see(value, depth)


class _Type:
    """Type of the values seen so far."""

    def __init__(self) -> None:
        self._kind: type | None = None  # bool, int, float, str, list or dict
        self._widest = 0  # magnitude of the largest whole number
        self._items: _Type | None = None
        self._fields: dict[str, _Type] = {}

    def see(self, value: Any, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise MisfitError(f"nested more than {MAX_DEPTH} deep")
        if value is None:
            return
        kind = type(value)
        if {kind, self._kind} == {int, float}:
            kind = self._kind = float
        if self._kind not in (None, kind):
            raise MisfitError(f"{kind_of(value)} here, {kind_of(self._kind())} before")
        self._kind = kind
        if isinstance(value, int) and kind is not bool:
            self._widest = max(self._widest, abs(value))
            if not -(2**63) <= value < 2**63:
                raise MisfitError("a whole number of more than 64 bits")
        elif isinstance(value, str) and not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError as error:
                raise MisfitError(f"text with a lone surrogate, {value[error.start]!a}, which has no UTF-8") from error
        elif isinstance(value, list):
            self._items = self._items or _Type()
            for item in value:
                self._items.see(item, depth + 1)
        elif isinstance(value, dict):
            for name, item in value.items():
                _see(self._fields, name, item, depth + 1)
        if self._kind is float and self._widest > _EXACT:
            raise MisfitError(f"a whole number beyond 2^53 ({self._widest}) among fractions")

    def arrow(self) -> pa.DataType:
        if self._kind is list:
            return pa.list_(self._items.arrow() if self._items is not None else pa.null())
        if self._kind is dict:
            if not self._fields:
                raise MisfitError("all its objects are empty")
            return pa.struct([pa.field(name, part.arrow()) for name, part in self._fields.items()])
        if self._kind is None:
            return pa.null()
        return {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string()}[self._kind]
