"""`rlvr score`: a file with a score more a row."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from rlvr.cli.options import verifier_options
from rlvr.errors import RequestError, RunError

if TYPE_CHECKING:
    from rlvr.schema import Score
    from rlvr.scored import Census

PLAIN_EVERY = 10.0  # seconds between lines of progress where there is no terminal


def score(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Rollouts or any other rows: .parquet or .jsonl.")],
    verifier: Annotated[
        str, typer.Option("--verifier", "-v", metavar="NAME", help="A registered name, or FILE.py:FUNCTION.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="OUT", help="What to write: .parquet or .jsonl.")],
    mappings: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="TARGET=SOURCE",
            help="Which column holds completion, answer, prompt, id or group_id, where it has another name.",
        ),
    ] = None,
    options: Annotated[
        list[str] | None,
        typer.Option("--option", metavar="KEY=VALUE", help="An option of the verifier; the value is YAML."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=0, help="Processes; one a CPU by default, 0 is in process.")
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
    force: Annotated[bool, typer.Option("--force", help="Replace OUT if it exists.")] = False,
) -> None:
    """Verify every row of FILE; write the rows to OUT, each with one entry more in its list `scores`.

    A row with a schema_version is a rlvr record. In any other row the columns completion, answer, prompt, id and
    group_id are used, or those that --map names; all columns are kept as they are.
    """
    from rlvr.files import existing, replacing
    from rlvr.rows import read_batches, sources_of
    from rlvr.scored import output_for, scored, take_census
    from rlvr.scoring import Scorer

    existing(file)
    output = output_for(file, out)
    _refuse_to_lose(file, out, force)
    sources = sources_of(mappings or ())
    with Scorer(verifier, verifier_options(options or ()), workers=workers, timeout=timeout) as scorer:
        census = take_census(file, output, sources, wants_rollout=scorer.wants_rollout, skip_bad_lines=skip_bad_lines)
        _warn(census, sources)
        tally = Tally()
        with (
            replacing(out) as temporary,
            output.writing(temporary) as write,
            _progress(census.rows) as progress,
        ):
            batches = read_batches(file, on_bad_line=lambda error: None)
            for batch, scores in scored(scorer, batches, sources):
                write(batch, scores)
                tally.add(scores)
                progress.advance(len(scores))
            if tally.rows != census.rows:
                raise RunError(f"{file} changed while it was read: {census.rows} rows, then {tally.rows}")
    print(tally.summary())
    if census.bad_lines:
        print(f"left out     {census.bad_lines:,} bad lines, the first: {census.first_bad_line}")
    print(f"written to {out}")
    if tally.error_rate > max_error_rate:
        raise RunError(
            f"{tally.error_rate:.1%} of the verdicts are errors or time-outs, --max-error-rate allows "
            f"{max_error_rate:.1%}; {out} is complete and says for each row why"
        )


def _refuse_to_lose(file: Path, out: Path, force: bool) -> None:
    if not out.exists():
        return
    if out.samefile(file):
        raise RequestError(f"--out {out} is FILE itself: scores are written to another file")
    if out.is_dir():
        raise RequestError(f"--out {out} is a folder")
    if not force:
        raise RequestError(f"{out} exists; --force replaces it")


def _warn(census: Census, sources: Mapping[str, str]) -> None:
    """Say so when no row at all has what is to be verified: most likely it has another name."""
    if census.rows == census.records:
        return
    for target in ("completion", "answer"):
        if sources[target] not in census.columns:
            names = ", ".join(census.columns) or "none"
            print(
                f"rlvr: no row has a column {sources[target]!r}; the columns are: {names} (--map {target}=SOURCE)",
                file=sys.stderr,
            )


# --- what people see ------------------------------------------------------------------------------------------------


class Tally:
    """Counts of scores, as they come."""

    def __init__(self) -> None:
        self._begin = time.perf_counter()
        self._statuses: Counter[str] = Counter()
        self._counted, self._sum = 0, 0.0

    @property
    def rows(self) -> int:
        """How many scores there were."""
        return self._statuses.total()

    @property
    def error_rate(self) -> float:
        """Share of errors and time-outs."""
        return (self._statuses["error"] + self._statuses["timeout"]) / max(1, self.rows)

    def add(self, scores: Iterable[Score]) -> None:
        """Count these."""
        from rlvr.scoring import training_reward

        for score in scores:
            self._statuses[score.status.value] += 1
            reward = training_reward(score)
            if reward is not None:
                self._counted += 1
                self._sum += reward

    def summary(self) -> str:
        """Rows, mean reward, count by status, rows a second."""
        seconds = time.perf_counter() - self._begin
        mean = "none: no verdict counts"
        if self._counted:
            mean = f"{self._sum / self._counted:.4f} over {self._counted:,} rows (unparsed and timeout count as 0)"
        lines = [("rows", f"{self.rows:,}"), ("mean reward", mean)]
        lines += [(status, f"{count:,}") for status, count in self._statuses.most_common()]
        lines.append(("rows/s", f"{self.rows / seconds:,.0f}"))
        return "\n".join(f"{name:<12} {value}" for name, value in lines)


class Progress(Protocol):
    """Is told how many rows more are done."""

    def advance(self, rows: int) -> None:
        """So many more."""


@contextmanager
def _progress(total: int) -> Iterator[Progress]:
    """Progress on standard error: a bar in a terminal, elsewhere a line every now and then."""
    if not sys.stderr.isatty():
        yield _PlainProgress(total)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    shown = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[speed]} rows/s"), TimeRemainingColumn())
    with Bar(*shown, console=Console(stderr=True), transient=True) as bar:
        yield _BarProgress(bar, bar.add_task("", total=total, speed="-"))


class _BarProgress:
    def __init__(self, bar: Any, task: Any) -> None:
        self._bar, self._task = bar, task

    def advance(self, rows: int) -> None:
        speed = self._bar.tasks[0].speed
        self._bar.update(self._task, advance=rows, speed=f"{speed:,.0f}" if speed else "-")


class _PlainProgress:
    def __init__(self, total: int) -> None:
        self._total, self._done = total, 0
        self._begin = self._said = time.monotonic()

    def advance(self, rows: int) -> None:
        self._done += rows
        now = time.monotonic()
        if now - self._said >= PLAIN_EVERY:
            self._said = now
            speed = self._done / (now - self._begin)
            left = (self._total - self._done) / speed
            print(f"{self._done:,} of {self._total:,} rows, {speed:,.0f} rows/s, {left:,.0f} s left", file=sys.stderr)
