"""`rlvr settings`: every key of a run's configuration."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from rlvr.cli.json_output import print_json
from rlvr.columns import columns


def settings(
    section: Annotated[
        str | None, typer.Argument(metavar="SECTION", help="Section or key: trainer, sampling.options, trainer.lr.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON array, one object per key.")] = False,
) -> None:
    """List the settings of a run, for --set KEY=VALUE and --config FILE: key, default, values, meaning."""
    from rlvr.run.reference import settings_reference

    found = settings_reference(section)
    for note in found.notes:
        print(f"rlvr: {note}", file=sys.stderr)
    if as_json:
        print_json([doc.to_dict() for doc in found.settings])
        return
    rows = [["KEY", "DEFAULT", "VALUES", "MEANING"]]
    for doc in found.settings:
        only = f" ({', '.join(doc.taken_by)} only)" if doc.taken_by else ""
        rows.append([doc.key, doc.default_text, doc.values, doc.meaning + only])
    print(columns(rows))
