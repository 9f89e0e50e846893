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
    "code-python",
    "http",
    "judge",
    "reasoning-gym",
)
"""Names of the verifiers; each has a module of its own, with underscores for hyphens."""
_MODULES = {"code-python": "code"}
"""Modules that are called otherwise."""


@hookimpl
def rlvr_verifiers() -> Mapping[str, str]:
    modules = {name: _MODULES.get(name, name.replace("-", "_")) for name in NAMES}
    return {name: f"rlvr_verifiers.{module}:check" for name, module in modules.items()}
