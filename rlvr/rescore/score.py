"""Score rows of Python values, or whole files: what `rlvr score` does, as one function."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias, overload

from rlvr.errors import RequestError
from rlvr.files import ending, short_name
from rlvr.record.fields import Where
from rlvr.record.gold_join import GoldAnswers
from rlvr.record.reading import Source, source_of
from rlvr.record.row_files import STDIN, format_of, identity_of, row_files
from rlvr.record.schema import Score
from rlvr.rescore.groups import read_groups, scored_by_group
from rlvr.rescore.journal import ScoreJournal
from rlvr.rescore.rescoring import Census, Job, OutputFile, ScoredRows, Selection, run, take_census
from rlvr.rescore.summary import Tally, VerifierSummary
from rlvr.verify.cache import VerdictCache
from rlvr.verify.reward_limit import MAX_REWARD
from rlvr.verify.score_names import LABEL
from rlvr.verify.scoring import PythonRow, Scorer, score_rows

Options: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True)
class ScoreProgress:
    """Progress of scoring files."""

    rows: int
    """Rows scored so far."""
    total: int
    replayed: int
    """Rows whose scores are from an earlier, interrupted attempt."""
    file: Path
    """The file of the newest rows."""
    files: int
    """Number of files."""
    statuses: Mapping[str, int]
    """Status → number of scores so far, over all verifiers."""


class ScoreReporter:
    """Receives the events of scoring files; a subclass overrides the methods that it needs."""

    def note(self, text: str) -> None:
        """Called with a note for the user, such as the recognized file format."""

    def start(self, total: int, replayed: int) -> None:
        """Called when scoring begins: number of rows, and how many of them an earlier attempt scored."""

    def advance(self, progress: ScoreProgress) -> None:
        """Called after each batch of rows."""


@dataclass(frozen=True)
class ScoreResult:
    """Files that were written, and the counts of their new scores."""

    files: tuple[Path, ...]
    """The written files."""
    scored: int
    """Rows in them."""
    replayed: int
    """Rows whose scores are from an earlier, interrupted attempt."""
    seconds: float
    """Wall-clock time of this call."""
    verifiers: tuple[VerifierSummary, ...]
    """Counts by verifier, in the order given."""
    bad_lines: int
    """Lines that were left out because they are not JSON objects."""
    first_bad_line: str | None
    notes: tuple[str, ...]
    """Notes for the user, one line each."""

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One row per verifier: mean reward, counts by status; `pandas.DataFrame(result.rows)` is a table."""
        return [summary.to_dict() for summary in self.verifiers]

    @property
    def rows_per_second(self) -> float:
        """Rows verified per second in this call."""
        return (self.scored - self.replayed) / self.seconds

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON-safe values."""
        return {
            "files": [str(path) for path in self.files],
            "scored": self.scored,
            "replayed": self.replayed,
            "seconds": self.seconds,
            "verifiers": self.rows,
            "bad_lines": self.bad_lines,
            "first_bad_line": self.first_bad_line,
            "notes": list(self.notes),
        }


@overload
def score(
    rows: Iterable[PythonRow],
    verifier: str = ...,
    *,
    options: Options | None = ...,
    workers: int | None = ...,
    timeout: float = ...,
    max_reward: float = ...,
    write_protect: bool = ...,
) -> Iterator[Score]: ...


@overload
def score(
    rows: str | Path | Iterable[str | Path],
    verifier: str | Sequence[str] = ...,
    *,
    out: str | Path,
    options: Options | None = ...,
    workers: int | None = ...,
    timeout: float = ...,
    max_reward: float = ...,
    write_protect: bool = ...,
    mapping: Mapping[str, str] | None = ...,
    gold: str | Path | None = ...,
    on: str | None = ...,
    label: str | None = ...,
    where: str | Sequence[str] = ...,
    limit: int | None = ...,
    shard: tuple[int, int] | None = ...,
    scores_only: bool = ...,
    cache: str | Path | None = ...,
    skip_bad_lines: bool = ...,
    force: bool = ...,
    reporter: ScoreReporter | None = ...,
) -> ScoreResult: ...


def score(
    rows: Any,
    verifier: str | Sequence[str] = "math",
    *,
    out: str | Path | None = None,
    options: Options | None = None,
    workers: int | None = None,
    timeout: float = 5.0,
    max_reward: float = MAX_REWARD,
    write_protect: bool = False,
    **more: Any,
) -> Iterator[Score] | ScoreResult:
    """Score rows, or files if `out` is given.

    Without `out`, `rows` are Python values, and the result is an iterator of one `Score` a row, in order. A row is a
    `Rollout`, an `Item`, a `Row` of `rlvr.record.open`, or a mapping: a record (it has a `schema_version`), or any
    other with the keys `completion`, `answer`, `prompt`, `id`, `group_id` as far as they are known; its other keys are
    `task.extra`.

    With `out`, `rows` are files, and the result is a `ScoreResult`. Every row is written to `out` with its new scores
    appended to its list `scores`. The same call continues where an interrupted one stopped. Messages of errors name the
    options of `rlvr score`; the arguments have the same names.

    Args:
        rows: Rows, or files, folders and patterns; `-` is standard input.
        verifier: A registered name, `FILE.py:FUNCTION` or `package.module:function`; several with `out`.
        out: File to write, `.parquet` or `.jsonl`; a folder (it exists, or the text ends in `/`) gets a file for each;
            `-` is standard output, in JSON lines.
        options: Options of the verifier; with several verifiers, verifier → its options.
        workers: Processes of a verifier; None is one per usable CPU, 0 verifies in this process.
        timeout, max_reward: Seconds per verdict, and size of a reward beyond which the verdict is an `error`.
        write_protect: Let workers write to their scratch folders only, as Landlock of Linux 6.2 or newer enforces.
        mapping: Target → column of foreign files, or path into one: `{"completion": "response"}`.
        gold: File of gold answers, which are joined with the rows and written with them. With it, `mapping["answer"]`
            is a column of this file.
        on: Key of the join, a column or path: `KEY`, or `KEY=KEY_OF_GOLD`.
        label: Label of this variant: scores are stored under `NAME@LABEL`.
        where: Conditions that rows must meet, as in `rlvr show`: `"status=error"`.
        limit: Score only the first `limit` rows.
        shard: (i, n): score only each nth row, beginning with the ith; i counts from 1. The n shards are disjoint and
            complete.
        scores_only: Write only `id`, `segment` and the new scores of each row: a sidecar.
        cache: SQLite file that remembers verdicts for other calls.
        skip_bad_lines: Leave out lines that are not JSON objects instead of refusing the file.
        force: Replace `out` if it exists; discard unfinished work of another request.
        reporter: Receives the events of the work. By default nothing is printed.

    Raises RequestError (ConfigError, DataError, PluginError) if the request or a row is wrong, and RunError if the work
    cannot go on.
    """
    limits: dict[str, Any] = {"timeout": timeout, "max_reward": max_reward, "write_protect": write_protect}
    if out is None:
        if isinstance(rows, str | Path) or more or not isinstance(verifier, str):
            raise RequestError("to score files, say where to write them with out=…; without it rows are Python values")
        return score_rows(rows, verifier, options=options, workers=workers, **limits)
    verifiers = [verifier] if isinstance(verifier, str) else list(verifier)
    files = [rows] if isinstance(rows, str | Path) else list(rows)
    _check_named(files, verifiers)
    return FileRequest(files, verifiers, out, options=options, workers=workers, **limits, **more).run()


def _check_named(files: Sequence[Any], verifiers: Sequence[str]) -> None:
    """Raise RequestError unless there are a file and a verifier, and files are named."""
    if not files or not verifiers:
        raise RequestError("nothing to score: name at least one file and one verifier")
    if not all(isinstance(file, str | Path) for file in files):
        raise RequestError("with out=…, rows are files: to score Python values, leave it out")


@dataclass(frozen=True)
class FileRequest:
    """A request to score files; the fields are the arguments of `score`."""

    files: Sequence[str | Path]
    verifiers: Sequence[str]
    out: str | Path
    options: Options | None = None
    workers: int | None = None
    timeout: float = 5.0
    max_reward: float = MAX_REWARD
    write_protect: bool = False
    mapping: Mapping[str, str] | None = None
    gold: str | Path | None = None
    on: str | None = None
    label: str | None = None
    where: str | Sequence[str] = ()
    limit: int | None = None
    shard: tuple[int, int] | None = None
    scores_only: bool = False
    cache: str | Path | None = None
    skip_bad_lines: bool = False
    force: bool = False
    reporter: ScoreReporter | None = None

    def run(self) -> ScoreResult:
        """Score the files. Raises as `score` does."""
        if str(self.out) == STDIN:
            return self._run_to_standard_output()
        begin = time.monotonic()
        notes = _Notes(self.reporter or ScoreReporter())
        gold, mapping = self._gold()
        sources = [source_of(path, mapping) for path in row_files(self.files)]
        if gold is not None:
            sources = [gold.source(source) for source in sources]
        targets = _targets(sources, str(self.out))
        _refuse_to_lose(targets, self._journal_path, self.force)
        where = Where([self.where] if isinstance(self.where, str) else self.where)
        selection = Selection(where, self.limit, _checked_shard(self.shard))
        with ExitStack() as stack:
            scorers = self._scorers(stack)
            job = Job(sources, targets, scorers, selection, self.scores_only, self.skip_bad_lines, gold)
            notes.layouts(sources)
            census = take_census(job, mapping)
            where.require_known(", ".join(str(source.path) for source in sources))
            self._require_rows(census, where, sources, notes)
            if gold is not None:
                notes.add(gold.note())
            notes.missing_columns(census, sources)
            for output in job.outputs:
                for text in output.notes():
                    notes.add(text)
            groups = read_groups(job) if any(scorer.takes_groups for scorer in scorers) else None
            for text in () if groups is None else groups.notes:
                notes.add(text)
            journal = ScoreJournal(self._journal_path, self._identity(job), scorers, anew=self.force)
            stack.enter_context(closing(journal))
            if journal.rows:
                notes.add(f"{journal.rows:,} rows are verified already; continuing")
            counting = _Counting(job, census.rows.total(), notes.reporter)
            notes.reporter.start(counting.total, journal.rows)
            scored = None
            if groups is not None and not groups.in_order:
                scored = scored_by_group(job, groups, journal, counting)
            run(job, journal, census, counting, scored)
            if escaped := sum(scorer.escaped for scorer in scorers):
                notes.add(f"{escaped:,} verdicts held lone surrogates, which are escaped: no file can hold them")
        return ScoreResult(
            files=tuple(target.path for target in targets),
            scored=counting.rows,
            replayed=counting.replayed,
            seconds=time.monotonic() - begin,
            verifiers=tuple(tally.summary() for tally in counting.tallies),
            bad_lines=census.bad_lines,
            first_bad_line=census.first_bad_line or None,
            notes=tuple(notes.texts),
        )

    def _require_rows(self, census: Census, where: Where, sources: Sequence[Source], notes: _Notes) -> None:
        """Raise RequestError if there is nothing to score. A shard without rows is no mistake, but a note."""
        if census.rows.total():
            if self.limit is None and self.shard is None and not where.conditions:
                for source in sources:
                    if not census.rows[source.path]:
                        notes.add(f"{source.path} has no rows")
            return
        conditions = " ".join(f"--where {each.text}" for each in where.conditions)
        names = ", ".join(str(source.path) for source in sources)
        why = f"has no row that meets {conditions}" if conditions else "has no rows"
        if self.shard is None:
            raise RequestError(f"nothing to score: {names} {why}")
        notes.add(f"shard {self.shard[0]}/{self.shard[1]} of {names} {why}: its output is empty")

    def _gold(self) -> tuple[GoldAnswers | None, Mapping[str, str]]:
        """Return the gold answers, and the mapping of the rows' own columns."""
        mapping = dict(self.mapping or {})
        if (self.gold is None) != (self.on is None):
            raise RequestError("--gold FILE and --on KEY belong together: answers are joined with rows by a key")
        if self.gold is None or self.on is None:
            return None, mapping
        return GoldAnswers(self.gold, self.on, mapping.pop("answer", None)), mapping

    def _run_to_standard_output(self) -> ScoreResult:
        """Score into a temporary file and copy it, as JSON lines: what is printed is complete."""
        with tempfile.TemporaryDirectory(prefix="rlvr-stdout-") as folder:
            result = replace(self, out=Path(folder, "stdout.jsonl")).run()
            with result.files[0].open("rb") as file:
                shutil.copyfileobj(file, sys.stdout.buffer)
            sys.stdout.flush()
        return replace(result, files=(Path(STDIN),))

    @property
    def _journal_path(self) -> Path:
        path = Path(self.out)
        return path / ".rlvr-score.journal" if _is_folder(str(self.out)) else _beside(path)

    def _scorers(self, stack: ExitStack) -> list[Scorer]:
        """Load the verifiers. Raises RequestError if two of them store scores under the same name."""
        for each in self.verifiers:
            if self.verifiers.count(each) > 1:
                raise RequestError(f"--verifier {each} is given twice: score variants one after the other, with --as")
        if self.label is not None and not re.fullmatch(LABEL, self.label):
            raise RequestError(f"--as {self.label}: a label is letters, digits, '_', '.' and '-'")
        options: Mapping[str, Options] = {self.verifiers[0]: self.options or {}}
        if len(self.verifiers) > 1:
            options = self.options or {}
            if unknown := set(options) - set(self.verifiers):
                raise RequestError(f"options of {min(unknown)!r}, which is none of the verifiers")
        cache = stack.enter_context(closing(VerdictCache(None if self.cache is None else Path(self.cache))))
        limits: dict[str, Any] = {"workers": self.workers, "timeout": self.timeout, "max_reward": self.max_reward}
        limits |= {"write_protect": self.write_protect}
        scorers = [
            stack.enter_context(Scorer(each, options.get(each, {}), cache=cache, label=self.label, **limits))
            for each in self.verifiers
        ]
        for name, count in Counter(scorer.name for scorer in scorers).items():
            if count > 1:
                raise RequestError(
                    f"two of the verifiers are called {name!r}: score with one after the other, with --as"
                )
        if self.shard and any(scorer.takes_groups for scorer in scorers):
            i, n = self.shard
            raise RequestError(f"--shard {i}/{n}: shards would split groups, and a verifier judges whole groups")
        return scorers

    def _identity(self, job: Job) -> dict[str, Any]:
        """Return the values that identify a request: a later call with equal ones continues it."""
        return {
            "files": [identity_of(source.path) for source in job.sources],
            "verifiers": [[scorer.name, scorer.version, scorer.config_hash] for scorer in job.scorers],
            "out": os.path.realpath(self.out),
            "scores_only": self.scores_only,
            "skip_bad_lines": self.skip_bad_lines,
            "where": [self.where] if isinstance(self.where, str) else list(self.where),
            "limit": self.limit,
            "shard": None if self.shard is None else list(self.shard),
            "map": dict(self.mapping or {}),
            "gold": None if job.gold is None else [self.on, *map(identity_of, job.gold.files)],
            "timeout": self.timeout,
            "max_reward": self.max_reward,
        }


