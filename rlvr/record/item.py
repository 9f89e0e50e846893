"""Input of a verifier: the part of a row that a verdict depends on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import BaseModel, ValidationError

from rlvr.files import kind_of
from rlvr.record.rows import FieldError, Row, plain_messages
from rlvr.record.schema import Rollout, Task


@dataclass(frozen=True)
class Item:
    """One thing to verify: a completion (None if the row has none), its task, and the rollout they are part of."""

    completion: str | None
    task: Task
    rollout: Rollout | None = None


class _Judged(BaseModel):
    """Fields of a record that a verifier sees, with the types of `Rollout`."""

    completion: str | None = None
    task: Task = Task()


def item_of(row: Row, *, wants_rollout: bool, wants_extra: bool = True) -> Item:
    """Return what verifying a row needs.

    Args:
        row: A record or a foreign row.
        wants_rollout: The verifier looks at the whole rollout. Only then is a record validated as a whole.
        wants_extra: The verifier looks at more of the task than its answer; otherwise the task is the answer alone.

    Raises DataError for an invalid record, FieldError for a foreign row with a field of the wrong kind.
    """
    if row.is_record:
        return _record_item(row, wants_rollout, wants_extra)
    if not (wants_extra or wants_rollout):
        return Item(row.completion, Task(answer=row.gold))
    task = Task(row_id=row.own_id, answer=row.gold, extra=row.extra)
    completion = row.completion
    has_prompt = row.at(row.columns["prompt"]) is not None
    return Item(completion, task, _rollout(row, completion, task) if wants_rollout and has_prompt else None)


def _record_item(row: Row, wants_rollout: bool, wants_extra: bool) -> Item:
    from rlvr.record.store import field_faults, rollout_of  # imports pyarrow, which a foreign row does not need

    if wants_rollout:
        rollout = rollout_of(row.values, row.where)
        return Item(rollout.completion, rollout.task, rollout)
    judged = {key: row.values[key] for key in ("completion", "task") if key in row.values}
    if not wants_extra and isinstance(task := judged.get("task"), Mapping):
        judged["task"] = {"answer": task.get("answer")}
    with field_faults(row.where):
        seen = _Judged.model_validate(judged)
    return Item(seen.completion, seen.task)


def _rollout(row: Row, completion: str | None, task: Task) -> Rollout:
    prompt, column = row.prompt, row.columns["prompt"]
    try:
        given = {"prompt": prompt} if isinstance(prompt, str) else {"messages": plain_messages(prompt or (), column)}
    except FieldError as error:
        raise FieldError(error.reason, row.where) from error
    fields = {"id": task.row_id or row.where, "group_id": row.group, "completion": completion, "task": task}
    try:
        return Rollout.model_validate(fields | given)
    except ValidationError as error:
        kind = kind_of(row.at(column))
        raise FieldError(f"{column!r} is {kind}: expected text or messages", row.where) from error
