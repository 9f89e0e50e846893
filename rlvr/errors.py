"""What can go wrong, told apart by who has to act.

The command line turns each into one line on standard error and an exit code; no user ever sees a traceback for one.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RlvrError(Exception):
    """Base of every error that rlvr raises on purpose. `exit_code` is what the command line exits with."""

    exit_code = 1


class RequestError(RlvrError):
    """The request was wrong (a name, a key, a file): nothing was started. Exit code 2."""

    exit_code = 2


class ConfigError(RequestError):
    """A configuration key or value is wrong; the message names the key and the nearest one that exists."""


class PluginError(RequestError):
    """A plugin is missing, broken or in conflict with another; the message names its distribution."""


class DataError(RequestError):
    """A row or a column of somebody's data is wrong; the message names file, row and field."""


class RunError(RlvrError):
    """The run started and could not go on. Exit code 1."""


def nearest(name: str, known: Iterable[str], prefix: str = "") -> str:
    """`"; did you mean 'x'?"` when a known name is close, else the known names, else nothing.

    `prefix` is what all of them begin with, and stands before the one that is meant; it makes no two names alike.
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f"; did you mean {prefix + close[0]!r}?"
    return f"; known: {', '.join(names)}" if names else ""
