"""Parquet in bounded memory: read batches, write row groups, and convert columns to Python values.

Nothing here knows what a column means.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import pyarrow as pa
import pyarrow.parquet as pq

from rlvr.errors import DataError

# Bounds of what is held in memory: a batch of rows, and a row group that is being filled.
BATCH_ROWS, BATCH_BYTES = 512, 2 << 20
ROW_GROUP_BYTES = 16 << 20

_MISFITS = (pa.ArrowException, OverflowError, TypeError, ValueError)


@contextmanager
def opened(path: Path) -> Iterator[pq.ParquetFile]:
    """Return the opened file. Raises DataError if it is no Parquet file, was never closed, or has two columns of one
    name."""
    try:
        file = pq.ParquetFile(path, buffer_size=1 << 20)
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path} is not a Parquet file (or its writer was killed before it closed the file): {error}"
        ) from error
    with file:
        names = file.schema_arrow.names
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise DataError(f"{path} has two columns called {twice[0]!r}: rename one of them")
        yield file


def batches_of(path: Path) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield `(number of its first row, from 1; rows)` for each batch.

    A batch holds at most `BATCH_ROWS` rows, and fewer where rows are large. Raises DataError for a damaged file.
    """
    with opened(path) as file:
        first = 1
        for group in range(file.num_row_groups):
            about = file.metadata.row_group(group)
            row_bytes = about.total_byte_size // max(1, about.num_rows) + 1
            size = max(1, min(BATCH_ROWS, BATCH_BYTES // row_bytes))
            try:
                # In one thread: more threads keep memory, and starting them takes as much time as they save.
                for batch in file.iter_batches(batch_size=size, row_groups=[group], use_threads=False):
                    yield first, batch
                    first += batch.num_rows
            except (pa.ArrowException, OSError) as error:
                raise DataError(f"{path} is damaged after row {first - 1}: {error}") from error
            pa.default_memory_pool().release_unused()  # decoding takes several times what it gives


class RowGroups:
    """Writes batches of one schema to `path`, gathered into row groups of about `ROW_GROUP_BYTES`."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        leaves = [leaf for field in schema for leaf in _leaves(field.type, field.name)]
        others = [leaf.path for leaf in leaves if not leaf.is_numbers]
        # Lists of numbers, such as token columns, have no dictionary, which takes a third of the time and half of the
        # memory of writing them, and no statistics, which no reader uses. Fractions go byte by byte: the exponents
        # compress. (With an encoding of its own for a column, a dictionary is named for all others.)
        fractions = {leaf.path: "BYTE_STREAM_SPLIT" for leaf in leaves if leaf.is_numbers and leaf.is_fraction}
        self._writer = pq.ParquetWriter(
            path,
            schema,
            compression="zstd",
            use_dictionary=others or False,
            write_statistics=others or False,
            column_encoding=fractions or None,
        )
        self._schema = schema
        self._held: list[pa.RecordBatch] = []
        self._bytes = 0

    def add(self, batch: pa.RecordBatch) -> None:
        """Append the batch's rows."""
        self._held.append(batch)
        self._bytes += batch.nbytes
        if self._bytes >= ROW_GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._held:
            table = pa.Table.from_batches(self._held, self._schema)
            self._writer.write_table(table, row_group_size=table.num_rows)
        self._held, self._bytes = [], 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        try:
            if kind is None:
                self._flush()
        finally:
            self._writer.close()
            pa.default_memory_pool().release_unused()  # encoding takes several times what it writes


class _Leaf(NamedTuple):
    """A column of a Parquet file: a field, or a field of a struct or a list."""

    path: str
    is_numbers: bool
    """Whether it holds the numbers of a list."""
    is_fraction: bool


def _leaves(kind: pa.DataType, path: str, *, in_list: bool = False) -> Iterator[_Leaf]:
    """Yield the columns that a field is stored in."""
    if pa.types.is_struct(kind):
        for part in kind:
            yield from _leaves(part.type, f"{path}.{part.name}", in_list=in_list)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        yield from _leaves(kind.value_type, f"{path}.list.element", in_list=True)
    else:
        fraction = pa.types.is_float32(kind) or pa.types.is_float64(kind)
        yield _Leaf(path, in_list and _is_number(kind), fraction)


# --- Python values --------------------------------------------------------------------------------------------------


def arrow_column(values: Sequence[Any], field: pa.Field, where: Callable[[int], str]) -> pa.Array:
    """Return the values as a column of the field's type. Raises DataError for a value that does not fit; `where(i)`
    names its row."""
    try:
        return pa.array(values, type=field.type)
    except _MISFITS:
        for i, value in enumerate(values):
            try:
                pa.array([value], type=field.type)
            except _MISFITS as error:
                raise DataError(f"{where(i)}: {field.name} does not fit Parquet: {_reason(error)}") from error
        raise


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeEncodeError):
        return (
            f"the text holds a lone surrogate ({error.object[error.start]!a}), which has no UTF-8; "
            "write .jsonl, or replace it"
        )
    if isinstance(error, OverflowError):
        return "an integer of more than 64 bits; write .jsonl, or make it text"
    return str(error)


def python_rows(batch: pa.RecordBatch, where: Callable[[int], str]) -> list[dict[str, Any]]:
    """Return the batch's rows as mappings of columns to plain Python values. Raises DataError for values without
    any."""
    columns: dict[str, list[Any]] = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            columns[name] = _python_values(column)
        except (*_MISFITS, KeyError) as error:  # a map with a key twice, a timestamp of nanoseconds
            raise unreadable(name, column, where, error) from error
    if not columns:
        return [{} for _ in range(batch.num_rows)]
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def unreadable(name: str, column: pa.Array, where: Callable[[int], str], error: Exception) -> DataError:
    """Return the error for a column that has no Python values, which names the first row that has none."""
    for row in range(len(column)):
        try:
            column[row].as_py(maps_as_pydicts="strict")
        except (*_MISFITS, KeyError):
            return DataError(f"{where(row)}: column {name!r} cannot be read: {error}")
    return DataError(f"{where(0)} and following: column {name!r} cannot be read: {error}")


def _python_values(column: pa.Array) -> list[Any]:
    """Do what `to_pylist` does, with maps as mappings, and ten times faster for lists of numbers."""
    kind = column.type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)) or not _is_number(kind.value_type):
        values: list[Any] = column.to_pylist(maps_as_pydicts="strict")
        return values
    offsets = column.offsets.to_pylist()
    flat = column.values.slice(offsets[0], offsets[-1] - offsets[0])
    numbers = flat.to_numpy(zero_copy_only=False).tolist() if flat.null_count == 0 else _with_nulls(flat)
    present = column.is_valid().to_pylist()
    base = offsets[0]
    return [
        numbers[start - base : stop - base] if is_present else None
        for start, stop, is_present in zip(offsets[:-1], offsets[1:], present, strict=True)
    ]


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def _with_nulls(flat: pa.Array) -> list[Any]:
    filled = flat.fill_null(False if pa.types.is_boolean(flat.type) else 0).to_numpy(zero_copy_only=False).tolist()
    present = flat.is_valid().to_numpy(zero_copy_only=False).tolist()
    return [value if is_present else None for value, is_present in zip(filled, present, strict=True)]
