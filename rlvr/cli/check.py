"""`rlvr check`: the test bench for plugins; so far for verifiers."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import typer

from rlvr.cli.options import verifier_options
from rlvr.cli.progress import Heartbeat
from rlvr.errors import RequestError

check = typer.Typer(help="Put a plugin to the test.", no_args_is_help=True)


@check.callback()
def _check() -> None:
    """Put a plugin to the test."""


@check.command()
def verifier(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A registered name, or FILE.py:FUNCTION.")],
    cases: Annotated[
        list[Path] | None,
        typer.Option(
            "--cases", metavar="FILE", help="Labelled cases (JSONL), instead of those that the verifier brings."
        ),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(metavar="NAME", help="A prompt set, or a file: every gold must accept itself.")
    ] = None,
    split: Annotated[Literal["train", "eval"], typer.Option(help="Which split of the prompt set.")] = "train",
    data_files: Annotated[
        list[Path] | None, typer.Option("--data-files", metavar="FILE", help="Local files of the prompt set.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Questions of the prompt set: all by default, 1,000 of an endless one.")
    ] = None,
    options: Annotated[
        list[str] | None,
        typer.Option("--option", metavar="KEY=VALUE", help="An option of the verifier; the value is YAML."),
    ] = None,
    answer_form: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT", help="How an answer is said: '#### {answer}'. By default what the verifier declares."
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Processes; one a CPU by default, 0 is in process.")
    ] = None,
    timeout: Annotated[float, typer.Option(metavar="SECONDS", help="Wall-clock limit a verdict.")] = 5.0,
    threshold: Annotated[float, typer.Option(help="A reward of at least this says right.")] = 0.5,
    max_false_positive_rate: Annotated[
        float, typer.Option(min=0, max=1, help="Of the cases that are wrong; what is rewarded by mistake is learnt.")
    ] = 0.0,
    max_false_negative_rate: Annotated[float, typer.Option(min=0, max=1, help="Of the cases that are right.")] = 0.1,
    errors: Annotated[int, typer.Option(min=0, help="Examples to print of each kind of fault.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Everything, as one JSON object.")] = False,
) -> None:
    """Try a verifier: false positives and negatives on labelled cases, attacks, hostile completions, repeats.

    Exit code 1 when an attack won, a case was wrong more often than allowed, or any other check failed.
    """
    from rlvr.bench.bench import Limits, run_bench
    from rlvr.bench.questions import questions_of
    from rlvr.bench.report import report_json, report_text

    if dataset is None and (data_files or limit):
        raise RequestError(
            f"{'--data-files' if data_files else '--limit'} is about a prompt set: name it with --dataset"
        )
    limits = Limits(threshold, max_false_positive_rate, max_false_negative_rate)
    questions = questions_of(dataset, split=split, files=data_files or (), limit=limit) if dataset else []
    report = run_bench(
        name,
        verifier_options(options or (), [name])[name],
        cases=cases or (),
        questions=questions,
        answer_form=answer_form,
        workers=workers,
        timeout=timeout,
        limits=limits,
        advance=_progress(),
    )
    text = json.dumps(report_json(report), indent=2) if as_json else report_text(report, errors)
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding))
    if not report.passed:
        raise typer.Exit(1)


def _progress() -> Callable[[int, int], None]:
    """Says now and then on standard error how far it is."""
    begin, say = time.monotonic(), Heartbeat()

    def advance(done: int, total: int) -> None:
        say(f"{done:,} of {total:,} completions, {done / max(1e-9, time.monotonic() - begin):,.0f} a second")

    return advance
