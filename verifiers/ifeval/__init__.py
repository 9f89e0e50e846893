"""The verifier `ifeval`: does a completion follow the instructions of IFEval, or the functions of RLVR-IFeval?"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from typing import Any, Literal, TypeAlias

from rlvr import Status, Task, Verdict, verifier

from ..json_text import JsonTextError, read_json
from ..language import preload
from ..math.thinking import after_thinking
from ..stated import LONGEST, graded, invalid, unparsed
from .functions import FUNCTIONS
from .instructions import INSTRUCTIONS, ConstraintError, call
from .reference import REFERENCE

__all__ = ["check"]

Constraints: TypeAlias = list[tuple[str, Callable[[str], bool]]]
"""Name of each constraint, and its check of a text."""


@verifier(
    name="ifeval",
    version=f"1+{metadata.version('langdetect')}",
    preload=preload,
    needs_answer=False,
    answer_form=None,
    partial_credit=True,
    cases="cases.jsonl",
)
def check(
    completion: str,
    task: Task,
    *,
    mode: Literal["strict", "loose"] = "strict",
    level: Literal["prompt", "instruction"] = "prompt",
    dialect: Literal["careful", "reference"] = "careful",
) -> Verdict:
    """Return 1.0 when `completion` follows every instruction of the row, or with `level=instruction` their share.

    Each instruction is a part of the verdict.

    Args:
        completion: Text that must follow the instructions; its thinking is left out.
        task: Has the columns `instruction_id_list` and `kwargs` of IFEval, or as its `answer` the text of
            `{"func_name": …}` (RLVR-IFeval) or of `[{"instruction_id": […], "kwargs": […]}]` (IF-RLVR).
        mode: strict: the text as it is. loose: also without its first line, its last line or its asterisks.
        level: prompt: all or nothing. instruction: the share of the instructions that are followed.
        dialect: careful: instructions as they are meant. reference: IFEval's own verdicts, mistakes included.
    """
    try:
        constraints = constraints_of(task, INSTRUCTIONS if dialect == "careful" else REFERENCE)
        said = after_thinking(completion)
        if said is None:
            return unparsed("the thinking never ends")
        if len(said) > LONGEST:
            return unparsed(f"{len(said):,} characters: at most {LONGEST:,} are read")
        texts = list(variants(said)) if mode == "loose" else [said]
        followed = [(name, any(text.strip() and follows(text) for text in texts)) for name, follows in constraints]
    except ConstraintError as error:
        return invalid(str(error))
    right = sum(each for _, each in followed)
    reward = right / len(followed) if level == "instruction" else float(right == len(followed))
    broken = [name for name, each in followed if not each]
    reason = f"{right} of {len(followed)} followed" + (f"; broken: {', '.join(broken)}" if broken else "")
    return graded(reward, "", reason).model_copy(update={"extracted": None, "parts": _parts(followed)})


def _parts(followed: list[tuple[str, bool]]) -> Mapping[str, Verdict]:
    parts: dict[str, Verdict] = {}
    for name, each in followed:
        key = name if name not in parts else f"{name} ({len(parts) + 1})"
        parts[key] = Verdict(status=Status.GRADED, reward=float(each))
    return parts


def variants(text: str) -> Iterator[str]:
    """Yield the eight texts of which one must pass in the loose mode."""
    lines = text.split("\n")
    for part in (text, *("\n".join(each).strip() for each in (lines[1:], lines[:-1], lines[1:-1]))):
        yield part
        yield part.replace("*", "")


def constraints_of(task: Task, instructions: Mapping[str, Any]) -> Constraints:
    """Return the constraints of a row. Raises ConstraintError if it has none, or one that is not known."""
    row = task.extra if "instruction_id_list" in task.extra else _stated(task.answer)
    if "func_name" in row:
        return [_function(row)]
    names = row.get("instruction_id_list", row.get("instruction_id"))
    arguments = _value(row.get("kwargs"))
    if isinstance(names, str):
        names = [names]
    if not isinstance(names, list) or not names or not isinstance(arguments, list) or len(arguments) != len(names):
        raise ConstraintError("the row needs instructions, and as many sets of arguments")
    found: Constraints = []
    for name, given in zip(names, arguments, strict=True):
        if name not in instructions:
            raise ConstraintError(f"the instruction {name!r} is unknown")
        given = _value(given) or {}
        if not isinstance(given, Mapping):
            raise ConstraintError(f"{name}: the arguments are no object")
        found.append((name, call(instructions[name], name, given)))
    return found


def _function(row: Mapping[str, Any]) -> tuple[str, Callable[[str], bool]]:
    name = row["func_name"]
    if name not in FUNCTIONS:
        raise ConstraintError(f"the function {name!r} is unknown")
    return name, call(FUNCTIONS[name], name, row)


def _stated(answer: str | None) -> Mapping[str, Any]:
    """Return the object that a gold answer states: JSON, Python's text of it, or a list with one."""
    value = _value(answer)
    if isinstance(value, list) and len(value) == 1:
        value = _value(value[0])
    if not isinstance(value, Mapping):
        raise ConstraintError("the row has no column 'instruction_id_list', and its gold answer states no constraint")
    return value


def _value(value: Any) -> Any:
    """Return the value of a text in JSON or in Python's literals; anything else as it is."""
    if not isinstance(value, str):
        return value
    try:
        return read_json(value)
    except JsonTextError:
        pass
    try:
        return ast.literal_eval(value) if len(value) <= LONGEST else None
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
