"""The verifiers that come with rlvr."""

from __future__ import annotations

from collections.abc import Mapping

from rlvr.hookspecs import hookimpl

NAMES = (
    "math",
    "math-verify",
    "exact",
    "choice",
    "numeric",
    "regex",
    "format",
    "length",
    "qa",
    "countdown",
    "puzzle24",
    "sudoku",
    "json",
    "tools",
    "ifeval",
    "sql",
    "http",
    "judge",
)
"""Names of the verifiers; each has a module of its own, with underscores for hyphens."""


@hookimpl
def rlvr_verifiers() -> Mapping[str, str]:
    return {name: f"rlvr_verifiers.{name.replace('-', '_')}:check" for name in NAMES}
