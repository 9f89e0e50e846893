"""Errors that rlvr raises on purpose, by who has to act.

The command line turns each into one line on standard error and an exit code, without a traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RlvrError(Exception):
    """Base class of the errors that rlvr raises on purpose. `exit_code` is that of the command line."""

    exit_code = 1


class RequestError(RlvrError):
    """The request is wrong (a name, a key, a file). Nothing was started. Exit code 2."""

    exit_code = 2


class ConfigError(RequestError):
    """A configuration key or value is wrong; the message names the key and the nearest one that exists."""


class PluginError(RequestError):
    """A plugin is missing, broken or in conflict with another; the message names its distribution."""


class DataError(RequestError):
    """A row or a column of a data file is wrong; the message names file, row and field."""


class RunError(RlvrError):
    """The run started and failed. Exit code 1."""


class SamplerLostError(RunError):
    """A sampler is gone: its process died, or its server does not answer. Another one can answer its requests."""

    @property
    def cause(self) -> str:
        """The reason, without the advice."""
        return str(self.args[0])

    def __str__(self) -> str:
        return f"{self.cause}. Continue the run with --resume"


def nearest(name: str, known: Iterable[str], prefix: str = "") -> str:
    """Return `"; did you mean 'x'?"` if a known name is close, else the list of known names, else "".

    `prefix` is printed before the suggested name and is not compared.
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f"; did you mean {prefix + close[0]!r}?"
    return f"; known: {', '.join(names)}" if names else ""
