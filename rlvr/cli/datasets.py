"""`rlvr datasets`: list prompt data sets, and check one before training on it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import typer

from rlvr.cli.command import Command, CommandGroup
from rlvr.cli.json_output import print_json
from rlvr.cli.options import AsJson, dataset_options, verifier_options
from rlvr.cli.progress import rates
from rlvr.columns import columns
from rlvr.terminal import neutral_streams

if TYPE_CHECKING:
    from rlvr.bench.dataset_check import DatasetReport, RowFault


class DatasetsGroup(CommandGroup):
    """`rlvr datasets`."""

    meant = "check"


datasets = typer.Typer(
    cls=DatasetsGroup,
    invoke_without_command=True,
    help="List prompt data sets with size, verifier and license, or check one.",
)

DataFiles: TypeAlias = Annotated[
    list[Path] | None, typer.Option("--data-files", metavar="FILE", help="Local files in the data set's layout.")
]
Split: TypeAlias = Annotated[
    Literal["train", "eval"] | None,
    typer.Option(help="Split to check. [default: train; eval of a set for evaluation only]"),
]
Sets: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Option of the data set: dataset.options.question=problem."),
]
Limit: TypeAlias = Annotated[
    int | None, typer.Option(min=1, help="Rows to check. [default: all; 1,000 of an endless set]")
]
VerifierName: TypeAlias = Annotated[
    str | None, typer.Option("--verifier", "-v", metavar="NAME", help="Verifier. [default: the data set's own]")
]
Options: TypeAlias = Annotated[
    list[str] | None, typer.Option("--option", metavar="KEY=VALUE", help="Option of the verifier; the value is YAML.")
]
Against: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="Data set, or file of questions, that must have no question in common with it."),
]
Workers: TypeAlias = Annotated[
    int | None, typer.Option(min=0, help="Worker processes; 0 runs in this process. [default: one per CPU]")
]


@datasets.callback()
def list_all(context: typer.Context, as_json: AsJson = False) -> None:
    """List prompt data sets: rows, verifier, license, repository."""
    if context.invoked_subcommand is not None:
        return
    from rlvr.bench.dataset_check import list_datasets

    found = list_datasets()
    if as_json:
        print_json([entry.to_dict() for entry in found])
        return
    rows = [
        [
            entry.name,
            *(f"{entry.rows[split]:,}" if split in entry.rows else "-" for split in ("train", "eval")),
            entry.verifier or "-",
            entry.license or "-",
            entry.hub or entry.distribution,
        ]
        for entry in found
    ]
    with neutral_streams():
        print(columns([["NAME", "TRAIN", "HELD OUT", "VERIFIER", "LICENSE", "FROM"], *rows]))


@datasets.command(cls=Command)
def check(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Data set: a name, a .yaml card, or a file.")],
    data_files: DataFiles = None,
    split: Split = None,
    sets: Sets = None,
    limit: Limit = None,
    verifier: VerifierName = None,
    options: Options = None,
    against: Against = None,
    workers: Workers = None,
    timeout: Annotated[float, typer.Option(metavar="SECONDS", help="Time limit per verdict.")] = 5.0,
    errors: Annotated[int, typer.Option(min=0, help="Examples to print per kind of fault.")] = 5,
    as_json: AsJson = False,
) -> None:
    """Check a data set: gold answers by their verifier, repeated questions, prompts that leak the answer, lengths.

    Exit code 1 if a row rejects its own gold answer or is invalid, or if questions are shared with --against.
    """
    from rlvr.bench.dataset_check import check_dataset

    key = verifier or ""
    report = check_dataset(
        name,
        split=split,
        data_files=data_files or (),
        options=dataset_options(sets or ()),
        limit=limit,
        verifier=verifier,
        verifier_options=verifier_options(options or (), [key])[key],
        against=against or (),
        workers=workers,
        timeout=timeout,
        progress=rates("rows"),
    )
    if as_json:
        print_json(report.to_dict())
    else:
        print(_text(report, errors))
    if not report.passed:
        raise typer.Exit(1)


def _text(report: DatasetReport, errors: int) -> str:
    """Return the report as a table and examples."""
    own = f"{len(report.rejected):,}" if report.self_checked else f"not checked: {report.verifier} compares no answers"
    rows = [
        ["rows", f"{report.rows:,} of the split {report.split!r}"],
        ["left out", f"{report.left_out:,} (no gold answer, or not kept by the card)"],
        ["verifier", report.verifier],
        ["reject their own gold", own],
        ["invalid", f"{len(report.invalid):,}"],
        ["repeated questions", f"{report.duplicates:,}"],
        ["prompts with the gold", f"{len(report.leaks):,}"],
        *([f"shared with {other}", f"{count:,}"] for other, count in report.shared.items()),
        ["prompt characters", ", ".join(f"{name} {length:,}" for name, length in report.lengths.items())],
    ]
    lines = [columns(rows)]
    for title, faults in (("reject their own gold", report.rejected), ("invalid", report.invalid)):
        if faults[:errors]:
            lines += [f"\n{title}:", *map(_fault, faults[:errors])]
    if report.leaks[:errors]:
        lines.append(f"\nprompts with the gold: rows {', '.join(report.leaks[:errors])}")
    return "\n".join([*lines, "", "passed" if report.passed else "FAILED"])


def _fault(fault: RowFault) -> str:
    gold = fault.gold if len(fault.gold) <= 60 else f"{fault.gold[:60]}…"
    return f"  row {fault.row_id}: gold {gold!r} -> {fault.status}: {fault.reason or ''}"
