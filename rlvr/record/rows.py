"""Rows of any file, for scoring and for reading: records, and foreign rows with columns of their own.

A row with a `schema_version` is a record. In any other row, the columns called `completion`, `answer`, `prompt`, `id`
and `group_id`, or those that a mapping names instead, say what they say there; every other column is the row's own.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
from pydantic import BaseModel, ValidationError

from rlvr.errors import DataError, RequestError, nearest
from rlvr.files import decoded, ending, existing, from_json, json_faults, kind_of, raw_lines_of
from rlvr.record.item import Item
from rlvr.record.parquet import BATCH_BYTES, BATCH_ROWS, batches_of
from rlvr.record.schema import Rollout, Task
from rlvr.record.sidecar import Sidecars
from rlvr.record.store import field_faults, rollout_of, rows_of, upgrade

TARGETS = ("completion", "answer", "prompt", "id", "group_id")


class UnusableError(Exception):
    """This row cannot be verified, and says why; the rows around it can."""


def mapped(mappings: Iterable[str]) -> dict[str, str]:
    """Target -> column, from `TARGET=SOURCE` texts. Raises RequestError for a wrong one."""
    sources: dict[str, str] = {}
    for mapping in mappings:
        target, equals, source = mapping.partition("=")
        if not (target and equals and source):
            raise RequestError(f"--map {mapping}: write TARGET=SOURCE, for example completion=response")
        if target not in TARGETS:
            raise RequestError(f"--map {mapping}: there is no target {target!r}{nearest(target, TARGETS)}")
        if target in sources:
            raise RequestError(f"--map {mapping}: {target} is mapped twice")
        sources[target] = source
    return sources


@dataclass(frozen=True, slots=True)
class Row:
    """One row: where it stands, its columns as plain Python values, and the literal text of some numbers."""

    where: str
    values: Mapping[str, Any]
    literals: Mapping[str, str | None]

    @property
    def is_record(self) -> bool:
        """It has a schema version; otherwise it is foreign."""
        return self.values.get("schema_version") is not None

    def completion(self, column: str) -> str | None:
        """The completion in this column as text; of a chat, what the assistant said last. Raises UnusableError."""
        value = self.values.get(column)
        return last_said(value, column) if isinstance(value, list) and value else self.text(column)

    def text(self, column: str) -> str | None:
        """The column as text: a number as it was written. None when there is nothing. Raises UnusableError."""
        value = self.values.get(column)
        if value is None or isinstance(value, str):
            return value
        if isinstance(value, float) and math.isnan(value):
            return None
        if column in self.literals:
            return self.literals[column]
        raise UnusableError(f"{column!r} is {kind_of(value)}: expected text or a number")


def last_said(messages: Sequence[Any], column: str) -> str | None:
    """What the assistant said last: the text of its last message that has any, "" when none has, None when it has none.

    Messages are mappings or objects, their content text or parts. Raises UnusableError for what is no chat.
    """
    if not all(isinstance(of_message(turn, "role"), str) for turn in messages):
        raise UnusableError(f"{column!r} is {kind_of(messages)}: expected text, a number or messages")
    texts = [text_of(of_message(turn, "content")) for turn in messages if of_message(turn, "role") == "assistant"]
    return next(filter(None, reversed(texts)), "") if texts else None


def of_message(message: Any, name: str) -> Any:
    """A field of a message, which is a mapping or an object; None when it has no such field."""
    return message.get(name) if isinstance(message, Mapping) else getattr(message, name, None)


def text_of(content: Any) -> str:
    """A message's text; of one in parts, that of its parts."""
    if isinstance(content, list | tuple):
        return "".join(text for part in content if isinstance(text := of_message(part, "text"), str))
    return content if isinstance(content, str) else ""


def joined(row: Row, sources: Mapping[str, str], beside: Sidecars) -> Row:
    """The row with what the sidecars have for it; `sources` says which column of a foreign one is its id."""
    try:
        identity = row.text("id" if row.is_record else sources["id"])
    except UnusableError:
        return row
    return replace(row, values=beside.with_scores(row.values, identity))


# --- what a verification needs --------------------------------------------------------------------------------------


class _Judged(BaseModel):
    """What a verifier sees of a record, as `Rollout` has it."""

    completion: str | None = None
    task: Task = Task()


