"""Secret options, such as API keys: they come from the environment, and only the variable's name is written down.

An option is secret if its type is pydantic's `SecretStr`, or if it takes text and its name has one of `WORDS`:
`api_key`, `token`, `hub_password`. Its value is given as `env:NAME`.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any, get_args

from pydantic import BaseModel, SecretBytes, SecretStr

from rlvr.errors import ConfigError

WORDS = frozenset({"key", "apikey", "token", "password", "passwd", "passphrase", "secret", "credential", "credentials"})
MASK = "**********"
"""Text that is written in place of a secret that has no variable."""
_REFERENCE = re.compile(r"env:([A-Za-z_][A-Za-z0-9_]*)")
_ANYTHING = (Any, None, inspect.Parameter.empty)


def names_secret(name: str) -> bool:
    """Return whether a name has one of `WORDS`: `api_key`, `HF_TOKEN`, `apiKey`, but not `max_tokens`."""
    words = re.split(r"[^a-z]+", re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower())
    return not WORDS.isdisjoint(words)


def is_secret(name: str, annotation: Any = Any, value: Any = None) -> bool:
    """Return whether an option of this name and type is secret. Without a type, its value or default decides."""
    kinds = _kinds(annotation)
    if isinstance(value, SecretStr | SecretBytes) or not kinds.isdisjoint({SecretStr, SecretBytes}):
        return True
    takes_text = str in kinds or (annotation in _ANYTHING and isinstance(value, str | None))
    return takes_text and names_secret(name)


def _kinds(annotation: Any) -> set[Any]:
    """Return the types that a type is made of: `str | None` is made of str and None."""
    found = {annotation} if annotation.__hash__ is not None else set()
    return found.union(*map(_kinds, get_args(annotation)))


def variables(options: Mapping[str, Any]) -> set[str]:
    """Return the names of the environment variables that options refer to."""
    found = (_REFERENCE.fullmatch(value) for value in options.values() if isinstance(value, str))
    return {match[1] for match in found if match}


def secret_value(name: str, value: Any, where: str) -> Any:
    """Return the value of a secret option: that of the variable which `env:NAME` names.

    None, and a `SecretStr` that Python code made, are returned as they are. Raises ConfigError for a value that is
    written out, and for a variable that is not set. `where` is what messages call the option; no message has the value.
    """
    if value is None or isinstance(value, SecretStr | SecretBytes):
        return value
    match = _REFERENCE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ConfigError(
            f"{where} is secret, so it is taken from the environment and never written down: give it as "
            f"{name}=env:NAME, with the name of the environment variable that holds it"
        )
    if match[1] not in os.environ:
        raise ConfigError(f"{where} is {match[0]}, but there is no environment variable {match[1]}")
    return os.environ[match[1]]


def secret_values(options: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return options without declared types, with the values of the secret ones. Raises as `secret_value`."""
    return {
        name: secret_value(name, value, f"{where}{name}") if is_secret(name, Any, value) else value
        for name, value in options.items()
    }


def writable(options: Mapping[str, Any], secrets: Iterable[str], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return options as they may be written: secret ones as the `env:NAME` that was given, None, or `MASK`."""
    found = dict(options)
    for name in set(secrets) & found.keys():
        reference = given.get(name)
        if isinstance(reference, str) and _REFERENCE.fullmatch(reference):
            found[name] = reference
        elif found[name] is not None:
            found[name] = MASK
    return found


def writable_model(model: BaseModel, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a validated model as JSON values that may be written. Masked ones are left out."""
    fields = type(model).model_fields
    secrets = [name for name, field in fields.items() if is_secret(name, field.annotation, field.default)]
    found = writable(model.model_dump(mode="json"), secrets, given)
    return {name: value for name, value in found.items() if name not in secrets or value != MASK}
