"""Files that are complete or absent, and lines of JSON: what every reader and writer shares.

Nothing here knows what a line means.
"""

from __future__ import annotations

import codecs
import errno
import glob
import hashlib
import io
import json
import os
import re
import secrets
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from rlvr.errors import DataError, RequestError, RunError
from rlvr.terminal import raw_stream

_CODECS = {".gz": "gzip", ".zst": "zstd"}
COMPRESSED = frozenset(_CODECS)
"""Endings of compressed files."""
ENDINGS = (".parquet", ".jsonl", *(f".jsonl{suffix}" for suffix in _CODECS))
_MAGIC = {"gzip": (b"\x1f\x8b", ".gz"), "zstd": (b"\x28\xb5\x2f\xfd", ".zst")}

# Half of a surrogate pair is not valid UTF-8. U+0085, U+2028 and U+2029 end a line for some readers.
_ESCAPED = re.compile("[\ud800-\udfff\x85\u2028\u2029]")
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode  # `json.dumps` makes an encoder a call
BAD_PATHS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR)
"""Errors of a path that cannot be used as the request says."""
DISK_FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""Errors of a full or broken disk, which are no fault of the request."""
VANISHED = (errno.ENOENT, errno.ESTALE)
"""Errors of a file or folder that is gone."""
_KINDS = {bool: "a bool", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}


def ending(path: Path) -> str:
    """Return `.parquet` or `.jsonl`, which is the format. `.jsonl.gz` and `.jsonl.zst` are compressed `.jsonl`.

    Raises RequestError for any other ending.
    """
    suffix = path.with_suffix("").suffix if path.suffix in _CODECS else path.suffix
    if suffix == ".jsonl" or path.suffix == ".parquet":
        return suffix
    raise RequestError(
        f"{path} ends in neither .parquet nor .jsonl (nor .jsonl.gz, .jsonl.zst): the ending says which format it is"
    )


def is_record_file(path: Path) -> bool:
    """Return whether a file in a folder is one to read: it has a known ending and is not hidden."""
    return path.name.endswith(ENDINGS) and not path.name.startswith(".") and path.is_file()


def by_numbers(path: Path) -> tuple[list[int | str], str]:
    """Return a key that sorts paths by the numbers in them: as text, step 1,000,000 comes before step 999,999."""
    parts = re.split("([0-9]+)", str(path))
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], str(path)


def expanded(given: Iterable[str | Path], *, check: Callable[[Path], Path] | None = None) -> list[Path]:
    """Expand run directories to their rollouts, other folders to the record files in them, and patterns (`*`, `?`, `[`,
    `**`) to what matches.

    The files of a folder or pattern are sorted by name, and names with numbers by these: `step-2` before `step-10`.
    Each file passes `check`, by default `existing`. Raises RequestError for a path or pattern without a file, and for a
    file given twice.
    """
    files: list[Path] = []
    for each in given:
        path = _rollouts_of(Path(each))
        if os.path.isdir(path):
            found = sorted(filter(is_record_file, path.iterdir()), key=by_numbers)
            if not found:
                raise RequestError(f"{path} holds no file that ends in {', '.join(ENDINGS)}")
        elif not os.path.exists(path) and glob.has_magic(str(each)):
            found = sorted(filter(Path.is_file, map(Path, glob.glob(str(each), recursive=True))), key=by_numbers)
            if not found:
                raise RequestError(f"no file matches {each}")
        else:
            found = [path]
        files += map(check or existing, found)
    refuse_twice(files)
    return files


def _rollouts_of(path: Path) -> Path:
    """Return the rollout folder of a run directory; any other path unchanged."""
    is_run = os.path.isfile(path / "config.yaml") and os.path.isdir(path / "rollouts")  # False for impossible names
    return path / "rollouts" if is_run else path


def refuse_twice(files: Iterable[Path]) -> None:
    """Raise RequestError for a file that is given twice, also by different spellings or links."""
    seen: dict[tuple[int, int], Path] = {}
    for path in files:
        about = path.stat()
        before = seen.setdefault((about.st_dev, about.st_ino), path)
        if before is not path:
            raise RequestError(f"{path} is given twice" + ("" if before == path else f" (also as {before})"))


def existing(path: Path, *, check: Callable[[Path], object] = ending) -> Path:
    """Return `path` if it is a readable file whose ending passes `check`. Raises RequestError if it is not."""
    try:
        path.stat()
    except FileNotFoundError:
        raise RequestError(f"{path} does not exist") from None
    except OSError as error:  # a loop of symbolic links, a name that is too long, a folder that may not be searched
        raise RequestError(f"{path} cannot be read: {error.strerror}") from error
    if not path.is_file():
        raise RequestError(f"{path} is not a file")
    if not os.access(path, os.R_OK):
        raise RequestError(f"{path} may not be read by this user")
    check(path)
    return path


def short_name(path: Path) -> str:
    """Return the name of `path`, cut to 200 bytes, so that a name made of it has not more than the 255 of a file name.

    A name that is cut ends in a hash of the whole.
    """
    name = os.fsencode(path.name)
    if len(name) <= 200:
        return path.name
    return f"{name[:180].decode('utf-8', 'ignore')}~{hashlib.sha256(name).hexdigest()[:16]}"


@contextmanager
def replacing(path: Path, before_rename: Callable[[Path], object] | None = None) -> Iterator[Path]:
    """Yield a temporary file beside `path`. It is renamed to `path` if the block succeeds, and deleted if it fails.

    The content is synced to disk before the rename. A reader finds the old file, the new one or none, even after a
    power cut. `before_rename` is called with the complete temporary file. Raises RequestError if the folder cannot be
    written to, RunError if the disk fails later.
    """
    target = Path(os.path.realpath(path))  # a symbolic link stays, and its target is replaced
    temporary = target.with_name(f".{short_name(target)}.{secrets.token_hex(4)}.tmp")
    try:
        # Not tempfile: it makes files that only their owner may read.
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except OSError as error:
        raise RequestError(f"{path} cannot be written: {error.strerror}: {target.parent}") from error
    try:
        yield temporary
        sync(temporary)
        if before_rename is not None:
            before_rename(temporary)
        os.replace(temporary, target)
        sync(target.parent)
    except OSError as error:
        if error.errno not in DISK_FAULTS:  # about another file
            raise
        raise RunError(f"{path} could not be written: {os.strerror(error.errno)}") from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`. It becomes `path`, in place of an older one, if the block succeeds.

    Its files are synced to disk before. If the block fails, the temporary folder is deleted.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for entry in sorted(temporary.rglob("*")):
            sync(entry)
        shutil.rmtree(path, ignore_errors=True)
        os.replace(temporary, path)
        sync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


SPOOL_PREFIX = "rlvr-stdin-"
"""Beginning of the name of a temporary folder that holds a copy of standard input."""


def with_stdin_named(text: str) -> str:
    """Return a message with `stdin` in place of the temporary file that holds standard input."""
    return re.sub(rf"[^\s'\"]*/{SPOOL_PREFIX}\w+/stdin(\.\w+)*", "stdin", text)


def sha256(path: Path) -> str:
    """Return the SHA-256 of the file's content, in hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Wait until the content of `path`, a file or a folder, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def kind_of(value: Any) -> str:
    """Return what JSON calls a value, with its article, for messages."""
    return _KINDS.get(type(value), "null" if value is None else f"a {type(value).__name__}")


