"""Files as rows: records and foreign files alike, upgraded to this schema version and joined with sidecars.

`open` is the one way to read a row. A writer that must keep what it does not understand reads batches instead, which
hold the rows as they stand in the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa

from rlvr.errors import DataError, RequestError, nearest
from rlvr.files import decoded, raw_lines_of
from rlvr.record.content_ids import ContentIds
from rlvr.record.foreign_formats import Layout, columns_of, layout_of
from rlvr.record.lines import Line, line_of
from rlvr.record.parquet import BATCH_BYTES, BATCH_ROWS, unreadable
from rlvr.record.paths import at_path, heads
from rlvr.record.row_files import arrow_batches, arrow_schema, csv_texts, format_of, json_texts, row_file, row_files
from rlvr.record.rows import BY_NAME, TARGETS, Columns, Row
from rlvr.record.sidecar import Sidecars
from rlvr.record.store import rows_of, upgrade
from rlvr.record.values import json_text, number_text

# --- rows -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Source:
    """A file, and the columns that the targets of `rlvr.record.rows.TARGETS` stand in."""

    path: Path
    columns: Columns = field(default_factory=lambda: BY_NAME)
    layout: Layout | None = None
    """The format of another framework that was recognized."""


def source_of(path: Path, mapping: Mapping[str, str] | None = None) -> Source:
    """Return the file with its columns: those of `mapping`, else those of the format of the file, else by name.

    Args:
        path: A file or folder of rows (`rlvr.record.row_files`).
        mapping: Target → column, or path into a column.

    Raises RequestError for an unknown target, DataError for a file that cannot be read.
    """
    for target in mapping or ():
        if target not in TARGETS:
            raise RequestError(f"there is no target {target!r}{nearest(target, TARGETS)}")
    names = _column_names(path)
    layout = layout_of(names)
    return Source(path, columns_of(layout, names, mapping), layout)


def _column_names(path: Path) -> set[str]:
    """Return the columns of a file; of lines, those of as many batches as it takes to recognize the format."""
    if format_of(row_file(path)) in _ARROW:
        return set(arrow_schema(path).names)
    names: set[str] = set()
    for batch in read_batches(path, on_bad_line=lambda error: None):
        names.update(batch.names)
        if "schema_version" in names or {"completion", "answer"} <= names or layout_of(names) is not None:
            break
    return names


def open(  # noqa: A001
    files: str | Path | Iterable[str | Path],
    *,
    mapping: Mapping[str, str] | None = None,
    sidecars: str | Path | Iterable[str | Path] = (),
    without: frozenset[str] = frozenset(),
    only: frozenset[str] | None = None,
) -> Iterator[Row]:
    """Yield every row of the files, in order, holding one batch in memory.

    Args:
        files: Files, folders of files, or patterns; `.parquet`, `.jsonl` (also `.gz`, `.zst`), `.json`, `.csv`, folders
            of `Dataset.save_to_disk`, and `-` for standard input.
        mapping: Target → column of a foreign file, or path into one: `{"answer": "reward_model.ground_truth"}`. Files
            of TRL, verl and others are recognized.
        sidecars: Files of `rlvr score --scores-only`, whose scores follow the rows' own.
        without: Columns of records that are not needed; Parquet files are read without them.
        only: The columns that are needed; Parquet files are read without the others.

    Raises:
        RequestError: a file does not exist or has an unknown ending; raised at once.
        DataError: a row cannot be read, or a sidecar has no id of any row; raised when that is reached.
    """
    sources = [source_of(path, mapping) for path in row_files(_listed(files))]
    return _rows(sources, Sidecars(_listed(sidecars)), without, only)


def _listed(paths: str | Path | Iterable[str | Path]) -> Iterable[str | Path]:
    return [paths] if isinstance(paths, str | Path) else paths


def _rows(
    sources: Iterable[Source], beside: Sidecars, without: frozenset[str], only: frozenset[str] | None
) -> Iterator[Row]:
    ids = ContentIds()
    for source in sources:
        yield from read_rows(source, beside, without=without, only=only, ids=ids)
    beside.refuse_unused()


def read_rows(
    source: Source,
    beside: Sidecars | None = None,
    *,
    without: frozenset[str] = frozenset(),
    only: frozenset[str] | None = None,
    ids: ContentIds | None = None,
) -> Iterator[Row]:
    """Yield the rows of one file, with the scores of sidecars; see `open`.

    A row without an id gets the next one of `ids`, which the files of one request share.
    """
    ids = ContentIds() if ids is None else ids
    for batch in read_batches(source.path):
        wanted = only
        if only is not None and not batch.has_every(source.columns["id"]):
            wanted = only | {source.columns["prompt"], source.columns["completion"]}
        rows = with_ids(batch.rows(source.columns, without=without, only=wanted), ids)
        yield from rows if beside is None or not beside.paths else (row.joined(beside) for row in rows)


def with_ids(rows: Iterable[Row], ids: ContentIds) -> list[Row]:
    """Return the rows, those without an id of their own with one made from their content."""
    return [replace(row, made_id=ids.next(row)) if _lacks_id(row) else row for row in rows]


def _lacks_id(row: Row) -> bool:
    return not row.is_record and row.at(row.columns["id"]) is None


# --- batches --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LineBatch:
    """Consecutive lines of a file, as they are written."""

    lines: list[Line]
    ids: Sequence[str | None] | None = None
    """Ids made from the rows' content."""

    def __len__(self) -> int:
        return len(self.lines)

    def has_every(self, path: str) -> bool:
        """Return True: a line is parsed as a whole."""
        return True

    @property
    def names(self) -> Sequence[str]:
        """Columns of all lines."""
        return [*dict.fromkeys(name for line in self.lines for name in line.values)]

    def take(self, places: Sequence[int]) -> LineBatch:
        """Return the lines at these places."""
        return LineBatch([self.lines[place] for place in places], _taken(self.ids, places))

    def rows(
        self, columns: Columns = BY_NAME, *, without: frozenset[str] = frozenset(), only: frozenset[str] | None = None
    ) -> list[Row]:
        """Return the lines as rows. `without` and `only` change nothing: a line has been parsed as a whole."""
        return _with_made_ids([_line_row(line, columns) for line in self.lines], self.ids)


