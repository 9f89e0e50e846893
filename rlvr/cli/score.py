"""`rlvr score`."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from rlvr.cli.columns import column_mapping
from rlvr.cli.interrupts import answered
from rlvr.cli.json_output import print_json
from rlvr.cli.options import MaxReward, Quiet, WriteProtect, verifier_options
from rlvr.cli.progress import progress_of
from rlvr.errors import RequestError, RunError
from rlvr.files import with_stdin_named
from rlvr.terminal import one_line

if TYPE_CHECKING:
    from rlvr.rescore.score import ScoreProgress, ScoreReporter, ScoreResult
    from rlvr.rescore.summary import VerifierSummary

Texts: TypeAlias = list[str] | None

Files: TypeAlias = Annotated[
    list[str],
    typer.Argument(
        metavar="FILE",
        help="Rollouts or any other rows: .parquet, .jsonl (also .gz, .zst), .json, .csv; a folder of .parquet and "
        ".jsonl files, or of save_to_disk; a quoted pattern; - for standard input.",
    ),
]
Verifiers: TypeAlias = Annotated[
    Texts,
    typer.Option(
        "--verifier",
        "-v",
        metavar="NAME",
        help="Verifier: a name, FILE.py:FUNCTION, or a YAML file; repeatable. Several NAME:WEIGHT are a weighted sum.",
    ),
]
Out: TypeAlias = Annotated[
    str,
    typer.Option(
        "--out",
        "-o",
        metavar="OUT",
        help="File to write; a folder (ending in /) gets one file per FILE; - is standard output (JSON lines).",
    ),
]
Mappings: TypeAlias = Annotated[
    Texts,
    typer.Option(
        "--map",
        metavar="TARGET=SOURCE",
        help="Name the column, or a path into one, that holds completion, answer, prompt, id or group_id: "
        "answer=reward_model.ground_truth; repeatable. Files of TRL, verl and others are recognized.",
    ),
]
Gold: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--gold",
        metavar="FILE",
        help="File of gold answers, joined by --on. Its answers are in the column answer, "
        "or in that of --map answer=COLUMN.",
    ),
]
On: TypeAlias = Annotated[
    str | None,
    typer.Option("--on", metavar="KEY", help="Key of --gold: a column of both files, or KEY=KEY_OF_GOLD."),
]
Options: TypeAlias = Annotated[
    Texts,
    typer.Option(
        "--option",
        metavar="[NAME:]KEY=VALUE",
        help="Option of the verifier, as YAML; repeatable. With several verifiers, NAME says which one.",
    ),
]
Label: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--as", metavar="LABEL", help="Label of this variant: scores are stored under NAME@LABEL, e.g. math@strict."
    ),
]
WhereTexts: TypeAlias = Annotated[
    Texts,
    typer.Option(
        "--where",
        "-w",
        metavar="EXPR",
        help="Score only rows that meet this condition, as in rlvr show: status=error; repeatable.",
    ),
]
Limit: TypeAlias = Annotated[int | None, typer.Option("--limit", "-n", min=1, help="Score only the first N rows.")]
Shard: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--shard", metavar="I/N", help="Score every Nth row, starting with row I: the shards 1/4 to 4/4 cover all rows."
    ),
]
ScoresOnly: TypeAlias = Annotated[
    bool, typer.Option("--scores-only", help="Write only the id and the new scores of each row: a sidecar.")
]
Cache: TypeAlias = Annotated[
    Path | None, typer.Option("--cache", metavar="FILE", help="SQLite file of verdicts, shared between runs.")
]
Workers: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--workers", min=0, help="Worker processes per verifier; 0 runs in this process. [default: one per CPU]"
    ),
]
Timeout: TypeAlias = Annotated[float, typer.Option("--timeout", metavar="SECONDS", help="Time limit per verdict.")]
MaxErrorRate: TypeAlias = Annotated[
    float,
    typer.Option(
        "--max-error-rate", min=0, max=1, help="Exit with code 1 if a larger share of verdicts are errors or time-outs."
    ),
]
SkipBadLines: TypeAlias = Annotated[
    bool, typer.Option("--skip-bad-lines", help="Skip lines that are not JSON objects.")
]
Merge: TypeAlias = Annotated[
    bool, typer.Option("--merge", help="Verify nothing: merge FILE..., the outputs of --shard 1/N to N/N, into OUT.")
]
Force: TypeAlias = Annotated[
    bool, typer.Option("--force", help="Replace OUT if it exists; discard unfinished work of another request.")
]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
_PASSED_ON = (
    *("gold", "on", "label", "limit", "scores_only", "cache", "workers", "timeout", "write_protect"),
    *("max_reward", "skip_bad_lines", "force"),
)
"""Options that `rlvr.score` takes under the same name."""

_MERGE = {"files", "out", "merge", "force", "as_json"}
"""Parameters that can be used with --merge."""


def score(
    context: typer.Context,
    files: Files,
    out: Out,
    verifiers: Verifiers = None,
    mappings: Mappings = None,
    gold: Gold = None,
    on: On = None,
    options: Options = None,
    label: Label = None,
    where: WhereTexts = None,
    limit: Limit = None,
    shard: Shard = None,
    scores_only: ScoresOnly = False,
    cache: Cache = None,
    workers: Workers = None,
    timeout: Timeout = 5.0,
    max_reward: MaxReward = 1e6,
    write_protect: WriteProtect = False,
    max_error_rate: MaxErrorRate = 0.05,
    skip_bad_lines: SkipBadLines = False,
    merge: Merge = False,
    force: Force = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Verify rows and write them to OUT, each with new scores in its list `scores`.

    A row with a schema_version is an rlvr record. In any other row, the columns completion, answer, prompt, id and
    group_id are read, or those that --map names. All other columns are kept unchanged. After an interrupt, run the same
    command again to continue.
    """
    if merge:
        _merge(context, as_json)
        return
    from rlvr.rescore.score import score as run

    verifiers = _required(verifiers)
    with ExitStack() as stack:
        result = run(
            files,
            verifiers,
            out=out,
            options=_options_of(options or (), verifiers),
            mapping=column_mapping(mappings or ()),
            where=where or (),
            shard=_shard(shard),
            reporter=_reporter(stack),
            **{name: context.params[name] for name in _PASSED_ON},
        )
    _print(result, out, as_json)
    _check_error_rate(result, max_error_rate, out)


