"""Rows with new scores, in each output format: `scores` gets new entries, every other column is unchanged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import pyarrow as pa

from rlvr.errors import DataError
from rlvr.files import ending, to_json, writing_lines
from rlvr.record.column_types import ColumnTypes
from rlvr.record.gold_join import answered_schema
from rlvr.record.lines import Line, Member, line_of
from rlvr.record.parquet import RowGroups, arrow_column
from rlvr.record.reading import ArrowBatch, Batch, LineBatch
from rlvr.record.row_files import arrow_schema, format_of
from rlvr.record.rows import scores_in
from rlvr.record.schema import Score, Status
from rlvr.record.store import ROLLOUT_SCHEMA, SCORES, record_batch, rollout_of, rows_of
from rlvr.record.values import json_safe, json_text
from rlvr.rescore.journal import Scores

# Placeholder for the new score while a file is checked.
_SAMPLE = Score(
    status=Status.GRADED, reward=0.5, extracted="", reason="", verifier="", version="", seconds=0.5, created_at=""
)


# --- rows with new scores -------------------------------------------------------------------------------------------


def line_with(line: Line, scores: Sequence[Score]) -> str:
    """Return the line with new scores and all other characters unchanged. Raises DataError if its scores are no
    list."""
    new = ", ".join(to_json(score.model_dump(mode="json")) for score in scores)
    found = _scores_of(line)
    if found is None:
        separator = ", " if line.values else ""
        return f'{line.text[:-1].rstrip()}{separator}"scores": [{new}]}}'
    old = line.text[found.start : found.end]
    all_of_them = f"[{new}]" if found.value is None else f"{old[:-1].rstrip()}{', ' if found.value else ''}{new}]"
    return f"{line.text[: found.start]}{all_of_them}{line.text[found.end :]}"


def _scores_of(line: Line) -> Member | None:
    """Return the line's scores, if it has the column. Raises DataError if they are no list of scores."""
    found = line.member("scores")
    if found is not None:
        scores_in(found.value, line.where)
    return found


def schema_with_scores(schema: pa.Schema, where: str) -> pa.Schema:
    """Return the schema with a column of scores: the present one, widened, or a new one at the end.

    Raises DataError for a column `scores` of another kind.
    """
    place = schema.get_field_index("scores")
    if place < 0:
        return schema.append(pa.field("scores", SCORES))
    there = schema.field(place)
    widened = _widened(there.type)
    try:
        pa.array([[_SAMPLE.model_dump(mode="json")]], type=widened)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise DataError(f"{where}: the column 'scores' is {there.type} and not a list of scores: rename it") from error
    return schema.set(place, there.with_type(widened).with_nullable(True))


def _widened(kind: pa.DataType) -> pa.DataType:
    """Return the type that holds what `kind` holds and our scores. A column without values may have lost its type."""
    if pa.types.is_null(kind) or (pa.types.is_list(kind) and pa.types.is_null(kind.value_type)):
        return SCORES
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if not is_list or not pa.types.is_struct(kind.value_type):
        return kind
    ours = {part.name: part for part in SCORES.value_type}
    parts = [ours[part.name] if pa.types.is_null(part.type) and part.name in ours else part for part in kind.value_type]
    missing = [part for name, part in ours.items() if name not in {part.name for part in parts}]
    make = pa.large_list if pa.types.is_large_list(kind) else pa.list_
    return make(pa.struct([*parts, *missing]))


