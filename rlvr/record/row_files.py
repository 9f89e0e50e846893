"""Files and folders that hold rows: which ones a request names, in which format, and the rows as Arrow or JSON text.

Beside Parquet and JSON lines, which hold records too: CSV, JSON (a list of objects, or objects one after the other),
folders of `Dataset.save_to_disk`, and standard input.
"""

from __future__ import annotations

import atexit
import codecs
import csv
import io
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from rlvr.errors import DataError, RequestError
from rlvr.files import (
    COMPRESSED,
    ENDINGS,
    SPOOL_PREFIX,
    existing,
    expanded,
    from_json,
    kind_of,
    opened_bytes,
    refuse_twice,
    sha256,
    to_json,
)
from rlvr.record.parquet import BATCH_BYTES, BATCH_ROWS, batches_of, opened

STDIN = "-"
"""Name of standard input and standard output."""

TEXT_ENDINGS = (".json", ".csv")
ROW_ENDINGS = (*ENDINGS, *TEXT_ENDINGS)

_STATE, _SPLITS = "state.json", "dataset_dict.json"  # what datasets writes beside its Arrow files


def format_of(path: Path) -> str:
    """Return the format of a file or folder: `.parquet`, `.jsonl`, `.json`, `.csv`, or `.arrow` for a saved data set.

    Raises RequestError for any other ending.
    """
    if is_saved_dataset(path):
        return ".arrow"
    suffix = path.with_suffix("").suffix if path.suffix in COMPRESSED else path.suffix
    if suffix in (*TEXT_ENDINGS, ".jsonl") or path.suffix == ".parquet":
        return suffix
    raise RequestError(
        f"{path} ends in neither .parquet nor .jsonl (nor .jsonl.gz, .jsonl.zst, .json, .csv): the ending says which "
        "format it is"
    )


def is_saved_dataset(path: Path) -> bool:
    """Return whether a folder is one that `Dataset.save_to_disk` wrote."""
    return os.path.isfile(path / _STATE) and os.path.isfile(path / "dataset_info.json")


def row_files(given: Iterable[str | Path]) -> list[Path]:
    """Return the files that hold the rows of a request.

    `-` is standard input, which is copied to a temporary file. A folder is a saved data set, the splits of one, or the
    `.parquet` and `.jsonl` files in it; a pattern is what matches.

    Raises RequestError for a path or pattern without a file, and for a file given twice.
    """
    paths = list(given)
    if paths.count(STDIN) > 1:
        raise RequestError("- is given twice: standard input is read once")
    found: list[Path] = []
    for each in paths:
        found += [spooled_input()] if str(each) == STDIN else _named(each)
    refuse_twice(found)
    return found


def _named(given: str | Path) -> Sequence[Path]:
    path = Path(given)
    if is_saved_dataset(path):
        return [path]
    if os.path.isfile(path / _SPLITS):
        splits = from_json((path / _SPLITS).read_text(encoding="utf-8"), str(path / _SPLITS))["splits"]
        return [path / split for split in splits]
    return expanded([path], check=row_file)


def row_file(path: Path) -> Path:
    """Return `path` if it is a readable file or folder of rows. Raises RequestError if it is not."""
    return path if is_saved_dataset(path) else existing(path, check=format_of)


def identity_of(path: Path) -> list[object]:
    """Return a value that changes if the file changes: path, size and modification time; for standard input, its
    content.
    """
    if path.parent.name.startswith(SPOOL_PREFIX):
        return [STDIN, path.stat().st_size, sha256(path)]
    files = arrow_files(path) if is_saved_dataset(path) else [path]
    about = [file.stat() for file in files]
    return [os.path.realpath(path), sum(each.st_size for each in about), max(each.st_mtime_ns for each in about)]


# --- standard input -------------------------------------------------------------------------------------------------


def spooled_input() -> Path:
    """Copy standard input to a temporary file, which is read as often as needed, and return it.

    The format is told from the content. The file is deleted when the process ends. Raises RequestError for no input.
    """
    folder = Path(tempfile.mkdtemp(prefix=SPOOL_PREFIX))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    stream: BinaryIO = sys.stdin.buffer
    plain = folder / "stdin"
    with plain.open("wb") as file:
        shutil.copyfileobj(stream, file, 1 << 20)
    with plain.open("rb") as file:
        start = file.read(1 << 16)
    if not start.strip():
        raise RequestError("standard input is empty")
    return plain.rename(plain.with_name(f"stdin{_ending_of(start)}"))


def _ending_of(start: bytes) -> str:
    """Return the ending that fits the first bytes of a file."""
    for magic, ending in ((b"PAR1", ".parquet"), (b"\x1f\x8b", ".jsonl.gz"), (b"\x28\xb5\x2f\xfd", ".jsonl.zst")):
        if start.startswith(magic):
            return ending
    first = start.removeprefix(codecs.BOM_UTF8).lstrip()
    if first.startswith(b"["):
        return ".json"
    if not first.startswith(b"{"):
        return ".csv"
    return ".json" if first.split(b"\n", 1)[0].strip() == b"{" else ".jsonl"


