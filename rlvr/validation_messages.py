"""Messages for pydantic's validation errors: what the value must be, and what it was."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

_BOUNDS = {
    "greater_than": ("above", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("below", "lt"),
    "less_than_equal": ("at most", "le"),
}
_LENGTHS = {"too_long": ("at most", "max_length"), "too_short": ("at least", "min_length")}
_KINDS = {
    "a whole number": ("int_type", "int_parsing", "int_from_float"),
    "a number": ("float_type", "float_parsing"),
    "a finite number": ("finite_number",),
    "true or false": ("bool_type", "bool_parsing"),
    "text": ("string_type",),
    "a path": ("path_type",),
}
_WORDS = {type_: words for words, types in _KINDS.items() for type_ in types}
_LISTS = {"tuple_type", "list_type", "set_type"}
_SECTIONS = {"model_type", "model_attributes_type", "dict_type"}


def validation_message(fault: Mapping[str, Any], keys: Collection[str] = ()) -> str:
    """Return the message for an entry of `ValidationError.errors()`: `must be at least 2, not 1`.

    Messages of our own validators are kept. `keys` are those of the section that was expected.
    """
    type_, value, context = fault["type"], fault["input"], fault.get("ctx", {})
    if type_ in ("value_error", "assertion_error"):
        return str(context["error"])
    if type_ == "missing":
        return "is missing"
    if type_ in _SECTIONS:
        return f"must be a section of keys{': ' if keys else ''}{', '.join(keys)}; not {value!r}"
    if type_ in _LISTS:
        return f"must be a list, e.g. [{value}], not {value!r}"
    if type_ in _LENGTHS:
        words, bound = _LENGTHS[type_]
        return f"must have {words} {context[bound]} items, not {value!r}"
    if type_ in _BOUNDS:
        words, bound = _BOUNDS[type_]
        return f"must be {words} {context[bound]:g}, not {value!r}"
    if type_ in ("literal_error", "enum"):
        return f"must be {context['expected']}, not {value!r}"
    if type_ == "string_type" and isinstance(value, Mapping | list):
        return f"must be text, not {value!r}; put quotes around text that begins with a bracket or holds a colon"
    if type_ in _WORDS:
        return f"must be {_WORDS[type_]}, not {value!r}"
    text = str(fault["msg"]).replace("Input should", "must").replace("Value should", "must")
    return f"{text[:1].lower()}{text[1:]}, not {value!r}"