def batch_with(batch: pa.RecordBatch, scores: Sequence[Sequence[Score]], schema: pa.Schema) -> pa.RecordBatch:
    """Return the batch with new scores. `schema` is that of `schema_with_scores`, and may have further columns."""
    new = [
        [{key: _utf8(value) for key, value in score.model_dump(mode="json").items()} for score in row] for row in scores
    ]
    place = batch.schema.get_field_index("scores")
    old: list[Any] = [None] * len(new) if place < 0 else batch.column(place).to_pylist()
    both = [[*(before or ()), *after] for before, after in zip(old, new, strict=True)]
    columns = {name: batch.column(i) for i, name in enumerate(batch.schema.names)}
    columns["scores"] = pa.array(both, schema.field("scores").type)
    arrays = []
    for column in schema:
        array = columns.get(column.name)
        if array is None or (pa.types.is_null(array.type) and array.type != column.type):
            array = pa.nulls(len(new), column.type)
        arrays.append(array)
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _utf8(value: Any) -> Any:
    """Return text that Parquet can hold: a lone surrogate in a verifier's text becomes its escape."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


# --- from one format to the other -----------------------------------------------------------------------------------


def lines_from(batch: ArrowBatch, changed: Counter[str] | None = None) -> Iterator[Line]:
    """Yield the rows as lines of JSON.

    Values without a JSON type become text or null (`rlvr.record.values.json_safe`): NaN and bytes are null, infinity
    and time spans text. `changed` counts such values by column.
    """
    counts: Counter[str] = Counter() if changed is None else changed
    for i, values in enumerate(rows_of(batch.batch, batch.where)):
        where = batch.where(i)
        try:
            text = to_json(values, _exact_text)
        except (ValueError, TypeError):
            text = to_json({name: _json_value(name, value, counts, where) for name, value in values.items()})
        yield line_of(text, where)


def _exact_text(value: Any) -> str:
    """Return what `json` writes for a value that it does not know. Raises TypeError if there is no text for it."""
    if (text := json_text(value)) is None or isinstance(value, timedelta):
        raise TypeError(f"a value of type {type(value).__name__}")
    return text


def _json_value(name: str, value: Any, changed: Counter[str], where: str) -> Any:
    try:
        to_json(value, _exact_text)
    except (ValueError, TypeError):
        changed[name] += 1
    try:
        return json_safe(value)
    except RecursionError as error:
        raise DataError(f"{where}: the column {name!r} is nested too deeply for JSON") from error


# --- outputs --------------------------------------------------------------------------------------------------------


Write: TypeAlias = Callable[[Batch, Sequence[Scores]], object]
"""Appends a batch of rows, each with its scores."""


class Output(Protocol):
    """An output format. Every batch passes `check` before `writing` begins."""

    def check(self, batch: Batch) -> None:
        """Inspect a batch that will be written. Raises DataError for a row that the format cannot hold."""

    def notes(self) -> list[str]:
        """Return notes for the user on the checked batches."""

    def writing(self, path: Path) -> AbstractContextManager[Write]:
        """Open `path` for writing; it is closed when the block ends."""


class JsonLinesOutput:
    """JSON lines. A row that was a line keeps its text."""

    def __init__(self, name: Path) -> None:
        """Take the file's final name, whose ending says whether it is compressed."""
        self._name = name
        self._changed: Counter[str] = Counter()

    def check(self, batch: Batch) -> None:
        """See `Output`."""
        for line in batch.lines if isinstance(batch, LineBatch) else lines_from(batch, self._changed):
            _scores_of(line)

    def notes(self) -> list[str]:
        """See `Output`."""
        if not self._changed:
            return []
        columns = ", ".join(f"{name} ({count:,})" for name, count in self._changed.items())
        return [
            f"{self._name}: JSON has no NaN, infinity, time spans or bytes: they are written as null or text, in the "
            f"columns (rows): {columns}; .parquet keeps them"
        ]

    @contextmanager
    def writing(self, path: Path) -> Iterator[Write]:
        """See `Output`."""
        with writing_lines(path, self._name) as file:
            yield lambda batch, scores: file.writelines(self._encode(batch, scores))

    @staticmethod
    def _encode(batch: Batch, scores: Sequence[Scores]) -> Iterator[str]:
        lines = batch.lines if isinstance(batch, LineBatch) else lines_from(batch)
        for line, new in zip(lines, scores, strict=True):
            yield line_with(line, new) + "\n"


