"""Foreign values as text and as JSON.

There is one function for each conversion, so a gold answer and `task.extra` do not depend on whether a row came from
JSON lines, from Parquet, from a prompt data set or from a Python mapping.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from numbers import Integral, Real
from typing import Any
from uuid import UUID

_EXACT = 2**53  # every whole number below is a float64
_PADDED_EXPONENT = re.compile(r"e([+-])0(\d)$")


class LiteralFloat(float):
    """A number of a JSON file that remembers how it was written: the gold `0.10` is not `0.1` to every verifier."""

    text: str

    @classmethod
    def read(cls, text: str) -> LiteralFloat:
        """Return the number that `text` spells; for `json.loads(parse_float=…)`."""
        number = cls(text)
        number.text = text
        return number


def number_text(value: float | Decimal, *, bits: int = 64) -> str | None:
    """Return a number as text: as it was written if that is known, else the shortest text that reads as that number.

    A whole number has no decimal point ("4", not "4.0"): columns of whole numbers often become floats because a value
    is missing. NaN has no text.

    Args:
        value: The number. A bool is "true" or "false".
        bits: Precision of the column that a float came from. The float32 0.1 is "0.1", not "0.10000000149011612".
    """
    if isinstance(value, LiteralFloat):
        return value.text
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, Decimal):
        return None if value.is_nan() else str(value)
    if math.isnan(value):
        return None
    if bits < 64:
        import numpy as np

        value = float(str(np.float32(value) if bits == 32 else np.float16(value)))
    if value.is_integer() and abs(value) < _EXACT:
        return "-0" if value == 0 and math.copysign(1.0, value) < 0 else str(int(value))
    return _PADDED_EXPONENT.sub(r"e\1\2", repr(value))


def json_text(value: Any) -> str | None:
    """Return the text that stands in JSON for a value that JSON has no type for; None if there is no such text.

    Dates and times are in ISO 8601, decimals keep their digits, and infinity is "inf" or "-inf".
    """
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, Decimal | timedelta | UUID):
        return str(value)
    return str(value) if isinstance(value, float) and math.isinf(value) else None


def json_safe(value: Any) -> Any:
    """Return the value as JSON can hold it: what `task.extra` has of a foreign row.

    Values without a JSON type become text as in `json_text`. What has no text either becomes null: NaN, which is how
    tables spell a missing value, and binary data and other objects (images, tensors), which no verifier reads as text.
    Keys become text. Raises RecursionError for a value that is nested too deeply.
    """
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else json_text(value)
    if isinstance(value, Mapping):
        return {str(key): json_safe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_safe(item) for item in value]
    if isinstance(value, Integral):  # numpy's
        return int(value)
    if isinstance(value, Real) and not isinstance(value, Decimal):
        return json_safe(float(value))
    return json_text(value)
