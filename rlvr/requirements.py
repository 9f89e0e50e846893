"""Requirements of an installed distribution, and those not met here: read from metadata, never from a list."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata
from typing import NamedTuple, TypeAlias

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def extras(distribution: str) -> list[str]:
    """Return the extras that a distribution offers, in its own order. Raises PackageNotFoundError if it is missing."""
    return metadata.metadata(distribution).get_all("Provides-Extra") or []


def requirements(distribution: str, extra: str = "") -> list[Requirement]:
    """Return what a distribution requires on this machine, or what `extra` adds. Markers are evaluated and removed."""
    needed = []
    for requirement in map(Requirement, metadata.requires(distribution) or ()):
        if _applies(requirement, extra) and (not extra or not _applies(requirement, "")):
            requirement.marker = None
            needed.append(requirement)
    return needed


class Installed(NamedTuple):
    """Metadata of an installed distribution."""

    name: str
    version: str
    requires: tuple[Requirement, ...]


Known: TypeAlias = dict[str, Installed | None]
"""Distributions that were looked up, by the name that asked for them; None if missing. Reading metadata is slow."""


def unmet(needed: Requirement, by: str, known: Known | None = None) -> Iterator[str]:
    """Yield a line for each distribution that is missing or has a wrong version, in `needed` and all its requirements.

    Requirements are followed all the way down because pins break there: if another package brings its own antlr
    runtime, formulas stop parsing. Calls that share `known` read the metadata of each distribution once.
    """
    return _unmet(needed, by, set(), {} if known is None else known)


def _unmet(needed: Requirement, by: str, seen: set[str], known: Known) -> Iterator[str]:
    if str(needed) in seen:
        return
    seen.add(str(needed))
    if needed.name not in known:
        known[needed.name] = _installed(needed.name)
    found = known[needed.name]
    if found is None:
        yield f"{needed.name} is missing (needed by {by})"
        return
    if not needed.specifier.contains(found.version, prereleases=True):
        yield f"{found.name} {found.version} is installed, {by} needs {needed.specifier}"
    for below in found.requires:
        if any(_applies(below, extra) for extra in needed.extras or {""}):
            yield from _unmet(below, found.name, seen, known)


def _installed(name: str) -> Installed | None:
    try:
        found = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return None
    return Installed(found.name, found.version, tuple(map(Requirement, found.requires or ())))


def extra_that_brings(module: str, distribution: str) -> str | None:
    """Return the first extra of `distribution` that installs a distribution named like `module`; None if none does."""
    wanted = canonicalize_name(module.partition(".")[0])
    for extra in extras(distribution):
        if any(canonicalize_name(needed.name) == wanted for needed in requirements(distribution, extra)):
            return extra
    return None


def _applies(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})
