"""Words and sentences of a text, found in linear time and without downloads."""

from __future__ import annotations

import re

_WORD = re.compile(r"\w+(?:['’‑-]\w+)*")
_ENDS = re.compile(r"[.!?…]+[\"'”’)*\]]*(?=\s)|[。！？]+")
_ABBREVIATIONS = frozenset(
    {
        *(
            "mr",
            "mrs",
            "ms",
            "dr",
            "prof",
            "sr",
            "jr",
            "st",
            "vs",
            "etc",
            "e.g",
            "i.e",
            "no",
            "fig",
            "inc",
            "ltd",
            "co",
        ),
        *("u.s", "u.k", "a.m", "p.m", "approx", "dept", "est", "gen", "gov", "hon", "rev", "sen", "rep", "mt", "vol"),
    }
)
_MAY_END = frozenset({"etc", "u.s", "u.k", "a.m", "p.m", "inc", "ltd", "co", "no"})
"""Abbreviations after which a sentence may end, if the next word is capitalized."""


def words(text: str) -> list[str]:
    """Return the words of a text; `don't` and `well-known` are one word each."""
    return _WORD.findall(text)


def capital_words(text: str) -> list[str]:
    """Return the words in capital letters."""
    return [word for word in words(text) if word.isupper()]


def first_word(text: str) -> str:
    """Return the first word of a text, case-folded; "" without words."""
    found = _WORD.search(text)
    return found[0].casefold() if found else ""


def sentences(text: str) -> int:
    """Return the number of sentences. Blank lines end one, and the dots of abbreviations and initials do not."""
    count = 0
    for paragraph in re.split(r"\n[ \t\r]*\n", text):
        begin = 0
        paragraph += " "
        for end in _ENDS.finditer(paragraph):
            sentence = paragraph[begin : end.end()]
            if any(map(str.isalnum, sentence)) and not _goes_on(paragraph, end):
                count += 1
                begin = end.end()
        count += any(map(str.isalnum, paragraph[begin:]))
    return count


def _goes_on(text: str, end: re.Match[str]) -> bool:
    """Return whether a sentence goes on behind a dot: an abbreviation, an initial, or a number of a list."""
    if not end[0].startswith(".") or end[0].startswith(".."):
        return False
    before = text[max(0, end.start() - 20) : end.start()]
    word = re.split(r"[\s(\"'“‘*\[]", before)[-1].casefold()
    after = text[end.end() : end.end() + 3].lstrip()
    if word in _MAY_END:
        return not after[:1].isupper()
    listed = word.isdecimal() and before.rpartition("\n")[2].strip() == word
    return word in _ABBREVIATIONS or (len(word) == 1 and word.isalpha() and word != "i") or listed