def _options_of(texts: Sequence[str], verifiers: Sequence[str]) -> Mapping[str, Any]:
    """Return the options of the verifier; for several verifiers, verifier → its options."""
    given = verifier_options(texts, verifiers)
    return given if len(verifiers) > 1 else given[verifiers[0]]


def _required(verifiers: Texts) -> list[str]:
    if not verifiers:
        raise RequestError("missing option --verifier: name one, for example --verifier math")
    from rlvr.verify.composition import is_weighted, weighted

    if any(map(is_weighted, verifiers)):
        return [name for name in [weighted(verifiers)] if name is not None]
    return verifiers


def _merge(context: typer.Context, as_json: bool) -> None:
    """Merge shards. Raises RequestError for options that cannot be used with --merge."""
    from rlvr.rescore.merging import merge

    given = context.params
    sources = {name: context.get_parameter_source(name) for name in given if name not in _MERGE}
    if others := [name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"]:
        names = {"verifiers": "verifier", "mappings": "map", "options": "option", "label": "as"}
        shown = ", ".join(f"--{names.get(name, name).replace('_', '-')}" for name in others)
        raise RequestError(f"--merge verifies nothing: leave out {shown}")
    result = merge(given["files"], given["out"], force=given["force"])
    if not result.in_order:
        print(
            "rlvr: the sizes of the shards show that rows were selected: they follow each other, shard after shard",
            file=sys.stderr,
        )
    if as_json:
        print_json(result.to_dict())
        return
    by = ", ".join(result.verifiers)
    print(f"{'rows':<12} {result.written:,} of {len(result.shards)} shards, scores by {by}")
    print(f"written to {one_line(str(result.file))}")


def _shard(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
    if match is None:
        raise RequestError(f"--shard {text}: write I/N, for example 1/4, with I from 1 to N")
    return int(match[1]), int(match[2])


def _reporter(stack: ExitStack) -> ScoreReporter:
    """Return a reporter that prints notes and progress to standard error until the stack is closed."""
    from rlvr.rescore.score import ScoreReporter

    class Printed(ScoreReporter):
        def __init__(self) -> None:
            self.rows = self.replayed = 0

        def note(self, text: str) -> None:
            print(f"rlvr: {with_stdin_named(text)}", file=sys.stderr)

        def start(self, total: int, replayed: int) -> None:
            stack.enter_context(answered("interrupted; run the same command again to continue"))
            self.shown = stack.enter_context(progress_of(total))

        def advance(self, progress: ScoreProgress) -> None:
            at = progress.file.name if progress.files > 1 else ""
            rows, replayed = progress.rows - self.rows, progress.replayed - self.replayed
            self.shown.advance(rows, at, progress.statuses, replayed=replayed)
            self.rows, self.replayed = progress.rows, progress.replayed

    return Printed()


def _print(result: ScoreResult, out: str, as_json: bool) -> None:
    """Print the summary, to standard error if the rows went to standard output."""
    stream = sys.stderr if out == "-" else sys.stdout
    if as_json:
        print_json(result.to_dict(), file=stream)
    else:
        print(_summary(result), file=stream)


def _summary(result: ScoreResult) -> str:
    """Return rows, mean reward and counts of each verifier, rows per second, and the written files."""
    lines = [("rows", f"{result.scored:,}")]
    for summary in result.verifiers:
        lines += [("verifier", summary.verifier)] if len(result.verifiers) > 1 else []
        lines += _counts(summary)
    lines.append(("rows/s", f"{result.rows_per_second:,.0f}"))
    if result.bad_lines:
        lines.append(("left out", f"{result.bad_lines:,} bad lines, the first: {result.first_bad_line}"))
    written = [f"written to {one_line(str(path))}" for path in result.files]
    return "\n".join([*(f"{name:<12} {value}" for name, value in lines), *written])


def _counts(summary: VerifierSummary) -> list[tuple[str, str]]:
    mean = "none: no verdict counts"
    if summary.mean_reward is not None:
        mean = f"{summary.mean_reward:.4f} over {summary.counted:,} rows (unparsed counts as 0)"
    return [("mean reward", mean), *((status, f"{count:,}") for status, count in summary.statuses.items())]


def _check_error_rate(result: ScoreResult, most: float, out: str) -> None:
    for summary in result.verifiers:
        if summary.error_rate > most:
            whose = f" of {summary.verifier}" if len(result.verifiers) > 1 else ""
            raise RunError(
                f"{summary.error_rate:.1%} of the verdicts{whose} are errors or time-outs, --max-error-rate allows "
                f"{most:.1%}; {out} is complete and says for each row why"
            )
