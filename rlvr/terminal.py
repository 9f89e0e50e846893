"""Untrusted text on a terminal: characters that could steer the terminal are written as escapes.

Ids, columns, reasons and names come from data and from policies. An escape sequence in them could hide lines, change
the title, or answer for the user; a direction mark could reorder the text.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any, TextIO, cast


def printable(text: str, encoding: str | None = None) -> str:
    """Return the text with escapes for characters that could steer a terminal or that `encoding` lacks."""
    shown = re.sub(r"[^\n\t -~]", _escaped, text)
    return shown.encode(encoding or "utf-8", "backslashreplace").decode(encoding or "utf-8")


def one_line(text: str) -> str:
    """Return the text as `printable` does, with its line ends escaped too, so that it cannot pose as a message."""
    return printable(text).replace("\n", "\\n")


def _escaped(match: re.Match[str]) -> str:
    character = match[0]
    # Controls, invisible and direction marks, surrogates, private and unassigned characters, line separators.
    if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"):
        return character.encode("unicode_escape").decode()
    return character


class NeutralStream:
    """A text stream that writes `printable` text to another one, and delegates everything else to it."""

    def __init__(self, stream: TextIO) -> None:
        self.raw = stream

    def write(self, text: str) -> int:
        """Write the text, neutralized."""
        # Characters that the encoding lacks are left to the stream, which may write them in ASCII.
        self.raw.write(re.sub(r"[^\n\t -~]", _escaped, text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write the lines, neutralized."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)


def raw_stream(stream: TextIO) -> TextIO:
    """Return the stream behind a `NeutralStream`, for code that writes escape sequences of its own; else the stream."""
    return stream.raw if isinstance(stream, NeutralStream) else stream


@contextmanager
def prints_to_standard_error() -> Iterator[None]:
    """Have the code of others print to standard error in the block: standard output is for a command's results."""
    with redirect_stdout(sys.stderr):
        yield


@contextmanager
def neutral_streams() -> Iterator[None]:
    """Neutralize all that is printed to standard output and standard error in the block."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (cast(TextIO, NeutralStream(raw_stream(stream))) for stream in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
