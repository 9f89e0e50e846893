"""Tables of rows by number, from local Parquet, CSV and JSON files and from data sets on the hub.

All tables are memory-mapped Arrow files in the cache of the `datasets` library, and rows are read on access. Parquet
and the hub use the library's readers. JSON and CSV do not, because those readers turn `0.10` into `0.1` and lose the
last digits of long integers. Their rows are kept as JSON text, parsed on access; numbers keep their literal text.
"""

from __future__ import annotations

import glob
import hashlib
import json
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol

from rlvr.data.hub import unreachable
from rlvr.errors import DataError, RequestError, RlvrError
from rlvr.files import from_json, kind_of, lines_of, sha256
from rlvr.record.paths import at_path, heads
from rlvr.record.row_files import csv_texts, is_saved_dataset, json_texts
from rlvr.record.rows import FieldError, chat_of, plain_messages
from rlvr.record.values import LiteralFloat, json_safe, number_text

ENDINGS = (".parquet", ".jsonl", ".json", ".csv")

_CACHE_VERSION = 1  # version of the JSON text that the functions below write; part of the key of a cache entry


class Rows(Protocol):
    """A sequence of rows."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class Table:
    """Rows by number, and their origin."""

    where: str
    """The file, or the hub repository with configuration and split, for messages."""
    columns: tuple[str, ...]
    """Columns; those of the first row, if rows may differ."""
    rows: Rows
    bits: Mapping[str, int] = field(default_factory=dict)
    """Column of floats → their size, where it is less than 64 bits."""
    inexact: frozenset[str] = frozenset()
    """Columns of floats that a reader converted from text."""
    file: Path | None = None
    """The local file; None for a table of the hub."""
    parts: tuple[Table, ...] = ()
    """The tables that this one joins."""

    @property
    def name(self) -> str:
        """The absolute path of the file, or of the files that are joined, or where the rows are on the hub."""
        if self.parts:
            return " + ".join(part.name for part in self.parts)
        return self.where if self.file is None else str(self.file.absolute())

    def digest(self) -> str:
        """Return a SHA-256 of the content: the file's, or that of all rows."""
        if self.parts:
            return hashlib.sha256(" ".join(part.digest() for part in self.parts).encode()).hexdigest()
        return sha256(self.file) if self.file is not None else _digest_of_rows(self.rows)

    def has(self, path: str) -> bool:
        """Return whether there is a column that a path (`rlvr.record.paths`) is, or begins in."""
        return not heads([path]).isdisjoint(self.columns)

    def cells(self, *names: str) -> Iterator[tuple[Any, ...]]:
        """Yield these columns, or paths into columns, row by row; None if a row lacks the key."""
        if isinstance(self.rows, _MappingRows):
            return (tuple(at_path(row, name) for name in names) for row in self.rows)
        rows: Any = self.rows  # a datasets.Dataset, which reads only these columns
        return zip(*(self._column(rows, name) for name in names), strict=True)

    def _column(self, rows: Any, name: str) -> Iterable[Any]:
        if name in self.columns:
            return rows[name]  # type: ignore[no-any-return]
        read = [column for column in self.columns if column in heads([name])]
        columns = (rows[column] for column in read)
        return (at_path(dict(zip(read, values, strict=True)), name) for values in zip(*columns, strict=True))

    def question(self, name: str, row: int, value: Any) -> str | None:
        """Return the question of a cell: its text or, of a chat, the text of the last user message.

        Raises DataError for a chat that asks nothing, and for what `text` refuses.
        """
        turns = self.chat(name, row, value)
        return self.text(name, row, value) if turns is None else turns[-1]["content"]

    def chat(self, name: str, row: int, value: Any) -> list[dict[str, str]] | None:
        """Return the messages of a cell that is a chat, or its JSON text; None for anything else.

        Raises DataError for a chat that does not end with a question, or holds something else than text.
        """
        turns = chat_of(value)
        if turns is None:
            return None
        where = f"{self.where}, row {row + 1}"
        try:
            plain = plain_messages(turns, name)
        except FieldError as error:
            raise DataError(f"{where}: {error.reason}") from error
        if plain[-1]["role"] != "user":
            raise DataError(
                f"{where}: the chat in {name!r} ends with a message of {plain[-1]['role']!r}: a prompt ends with a "
                "message of 'user'"
            )
        return plain

    def shown(self, name: str, row: int, value: Any) -> str | None:
        """Return a cell as it stands in a prompt: text, the texts of a list, each on a line of its own, or JSON."""
        if isinstance(value, list) and all(isinstance(each, str) for each in value):
            return "\n".join(value)
        if isinstance(value, list | dict):
            return json.dumps(json_safe(value), ensure_ascii=False)
        return self.text(name, row, value)

    def text(self, name: str, row: int, value: Any) -> str | None:
        """Return a cell as text; None for null and NaN. Raises DataError for lists, booleans and the like.

        A number has its literal text or, if it was never text, its shortest representation.
        """
        if value is None or isinstance(value, str):
            return value
        if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
            raise DataError(f"{self.where}, row {row + 1}: column {name!r} holds {kind_of(value)}: expected text")
        if isinstance(value, float) and name in self.inexact and not math.isnan(value):
            raise DataError(
                f"{self.where}: column {name!r} was read as binary floats, so what was written there (0.10, "
                "thirty digits) is lost: download the file and name it with --data-files"
            )
        return number_text(value, bits=self.bits.get(name, 64))


