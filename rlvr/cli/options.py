"""`--option KEY=VALUE`, as several commands have it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rlvr.errors import ConfigError, RequestError


def verifier_options(pairs: Iterable[str]) -> dict[str, Any]:
    """The verifier's options from `KEY=VALUE` texts. Raises RequestError."""
    from rlvr.config import parse_set

    options: dict[str, Any] = {}
    for pair in pairs:
        key, equals, _ = pair.partition("=")
        if not (key and equals):
            raise RequestError(f"--option {pair}: write KEY=VALUE")
        if key in options:
            raise RequestError(f"--option {pair}: {key} is given twice")
        try:
            options[key] = parse_set(pair)[1].value
        except ConfigError as error:
            raise RequestError(f"--option {pair}: the value is not YAML; put quotes around text") from error
    return options
