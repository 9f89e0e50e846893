"""Prompt templates: text in which `{question}` and `{COLUMN}` stand for a row's question and its other columns.

Braces around anything that is no name are literal, so LaTeX such as `\\boxed{}` and `\\frac{1}{2}` stays as it is.
Double braces are an escape: `{{name}}` becomes `{name}`, and `{{{name}}}` the value in braces.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches

from rlvr.errors import ConfigError

QUESTION = "question"
"""The placeholder of the question, whatever its column is called."""
CHOICES = "choices"
"""The placeholder of the options of a multiple-choice question, one per line with its letter."""
SCHEMA = "schema"
"""The placeholder of the statements that make the tables of a row's database, if the card names the databases."""

_BRACES = re.compile(r"\{\{\{(?P<wrapped>[^{}]*)\}\}\}|\{\{(?P<literal>[^{}]*)\}\}|\{(?P<plain>[^{}]*)\}")
_NAME = re.compile(r"\s*[^\W\d][\w .:/-]*")


def placeholders(template: str) -> list[str]:
    """Return what stands in braces in a template, escapes left out, in order and without duplicates."""
    found = (match["plain"] if match["wrapped"] is None else match["wrapped"] for match in _BRACES.finditer(template))
    return list(dict.fromkeys(name for name in found if name is not None))


def fill(template: str, values: Mapping[str, str]) -> str:
    """Return the template with placeholders replaced by their values, and escapes by literal braces.

    Values are inserted as they are: braces in a question mean nothing.
    """

    def replaced(match: re.Match[str]) -> str:
        if match["literal"] is not None:
            return f"{{{match['literal']}}}"
        if match["plain"] is not None:
            return values.get(match["plain"], match[0])
        inner = match["wrapped"]
        return f"{{{values.get(inner, f'{{{inner}}}')}}}"

    return _BRACES.sub(replaced, template)


def columns_in(template: str, columns: Sequence[str], *, answer: str, key: str, where: str) -> list[str]:
    """Return the columns that a template uses besides the question.

    Args:
        template: The template.
        columns: Columns of the data.
        answer: Column of the gold answers, which no prompt may hold.
        key: Setting of the template, for messages.
        where: Source of the data, for messages.

    Raises ConfigError for a placeholder that names no column, and for one that names the gold answers.
    """
    used = []
    for name in placeholders(template):
        if name == QUESTION:
            continue
        if name == answer:
            raise ConfigError(
                f"{key}: {{{name}}} would put the gold answer into the prompt; for literal braces write {{{{{name}}}}}"
            )
        if name in columns:
            used.append(name)
        elif _NAME.fullmatch(name):
            fillable = list(dict.fromkeys(column for column in (QUESTION, *columns) if column != answer))
            close = get_close_matches(name.strip(), fillable, n=1)
            hint = f" (did you mean {{{close[0]}}}?)" if close else ""
            raise ConfigError(
                f"{key}: {{{name}}} names no column of {where}{hint}. A placeholder is one of: {', '.join(fillable)}; "
                f"for literal braces write {{{{{name}}}}}"
            )
    return used
