"""Records in files: Parquet (canonical) and JSON lines, streamed in both directions.

Both formats have the same columns, `ROLLOUT_SCHEMA`, and give back equal rollouts. Values without an Arrow type
(messages, `task.extra`, a verifier's configuration) are JSON text in both. Two differences follow from Parquet:
`behaviour_logprobs` are float32 there, like the tensors that they come from; and text with a lone surrogate, which is
not valid UTF-8, is refused there and escaped in JSON lines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias

import pyarrow as pa
from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from rlvr.errors import DataError, nearest
from rlvr.files import ending, expanded, from_json, kind_of, lines_of, replacing, to_json, writing_lines
from rlvr.record.parquet import BATCH_ROWS, RowGroups, arrow_column, batches_of, python_rows
from rlvr.record.schema import SCHEMA_VERSION, Rollout

SCORES = pa.list_(
    pa.struct(
        {
            "verifier": pa.string(),
            "version": pa.string(),
            "config": pa.string(),  # JSON text
            "config_hash": pa.string(),
            "status": pa.string(),
            "reward": pa.float64(),
            "extracted": pa.string(),
            "reason": pa.string(),
            "seconds": pa.float64(),
            "created_at": pa.string(),
            "parts": pa.list_(
                pa.struct(
                    {
                        "name": pa.string(),
                        "status": pa.string(),
                        "reward": pa.float64(),
                        "extracted": pa.string(),
                        "reason": pa.string(),
                    }
                )
            ),
        }
    )
)

EXTRA_TOKENS = pa.list_(
    pa.struct(
        {
            "name": pa.string(),
            "width": pa.int32(),  # K of a column (T, K), whose rows follow each other; null for (T,)
            # The type of the column's numbers: the others are null.
            "float32": pa.list_(pa.float32()),
            "float64": pa.list_(pa.float64()),
            "int32": pa.list_(pa.int32()),
            "int64": pa.list_(pa.int64()),
        }
    )
)

_MODEL = pa.struct(
    {
        "name": pa.string(),
        "revision": pa.string(),
        "weights_hash": pa.string(),
        "tokenizer_hash": pa.string(),
    }
)

ROLLOUT_SCHEMA = pa.schema(
    {
        "schema_version": pa.int32(),
        "run_id": pa.string(),
        "branch": pa.int64(),
        "id": pa.string(),
        "group_id": pa.string(),
        "index": pa.int64(),
        "group_size": pa.int64(),
        "segment": pa.int64(),
        "prompt": pa.string(),
        "messages": pa.string(),  # JSON text
        "completion": pa.string(),
        "task": pa.struct(
            {
                "dataset": pa.string(),
                "row_id": pa.string(),
                "split": pa.string(),
                "answer": pa.string(),
                "extra": pa.string(),  # JSON text
            }
        ),
        "token_ids": pa.list_(pa.int32()),
        "loss_mask": pa.list_(pa.bool_()),
        "behaviour_logprobs": pa.list_(pa.float32()),
        "policy_versions": pa.list_(pa.struct({"version": pa.int64(), "count": pa.int32()})),
        # Not a map: `datasets` cannot read one, and pandas shows pairs.
        "extra_tokens": EXTRA_TOKENS,
        "sampling": pa.struct(
            {
                "temperature": pa.float64(),
                "top_p": pa.float64(),
                "top_k": pa.int64(),
                "min_p": pa.float64(),
                "repetition_penalty": pa.float64(),
                "presence_penalty": pa.float64(),
                "frequency_penalty": pa.float64(),
                "max_tokens": pa.int64(),
                "seed": pa.int64(),
                "engine": pa.string(),
                "engine_version": pa.string(),
                "dtype": pa.string(),
                "logprob_mode": pa.string(),
                "stop": pa.struct({"strings": pa.list_(pa.string()), "token_ids": pa.list_(pa.int64())}),
            }
        ),
        "model": _MODEL,
        "recomputed_by": _MODEL,
        "finish_reason": pa.string(),
        "stop_reason": pa.string(),
        "group_stats": pa.struct({"mean": pa.float64(), "std": pa.float64(), "count": pa.int64()}),
        "scores": SCORES,
        "created_at": pa.string(),
        "timings": pa.struct({"sample": pa.float64(), "verify": pa.float64()}),
    }
)

TOKEN_COLUMNS = frozenset({"token_ids", "loss_mask", "behaviour_logprobs", "extra_tokens"})
"""The per-token columns: readers that need only text leave them out."""

HELD_BYTES = 4 << 20
"""Bytes of rollouts that a writer collects before it converts them to columns."""

Migration: TypeAlias = Callable[[Mapping[str, Any]], dict[str, Any]]

MIGRATIONS: dict[int, Migration] = {1: dict}  # version 2 only adds: it has no `values` of extra_tokens in Parquet
"""Schema version n -> function that converts a record of version n, as a mapping of columns, to version n + 1.

