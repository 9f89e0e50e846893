"""What has been done of a long piece of work, so that the same request goes on after a kill where it was.

A journal is a file beside the result. Its first line says what was requested; every other line is a JSON list of
entries, in their order. It is appended to and flushed as the work goes on, and removed when the result is complete. Who
holds it open holds a lock: two processes never do the same work at once.
"""

from __future__ import annotations

import fcntl
import glob
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlvr.errors import RequestError, RunError
from rlvr.files import to_json

FLUSH_AFTER, FLUSH_BYTES, FLUSH_EVERY = 512, 1 << 20, 1.0  # entries, bytes, seconds: what a kill may cost
SYNC_EVERY = 10.0  # seconds: what a power cut may cost


class Journal:
    """Entries of one request, those of an earlier attempt first."""

    def __init__(self, path: Path, request: Mapping[str, Any], *, anew: bool = False) -> None:
        """Opens the journal of `request`, or begins one.

        Args:
            path: Where it is, or will be.
            request: What makes two requests the same; plain JSON values.
            anew: Another request's journal is thrown away instead of being an error.

        Raises RequestError when another process works on it, or when it is another request's.
        """
        self.path = path
        self._file = _locked(path)
        try:
            self.entries = self._adopt(request, anew)
            """How many an earlier attempt has left."""
        except BaseException:
            self._file.close()
            raise
        self._held: list[str] = []
        self._bytes = self._whole = 0
        self._flushed = self._synced = time.monotonic()

    def _adopt(self, request: Mapping[str, Any], anew: bool) -> int:
        header = self._file.readline()
        if header.endswith(b"\n"):
            there = _parsed(header)
            if isinstance(there, dict) and there == request:
                return self._cut_torn_end()
            if not anew:
                raise RequestError(
                    f"{self.path} is the journal of another request ({_difference(there, request)}): give that one to "
                    "finish it, or --force to start anew"
                )
        self._file.seek(0)
        self._file.truncate()
        self._file.write(to_json(request).encode() + b"\n")
        self._file.flush()
        return 0

    def _cut_torn_end(self) -> int:
        """Count the entries; a line that a kill or a power cut has damaged goes, and all after it."""
        count = 0
        end = self._file.tell()
        for line in self._file:
            entries = _parsed(line) if line.endswith(b"\n") else None
            if not isinstance(entries, list):
                break
            count += len(entries)
            end += len(line)
        self._file.seek(end)
        self._file.truncate()
        return count

    def replayed(self) -> Iterator[Any]:
        """The entries that an earlier attempt has left."""
        left = self.entries
        with self.path.open("rb") as file:
            file.readline()
            for line in file:
                if left <= 0:  # what this attempt has added
                    return
                entries = json.loads(line)
                left -= len(entries)
                yield from entries

    def add(self, entry: Any, *, whole: bool = True) -> None:
        """One entry more. Entries up to one that is not `whole` are kept only with those that follow.

        Raises RunError when the disk fails.
        """
        text = to_json(entry)
        self._held.append(text)
        self._bytes += len(text)
        if not whole:
            return
        self._whole = len(self._held)
        if self._whole >= FLUSH_AFTER or self._bytes >= FLUSH_BYTES or time.monotonic() - self._flushed >= FLUSH_EVERY:
            self.flush()

    def flush(self) -> None:
        """Hand to the system what is whole."""
        if self._whole:
            try:
                self._file.write(f"[{', '.join(self._held[: self._whole])}]\n".encode())
                self._file.flush()
                if time.monotonic() - self._synced >= SYNC_EVERY:
                    os.fsync(self._file.fileno())
                    self._synced = time.monotonic()
            except OSError as error:
                raise RunError(f"{self.path} could not be written: {error.strerror}") from error
            del self._held[: self._whole]
            self._bytes = self._whole = 0
        self._flushed = time.monotonic()

    def remove(self) -> None:
        """The work is done, or there is none to go on with."""
        self.path.unlink(missing_ok=True)
        self._file.close()

    def close(self) -> None:
        """Leave the journal for the next attempt; without an entry there is nothing to leave."""
        if self._file.closed:
            return
        self.flush()
        if self._file.tell() == _header_end(self.path):
            self.path.unlink()
        self._file.close()


def _header_end(path: Path) -> int:
    with path.open("rb") as file:
        return len(file.readline())


def _locked(path: Path) -> Any:
    """The file, open for reading and writing, and nobody else's."""
    while True:
        try:
            file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b")
        except OSError as error:
            raise RequestError(f"{path} cannot be written: {error.strerror}") from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno())):
                return file
            file.close()  # it was removed between our opening and our locking it
        except BlockingIOError as error:
            file.close()
            raise RequestError(f"another process is at this very work: it holds {path}") from error
        except OSError as error:
            file.close()
            raise RequestError(f"{path} cannot be locked: {error.strerror}") from error


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


def _difference(there: Any, request: Mapping[str, Any]) -> str:
    if not isinstance(there, dict):
        return "unreadable"
    differing = [key for key in request if there.get(key) != request[key]]
    key = differing[0] if differing else "version"
    more = f" and {', '.join(differing[1:])}" if differing[1:] else ""
    return f"{key}: {_short(there.get(key))} there, {_short(request.get(key))} here{more}"


def _short(value: Any, limit: int = 120) -> str:
    text = to_json(value)
    return text if len(text) <= limit else text[:limit] + "…"


def stale_temporaries(path: Path) -> Sequence[Path]:
    """What killed writers of `path` have left: whoever holds its journal may remove them."""
    return sorted(path.parent.glob(f".{glob.escape(path.name[:200])}.????????.tmp"))
