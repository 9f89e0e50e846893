"""A row of any file: a record, or a foreign row with columns of its own.

A row with a `schema_version` is a record. In any other row the columns `completion`, `answer`, `prompt`, `id` and
`group_id` have the meaning of their name, or the columns that a mapping names instead; every other column is the row's
own. `rlvr.record.open` reads files into these rows.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from rlvr.errors import DataError
from rlvr.files import kind_of
from rlvr.record.paths import at_path
from rlvr.record.values import json_safe, number_text

if TYPE_CHECKING:
    from rlvr.record.sidecar import Sidecars

TARGETS = ("completion", "answer", "prompt", "id", "group_id")
"""Meanings that a column of a foreign row can have."""


class Columns(dict[str, str]):
    """Target → column of a foreign row, or path into a column (`rlvr.record.paths`)."""

    group_suffix: re.Pattern[str] | None = None
    """End of a group's text that differs between its rollouts and is cut off."""
    single: tuple[str, ...] = ()
    """Paths to lists of completions. A row with several of them cannot be read as one completion."""


BY_NAME = Columns({target: target for target in TARGETS})

Prompt: TypeAlias = str | Sequence[Mapping[str, Any]]
"""Text, or the messages of a chat."""


class FieldError(DataError):
    """One field of a row cannot be read. The row cannot be verified; the rows around it can."""

    def __init__(self, reason: str, where: str = "") -> None:
        super().__init__(f"{where}: {reason}" if where else reason)
        self.reason = reason
        """The message without the place."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row. Each property raises DataError (a FieldError in a foreign row) for a value of the wrong kind."""

    where: str
    """File and line or row number, for messages."""
    values: Mapping[str, Any]
    """The columns as plain Python values: of a record, upgraded to this schema version; with the scores of sidecars."""
    columns: Columns = field(default_factory=lambda: BY_NAME)
    literals: Mapping[str, str | None] = field(default_factory=dict)
    """Column → number as text, for the columns of targets."""
    made_id: str | None = None
    """Id made from the content (`rlvr.record.content_ids`), for a foreign row without an id."""

    @property
    def is_record(self) -> bool:
        """Whether the row has a schema version; otherwise it is foreign."""
        return self.values.get("schema_version") is not None

    @property
    def id(self) -> str | None:
        """Identity of the rollout: its own, or the one made from its content. None if a foreign row has neither."""
        if not self.is_record:
            own = self.own_id
            return self.made_id if own is None else own
        identity: str = self._of_kind("id", self.values.get("id"), str)
        return identity

    @property
    def own_id(self) -> str | None:
        """Identity that the row itself states; None if a foreign row states none."""
        return self.id if self.is_record else self.text(self.columns["id"])

    @property
    def segment(self) -> int:
        """Number of the sequence within its rollout; 0 for a foreign row."""
        if not self.is_record:
            return 0
        segment: int = self._of_kind("segment", self.values.get("segment") or 0, int)
        return segment

    @property
    def group(self) -> str | None:
        """Name of the group: rollouts of one group answer one prompt."""
        if not self.is_record:
            group = self.text(self.columns["group_id"])
            suffix = self.columns.group_suffix
            return group if group is None or suffix is None else suffix.sub("", group)
        recorded: str | None = self._of_kind("group_id", self.values.get("group_id"), str | None)
        return recorded

    @property
    def prompt(self) -> Prompt | None:
        """Text or messages."""
        if self.is_record:
            messages = messages_of(self.values.get("messages"))
            text: str | None = self._of_kind("prompt", self.values.get("prompt"), str | None)
            return messages or text
        column = self.columns["prompt"]
        value = self.at(column)
        if value is None or isinstance(value, str):
            return chat_of(value) or value
        if (turns := messages_of(value)) is not None:
            return turns
        raise FieldError(f"{column!r} is {kind_of(value)}: expected text or messages", self.where)

    @property
    def completion(self) -> str | None:
        """Text; of a chat, what the assistant said last."""
        if self.is_record:
            text: str | None = self._of_kind("completion", self.values.get("completion"), str | None)
            return text
        self.require_one_completion()
        column = self.columns["completion"]
        value = self.at(column)
        if not isinstance(value, list) or not value:
            return self.text(column)
        try:
            return last_said(value, column)
        except FieldError as error:
            raise FieldError(error.reason, self.where) from error

    def require_one_completion(self) -> None:
        """Raise DataError if the format's list of completions has several: a row is one completion."""
        for path in self.columns.single:
            found = self.at(path)
            if isinstance(found, list) and len(found) > 1:
                raise DataError(
                    f"{self.where}: {path!r} holds {len(found)} completions, and a row is scored as one. Write a row "
                    "for each: jq -c '. as $row | .resps[][] | $row + {resps: [[.]]}' FILE > ROWS.jsonl"
                )

    @property
    def gold(self) -> str | None:
        """Gold answer as text: a number as it was written."""
        if not self.is_record:
            return self.text(self.columns["answer"])
        gold: str | None = self._of_kind("task.answer", self._task().get("answer"), str | None)
        return gold

    @property
    def scores(self) -> Sequence[Mapping[str, Any]]:
        """Scores of the row, those of sidecars last."""
        return scores_in(self.values.get("scores"), self.where)

    @property
    def extra(self) -> Mapping[str, Any]:
        """Content of `task.extra`; for a foreign row, its own columns as JSON can hold them."""
        if self.is_record:
            given = self._task().get("extra") or {}
            extra: Mapping[str, Any] = json.loads(given) if isinstance(given, str) else given
            return extra
        known = {target for target, column in self.columns.items() if target == column} | {"scores"}
        try:
            return {column: json_safe(value) for column, value in self.values.items() if column not in known}
        except RecursionError as error:
            raise FieldError("a column is nested too deeply to be read", self.where) from error

    def at(self, path: str) -> Any:
        """Return the value of a column, or of a path into one; None if there is nothing."""
        return at_path(self.values, path)

    def text(self, column: str) -> str | None:
        """Return the column as text, a number as it was written; None if there is nothing.

        Raises FieldError for a value that is neither.
        """
        value = self.at(column)
        if value is None or isinstance(value, str):
            return value
        if isinstance(value, float) and math.isnan(value):
            return None
        if column in self.literals:
            return self.literals[column]
        raise FieldError(f"{column!r} is {kind_of(value)}: expected text or a number", self.where)

    def joined(self, beside: Sidecars) -> Row:
        """Return the row with the scores that sidecars have for it after its own.

        A row stays as it is if it has no readable id, or if its own column `scores` is no list.
        """
        own = self.values.get("scores") or []
        try:
            identity, segment = self.id, self.segment
        except DataError:
            return self
        if identity is None or not isinstance(own, list):
            return self
        found = beside.scores_of(identity, segment)
        return replace(self, values={**self.values, "scores": [*own, *found]}) if found else self

    def _task(self) -> Mapping[str, Any]:
        task: Mapping[str, Any] = self._of_kind("task", self.values.get("task") or {}, Mapping)
        return task

    def _of_kind(self, name: str, value: Any, kind: Any) -> Any:
        if not isinstance(value, kind):
            raise DataError(f"{self.where}: {name} is {kind_of(value)}")
        return value


