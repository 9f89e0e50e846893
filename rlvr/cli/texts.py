"""Untrusted text for a terminal."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

from rlvr.files import as_text


def inline(value: Any) -> str:
    """Return a value on one line."""
    return as_text(value).replace("\n", "\\n")


def printable(text: str, encoding: str | None) -> str:
    """Return the text with escapes for all that could steer a terminal and all that `encoding` does not have."""
    shown = re.sub(r"[^\n\t -~]", _escaped, text)
    return shown.encode(encoding or "utf-8", "backslashreplace").decode(encoding or "utf-8")


def _escaped(match: re.Match[str]) -> str:
    character = match[0]
    # Controls, invisible and direction marks, surrogates, private and unassigned characters, line separators.
    if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"):
        return character.encode("unicode_escape").decode()
    return character