# --- where the rows go ----------------------------------------------------------------------------------------------


def _beside(path: Path) -> Path:
    return path.with_name(f".{short_name(path)}.journal")


def _is_folder(out: str) -> bool:
    return out.endswith("/") or Path(out).is_dir()


def _targets(sources: Sequence[Source], out: str) -> list[OutputFile]:
    """Return the files to write. Raises RequestError for an unknown ending, and for two files of one name."""
    if not _is_folder(out):
        ending(Path(out))
        if not Path(out).parent.is_dir():
            raise RequestError(f"{out} cannot be written: No such file or directory: {Path(out).parent}")
        return [OutputFile(Path(out), sources)]
    targets = [OutputFile(Path(out, _output_name(source.path)), [source]) for source in sources]
    for i, target in enumerate(targets):
        for other, source in zip(targets[:i], sources, strict=False):
            if other.path == target.path:
                raise RequestError(f"--out {out}: {source.path} and {sources[i].path} would both be {target.path}")
    try:
        Path(out).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(f"--out {out} cannot be made: {error.strerror}") from error
    return targets


def _output_name(source: Path) -> str:
    """Return the name of a file's output in a folder: its own, with an ending that can be written."""
    match format_of(source):
        case ".arrow":
            return f"{source.name}.parquet"
        case ".json" | ".csv" as other:
            return f"{source.name.removesuffix(source.suffix) if source.suffix != other else source.stem}.jsonl"
        case _:
            return source.name