def _taken(ids: Sequence[str | None] | None, places: Sequence[int]) -> Sequence[str | None] | None:
    return None if ids is None else [ids[place] for place in places]


def _with_made_ids(rows: list[Row], ids: Sequence[str | None] | None) -> list[Row]:
    if ids is None:
        return rows
    return [row if made is None else replace(row, made_id=made) for row, made in zip(rows, ids, strict=True)]


def _line_row(line: Line, columns: Columns) -> Row:
    values = line.values
    if values.get("schema_version") is not None:
        return Row(line.where, upgrade(values, line.where), columns)
    numbers = {}
    for path in columns.values():
        value = values[path] if path in values else at_path(values, path)
        if isinstance(value, int | float):
            numbers[path] = line.literal(path)
    return Row(line.where, values, columns, numbers)


@dataclass(frozen=True)
class ArrowBatch:
    """Consecutive rows of a Parquet file, in the file's own types."""

    path: Path
    numbers: Sequence[int]
    """Number of each row in the file, from 1."""
    batch: pa.RecordBatch
    ids: Sequence[str | None] | None = None
    """Ids made from the rows' content."""

    def __len__(self) -> int:
        rows: int = self.batch.num_rows
        return rows

    @property
    def names(self) -> Sequence[str]:
        """Columns of the file."""
        names: list[str] = self.batch.schema.names
        return names

    def has_every(self, path: str) -> bool:
        """Return whether a column is there and has no null, so that no other column is needed in its place."""
        return path in self.names and self.batch.column(path).null_count == 0

    def where(self, i: int) -> str:
        """Return the place of row `i` of the batch, for messages."""
        return f"{self.path}, row {self.numbers[i]}"

    def _texts(self, name: str) -> list[str | None] | None:
        """Return `column_texts` of a column. Raises DataError for text that is not UTF-8."""
        column = self.batch.column(name)
        try:
            return column_texts(column)
        except UnicodeDecodeError as error:
            raise unreadable(name, column, self.where, error) from error

    def take(self, places: Sequence[int]) -> ArrowBatch:
        """Return the rows at these places."""
        numbers = [self.numbers[place] for place in places]
        return ArrowBatch(self.path, numbers, self.batch.take(pa.array(places)), _taken(self.ids, places))

    def rows(
        self, columns: Columns = BY_NAME, *, without: frozenset[str] = frozenset(), only: frozenset[str] | None = None
    ) -> list[Row]:
        """Return the rows as Python values.

        Args:
            columns: Target → column. The numbers of these columns have a text.
            without: Columns of records that are left out.
            only: Columns, or paths into columns, of any row that are read; None is all.
        """
        names = self.names
        unwanted = set(without.intersection(names)) if "schema_version" in names else set()
        if only is not None:
            unwanted |= set(names) - heads(only)
        wanted = self.batch.select([name for name in names if name not in unwanted]) if unwanted else self.batch
        texts = {
            name: column for name in columns.values() if name in names and (column := self._texts(name)) is not None
        }
        nested = [path for path in columns.values() if path not in names and not heads([path]).isdisjoint(names)]
        rows = []
        for i, values in enumerate(rows_of(wanted, self.where)):
            where = self.where(i)
            if values.get("schema_version") is not None:
                rows.append(Row(where, upgrade(values, where), columns))
                continue
            literals = {name: column[i] for name, column in texts.items()}
            for path in nested:
                if not isinstance(at_path(values, path), str | bytes | list | dict | None):
                    literals[path] = _nested_text(values, path, self.batch.schema)
            rows.append(Row(where, values, columns, literals))
        return _with_made_ids(rows, self.ids)


