"""The verifier `sql`: a query is right if it returns what the gold query returns, on a throw-away SQLite database.

Queries may only read. Work is limited by SQLite's own counter of steps, so that a verdict does not depend on the clock;
the worker process that runs them is limited as well.
"""

from __future__ import annotations

import re
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias
from urllib.parse import quote

from pydantic import Field

from rlvr import Task, Verdict, verifier

from .stated import Place, graded, invalid, stated_answer

Row: TypeAlias = tuple[Any, ...]

LONGEST_QUERY = 20_000
"""Bytes of a query."""
LARGEST_VALUE = 1_000_000
"""Bytes of one value."""
LARGEST_RESULT = 20_000_000
"""Bytes of all values of a result."""
STEPS_A_CALL = 1_000
"""Steps of SQLite's virtual machine between two looks at the limit."""

_READING = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
_DENIED_FUNCTIONS = frozenset({"printf", "format", "random", "randomblob", "zeroblob", "load_extension"})
"""Functions that fill memory or burn time inside of one step, or whose result is chance."""
_LIMITS = {
    sqlite3.SQLITE_LIMIT_LENGTH: LARGEST_VALUE,
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: LONGEST_QUERY,
    sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 100,
    sqlite3.SQLITE_LIMIT_COMPOUND_SELECT: 50,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 100,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
}
_QUOTED = re.compile(r"'(?:[^']|'')*+'?|\"(?:[^\"]|\"\")*+\"?|--[^\n]*|/\*.*?(?:\*/|\Z)", re.DOTALL)
_ORDER_BY = re.compile(r"\border\s+by\b", re.IGNORECASE)
_NAME = re.compile(r"[\w-]{1,100}")


class QueryResult(NamedTuple):
    """Rows that a query returns."""

    rows: list[Row]
    read: bool
    """Whether it reads a table."""


class QueryError(Exception):
    """A query failed, or was stopped; the message says why."""


@verifier(name="sql", version=f"1+{sqlite3.sqlite_version}", answer_form="```sql\n{answer}\n```", cases="sql.jsonl")
def check(
    completion: str,
    task: Task,
    *,
    databases: Path | None = None,
    order: Literal["auto", "yes", "no"] = "auto",
    sets: bool = False,
    digits: Annotated[int, Field(ge=1, le=17)] = 9,
    max_rows: Annotated[int, Field(ge=1)] = 10_000,
    max_steps: Annotated[int, Field(ge=1)] = 20_000_000,
    answer_in: Place = "fence",
) -> Verdict:
    """Return 1.0 when the query in `completion` returns the rows of the gold query, and 0.0 when it does not.

    Args:
        completion: Text whose answer is one SELECT.
        task: Its `answer` is the gold query. Its column `schema` holds a script that makes the database, or a list of
            scripts, on all of which the results must be equal; or `db_id` names a database below `databases`.
        databases: Folder with a file NAME/NAME.sqlite for each `db_id`. They are opened read-only.
        order: Whether the order of rows counts; auto: if the gold query orders its result.
        sets: Compare results as sets, as BIRD does: repeated rows do not count.
        digits: Significant digits of floating-point numbers that must agree.
        max_rows: Rows that a result may have.
        max_steps: Steps of SQLite's virtual machine that a query may take.
        answer_in: Where the answer stands: fence (a block of code, or all there is), tag (`<answer>`), boxed, whole.
    """
    gold = task.answer or ""
    answer = stated_answer(completion, answer_in)
    if isinstance(answer, Verdict):
        return answer
    ordered = orders(gold) if order == "auto" else order == "yes"
    places: Sequence[str | Path] | str = _places(task, databases)
    if isinstance(places, str):
        return invalid(places)
    for place in places:
        try:
            wanted = _run(place, gold, max_rows, max_steps)
        except QueryError as error:
            return invalid(f"the gold query fails: {error}")
        if not wanted.rows:
            return invalid("the gold query returns no rows: any query that returns none would be right")
        try:
            found = _run(place, answer, max_rows, max_steps)
        except QueryError as error:
            return graded(0, answer, str(error))
        if wanted.read and not found.read:
            return graded(0, answer, "it reads no table")
        if not equal(wanted.rows, found.rows, ordered=ordered, sets=sets, digits=digits):
            return graded(0, answer, f"{len(found.rows):,} rows, which are not the {len(wanted.rows):,} wanted ones")
    return graded(1, answer, "the same rows" + (" in order" if ordered and not sets else ""))


