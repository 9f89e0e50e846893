"""Whose scores are meant: how a person names a verifier, and what its scores call it.

The commands that read scores (`rlvr train --rollouts`, `rlvr diagnose`, `rlvr compare`) all ask here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.util import find_spec

from rlvr.errors import RequestError
from rlvr.registry import registry
from rlvr.verify.verifying import verifier_name

LABEL = r"[\w.-]+"
"""What names a variant of a verifier: the scores of `rlvr score --verifier math --as strict` are by `math@strict`."""


def without_label(verifier: str) -> tuple[str, str]:
    """What can be loaded, and `@LABEL`, or nothing where it names no variant."""
    variant = re.fullmatch(rf"(.+)(@{LABEL})", verifier)
    return (variant[1], variant[2]) if variant else (verifier, "")


def score_name(verifier: str) -> str:
    """What scores call it: a name and a variant's name are just that, a file's function is loaded to tell its own.

    A variant of a file's function is `mine.py:check@strict`. Raises PluginError when the file cannot be loaded.
    """
    reference, label = without_label(verifier)
    if ".py:" in reference or reference.endswith(".py"):
        return verifier_name(reference) + label
    return verifier


def can_judge(verifier: str) -> bool:
    """Whether the name is of something that gives verdicts, and not only of scores that are there: a variant, or what
    scores call a file's function, can be read but judges nothing."""
    if verifier in {entry.name for entry in registry().entries("verifier")}:
        return True
    place = verifier.rpartition(":")[0]
    if not place or without_label(verifier)[1]:
        return False
    if place.endswith(".py"):
        return True
    try:
        return find_spec(place) is not None
    except ImportError:  # of the package that it would be in
        return False


def require_score(name: str, there: Mapping[str, int], where: str) -> None:
    """Raises RequestError, which says whose scores there are, unless some are by `name`.

    Args:
        name: As scores have it.
        there: Verifier → how many rows it has a score on.
        where: What was read, and on whose behalf.
    """
    if name not in there:
        others = f"the scores there are by: {counted(there)}" if there else "there are no scores: rlvr score adds them"
        raise RequestError(f"{where}: no score by {name!r}; {others}")


def counted(there: Mapping[str, int]) -> str:
    """The verifiers, and how many rows each has a score on."""
    return ", ".join(f"{name} ({count:,})" for name, count in sorted(there.items()))
