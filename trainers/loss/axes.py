"""Lookup of an algorithm's parts by name, and of their parameters among a trainer's options.

An axis of an algorithm (its ratio, its band, …) is a table from names to pure functions. One option holds the name.
A function's parameters other than tensors are bound to the options of the same name. Adding a variant takes a function
and a line in its table.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any, TypeVar

from pydantic import AfterValidator, BaseModel

from rlvr.errors import nearest

R = TypeVar("R")


def one_of(axis: str, *tables: Mapping[str, Any]) -> AfterValidator:
    """Return a validator that rejects a name that no table has, and suggests the nearest one."""

    def check(name: str) -> str:
        known = [name for table in tables for name in table]
        if name not in known:
            raise ValueError(f"there is no {axis} {name!r}{nearest(name, known)}")
        return name

    return AfterValidator(check)


@cache
def _parameters(function: Callable[..., Any]) -> frozenset[str]:
    """Return the names of a part's parameters. Cached: options ask for all parts each time they are validated."""
    return frozenset(inspect.signature(function).parameters)


def bind(function: Callable[..., R], options: BaseModel) -> Callable[..., R]:
    """Return `function` with every parameter that is named like an option bound to that option's value."""
    names = _parameters(function) & type(options).model_fields.keys()
    return partial(function, **{name: getattr(options, name) for name in names})


def readers(axes: Mapping[str, Mapping[str, Any]], options: type[BaseModel]) -> dict[str, set[tuple[str, str]]]:
    """Return, for each option, the parts (axis, name) whose functions have a parameter of that name."""
    found: dict[str, set[tuple[str, str]]] = {}
    for axis, table in axes.items():
        for name, entry in table.items():
            for function in filter(callable, entry if isinstance(entry, tuple) else (entry,)):
                for option in _parameters(function) & options.model_fields.keys():
                    found.setdefault(option, set()).add((axis, name))
    return found


def summary(entry: Any) -> str:
    """Return a one-line description of a table's entry: its `about`, or the first sentence of its docstring."""
    if entry is None:
        return "nothing is done"
    if isinstance(entry, str):
        return entry
    if hasattr(entry, "about"):
        return str(entry.about)
    function = entry[0] if isinstance(entry, tuple) else entry
    text = " ".join((inspect.getdoc(function) or "").split())
    return re.split(r"(?<!\beq)(?<!\beqs)(?<!\bDr)\. ", text, maxsplit=1)[0].removesuffix(".")
