"""`rlvr plugins`: names for the command line, and the distributions that provide them."""

from __future__ import annotations

from typing import Annotated

import typer

from rlvr.cli.json_output import print_json
from rlvr.columns import columns


def plugins(
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON array, one object per entry.")] = False,
) -> None:
    """List verifiers, prompt sources, samplers, trainers, trackers, recipes and presets, each with its distribution.

    A plugin that failed to load, and a name that several plugins offer, have the kind `broken`, and the reason as their
    target.
    """
    from rlvr.registry import registry

    fields = ("kind", "name", "distribution", "version", "target")
    rows = [[str(getattr(entry, field)) for field in fields] for entry in registry().entries()]
    rows += [["broken", each.plugin, each.distribution, each.version, each.error] for each in registry().broken]
    for contested in registry().contested:
        owners, versions = zip(*[(entry.distribution, entry.version) for entry in contested.entries], strict=True)
        rows.append(["broken", contested.entries[0].name, ", ".join(owners), ", ".join(versions), contested.error])
    if as_json:
        print_json([dict(zip(fields, row, strict=True)) for row in rows])
    else:
        print(columns([[field.upper() for field in fields], *rows]))
