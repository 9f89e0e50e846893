"""`rlvr watch`: the report of a run that goes on, in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rlvr.cli.json_output import print_json
from rlvr.cli.options import AsJson


def watch(
    paths: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run directories, and files of rollouts.")],
    host: Annotated[
        str, typer.Option(help="Address to listen on. Any but this machine's own needs the token that is printed.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 is any free one.")] = 0,
    verifier: Annotated[
        str | None,
        typer.Option("--verifier", "-v", help="Name of the verifier whose reward counts, as in rlvr report."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Serve the report of a run while it goes on, until Ctrl-C. The page updates itself."""
    from rlvr.reports.watch import watch as run

    with run(paths, host=host, port=port, verifier=verifier) as server:
        if as_json:
            print_json({"url": server.url, "token": server.token})
        else:
            print(f"{server.url}  (Ctrl-C ends it)", flush=True)
        try:
            server.wait()
        except KeyboardInterrupt:
            return
