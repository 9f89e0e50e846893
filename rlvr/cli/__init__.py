"""The command line, one module per command. Nothing heavy is imported before arguments are parsed."""

from __future__ import annotations

import platform
import sys
from typing import Annotated

import typer

from rlvr import __version__
from rlvr.cli.check import check
from rlvr.cli.command import Command
from rlvr.cli.compare import compare
from rlvr.cli.datasets import datasets
from rlvr.cli.diagnose import diagnose
from rlvr.cli.doctor import doctor
from rlvr.cli.evaluate import evaluate
from rlvr.cli.export import export
from rlvr.cli.export_model import export_model
from rlvr.cli.generate import generate
from rlvr.cli.new import new
from rlvr.cli.plot import plot
from rlvr.cli.plugins import plugins
from rlvr.cli.recipes import recipes
from rlvr.cli.report import report
from rlvr.cli.score import score
from rlvr.cli.serve import serve
from rlvr.cli.settings import settings
from rlvr.cli.show import show
from rlvr.cli.streams import logged, prepare_streams
from rlvr.cli.train import TrainCommand, train
from rlvr.cli.watch import watch
from rlvr.errors import RlvrError
from rlvr.run.threads import spin_briefly
from rlvr.terminal import one_line


def _print_version(wanted: bool) -> None:
    """Print the versions of rlvr and Python, and exit, if wanted."""
    if wanted:
        print(f"rlvr {__version__}, Python {platform.python_version()}")
        raise typer.Exit


app = typer.Typer(
    name="rlvr",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(cls=TrainCommand)(train)
app.command("eval", cls=Command)(evaluate)
for command in (
    generate,
    serve,
    score,
    compare,
    show,
    export,
    export_model,
    diagnose,
    plot,
    report,
    watch,
    settings,
    plugins,
    new,
):
    app.command(cls=Command)(command)
app.command(cls=Command)(doctor)


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version, then exit.")
    ] = False,
) -> None:
    """Reinforcement learning with verifiable rewards.

    Exit codes: 0 success, 1 the run failed, 2 the request is wrong, 130 ended by Ctrl-C.
    """


app.add_typer(check, name="check")
app.add_typer(datasets, name="datasets")
app.add_typer(recipes, name="recipes")


def main() -> None:
    """Run the command line. An `RlvrError` is one line on standard error and an exit code."""
    prepare_streams()
    spin_briefly()
    try:
        try:
            with logged():
                app()
        finally:
            sys.stdout.flush()
    except RlvrError as error:
        from rlvr.files import with_stdin_named

        print(one_line(f"rlvr: {with_stdin_named(str(error))}"), file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        from rlvr.files import BAD_PATHS, DISK_FAULTS, VANISHED

        # Code that opens a file names it in its error. An error without a name is about standard output.
        if error.filename is not None and error.errno in (*BAD_PATHS, *DISK_FAULTS, *VANISHED):
            print(one_line(f"rlvr: {error.filename}: {error.strerror}"), file=sys.stderr)
            sys.exit(2 if error.errno in BAD_PATHS else 1)
        if error.filename is not None or error.errno not in DISK_FAULTS:
            raise
        sys.stdout = None  # its buffer cannot be written at exit either
        print(f"rlvr: standard output cannot be written: {error.strerror}", file=sys.stderr)
        sys.exit(1)
