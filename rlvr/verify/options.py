"""Options of a verifier: the parameters of its function beyond those of its form, or one pydantic model of them."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, TypeAlias

import pydantic

from rlvr.errors import ConfigError, PluginError, nearest
from rlvr.secret_options import is_secret, secret_value, writable, writable_model
from rlvr.settings import Setting, validate
from rlvr.verify.results import shown

Parameters: TypeAlias = Mapping[str, inspect.Parameter]
MODEL = "options"
"""Parameter whose annotation may be a pydantic model: its fields are then the options."""

_VAR = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@dataclass(frozen=True)
class Option:
    """An option of a verifier: a parameter of its function beyond those of its form, or a field of its model."""

    name: str
    annotation: Any
    """Its type; `Any` if it has no annotation."""
    required: bool
    default: Any
    meaning: str
    """Text of the docstring's section `Args:`, or description of the field; empty if it has none."""


def listed_options(name: str, function: Callable[..., Any], offered: Parameters, doc: str) -> list[Option]:
    """Return the options that the offered parameters are. Raises PluginError for an annotation that cannot be used."""
    named = _named(offered)
    hints = _usable_hints(name, function, named)
    if (model := _model(hints)) is not None:
        return [
            Option(key, field.annotation, field.is_required(), field.get_default(), field.description or "")
            for key, field in model.model_fields.items()
        ]
    meanings = _documented_arguments(doc)
    return [
        Option(key, hints.get(key, Any), p.default is p.empty, p.default, meanings.get(key, ""))
        for key, p in named.items()
    ]


def resolved_options(
    name: str, function: Callable[..., Any], offered: Parameters, given: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the arguments for the function, and the options as they may be written.

    Given values are validated and coerced by the annotations; defaults are taken as they are. Raises ConfigError for an
    unknown, missing or invalid option, PluginError for an annotation that cannot be used.
    """
    named = _named(offered)
    hints = _usable_hints(name, function, named)
    if (model := _model(hints)) is not None:
        options = _validated(name, model, given)
        return {MODEL: options}, writable_model(options, given)
    takes_any = any(p.kind is p.VAR_KEYWORD for p in offered.values())
    unknown = [key for key in given if key not in named]
    if unknown and not takes_any:
        hint = nearest(unknown[0], named) or "; it has none"
        raise ConfigError(f"verifier {name!r} has no option {unknown[0]!r}{hint}")
    if missing := [key for key, p in named.items() if p.default is p.empty and key not in given]:
        raise ConfigError(f"verifier {name!r} needs a value for its option {missing[0]!r}")
    values = {key: p.default for key, p in named.items()} | dict(given)
    try:
        adapters = {key: pydantic.TypeAdapter[Any](hint) for key, hint in hints.items() if key in given}
    except (NameError, TypeError, pydantic.errors.PydanticUserError) as error:
        raise PluginError(f"verifier {name!r}: an option's annotation cannot be used: {error}") from error
    secrets = {key for key, value in values.items() if is_secret(key, hints.get(key, Any), value)}
    for key in secrets & given.keys():
        values[key] = secret_value(key, given[key], f"verifier {name!r}: option {key!r}")
    for key, adapter in adapters.items():
        try:
            values[key] = adapter.validate_python(values[key])
        except pydantic.ValidationError as error:
            problem = error.errors(include_url=False)[0]["msg"]
            raise ConfigError(f"verifier {name!r}: option {key!r} is {shown(given[key])}: {problem}") from error
    return values, writable(values, secrets, given)


def _validated(name: str, model: type[pydantic.BaseModel], given: Mapping[str, Any]) -> pydantic.BaseModel:
    if unknown := [key for key in given if key not in model.model_fields]:
        raise ConfigError(f"verifier {name!r} has no option {unknown[0]!r}{nearest(unknown[0], model.model_fields)}")
    return validate(model, {key: Setting(value, "") for key, value in given.items()}, f"verifier {name!r}: option ")


def _named(offered: Parameters) -> dict[str, inspect.Parameter]:
    return {key: p for key, p in offered.items() if p.kind not in _VAR}


def _model(hints: Mapping[str, Any]) -> type[pydantic.BaseModel] | None:
    """Return the model whose fields are the options; None if the parameters are."""
    hint = hints.get(MODEL)
    return hint if len(hints) == 1 and isinstance(hint, type) and issubclass(hint, pydantic.BaseModel) else None


def _usable_hints(name: str, function: Callable[..., Any], parameters: Parameters) -> dict[str, Any]:
    """Return parameter → type, for those with an annotation."""
    annotations = {key: p.annotation for key, p in parameters.items() if p.annotation is not p.empty}
    names = getattr(function, "__globals__", {})
    try:
        return typing.get_type_hints(SimpleNamespace(__annotations__=annotations), names, include_extras=True)
    except (NameError, TypeError) as error:
        raise PluginError(f"verifier {name!r}: an option's annotation cannot be used: {error}") from error


def _documented_arguments(docstring: str) -> dict[str, str]:
    """Return parameter → text of the section `Args:` of a docstring in Google's style."""
    found: dict[str, list[str]] = {}
    section = re.search(r"^Args:\n((?:[ ]+.*(?:\n|$)|\n)+)", docstring, flags=re.MULTILINE)
    lines = section[1].splitlines() if section else []
    indent = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
    for line in lines:
        if entry := re.match(rf" {{{indent}}}(\w+):\s*(.*)", line):
            found[entry[1]] = [entry[2]]
        elif found and line.strip():
            found[list(found)[-1]].append(line.strip())
    return {name: " ".join(texts).removesuffix(".") for name, texts in found.items()}
