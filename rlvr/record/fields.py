"""Fields of a row by name, and the conditions of `--where`.

A condition is `FIELD OP VALUE`. Nothing else is evaluated.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlvr.errors import RequestError, nearest
from rlvr.files import as_text
from rlvr.record.rows import TARGETS, FieldError, Row, messages_of

SCORE_FIELDS = ("status", "reward", "verifier", "extracted", "reason", "seconds")
"""Fields of a score: of the one that met the conditions, or of the last one."""

_ROW_FIELDS = (*TARGETS, "version", "tokens", *SCORE_FIELDS)


class Fields:
    """Fields of a row by name, for any file format and damaged rows too.

    A name is a field of a score, a target, `version` (the last policy version), `tokens` (how many were sampled), a
    column, or a path into a column (`task.answer`).
    """

    def __init__(self, row: Row) -> None:
        self.row = row
        scores = row.values.get("scores")
        self.scores = [each for each in scores if isinstance(each, Mapping)] if isinstance(scores, list) else []
        """Scores that are readable as such."""
        self._named = self._of_record() if row.is_record else self._of_foreign_row()
        if self.scores:
            self.bind(self.scores[-1])

    def bind(self, score: Mapping[str, Any]) -> None:
        """Resolve the names of score fields to this score; before the first call, to the last score."""
        self._named.update({name: score.get(name) for name in SCORE_FIELDS})

    def names(self) -> set[str]:
        """Return the names that `get` knows."""
        return {*self.row.values, *_ROW_FIELDS}

    def get(self, name: str) -> Any:
        """Return a field; None if the row has no such field."""
        return self._named[name] if name in self._named else self.row.at(name)

    @property
    def versions(self) -> list[int]:
        """Policy versions that sampled the tokens, in order."""
        runs = self.row.values.get("policy_versions")
        found = [run.get("version") for run in runs if isinstance(run, Mapping)] if isinstance(runs, list) else []
        return [version for version in found if isinstance(version, int)]

    def _of_record(self) -> dict[str, Any]:
        values = self.row.values
        named = {
            "answer": self.row.at("task.answer"),
            "prompt": messages_of(values.get("messages")) or values.get("prompt"),
        }
        if isinstance(mask := values.get("loss_mask"), list | np.ndarray):
            named["tokens"] = sum(map(bool, mask))
        if versions := self.versions:
            named["version"] = versions[-1]
        return named

    def _of_foreign_row(self) -> dict[str, Any]:
        named: dict[str, Any] = {}
        for target, column in self.row.columns.items():
            try:
                match target:
                    case "id":
                        named[target] = self.row.id
                    case "group_id":
                        named[target] = self.row.group
                    case _:
                        named[target] = self.row.text(column)
            except FieldError:
                value = self.row.at(column)
                named[target] = messages_of(value) or value
        return named


# --- conditions -----------------------------------------------------------------------------------------------------

_EXPRESSION = re.compile(r"\s*(?P<field>[^=!<>~]+?)\s*(?P<op>!=|<=|>=|==|=|<|>|~)\s*(?P<value>.*)", re.DOTALL)
_ORDERS: Mapping[str, Callable[[float, float], bool]] = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


@dataclass(frozen=True)
class Condition:
    """One comparison. A null matches nothing but `FIELD=null`."""

    field: str
    op: str
    value: str

    @property
    def text(self) -> str:
        """The expression."""
        return f"{self.field}{self.op}{self.value}"

    def holds(self, found: Any) -> bool:
        """Return whether a field with this value satisfies the condition. Raises RequestError for `<` or `>` on
        text."""
        if self.value == "null" and self.op in ("=", "!="):
            return (found is None) == (self.op == "=")
        if found is None:
            return False
        shown = as_text(found)
        if self.op == "~":
            return self.value in shown
        is_number = isinstance(found, int | float) and not isinstance(found, bool)
        number, wanted = _number(shown), _number(self.value)
        if self.op in _ORDERS:
            if number is None or wanted is None:
                raise RequestError(
                    f"--where {self.text}: {self.op} compares numbers, but {self.field} is {shown[:40]!r}"
                )
            return _ORDERS[self.op](number, wanted)
        same = number == wanted if is_number and wanted is not None else shown == self.value
        return same == (self.op == "=")


def condition(expression: str) -> Condition:
    """Parse `status=unparsed`, `reward<1`, `completion~boxed`. Raises RequestError for anything else."""
    match = _EXPRESSION.fullmatch(expression)
    if match is None:
        raise RequestError(
            f"--where {expression}: expected FIELD OP VALUE with =, !=, <, <=, >, >= or ~ (contains), e.g. reward<1"
        )
    op = "=" if match["op"] == "==" else match["op"]
    return Condition(match["field"], op, match["value"].strip())


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return None if math.isnan(number) else number


class Where:
    """Conditions that must all hold. It also collects the field names of the rows, to detect misspelled ones.

    Conditions on fields of a score hold if one and the same score of the row, any of them, meets them all.
    """

    def __init__(self, expressions: Iterable[str]) -> None:
        """Raises RequestError for an expression that is no comparison."""
        self.conditions: Sequence[Condition] = [condition(expression) for expression in expressions]
        # Order comparisons come last: text there is no mistake if another condition excludes the score.
        ordered = sorted(self.conditions, key=lambda each: each.op in _ORDERS)
        self._of_row = [each for each in ordered if each.field not in SCORE_FIELDS]
        self._of_score = [each for each in ordered if each.field in SCORE_FIELDS]
        self._seen: set[str] = set()

    def holds(self, fields: Fields) -> bool:
        """Return whether all conditions hold for a row. Its fields are then bound to the last score that meets them.

        Raises RequestError for `<` or `>` on text.
        """
        if not self.conditions:
            return True
        self._seen.update(fields.names())
        if not all(each.holds(fields.get(each.field)) for each in self._of_row):
            return False
        if not self._of_score or not fields.scores:  # without scores, the names are columns of the row's own
            return all(each.holds(fields.get(each.field)) for each in self._of_score)
        for score in reversed(fields.scores):
            if all(each.holds(score.get(each.field)) for each in self._of_score):
                fields.bind(score)
                return True
        return False

    def require_known(self, files: str) -> None:
        """Raise RequestError if a condition names a field that no row had: it is probably misspelled."""
        for each in self.conditions:
            name = each.field.partition(".")[0]
            if self._seen and each.field not in self._seen and name not in self._seen:
                raise RequestError(
                    f"--where {each.text}: {files} has no field {each.field!r}{nearest(name, self._seen)}"
                )