# --- local files ----------------------------------------------------------------------------------------------------


def local_files(name: str, patterns: tuple[Path, ...]) -> list[Path]:
    """Return the files that paths and globs name.

    Raises RequestError if a pattern matches nothing, for an unknown format and for a file named twice. `name` is the
    data set's, for messages.
    """
    found: list[Path] = []
    for pattern in patterns:
        matches = [pattern] if os.path.exists(pattern) else [Path(path) for path in sorted(glob.glob(str(pattern)))]
        if not matches:
            raise RequestError(f"dataset {name}: there is no file {pattern}")
        for path in matches:
            if not path.is_file() and not is_saved_dataset(path):
                raise RequestError(f"dataset {name}: {path} is not a file (a glob names many: {path}/*.parquet)")
            if path.is_file() and path.suffix not in ENDINGS:
                raise RequestError(f"dataset {name}: {path}: a data file ends in {', '.join(ENDINGS)}")
            if any(path.samefile(other) for other in found):
                raise RequestError(f"dataset {name}: {path} is named twice")
            found.append(path)
    return found


def file_table(path: Path) -> Table:
    """Return the rows of a local file. Raises DataError, with file and line, if it cannot be read."""
    if is_saved_dataset(path):
        return _saved_table(path)
    if path.suffix == ".parquet":
        return _parquet_table(path)
    about = path.stat()
    kwargs = {"path": str(path), "size": about.st_size, "modified": about.st_mtime_ns, "version": _CACHE_VERSION}
    first = next(_TEXTS[path.suffix](path), None)
    if first is None:
        return Table(str(path), (), (), file=path)
    from datasets import Dataset, Features, Value

    with _faults(path):
        texts = Dataset.from_generator(_generate, features=Features({"row": Value("large_string")}), gen_kwargs=kwargs)
    return Table(str(path), tuple(json.loads(first)), _JsonRows(texts), file=path)


def _digest_of_rows(rows: Any) -> str:
    """Return a SHA-256 of the columns and values of a `datasets.Dataset`, however they are cached."""
    import pyarrow as pa

    content = hashlib.sha256()
    for table in rows.with_format("arrow").iter(1000):
        # Taking the rows copies them into buffers that do not depend on how the table was cut into chunks.
        whole = table.replace_schema_metadata(None).take(pa.array(range(len(table)))).combine_chunks()
        with pa.ipc.new_stream(sink := pa.BufferOutputStream(), whole.schema) as stream:
            stream.write_table(whole)
        content.update(sink.getvalue())
    return content.hexdigest()


def _parquet_table(path: Path) -> Table:
    from datasets import Dataset

    from rlvr.record.parquet import opened

    with opened(path) as file:
        if file.metadata.num_rows == 0:  # `datasets` fails on it
            return Table(str(path), tuple(file.schema_arrow.names), (), file=path)
    with _faults(path):
        rows = Dataset.from_parquet(glob.escape(str(path)))
    _require_utf8(rows, str(path))
    return Table(str(path), tuple(rows.column_names), rows, bits=_bits(rows), file=path)


def _saved_table(path: Path) -> Table:
    """Return the rows of a folder of `Dataset.save_to_disk`."""
    from datasets import load_from_disk

    with _faults(path):
        rows: Any = load_from_disk(str(path))
    _require_utf8(rows, str(path))
    return Table(str(path), tuple(rows.column_names), rows, bits=_bits(rows))


def _require_utf8(rows: Any, where: str) -> None:
    """Raise DataError for a column with text that is not UTF-8: readers of Parquet do not look, and fail later."""
    import pyarrow as pa

    for name in rows.column_names:
        try:
            rows.data.column(name).validate(full=True)
        except pa.ArrowInvalid as error:
            raise DataError(f"{where}: column {name!r} cannot be read: {error}") from error


def _bits(rows: Any) -> dict[str, int]:
    sizes = {"float16": 16, "float32": 32}
    return {name: sizes[_dtype(kind)] for name, kind in rows.features.items() if _dtype(kind) in sizes}


@contextmanager
def _faults(path: Path) -> Iterator[None]:
    """Turn errors of `datasets` about a local file into DataError, and hide its progress bars."""
    from datasets import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
    from datasets.exceptions import DatasetGenerationError

    shown = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    except DatasetGenerationError as error:
        if isinstance(error.__cause__, RlvrError):
            raise error.__cause__ from None
        raise DataError(f"{path} cannot be read: {first_line(error.__cause__ or error)}") from error
    finally:
        if shown:
            enable_progress_bars()


class _MappingRows(ABC):
    """Rows that are read as a whole, and not by column."""

    @abstractmethod
    def __iter__(self) -> Iterator[Mapping[str, Any]]: ...


