"""Reading JSON that a model wrote: bounded in size and depth, without what JSON does not have."""

from __future__ import annotations

import json
import math
import re
from typing import Any

LONGEST = 100_000
"""Characters of a text."""
DEEPEST = 64
"""Objects and lists inside of each other."""
MOST_DIGITS = 400
"""Digits of a number."""

_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*+(?:"|\Z)|[\[\]{}]', re.DOTALL)


class JsonTextError(ValueError):
    """A text is not the JSON that is read here; the message says why."""


def read_json(text: str) -> Any:
    """Return the value of a JSON text.

    Raises JsonTextError for what is no JSON, for NaN, infinity and duplicate keys, which Python would take, and beyond
    the limits of this module.
    """
    if len(text) > LONGEST:
        raise JsonTextError(f"{len(text):,} characters: at most {LONGEST:,} are read")
    depth = 0
    for bracket in _BRACKETS.finditer(text):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(bracket[0], 0)
        if depth > DEEPEST:
            raise JsonTextError(f"nested more than {DEEPEST} deep")
    try:
        value = json.loads(
            text, object_pairs_hook=_object, parse_constant=_refused, parse_int=_integer, parse_float=_float
        )
    except JsonTextError:
        raise
    except ValueError as error:
        raise JsonTextError(f"no JSON: {error}") from error
    if "\\u" in text and not _is_unicode(value):
        raise JsonTextError("half of a surrogate pair")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise JsonTextError(f"the key {next(name for name in names if names.count(name) > 1)!r} stands there twice")
    return found


def _refused(name: str) -> Any:
    raise JsonTextError(f"{name} is no JSON")


def _integer(text: str) -> int:
    if len(text) > MOST_DIGITS:
        raise JsonTextError(f"a number of {len(text):,} digits: at most {MOST_DIGITS} are read")
    return int(text)


def _float(text: str) -> float:
    number = float(text) if len(text) <= MOST_DIGITS else math.inf
    if math.isinf(number):
        raise JsonTextError("a number that is too large or too long")
    return number


def _is_unicode(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True
