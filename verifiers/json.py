"""The verifier `json`: JSON that equals the gold value field by field, or that satisfies a JSON Schema."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from fractions import Fraction
from functools import lru_cache
from importlib.util import find_spec
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, Field

from rlvr import Status, Task, Verdict, verifier

from .json_text import JsonTextError, read_json
from .stated import Place, graded, invalid, stated_answer, unparsed

MOST_FIELDS = 20_000
"""Values in a JSON text that are compared."""
MOST_PARTS = 50
"""Fields of the gold answer that become parts of the verdict."""

Leaves: TypeAlias = dict[tuple[str | int, ...], Any]
"""Path → text, number, true, false, null, or an empty object or list."""


def _usable(option: str) -> str:
    """Return the option. Raises ValueError if it needs a validator that is not installed."""
    if option not in ("", "value") and find_spec("jsonschema_rs") is None:
        raise ValueError("jsonschema-rs is not installed: pip install 'rlvr[json]'")
    return option


@verifier(name="json", version="1", answer_form="```json\n{answer}\n```", partial_credit=True, cases="json.jsonl")
def check(
    completion: str,
    task: Task,
    *,
    gold: Annotated[Literal["value", "schema"], AfterValidator(_usable)] = "value",
    schema_column: Annotated[str, AfterValidator(_usable)] = "",
    answer_in: Place = "fence",
    rtol: Annotated[float, Field(ge=0)] = 0.0,
    atol: Annotated[float, Field(ge=0)] = 0.0,
    unordered: bool = False,
    ignore_extra: bool = False,
    partial: bool = False,
) -> Verdict:
    """Return 1.0 when the JSON in `completion` equals the gold value or satisfies the schema, and 0.0 otherwise.

    The fields of the gold value are parts of the verdict.

    Args:
        completion: Text whose answer is JSON.
        task: Its `answer` is JSON text: the expected value or a JSON Schema.
        gold: What the gold answer is: value or schema.
        schema_column: Column with a JSON Schema that the JSON must satisfy besides.
        answer_in: Where the answer stands: fence (a block of code, or all there is), tag (`<answer>`), boxed, whole.
        rtol: Largest difference of numbers, relative to the gold answer's.
        atol: Largest difference of numbers.
        unordered: The order of lists does not matter.
        ignore_extra: Fields that the gold value lacks are allowed.
        partial: Pay the share of fields that are right, among those of either side.
    """
    try:
        wanted = read_json(task.answer or "")
    except JsonTextError as fault:
        return invalid(f"the gold answer is unreadable: {fault}")
    schemas = [wanted] if gold == "schema" else []
    if schema_column:
        schemas.append(task.extra.get(schema_column))
    answer = stated_answer(completion, answer_in)
    if isinstance(answer, Verdict):
        return answer
    try:
        said = read_json(answer)
    except JsonTextError as fault:
        return unparsed(str(fault))
    for schema in schemas:
        fault_of = schema_fault(schema, said)
        if isinstance(fault_of, Verdict):
            return fault_of
    if gold == "schema":
        return graded(1, answer, "satisfies the schema")
    return _compared(wanted, said, answer, rtol=rtol, atol=atol, unordered=unordered, extra=ignore_extra, share=partial)


def schema_fault(schema: Any, value: Any) -> Verdict | None:
    """Return the verdict if the schema is unusable, or if the value does not satisfy it; None if it does."""
    if isinstance(schema, str):
        try:
            schema = read_json(schema)
        except JsonTextError as fault:
            return invalid(f"the schema is unreadable: {fault}")
    if not isinstance(schema, Mapping | bool):
        return invalid("the schema is no object")
    validator = _validator(json.dumps(schema, sort_keys=True))
    if isinstance(validator, str):
        return invalid(f"the schema is refused: {validator}")
    error = next(iter(validator.iter_errors(value)), None)
    if error is None:
        return None
    where = "/".join(map(str, error.instance_path)) or "the whole"
    return graded(0, json.dumps(value)[:1000], f"{where}: {error.message[:200]}")


@lru_cache(maxsize=256)
def _validator(schema: str) -> Any:
    """Return a validator, or why there is none. It loads nothing from elsewhere, and patterns take linear time."""
    import jsonschema_rs

    def refuse(uri: str) -> Any:
        raise ValueError(f"{uri} is somewhere else")

    try:
        return jsonschema_rs.validator_for(
            json.loads(schema), retriever=refuse, pattern_options=jsonschema_rs.RegexOptions(size_limit=1 << 20)
        )
    except (ValueError, jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError) as error:
        return " ".join(str(error).split())[:200]


def _compared(
    wanted: Any, said: Any, answer: str, *, rtol: float, atol: float, unordered: bool, extra: bool, share: bool
) -> Verdict:
    """Return the verdict on a value, field by field."""
    if unordered:
        wanted, said = _sorted(wanted), _sorted(said)
    gold, found = dict(_leaves(wanted, ())), dict(_leaves(said, ()))
    if max(len(gold), len(found)) > MOST_FIELDS:
        return unparsed(f"more than {MOST_FIELDS:,} values")
    right = {path for path, value in gold.items() if path in found and same(value, found[path], rtol, atol)}
    among = gold.keys() if extra else gold.keys() | found.keys()
    parts = None
    if isinstance(wanted, Mapping) and 0 < len(wanted) <= MOST_PARTS:
        missed = {path[0] for path in gold.keys() - right} | {path[0] for path in among - gold.keys() if path}
        parts = {
            name: Verdict(status=Status.GRADED, reward=float(name not in missed)) for name in wanted if len(name) < 200
        }
    wrong = next(iter(sorted(map(_named, among - right))), None)
    reward = len(right) / len(among) if share else float(wrong is None)
    reason = f"{len(right)} of {len(among)} fields are right" + (f"; wrong: {wrong}" if wrong is not None else "")
    return graded(reward, answer, reason).model_copy(update={"parts": parts})


def same(gold: Any, said: Any, rtol: float, atol: float) -> bool:
    """Return whether two values without fields are equal; true is not 1, and numbers may differ by the tolerance."""
    numbers = [isinstance(each, int | float) and not isinstance(each, bool) for each in (gold, said)]
    if all(numbers):
        difference, size = abs(Fraction(gold) - Fraction(said)), abs(Fraction(gold))
        return difference <= max(Fraction(str(atol)), Fraction(str(rtol)) * size)
    return type(gold) is type(said) and bool(gold == said)


def _leaves(value: Any, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Yield path and value of everything that has no fields of its own."""
    if isinstance(value, dict | list) and value:
        for name, each in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(each, (*path, name))
    else:
        yield path, value


def _sorted(value: Any) -> Any:
    """Return the value with all lists in the order of their JSON text."""
    if isinstance(value, dict):
        return {name: _sorted(each) for name, each in value.items()}
    if isinstance(value, list):
        return sorted(map(_sorted, value), key=lambda each: json.dumps(each, sort_keys=True))
    return value


def _named(path: tuple[str | int, ...]) -> str:
    return "/".join(map(str, path))[:80] or "the whole"