A reader may have left out columns, so a migration must not need any.
"""

# --- one record -----------------------------------------------------------------------------------------------------


def upgrade(
    row: Mapping[str, Any],
    where: str,
    *,
    newest: int = SCHEMA_VERSION,
    migrations: Mapping[int, Migration] = MIGRATIONS,
) -> Mapping[str, Any]:
    """Return the record converted to schema version `newest`. Raises DataError for a record of a later version."""
    version = row.get("schema_version")
    if version is None:
        raise DataError(
            f"{where} is not a record: it has no schema_version. To write rows of other programs as records, "
            "use rlvr.store.write_rollouts; docs/offline.md has the code (Records of your own)"
        )
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise DataError(
            f"{where}: schema_version is {version!r}, not a whole number: a record has the version of its schema "
            "there; in a file of your own, rename the column"
        )
    if version > newest:
        raise DataError(
            f"{where} was written with version {version} of the record, this rlvr reads up to {newest}: "
            "upgrade rlvr to read it"
        )
    for old in range(version, newest):
        row = {**migrations[old](row), "schema_version": old + 1}
    return row


def rollout_of(row: Mapping[str, Any], where: str) -> Rollout:
    """Return the validated record of one row of any schema version. Raises DataError, which names the field."""
    row = upgrade(row, where)
    if unknown := row.keys() - Rollout.model_fields.keys():
        name = min(unknown)
        raise DataError(
            f"{where}: the record has no field {name!r}{nearest(name, Rollout.model_fields)}; "
            "put custom fields in task.extra"
        )
    with field_faults(where):
        return Rollout.model_validate(row)


@contextmanager
def field_faults(where: str) -> Iterator[None]:
    """Turn errors of pydantic in this block into a DataError that says where and in which field."""
    try:
        yield
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        message = first["msg"].removeprefix("Value error, ")
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise DataError(f"{where}: {field}{': ' if field else ''}{message}{more}") from error
    except RecursionError as error:
        raise DataError(f"{where}: the JSON text in a field is nested too deeply to read") from error


def record_of(rollout: Rollout, where: str, *, without: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Return the rollout as a row of plain values, except the fields `without`. Raises DataError for values that no
    file can hold."""
    if rollout.schema_version != SCHEMA_VERSION:
        raise DataError(f"{where}: schema_version is {rollout.schema_version}, this rlvr writes {SCHEMA_VERSION}")
    try:
        return rollout.model_dump(mode="python", exclude=set(without))
    except (PydanticSerializationError, ValueError) as error:  # NaN inside task.extra
        raise DataError(f"{where}: {error}") from error


# --- files ----------------------------------------------------------------------------------------------------------


def record_batch(rollouts: Sequence[Rollout], where: Callable[[int], str]) -> pa.RecordBatch:
    """Return the rollouts as Arrow columns. Raise DataError, naming row and field, for one that does not fit."""
    from rlvr.record.token_storage import extra_lists, id_lists, lists, logprob_lists

    rows = [record_of(rollout, where(i), without=TOKEN_COLUMNS) for i, rollout in enumerate(rollouts)]
    columns = []
    for field in ROLLOUT_SCHEMA:
        if field.name == "token_ids":
            column = id_lists(rollouts, field.type, where)
        elif field.name == "loss_mask":
            column = lists([rollout.loss_mask for rollout in rollouts], field.type)
        elif field.name == "behaviour_logprobs":
            column = logprob_lists(rollouts, field.type, where)
        elif field.name == "extra_tokens":
            column = extra_lists(rollouts, field, where)
        else:
            column = arrow_column([row[field.name] for row in rows], field, where)
        columns.append(column)
    return pa.RecordBatch.from_arrays(columns, schema=ROLLOUT_SCHEMA)


def rows_of(batch: pa.RecordBatch, where: Callable[[int], str]) -> list[dict[str, Any]]:
    """Return the batch's records as rows of plain Python values. Rows without a schema version stay as they are."""
    rows = python_rows(batch, where)
    for i, row in enumerate(rows):
        columns = row.get("extra_tokens")
        if isinstance(columns, list) and row.get("schema_version") is not None:
            try:
                row["extra_tokens"] = {column["name"]: _extra_values(column) for column in columns}
            except (KeyError, TypeError) as error:
                raise DataError(f"{where(i)}: extra_tokens: expected a list of structs with name and values") from error
    return rows


def _extra_values(column: Mapping[str, Any]) -> Any:
    """Return the numbers of one extra column, of this version of the record or of version 1."""
    kinds = ("values",) if "values" in column else ("float32", "float64", "int32", "int64")
    values = next((column[kind] for kind in kinds if column[kind] is not None), None)
    width = column.get("width")
    if values is None or width is None:
        return values
    return [values[start : start + width] for start in range(0, len(values), width)]


