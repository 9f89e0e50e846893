"""Resumable output: the scores of a request so far, so that the same request continues after a kill.

A journal is a file beside the output. Its first line is the request, every other line a JSON list of entries in row
order. It is appended to and flushed while rows are scored, and removed when the output is complete. An open journal is
locked: two processes never do the same work at once.
"""

from __future__ import annotations

import fcntl
import glob
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from rlvr.errors import RequestError, RunError
from rlvr.files import short_name, to_json
from rlvr.record.schema import Score, Status, Verdict
from rlvr.verify.scoring import Scorer

Scores: TypeAlias = tuple[Score, ...]
"""Scores of one row, one of each verifier."""

FLUSH_AFTER, FLUSH_BYTES, FLUSH_EVERY = 512, 1 << 20, 1.0  # entries, bytes, seconds: what a kill may cost
SYNC_EVERY = 10.0  # seconds: what a power cut may cost


class Journal:
    """Entries of one request, those of an earlier attempt first. An entry is any JSON value."""

    def __init__(
        self,
        path: Path,
        request: Mapping[str, Any],
        *,
        anew: bool = False,
        is_entry: Callable[[Any], bool] = lambda value: True,
    ) -> None:
        """Open the journal of `request`, or begin one.

        Args:
            path: The file.
            request: Identity of the request; plain JSON values.
            anew: Discard the journal of another request, which is an error otherwise.
            is_entry: Returns whether a value can be an entry; others are damage.

        Raises RequestError if another process holds the journal, or if it belongs to another request.
        """
        self.path = path
        self._is_entry = is_entry
        self._file = _locked(path)
        try:
            self.entries = self._adopt(request, anew)
            """Number of entries that an earlier attempt left."""
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
                    f"{self.path} is the journal of another request ({_difference(there, request)}): repeat that "
                    "one to finish it, or pass --force to start anew"
                )
        self._file.seek(0)
        self._file.truncate()
        self._file.write(to_json(request).encode() + b"\n")
        self._file.flush()
        return 0

    def _cut_torn_end(self) -> int:
        """Count the entries. Cut off the first damaged line and all after it: a kill or a power cut left them."""
        count = 0
        end = self._file.tell()
        for line in self._file:
            entries = _parsed(line) if line.endswith(b"\n") else None
            if not isinstance(entries, list) or not all(map(self._is_entry, entries)):
                break
            count += len(entries)
            end += len(line)
        self._file.seek(end)
        self._file.truncate()
        return count

    def replayed(self) -> Iterator[Any]:
        """Yield the entries that an earlier attempt left."""
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
        """Append an entry. An entry that is not `whole` is kept only together with the following ones up to the next
        whole entry.

        Raises RunError if the disk fails.
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
        """Write whole entries to the file."""
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
        """Delete the journal: the output is complete, or there is nothing to resume."""
        self.path.unlink(missing_ok=True)
        self._file.close()

    def close(self) -> None:
        """Leave the journal for the next attempt. A journal without entries is deleted."""
        if self._file.closed:
            return
        with self._file as file:
            self.flush()
            end = file.tell()
            file.seek(0)
            if len(file.readline()) == end:
                self.path.unlink(missing_ok=True)  # the folder may be gone


def _locked(path: Path) -> Any:
    """Open the file for reading and writing, locked."""
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
            raise RequestError(f"another process is already writing this output: it holds {path}") from error
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


class ScoreJournal:
    """Scores of a request's rows, in row order. A group is kept whole or not at all: its rows were scored together."""

    _FORMAT = 3  # of the entries and their order

    def __init__(
        self, path: Path, request: Mapping[str, Any], scorers: Sequence[Scorer], *, anew: bool = False
    ) -> None:
        """Open the journal of `request`, or begin one; see `Journal`. The scorers give their scores' provenance."""
        self._scorers = scorers
        self._journal = Journal(path, {**request, "format": self._FORMAT}, anew=anew, is_entry=self._is_entry)
        self._pending: tuple[list[Any], object] | None = None  # the newest row of a group, and the group

    @property
    def rows(self) -> int:
        """Number of rows that an earlier attempt scored."""
        return self._journal.entries

    def replayed(self) -> Iterator[Scores]:
        """Yield the scores of these rows."""
        for entry in self._journal.replayed():
            yield tuple(_restored(scorer, fields) for scorer, fields in zip(self._scorers, entry, strict=True))

    def _is_entry(self, entry: Any) -> bool:
        """Return whether an entry holds a score of each scorer."""
        if not isinstance(entry, list) or len(entry) != len(self._scorers):
            return False
        try:
            for fields in entry:
                _verdict(fields)
                seconds = fields["seconds"]
                if not isinstance(fields["created_at"], str) or not 0 <= seconds < math.inf:
                    return False
        except (ValueError, TypeError, KeyError, AttributeError):
            return False
        return True

    def add(self, scores: Scores, group: object = None) -> None:
        """Append the scores of the next row.

        Args:
            scores: One of each scorer.
            group: The group that the row was scored with; None if it was scored alone.

        Raises RunError if the disk fails.
        """
        entry = [_stored(score) for score in scores]
        if self._pending is not None:
            before, of = self._pending
            self._journal.add(before, whole=of != group)
            self._pending = None
        if group is None:
            self._journal.add(entry)
        else:
            self._pending = entry, group

    def remove(self) -> None:
        """Delete the journal: the output is complete, or there is nothing to resume."""
        self._journal.remove()

    def close(self) -> None:
        """Leave the journal for the next attempt."""
        self._journal.close()


_PROVENANCE = {"verifier", "version", "config", "config_hash"}  # the scorer has them
_STORED = tuple(name for name in Score.model_fields if name not in _PROVENANCE)
_PLAIN = frozenset({str, float, Status})
"""Types of values that are JSON values as they are."""


def _stored(score: Score) -> dict[str, Any]:
    """Return the fields of a score that its scorer does not have, as JSON values."""
    fields = {name: value for name in _STORED if (value := getattr(score, name)) is not None}
    if _PLAIN.issuperset(map(type, fields.values())):  # nearly always; ten times as fast
        return fields
    return score.model_dump(mode="json", exclude=_PROVENANCE)


def _restored(scorer: Scorer, fields: Mapping[str, Any]) -> Score:
    return scorer.score_of(_verdict(fields), fields["seconds"], fields["created_at"])


def _verdict(fields: Mapping[str, Any]) -> Verdict:
    return Verdict.model_validate({name: value for name, value in fields.items() if name in Verdict.model_fields})


def stale_temporaries(path: Path) -> Sequence[Path]:
    """Return the temporary files that killed writers of `path` left. The holder of its journal may delete them."""
    return sorted(path.parent.glob(f".{glob.escape(short_name(path))}.????????.tmp"))
