"""`rlvr report`: one HTML page about runs and files of rollouts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rlvr.cli.json_output import print_json
from rlvr.cli.options import AsJson


def report(
    paths: Annotated[
        list[Path], typer.Argument(metavar="RUN|FILE...", help="Run directories, and files or folders of rollouts.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write; it ends in .html.")] = Path("report.html"),
    verifier: Annotated[
        str | None,
        typer.Option(
            "--verifier",
            "-v",
            help="Name of the verifier whose reward counts. [default: in a run, the one that training uses; "
            "in a file, that of the last score]",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="Load this model (a directory, a hub name, or embedded), and color the tokens of 512 rollouts by "
            "their importance weight under it.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write one HTML page about runs and files of rollouts. It opens from disk and loads nothing."""
    from rlvr.reports.report import report as run

    found = run(paths, out=out, verifier=verifier, model=model)
    if as_json:
        print_json(found.to_dict())
    else:
        print("\n".join(found.lines()))
