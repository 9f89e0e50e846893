"""Finds `\\boxed{}` and its relatives; boxes that stand together are one answer."""

from __future__ import annotations

import re

MAX_JOINED = 64
"""Boxes side by side that are read as one answer."""

_NAMES = (r"\boxed", r"\fbox", r"\framebox")
_OFFSETS = tuple((name, name.index("box")) for name in _NAMES)
_BOX = re.compile(rf"(?:{'|'.join(map(re.escape, _NAMES))})(?![A-Za-z])\s*")
_BRACES = re.compile(r"[{}]|\\.", re.DOTALL)
_ONE_TOKEN = re.compile(r"\\[A-Za-z]+|-?\d+(?:[.,]\d+)*|\S")
_ASKED = re.compile(r"[\s$)\]\\]{0,6}\?")
"""Text behind a box that stands in a question."""
_WORD = re.compile(r"[^\W\d_]+")
_LABEL = re.compile(r"[A-Za-z](?:_\{?\w{1,4}\}?)?\s*=\s*$")
_JOINS = re.compile(r"[,;&]|\b(?:and|or)\b")
_ENDS_SENTENCE = re.compile(r"[.!?:](?:\s|\$)")
_LOOKS = re.compile(r"\\(?:quad|qquad|text|textbf|mathrm)|\\[()\[\],;!]")
_APPROXIMATES = re.compile(r"(?i)\\approx|≈|\bapprox|\babout\b|\broughly\b|\bi\.\s?e\.|\bnumerically\b|\bdecimal")
_ANOTHER = re.compile(r"[A-Za-z]\s*\$?\s*(?:=|(?<!\\)≈|\\approx)\s*\$?\s*$|\band\s+[a-z]\b(?! [a-z]{3})")
"""A decimal behind a name of its own approximates nothing."""
_APPROXIMATE = re.compile(r"\s*(?:(?:\\approx|≈|\\text\{\s*approx\w*\.?\s*\})\s*)?-?\d*\.\d+\s*(?:\\?%)?\s*")


def last_box(text: str, before: int) -> int:
    """Return where the last box before an index starts, or -1."""
    at = text.rfind("box", 0, before)  # all names hold it: one search instead of three
    while at != -1:
        for name, offset in _OFFSETS:
            start = at - offset
            if start >= 0 and start + len(name) <= before and text.startswith(name, start):
                return start
        at = text.rfind("box", 0, at)
    return -1


def box_at(text: str, start: int) -> tuple[str, int] | None:
    """Return content and end of the box that starts there, or None when its brace is never closed."""
    match = _BOX.match(text, start)
    if match is None:
        return None
    here = match.end()
    if here >= len(text):
        return None
    if text[here] != "{":  # \boxed 5: one token to TeX; who writes \boxed 42 means the number
        token = _ONE_TOKEN.match(text, here)
        return (token[0], token.end()) if token else None
    depth = 0
    last: re.Match[str] | None = None
    for brace in _BRACES.finditer(text, here):
        if brace[0] == "{":
            depth += 1
        elif brace[0] == "}":
            depth -= 1
            if depth == 0:
                return text[here + 1 : brace.start()].strip(), brace.end()
        last = brace
    if depth == 1 and last is not None and last[0] == "\\}" and not text[last.end() :].strip(" $.\n"):
        return text[here + 1 : last.start()].strip(), last.end()  # a stray backslash at the end of the answer
    return None


def boxed(text: str, unclosed: bool = False) -> str | None:
    """Return the last box, joined with those just before it; None without a box, "" for an empty one.

    A box that only gives the decimal of the box before it, `\\boxed{\\sqrt2} \\approx \\boxed{1.41}`, adds nothing.
    """
    start = last_box(text, len(text))
    if start == -1:
        return None
    box = box_at(text, start)
    if box is None:
        if not unclosed:
            return None
        match = _BOX.match(text, start)
        return text[match.end() :].strip().lstrip("{") if match else None
    exact = _exact_before(text, start, box[0])
    if exact is not None:
        start, box = exact
    parts = [box[0]]
    while len(parts) < MAX_JOINED:
        before = last_box(text, start)
        previous = box_at(text, before) if before != -1 else None
        if previous is None or previous[1] > start:
            break
        gap = text[previous[1] : start]
        if not _belongs_together(gap):
            break
        label = _LABEL.search(gap)
        if label and "=" not in parts[0]:
            parts[0] = label[0] + parts[0]
        parts.insert(0, previous[0])
        start = before
    if len(parts) == MAX_JOINED:
        return box[0]  # no list of answers is that long: the last box counts
    parts = list(dict.fromkeys(part for part in parts if part))
    return parts[0] if len(parts) == 1 else " ; ".join(parts) if any("," in p for p in parts) else ", ".join(parts)


def _exact_before(text: str, start: int, content: str) -> tuple[int, tuple[str, int]] | None:
    """Return the box before a decimal that only approximates it."""
    before = last_box(text, start) if _APPROXIMATE.fullmatch(content) else -1
    exact = box_at(text, before) if before != -1 else None
    if exact is None or exact[1] > start or start - exact[1] > 80 or "." in exact[0] or not exact[0]:
        return None
    gap = text[exact[1] : start]
    said = _APPROXIMATES.search(gap) or _APPROXIMATES.match(content.strip())
    return (before, exact) if said and not _ANOTHER.search(gap) else None


def _belongs_together(gap: str) -> bool:
    """Return True if two boxes with this between them are one answer: a comma, "and", or nothing, and few words."""
    if len(gap) > 80 or "\n\n" in gap or _ENDS_SENTENCE.search(gap):
        return False
    if not gap.strip(" $\\\n"):
        return True
    bare = _LOOKS.sub(" ", gap)
    return len(_WORD.findall(bare)) <= 4 and (_JOINS.search(bare) is not None or not _WORD.search(bare))


def in_question(text: str) -> bool:
    """Return True if the last box is what a question asks, `Is it \\boxed{42}?`, and more text follows."""
    if "?" not in text:
        return False
    box = box_at(text, last_box(text, len(text)))
    asked = _ASKED.match(text, box[1]) if box else None
    return asked is not None and bool(text[asked.end() :].strip())
