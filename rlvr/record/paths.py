"""Paths into a row: `reward_model.ground_truth`, `response.body.choices.0.message.content`.

A path is a column name, or names and list positions with dots between them. It goes through objects, lists and text
that holds JSON. `-1` is the last element of a list, `*` takes the rest of the path from each of its elements, and `A|B`
is the first of the two that is not null. A column whose name contains such characters takes precedence.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rlvr.record.values import LiteralFloat

_POSITION = re.compile(r"-?\d{1,9}")


def at_path(values: Mapping[str, Any], path: str) -> Any:
    """Return the value at a path of a row; None if there is none.

    Numbers inside JSON text keep their literal text (`LiteralFloat`).
    """
    if path in values:
        return values[path]
    if "." not in path and "|" not in path:  # nearly every path
        return None
    for alternative in path.split("|"):
        head, dot, rest = alternative.partition(".")
        found = values.get(alternative)
        if found is None and dot:
            found = _inside(values.get(head), rest.split("."))
        if found is not None:
            return found
    return None


def _inside(value: Any, parts: list[str]) -> Any:
    for i, part in enumerate(parts):
        if isinstance(value, str):
            value = _parsed(value)
        if isinstance(value, Mapping):
            value = value.get(part)
        elif isinstance(value, list | tuple) and part == "*":
            found = [_inside(each, parts[i + 1 :]) for each in value]
            return [each for each in found if each is not None] or None
        elif isinstance(value, list | tuple) and _POSITION.fullmatch(part):
            value = value[int(part)] if -len(value) <= int(part) < len(value) else None
        else:
            return None
    return value


def _parsed(text: str) -> Any:
    """Return the object or list that a text holds as JSON, else None."""
    if text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        return json.loads(text, parse_float=LiteralFloat.read)
    except (ValueError, RecursionError):
        return None


def paths_in(values: Mapping[str, Any], depth: int = 3) -> Iterator[str]:
    """Yield the columns of a row and the paths to the members of its objects, `depth` levels deep."""
    for name, value in values.items():
        yield name
        inner = _parsed(value) if isinstance(value, str) else value
        if depth > 1 and isinstance(inner, Mapping):
            yield from (f"{name}.{path}" for path in paths_in(inner, depth - 1))


def heads(paths: Iterable[str]) -> frozenset[str]:
    """Return the columns that paths may begin in: each path itself, and the first part of each alternative."""
    return frozenset(
        name for path in paths for each in (path, *path.split("|")) for name in (each, each.partition(".")[0])
    )
