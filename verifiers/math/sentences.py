"""Sentences of prose, and whether each may state the final answer."""

from __future__ import annotations

import re
from typing import NamedTuple

LATEST = 8
"""Sentences that are looked at, from the end."""
TAIL = 4_000
"""Characters at the end of a text that are searched when nothing marks the answer."""

_ABBREVIATIONS = (
    "Mr",
    "Mrs",
    "Ms",
    "Dr",
    "St",
    "Jr",
    "Sr",
    "vs",
    "approx",
    "Prof",
    "Fig",
    "Eq",
    "No",
    "i.e",
    "e.g",
    "cf",
)
_NOT_AFTER = "".join(rf"(?<!\b{re.escape(word)}.)" for word in _ABBREVIATIONS)
END = re.compile(
    rf"(?:[.?]|!(?!\s*[=+*/×÷<>^]))(?<![A-Z].){_NOT_AFTER}(?=[\s\"')*_]*(?:\s|$))|[。！？।]|\n\s*\n"
    r"|\n(?=\s*[-*#>|•\d$\\A-Z*])"
)
_LABEL = re.compile(r"\A\s*(?:[-*•>]\s+|\d{1,2}[.)]\s+|#{1,6}\s*)+(?=\S)")
_STEP = re.compile(r"(?i)\A\s*\**\s*(?:step|case|part|schritt|paso|étape)\s*\d{1,2}\s*[:.)\-–]\**\s*")
_HEADING = re.compile(
    r"^[ \t]*(?:#{1,6}[ \t]*(?:(?:step )?\d{1,2}[.):])?[^\d\n]*$|\*\*\s*(?:(?:step "
    r"|case )?\d{1,2}[.):])?[^*\d\n]{2,60}:\s*\*\*"
    r"|\*\*\s*(?:step |case )?\d{1,2}[.):][^*\d\n]{2,60}\*\*|\d{1,2}[.)][ \t]+(?=[A-Za-z*$\\]))",
    re.IGNORECASE | re.MULTILINE,
)
"""Headings, and the numbers of a list's items."""
_CLOSING = re.compile(
    r"(?i)\W*(?:let me know|i hope|hope (?:this|that|it)|feel free|please|good luck|happy to|if you (?:have|need"
    r"|want|would)"
    r"|would you like|do you|thank|is there anything|note that you|remember|keep in mind|i'm happy|great|well done)\b"
)
_PLAN = re.compile(
    r"(?i)\W*(?:(?:so|now|next|then|first|okay|ok|hmm|wait|and|but|here|therefore|thus)\W+)*(?:let(?:'s|’s| us| me)\b"
    r"(?! see that)|let \w{1,3}\s*(?:=|be\b)|let \$|consider\b|suppose\b|assume\b|assuming\b|try(?:ing)?\b"
    r"|the next step\b|(?:i|we)(?:'m| am|'re| are) (?:now )?going to\b"
    r"|(?:we|i|you) (?:first |now |then |next |still |also )?(?:need to|must|should|will|can (?:now |also )?(?:try|use"
    r"|check|start|split|divide|break|separate|group|rewrite|factor|list|draw|label|expand|simplify|apply|continue|begin"
    r"|set|write|find|solve)|could|would|want to|have to|are going to|know|are given|recall|consider|let|try|square|set"
    r"|substitute|start|begin|multiply|divide|add|subtract|plug|use|apply|define|denote|look|check)\b"
    r"|(?:solve|find|determine|compute|calculate|evaluate|simplify|plug|substitute|recall|define|denote|use|apply)\b)"
)
_CHECK = re.compile(
    r"(?i)\W*(?:(?:let us|let's|let’s|let me|we can|i will|now) )?(?:now |also )?(?:double[- ])?(?:check|verify"
    r"|verification)"
)
_NEXT = re.compile(r"(?i)\W*(?:(?:next|first|second|third)(?:ly)?,|next\b|to begin|start by|step \d+\b)")
_GIVES_UP = re.compile(
    r"(?i)\b(?:i|we)(?:'m|’m| am| was| are| were)? (?:not sure|unsure|unable|stuck|sorry|afraid|guess|give up)\b"
    r"|\b(?:i|we) (?:can ?not|can't|can’t|could ?n[o']t|could not|don't|do not|don’t|did not|didn't) (?!have\b"
    r"|need\b)\w"
    r"|\bi (?:have (?!(?:\\?\$)?\d|an?\b|only\b|just\b)\w|will\b|need\b|ran\b|used\b|hope\b|think i\b|must\b|should\b)"
)
_WE_STATE = re.compile(
    r"(?i)\b(?:we|i) (?:\w+ )?(?:get|got|find|found|obtain|obtained|have|conclude|see|deduce|arrive|know|can see"
    r"|calculate"
    r"|compute|need)\b.{0,80}?(?:=|\bis\b|\bare\b|\bequals\b|\bto be\b|\d)|[\s.](?:so|thus|therefore|hence)\b.*(?:="
    r"|\bis\b|\bare\b)",
    re.DOTALL,
)


