"""Text that somebody else wrote, for a terminal."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

from rlvr.cli.filters import as_text


def inline(value: Any) -> str:
    """A value on one line."""
    return as_text(value).replace("\n", "\\n")


def printable(text: str, encoding: str | None) -> str:
    """The text with everything that could steer a terminal as its escape, and what `encoding` has not, too."""
    shown = re.sub(r"[^\n\t -~]", _escaped, text)
    return shown.encode(encoding or "utf-8", "backslashreplace").decode(encoding or "utf-8")


def _escaped(match: re.Match[str]) -> str:
    character = match[0]
    # Controls, invisible and direction marks, surrogates, private and unassigned characters, line separators.
    if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"):
        return character.encode("unicode_escape").decode()
    return character