class _JsonRows(_MappingRows):
    """Rows kept as JSON text."""

    def __init__(self, texts: Any) -> None:
        self._texts = texts

    def __len__(self) -> int:
        return len(self._texts)

    def __getitem__(self, index: int, /) -> Mapping[str, Any]:
        return self._row(self._texts[index]["row"])

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return map(self._row, self._texts["row"])

    @staticmethod
    def _row(text: str) -> Mapping[str, Any]:
        row: Mapping[str, Any] = json.loads(text, parse_float=LiteralFloat.read)
        return row


def joined(tables: Sequence[Table], column: str) -> Table:
    """Return one table of several: rows with the same value of `column` are one row, with the columns of all.

    A number equals its text. Rows are in the order of the first table.

    Raises DataError for a table without the column, a value that is missing or stands there twice, and a row of one
    table that another lacks.
    """
    first, *others = [_by_value(table, column) for table in tables]
    for table, numbers in zip(tables[1:], others, strict=True):
        if odd := next((value for value in (*first, *numbers) if (value in first) != (value in numbers)), None):
            has, lacks = (tables[0], table) if odd in first else (table, tables[0])
            raise DataError(f"{lacks.where}: there is no row whose {column!r} is {odd!r}, as there is in {has.where}")
    columns = dict.fromkeys(name for table in tables for name in table.columns)
    places = [[numbers[value] for numbers in (first, *others)] for value in first]
    where = " + ".join(table.where for table in tables)
    bits = {name: size for table in tables for name, size in table.bits.items()}
    return Table(where, tuple(columns), _JoinedRows(tables, places), bits=bits, parts=tuple(tables))


def _by_value(table: Table, column: str) -> dict[str, int]:
    """Return value of the column → number of its row."""
    found: dict[str, int] = {}
    if not table.has(column):
        raise DataError(f"{table.where}: there is no column {column!r} to join the files by (dataset.options.join)")
    for row, (value,) in enumerate(table.cells(column)):
        text = table.text(column, row, value)
        if text is None or text in found:
            raise DataError(f"{table.where}, row {row + 1}: {column!r} is {text!r}, which is empty or not the first")
        found[text] = row
    return found


class _JoinedRows(_MappingRows):
    """Rows of several tables as one."""

    def __init__(self, tables: Sequence[Table], places: Sequence[Sequence[int]]) -> None:
        self._tables, self._places = tables, places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int, /) -> Mapping[str, Any]:
        rows = [table.rows[place] for table, place in zip(self._tables, self._places[index], strict=True)]
        return {name: value for row in rows for name, value in row.items()}

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return (self[i] for i in range(len(self)))


# --- the hub --------------------------------------------------------------------------------------------------------


def hub_table(name: str, repository: str, configuration: str | None, split: str, revision: str | None) -> Table:
    """Return the rows of one split of one configuration. Raises RequestError, with advice, if it is not available.

    `name` is the data set's, for messages.
    """
    from datasets import config, load_dataset

    where = f"{repository}{f' ({configuration})' if configuration else ''}, split {split!r}"
    away = unreachable()
    offline = config.HF_HUB_OFFLINE
    config.HF_HUB_OFFLINE = offline or away is not None  # else its client retries for half a minute
    try:
        rows = load_dataset(repository, configuration, split=split, revision=revision, trust_remote_code=False)
    except Exception as error:  # the hub's client raises OSError, httpx's errors, its own and ValueError
        reason = away or f"{type(error).__name__}: {first_line(error)}"
        raise RequestError(
            f"dataset {name}: {where} could not be loaded ({reason}); without a network, name local files in its "
            "layout with --data-files FILE"
        ) from error
    finally:
        config.HF_HUB_OFFLINE = offline
    floats = frozenset(column for column, kind in rows.features.items() if _dtype(kind).startswith("float"))
    return Table(where, tuple(rows.column_names), rows, inexact=floats)


def _dtype(kind: Any) -> str:
    return str(getattr(kind, "dtype", ""))


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text that is not blank."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


# --- JSON and CSV as one JSON text per row --------------------------------------------------------------------------


def _generate(path: str, size: int, modified: int, version: int) -> Iterator[dict[str, str]]:
    """Yield rows for `Dataset.from_generator`. All arguments together are the key of the cache entry."""
    for text in _TEXTS[Path(path).suffix](Path(path)):
        yield {"row": text}


def _jsonl_texts(path: Path) -> Iterator[str]:
    for where, line in lines_of(path):
        row = from_json(line, where)
        if not isinstance(row, dict):
            raise DataError(f"{where} is {kind_of(row)}: expected an object with the columns of a row")
        yield line


def _json_texts(path: Path) -> Iterator[str]:
    return (text for _, text in json_texts(path))


def _csv_texts(path: Path) -> Iterator[str]:
    return (text for _, text in csv_texts(path))


_TEXTS: Mapping[str, Callable[[Path], Iterator[str]]] = {
    ".jsonl": _jsonl_texts,
    ".json": _json_texts,
    ".csv": _csv_texts,
}
