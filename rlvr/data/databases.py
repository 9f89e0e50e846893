"""Databases of text-to-SQL data sets: the statements that make their tables, for the prompt."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from rlvr.errors import DataError

_NAME = re.compile(r"[\w-]{1,100}")


def database_schema(folder: Path, name: str) -> str:
    """Return the CREATE TABLE statements of the database `name`, the file NAME/NAME.sqlite below `folder`.

    The file is opened read-only. Raises DataError if it is missing, is no SQLite database, or has no tables.
    """
    path = folder / name / f"{name}.sqlite"
    if not _NAME.fullmatch(name) or not path.is_file():
        raise DataError(
            f"there is no database {path}: download the data set's SQLite files, and name their folder with "
            "--set dataset.options.databases=FOLDER"
        )
    tables = (
        "SELECT sql FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite!_%' ESCAPE '!' ORDER BY rowid"
    )
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro&immutable=1", uri=True)) as database:
            database.text_factory = lambda text: text.decode("utf-8", "replace")
            statements = [statement.strip() for (statement,) in database.execute(tables)]
    except sqlite3.Error as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    if not statements:
        raise DataError(f"{path} has no tables")
    return ";\n".join(statements) + ";"
