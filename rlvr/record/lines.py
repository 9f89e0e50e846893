"""A line of JSON with the exact text of each of its members, so that a writer can leave every other character alone."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from rlvr.errors import DataError
from rlvr.files import from_json, json_faults, kind_of
from rlvr.record.paths import at_path
from rlvr.record.values import LiteralFloat, number_text


class Member(NamedTuple):
    """Column of a line: its value, and its span in the text."""

    value: Any
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Line:
    """A line that holds one JSON object: its text and its values."""

    where: str
    text: str
    values: Mapping[str, Any]

    def member(self, name: str) -> Member | None:
        """Return the column of that name and its span. This takes ten times as long as parsing the line."""
        if name not in self.values:
            return None
        try:
            return _members(self.text, _DECODER)[name]
        except ValueError:  # as in `line_of`
            return _members(self.text, _LENIENT)[name]

    def literal(self, path: str) -> str | None:
        """Return a number or a bool, of a column or inside one, as it is written."""
        value = at_path(self.values, path)
        if type(value) is int and value:  # there is only one way to write it
            return str(value)
        if path not in self.values:
            exact = json.loads(self.text, parse_float=LiteralFloat.read, parse_int=_int_or_text)
            return number_text(at_path(exact, path))
        member = self.member(path)
        assert member is not None
        return self.text[member.start : member.end]


def _int_or_text(literal: str) -> int | str:
    return int(literal) if len(literal) < 4300 else literal


_DECODER = json.JSONDecoder()
_LENIENT = json.JSONDecoder(parse_int=_int_or_text)

_OPENING = re.compile(r"{[ \t\r\n]*")
_COLON = re.compile(r"[ \t\r\n]*:[ \t\r\n]*")
_COMMA_OR_CLOSING = re.compile(r"[ \t\r\n]*([,}])[ \t\r\n]*")


def line_of(text: str, where: str) -> Line:
    """Parse a line. Raises DataError if it is not JSON or not an object."""
    if not text.startswith("{"):
        raise DataError(f"{where} is {kind_of(from_json(text, where))}: a row is an object")
    with json_faults(where):
        try:
            return Line(where, text, _DECODER.decode(text))
        except json.JSONDecodeError:
            raise
        except ValueError:  # an integer of more digits than Python reads stays text
            return Line(where, text, _LENIENT.decode(text))


def _members(text: str, decoder: json.JSONDecoder) -> dict[str, Member]:
    """Return the members of a JSON object. If a name occurs twice, the last member counts."""
    members: dict[str, Member] = {}
    opening = _OPENING.match(text)
    place = opening.end() if opening else 0
    if text.startswith("}", place):
        place += 1
    else:
        separator = ","
        while separator == ",":
            if not text.startswith('"', place):
                raise json.JSONDecodeError("Expecting property name enclosed in double quotes", text, place)
            name, place = decoder.raw_decode(text, place)
            colon = _COLON.match(text, place)
            if colon is None:
                raise json.JSONDecodeError("Expecting ':' delimiter", text, place)
            value, end = decoder.raw_decode(text, colon.end())
            members[name] = Member(value, colon.end(), end)
            found = _COMMA_OR_CLOSING.match(text, end)
            if found is None:
                raise json.JSONDecodeError("Expecting ',' delimiter", text, end)
            separator, place = found[1], found.end()
    if place != len(text):
        raise json.JSONDecodeError("Extra data", text, place)
    return members
