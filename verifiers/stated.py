"""Places where a completion states its final answer: a box, a tag, a line, behind `####`, or all after the thinking.

An answer counts only if it is the only one: two boxes with different content are hedging, and no answer is read. All
readers take time linear in the length of the text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Literal, TypeAlias

from rlvr import Status, Verdict

from .math.thinking import after_thinking

Place: TypeAlias = Literal["boxed", "tag", "line", "hashes", "fence", "whole"]
"""Place of the answer: `\\boxed{…}`, `<answer>…</answer>`, `Answer: …`, `#### …`, a block of code, or all there is.

`fence` is the whole completion if it has no block of code."""

LONGEST = 100_000
"""Characters of an answer that are read."""

_BRACES = re.compile(r"(\\(?:boxed|fbox)(?![A-Za-z])\s{0,9}\{)|\\.|[{}]", re.DOTALL)
_HEADS = ("answer", "final answer", "the answer", "the final answer")
_STYLE = re.compile(r"\\(?:text|textbf|textit|texttt|textrm|textsf|mathrm|mathbf|mathsf|mbox|rm|bf)\s?\{([^{}]*)\}")
_LANGUAGES = ("", "json", "sql", "sqlite")
_UNCLOSED = "\0"


def unparsed(reason: str) -> Verdict:
    """Return the verdict for a completion without a readable answer."""
    return Verdict(status=Status.UNPARSED, reason=reason)


def invalid(reason: str) -> Verdict:
    """Return the verdict for a row that is itself at fault."""
    return Verdict(status=Status.INVALID, reason=reason)


def graded(reward: float, extracted: str, reason: str) -> Verdict:
    """Return the verdict with a reward."""
    return Verdict(status=Status.GRADED, reward=float(reward), extracted=extracted[:1000], reason=reason)


def stated_answer(completion: str, place: Place) -> str | Verdict:
    """Return the answer that stands there after the thinking, stripped; the verdict `unparsed` if there is not one."""
    said = after_thinking(completion)
    if said is None:
        return unparsed("the thinking never ends")
    answers = list(dict.fromkeys(answer.strip() for answer in _READERS[place](said)))
    if _UNCLOSED in answers:
        return unparsed(f"{_NAMES[place]} that is never closed")
    if not answers or answers == [""]:
        return unparsed(f"no {_NAMES[place]} after the thinking" if not answers else f"an empty {_NAMES[place]}")
    if len(answers) > 1:
        return unparsed(f"{len(answers)} different answers: {_NAMES[place]} must be the only one")
    if len(answers[0]) > LONGEST:
        return unparsed(f"an answer of {len(answers[0]):,} characters: at most {LONGEST:,} are read")
    return unstyled(answers[0]) if place == "boxed" else answers[0]


def unstyled(answer: str) -> str:
    """Return the answer without dollars around it and without TeX's commands for text: `\\text{Paris}` is Paris."""
    answer = answer.strip()
    if len(answer) > 1 and answer[0] == answer[-1] == "$":
        answer = answer.strip("$").strip()
    return _STYLE.sub(r"\1", answer).strip() if "\\" in answer else answer


def _boxes(text: str) -> Iterator[str]:
    """Yield the content of every outermost box, and a mark if one is never closed."""
    opened: list[int] = []  # where the content of a box begins, or -1 for another brace
    boxes = 0
    for brace in _BRACES.finditer(text):
        if brace[1]:
            opened.append(brace.end())
            boxes += 1
        elif brace[0] == "{":
            opened.append(-1)
        elif brace[0] == "}" and opened and (begin := opened.pop()) >= 0:
            boxes -= 1
            if not boxes:
                yield text[begin : brace.start()]
    if boxes:
        yield _UNCLOSED


def _tags(text: str) -> Iterator[str]:
    """Yield the content of every `<answer>`, and a mark if one is never closed."""
    for part in text.split("<answer>")[1:]:
        content, closed, _ = part.partition("</answer>")
        yield content if closed else _UNCLOSED


def _lines(text: str) -> Iterator[str]:
    """Yield what follows `Answer:` at the beginning of a line."""
    for line in text.splitlines():
        head, colon, answer = line.partition(":")
        if colon and len(head) < 40 and head.strip(" \t*_#>").casefold() in _HEADS:
            yield answer.strip(" \t*_")


def _hashes(text: str) -> Iterator[str]:
    """Yield what follows `####` in its line."""
    for part in text.split("####")[1:]:
        yield part.partition("\n")[0]


def _fences(text: str) -> Iterator[str]:
    """Yield the content of every block of code without a language or of JSON or SQL; all of a text that has none."""
    content: list[str] | None = None
    some = False
    for line in text.splitlines():
        bare = line.strip(" \t*")
        if not bare.startswith("```"):
            if content is not None:
                content.append(line)
        elif content is None:
            some, content, language = True, [], bare[3:].strip().casefold()
        else:
            if language in _LANGUAGES:
                yield "\n".join(content)
            content = None
    if content is not None:
        yield _UNCLOSED
    if not some:
        yield text


_READERS: Mapping[Place, Callable[[str], Iterator[str]]] = {
    "boxed": _boxes,
    "tag": _tags,
    "line": _lines,
    "hashes": _hashes,
    "fence": _fences,
    "whole": lambda text: iter([text]),
}
_NAMES: Mapping[Place, str] = {
    "boxed": "\\boxed{}",
    "tag": "<answer>",
    "line": "line 'Answer: …'",
    "hashes": "'####'",
    "fence": "block of code",
    "whole": "text",
}
