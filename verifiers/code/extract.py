"""The program of a completion: its last block of Python."""

from __future__ import annotations

import re
from typing import NamedTuple

from ..math.thinking import after_thinking

LONGEST = 200_000
"""Characters of a program."""

_FENCE = re.compile(r"^[ \t]*+(?P<ticks>`{3,}+|~{3,}+)[ \t]*+(?P<language>[\w+.-]*+)[^\n`]*+$", re.MULTILINE)
_LANGUAGES = ("python", "py", "python3", "")


class Program(NamedTuple):
    """A program, or why there is none."""

    source: str
    fenced: bool = True
    """Whether it stood in a block; otherwise it is the whole completion."""
    reason: str = ""


def program_of(completion: str) -> Program:
    """Return the last block of Python after the thinking, or the whole text if it has no block of code.

    Blocks that name another language do not count. A last block that is never closed is no program: the completion was
    cut off.
    """
    said = after_thinking(completion)
    if said is None:
        return Program("", reason="the thinking never ends")
    blocks, opened = _blocks(said)
    if opened:
        return Program("", reason="a block of code that is never closed")
    sources = [source for language, source in blocks if language.casefold() in _LANGUAGES and source.strip()]
    if blocks and not sources:
        return Program("", reason="no block of Python")
    source = sources[-1] if sources else said
    if not source.strip():
        return Program("", reason="no program after the thinking")
    if len(source) > LONGEST:
        return Program("", reason=f"a program of {len(source):,} characters: at most {LONGEST:,} are run")
    return Program(source, bool(sources))


def _blocks(text: str) -> tuple[list[tuple[str, str]], bool]:
    """Return language and content of every closed block, and whether a last one of Python is never closed."""
    blocks: list[tuple[str, str]] = []
    begin, ticks, language = -1, "", ""
    for fence in _FENCE.finditer(text):
        if begin < 0:
            begin, ticks, language = fence.end() + 1, fence["ticks"], fence["language"]
        elif fence["ticks"].startswith(ticks) and not fence["language"]:
            blocks.append((language, text[begin : fence.start()]))
            begin = -1
    return blocks, begin >= 0 and language.casefold() in _LANGUAGES
