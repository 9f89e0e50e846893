"""`--json`: one JSON document on standard output, as every command prints it."""

from __future__ import annotations

import json
import sys
from typing import Any, TextIO

from rlvr.record.values import json_safe


def print_json(value: Any, *, file: TextIO | None = None) -> None:
    """Print a value, in ASCII, to standard output or another stream. NaN becomes null."""
    text = json.dumps(json_safe(value), indent=2, allow_nan=False)
    print(text, file=sys.stdout if file is None else file)