def item_of(row: Row, sources: Mapping[str, str], *, wants_rollout: bool, wants_extra: bool = True) -> Item:
    """What verifying the row needs.

    A record is validated as a whole only for a verifier that looks at the whole. The own columns of a foreign row are
    `task.extra`; what JSON does not have (NaN, bytes) is null there. Without `wants_extra` the task is its answer
    alone. Raises DataError for a record that is none, UnusableError for a foreign row whose completion or gold is
    neither text nor a number (nor, a completion, messages).
    """
    if row.is_record:
        if wants_rollout:
            rollout = rollout_of(row.values, row.where)
            return Item(rollout.completion, rollout.task, rollout)
        values = upgrade(row.values, row.where)
        judged = {key: values[key] for key in ("completion", "task") if key in values}
        if not wants_extra and isinstance(judged.get("task"), dict):
            judged["task"] = {"answer": judged["task"].get("answer")}
        with field_faults(row.where):
            seen = _Judged.model_validate(judged)
        return Item(seen.completion, seen.task)
    if not (wants_extra or wants_rollout):
        return Item(row.completion(sources["completion"]), Task(answer=row.text(sources["answer"])))
    own = {target for target, source in sources.items() if target == source} | {"scores"}
    try:
        extra = {column: plain(value) for column, value in row.values.items() if column not in own}
    except RecursionError as error:
        raise UnusableError("a column is nested too deeply to be read") from error
    task = Task(row_id=row.text(sources["id"]), answer=row.text(sources["answer"]), extra=extra)
    completion = row.completion(sources["completion"])
    prompt = row.values.get(sources["prompt"])
    if prompt is None or not wants_rollout:
        return Item(completion, task)
    given = {"prompt": prompt} if isinstance(prompt, str) else {"messages": prompt}
    try:
        rollout = Rollout.model_validate(
            {
                "id": task.row_id or row.where,
                "group_id": row.text(sources["group_id"]),
                "completion": completion,
                "task": task,
                **given,
            }
        )
    except ValidationError as error:
        raise UnusableError(f"{sources['prompt']!r} is {kind_of(prompt)}: expected text or messages") from error
    return Item(completion, task, rollout)


def plain(value: Any) -> Any:
    """The value as JSON has it: times in ISO 8601, decimals as text, and null for what JSON does not have."""
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    return str(value) if isinstance(value, Decimal) else None


# --- JSON lines -----------------------------------------------------------------------------------------------------


class Member(NamedTuple):
    """A column of a line: its value, and where in the line it is written."""

    value: Any
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Line:
    """A line that holds one JSON object, as it was written and as it reads."""

    where: str
    text: str
    values: Mapping[str, Any]
    """The columns."""

    def member(self, name: str) -> Member | None:
        """The column of that name, and where it is written. Costs ten times what reading the line did."""
        if name not in self.values:
            return None
        try:
            return _members(self.text, _DECODER)[name]
        except ValueError:  # as in `line_of`
            return _members(self.text, _LENIENT)[name]

    def literal(self, name: str) -> str:
        """A number or a bool as it is written."""
        value = self.values[name]
        if type(value) is int and value:  # there is but one way to write it
            return str(value)
        member = self.member(name)
        assert member is not None
        return self.text[member.start : member.end]


def _int_or_text(literal: str) -> int | str:
    return int(literal) if len(literal) < 4300 else literal


_DECODER = json.JSONDecoder()
_LENIENT = json.JSONDecoder(parse_int=_int_or_text)

_OPENING = re.compile(r"{[ \t\r\n]*")
_COLON = re.compile(r"[ \t\r\n]*:[ \t\r\n]*")
_COMMA_OR_CLOSING = re.compile(r"[ \t\r\n]*([,}])[ \t\r\n]*")


def line_of(text: str, where: str) -> Line:
    """The line, read. Raises DataError when it is not JSON or not an object."""
    if not text.startswith("{"):
        raise DataError(f"{where} is {kind_of(from_json(text, where))}: a row is an object")
    with json_faults(where):
        try:
            return Line(where, text, _DECODER.decode(text))
        except json.JSONDecodeError:
            raise
        except ValueError:  # an integer with more digits than Python reads, which is nobody's gold: kept as text
            return Line(where, text, _LENIENT.decode(text))


def _members(text: str, decoder: json.JSONDecoder) -> dict[str, Member]:
    """The members of the JSON object that `text` is, from its first character to its last. Of two alike, the last."""
    members: dict[str, Member] = {}
    opening = _OPENING.match(text)
    place = opening.end() if opening else 0
    if text.startswith("}", place):
        place += 1
    else:
        separator = ","
        while separator == ",":
            if not text.startswith('"', place):
                raise json.JSONDecodeError("Expecting property name enclosed in double quotes", text, place)
            name, place = decoder.raw_decode(text, place)
            colon = _COLON.match(text, place)
            if colon is None:
                raise json.JSONDecodeError("Expecting ':' delimiter", text, place)
            value, end = decoder.raw_decode(text, colon.end())
            members[name] = Member(value, colon.end(), end)
            found = _COMMA_OR_CLOSING.match(text, end)
            if found is None:
                raise json.JSONDecodeError("Expecting ',' delimiter", text, end)
            separator, place = found[1], found.end()
    if place != len(text):
        raise json.JSONDecodeError("Extra data", text, place)
    return members