def _array_rows(batch: pa.RecordBatch, where: Callable[[int], str]) -> list[dict[str, Any]]:
    """Return rows as `rows_of` does, with token columns as arrays. Rows that make no arrays are left to `rows_of`."""
    from rlvr.record.token_storage import arrays, extra_arrays

    names = batch.schema.names
    if "schema_version" not in names or batch.column("schema_version").null_count:
        return rows_of(batch, where)
    read = {
        name: extra_arrays(batch.column(name)) if name == "extra_tokens" else arrays(batch.column(name))
        for name in TOKEN_COLUMNS.intersection(names)
    }
    found = {name: column for name, column in read.items() if column is not None}
    rows = rows_of(batch.select([name for name in names if name not in found]), where)
    for name, column in found.items():
        for row, value in zip(rows, column, strict=True):
            row[name] = value
    return rows


class RolloutWriter:
    """Writes rollouts to one file, Parquet or JSON lines by its ending, in bounded memory.

        with RolloutWriter("rollouts.parquet") as writer:
            writer.write(rollout)

    The file gets its name only when the block succeeds; after an exception, an earlier file is unchanged. Raises
    DataError for a rollout that the format cannot hold, RunError when the disk fails.
    """

    def __init__(self, path: str | Path, before_rename: Callable[[Path], object] | None = None) -> None:
        """`before_rename` is called with the complete file before it gets its name."""
        self.path = Path(path)
        self.rows = 0
        self._before_rename = before_rename
        self._is_parquet = ending(self.path) == ".parquet"
        self._held: list[Rollout] = []
        self._held_bytes = 0

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            temporary = stack.enter_context(replacing(self.path, self._before_rename))
            if self._is_parquet:
                self._groups = stack.enter_context(RowGroups(temporary, ROLLOUT_SCHEMA))
                stack.push(self._finish)
            else:
                self._file = stack.enter_context(writing_lines(temporary, self.path))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def write(self, rollout: Rollout) -> None:
        """Append one rollout."""
        self.rows += 1
        if not self._is_parquet:
            where = f"{self.path}, line {self.rows}"
            try:
                line = to_json(record_of(rollout, where))
            except ValueError as error:  # NaN where only an unvalidated copy can have it
                raise DataError(f"{where}: {error}") from error
            self._file.write(line + "\n")
            return
        self._held.append(rollout)
        self._held_bytes += _size(rollout)
        if len(self._held) >= BATCH_ROWS or self._held_bytes >= HELD_BYTES:
            self._flush()

    def _flush(self) -> None:
        first = self.rows - len(self._held) + 1
        self._groups.add(record_batch(self._held, lambda i: f"{self.path}, row {first + i}"))
        self._held, self._held_bytes = [], 0

    def _finish(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        if kind is None and self._held:
            self._flush()


def _size(rollout: Rollout) -> int:
    """Return the approximate size of a rollout in bytes, to limit the rows that wait."""
    columns = (rollout.token_ids, rollout.loss_mask, rollout.behaviour_logprobs, *rollout.extra_tokens.values())
    texts = len(rollout.prompt or "") + len(rollout.completion or "")
    return texts + sum(column.nbytes for column in columns if column is not None) + 1024


def write_rollouts(
    path: str | Path, rollouts: Iterable[Rollout], before_rename: Callable[[Path], object] | None = None
) -> int:
    """Write all rollouts to one file and return their number; see `RolloutWriter`."""
    with RolloutWriter(path, before_rename) as writer:
        for rollout in rollouts:
            writer.write(rollout)
    return writer.rows


def read_rollouts(
    paths: str | Path | Iterable[str | Path], *, sidecars: str | Path | Iterable[str | Path] = ()
) -> Iterator[Rollout]:
    """Yield the rollouts of one or more files, in order, with one batch in memory at a time.

    A folder stands for the record files in it, and a pattern for those that match, in the order of names. Records of
    older schema versions are upgraded. Scores from `sidecars` (files of `rlvr score --scores-only`) follow a rollout's
    own.

    Raises:
        RequestError: a file does not exist or has neither ending; raised at once.
        DataError: a row is not a valid record; raised when it is reached, naming file, row or line, and field.
    """
    files, beside = expanded(_listed(paths)), list(_listed(sidecars))
    rows: Iterator[tuple[Mapping[str, Any], str]] = (row for file in files for row in _read(file))
    if beside:
        from rlvr.record.sidecar import Sidecars

        rows = Sidecars(beside).join(rows)
    return (rollout_of(row, where) for row, where in rows)


def _listed(paths: str | Path | Iterable[str | Path]) -> Iterable[str | Path]:
    return [paths] if isinstance(paths, str | Path) else paths


def _read(path: Path) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Yield the rows with their places."""
    if ending(path) == ".jsonl":
        for where, text in lines_of(path):
            row = from_json(text, where)
            if not isinstance(row, dict):
                raise DataError(f"{where} is {kind_of(row)}: a record is an object")
            yield row, where
        return
    for first, batch in batches_of(path):
        rows = _array_rows(batch, partial(_row, path, first))
        for i, row in enumerate(rows):
            yield row, _row(path, first, i)


def _row(path: Path, first: int, i: int) -> str:
    return f"{path}, row {first + i}"
