"""Groups of the rows to score, for verifiers that judge whole groups: checks, and scoring group by group.

If the rows of a group are not consecutive, all rows are kept in a temporary file and verified group by group; the
output keeps the order of the input.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice, tee

import numpy as np

from rlvr.errors import RequestError, RunError
from rlvr.record.item import Item
from rlvr.record.paths import heads
from rlvr.record.reading import Source
from rlvr.record.rows import FieldError, Row
from rlvr.record.store import TOKEN_COLUMNS
from rlvr.rescore.journal import ScoreJournal, Scores
from rlvr.rescore.rescoring import Job, Report, ScoredBatch, ScoredRows, Selection, because, read_row
from rlvr.verify.grouping import MOST_MEMBERS, Numbering, Spool

_OF_GROUPS = frozenset({"schema_version", "run_id", "branch", "group_id", "group_size", "segment"})


@dataclass
class Groups:
    """Groups of the selected rows, numbered by their first rows."""

    numbering: Numbering = field(default_factory=Numbering)
    in_order: bool = True
    """Whether rows can be verified in the order of the files: groups stand together, and neighbors have other ids."""
    notes: list[str] = field(default_factory=list)
    """Notes for the user, one line each."""


def read_groups(job: Job) -> Groups:
    """Read which group each selected row is in.

    A group is a `group_id` of one run and branch, or else of one file. Raises RequestError if a verifier cannot judge
    these groups: they are too small or far too large, or the selection takes a part of one.
    """
    groups = Groups()
    numbering = groups.numbering
    before: tuple[int, Hashable] | None = None
    alone = 0
    files: dict[str, set[str]] = {}  # group ids of foreign rows, by file
    sampled: dict[int, list[int]] = {}  # group → rollouts that were sampled, and those that are here
    for source, row in _rows(job, job.selection):
        key = _key(source, row)
        number = numbering.add(key)
        alone += key is None
        name = None if key is None else key[1:]
        groups.in_order &= before is None or before[0] == number or name is None or before[1] != name
        before = number, name
        planned = row.values.get("group_size") if row.is_record else None
        if isinstance(planned, int) and not row.values.get("segment"):
            sampled.setdefault(number, [planned, 0])[1] += 1
        if key is not None and key[0] is not None:
            files.setdefault(key[0], set()).add(key[-1])
    groups.in_order &= numbering.together
    _require_members(job, numbering, alone)
    _require_whole_groups(job, numbering)
    groups.notes += _notes(job, numbering, alone, list(files.values()))
    if lacking := sum(here < planned for planned, here in sampled.values()):
        groups.notes.append(
            f"{lacking:,} groups have fewer rollouts here than were sampled (group_size): "
            "they are judged without the missing ones"
        )
    return groups


def _rows(job: Job, selection: Selection) -> Iterator[tuple[Source, Row]]:
    """Yield the rows of a selection with the columns that groups are told by."""
    for source, batch in selection.batches(job.sources, lambda error: None):
        only = _OF_GROUPS | heads([source.columns["group_id"]])
        for row in batch.rows(source.columns, without=TOKEN_COLUMNS, only=only):
            yield source, row


def _key(source: Source, row: Row) -> tuple[str | None, str | None, int, str] | None:
    """Return file (None for a record of a run), run, branch and group id of a row; None if it names no group."""
    try:
        group = row.group
    except FieldError:  # its verdict is `invalid`
        return None
    if group is None:
        return None
    run, branch = (row.values.get("run_id"), row.values.get("branch") or 0) if row.is_record else (None, 0)
    return (str(source.path) if run is None else None), run, branch, group


def _require_members(job: Job, numbering: Numbering, alone: int) -> None:
    """Raise RequestError if no group has as many rows as a verifier needs, or one has more than can be held."""
    sizes = numbering.sizes
    if not len(sizes):
        return
    files = ", ".join(str(source.path) for source in job.sources)
    column = job.sources[0].columns["group_id"]
    for scorer in job.scorers:
        if scorer.takes_groups and sizes.max() < scorer.min_group:
            none = f"no row names its group (in the column {column!r})"
            small = f"no group has as many (by the column {column!r})"
            raise RequestError(
                f"{files}: verifier {scorer.name!r} judges groups of at least {scorer.min_group} rollouts, and "
                f"{none if alone == len(numbering) else small}; name the column that the rollouts of one prompt share "
                "with --map group_id=COLUMN"
            )
    if sizes.max() > MOST_MEMBERS:
        key = numbering.key(int(sizes.argmax()))
        assert isinstance(key, tuple)
        raise RequestError(
            f"{files}: the group {key[-1]!r} has {sizes.max():,} rows, and a verifier gets all of a group at once: at "
            f"most {MOST_MEMBERS:,}. --map group_id=COLUMN names another column than {column!r}"
        )


def _require_whole_groups(job: Job, numbering: Numbering) -> None:
    """Raise RequestError if --where or --limit selects a part of a group."""
    if job.selection.is_all:
        return
    sizes = numbering.sizes
    totals = np.zeros_like(sizes)
    for source, row in _rows(job, Selection()):
        if (key := _key(source, row)) is not None and (number := numbering.number(key)) is not None:
            totals[number] += 1
    torn = np.flatnonzero(totals > sizes)
    if not len(torn):
        return
    first = numbering.key(int(torn[0]))
    assert isinstance(first, tuple)
    taken, total = int(sizes[torn[0]]), int(totals[torn[0]])
    option = "--where" if job.selection.limit is None else f"--limit {job.selection.limit}"
    whole = ""
    if job.selection.limit is not None and not job.selection.where.conditions and len(torn) == 1 and numbering.together:
        whole = f"; --limit {job.selection.limit + total - taken} takes all of them"
    raise RequestError(
        f"{option} takes {taken} of the {total} rows of group {first[-1]!r}, and a verifier judges whole groups{whole}"
    )


def _notes(job: Job, numbering: Numbering, alone: int, ids_of_files: list[set[str]]) -> Iterator[str]:
    least = max(scorer.min_group for scorer in job.scorers)
    sizes = numbering.sizes
    if few := int(sizes[sizes < least].sum()):
        which = f" ({alone:,} name no group)" if alone else ""
        yield f"{few:,} rows are in groups of fewer than {least}{which}: their verdict is `invalid`"
    if shared := set.intersection(*ids_of_files) if len(ids_of_files) > 1 else set():
        yield (
            f"{len(shared):,} group ids are in several files, such as {min(shared)!r}: they are treated as different "
            "groups, one per file"
        )


# --- scoring --------------------------------------------------------------------------------------------------------


def scored_by_group(job: Job, groups: Groups, journal: ScoreJournal, report: Report) -> Iterator[ScoredBatch]:
    """Yield the batches in the order of the files, after verifying their rows group by group.

    The journal holds the scores in the order of the groups. Raises RunError if the files have changed.
    """
    with Spool[Item]() as items, Spool[Scores]() as scores:
        faults: dict[int, str] = {}
        ends: list[int] = []
        sources: list[Source] = []
        for source, batch in job.batches(lambda error: None):
            for row in job.rows(source, batch):
                item, fault = read_row(job, row)
                if fault is not None:
                    faults[len(items)] = fault
                items.add(item)
            ends.append(len(items))
            sources.append(source)
        if len(items) != len(groups.numbering):
            raise RunError(f"the files changed while they were read: {len(groups.numbering)} rows, then {len(items)}")
        for members, found, replayed in _verified(job, groups, journal, items, faults):
            for number, of_row in zip(members, found, strict=True):
                scores.put(number, of_row)
            source = sources[bisect_right(ends, members[0])]
            report(ScoredRows(source, found, len(found) if replayed else 0))
        first = 0
        for source, batch in job.batches(lambda error: None):
            numbers = range(first, first + len(batch))
            yield ScoredBatch(source, batch, [scores[number] for number in numbers], 0)
            first = numbers.stop


def _verified(
    job: Job, groups: Groups, journal: ScoreJournal, items: Spool[Item], faults: Mapping[int, str]
) -> Iterator[tuple[list[int], list[Scores], bool]]:
    """Yield the row numbers of each group, their scores, and whether those are from the journal."""
    left = groups.numbering.in_groups()
    of_journal = journal.replayed()
    while there := list(islice(of_journal, 1)):
        members = next(left)
        yield members, [*there, *islice(of_journal, len(members) - 1)], True
    rows, *copies = tee(left, 1 + len(job.scorers))
    streams = [
        scorer.score_groups([items[number] for number in members] for members in copy)
        for scorer, copy in zip(job.scorers, copies, strict=True)
    ]
    for members in rows:
        found = []
        for number in members:
            of_row = tuple(next(stream) for stream in streams)
            fault = faults.get(number)
            found.append(of_row if fault is None else tuple(because(score, fault) for score in of_row))
            journal.add(found[-1], members[0])
        yield members, found, False