# --- Arrow ----------------------------------------------------------------------------------------------------------


def arrow_schema(path: Path) -> pa.Schema:
    """Return the columns of a Parquet file or a saved data set."""
    if format_of(path) == ".parquet":
        with opened(path) as file:
            return file.schema_arrow
    with _stream(arrow_files(path)[0]) as stream:
        return _unambiguous(stream.schema, path)


def arrow_batches(path: Path) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield `(number of its first row, from 1; rows)` for one batch after the other; see `batches_of`."""
    if format_of(path) == ".parquet":
        yield from batches_of(path)
        return
    first = 1
    for file in arrow_files(path):
        with _stream(file) as stream:
            _unambiguous(stream.schema, path)
            for whole in stream:
                size = max(1, min(BATCH_ROWS, BATCH_BYTES // (whole.nbytes // max(1, whole.num_rows) + 1)))
                for start in range(0, whole.num_rows, size):
                    batch = whole.slice(start, size)
                    yield first, batch
                    first += batch.num_rows


def arrow_files(folder: Path) -> list[Path]:
    """Return the Arrow files of a saved data set, in order. Raises DataError if its description is damaged."""
    state = from_json((folder / _STATE).read_text(encoding="utf-8"), str(folder / _STATE))
    try:
        files = [folder / part["filename"] for part in state["_data_files"]]
    except (KeyError, TypeError) as error:
        raise DataError(f"{folder / _STATE} names no data files: save the data set again (save_to_disk)") from error
    if not files:
        raise DataError(f"{folder / _STATE} names no data files: save the data set again (save_to_disk)")
    return files


def _stream(path: Path) -> pa.RecordBatchStreamReader:
    try:
        return pa.ipc.open_stream(pa.memory_map(str(path)))
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is not an Arrow file of a saved data set: {error}") from error


def _unambiguous(schema: pa.Schema, path: Path) -> pa.Schema:
    if twice := sorted({name for name in schema.names if schema.names.count(name) > 1}):
        raise DataError(f"{path} has two columns called {twice[0]!r}: rename one of them")
    return schema


# --- JSON and CSV ---------------------------------------------------------------------------------------------------


def json_texts(path: Path) -> Iterator[tuple[str, str]]:
    """Yield `("FILE, row 7", text)` for the objects of a JSON file: a list of them, or one after the other.

    The file is held in memory. Raises DataError for what is neither.
    """
    with opened_bytes(path) as file:
        data = file.read().removeprefix(codecs.BOM_UTF8)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 (byte {error.start + 1})") from error
    if text.lstrip().startswith("["):
        from_json(text, str(path))  # the scan below takes a valid text for granted
        yield from _scanned(text.rstrip()[:-1], text.index("[") + 1, path)
    else:
        yield from _scanned(text, 0, path)


def _scanned(text: str, start: int, path: Path) -> Iterator[tuple[str, str]]:
    scan = json.JSONDecoder().raw_decode
    number, at = 0, start
    while True:
        while at < len(text) and text[at] in " \t\r\n,":
            at += 1
        if at == len(text):
            return
        number += 1
        where = f"{path}, row {number}"
        try:
            value, end = scan(text, at)
        except json.JSONDecodeError as error:
            raise DataError(f"{where} is not JSON: {error.msg} (line {error.lineno}, column {error.colno})") from error
        except RecursionError as error:
            raise DataError(f"{where} is nested too deeply to read") from error
        except ValueError:  # Python refuses integers of more than 4300 digits; their end is known anyway
            value, end = json.JSONDecoder(parse_int=str).raw_decode(text, at)
        if not isinstance(value, dict):
            raise DataError(f"{where} is {kind_of(value)}: expected an object with the columns of a row")
        yield where, text[at:end]
        at = end


def csv_texts(path: Path) -> Iterator[tuple[str, str]]:
    """Yield `("FILE, row 7", JSON text)` for the rows of a CSV file with a header. Cells are text as it is written.

    Raises DataError for a row of another length than the header's, and for two columns of one name.
    """
    csv.field_size_limit(1 << 30)  # a worked solution may exceed Python's limit of 128 KB
    with opened_bytes(path) as binary:
        file = io.TextIOWrapper(binary, encoding="utf-8-sig", newline="")
        lines = csv.reader(file, strict=True)
        try:
            header = next(lines, None)
            if header is None:
                return
            twice = sorted({name for name in header if header.count(name) > 1})
            if twice:
                raise DataError(f"{path}: two columns are called {twice[0]!r}")
            for number, cells in enumerate(filter(None, lines), start=1):
                if len(cells) != len(header):
                    raise DataError(
                        f"{path}, row {number} (it ends in line {lines.line_num}): {len(cells)} cells under "
                        f"{len(header)} columns ({', '.join(header)})"
                    )
                yield f"{path}, row {number}", to_json(dict(zip(header, cells, strict=True)))
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(f"{path}, line {lines.line_num} is not CSV: {error}") from error
