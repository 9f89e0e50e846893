"""`rlvr score`: files with scores more a row."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlvr.cli.columns import column_mapping
from rlvr.cli.options import verifier_options
from rlvr.cli.progress import Tally, progress_of
from rlvr.errors import RequestError, RunError

if TYPE_CHECKING:
    from rlvr.record.reading import Source
    from rlvr.rescore.rescoring import Census, Job, OutputFile, ScoredBatch
    from rlvr.verify.scoring import Scorer


def score(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE",
            help="Rollouts or any other rows: .parquet, .jsonl, .jsonl.gz, .jsonl.zst; a folder of such files; a "
            "pattern in quotes.",
        ),
    ],
    verifiers: Annotated[
        list[str],
        typer.Option(
            "--verifier", "-v", metavar="NAME", help="A registered name, or FILE.py:FUNCTION; may be given repeatedly."
        ),
    ],
    out: Annotated[
        str,
        typer.Option(
            "--out", "-o", metavar="OUT", help="The file to write, or, ending in /, a folder for a file for each FILE."
        ),
    ],
    mappings: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="TARGET=SOURCE",
            help="Which column holds completion, answer, prompt, id or group_id, where it has another name. The files "
            "of TRL, verl and verifiers are recognised.",
        ),
    ] = None,
    options: Annotated[
        list[str] | None,
        typer.Option(
            "--option",
            metavar="[NAME:]KEY=VALUE",
            help="An option of the verifier; the value is YAML. NAME is that of the verifier, where there are several.",
        ),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(
            "--as", metavar="LABEL", help="Name this variant: the scores are by NAME@LABEL, e.g. math@strict."
        ),
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option("--where", "-w", metavar="EXPR", help="Only rows where it holds, as in rlvr show: status=error."),
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", "-n", min=1, help="Only the first so many of them.")] = None,
    shard: Annotated[
        str | None,
        typer.Option("--shard", metavar="I/N", help="Only each Nth row: 1/4, 2/4, 3/4 and 4/4 are all, none twice."),
    ] = None,
    scores_only: Annotated[
        bool, typer.Option("--scores-only", help="Write of each row only its id and the new scores: a sidecar.")
    ] = False,
    cache: Annotated[
        Path | None, typer.Option("--cache", metavar="FILE", help="Remember verdicts in this file, for other runs too.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=0, help="Processes a verifier; one a CPU by default, 0 is in process."),
    ] = None,
    timeout: Annotated[float, typer.Option("--timeout", metavar="SECONDS", help="Wall-clock limit a verdict.")] = 5.0,
    max_error_rate: Annotated[
        float,
        typer.Option(
            "--max-error-rate", min=0, max=1, help="Exit with 1 when more of the verdicts are errors and time-outs."
        ),
    ] = 0.05,
    skip_bad_lines: Annotated[
        bool, typer.Option("--skip-bad-lines", help="Leave out lines that are not JSON objects, instead of refusing.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace OUT if it exists; throw away what another request had begun.")
    ] = False,
) -> None:
    """Verify every row of each FILE; write the rows to OUT, each with an entry more in its list `scores`.

    A row with a schema_version is a rlvr record. In any other row the columns completion, answer, prompt, id and
    group_id are used, or those that --map names; all columns are kept as they are.

    The same command, run again after it was interrupted, goes on where it was.
    """
    from rlvr.files import expanded
    from rlvr.record.fields import Where
    from rlvr.record.reading import source_of
    from rlvr.rescore.journal import Journal
    from rlvr.rescore.rescoring import Job, Selection, run, take_census
    from rlvr.verify.cache import VerdictCache
    from rlvr.verify.scoring import Scorer

    begin = time.monotonic()
    mapping = column_mapping(mappings or ())
    sources = [source_of(path, mapping) for path in expanded(files)]
    targets = _targets(sources, out)
    journal_path = _journal_path(out)
    _refuse_to_lose(targets, journal_path, force)
    wanted = Where(where or ())
    selection = Selection(wanted, limit, _shard(shard))
    _refuse_twice(verifiers, label)
    options_of = verifier_options(options or (), verifiers)
    with ExitStack() as stack:
        remembered = stack.enter_context(closing(VerdictCache(cache)))
        scorers = [
            stack.enter_context(
                Scorer(each, options_of[each], workers=workers, timeout=timeout, label=label, cache=remembered)
            )
            for each in verifiers
        ]
        _refuse_alike(scorers)
        if shard and any(scorer.takes_groups for scorer in scorers):
            raise RequestError(f"--shard {shard}: it would tear groups apart, and a verifier judges whole groups")
        job = Job(sources, targets, scorers, selection, scores_only, skip_bad_lines)
        _say_layouts(sources)
        census = take_census(job, mapping)
        wanted.require_known(", ".join(str(source.path) for source in sources))
        _warn(census, sources)
        asked = {"where": where, "limit": limit, "shard": shard, "map": mappings, "timeout": timeout}
        journal = stack.enter_context(closing(Journal(journal_path, _request(job, asked, out), anew=force)))
        if journal.entries:
            print(f"rlvr: {journal.entries:,} rows were verified before, going on from there", file=sys.stderr)
        tallies = {scorer.name: Tally() for scorer in scorers}
        with progress_of(census.rows.total()) as progress:

            def report(done: ScoredBatch) -> None:
                for scores, tally in zip(zip(*done.scores, strict=True), tallies.values(), strict=True):
                    tally.add(scores)
                statuses = sum((tally.statuses for tally in tallies.values()), type(tally.statuses)())
                at = done.source.path.name if len(sources) > 1 else ""
                progress.advance(len(done.scores), at, statuses, replayed=done.replayed)

            try:
                run(job, journal, census, report)
            except KeyboardInterrupt:
                print("rlvr: interrupted; the same command goes on from here", file=sys.stderr)
                raise
        fresh = census.rows.total() - journal.entries
    print(_summary(tallies, census.rows.total(), fresh / (time.monotonic() - begin)))
    if census.bad_lines:
        print(f"left out     {census.bad_lines:,} bad lines, the first: {census.first_bad_line}")
    for target in targets:
        print(f"written to {target.path}")
    for name, tally in tallies.items():
        if tally.error_rate > max_error_rate:
            whose = f" of {name}" if len(tallies) > 1 else ""
            raise RunError(
                f"{tally.error_rate:.1%} of the verdicts{whose} are errors or time-outs, --max-error-rate allows "
                f"{max_error_rate:.1%}; {out} is complete and says for each row why"
            )


# --- what is asked for ----------------------------------------------------------------------------------------------


def _is_folder(out: str) -> bool:
    return out.endswith("/") or Path(out).is_dir()


def _targets(sources: Sequence[Source], out: str) -> list[OutputFile]:
    """What is written, of which files. Raises RequestError for an unknown ending, and for two files of one name."""
    from rlvr.files import ending
    from rlvr.rescore.rescoring import OutputFile

    if not _is_folder(out):
        ending(Path(out))
        if not Path(out).parent.is_dir():
            raise RequestError(f"{out} cannot be written: No such file or directory: {Path(out).parent}")
        return [OutputFile(Path(out), sources)]
    targets = [OutputFile(Path(out, source.path.name), [source]) for source in sources]
    for i, target in enumerate(targets):
        for other, source in zip(targets[:i], sources, strict=False):
            if other.path == target.path:
                raise RequestError(f"--out {out}: {source.path} and {sources[i].path} would both be {target.path}")
    try:
        Path(out).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(f"--out {out} cannot be made: {error.strerror}") from error
    return targets


def _journal_path(out: str) -> Path:
    path = Path(out)
    return path / ".rlvr-score.journal" if _is_folder(out) else path.with_name(f".{path.name[:200]}.journal")


def _refuse_to_lose(targets: Sequence[OutputFile], journal: Path, force: bool) -> None:
    for target in targets:
        if not target.path.exists():
            continue
        for source in target.sources:
            if target.path.samefile(source.path):
                raise RequestError(f"--out {target.path} is FILE itself: scores are written to another file")
        if target.path.is_dir():
            raise RequestError(f"--out {target.path} is a folder")
        if not force and not journal.exists():  # a journal is of a request that wrote this, or is an error later
            raise RequestError(f"{target.path} exists; --force replaces it")


def _shard(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
    if match is None or not 0 <= int(match[1]) <= int(match[2]) or match[2].strip("0") == "":
        raise RequestError(f"--shard {text}: write I/N, for example 1/4, with I from 1 to N")
    return int(match[1]), int(match[2])


def _refuse_twice(verifiers: Sequence[str], label: str | None) -> None:
    from rlvr.verify.score_names import LABEL

    for each in verifiers:
        if verifiers.count(each) > 1:
            raise RequestError(f"--verifier {each} is given twice: variants are scored one after the other, with --as")
    if label is not None and not re.fullmatch(LABEL, label):
        raise RequestError(f"--as {label}: a label is letters, digits, '_', '.' and '-'")


def _refuse_alike(scorers: Sequence[Scorer]) -> None:
    """Their scores could not be told apart."""
    for name in (scorer.name for scorer in scorers):
        if sum(scorer.name == name for scorer in scorers) > 1:
            raise RequestError(f"two of the verifiers are called {name!r}: score with one after the other, with --as")


def _request(job: Job, asked: dict[str, Any], out: str) -> dict[str, Any]:
    """What makes two requests the same piece of work."""

    def of_file(path: Path) -> list[Any]:
        about = path.stat()
        return [str(path.resolve()), about.st_size, about.st_mtime_ns]

    def of_verifier(scorer: Scorer) -> list[str]:
        return [scorer.name, scorer.version, scorer.config_hash]

    return {
        "files": [of_file(source.path) for source in job.sources],
        "verifiers": [of_verifier(scorer) for scorer in job.scorers],
        "out": str(Path(out).resolve()),
        "scores_only": job.scores_only,
        "skip_bad_lines": job.skip_bad_lines,
        **asked,
    }


# --- what is said ---------------------------------------------------------------------------------------------------


def _say_layouts(sources: Sequence[Source]) -> None:
    """Once for each layout that was recognised."""
    for layout, columns in {source.layout: source.columns for source in sources if source.layout}.items():
        told = dict.fromkeys(["completion", "answer", *layout.sources])
        text = f"recognised as {layout.name}: {', '.join(f'{target}={columns[target]}' for target in told)}"
        print(f"rlvr: {text}", file=sys.stderr)


def _warn(census: Census, sources: Sequence[Source]) -> None:
    """Say so when no row at all has what is to be verified: most likely it has another name."""
    if census.rows.total() == census.records:
        return
    for target in ("completion", "answer"):
        columns = {source.columns[target] for source in sources}
        if not columns & census.columns.keys():
            names = ", ".join(census.columns) or "none"
            print(
                f"rlvr: no row has a column {min(columns)!r}; the columns are: {names} (--map {target}=SOURCE)",
                file=sys.stderr,
            )


def _summary(tallies: dict[str, Tally], rows: int, speed: float) -> str:
    """Rows, for each verifier mean reward and count by status, rows a second."""
    lines = [("rows", f"{rows:,}")]
    for name, tally in tallies.items():
        lines += [("verifier", name)] if len(tallies) > 1 else []
        lines += tally.lines()
    lines.append(("rows/s", f"{speed:,.0f}"))
    return "\n".join(f"{name:<12} {value}" for name, value in lines)
