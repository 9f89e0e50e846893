"""Function calls in the forms that models write: JSON, `<tool_call>` blocks, and Python's call syntax.

Nothing is called or evaluated: Python's syntax is parsed, and only literals are accepted as arguments.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from .json_text import JsonTextError, read_json

LONGEST_SOURCE = 20_000
"""Characters of calls in Python's syntax."""
DEEPEST_SOURCE = 32
"""Brackets inside of each other in Python's syntax."""
MOST_CALLS = 64
"""Calls in one answer."""


_PYTHON = re.compile(r"\[\s*[A-Za-z_(*]|[A-Za-z_][\w.]*+\(")
"""The beginning of calls in Python's syntax."""


class ToolCall(NamedTuple):
    """A function's name and its arguments by name."""

    name: str
    arguments: Mapping[str, Any]


class CallError(ValueError):
    """A text holds no readable calls; the message says why."""


def read_calls(text: str) -> list[ToolCall]:
    """Return the calls of an answer, empty if it has none. Raises CallError for calls that cannot be read."""
    if "<tool_call>" in text:
        calls = []
        for part in text.split("<tool_call>")[1:]:
            content, closed, _ = part.partition("</tool_call>")
            if not closed:
                raise CallError("a <tool_call> that is never closed")
            calls += _from_json(content)
    else:
        fences = text.split("```")
        body = text if len(fences) != 3 else fences[1].partition("\n")[2] or fences[1]
        calls = _from_body(body.strip())
    if len(calls) > MOST_CALLS:
        raise CallError(f"{len(calls)} calls: at most {MOST_CALLS} are read")
    return calls


def _from_body(body: str) -> list[ToolCall]:
    """Return the calls of a text that is all JSON or all Python; none for prose, which begins like neither."""
    if _PYTHON.match(body):
        return _from_python(body)
    return _from_json(body) if body.startswith(("{", "[")) else []


def _from_json(text: str) -> list[ToolCall]:
    try:
        value = read_json(text)
    except JsonTextError as fault:
        raise CallError(str(fault)) from fault
    return json_calls(value)


def json_calls(value: Any) -> list[ToolCall]:
    """Return the calls that a JSON value states: one or a list, plain or in OpenAI's layout. Raises CallError."""
    if isinstance(value, Mapping) and isinstance(value.get("tool_calls"), list):
        value = value["tool_calls"]
    calls = []
    for each in value if isinstance(value, list) else [value]:
        call = each.get("function") if isinstance(each, Mapping) and "function" in each else each
        if not isinstance(call, Mapping) or not isinstance(call.get("name"), str):
            raise CallError("a call needs a 'name' and its 'arguments'")
        arguments = call.get("arguments", call.get("parameters", {}))
        if isinstance(arguments, str):  # OpenAI's are JSON text
            try:
                arguments = read_json(arguments or "{}")
            except JsonTextError as fault:
                raise CallError(f"the arguments of {call['name']!r}: {fault}") from fault
        if not isinstance(arguments, Mapping):
            raise CallError(f"the arguments of {call['name']!r} are no object")
        calls.append(ToolCall(call["name"], arguments))
    return calls


def _from_python(text: str) -> list[ToolCall]:
    """Return calls such as `[f(a=1), g(b="x")]`."""
    depth = deepest = 0
    for character in text if len(text) <= LONGEST_SOURCE else "":
        depth += (character in "([{") - (character in ")]}")
        deepest = max(deepest, depth)
    if len(text) > LONGEST_SOURCE or deepest > DEEPEST_SOURCE or re.search(r"[-+~]{40}|(?:\bnot\s+){9}|\*\*", text):
        raise CallError("calls that are too long or nested too deeply")
    try:
        body = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise CallError(f"no Python: {error}") from error
    nodes = body.elts if isinstance(body, ast.List | ast.Tuple) else [body]
    return [_from_node(node) for node in nodes]


def _from_node(node: ast.expr) -> ToolCall:
    if not isinstance(node, ast.Call) or node.args:
        raise CallError("expected calls with named arguments, as in f(a=1)")
    arguments: dict[str, Any] = {}
    for keyword in node.keywords:
        if keyword.arg is None or keyword.arg in arguments:
            raise CallError("an argument that has no name, or stands there twice")
        try:
            arguments[keyword.arg] = _plain(ast.literal_eval(keyword.value))
        except (ValueError, TypeError, RecursionError, MemoryError, SyntaxError) as error:
            raise CallError(f"the argument {keyword.arg!r} is no literal") from error
    return ToolCall(_dotted(node.func), arguments)


def _dotted(node: ast.expr) -> str:
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        raise CallError("a function's name is no name")
    return ".".join([node.id, *reversed(names)])


def _plain(value: Any) -> Any:
    """Return the value as JSON has it: tuples become lists. Raises ValueError for what JSON does not have."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return [_plain(each) for each in value]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _plain(each) for key, each in value.items()}
    raise ValueError("no JSON value")
