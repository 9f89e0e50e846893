"""Requirements of an installed distribution, and those not met here: read from metadata, never from a list."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata

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


def unmet(needed: Requirement, by: str) -> Iterator[str]:
    """Yield a line for each distribution that is missing or has a wrong version, in `needed` and all its requirements.

    Requirements are followed all the way down because pins break there: if another package brings its own antlr
    runtime, formulas stop parsing.
    """
    return _unmet(needed, by, set())


def _unmet(needed: Requirement, by: str, seen: set[str]) -> Iterator[str]:
    if str(needed) in seen:
        return
    seen.add(str(needed))
    try:
        found = metadata.distribution(needed.name)
    except metadata.PackageNotFoundError:
        yield f"{needed.name} is missing (needed by {by})"
        return
    if not needed.specifier.contains(found.version, prereleases=True):
        yield f"{found.name} {found.version} is installed, {by} needs {needed.specifier}"
    for below in map(Requirement, found.requires or ()):
        if any(_applies(below, extra) for extra in needed.extras or {""}):
            yield from _unmet(below, found.name, seen)


def extra_that_brings(module: str, distribution: str) -> str | None:
    """Return the first extra of `distribution` that installs a distribution named like `module`; None if none does."""
    wanted = canonicalize_name(module.partition(".")[0])
    for extra in extras(distribution):
        if any(canonicalize_name(needed.name) == wanted for needed in requirements(distribution, extra)):
            return extra
    return None


def _applies(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})