@dataclass(frozen=True)
class LineBatch:
    """Consecutive lines of a file."""

    lines: list[Line]

    def __len__(self) -> int:
        return len(self.lines)

    def take(self, places: Sequence[int]) -> LineBatch:
        """The lines at these places."""
        return LineBatch([self.lines[place] for place in places])

    def rows(
        self,
        literals: Iterable[str] = (),
        *,
        without: frozenset[str] = frozenset(),
        only: frozenset[str] | None = None,
    ) -> list[Row]:
        """The rows; of the columns `literals`, numbers are given as they are written too.

        `without` says which columns of records are not wanted, `only` which are; a line has been read as a whole.
        """
        return [
            Row(
                line.where,
                line.values,
                {name: line.literal(name) for name in literals if isinstance(line.values.get(name), int | float)},
            )
            for line in self.lines
        ]


# --- Parquet --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ArrowBatch:
    """Consecutive rows of a Parquet file."""

    path: Path
    numbers: Sequence[int]
    """Of each row, its number in the file, from 1."""
    batch: pa.RecordBatch

    def where(self, i: int) -> str:
        """Where the batch's row `i` stands."""
        return f"{self.path}, row {self.numbers[i]}"

    def __len__(self) -> int:
        rows: int = self.batch.num_rows
        return rows

    def take(self, places: Sequence[int]) -> ArrowBatch:
        """The rows at these places."""
        return ArrowBatch(self.path, [self.numbers[place] for place in places], self.batch.take(pa.array(places)))

    def rows(
        self,
        literals: Iterable[str] = (),
        *,
        without: frozenset[str] = frozenset(),
        only: frozenset[str] | None = None,
    ) -> list[Row]:
        """The rows; of the columns `literals`, numbers are given as the shortest text that reads as them, too.

        `without` says which columns of records are not wanted, `only` which columns of any row are.
        """
        names = self.batch.schema.names
        unwanted = set(without.intersection(names)) if "schema_version" in names else set()
        if only is not None:
            unwanted |= set(names) - only
        wanted = self.batch.select([name for name in names if name not in unwanted]) if unwanted else self.batch
        texts = {
            name: column
            for name in literals
            if name in names and (column := _texts(self.batch.column(name))) is not None
        }
        return [
            Row(self.where(i), values, {name: column[i] for name, column in texts.items()})
            for i, values in enumerate(rows_of(wanted, self.where))
        ]


def _texts(column: pa.Array) -> list[str | None] | None:
    """A column of numbers, bools or times as text, each at its own precision (a float32 0.1 is "0.1", 4.0 is "4")."""
    if pa.types.is_nested(column.type) or pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
        return None
    try:
        texts: list[str | None] = column.cast(pa.string()).to_pylist()
    except pa.ArrowException:
        return None
    return texts


# --- files ----------------------------------------------------------------------------------------------------------

Batch = LineBatch | ArrowBatch


def _raise(error: DataError) -> None:
    raise error


def read_batches(path: Path, *, on_bad_line: Callable[[DataError], object] = _raise) -> Iterator[Batch]:
    """The rows of a file, none of the batches empty.

    Args:
        path: A `.parquet` or `.jsonl` file.
        on_bad_line: Called for a line that is no JSON object; when it returns, the line is left out.

    Raises RequestError at once when there is no such file, DataError when a row is reached that cannot be read.
    """
    existing(path)
    return _parquet(path) if ending(path) == ".parquet" else _jsonl(path, on_bad_line)


def _parquet(path: Path) -> Iterator[Batch]:
    return (
        ArrowBatch(path, range(first, first + batch.num_rows), batch)
        for first, batch in batches_of(path)
        if batch.num_rows
    )


def _jsonl(path: Path, on_bad_line: Callable[[DataError], object]) -> Iterator[Batch]:
    lines: list[Line] = []
    size = 0
    for where, raw in raw_lines_of(path):
        try:
            lines.append(line_of(decoded(raw, where), where))
        except DataError as error:
            on_bad_line(error)
            continue
        size += len(raw)
        if len(lines) >= BATCH_ROWS or size >= BATCH_BYTES:
            yield LineBatch(lines)
            lines, size = [], 0
    if lines:
        yield LineBatch(lines)