class ParquetOutput:
    """Parquet. Columns of Parquet files keep their types, records have the columns of the record.

    Rows of several files have the columns of all files; columns of one name have one type.
    """

    def __init__(self, sources: Sequence[Path], *, answered: bool = False) -> None:
        """Take the files that the rows are from; without files, the rows are lines.

        `answered` rows have been joined with gold answers.
        """
        self._sources, self._answered = sources, answered
        self._types = ColumnTypes()
        self._kinds: set[bool] = set()  # whether the lines are records
        self._upgrades = False  # whether records of other schema versions are written in the columns of this one

    def notes(self) -> list[str]:
        """See `Output`."""
        return []

    def check(self, batch: Batch) -> None:
        """See `Output`. Arrow columns need no check beyond that of their schema."""
        if isinstance(batch, ArrowBatch):
            return
        for line in batch.lines:
            is_record = line.values.get("schema_version") is not None
            self._kinds.add(is_record)
            if len(self._kinds) > 1:
                raise DataError(
                    f"{line.where} is {'a record' if is_record else 'no record'}, unlike the rows before: "
                    "a Parquet file has one set of columns; write .jsonl instead"
                )
            if not is_record:
                self._types.see(line.values, line.where)
                _scores_of(line)
        if self._kinds == {True}:
            self._records(batch)

    @contextmanager
    def writing(self, path: Path) -> Iterator[Write]:
        """See `Output`."""
        lines = ROLLOUT_SCHEMA if self._kinds == {True} else self._types.schema(", ".join(map(str, self._sources)))
        schema = self._schema(lines)
        with RowGroups(path, schema) as groups:
            yield lambda batch, scores: groups.add(batch_with(self._arrow(batch, lines), scores, schema))

    def _schema(self, lines: pa.Schema) -> pa.Schema:
        """Return the columns of all sources, and scores. Records of several schema versions have those of this one."""
        schema = None
        found = [self._columns(source, lines) for source in self._sources]
        if any(columns != found[0] for columns in found) and all("schema_version" in each.names for each in found):
            self._upgrades = True
            return schema_with_scores(ROLLOUT_SCHEMA, str(self._sources[0]))
        for source in self._sources or (None,):
            columns = lines if source is None else self._columns(source, lines)
            columns = schema_with_scores(columns, str(source))
            try:
                schema = columns if schema is None else pa.unify_schemas([schema, columns])
            except pa.ArrowException as error:
                raise DataError(
                    f"{source} does not fit into one Parquet file with the files before it ({error}); write .jsonl, or "
                    "give a folder (--out FOLDER/) for a file each"
                ) from error
        return schema

    def _columns(self, source: Path, lines: pa.Schema) -> pa.Schema:
        if format_of(source) not in (".parquet", ".arrow"):
            return lines
        return answered_schema(arrow_schema(source)) if self._answered else arrow_schema(source)

    def _arrow(self, batch: Batch, columns: pa.Schema) -> pa.RecordBatch:
        if isinstance(batch, ArrowBatch) and self._upgrades:
            rows = enumerate(rows_of(batch.batch, batch.where))
            return record_batch([rollout_of(values, batch.where(i)) for i, values in rows], batch.where)
        if isinstance(batch, ArrowBatch):
            return batch.batch
        if self._kinds == {True}:
            return self._records(batch)
        lines = batch.lines
        arrays = [
            arrow_column([line.values.get(column.name) for line in lines], column, lambda i: lines[i].where)
            for column in columns
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=columns)

    @staticmethod
    def _records(batch: LineBatch) -> pa.RecordBatch:
        lines = batch.lines
        return record_batch([rollout_of(line.values, line.where) for line in lines], lambda i: lines[i].where)


def output_for(sources: Sequence[Path], path: Path, *, answered: bool = False) -> Output:
    """Return the format that the ending of `path` says. Raises RequestError for an unknown ending."""
    return ParquetOutput(sources, answered=answered) if ending(path) == ".parquet" else JsonLinesOutput(path)