def _places(task: Task, databases: Path | None) -> Sequence[str | Path] | str:
    """Return the scripts or the file of a row's database, or what is missing."""
    scripts = task.extra.get("schema")
    if isinstance(scripts, str):
        scripts = [scripts]
    if isinstance(scripts, list) and scripts and all(isinstance(each, str) for each in scripts):
        return scripts
    name = task.extra.get("db_id")
    if databases is None or not isinstance(name, str) or not _NAME.fullmatch(name):
        return "the row needs a script in its column 'schema', or a 'db_id' below the option 'databases'"
    path = databases / name / f"{name}.sqlite"
    return [path] if path.is_file() else f"there is no database {path}"


def _run(place: str | Path, query: str, max_rows: int, max_steps: int) -> QueryResult:
    """Return the result of a query on a database of its own. Raises QueryError."""
    try:
        with closing(_opened(place, max_steps)) as database:
            read = _guard(database, max_steps)
            return QueryResult(list(_rows(database.execute(query), max_rows)), bool(read))
    except (sqlite3.Error, sqlite3.Warning, UnicodeEncodeError, ValueError) as error:
        raise QueryError("more work than allowed" if "interrupted" in str(error) else str(error)) from error


def _opened(place: str | Path, max_steps: int) -> sqlite3.Connection:
    """Open a file read-only, or make a database in memory by a script of the data set."""
    if isinstance(place, Path):
        return sqlite3.connect(f"file:{quote(str(place.absolute()))}?mode=ro&immutable=1", uri=True)
    database = sqlite3.connect(":memory:")
    database.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    _count_steps(database, max_steps)
    database.executescript(place)
    return database


def _count_steps(database: sqlite3.Connection, max_steps: int) -> None:
    """Interrupt the database after so many steps."""
    calls = iter(range(max_steps // STEPS_A_CALL))
    database.set_progress_handler(lambda: next(calls, None) is None, STEPS_A_CALL)


def _guard(database: sqlite3.Connection, max_steps: int) -> list[str]:
    """Let the database only read, within limits. Return a list to which the tables that are read will be added."""
    read: list[str] = []

    def allowed(action: int, first: str | None, second: str | None, *_: str | None) -> int:
        if action not in _READING or (action == sqlite3.SQLITE_FUNCTION and second in _DENIED_FUNCTIONS):
            return sqlite3.SQLITE_DENY
        if action == sqlite3.SQLITE_READ and first and not read:
            read.append(first)
        return sqlite3.SQLITE_OK

    database.text_factory = lambda text: text.decode("utf-8", "replace")
    for limit, size in _LIMITS.items():
        database.setlimit(limit, size)
    _count_steps(database, max_steps)
    database.set_authorizer(allowed)
    return read


def _rows(cursor: sqlite3.Cursor, max_rows: int) -> Iterator[Row]:
    """Yield the rows of a result. Raises QueryError for too many rows or bytes."""
    size = 0
    for number, row in enumerate(cursor):
        size += sum(len(value) if isinstance(value, str | bytes) else 8 for value in row)
        if number >= max_rows or size > LARGEST_RESULT:
            raise QueryError(f"a result of more than {max_rows:,} rows or {LARGEST_RESULT // 10**6} MB")
        yield row


def orders(query: str) -> bool:
    """Return whether a query orders its result: an ORDER BY outside of parentheses."""
    text = _QUOTED.sub(" ", query)
    depth, outside = 0, []
    for part in re.split(r"([()])", text):
        depth += {"(": 1, ")": -1}.get(part, 0)
        outside.append(part if depth == 0 else " ")
    return _ORDER_BY.search("".join(outside)) is not None


def equal(wanted: Sequence[Row], found: Sequence[Row], *, ordered: bool, sets: bool, digits: int) -> bool:
    """Return whether two results are equal; names of columns do not count, their order does."""
    first, second = ([tuple(_cell(value, digits) for value in row) for row in rows] for rows in (wanted, found))
    if sets:
        return set(first) == set(second)
    return first == second if ordered else Counter(first) == Counter(second)


def _cell(value: Any, digits: int) -> Any:
    """Return a value as it is compared: floats are rounded, and 1.0 is 1."""
    return float(f"{value:.{digits}g}") if isinstance(value, float) else value
