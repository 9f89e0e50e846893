"""The verifier `tools`: the function calls of a completion are those of the gold answer.

Gold answers are calls (`[{"name": …, "arguments": {…}}]`, plain or in OpenAI's layout), or the allowed values of each
argument, as in the Berkeley Function-Calling Leaderboard: `[{"area": {"w": [2], "unit": ["", "cm"]}}]`. There, `""`
says that the argument may be left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, TypeAlias

from rlvr import Task, Verdict, verifier

from .calls import CallError, ToolCall, json_calls, read_calls
from .json import same
from .json_text import JsonTextError, read_json
from .math.thinking import after_thinking
from .stated import graded, invalid, unparsed

Strings: TypeAlias = Literal["exact", "case", "bfcl"]
"""Comparison of texts: to the letter, apart from case and blanks, or apart from what BFCL drops besides."""
Fits: TypeAlias = Callable[[ToolCall], bool]

_DROPPED = re.compile(r"[ ,./\-_*^]")
_OPTIONAL = ""


@verifier(name="tools", version="1", answer_form=None, partial_credit=True, cases="tools.jsonl")
def check(
    completion: str,
    task: Task,
    *,
    strings: Strings = "case",
    ordered: bool = False,
    partial_calls: bool = False,
) -> Verdict:
    """Return 1.0 when the calls in `completion` are the gold answer's, no more and no fewer, and 0.0 otherwise.

    A gold answer without calls (`[]`) is right if the completion makes none.

    Args:
        completion: Calls as JSON, in `<tool_call>` tags, or in Python's syntax; after the thinking, and nothing else.
        task: Its `answer` is JSON text: calls, or the allowed values of their arguments.
        strings: Texts are equal: exact; case: apart from case and blanks; bfcl: also apart from ` ,./-_*^`.
        ordered: Calls must be in the order of the gold answer.
        partial_calls: Pay the share of calls that are right, among the gold answer's or the completion's if more.
    """
    try:
        wanted = gold_calls(read_json(task.answer or ""), strings)
    except (JsonTextError, CallError) as fault:
        return invalid(f"the gold answer is unreadable: {fault}")
    said = after_thinking(completion)
    if said is None:
        return unparsed("the thinking never ends")
    try:
        calls = read_calls(said.strip())
    except CallError as fault:
        return unparsed(str(fault))
    if not calls:
        return graded(1, "", "no call, as wanted") if not wanted else unparsed("no call")
    if ordered:
        right = sum(fits(call) for fits, call in zip(wanted, calls, strict=False))
    else:
        right = _matched([[fits(call) for call in calls] for fits in wanted])
    most = max(len(wanted), len(calls))
    reward = right / most if partial_calls else float(right == most)
    shown = ", ".join(f"{call.name}({', '.join(map(str, call.arguments))})" for call in calls)
    return graded(reward, shown, f"{right} of {len(wanted)} wanted calls among {len(calls)}")


def gold_calls(value: Any, strings: Strings) -> list[Fits]:
    """Return a test for each call of a gold answer. Raises CallError if it has neither layout."""
    if not isinstance(value, list) or not value or not _allows(value):
        return [partial(_equals, call, strings) for call in (json_calls(value) if value != [] else ())]
    return [partial(_allowed, name, values, strings) for each in value for name, values in each.items()]


def _allows(value: Sequence[Any]) -> bool:
    """Return whether a list has BFCL's layout: one function each, with a list of allowed values per argument."""
    for each in value:
        if not isinstance(each, Mapping) or len(each) != 1:
            return False
        (arguments,) = each.values()
        if not isinstance(arguments, Mapping) or not all(isinstance(values, list) for values in arguments.values()):
            return False
    return True


def _equals(gold: ToolCall, strings: Strings, call: ToolCall) -> bool:
    return call.name == gold.name and _same(dict(gold.arguments), dict(call.arguments), strings)


def _allowed(name: str, values: Mapping[str, list[Any]], strings: Strings, call: ToolCall) -> bool:
    return call.name == name and _fields_allowed(values, call.arguments, strings)


def _fields_allowed(values: Mapping[str, Any], said: Mapping[str, Any], strings: Strings) -> bool:
    """Return whether each field has an allowed value, and each that is missing may be left out."""
    if said.keys() - values.keys():
        return False
    return all(
        any(_value_allowed(option, said[name], strings) for option in options) if name in said else _OPTIONAL in options
        for name, options in ((name, each if isinstance(each, list) else [each]) for name, each in values.items())
    )


def _value_allowed(option: Any, said: Any, strings: Strings) -> bool:
    """Return whether a value is this option; the fields of an object have allowed values of their own."""
    if isinstance(option, Mapping):
        return isinstance(said, Mapping) and _fields_allowed(option, said, strings)
    if isinstance(option, list):
        if not isinstance(said, list) or len(option) != len(said):
            return False
        return all(_value_allowed(one, other, strings) for one, other in zip(option, said, strict=True))
    return _same(option, said, strings)


def _same(gold: Any, said: Any, strings: Strings) -> bool:
    """Return whether two JSON values are equal."""
    if isinstance(gold, Mapping) and isinstance(said, Mapping):
        return gold.keys() == said.keys() and all(_same(gold[name], said[name], strings) for name in gold)
    if isinstance(gold, list) and isinstance(said, list):
        return len(gold) == len(said) and all(_same(a, b, strings) for a, b in zip(gold, said, strict=True))
    if isinstance(gold, str) and isinstance(said, str):
        return _text(gold, strings) == _text(said, strings)
    return not isinstance(gold, str | list | Mapping) and same(gold, said, 0.0, 0.0)


def _text(text: str, strings: Strings) -> str:
    if strings == "exact":
        return text
    if strings == "bfcl":
        return _DROPPED.sub("", text).lower().replace("'", '"')
    return " ".join(text.casefold().split())


def _matched(fits: Sequence[Sequence[bool]]) -> int:
    """Return the largest number of wanted calls that can each have a call of its own (augmenting paths)."""
    holder: dict[int, int] = {}

    def assign(wanted: int, tried: set[int]) -> bool:
        for call, fit in enumerate(fits[wanted]):
            if fit and call not in tried:
                tried.add(call)
                if call not in holder or assign(holder[call], tried):
                    holder[call] = wanted
                    return True
        return False

    return sum(assign(wanted, set()) for wanted in range(len(fits)))