def _refuse_to_lose(targets: Sequence[OutputFile], journal: Path, force: bool) -> None:
    for target in targets:
        if not target.path.exists():
            continue
        for source in target.sources:
            if target.path.samefile(source.path):
                raise RequestError(f"--out {target.path} is FILE itself: scores are written to another file")
        if target.path.is_dir():
            raise RequestError(f"--out {target.path} is a folder")
        if not force and not journal.exists():  # with a journal, the request that wrote this continues or is refused
            raise RequestError(f"{target.path} exists; --force replaces it")


def _checked_shard(shard: tuple[int, int] | None) -> tuple[int, int] | None:
    if shard is not None and not 1 <= shard[0] <= shard[1]:
        raise RequestError(
            f"--shard {shard[0]}/{shard[1]}: write I/N, for example 1/4, with I from 1 to N: shards count from 1"
        )
    return shard


# --- notes and progress ---------------------------------------------------------------------------------------------


@dataclass
class _Notes:
    """Notes for the user, reported at once."""

    reporter: ScoreReporter
    texts: list[str] = field(default_factory=list)

    def add(self, text: str) -> None:
        self.texts.append(text)
        self.reporter.note(text)

    def layouts(self, sources: Sequence[Source]) -> None:
        """Add a note for each format that was recognized."""
        for layout, columns in {source.layout: source.columns for source in sources if source.layout}.items():
            told = dict.fromkeys(["completion", "answer", *(each for each in layout.sources if columns[each] != each)])
            self.add(f"recognized as {layout.name}: {', '.join(f'{target}={columns[target]}' for target in told)}")

    def missing_columns(self, census: Census, sources: Sequence[Source]) -> None:
        """Add a note if no row at all has a completion or a gold: most likely the column has another name."""
        if census.rows.total() == census.records.total():
            return
        for target in ("completion", "answer"):
            if not any(census.present[source.path][target] for source in sources):
                names = ", ".join(dict.fromkeys(name for columns in census.columns.values() for name in columns))
                column = sources[0].columns[target]
                self.add(f"no row has a column {column!r}; the columns are: {names or 'none'} (--map {target}=SOURCE)")


class _Counting:
    """Counts the scores of each batch and reports the progress."""

    def __init__(self, job: Job, total: int, reporter: ScoreReporter) -> None:
        self._files = len(job.sources)
        self.tallies = [Tally(scorer.name) for scorer in job.scorers]
        self.rows, self.total, self.replayed = 0, total, 0
        self._reporter = reporter

    def __call__(self, done: ScoredRows) -> None:
        self.rows += len(done.scores)
        self.replayed += done.replayed
        for scores, tally in zip(zip(*done.scores, strict=True), self.tallies, strict=True):
            tally.add(scores)
        statuses = sum((tally.statuses for tally in self.tallies), Counter[str]())
        self._reporter.advance(
            ScoreProgress(self.rows, self.total, self.replayed, done.source.path, self._files, statuses)
        )
