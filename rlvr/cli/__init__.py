"""The command line. Each command is a module here; none imports anything heavy before its arguments are parsed."""

from __future__ import annotations

import sys

import typer

from rlvr.cli.check import check
from rlvr.cli.compare import compare
from rlvr.cli.diagnose import diagnose
from rlvr.cli.doctor import doctor
from rlvr.cli.plot import plot
from rlvr.cli.plugins import plugins
from rlvr.cli.recipes import recipes
from rlvr.cli.score import score
from rlvr.cli.show import show
from rlvr.cli.train import train
from rlvr.errors import RlvrError

app = typer.Typer(
    name="rlvr",
    help="Reinforcement learning with verifiable rewards.\n\n"
    "Exit codes: 0 fine, 1 the run failed, 2 the request was wrong, 130 ended by Ctrl-C.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (train, score, compare, show, diagnose, plot, plugins, doctor):
    app.command()(command)
app.add_typer(check, name="check")
app.add_typer(recipes, name="recipes")


def main() -> None:
    """Run the command line; an error made on purpose is one line on standard error and its exit code."""
    try:
        app()
    except RlvrError as error:
        print(f"rlvr: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
