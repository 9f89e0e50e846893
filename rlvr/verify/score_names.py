"""Names of verifiers in scores, from the names that users give.

All commands that read scores (`rlvr train --rollouts`, `rlvr diagnose`, `rlvr compare`) use it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.util import find_spec

from rlvr.errors import RequestError
from rlvr.registry import registry
from rlvr.verify.composition import is_composition
from rlvr.verify.verifying import verifier_name

SAMPLER = "sampler"
"""Verifier name of the rewards that a sampler gives by itself."""

LABEL = r"[\w.-]+"
"""Pattern of a variant's label: the scores of `rlvr score --verifier math --as strict` are by `math@strict`."""


def without_label(verifier: str) -> tuple[str, str]:
    """Split a name into the part that can be loaded and `@LABEL`, which is empty without a variant."""
    variant = re.fullmatch(rf"(.+)(@{LABEL})", verifier)
    return (variant[1], variant[2]) if variant else (verifier, "")


def score_name(verifier: str) -> str:
    """Return a verifier's name in scores. Functions in files are loaded to get their names; other names are unchanged.

    A variant of a file's function is `mine.py:check@strict`. Raises PluginError if the file cannot be loaded.
    """
    reference, label = without_label(verifier)
    if is_composition(reference) or ".py:" in reference or reference.endswith(".py"):
        return verifier_name(reference) + label
    return verifier


def can_judge(verifier: str) -> bool:
    """Return whether the name can be loaded to verify. The name of a variant, or a file's function as scores call it,
    can only be looked up in scores."""
    if verifier in registry().names("verifier") or is_composition(verifier):
        return True
    place = verifier.rpartition(":")[0]
    if not place or without_label(verifier)[1]:
        return False
    if place.endswith(".py"):
        return True
    try:
        return find_spec(place) is not None
    except ImportError:  # from the package that would contain it
        return False


def require_score(name: str, there: Mapping[str, int], where: str) -> None:
    """Raise RequestError, with the verifiers that have scores, unless `name` is one of them.

    Args:
        name: The verifier's name in scores.
        there: Verifier → number of rows that it has a score on.
        where: What was read and why, for the message.
    """
    if name not in there:
        others = f"the scores there are by: {counted(there)}" if there else "there are no scores: rlvr score adds them"
        raise RequestError(f"{where}: no score by {name!r}; {others}")


def counted(there: Mapping[str, int]) -> str:
    """List the verifiers with the number of rows that each has a score on."""
    return ", ".join(f"{name} ({count:,})" for name, count in sorted(there.items()))
