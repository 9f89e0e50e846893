"""Untrusted text for a terminal."""

from __future__ import annotations

from typing import Any

from rlvr.files import as_text


def inline(value: Any) -> str:
    """Return a value on one line."""
    return as_text(value).replace("\n", "\\n")
