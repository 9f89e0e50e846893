"""`rlvr check`: test plugins; so far verifiers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import typer

from rlvr.cli.command import Command, CommandGroup
from rlvr.cli.json_output import print_json
from rlvr.cli.options import MaxReward, WriteProtect, dataset_options, verifier_options
from rlvr.cli.progress import rates
from rlvr.errors import RequestError

NOT_TESTED = 3
"""Exit code of a check that found nothing to test."""


class CheckGroup(CommandGroup):
    """`rlvr check`."""

    meant = "verifier"


check = typer.Typer(cls=CheckGroup, help="Test a plugin.", no_args_is_help=True)

Names: TypeAlias = Annotated[
    list[str],
    typer.Argument(
        metavar="NAME", help="Verifier: a name, FILE.py:FUNCTION, a YAML file, or several NAME:WEIGHT for their sum."
    ),
]
Cases: TypeAlias = Annotated[
    list[Path] | None,
    typer.Option("--cases", metavar="FILE", help="Labeled cases (JSONL), instead of the verifier's own."),
]
Dataset: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Prompt set, or a file of questions: the verifier must accept each gold answer."),
]
DataFiles: TypeAlias = Annotated[
    list[Path] | None, typer.Option("--data-files", metavar="FILE", help="Local files of the prompt set.")
]
Sets: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Option of the prompt set: dataset.options.question=problem."),
]
Limit: TypeAlias = Annotated[
    int | None,
    typer.Option(min=1, help="Number of questions from the prompt set. [default: all; 1,000 of an endless one]"),
]
Options: TypeAlias = Annotated[
    list[str] | None, typer.Option("--option", metavar="KEY=VALUE", help="Option of the verifier; the value is YAML.")
]
AnswerForm: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="TEXT", help="Form of an answer, e.g. '#### {answer}'. [default: what the verifier declares]"),
]
Workers: TypeAlias = Annotated[
    int | None, typer.Option(min=0, help="Worker processes; 0 runs in this process. [default: one per CPU]")
]
FalsePositives: TypeAlias = Annotated[
    float, typer.Option(min=0, max=1, help="Largest share of wrong cases that may be accepted.")
]
FalseNegatives: TypeAlias = Annotated[
    float, typer.Option(min=0, max=1, help="Largest share of right cases that may be rejected.")
]


@check.callback()
def _check() -> None:
    """Test a plugin."""


@check.command(cls=Command)
def verifier(
    names: Names,
    cases: Cases = None,
    dataset: Dataset = None,
    split: Annotated[Literal["train", "eval"], typer.Option(help="Split of the prompt set.")] = "train",
    data_files: DataFiles = None,
    sets: Sets = None,
    limit: Limit = None,
    options: Options = None,
    answer_form: AnswerForm = None,
    workers: Workers = None,
    timeout: Annotated[float, typer.Option(metavar="SECONDS", help="Time limit per verdict.")] = 5.0,
    max_reward: MaxReward = 1e6,
    write_protect: WriteProtect = False,
    threshold: Annotated[float, typer.Option(help="Rewards at or above this count as correct.")] = 0.5,
    max_false_positive_rate: FalsePositives = 0.0,
    max_false_negative_rate: FalseNegatives = 0.1,
    errors: Annotated[int, typer.Option(min=0, help="Examples to print per kind of fault.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as one JSON object.")] = False,
) -> None:
    """Test a verifier: false positives and negatives on labeled cases, attacks, hostile completions, repeats.

    Exit code 1 if a check failed; 3 if no check could try both a right and a wrong answer.
    """
    from rlvr.bench.check import check as run
    from rlvr.bench.text import report_text
    from rlvr.verify.composition import weighted

    name = weighted(names)
    assert name is not None  # at least one is required
    if dataset is None and (data_files or sets or limit):
        option = "--data-files" if data_files else "--set" if sets else "--limit"
        raise RequestError(f"{option} needs a prompt set: name it with --dataset")
    report = run(
        name,
        verifier_options(options or (), [name])[name],
        cases=cases or (),
        dataset=dataset,
        split=split,
        data_files=data_files or (),
        dataset_options=dataset_options(sets or ()),
        limit=limit,
        answer_form=answer_form,
        workers=workers,
        timeout=timeout,
        max_reward=max_reward,
        write_protect=write_protect,
        threshold=threshold,
        max_false_positive_rate=max_false_positive_rate,
        max_false_negative_rate=max_false_negative_rate,
        progress=rates("completions"),
    )
    if as_json:
        print_json(report.to_dict())
    else:
        encoding = sys.stdout.encoding or "utf-8"
        print(report_text(report, errors).encode(encoding, "backslashreplace").decode(encoding))
    if not report.passed:
        raise typer.Exit(1 if report.failed else NOT_TESTED)
