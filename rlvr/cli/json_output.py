"""`--json`: one JSON document on standard output, as every command prints it."""

from __future__ import annotations

import json
import sys
from typing import Any, TextIO


def print_json(value: Any, *, file: TextIO | None = None) -> None:
    """Print a value of JSON types, in ASCII, to standard output or another stream."""
    print(json.dumps(value, indent=2), file=sys.stdout if file is None else file)
