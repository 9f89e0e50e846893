"""Score files: copy the rows of several files and append the scores of several verifiers, resumable after a kill.

The files are read twice. The first reading does everything except verifying, so that a row that cannot be read or
written stops the work before it begins and not hours later. The second reading takes scores from the journal of an
earlier attempt as far as it goes, and from the verifiers after that.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, islice, tee
from pathlib import Path
from typing import NamedTuple, TypeAlias

from rlvr.errors import DataError, RequestError, RunError, nearest
from rlvr.files import replacing, to_json
from rlvr.record.content_ids import ContentIds
from rlvr.record.fields import Fields, Where
from rlvr.record.foreign_formats import suggestion
from rlvr.record.gold_join import GoldAnswers
from rlvr.record.item import Item, item_of
from rlvr.record.lines import line_of
from rlvr.record.paths import heads, paths_in
from rlvr.record.reading import ArrowBatch, Batch, LineBatch, Source, read_batches, with_ids
from rlvr.record.rows import FieldError, Row
from rlvr.record.schema import Score, Task
from rlvr.record.store import TOKEN_COLUMNS
from rlvr.rescore.journal import ScoreJournal, Scores, stale_temporaries
from rlvr.rescore.scored import Output, output_for
from rlvr.verify.scoring import Scorer

Report: TypeAlias = Callable[["ScoredRows"], object]


# --- the request ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Selection:
    """The rows that are verified and written."""

    where: Where = field(default_factory=lambda: Where(()))
    limit: int | None = None
    shard: tuple[int, int] | None = None
    """(i, n): rows whose number, counted from 1 through all files, is i modulo n."""

    @property
    def is_all(self) -> bool:
        """Whether every row is selected."""
        return not self.where.conditions and self.limit is None and self.shard is None

    def batches(
        self,
        sources: Iterable[Source],
        on_bad_line: Callable[[DataError], object],
        ids: Callable[[Source], ContentIds] | None = None,
    ) -> Iterator[tuple[Source, Batch]]:
        """Yield the selected rows of the sources, in order, with the ids that `ids` makes for all rows of a source."""
        number = chosen = 0
        for source in sources:
            for read in read_batches(source.path, on_bad_line=on_bad_line):
                batch = read if ids is None else identified(source, read, ids(source))
                places: Sequence[int] = range(len(batch))
                if self.shard is not None:
                    i, n = self.shard
                    places = [place for place in places if (number + place + 1 - i) % n == 0]
                number += len(batch)
                if self.where.conditions and places:
                    rows = batch.rows(source.columns, without=TOKEN_COLUMNS - {"loss_mask"})
                    places = [place for place in places if self.where.holds(Fields(rows[place]))]
                if self.limit is not None:
                    places = places[: self.limit - chosen]
                chosen += len(places)
                if places:
                    yield source, batch if len(places) == len(batch) else batch.take(places)
                if chosen == self.limit:
                    return


@dataclass(frozen=True)
class OutputFile:
    """A file to write, and the files whose rows it gets."""

    path: Path
    sources: Sequence[Source]


@dataclass(frozen=True)
class Job:
    """A request to score files."""

    sources: Sequence[Source]
    targets: Sequence[OutputFile]
    scorers: Sequence[Scorer]
    selection: Selection = Selection()
    scores_only: bool = False
    """Write sidecars: `id`, `segment` and the new scores of each row."""
    skip_bad_lines: bool = False
    gold: GoldAnswers | None = None
    """Answers of another file that the rows get."""

    @cached_property
    def outputs(self) -> list[Output]:
        """The format of each target."""
        return [
            output_for(
                [] if self.scores_only else [source.path for source in target.sources],
                target.path,
                answered=self.gold is not None,
            )
            for target in self.targets
        ]

    @cached_property
    def places(self) -> dict[Path, int]:
        """Source → number of its target."""
        return {source.path: i for i, target in enumerate(self.targets) for source in target.sources}

    @cached_property
    def wants_rollout(self) -> bool:
        """Whether a verifier needs whole rollouts."""
        return any(scorer.wants_rollout for scorer in self.scorers)

    @cached_property
    def wants_extra(self) -> bool:
        """Whether a verifier needs more of the task than its answer."""
        return any(scorer.wants_extra for scorer in self.scorers)

    @property
    def needs(self) -> frozenset[str]:
        """Targets without which a verifier's verdict on a row is `invalid`."""
        answer = any(scorer.claims.needs_answer for scorer in self.scorers)
        prompt = any(scorer.claims.needs_prompt for scorer in self.scorers)
        return frozenset({"completion", *(["answer"] if answer else []), *(["prompt"] if prompt else [])})

    def batches(self, on_bad_line: Callable[[DataError], object]) -> Iterator[tuple[Source, Batch]]:
        """Yield the rows to score, in order, with their gold answers; for sidecars, every row with an id."""
        ids = [ContentIds() for _ in self.targets]
        ids_of = (lambda source: ids[self.places[source.path]]) if self.scores_only else None
        for source, batch in self.selection.batches(self.sources, on_bad_line, ids_of):
            yield source, batch if self.gold is None else self.gold.join(source, batch)

    def written(self, source: Source, batch: Batch) -> Batch:
        """Return the part of the batch that is written, apart from the new scores."""
        return identities(source, batch) if self.scores_only else batch

    def rows(self, source: Source, batch: Batch) -> list[Row]:
        """Return the batch's rows with the columns that verifying needs."""
        if self.wants_rollout:
            return batch.rows(source.columns)
        only = None
        if not self.wants_extra:
            only = frozenset({"schema_version", "task", "completion", *source.columns.values()})
        return batch.rows(source.columns, without=TOKEN_COLUMNS, only=only)

    def item(self, row: Row) -> Item:
        """Return what verifying the row needs. Raises as `rlvr.record.item.item_of`."""
        return item_of(row, wants_rollout=self.wants_rollout, wants_extra=self.wants_extra)


