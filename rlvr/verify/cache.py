"""Cache of verdicts: equal work is done once.

The key of a verdict is everything that it depends on: verifier, version, configuration, completion and task (only the
gold answer, for a verifier that sees no more of the task). Timeouts and errors are never kept, because they depend on
the moment, not on the row.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING

from rlvr.errors import RequestError, RunError
from rlvr.files import to_json
from rlvr.record.item import Item
from rlvr.record.schema import Status, Verdict, canonical_json
from rlvr.verify.loaded import Sees

if TYPE_CHECKING:
    import sqlite3

IN_MEMORY = 8 << 20
"""Approximate bytes of verdicts that are kept in memory. The least recently used one is dropped first."""
WRITE_AFTER, WRITE_EVERY = 1_000, 1.0  # new verdicts, seconds: what a kill may lose

KEPT = frozenset({Status.GRADED, Status.UNPARSED, Status.ABSTAINED, Status.INVALID})
_FORMAT = 1  # version of the file


def cache_key(identity: bytes, item: Item, sees: Sees) -> bytes | None:
    """Return 16 bytes that are equal for equal work by the verifier of `identity`; None without a completion."""
    if item.completion is None:
        return None
    text = item.completion.encode("utf-8", "surrogatepass")
    if sees == "task":
        task = canonical_json(item.task.model_dump(mode="json"))
    else:
        task = "" if item.task.answer is None else f"={item.task.answer}"
    parts = (identity, len(text).to_bytes(8, "big"), text, task.encode("utf-8", "surrogatepass"))
    return hashlib.blake2b(b"".join(parts), digest_size=16).digest()


class VerdictCache:
    """Verdicts by key: recent ones in memory, and all of them in a file, if there is one.

    The file is an SQLite database that several processes may share. Safe to use from several threads.
    """

    def __init__(self, path: Path | None = None, *, in_memory: int = IN_MEMORY) -> None:
        """Open the cache, with about `in_memory` bytes of verdicts in memory.

        Raises RequestError if `path` is another kind of file, or cannot be written.
        """
        self._limit = in_memory
        self._memory: OrderedDict[bytes, Verdict] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        self._path = path
        self._new: list[tuple[bytes, str]] = []
        self._written = time.monotonic()
        self._file = None if path is None else _opened(path)

    def get(self, key: bytes) -> Verdict | None:
        """Return the verdict of a key, or None if it is not known."""
        with self._lock:
            known = self._memory.get(key)
            if known is not None:
                self._memory.move_to_end(key)
            elif self._file is not None:
                known = self._read(self._file, key)
                if known is not None:
                    self._remember(key, known)
        return known

    def put(self, key: bytes, verdict: Verdict) -> None:
        """Keep a verdict, unless its status is not kept. Raises RunError if the file cannot be written any more."""
        if verdict.status not in KEPT:
            return
        with self._lock:
            self._remember(key, verdict)
            if self._file is None:
                return
            text = to_json(verdict.packed())
            self._new.append((key, text))
            if len(self._new) >= WRITE_AFTER or time.monotonic() - self._written >= WRITE_EVERY:
                self._write(self._file)

    def close(self) -> None:
        """Write new verdicts and close the file."""
        with self._lock:
            if self._file is not None:
                self._write(self._file)
                self._file.close()
                self._file = None

    def _read(self, file: sqlite3.Connection, key: bytes) -> Verdict | None:
        """Return the verdict in the file; None if there is none, or something else: it is verified again, and replaced.

        Raises RunError if the file is damaged as a whole.
        """
        from sqlite3 import Error

        try:
            found = file.execute("SELECT verdict FROM verdicts WHERE key = ?", (key,)).fetchone()
        except Error as error:
            raise RunError(f"the cache {self._path} cannot be read: {error}; delete it, or use another file") from error
        try:
            verdict = None if found is None else Verdict.unpacked(json.loads(found[0]))
        except (ValueError, TypeError, RecursionError):
            return None
        return verdict if verdict is not None and verdict.status in KEPT else None

    def _remember(self, key: bytes, verdict: Verdict) -> None:
        if key in self._memory:
            return
        self._memory[key] = verdict
        self._bytes += _size(verdict)
        while self._bytes > self._limit:
            self._bytes -= _size(self._memory.popitem(last=False)[1])

    def _write(self, file: sqlite3.Connection) -> None:
        """Write new verdicts in one transaction: while one process writes, the others wait."""
        from sqlite3 import Error

        try:
            file.execute("BEGIN IMMEDIATE")
            file.executemany("INSERT OR REPLACE INTO verdicts VALUES (?, ?)", self._new)
            file.execute("COMMIT")
        except Error as error:
            raise RunError(f"the cache {self._path} cannot be written: {error}") from error
        self._new.clear()
        self._written = time.monotonic()


def _size(verdict: Verdict) -> int:
    """Return the approximate size of a verdict with its parts, in bytes."""
    parts = (verdict.parts or {}).items()
    own = 512 + len(verdict.extracted or "") + len(verdict.reason or "")
    return own + sum(len(name) + _size(part) for name, part in parts)


def _opened(path: Path) -> sqlite3.Connection:
    import sqlite3

    try:
        file = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
        file.execute("PRAGMA journal_mode = WAL")  # writers do not block readers
        file.execute("PRAGMA synchronous = NORMAL")
        (found,) = file.execute("PRAGMA user_version").fetchone()
        if found not in (0, _FORMAT):
            raise RequestError(f"the cache {path} was written by another version of rlvr: use another file")
        file.execute("CREATE TABLE IF NOT EXISTS verdicts (key BLOB PRIMARY KEY, verdict TEXT NOT NULL) WITHOUT ROWID")
        file.execute(f"PRAGMA user_version = {_FORMAT}")
    except sqlite3.Error as error:
        raise RequestError(f"the cache {path} cannot be used: {error}") from error
    return file