def as_text(value: Any) -> str:
    """Return text unchanged, anything else as JSON."""
    try:
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    except RecursionError:
        return "(nested too deeply to be shown)"


def to_json(value: Any, default: Callable[[Any], Any] | None = None) -> str:
    """Return JSON text on one line that UTF-8 can hold. Raises ValueError for NaN and infinity.

    A lone surrogate is written as its escape, which Python's JSON reader turns back into itself. A high surrogate
    directly followed by a low one comes back as the character that the two encode.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, default=default) if default else _encode(value)
    return _ESCAPED.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def utf8_text(text: str) -> str:
    """Return text that UTF-8, and so every file format, can hold: a lone surrogate becomes its escape, `\\ud800`."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def from_json(text: str, where: str) -> Any:
    """Parse JSON text. Raises DataError, which says where."""
    with json_faults(where):
        return json.loads(text)


@contextmanager
def json_faults(where: str) -> Iterator[None]:
    """Turn the errors of Python's JSON reader in this block into a DataError, which says where."""
    try:
        yield
    except json.JSONDecodeError as error:
        raise DataError(f"{where} is not JSON: {error.msg} (column {error.pos + 1})") from error
    except RecursionError as error:
        raise DataError(f"{where} is nested too deeply to read") from error
    except ValueError as error:  # Python refuses integers of more than 4300 digits
        raise DataError(f"{where} cannot be read: {error}") from error