def identified(source: Source, batch: Batch, ids: ContentIds) -> Batch:
    """Return the batch with ids for the rows that have none."""
    only = frozenset({"schema_version", *(source.columns[target] for target in ("id", "prompt", "completion"))})
    return replace(batch, ids=[row.made_id for row in with_ids(batch.rows(source.columns, only=only), ids)])


def identities(source: Source, batch: Batch) -> LineBatch:
    """Return each row's id and segment as a line. Raises DataError for a row without an id."""
    lines = []
    for row in batch.rows(source.columns, without=TOKEN_COLUMNS):
        if (identity := row.id) is None:
            column = "id" if row.is_record else source.columns["id"]
            raise DataError(
                f"{row.where} has no {column!r}, and no prompt or completion to make one from: a sidecar needs "
                "the id of each row"
            )
        lines.append(line_of(to_json({"id": identity, "segment": row.segment}), row.where))
    return LineBatch(lines)


# --- the first reading ----------------------------------------------------------------------------------------------


@dataclass
class Census:
    """Counts of the selected rows."""

    rows: Counter[Path] = field(default_factory=Counter)
    records: Counter[Path] = field(default_factory=Counter)
    present: defaultdict[Path, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """File → target → rows in which the target's column, or path, is not null."""
    columns: dict[Path, dict[str, None]] = field(default_factory=dict)
    """File → columns of its foreign rows."""
    paths: dict[Path, list[str]] = field(default_factory=dict)
    """File → columns of its first foreign row, and the paths into them."""
    bad_lines: int = 0
    first_bad_line: str = ""

    def note_bad_line(self, error: DataError) -> None:
        """Count a line that is no row."""
        self.bad_lines += 1
        self.first_bad_line = self.first_bad_line or str(error)

    def names(self, path: Path) -> list[str]:
        """Return the columns of a file, and the paths into them that its first foreign row has."""
        return [*dict.fromkeys([*self.columns.get(path, ()), *self.paths.get(path, ())])]

    def add(self, source: Source, row: Row) -> None:
        """Count what a row has."""
        if row.is_record:
            self.records[source.path] += 1
            task = row.values.get("task")
            found = {"completion": row.values.get("completion"), "answer": task and task.get("answer"), "prompt": True}
        else:
            row.require_one_completion()
            columns = self.columns.setdefault(source.path, {})
            if not row.values.keys() <= columns.keys():
                columns.update(dict.fromkeys(row.values))
            if source.path not in self.paths:
                self.paths[source.path] = [*paths_in(row.values)]
            found = {target: row.at(column) for target, column in source.columns.items()}
        present = self.present[source.path]
        for target, value in found.items():
            if value is not None:
                present[target] += 1

    def add_columns(self, source: Source, batch: ArrowBatch) -> None:
        """Count what the foreign rows of a Parquet file have, without reading the columns that are not nested."""
        arrow = batch.batch
        if source.path not in self.paths:
            (first,) = batch.take([0]).rows(source.columns)
            self.paths[source.path] = [*paths_in(first.values)]
        names = arrow.schema.names
        nested = frozenset(
            path for path in source.columns.values() if path not in names and not heads([path]).isdisjoint(names)
        )
        for row in batch.rows(source.columns, only=nested) if nested else ():
            self.add(source, row)
        self.columns.setdefault(source.path, {}).update(dict.fromkeys(arrow.schema.names))
        for target, column in source.columns.items():
            if column in arrow.schema.names:
                values = arrow.column(column)
                self.present[source.path][target] += len(values) - values.null_count


def take_census(job: Job, mapping: Mapping[str, str] | None = None) -> Census:
    """Read the files and do all that scoring does except verifying.

    Raises DataError for a row that cannot be read or written. Raises RequestError if the rows of a file lack what the
    verifiers need, and for a mapping to a column that no row has.
    """
    census = Census()
    written: list[set[tuple[str, int]]] = [set() for _ in job.targets]
    for source, batch in job.batches(census.note_bad_line):
        census.rows[source.path] += len(batch)
        place = job.places[source.path]
        lines = job.written(source, batch)
        job.outputs[place].check(lines)
        if job.scores_only and isinstance(lines, LineBatch):
            _refuse_doubles(lines, written[place])
        if isinstance(batch, ArrowBatch) and "schema_version" not in batch.names:
            census.add_columns(source, batch)
            continue
        for row in job.rows(source, batch):
            census.add(source, row)
            if row.is_record:
                job.item(row)  # a foreign row that is at fault is only `invalid`
    if census.bad_lines and not job.skip_bad_lines:
        more = f" (and {census.bad_lines - 1} more lines)" if census.bad_lines > 1 else ""
        raise DataError(f"{census.first_bad_line}{more}; --skip-bad-lines leaves such lines out")
    if census.bad_lines and not census.rows:
        raise DataError(f"no line is a row, {census.bad_lines:,} are left out: {census.first_bad_line}")
    if job.gold is not None:
        job.gold.require_joined()
    _require_mapped(job, census, mapping or {})
    for source in job.sources:
        _require_targets(job, census, source)
        _require_columns(job, census, source)
    return census


def _refuse_doubles(lines: LineBatch, known: set[tuple[str, int]]) -> None:
    """Add the ids of a sidecar's lines to those so far. Raise DataError for a duplicate."""
    for line in lines.lines:
        key = (line.values["id"], line.values["segment"])
        if key in known:
            raise DataError(
                f"{line.where}: an earlier row has the id {key[0]!r} too: ids of a sidecar must be unique; "
                "--map id=COLUMN names another column"
            )
        known.add(key)


def _require_mapped(job: Job, census: Census, mapping: Mapping[str, str]) -> None:
    """Raise RequestError for a mapping to a column that no row of any file has."""
    for target, column in mapping.items():
        if target == column or not census.rows:
            continue
        if census.rows.total() == census.records.total():
            names = ", ".join(str(source.path) for source in job.sources)
            raise RequestError(f"--map {target}={column}: {names} holds records, which have fixed columns")
        if any(census.present[source.path][target] for source in job.sources):
            continue
        known = dict.fromkeys(name for source in job.sources for name in census.names(source.path))
        raise RequestError(f"--map {target}={column}: no row has a column {column!r}{nearest(column, known)}")


def _require_targets(job: Job, census: Census, source: Source) -> None:
    """Raise RequestError if no row of a file has what the verifiers need, so that every row would be invalid."""
    rows = census.rows[source.path]
    targets = [each for each in ("completion", "answer", "prompt") if each in job.needs]
    missing = [each for each in targets if not census.present[source.path][each]]
    if not rows or not missing:
        return
    if census.records[source.path] == rows:
        names = " and ".join("task.answer" if target == "answer" else target for target in missing)
        raise RequestError(f"{source.path}: every record's {names} is null, so no record can be verified")
    columns = census.columns[source.path]
    faults = []
    for target in missing:
        column = source.columns[target]
        if heads([column]).isdisjoint(columns) or job.selection.is_all:  # else other rows may have it
            has = "every row is null in" if column in columns else "no row has"
            faults.append(f"{has} the column {column!r}{suggestion(target, census.names(source.path))}")
    if faults:
        raise RequestError(f"{source.path}: {'; '.join(faults)}; its columns are: {_listed(columns)}")


def _require_columns(job: Job, census: Census, source: Source) -> None:
    """Raise RequestError if a verifier cannot do without a column that no row of a file has.

    What `task.extra` of records holds is not looked at.
    """
    columns = census.columns.get(source.path)
    if columns is None or census.records[source.path]:
        return
    for scorer in job.scorers:
        if missing := [name for name in scorer.claims.columns if name not in columns]:
            raise RequestError(
                f"{source.path}: verifier {scorer.name!r} needs the column {missing[0]!r}, and no row has it; the "
                f"columns are: {_listed(columns)}"
            )


def _listed(names: Iterable[str], most: int = 40) -> str:
    shown = list(names)
    return ", ".join(shown[:most]) + (f" and {len(shown) - most} more" if len(shown) > most else "")


# --- the second reading ---------------------------------------------------------------------------------------------


class ScoredRows(NamedTuple):
    """Rows that were verified, or replayed from an earlier attempt."""

    source: Source
    scores: Sequence[Scores]
    replayed: int


class ScoredBatch(NamedTuple):
    """Consecutive rows of one file with their scores."""

    source: Source
    batch: Batch
    scores: Sequence[Scores]
    replayed: int
    """Number of rows, the first ones, whose scores are from an earlier attempt."""


def run(
    job: Job,
    journal: ScoreJournal,
    census: Census,
    report: Report,
    scored: Iterator[ScoredBatch] | None = None,
) -> None:
    """Verify what the journal does not have and write every output file.

    An output file gets its name only when it is complete. `report` is called with each batch of rows, unless `scored`
    yields the batches instead of the verifiers, in the order of the files.

    Raises RunError if a file has changed since the census, or if verifying cannot continue; the journal is kept then.
    """
    for target in job.targets:
        for path in stale_temporaries(target.path):
            path.unlink(missing_ok=True)
    seen: Counter[Path] = Counter()
    stream = _scored(job, job.batches(lambda error: None), journal) if scored is None else scored
    due: ScoredBatch | None = None
    for place, target in enumerate(job.targets):
        with replacing(target.path) as temporary, job.outputs[place].writing(temporary) as write:
            due = next(stream, None) if place == 0 else due  # nothing is verified before the output can be written
            while due is not None and job.places[due.source.path] == place:
                write(job.written(due.source, due.batch), due.scores)
                seen[due.source.path] += len(due.scores)
                if scored is None:
                    report(ScoredRows(due.source, due.scores, due.replayed))
                due = next(stream, None)
            for source in target.sources:
                if seen[source.path] != census.rows[source.path]:
                    journal.remove()
                    raise RunError(
                        f"{source.path} changed while it was read: {census.rows[source.path]} rows, then "
                        f"{seen[source.path]}"
                    )
    journal.remove()


def _scored(job: Job, batches: Iterator[tuple[Source, Batch]], journal: ScoreJournal) -> Iterator[ScoredBatch]:
    replayed = journal.replayed()
    for source, batch in batches:
        scores = list(islice(replayed, len(batch)))
        if len(scores) < len(batch):
            yield from _fresh(job, chain([(source, batch)], batches), scores, journal)
        else:
            yield ScoredBatch(source, batch, scores, len(scores))


def read_row(job: Job, row: Row) -> tuple[Item, str | None]:
    """Return what verifying a row needs, and the reason if it cannot be verified."""
    try:
        return job.item(row), None
    except FieldError as error:
        return Item(None, Task()), error.reason


@dataclass
class _Waiting:
    """Batch whose scores are due, with the inputs of its rows."""

    source: Source
    batch: Batch
    faults: list[str | None] = field(default_factory=list)
    """Reason why a row cannot be verified, which makes its verdict `invalid`; None if it can."""
    groups: list[str | None] = field(default_factory=list)

    def read(self, job: Job, skip: int) -> list[Item]:
        """Return what verifying the rows needs, without the first `skip` rows."""
        items = []
        for row in job.rows(self.source, self.batch)[skip:]:
            item, fault = read_row(job, row)
            items.append(item)
            self.faults.append(fault)
            self.groups.append(item.rollout.group_id if item.rollout else None)
        return items


def _fresh(
    job: Job, batches: Iterator[tuple[Source, Batch]], replayed: list[Scores], journal: ScoreJournal
) -> Iterator[ScoredBatch]:
    """Yield the batches, verified; the first rows of the first batch are replayed.

    A bounded number of batches is read ahead of the one that is due.
    """
    waiting: deque[_Waiting] = deque()
    in_groups = any(scorer.takes_groups for scorer in job.scorers)

    def items(skip: int) -> Iterator[Item]:
        for source, batch in batches:
            waiting.append(_Waiting(source, batch))
            yield from waiting[-1].read(job, skip)
            skip = 0

    scores, skipped = replayed, len(replayed)
    copies = tee(items(skipped), len(job.scorers))
    streams = [scorer.score(each) for scorer, each in zip(job.scorers, copies, strict=True)]
    for row in zip(*streams, strict=True):
        due = waiting[0]
        place = len(scores) - skipped
        fault = due.faults[place]
        scores.append(row if fault is None else tuple(because(score, fault) for score in row))
        journal.add(scores[-1], due.groups[place] if in_groups else None)
        if len(scores) == len(due.batch):
            waiting.popleft()
            yield ScoredBatch(due.source, due.batch, scores, skipped)
            scores, skipped = [], 0


def because(score: Score, reason: str) -> Score:
    """Return the score with another reason."""
    return score.model_copy(update={"reason": reason})