def row_of(values: Mapping[str, Any], where: str) -> Row:
    """Return a row of Python values, whose columns have the names of the targets.

    Raises DataError for a record of an unknown schema version.
    """
    if values.get("schema_version") is not None:
        from rlvr.record.store import upgrade  # imports pyarrow, which a foreign row does not need

        return Row(where, upgrade(values, where))
    numbers = {
        target: number_text(value)
        for target in TARGETS
        if isinstance(value := values.get(target), int | float) and not isinstance(value, bool)
    }
    return Row(where, values, BY_NAME, numbers)


def scores_in(value: Any, where: str) -> Sequence[Mapping[str, Any]]:
    """Return the value of a column `scores`; null is no scores. Raises DataError for what is no list of scores."""
    if value is None:
        return []
    if not isinstance(value, list | tuple) or not all(isinstance(score, Mapping) for score in value):
        raise DataError(f"{where}: the column 'scores' is {kind_of(value)} and not a list of scores: rename it")
    return value


# --- chats ----------------------------------------------------------------------------------------------------------


def messages_of(value: Any) -> list[Mapping[str, Any]] | None:
    """Return the messages of a chat, from a list of mappings or its JSON text; None if the value is no chat."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, list) and all(isinstance(turn, Mapping) for turn in value) else None


def chat_of(value: Any) -> list[Mapping[str, Any]] | None:
    """Return the messages of a chat, from a list of mappings with roles or its JSON text; None for anything else."""
    if isinstance(value, str) and not value.lstrip().startswith("[{"):
        return None
    turns = messages_of(value)
    return turns if turns and all(isinstance(turn.get("role"), str) for turn in turns) else None


def plain_messages(turns: Sequence[Mapping[str, Any]], column: str) -> list[dict[str, str]]:
    """Return the messages of a prompt with role and text alone, without thinking. Raises FieldError for a part that is
    no text."""
    plain = []
    for turn in turns:
        role, content = turn.get("role"), turn.get("content")
        parts = [part for part in content if not is_thinking(part)] if isinstance(content, list | tuple) else []
        if not isinstance(role, str) or not all(isinstance(message_field(part, "text"), str) for part in parts):
            raise FieldError(f"{column!r} is {kind_of(turns)}: expected text or messages of role and text")
        plain.append({"role": role, "content": message_text(content)})
    return plain


def last_said(messages: Sequence[Any], column: str) -> str | None:
    """Return the text of the assistant's last message that has any; "" if none has, None if there is no such message.

    Messages are mappings or objects, their content text or parts. Items beside them that have a type and no role, such
    as the reasoning in the output of OpenAI's Responses API, are left out; a list of text parts is one message. Raises
    FieldError for what is no chat.
    """
    turns = [turn for turn in messages if isinstance(message_field(turn, "role"), str)]
    others = [turn for turn in messages if not isinstance(message_field(turn, "role"), str)]
    is_content = not turns and any(is_thinking(part) or message_field(part, "text") for part in others)
    if not all(isinstance(message_field(item, "type"), str) for item in others) or (
        others and not (turns or is_content)
    ):
        raise FieldError(f"{column!r} is {kind_of(messages)}: expected text, a number or messages")
    if is_content:
        return message_text(others)
    said = [turn for turn in turns if message_field(turn, "role") == "assistant"]
    texts = ["" if is_thinking(turn) else message_text(message_field(turn, "content")) for turn in said]
    return next(filter(None, reversed(texts)), "") if texts else None


def message_field(message: Any, name: str) -> Any:
    """Return a field of a message, which is a mapping or an object; None if it has no such field."""
    return message.get(name) if isinstance(message, Mapping) else getattr(message, name, None)


def message_text(content: Any) -> str:
    """Return the text of a message's content, which is text or a list of parts. Parts that hold thinking are left
    out."""
    if isinstance(content, list | tuple):
        said = (part for part in content if not is_thinking(part))
        return "".join(text for part in said if isinstance(text := message_field(part, "text"), str))
    return content if isinstance(content, str) else ""


_THINKING = re.compile(r"(?i)reason|think|thought|summary_text")


def is_thinking(part: Any) -> bool:
    """Return True if a message, or a part of one, holds thinking, which is no answer.

    Known are types such as `reasoning`, `reasoning_text` and `thinking`, Gemini's `thought: true`, and harmony's
    channel `analysis`.
    """
    kind = message_field(part, "type")
    return (
        (isinstance(kind, str) and _THINKING.search(kind) is not None)
        or message_field(part, "thought") is True
        or message_field(part, "channel") == "analysis"
    )
