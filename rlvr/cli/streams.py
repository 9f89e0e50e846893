"""Standard streams: closed ones are opened to /dev/null; characters that the encoding lacks are written in ASCII."""

from __future__ import annotations

import codecs
import io
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rlvr.terminal import NeutralStream

SPELLED = {
    "×": "x",
    "·": "*",
    "÷": "/",
    "±": "+-",
    "≥": ">=",
    "≤": "<=",
    "≠": "!=",
    "≈": "~",
    "∞": "inf",
    "→": "->",
    "←": "<-",
    "–": "-",
    "—": "-",
    "−": "-",
    "…": "...",
    "‖": "||",
    "²": "^2",
    "′": "'",
    "’": "'",
    "“": '"',
    "”": '"',
    "½": "1/2",
    "α": "alpha",
    "β": "beta",
    "δ": "delta",
    "ε": "epsilon",
    "θ": "theta",
    "μ": "mu",
    "π": "pi",
    "ρ": "rho",
    "σ": "sigma",
    "τ": "tau",
    "χ": "chi",
}
"""Character of our own messages and documents → its spelling in ASCII."""


def prepare_streams() -> None:
    """Make the standard streams accept every text. `LC_ALL=C` asks for ASCII, although Python then writes UTF-8."""
    _open_closed_streams()
    codecs.register_error("rlvr.spelled", _spelled)
    asked = os.environ.get("LC_ALL") in ("C", "POSIX")
    free = not (os.environ.get("PYTHONIOENCODING") or os.environ.get("PYTHONUTF8"))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="ascii" if asked and free else None, errors="rlvr.spelled")


@contextmanager
def logged() -> Iterator[None]:
    """Print the warnings of rlvr's loggers to standard error, as `rlvr: TEXT`."""
    handler = logging.StreamHandler(NeutralStream(sys.stderr))
    handler.setFormatter(logging.Formatter("rlvr: %(message)s"))
    logger = logging.getLogger("rlvr")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def _spelled(error: UnicodeError) -> tuple[str, int]:
    """Replace what cannot be encoded: by its spelling in ASCII, or by its escape."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(SPELLED.get(each, each.encode("unicode_escape").decode()) for each in text), error.end


def _open_closed_streams() -> None:
    """Open closed standard streams (`>&-`) to /dev/null, so that no other file takes their place."""
    for name, number, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != number:
                os.dup2(nowhere, number, inheritable=True)
                os.close(nowhere)
            os.set_inheritable(number, True)
            setattr(sys, name, os.fdopen(number, mode))
