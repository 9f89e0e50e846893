"""The verifier `regex`: the gold answer is a regular expression that the answer must match, in linear time.

Patterns are RE2's: no pattern can make it hang. Look-around and back-references are refused.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

from pyarrow import ArrowInvalid, array

from rlvr import Task, Verdict, verifier

from .math.thinking import after_thinking
from .stated import Place, graded, invalid, stated_answer, unparsed

LONGEST_PATTERN = 10_000
"""Characters of a pattern."""


def preload() -> None:
    """Import RE2 before worker processes are forked."""
    _search("", "", case=True)


@verifier(name="regex", version="1", preload=preload, sees="answer", answer_form=None, cases="regex.jsonl")
def check(
    completion: str,
    task: Task,
    *,
    search_in: Literal["answer", "completion"] = "answer",
    answer_in: Place = "boxed",
    match: Literal["full", "part"] = "full",
    case: bool = True,
) -> Verdict:
    """Return 1.0 when the regular expression `task.answer` matches, and 0.0 when it does not.

    Args:
        completion: Text whose answer is matched.
        task: Its `answer` is the pattern, in RE2's syntax. A full stop matches line ends, too.
        search_in: answer: only the stated answer. completion: everything after the thinking.
        answer_in: Where the answer stands: boxed, tag (`<answer>`), line (`Answer:`), hashes (`####`), or whole.
        match: full: the pattern must match all of it. part: anywhere.
        case: Upper and lower case differ.
    """
    pattern = task.answer or ""
    fault = _fault(pattern)
    if fault is not None:
        return invalid(f"the pattern {pattern[:80]!r} is refused: {fault}")
    if search_in == "answer":
        text = stated_answer(completion, answer_in)
        if isinstance(text, Verdict):
            return text
    else:
        said = after_thinking(completion)
        if said is None or not said.strip():
            return unparsed("nothing after the thinking")
        text = said.strip()
    text = text.encode("utf-8", "replace").decode()  # RE2 reads UTF-8, which lone surrogates are not
    found = _search(_part(pattern) if match == "part" else _full(pattern), text, case=case)
    return graded(found, text, "matches" if found else "does not match")


@lru_cache(maxsize=4096)
def _fault(pattern: str) -> str | None:
    """Return why a pattern is refused; None if it is fine."""
    if len(pattern) > LONGEST_PATTERN:
        return f"it has {len(pattern):,} characters, at most {LONGEST_PATTERN:,} are allowed"
    try:
        for whole in (pattern, _full(pattern)):  # `a)(b` is wrong by itself, an unclosed \\Q only as a part
            _search(whole, "", case=True)
    except (ArrowInvalid, UnicodeEncodeError) as error:
        return str(error).removeprefix("Invalid regular expression: ")
    return None


def _part(pattern: str) -> str:
    """Return the pattern with full stops that match line ends, too."""
    return f"(?s:{pattern})"


def _full(pattern: str) -> str:
    """Return the pattern for all of a text."""
    return f"\\A{_part(pattern)}\\z"


def _search(pattern: str, text: str, *, case: bool) -> bool:
    """Return whether RE2, which Arrow has, finds the pattern in the text."""
    from pyarrow import compute

    found = compute.match_substring_regex(array([text]), pattern, ignore_case=not case)
    return bool(found[0].as_py())


def count_matches(pattern: str, text: str, *, case: bool = False) -> int:
    """Return how often a pattern matches in a text, without overlaps. Raises ValueError for a bad pattern."""
    from pyarrow import compute

    text = text.encode("utf-8", "replace").decode()
    return int(compute.count_substring_regex(array([text]), pattern, ignore_case=not case)[0].as_py())
