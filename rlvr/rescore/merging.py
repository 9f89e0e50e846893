"""Merge the outputs of `rlvr score --shard I/N` into one file, in the order of the rows that were sharded."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa

from rlvr.errors import DataError, RequestError, RunError
from rlvr.files import ending, replacing, writing_lines
from rlvr.record.lines import Line
from rlvr.record.parquet import RowGroups
from rlvr.record.reading import ArrowBatch, Source, read_batches
from rlvr.record.row_files import arrow_schema, format_of, row_files
from rlvr.record.rows import scores_in
from rlvr.record.store import TOKEN_COLUMNS

CHUNK = 128
"""Rows of each shard that are held at a time."""

Chunk: TypeAlias = list[Line] | pa.Table
Identity: TypeAlias = tuple[Any, Any, Any]
"""Verifier, version and configuration of a score."""


@dataclass(frozen=True)
class MergeResult:
    """The merged file."""

    file: Path
    shards: Mapping[Path, int]
    """Shard → its rows, in the order 1/N, 2/N, …"""
    verifiers: tuple[str, ...]
    """Verifiers of the scores that every shard has."""
    in_order: bool
    """Whether the rows have the order that they had before sharding. Shards of selected rows follow each other."""

    @property
    def written(self) -> int:
        """Number of rows."""
        return sum(self.shards.values())

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One row per shard; `pandas.DataFrame(result.rows)` is a table."""
        return [{"shard": str(path), "rows": count} for path, count in self.shards.items()]

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON-safe values."""
        return {
            "file": str(self.file),
            "written": self.written,
            "shards": self.rows,
            "verifiers": list(self.verifiers),
            "in_order": self.in_order,
        }


def merge(shards: str | Path | Iterable[str | Path], out: str | Path, *, force: bool = False) -> MergeResult:
    """Merge the outputs of `rlvr score --shard 1/N` to `N/N`, whole rows or sidecars, into one file.

    Whole shards are dealt out in turn, so that the rows have their order from before sharding. Shards whose sizes show
    that rows were selected (`where`, `limit`) follow each other.

    Args:
        shards: The files in the order of their numbers, or a folder or pattern, whose files are ordered by the numbers
            in their names.
        out: File to write, in the shards' format.
        force: Replace `out` if it exists.

    Raises RequestError for shards that do not belong together, DataError for a row that cannot be read, and RunError if
    a file changes while it is read.
    """
    given = [shards] if isinstance(shards, str | Path) else list(shards)
    paths = [path for each in given for path in sorted(row_files([each]), key=_natural)]
    out = Path(out)
    _check_request(paths, out, force)
    sizes, scored = _inspected(paths)
    in_order = list(sizes.values()) == _dealt(sum(sizes.values()), len(paths))
    with replacing(out) as temporary, _writing(temporary, out, paths) as write:
        written = 0
        for chunk in _interleaved(paths) if in_order else _in_turn(paths):
            write(chunk)
            written += len(chunk)
        if written != sum(sizes.values()):
            raise RunError(f"a shard changed while it was read: {sum(sizes.values()):,} rows, then {written:,}")
    return MergeResult(out, sizes, tuple(str(name) for name, _, _ in scored), in_order)


def _natural(path: Path) -> list[tuple[int, int, str]]:
    """Return a key that sorts the numbers in a name by size: shard-2 comes before shard-10."""
    parts = re.split(r"(\d+)", str(path))
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts]


def _dealt(rows: int, shards: int) -> list[int]:
    """Return the sizes of whole shards: shard i has every nth row, beginning with row i."""
    return [(rows + shards - i) // shards for i in range(1, shards + 1)]


def _check_request(paths: Sequence[Path], out: Path, force: bool) -> None:
    if len(paths) < 2:
        raise RequestError(f"--merge: {len(paths)} file is no set of shards: name all outputs of --shard 1/N to N/N")
    for i, path in enumerate(paths):
        if any(path.samefile(other) for other in paths[:i]):
            raise RequestError(f"{path} is given twice")
    is_arrow = {format_of(path) in (".parquet", ".arrow") for path in paths}
    if len(is_arrow) > 1 or is_arrow != {ending(out) == ".parquet"}:
        raise RequestError(f"--merge: the shards and {out} have one format: all .parquet, or all .jsonl")
    if not out.parent.is_dir():
        raise RequestError(f"{out} cannot be written: No such file or directory: {out.parent}")
    if out.exists() and any(out.samefile(path) for path in paths):
        raise RequestError(f"--out {out} is one of the shards")
    if out.exists() and not force:
        raise RequestError(f"{out} exists; --force replaces it")


# --- what the shards hold -------------------------------------------------------------------------------------------


def _inspected(paths: Sequence[Path]) -> tuple[dict[Path, int], list[Identity]]:
    """Return the rows of each shard, and the newest scores that every row has.

    Raises RequestError if the shards have different scores, or rows of one id.
    """
    sizes: dict[Path, int] = {}
    common: dict[Path, list[Identity]] = {}
    owners: dict[tuple[str, int], Path] = {}
    for path in paths:
        sizes[path] = 0
        source = Source(path)
        for batch in read_batches(path):
            sizes[path] += len(batch)
            for row in batch.rows(source.columns, without=TOKEN_COLUMNS):
                found = [_identity(score) for score in scores_in(row.values.get("scores"), row.where)]
                known = common.setdefault(path, found)
                common[path] = [each for each in known if each in found]
                if row.is_record or set(row.values) == {"id", "segment", "scores"}:
                    key = (str(row.id), int(row.values.get("segment") or 0))
                    if owners.setdefault(key, path) != path:
                        raise RequestError(f"{row.where}: the id {key[0]!r} is in {owners[key]} too: are these shards?")
    if not common:
        raise RequestError(f"--merge: {', '.join(map(str, paths))} have no rows")
    first, *others = common
    for path in others:
        if Counter(common[path]) != Counter(common[first]):
            raise RequestError(
                f"--merge: {first} has scores by {_told(common[first])}, {path} by {_told(common[path])}: shards of "
                "one request have the same scores"
            )
    if not common[first]:
        raise RequestError(f"--merge: {paths[0]} has no score that all of its rows have: it is no output of rlvr score")
    return sizes, common[first]


def _identity(score: Mapping[str, Any]) -> Identity:
    return score.get("verifier"), score.get("version"), score.get("config_hash")


def _told(scores: Iterable[Identity]) -> str:
    return ", ".join(f"{name} {version}" for name, version, _ in scores) or "nothing"


# --- rows in order --------------------------------------------------------------------------------------------------


def _chunks(path: Path) -> Iterator[Chunk]:
    """Yield the rows of a shard, `CHUNK` at a time; the last chunk may be shorter."""
    held: Any = None
    for batch in read_batches(path):
        rows: Any = pa.Table.from_batches([batch.batch]) if isinstance(batch, ArrowBatch) else batch.lines
        held = rows if held is None else _joined([held, rows])
        while len(held) >= CHUNK:
            yield held[:CHUNK]
            held = held[CHUNK:]
    if held is not None and len(held):
        yield held


def _joined(chunks: Sequence[Any]) -> Any:
    if isinstance(chunks[0], list):
        return [line for chunk in chunks for line in chunk]
    return pa.concat_tables(chunks, promote_options="default")


def _in_turn(paths: Sequence[Path]) -> Iterator[Chunk]:
    for path in paths:
        yield from _chunks(path)


def _interleaved(paths: Sequence[Path]) -> Iterator[Chunk]:
    """Yield the rows dealt out in turn: the first of each shard, the second of each shard, …"""
    streams = [_chunks(path) for path in paths]
    while True:
        chunks = [chunk for stream in streams if (chunk := next(stream, None)) is not None]
        if not chunks:
            return
        starts = [sum(len(chunk) for chunk in chunks[:i]) for i in range(len(chunks))]
        order = [starts[i] + row for row in range(len(chunks[0])) for i, chunk in enumerate(chunks) if row < len(chunk)]
        joined = _joined(chunks)
        yield [joined[place] for place in order] if isinstance(joined, list) else joined.take(order)


@contextmanager
def _writing(temporary: Path, out: Path, paths: Sequence[Path]) -> Iterator[Callable[[Chunk], None]]:
    if ending(out) != ".parquet":
        with writing_lines(temporary, out) as file:
            yield lambda lines: file.writelines(f"{line.text}\n" for line in lines)
        return
    try:
        schema = pa.unify_schemas([arrow_schema(path) for path in paths])
    except pa.ArrowException as error:
        raise DataError(f"--merge: the shards have different columns ({error})") from error
    with RowGroups(temporary, schema) as groups:

        def write(rows: pa.Table) -> None:
            whole = pa.concat_tables([schema.empty_table(), rows], promote_options="default").combine_chunks()
            for batch in whole.select(schema.names).to_batches():
                groups.add(batch)

        yield write