_STATES = re.compile(r"=|(?i:\b(?:is|are|was|gets?|got|gives?|equals?|obtain)\b)")
_DANGLING = frozenset(
    {
        "the",
        "a",
        "an",
        "that",
        "and",
        "or",
        "of",
        "to",
        "in",
        "for",
        "with",
        "by",
        "from",
        "is",
        "are",
        "so",
        "which",
        "then",
        *("only", "than", "because", "but", "if", "when", "each", "every", "has", "have", "had", "was", "were", "into"),
        *("per", "its", "their", "your", "our", "my", "about", "will", "be", "been", "as", "since", "while"),
    }
)


class Sentence(NamedTuple):
    """One sentence of a text."""

    text: str
    kind: str
    """`statement`, `plan` (says what comes next, or gives up), `skip` (a question, a check, a closing remark) or
    `cut` (the text breaks off)."""


def sentences(text: str) -> list[Sentence]:
    """Return the last sentences of the text, in order."""
    tail = _HEADING.sub("\n\n", text[-TAIL:])
    found: list[tuple[str, str, bool]] = []  # text, the mark at its end, and whether one before it ended on its line
    start, same_line = 0, False
    for end in (*END.finditer(tail), None):
        raw = tail[start : end.start() if end else len(tail)]
        mark = end[0].strip() if end else ""
        start = end.end() if end else start
        bare = _STEP.sub("", _LABEL.sub("", raw, count=1), count=1)
        if not bare.strip(" *$\n_#"):
            same_line = same_line and (end is None or "\n" not in end[0])
            continue
        found.append((bare.strip(), mark, same_line))
        same_line = bool(mark)
    finished = sum(bool(mark) for _, mark, _ in found)
    said = [Sentence(bare, _kind(bare, mark)) for bare, mark, _ in found[-LATEST:]]
    if found and said[-1].kind == "statement" and not found[-1][1]:
        last, _, same_line = found[-1]
        if _breaks_off(last, finished, len(found) - 1, same_line):
            said[-1] = Sentence(last, "cut")
    return said


def _kind(bare: str, mark: str) -> str:
    if mark.startswith(("?", "？")) or _CLOSING.match(bare) or _CHECK.match(bare):
        return "skip"
    if bare.endswith("]") and any(c.isdigit() for c in bare[-8:]):
        return "statement"
    if _GIVES_UP.search(bare):
        return "plan"
    if _NEXT.match(bare) and not (_WE_STATE.search(bare) and _STATES.search(bare)):
        return "plan"
    if _PLAN.match(bare) and not _WE_STATE.search(bare):
        return "plan"
    return "statement"


def _breaks_off(text: str, finished: int, count: int, same_line: bool) -> bool:
    """Return True if a text without a full stop at its end was cut off: its other sentences have one."""
    if text.rstrip().endswith(("$", "*", ")", "]", "`", ">", "|", "\\]", "}")):
        return False
    if text.rsplit(None, 1)[-1].lower() in _DANGLING or text.rstrip()[-1] in ",(=+":
        return True
    computed = text.rfind("=")
    if computed != -1 and re.fullmatch(r"[^A-Za-z]*\d\S*(?: \w+){0,5}", text[computed + 1 :].strip()):
        return text.rsplit(None, 1)[-1].lower() in _DANGLING  # a computation with its result
    return same_line or (count >= 2 and finished == count)
