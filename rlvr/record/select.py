"""Rows of files that meet conditions: what `rlvr show` does, as one function."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlvr.record.fields import SCORE_FIELDS, Fields, Where
from rlvr.record.reading import open as open_rows
from rlvr.record.store import TOKEN_COLUMNS

_SHOWN = ("id", "group_id", "prompt", "completion", "answer", "version", "tokens", "finish_reason", *SCORE_FIELDS)


class Matching:
    """The rows of some files that meet conditions, read when they are iterated over, and counted."""

    def __init__(
        self,
        files: str | Path | Iterable[str | Path],
        *,
        where: str | Sequence[str] = (),
        group: str | None = None,
        mapping: Mapping[str, str] | None = None,
        sidecars: str | Path | Iterable[str | Path] = (),
    ) -> None:
        """Take the request; the arguments are those of `show`. Raises RequestError if it is wrong."""
        self._where = Where([where] if isinstance(where, str) else where)
        self._group = group
        self._files = [files] if isinstance(files, str | Path) else list(files)
        without = TOKEN_COLUMNS - {"loss_mask"}
        self._rows = open_rows(self._files, mapping=mapping, sidecars=sidecars, without=without)
        self.total = self.matching = 0

    def __iter__(self) -> Iterator[Fields]:
        """Yield the rows that match. Raises DataError for a row that cannot be read, RequestError at the end if a
        condition names a field that no row has."""
        for row in self._rows:
            self.total += 1
            fields = Fields(row)
            holds = self._where.holds(fields)
            if holds and (self._group is None or fields.get("group_id") == self._group):
                self.matching += 1
                yield fields
        self._where.require_known(", ".join(map(str, self._files)))


@dataclass(frozen=True)
class ShowResult:
    """The first rows that match, and how many there are."""

    fields: tuple[Fields, ...]
    """The rows; `fields.get(NAME)` is any field."""
    matching: int
    """Rows that match, of which `limit` are in `fields`."""
    total: int
    """Rows in the files."""

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One flat row each: where it stands, texts, and the last of the scores that met `where`.

        `pandas.DataFrame(result.rows)` is a table.
        """
        return [{"where": each.row.where, **{name: each.get(name) for name in _SHOWN}} for each in self.fields]

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON-safe values."""
        from rlvr.record.values import json_safe

        return {"rows": json_safe(self.rows), "matching": self.matching, "total": self.total}


def show(
    files: str | Path | Iterable[str | Path],
    *,
    where: str | Sequence[str] = (),
    group: str | None = None,
    limit: int = 10,
    mapping: Mapping[str, str] | None = None,
    sidecars: str | Path | Iterable[str | Path] = (),
) -> ShowResult:
    """Return rows of files that meet conditions.

    Args:
        files: Records or any other rows: files, folders of files, patterns.
        where: Conditions that must all hold: `"status=unparsed"`, `"reward<1"`, `"completion~boxed"`. Fields are
            columns, those of a score, `version` and `tokens`. Conditions on fields of a score must hold for one and the
            same score, any of the row's.
        group: Only rows of this group.
        limit: How many rows to return; 0 is all.
        mapping: Target → column of foreign files: `{"completion": "response"}`.
        sidecars: Files of `rlvr score --scores-only`, whose scores follow the rows' own.

    Raises RequestError for a wrong condition or file, DataError for a row that cannot be read.
    """
    found = Matching(files, where=where, group=group, mapping=mapping, sidecars=sidecars)
    kept = tuple(fields for fields in found if not limit or found.matching <= limit)
    return ShowResult(kept, found.matching, found.total)
