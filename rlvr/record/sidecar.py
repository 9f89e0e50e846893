"""Sidecars: files of scores that `rlvr score --scores-only` writes, joined with their rows by id and segment."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from rlvr.errors import DataError
from rlvr.files import ending, expanded, from_json, lines_of
from rlvr.record.parquet import batches_of, python_rows

Key: TypeAlias = tuple[str, int]


class Sidecars:
    """The scores of one or several sidecars, by `id` and `segment` of their row. They are held in memory."""

    def __init__(self, paths: Iterable[str | Path]) -> None:
        """Read the files. Raises RequestError for a missing file, DataError for a row that does not belong in a
        sidecar."""
        self._files: list[tuple[Path, dict[Key, Sequence[Mapping[str, Any]]]]] = []
        self.paths = expanded(paths)
        for path in self.paths:
            scores: dict[Key, Sequence[Mapping[str, Any]]] = {}
            for row, where in _rows(path):
                identity, there = (row.get("id"), row.get("scores")) if isinstance(row, dict) else (None, None)
                if not isinstance(identity, str) or not isinstance(there, list):
                    raise DataError(f"{where}: a row of a sidecar has an id, text, and a list of scores")
                if not isinstance(segment := row.get("segment") or 0, int):
                    raise DataError(f"{where}: the segment of a row of a sidecar is a number")
                key = (identity, segment)
                if key in scores:
                    raise DataError(f"{where}: id {identity!r} (segment {key[1]}) occurs twice")
                scores[key] = there
            self._files.append((path, scores))
        self._unused: set[Path] = {path for path, scores in self._files if scores}

    def scores_of(self, identity: str, segment: int = 0) -> list[Mapping[str, Any]]:
        """Return the scores that the sidecars have for a row, in their order."""
        found: list[Mapping[str, Any]] = []
        for path, scores in self._files:
            if (identity, segment) in scores:
                self._unused.discard(path)
                found += scores[identity, segment]
        return found

    def with_scores(self, values: Mapping[str, Any], identity: str | None) -> Mapping[str, Any]:
        """Return the row with its own scores followed by those of the sidecars. A row without an id, or whose own
        scores are no list, is returned unchanged."""
        segment, own = values.get("segment") or 0, values.get("scores") or []
        if identity is None or not isinstance(segment, int) or not isinstance(own, list):
            return values
        found = self.scores_of(identity, segment)
        return {**values, "scores": [*own, *found]} if found else values

    def refuse_unused(self) -> None:
        """Raise DataError if no row so far had an id of some sidecar."""
        for path in sorted(self._unused):
            raise DataError(f"{path} has none of the ids of the rows: is it the sidecar of another file?")

    def join(self, rows: Iterable[tuple[Mapping[str, Any], str]]) -> Iterator[tuple[Mapping[str, Any], str]]:
        """Yield rows and their places as `with_scores` returns them. Raises as `refuse_unused` does at the end."""
        for values, where in rows:
            identity = values.get("id")
            yield self.with_scores(values, identity if isinstance(identity, str) else None), where
        self.refuse_unused()


def _rows(path: Path) -> Iterator[tuple[Any, str]]:
    if ending(path) == ".jsonl":
        yield from ((from_json(text, where), where) for where, text in lines_of(path))
        return
    for first, batch in batches_of(path):
        places = [f"{path}, row {first + i}" for i in range(batch.num_rows)]
        yield from zip(python_rows(batch, places.__getitem__), places, strict=True)