def column_texts(column: pa.Array) -> list[str | None] | None:
    """Return a column of numbers, bools or times as text; None for a column of text, bytes or lists."""
    kind = column.type
    if pa.types.is_floating(kind):
        return [None if value is None else number_text(value, bits=kind.bit_width) for value in column.to_pylist()]
    if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return None
    try:
        texts: list[str | None] = column.cast(pa.string()).to_pylist()
    except pa.ArrowException:
        return None
    return texts


def _nested_text(values: Mapping[str, Any], path: str, schema: pa.Schema) -> str | None:
    """Return a number or a time inside a column as text, a float as short as its own precision allows."""
    there = next(each for each in path.split("|") if at_path(values, each) is not None)
    value, kind = at_path(values, there), _kind_at(there, schema)
    if not isinstance(value, int | float | Decimal):
        return json_text(value)
    return number_text(value, bits=kind.bit_width if pa.types.is_floating(kind) else 64)


def _kind_at(path: str, schema: pa.Schema) -> pa.DataType:
    """Return the type at a path, as far as the path goes through Arrow types; JSON text has those of Python."""
    head, *parts = path.split(".")
    place = schema.get_field_index(head)
    kind = schema.field(place).type if place >= 0 else pa.null()
    for part in parts:
        if pa.types.is_struct(kind) and kind.get_field_index(part) >= 0:
            kind = kind.field(part).type
        elif pa.types.is_map(kind):
            kind = kind.item_type
        elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
            kind = kind.value_type
        else:
            break
    return kind


Batch = LineBatch | ArrowBatch


def _raise(error: DataError) -> None:
    raise error


def read_batches(path: Path, *, on_bad_line: Callable[[DataError], object] = _raise) -> Iterator[Batch]:
    """Yield the rows of a file in batches, none of them empty.

    Args:
        path: A file or folder of rows (`rlvr.record.row_files`).
        on_bad_line: Called for a line of JSON lines that is not an object. If it returns, the line is left out.

    Raises RequestError at once if there is no such file, DataError when a row is reached that cannot be read.
    """
    kind = format_of(row_file(path))
    if kind in _ARROW:
        return _arrow(path)
    return _in_batches(_lines(path, on_bad_line) if kind == ".jsonl" else _whole_lines(_TEXTS[kind](path)))


_ARROW = frozenset({".parquet", ".arrow"})
_TEXTS = {".json": json_texts, ".csv": csv_texts}


def _arrow(path: Path) -> Iterator[Batch]:
    return (
        ArrowBatch(path, range(first, first + batch.num_rows), batch)
        for first, batch in arrow_batches(path)
        if batch.num_rows
    )


def _in_batches(lines: Iterable[Line]) -> Iterator[Batch]:
    held: list[Line] = []
    size = 0
    for line in lines:
        held.append(line)
        size += len(line.text)
        if len(held) >= BATCH_ROWS or size >= BATCH_BYTES:
            yield LineBatch(held)
            held, size = [], 0
    if held:
        yield LineBatch(held)


def _whole_lines(texts: Iterable[tuple[str, str]]) -> Iterator[Line]:
    return (line_of(text.replace("\r", " ").replace("\n", " "), where) for where, text in texts)


def _lines(path: Path, on_bad_line: Callable[[DataError], object]) -> Iterator[Line]:
    is_first = True
    for where, raw in raw_lines_of(path):
        try:
            yield line_of(decoded(raw, where), where)
        except DataError as error:
            on_bad_line(DataError(f"{error}{_advice(raw, path)}") if is_first else error)
        is_first = False


def _advice(first: bytes, path: Path) -> str:
    """Return advice for a file whose first line is no row, if it looks like JSON of another kind."""
    named = f"{path.name.partition('.jsonl')[0]}.json"
    if first.startswith(b"["):
        return f": is the file one JSON array? Rename it to {named}"
    if first == b"{":
        return f": does each object take several lines? Rename it to {named}, or write one a line (jq -c .)"
    return ""
