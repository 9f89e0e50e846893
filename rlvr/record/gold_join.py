"""Gold answers from another file, joined with rows by a key: `rlvr score --gold FILE --on KEY`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from rlvr.errors import DataError, RequestError
from rlvr.files import kind_of, to_json
from rlvr.record.foreign_formats import suggestion
from rlvr.record.lines import Line, line_of
from rlvr.record.paths import paths_in
from rlvr.record.reading import ArrowBatch, Batch, LineBatch, Source, column_texts, read_rows, source_of
from rlvr.record.row_files import row_files
from rlvr.record.rows import TARGETS, Columns, Row
from rlvr.record.store import TOKEN_COLUMNS
from rlvr.record.values import number_text


@dataclass(frozen=True)
class GoldKey:
    """The columns, or paths into columns, whose values are equal in a row and in the row of its gold answer."""

    row: str
    gold: str

    @classmethod
    def parse(cls, text: str) -> GoldKey:
        """Read `KEY`, or `KEY=KEY_OF_THE_GOLD_FILE`. Raises RequestError for anything else."""
        row, equals, gold = text.partition("=")
        if not row or (equals and not gold):
            raise RequestError(f"--on {text}: write KEY, or KEY=KEY_OF_THE_GOLD_FILE")
        return cls(row, gold if equals else row)


class GoldAnswers:
    """The gold answers of a file by key, and counts of what was joined."""

    def __init__(self, file: str | Path, on: str, column: str | None = None) -> None:
        """Read all answers.

        Args:
            file: A file or folder of rows.
            on: `KEY`, or `KEY=KEY_OF_THE_GOLD_FILE`.
            column: Column of the answers, or path into one. None is that of the file's format, else `answer`.

        Raises RequestError for a wrong file, key or column, DataError for an answer that is no text or number.
        """
        self.key = GoldKey.parse(on)
        self.files = row_files([file])
        self._answers: dict[str, str | None] = {}
        self.doubles: set[str] = set()
        """Keys that several rows of the file have."""
        self.conflicts: set[str] = set()
        """Keys with several different answers; their rows get none."""
        self.joined = self.missing = self.keyless = 0
        """Rows that got an answer, that have a key without one, and that have no key."""
        self._used: set[str] = set()
        mapping = {} if column is None else {"answer": column}
        for path in self.files:
            self._read(source_of(path, mapping))
        if not self._answers:
            raise RequestError(f"--gold {file}: it has no rows")

    def _read(self, source: Source) -> None:
        keys = answers = 0
        names: dict[str, None] = {}
        for row in read_rows(source):
            names.update(dict.fromkeys(paths_in(row.values)))
            key, answer = key_of(row, self.key.gold), row.gold
            keys, answers = keys + (key is not None), answers + (answer is not None)
            if key is None:
                continue
            if key in self._answers:
                self.doubles.add(key)
                if self._answers[key] != answer:
                    self.conflicts.add(key)
            self._answers.setdefault(key, answer)
        if names and not keys:
            raise RequestError(f"--on: no row of {source.path} has {self.key.gold!r}; it has: {', '.join(names)}")
        if names and not answers:
            raise RequestError(
                f"--gold {source.path}: no row has the column {source.columns['answer']!r}{suggestion('answer', names)}"
            )

    def source(self, source: Source) -> Source:
        """Return the source for reading rows with joined answers; a row without a joined answer keeps its own."""
        own = source.columns["answer"]
        columns = Columns({**source.columns, "answer": own if own == "answer" else f"answer|{own}"})
        columns.group_suffix, columns.single = source.columns.group_suffix, source.columns.single
        return replace(source, columns=columns)

    def join(self, source: Source, batch: Batch) -> Batch:
        """Return the batch with the answers as a column `answer`, or as `task.answer` of records."""
        rows = batch.rows(source.columns, without=TOKEN_COLUMNS)
        answers = [self._answer(row) for row in rows]
        if isinstance(batch, LineBatch):
            lines = [_answered_line(*each) for each in zip(batch.lines, rows, answers, strict=True)]
            return LineBatch(lines, batch.ids)
        return replace(batch, batch=_answered_columns(batch, answers))

    def _answer(self, row: Row) -> str | None:
        name = self.key.row
        key = key_of(row, row.columns[name] if name in TARGETS and row.at(name) is None else name)
        if key is None:
            self.keyless += 1
            return None
        self._used.add(key)
        answer = None if key in self.conflicts else self._answers.get(key)
        self.joined += answer is not None
        self.missing += answer is None
        return answer

    def require_joined(self) -> None:
        """Raise RequestError if no row got an answer."""
        if not self.joined and (self.keyless or self.missing):
            why = f"no row has {self.key.row!r}" if not self.missing else f"none of the rows' {self.key.row!r} is there"
            raise RequestError(f"--gold {', '.join(map(str, self.files))}: {why}; --on names the key")

    def note(self) -> str:
        """Return the counts in one line."""
        rows = self.joined + self.missing + self.keyless
        parts = [f"gold answers joined on {self.key.row}: {self.joined:,} of {rows:,} rows"]
        if self.missing:
            parts.append(f"{self.missing:,} rows have a key without an answer there")
        if self.keyless:
            parts.append(f"{self.keyless:,} rows have no key")
        if self.doubles:
            differ = f", {len(self.conflicts):,} of them with different answers, which are not used"
            parts.append(f"{len(self.doubles):,} keys occur twice{differ if self.conflicts else ''}")
        if unused := len(self._answers.keys() - self._used):
            parts.append(f"{unused:,} answers belong to no row")
        return "; ".join(parts)


def key_of(row: Row, path: str) -> str | None:
    """Return the value at a path as text, so that 7 and "7" are one key. Raises DataError for an object or a list."""
    value = row.at(path)
    if isinstance(value, bool) or not isinstance(value, str | int | float | None):
        raise DataError(f"{row.where}: the key {path!r} is {kind_of(value)}: expected text or a number")
    return value if isinstance(value, str | None) else number_text(value)


def _answered_line(line: Line, row: Row, answer: str | None) -> Line:
    if answer is None:
        return line
    if row.is_record:
        task = line.values.get("task")
        return _with_member(line, "task", {**(task if isinstance(task, Mapping) else {}), "answer": answer})
    return _with_member(line, "answer", answer)


def _with_member(line: Line, name: str, value: Any) -> Line:
    """Return the line with a member replaced or appended, every other character as it was."""
    text = to_json(value)
    found = line.member(name)
    if found is not None:
        return line_of(line.text[: found.start] + text + line.text[found.end :], line.where)
    separator = ", " if line.values else ""
    return line_of(f"{line.text[:-1].rstrip()}{separator}{to_json(name)}: {text}}}", line.where)


def answered_schema(schema: pa.Schema) -> pa.Schema:
    """Return a schema with the column that `GoldAnswers.join` fills."""
    if "schema_version" in schema.names:
        return schema
    place = schema.get_field_index("answer")
    field = pa.field("answer", pa.string())
    return schema.append(field) if place < 0 else schema.set(place, field)


def _answered_columns(batch: ArrowBatch, answers: Sequence[str | None]) -> pa.RecordBatch:
    whole = batch.batch
    if "schema_version" in whole.schema.names:
        place = whole.schema.get_field_index("task")
        task = whole.column(place)
        parts = [
            _either(answers, task.field(i).to_pylist()) if part.name == "answer" else task.field(i)
            for i, part in enumerate(task.type)
        ]
        struct = pa.StructArray.from_arrays(parts, fields=list(task.type))
        return whole.set_column(place, whole.schema.field(place), struct)
    schema = answered_schema(whole.schema)
    old = column_texts(whole.column("answer")) if "answer" in whole.schema.names else None
    joined = _either(answers, old if old is not None else [None] * len(answers))
    arrays = [joined if field.name == "answer" else whole.column(field.name) for field in schema]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _either(answers: Sequence[str | None], old: Sequence[str | None]) -> pa.Array:
    return pa.array([was if new is None else new for new, was in zip(answers, old, strict=True)], pa.string())