@contextmanager
def opened_bytes(path: Path) -> Iterator[BinaryIO]:
    """Open a file of text for reading, uncompressed as its ending says.

    Raises DataError, with advice, if the content is of another format than the name says.
    """
    with path.open("rb") as file:
        _refuse_other_format(file.peek(64), path)
        if path.suffix not in _CODECS:
            yield file
            return
    import pyarrow as pa

    with pa.input_stream(str(path), compression=_CODECS[path.suffix]) as stream:
        yield io.BufferedReader(stream, 1 << 18)


def _refuse_other_format(start: bytes, path: Path) -> None:
    codec = _CODECS.get(path.suffix)
    for name, (magic, suffix) in _MAGIC.items():
        if start.startswith(magic) and codec != name:
            raise DataError(
                f"{path} is compressed with {name}: rename it to {path.stem if codec else path.name}{suffix}"
            )
    if codec is not None and start and not start.startswith(_MAGIC[codec][0]):
        raise DataError(f"{path} is not compressed with {codec}: rename it to {path.stem}")
    if start.startswith(b"PAR1"):
        raise DataError(f"{path} is a Parquet file: rename it to {path.stem}.parquet")
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or (len(start) > 3 and start[1] == 0 != start[0]):
        raise DataError(f"{path} is UTF-16: convert it to UTF-8, for example: iconv -f UTF-16 -t UTF-8 {path.name}")


@contextmanager
def writing_lines(temporary: Path, path: Path) -> Iterator[TextIO]:
    """Yield a text file that writes to `temporary`, compressed as the ending of `path` says."""
    if path.suffix not in _CODECS:
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            yield file
        return
    import pyarrow as pa

    with pa.output_stream(str(temporary), compression=_CODECS[path.suffix]) as stream:
        text = io.TextIOWrapper(stream, encoding="utf-8", newline="\n")
        yield text
        text.flush()
        text.detach()


def raw_lines_of(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield `("FILE, line 7", bytes)` for each line that is not blank, without the white space around it.

    Only LF and CR LF end a line: text may hold the other characters that Python calls line ends. A byte order mark is
    skipped. Raises DataError for a damaged compressed file.
    """
    number = 0
    with opened_bytes(path) as file:
        try:
            for number, raw in enumerate(file, start=1):
                line = (raw.removeprefix(codecs.BOM_UTF8) if number == 1 else raw).strip(b" \t\r\n")
                if line:
                    yield f"{path}, line {number}", line
        except OSError as error:
            raise DataError(f"{path} is damaged after line {number}: {error}") from error


def decoded(line: bytes, where: str) -> str:
    """Decode a line. Raises DataError if it is not UTF-8."""
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{where} is not UTF-8 (byte {error.start + 1})") from error


def lines_of(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the lines as `raw_lines_of` does, decoded. Raises DataError for a line that is not UTF-8."""
    return ((where, decoded(line, where)) for where, line in raw_lines_of(path))


def say_at_once(text: str) -> None:
    """Print a line to standard error from a signal handler.

    A `print` that interrupts another one is an error, so the text goes past the stream's buffer.
    """
    stream = sys.__stderr__
    if stream is not None and stream is raw_stream(sys.stderr):
        begin = "\n" if stream.isatty() else ""  # the terminal shows ^C
        os.write(stream.fileno(), f"{begin}{text}\n".encode(stream.encoding, "backslashreplace"))
    else:
        print(text, file=sys.stderr, flush=True)
