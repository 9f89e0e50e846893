"""`rlvr new`: write a plugin's package."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from rlvr.cli.json_output import print_json


def new(
    kind: Annotated[
        Literal["verifier", "dataset", "sampler", "trainer"], typer.Argument(help="What the package offers.")
    ],
    name: Annotated[str, typer.Argument(help="Its name: lower-case letters, digits and hyphens.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder to write. [default: rlvr-NAME]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Write an installable package with a verifier, data set, sampler or trainer, its tests and a file for CI.

    `pip install -e FOLDER` then makes NAME available to every command, and `pytest` in FOLDER tests it.
    """
    from rlvr.testing.scaffold import new_plugin

    folder = new_plugin(kind, name, out)
    files = sorted(str(path) for path in folder.rglob("*") if path.is_file())
    if as_json:
        print_json({"folder": str(folder), "files": files})
        return
    for path in files:
        print(path)
    print(f"next: pip install -e {folder} && pytest {folder}")
