r"""Labeled cases: completions that a verifier must or must not reward, one JSON object per line.

    {"category": "fractions", "gold": "1/2", "pred": "0.5", "expected": true}
    {"category": "hedging", "gold": "1/2", "completion": "It is \\boxed{1/2} or \\boxed{2}.", "expected": false}

    gold        gold answer of the row, as text
    expected    true if the completion deserves the reward
    completion  whole completion of the model; or instead of it
    pred        bare answer, scored in the verifier's answer form (with `"form": "text"`, a whole completion)
    category    kind of case; "all" by default
    prompt      question, for verifiers that read it

Other keys go into `task.extra`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlvr.errors import DataError, RequestError, nearest
from rlvr.files import from_json, kind_of, lines_of

_KEYS = ("gold", "expected", "completion", "pred", "form", "category", "prompt")
_FORMS = ("bare", "text")


@dataclass(frozen=True)
class Case:
    """A completion and the verdict that it deserves."""

    gold: str
    completion: str
    expected: bool
    category: str = "all"
    answer: str | None = None
    """Bare answer that the completion was made from; None if the completion was given."""
    prompt: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


def read_cases(path: Path, say: Callable[[str], str]) -> Iterator[Case]:
    """Yield the cases of a file; `say(answer)` returns a completion that ends in that answer.

    Raises RequestError if the file does not exist, DataError if it is empty or a row is wrong.
    """
    if not path.is_file():
        raise RequestError(f"cases: there is no file {path}")
    there_are_none = True
    for where, line in lines_of(path):
        yield _case(from_json(line, where), where, say)
        there_are_none = False
    if there_are_none:
        raise DataError(f"{path} has no cases")


def _case(row: Any, where: str, say: Callable[[str], str]) -> Case:
    if not isinstance(row, dict):
        raise DataError(f"{where} is {kind_of(row)}: a case is an object")
    for key in ("gold", "expected"):
        if key not in row:
            raise DataError(f"{where}: there is no {key!r}{nearest(key, row)}")
        if row[key] is None:
            raise DataError(f"{where}: {key!r} is null")
    expected = row["expected"]
    if not isinstance(expected, bool):
        raise DataError(f"{where}: 'expected' is {kind_of(expected)}: write true or false")
    completion, pred = _text(row, "completion", where), _text(row, "pred", where)
    if (completion is None) == (pred is None):
        has = "both" if pred is not None else "neither"
        raise DataError(f"{where} has {has} of 'completion' (a whole one) and 'pred' (a bare answer): give one")
    form = row.get("form", "bare")
    if form not in _FORMS:
        raise DataError(f"{where}: 'form' is {form!r}{nearest(str(form), _FORMS)}")
    if form == "text" and pred is not None:
        completion, pred = pred, None
    gold = _text(row, "gold", where)
    assert gold is not None
    return Case(
        gold=gold,
        completion=say(pred) if pred is not None else completion or "",
        expected=expected,
        category=_text(row, "category", where) or "all",
        answer=pred,
        prompt=_text(row, "prompt", where),
        extra={key: value for key, value in row.items() if key not in _KEYS},
    )


def _text(row: Mapping[str, Any], key: str, where: str) -> str | None:
    value = row.get(key)
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    # Decimals must be text: as a number, 0.50 would lose a digit of its precision.
    raise DataError(f"{where}: {key!r} is {kind_of(value)}: expected text, in quotes")
